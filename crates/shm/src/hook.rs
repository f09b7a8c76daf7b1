//! A hook before every store to shared memory and every load from it, for the crash tests.
//!
//! With the feature `hook` off, which is the default, all functions are empty and compile to
//! nothing. With it on, a test process sets a handler that counts the steps and kills or stops its
//! own process at a chosen one; and named faults can be planted, to see that the tests find them.
//!
//! Stores and loads have handlers of their own. A death matters at stores only; a process that is
//! stopped and goes on later matters at loads as well, since what it has read is old by then.
//!
//! Example: see [`step`].

#[cfg(feature = "hook")]
use std::{panic::Location, sync::OnceLock};

/// What a handler is told: the place in the source that is about to store.
///
/// Example: see [`install`].
#[cfg(feature = "hook")]
pub type Handler = fn(&'static Location<'static>);

#[cfg(feature = "hook")]
static HANDLER: OnceLock<Handler> = OnceLock::new();
#[cfg(feature = "hook")]
static LOOKS: OnceLock<Handler> = OnceLock::new();
#[cfg(feature = "hook")]
static PLANTED: OnceLock<&'static str> = OnceLock::new();

/// Called directly before each store to shared memory and each system call that changes what other
/// processes see.
///
/// ```
/// mainstay_shm::hook::step(); // a crash test may stop the process here
/// // ... the store ...
/// ```
#[inline(always)]
#[track_caller]
pub fn step() {
    #[cfg(feature = "hook")]
    if let Some(handler) = HANDLER.get() {
        handler(Location::caller());
    }
}

/// Called directly before each load of a word of shared memory that is decided on.
///
/// ```
/// mainstay_shm::hook::look(); // a crash test may stop the process here
/// // ... the load ...
/// ```
#[inline(always)]
#[track_caller]
pub fn look() {
    #[cfg(feature = "hook")]
    if let Some(handler) = LOOKS.get() {
        handler(Location::caller());
    }
}

/// Whether the fault of this name is planted in this process: a constant `false` in a normal build.
///
/// ```
/// assert!(!mainstay_shm::hook::planted("reap-waits"), "nobody planted it");
/// ```
#[inline(always)]
#[must_use]
pub fn planted(fault: &str) -> bool {
    #[cfg(feature = "hook")]
    return PLANTED.get().is_some_and(|planted| *planted == fault);
    #[cfg(not(feature = "hook"))]
    {
        let _ = fault;
        false
    }
}

/// Installs the handler of this process; children made by fork inherit it.
///
/// ```
/// mainstay_shm::hook::install(|place| eprintln!("about to store: {place}"));
/// mainstay_shm::hook::step();
/// ```
///
/// # Panics
/// When one is installed already.
#[cfg(feature = "hook")]
pub fn install(handler: Handler) {
    assert!(HANDLER.set(handler).is_ok(), "a process installs its hook once");
}

/// Installs the handler of this process for loads; children made by fork inherit it.
///
/// ```
/// mainstay_shm::hook::install_looks(|place| eprintln!("about to load: {place}"));
/// mainstay_shm::hook::look();
/// ```
///
/// # Panics
/// When one is installed already.
#[cfg(feature = "hook")]
pub fn install_looks(handler: Handler) {
    assert!(LOOKS.set(handler).is_ok(), "a process installs its hook for loads once");
}

/// Plants one fault in this process; children made by fork inherit it.
///
/// ```
/// mainstay_shm::hook::plant("reap-waits");
/// assert!(mainstay_shm::hook::planted("reap-waits"));
/// ```
///
/// # Panics
/// When one is planted already.
#[cfg(feature = "hook")]
pub fn plant(fault: &'static str) {
    assert!(PLANTED.set(fault).is_ok(), "a process plants one fault, once");
}
