//! The functions of `libsds.h`.
//!
//! What all of them ask of their caller: a pointer that is not null is valid for as much as the
//! header says, during the call; a callback is a function of the type that the header gives, and
//! may be called from another thread.

use std::{
    ffi::{c_char, c_int, c_void},
    ptr,
};

use super::{
    config::Settings,
    manager::{Manager, RET_ERR, RET_OK, Worker},
};
use crate::{
    raw::{self, Callback, HintProvider, SdsCallBack, SdsRetrievalHintProvider, guarded},
    registry::Registry,
};

const RET_MISSING_CALLBACK: c_int = 2;

static MANAGERS: Registry<Manager> = Registry::new();

/// Tells the caller at once what is wrong with a call.
fn refuse(callback: Callback, why: &str) -> c_int {
    callback.call(RET_ERR, why);
    RET_ERR
}

const NO_MANAGER: &str = "there is no such manager: it was cleaned up, or never made";

/// What all calls do that a manager answers.
fn ask(
    ctx: *mut c_void,
    callback: SdsCallBack,
    data: *mut c_void,
    work: impl FnOnce(&mut Worker) -> Result<String, String> + Send + 'static,
) -> c_int {
    let Some(callback) = Callback::new(callback, data) else { return RET_MISSING_CALLBACK };
    let Some(manager) = MANAGERS.get(ctx) else { return refuse(callback, NO_MANAGER) };
    if manager.ask(callback, work) { RET_OK } else { refuse(callback, NO_MANAGER) }
}

fn start(id: &[u8], json: &[u8], callback: SdsCallBack, data: *mut c_void) -> *mut c_void {
    let Some(callback) = Callback::new(callback, data) else { return ptr::null_mut() };
    let manager = Settings::parse(json)
        .and_then(|settings| Manager::start(id, settings).map_err(|error| error.to_string()));
    match manager {
        Ok(manager) => {
            // It was just started, so it is there to take this.
            let _taken = manager.ask(callback, |_| Ok(String::new()));
            MANAGERS.insert(manager)
        }
        Err(why) => {
            refuse(callback, &why);
            ptr::null_mut()
        }
    }
}

/// See `libsds.h`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn SdsNewReliabilityManager(
    callback: SdsCallBack,
    user_data: *mut c_void,
) -> *mut c_void {
    guarded(ptr::null_mut(), || start(b"", b"", callback, user_data))
}

/// See `libsds.h`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn SdsNewReliabilityManagerWithConfig(
    participant_id: *const c_char,
    config_json: *const c_char,
    callback: SdsCallBack,
    user_data: *mut c_void,
) -> *mut c_void {
    guarded(ptr::null_mut(), || {
        // SAFETY: the caller promises that both are null or terminated texts.
        let id = unsafe { raw::text(participant_id) }.unwrap_or_default();
        // SAFETY: as above.
        let json = unsafe { raw::text(config_json) }.unwrap_or_default();
        start(&id, &json, callback, user_data)
    })
}

/// See `libsds.h`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn SdsSetEventCallback(
    ctx: *mut c_void,
    callback: SdsCallBack,
    user_data: *mut c_void,
) {
    guarded((), || {
        let callback = Callback::new(callback, user_data);
        if let Some(manager) = MANAGERS.get(ctx) {
            // One that has ended has no events.
            let _taken = manager.tell(move |worker| worker.events = callback);
        }
    });
}

/// See `libsds.h`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn SdsSetRetrievalHintProvider(
    ctx: *mut c_void,
    callback: SdsRetrievalHintProvider,
    user_data: *mut c_void,
) {
    guarded((), || {
        let provider = HintProvider::new(callback, user_data);
        if let Some(manager) = MANAGERS.get(ctx) {
            // One that has ended asks for no hints.
            let _taken = manager.tell(move |worker| worker.hints = provider);
        }
    });
}

/// See `libsds.h`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn SdsCleanupReliabilityManager(
    ctx: *mut c_void,
    callback: SdsCallBack,
    user_data: *mut c_void,
) -> c_int {
    guarded(RET_ERR, || {
        let Some(callback) = Callback::new(callback, user_data) else {
            return RET_MISSING_CALLBACK;
        };
        // Whoever removes it is the one who ends it.
        let Some(manager) = MANAGERS.remove(ctx) else { return refuse(callback, NO_MANAGER) };
        if !manager.ask(callback, Worker::end) {
            return refuse(callback, NO_MANAGER);
        }
        manager.join();
        RET_OK
    })
}

