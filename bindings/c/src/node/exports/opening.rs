//! Nodes, and the channels they are in.

use std::{
    ffi::{c_char, c_void},
    path::PathBuf,
    ptr,
};

use mainstay_sds::{
    NimSnapshot,
    persist::{Durability, Persistence, PoolPersistence, StorePersistence},
};

use super::{NODES, name_of, read, with, write};
use crate::{
    node::{
        backend::Backend,
        body::Node,
        failure::{Failure, Outcome, entry},
        layout::{RawBackend, RawConfig, Time},
    },
    raw,
};

pub(super) fn open(
    participant: Option<Vec<u8>>,
    keeper: Option<Box<dyn Persistence + Send>>,
) -> Outcome<*mut c_void> {
    let participant = participant.ok_or_else(|| Failure::null("the participant's id"))?;
    Ok(NODES.insert(Node::new(&participant, keeper)?))
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_open(
    participant: *const c_void,
    participant_len: usize,
    backend: *const RawBackend,
    node: *mut *mut c_void,
) -> i32 {
    entry(|| {
        // SAFETY: the caller promises that it is null or has so many bytes.
        let participant = unsafe { raw::bytes(participant.cast(), participant_len) };
        // SAFETY: the caller promises that it is null or such a structure.
        let keeper = match unsafe { read(backend) } {
            Some(raw) => Some(Box::new(Backend::new(&raw)?) as Box<dyn Persistence + Send>),
            None => None,
        };
        // SAFETY: the caller promises that it is null or can be written to.
        unsafe { write(node, ptr::null_mut(), "where the node goes") }?;
        let opened = open(participant, keeper)?;
        // SAFETY: as above.
        unsafe { write(node, opened, "where the node goes") }?;
        Ok(0)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_open_pool(
    participant: *const c_void,
    participant_len: usize,
    folder: *const c_char,
    name: *const c_char,
    node: *mut *mut c_void,
) -> i32 {
    entry(|| {
        // SAFETY: the caller promises that it is null or has so many bytes.
        let participant = unsafe { raw::bytes(participant.cast(), participant_len) };
        // SAFETY: the caller promises that both are null or terminated texts.
        let folder = unsafe { raw::text(folder) }.ok_or_else(|| Failure::null("the folder"))?;
        // SAFETY: as above.
        let name = unsafe { raw::text(name) }.ok_or_else(|| Failure::null("the pool's name"))?;
        let no_text = |_| Failure::argument("the pool's name is no UTF-8 text");
        let name = String::from_utf8(name).map_err(no_text)?;
        // SAFETY: the caller promises that it is null or can be written to.
        unsafe { write(node, ptr::null_mut(), "where the node goes") }?;
        use std::os::unix::ffi::OsStringExt;
        let folder = PathBuf::from(std::ffi::OsString::from_vec(folder));
        let keeper = PoolPersistence::open(folder, &name)?;
        let opened = open(participant, Some(Box::new(keeper)))?;
        // SAFETY: as above.
        unsafe { write(node, opened, "where the node goes") }?;
        Ok(0)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_open_store(
    participant: *const c_void,
    participant_len: usize,
    folder: *const c_char,
    node: *mut *mut c_void,
) -> i32 {
    entry(|| {
        // SAFETY: the caller promises that it is null or has so many bytes.
        let participant = unsafe { raw::bytes(participant.cast(), participant_len) };
        // SAFETY: the caller promises that it is null or a terminated text.
        let folder = unsafe { raw::text(folder) }.ok_or_else(|| Failure::null("the folder"))?;
        // SAFETY: the caller promises that it is null or can be written to.
        unsafe { write(node, ptr::null_mut(), "where the node goes") }?;
        use std::os::unix::ffi::OsStringExt;
        let folder = PathBuf::from(std::ffi::OsString::from_vec(folder));
        let keeper = StorePersistence::open(folder, Durability::Group)?;
        let opened = open(participant, Some(Box::new(keeper)))?;
        // SAFETY: as above.
        unsafe { write(node, opened, "where the node goes") }?;
        Ok(0)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mainstay_sds_close(node: *mut c_void) -> i32 {
    entry(|| {
        let node = NODES.remove(node).ok_or_else(Failure::closed)?;
        // Whoever is inside is through before this returns; a backend is inside itself.
        match node.with(|_| Ok(0)) {
            Ok(_) => Ok(0),
            Err(busy) => Err(busy),
        }
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mainstay_sds_join(
    node: *mut c_void,
    now: Time,
    channel: *const c_char,
    config: *const RawConfig,
) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    // SAFETY: the caller promises that it is null or such a structure.
    let config = unsafe { read(config) };
    with(node, |body| {
        let config = config.ok_or_else(|| Failure::null("the configuration"))?.read()?;
        body.join(now.into(), &name_of(channel)?, config)?;
        Ok(0)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_import_nim(
    node: *mut c_void,
    now: Time,
    channel: *const c_char,
    config: *const RawConfig,
    snapshot: *const c_void,
    len: usize,
) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    // SAFETY: the caller promises that it is null or such a structure.
    let config = unsafe { read(config) };
    // SAFETY: the caller promises that it is null or has so many bytes.
    let snapshot = unsafe { raw::bytes(snapshot.cast(), len) };
    with(node, |body| {
        let config = config.ok_or_else(|| Failure::null("the configuration"))?.read()?;
        let snapshot = snapshot.ok_or_else(|| Failure::null("the snapshot"))?;
        let snapshot = NimSnapshot::parse(&snapshot)?;
        body.import_nim(now.into(), &name_of(channel)?, config, &snapshot)?;
        Ok(0)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_leave(node: *mut c_void, channel: *const c_char) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    with(node, |body| {
        body.participant.leave(&name_of(channel)?)?;
        Ok(0)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_forget(node: *mut c_void, channel: *const c_char) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    with(node, |body| {
        body.forget(&name_of(channel)?)?;
        Ok(0)
    })
}
