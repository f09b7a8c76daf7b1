//! The functions of `mainstay_sds.h`.
//!
//! What all of them ask of their caller: a pointer that is not null is valid for as much as the
//! header says, during the call, and what is written to is not used by others meanwhile.

use std::{
    ffi::{c_char, c_int, c_void},
    path::PathBuf,
    ptr,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use mainstay_sds::{
    Channel, NimSnapshot, Now, Received,
    persist::{Durability, Persistence, PoolPersistence, StorePersistence},
};

use super::{
    backend::Backend,
    body::{Body, Node},
    failure::{self, Failure, Outcome, entry},
    layout::{RawBackend, RawConfig, RawCounts, RawOutput, Time},
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

fn open(
    participant: Option<Vec<u8>>,
    keeper: Option<Box<dyn Persistence + Send>>,
) -> Outcome<*mut c_void> {
    let participant = participant.ok_or_else(|| Failure::null("the participant's id"))?;
    Ok(NODES.insert(Node::new(&participant, keeper)?))
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of this file.
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
/// See the head of this file.
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
/// See the head of this file.
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
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_close(node: *mut c_void) -> i32 {
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
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_join(
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
/// See the head of this file.
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
/// See the head of this file.
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
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_forget(node: *mut c_void, channel: *const c_char) -> i32 {
    // SAFETY: the caller promises that it is null or a terminated text.
    let channel = unsafe { raw::text(channel) };
    with(node, |body| {
        body.forget(&name_of(channel)?)?;
        Ok(0)
    })
}

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_send(
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
/// See the head of this file.
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
/// See the head of this file.
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
/// See the head of this file.
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
/// See the head of this file.
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
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn mainstay_sds_poll(
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
/// See the head of this file.
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
/// See the head of this file.
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
/// See the head of this file.
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
/// See the head of this file.
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
/// See the head of this file.
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
/// See the head of this file.
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

/// See `mainstay_sds.h`.
///
/// # Safety
/// See the head of this file.
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
/// See the head of this file.
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

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_sds::{Result, persist::Change};

    /// A place with a fault of its own.
    struct Faulty;

    impl Persistence for Faulty {
        fn save(&mut self, _: &str, _: &Change<'_>) -> Result<()> {
            panic!("a fault while a change is saved")
        }

        fn load(&mut self, channel: &str) -> Result<Vec<Vec<u8>>> {
            assert!(channel != "faulty", "a fault while a channel is loaded");
            Ok(Vec::new())
        }

        fn forget(&mut self, _: &str) -> Result<()> {
            Ok(())
        }

        fn channels(&mut self) -> Result<Vec<String>> {
            Ok(Vec::new())
        }
    }

    const INTERNAL: i32 = -6;

    #[test]
    fn f1_a_panic_inside_is_a_number_outside_and_the_node_goes_on() {
        let node = open(Some(b"bob".to_vec()), Some(Box::new(Faulty))).unwrap();
        let now = Time { mono_ms: 1, wall_ms: 1 };
        let mut config = RawConfig::default_of(0).unwrap();
        config.keep_durably();
        // SAFETY: all pointers are those of values that live.
        let join = |name: &std::ffi::CStr| unsafe {
            mainstay_sds_join(node, now, name.as_ptr(), &raw const config)
        };
        assert_eq!(join(c"faulty"), INTERNAL);
        // SAFETY: a text of this thread, which makes no other call meanwhile.
        let text = unsafe { std::ffi::CStr::from_ptr(mainstay_sds_error()) };
        assert!(text.to_string_lossy().contains("a fault in the library"), "{text:?}");
        assert_eq!(join(c"room"), 0);
        let (id, content) = (b"m1", b"hello");
        // SAFETY: all pointers are those of values that live.
        let sent = unsafe {
            let (id, content) = (id.as_ptr().cast(), content.as_ptr().cast());
            mainstay_sds_send(node, now, c"room".as_ptr(), id, 2, content, 5)
        };
        assert_eq!(sent, 0);
        let mut output = std::mem::MaybeUninit::<RawOutput>::uninit();
        // SAFETY: there is room for an output.
        let polled = unsafe { mainstay_sds_poll(node, now, output.as_mut_ptr()) };
        assert_eq!(polled, INTERNAL);
        assert_eq!(join(c"another room"), 0);
        // SAFETY: any value is allowed.
        assert_eq!(unsafe { mainstay_sds_close(node) }, 0);
    }
}
