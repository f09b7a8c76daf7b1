//! Sleeping until a word in shared memory changes.
//!
//! Source: futex(2), without `FUTEX_PRIVATE_FLAG`, so that it works over processes.

use crate::Shared32;
use rustix::{
    io::Errno,
    thread::futex::{self, Flags, Timespec},
};
use std::time::Duration;

/// Sleeps while `word` is `seen`, at most `timeout`; returns whether it was woken or the word had
/// changed (which may also be for no reason: look at the word again).
///
/// ```
/// use mainstay_shm::{futex, Shared32};
/// use std::time::Duration;
/// let word = Shared32::new(1);
/// assert!(futex::wait(&word, 0, Duration::from_secs(1)), "changed already");
/// assert!(!futex::wait(&word, 1, Duration::from_millis(1)), "nobody wakes us");
/// ```
pub fn wait(word: &Shared32, seen: u32, timeout: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    !matches!(futex::wait(word.raw(), Flags::empty(), seen, Some(&timeout)), Err(Errno::TIMEDOUT))
}

/// Wakes everybody who sleeps on `word`.
///
/// ```
/// mainstay_shm::futex::wake_all(&mainstay_shm::Shared32::new(0));
/// ```
pub fn wake_all(word: &Shared32) {
    // The only errors are about the address, which is valid.
    let _ = futex::wake(word.raw(), Flags::empty(), i32::MAX as u32);
}
