//! Waiting that an interrupt ends.

use crate::interrupt::Interrupt;
use mainstay::channel::Channel;
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// How long one waits before looking whether to go on.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Does `work` with the channel. An interrupt meanwhile aborts the channel, and with it every wait
/// in a send or a receive, however long.
pub(super) fn with<T>(channel: &dyn Channel, interrupt: &Interrupt, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            while !over.load(Relaxed) {
                if interrupt.is_asked() {
                    return channel.abort();
                }
                thread::park_timeout(LOOK);
            }
        });
        let outcome = work();
        over.store(true, Relaxed);
        watching.thread().unpark();
        outcome
    })
}

/// Sleeps, unless there is an interrupt.
pub(super) fn rest(time: Duration, interrupt: &Interrupt) {
    let start = Instant::now();
    while !interrupt.is_asked() {
        let left = time.saturating_sub(start.elapsed());
        if left.is_zero() {
            break;
        }
        thread::sleep(left.min(LOOK));
    }
}
