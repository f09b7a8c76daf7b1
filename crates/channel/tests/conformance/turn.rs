//! Tests take turns: each starts runtimes, processes and thousands of connections, and waits for
//! what has to happen within a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

static TURN: Mutex<()> = Mutex::new(());

/// Waits until no other test of this program is at work. A test that failed has ended its turn.
pub(crate) fn take() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
