//! Sending and receiving, and what comes of it.

use std::ffi::{c_char, c_int, c_void};

use mainstay_sds::Received;

use super::{name_of, with, with_channel, write};
use crate::{
    node::{
        failure::Failure,
        layout::{RawOutput, Time},
    },
    raw,
};

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mainstay_sds_send(
    node: *mut c_void,
    now: Time,
    channel: *const c_char,
    id: *const c_void,
    id_len: usize,
    content: *const c_void,
    content_len: usize,
) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    // SAFETY: the caller promises that it is null or has so many bytes.
    let id = unsafe { raw::bytes(id.cast(), id_len) };
    // SAFETY: as above.
    let content = unsafe { raw::bytes(content.cast(), content_len) };
    with_channel(node, now, channel, |channel, now| {
        let id = id.ok_or_else(|| Failure::null("the message's id"))?;
        let content = content.ok_or_else(|| Failure::null("the content"))?;
        channel.send(now, &id, &content)?;
        Ok(0)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_send_ephemeral(
    node: *mut c_void,
    now: Time,
    channel: *const c_char,
    id: *const c_void,
    id_len: usize,
    content: *const c_void,
    content_len: usize,
) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    // SAFETY: the caller promises that it is null or has so many bytes.
    let id = unsafe { raw::bytes(id.cast(), id_len) };
    // SAFETY: as above.
    let content = unsafe { raw::bytes(content.cast(), content_len) };
    with_channel(node, now, channel, |channel, _| {
        let id = id.ok_or_else(|| Failure::null("the message's id"))?;
        let content = content.ok_or_else(|| Failure::null("the content"))?;
        channel.send_ephemeral(&id, &content)?;
        Ok(0)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_receive(
    node: *mut c_void,
    now: Time,
    bytes: *const c_void,
    len: usize,
) -> i32 {
    // SAFETY: the caller promises that it is null or has so many bytes.
    let bytes = unsafe { raw::bytes(bytes.cast(), len) };
    with(node, |body| {
        let bytes = bytes.ok_or_else(|| Failure::null("the message"))?;
        Ok(match body.participant.receive(now.into(), &bytes)? {
            Received::Delivered { .. } => 1,
            Received::Buffered { .. } => 2,
            Received::Duplicate => 3,
            Received::Own => 4,
            Received::Sync => 5,
            Received::Ephemeral => 6,
            Received::TooOld => 7,
            _ => 0,
        })
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_handle_timeout(node: *mut c_void, now: Time) -> i32 {
    with(node, |body| {
        body.participant.handle_timeout(now.into());
        Ok(0)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_next_timeout(node: *mut c_void, mono_ms: *mut u64) -> i32 {
    with(node, |body| {
        let Some(at) = body.participant.poll_timeout() else { return Ok(0) };
        // SAFETY: the caller promises that it is null or can be written to.
        unsafe { write(mono_ms, at, "where the time goes") }?;
        Ok(1)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn mainstay_sds_poll(
    node: *mut c_void,
    now: Time,
    output: *mut RawOutput,
) -> i32 {
    with(node, |body| {
        if output.is_null() || !output.is_aligned() {
            // Before anything is taken that would then be lost.
            return Err(Failure::null("where the output goes"));
        }
        let Some(next) = body.poll(now.into())? else { return Ok(0) };
        // SAFETY: the caller promises that it is null or can be written to.
        unsafe { write(output, next, "where the output goes") }?;
        Ok(1)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_persisted(
    node: *mut c_void,
    now: Time,
    channel: *const c_char,
    number: u64,
    ok: c_int,
) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    with(node, |body| {
        body.kept(now.into(), &name_of(channel)?, number, ok != 0)?;
        Ok(0)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_confirm(
    node: *mut c_void,
    now: Time,
    channel: *const c_char,
    number: u64,
) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    with_channel(node, now, channel, |channel, _| {
        channel.confirm(number)?;
        Ok(0)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_set_hint(
    node: *mut c_void,
    now: Time,
    channel: *const c_char,
    id: *const c_void,
    id_len: usize,
    hint: *const c_void,
    hint_len: usize,
) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    // SAFETY: the caller promises that it is null or has so many bytes.
    let id = unsafe { raw::bytes(id.cast(), id_len) };
    // SAFETY: as above.
    let hint = unsafe { raw::bytes(hint.cast(), hint_len) };
    with_channel(node, now, channel, |channel, _| {
        let id = id.ok_or_else(|| Failure::null("the message's id"))?;
        let hint = hint.ok_or_else(|| Failure::null("the hint"))?;
        Ok(i32::from(channel.set_retrieval_hint(&id, &hint)?))
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_mark_known(
    node: *mut c_void,
    now: Time,
    channel: *const c_char,
    id: *const c_void,
    id_len: usize,
) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    // SAFETY: the caller promises that it is null or has so many bytes.
    let id = unsafe { raw::bytes(id.cast(), id_len) };
    with_channel(node, now, channel, |channel, now| {
        let id = id.ok_or_else(|| Failure::null("the message's id"))?;
        channel.mark_known(now, &id)?;
        Ok(0)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_announce(
    node: *mut c_void,
    now: Time,
    channel: *const c_char,
) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    with_channel(node, now, channel, |channel, now| {
        channel.announce(now);
        Ok(0)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of `exports`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_announce_now(
    node: *mut c_void,
    now: Time,
    channel: *const c_char,
) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    with_channel(node, now, channel, |channel, now| {
        channel.announce_now(now)?;
        Ok(0)
    })
}
