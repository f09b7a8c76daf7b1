//! The functions of `mainstay_sds.h`.
//!
//! | file | which |
//! |---|---|
//! | `opening.rs` | nodes, and the channels they are in |
//! | `talking.rs` | sending, receiving, what comes of it |
//! | `looking.rs` | what there is |
//!
//! What all of them ask of their caller: a pointer that is not null is valid for as much as the
//! header says, during the call, and what is written to is not used by others meanwhile.

mod looking;
mod opening;
mod talking;
#[cfg(test)]
mod tests;

use std::{
    ffi::{c_char, c_void},
    ptr,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use mainstay_sds::{Channel, Now};

use super::{
    body::{Body, Node},
    failure::{self, Failure, Outcome, entry},
    layout::{RawConfig, Time},
};
use crate::{raw, registry::Registry};

static NODES: Registry<Node> = Registry::new();

fn with(node: *mut c_void, work: impl FnOnce(&mut Body) -> Outcome<i32>) -> i32 {
    entry(|| NODES.get(node).ok_or_else(Failure::closed)?.with(work))
}

/// A name that a caller gave.
fn name_of(name: Option<Vec<u8>>) -> Outcome<String> {
    let name = name.ok_or_else(|| Failure::null("the channel's name"))?;
    String::from_utf8(name).map_err(|_| Failure::argument("the channel's name is no UTF-8 text"))
}

/// Does something with a channel, and takes note of it.
fn with_channel(
    node: *mut c_void,
    now: Time,
    name: Option<Vec<u8>>,
    work: impl FnOnce(&mut Channel, Now) -> Outcome<i32>,
) -> i32 {
    with(node, |body| {
        let (name, now) = (name_of(name)?, Now::from(now));
        let done = work(body.participant.channel(now, &name)?, now);
        body.participant.touched(&name);
        done
    })
}

/// Writes a value where the caller wants it.
///
/// # Safety
/// If `to` is not null, a value of the type can be written there.
unsafe fn write<T>(to: *mut T, value: T, what: &str) -> Outcome<()> {
    if to.is_null() || !to.is_aligned() {
        return Err(Failure::null(what));
    }
    // SAFETY: not null and aligned, and the caller promises that there is room.
    unsafe { to.write(value) };
    Ok(())
}

/// Reads a structure of the caller's; none if it is null.
///
/// # Safety
/// If `from` is not null, a value of the type, of which any bytes are one, can be read there.
unsafe fn read<T: Copy>(from: *const T) -> Option<T> {
    if from.is_null() || !from.is_aligned() {
        return None;
    }
    // SAFETY: not null and aligned, and the caller promises that there is a value.
    Some(unsafe { from.read() })
}

/// See `mainstay_sds.h`.
#[unsafe(no_mangle)]
extern "C" fn mainstay_sds_error() -> *const c_char {
    raw::guarded(ptr::null(), failure::last)
}

/// See `mainstay_sds.h`.
#[unsafe(no_mangle)]
extern "C" fn mainstay_sds_now() -> Time {
    static STARTED: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    raw::guarded(Time { mono_ms: 0, wall_ms: 0 }, || {
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mono = STARTED.get_or_init(Instant::now).elapsed();
        Time { mono_ms: ms(mono), wall_ms: ms(wall) }
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_config_default(profile: u32, config: *mut RawConfig) -> i32 {
    entry(|| {
        let default = RawConfig::default_of(profile)?;
        // SAFETY: the caller promises that it is null or can be written to.
        unsafe { write(config, default, "the configuration") }?;
        Ok(0)
    })
}
