//! What there is.

use std::ffi::{c_char, c_void};

use super::{with_channel, write};
use crate::{
    node::{
        failure::Failure,
        layout::{RawCounts, Time},
    },
    raw,
};

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_get_counts(
    node: *mut c_void,
    now: Time,
    channel: *const c_char,
    counts: *mut RawCounts,
) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    with_channel(node, now, channel, |channel, _| {
        // SAFETY: the caller promises that it is null or can be written to.
        unsafe { write(counts, RawCounts::from(channel.counts()), "where the counts go") }?;
        Ok(0)
    })
}

/// `give` of `mainstay_sds_log`.
type Give = Option<
    unsafe extern "C" fn(*mut c_void, *const u8, usize, *const u8, usize, u64, *const u8, usize),
>;

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_log(
    node: *mut c_void,
    now: Time,
    channel: *const c_char,
    give: Give,
    to: *mut c_void,
) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    with_channel(node, now, channel, |channel, _| {
        let give = give.ok_or_else(|| Failure::null("the function that takes messages"))?;
        for entry in channel.log() {
            let (id, sender, content) = (entry.id, entry.sender, entry.content);
            // SAFETY: the function came from the host as one of this type, and all pointers are
            // valid during the call, as the header says; it does not call the node, which would
            // refuse it.
            unsafe {
                give(
                    to,
                    id.as_ptr(),
                    id.len(),
                    sender.as_ptr(),
                    sender.len(),
                    entry.lamport,
                    content.as_ptr(),
                    content.len(),
                );
            }
        }
        Ok(0)
    })
}