/// See `libsds.h`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn SdsResetReliabilityManager(
    ctx: *mut c_void,
    callback: SdsCallBack,
    user_data: *mut c_void,
) -> c_int {
    guarded(RET_ERR, || ask(ctx, callback, user_data, Worker::reset))
}

/// What a call says that gives null where there must be something.
fn refuse_null(callback: SdsCallBack, data: *mut c_void, what: &str) -> c_int {
    match Callback::new(callback, data) {
        Some(callback) => refuse(callback, &format!("{what} is NULL, or its length is absurd")),
        None => RET_MISSING_CALLBACK,
    }
}

/// See `libsds.h`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn SdsWrapOutgoingMessage(
    ctx: *mut c_void,
    message: *mut c_void,
    message_len: usize,
    message_id: *const c_char,
    channel_id: *const c_char,
    callback: SdsCallBack,
    user_data: *mut c_void,
) -> c_int {
    guarded(RET_ERR, || {
        // SAFETY: the caller promises that it is null or has so many bytes.
        let content = unsafe { raw::bytes(message.cast_const().cast(), message_len) };
        // SAFETY: the caller promises that both are null or terminated texts.
        let id = unsafe { raw::text(message_id) };
        // SAFETY: as above.
        let channel = unsafe { raw::text(channel_id) };
        let (Some(content), Some(id), Some(channel)) = (content, id, channel) else {
            return refuse_null(callback, user_data, "the message, its id or the channel's");
        };
        ask(ctx, callback, user_data, move |worker| worker.wrap(&content, &id, &channel))
    })
}

/// See `libsds.h`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn SdsUnwrapReceivedMessage(
    ctx: *mut c_void,
    message: *mut c_void,
    message_len: usize,
    callback: SdsCallBack,
    user_data: *mut c_void,
) -> c_int {
    guarded(RET_ERR, || {
        // SAFETY: the caller promises that it is null or has so many bytes.
        let Some(bytes) = (unsafe { raw::bytes(message.cast_const().cast(), message_len) }) else {
            return refuse_null(callback, user_data, "the message");
        };
        ask(ctx, callback, user_data, move |worker| worker.unwrap(&bytes))
    })
}

/// See `libsds.h`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn SdsMarkDependenciesMet(
    ctx: *mut c_void,
    message_ids: *mut *mut c_char,
    count: usize,
    channel_id: *const c_char,
    callback: SdsCallBack,
    user_data: *mut c_void,
) -> c_int {
    guarded(RET_ERR, || {
        // SAFETY: the caller promises that it is null or has so many terminated texts.
        let ids = unsafe { raw::texts(message_ids.cast_const().cast(), count) };
        // SAFETY: the caller promises that it is null or a terminated text.
        let channel = unsafe { raw::text(channel_id) };
        let (Some(ids), Some(channel)) = (ids, channel) else {
            return refuse_null(callback, user_data, "the list, an id in it, or the channel's");
        };
        ask(ctx, callback, user_data, move |worker| worker.mark_met(&ids, &channel))
    })
}

/// See `libsds.h`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn SdsStartPeriodicTasks(
    ctx: *mut c_void,
    callback: SdsCallBack,
    user_data: *mut c_void,
) -> c_int {
    guarded(RET_ERR, || ask(ctx, callback, user_data, Worker::start_periodic_tasks))
}

/// See `libsds.h`.
///
/// # Safety
/// See the head of this file.
#[unsafe(no_mangle)]
unsafe extern "C" fn SdsRemoveChannel(
    ctx: *mut c_void,
    channel_id: *const c_char,
    callback: SdsCallBack,
    user_data: *mut c_void,
) -> c_int {
    guarded(RET_ERR, || {
        // SAFETY: the caller promises that it is null or a terminated text.
        let Some(channel) = (unsafe { raw::text(channel_id) }) else {
            return refuse_null(callback, user_data, "the channel's id");
        };
        ask(ctx, callback, user_data, move |worker| worker.remove(&channel))
    })
}
