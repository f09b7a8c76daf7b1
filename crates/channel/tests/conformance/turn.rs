//! Tests take turns: many start runtimes, processes and thousands of connections, count what the
//! process has, and wait for what has to happen within a time. Those that mostly wait themselves
//! share theirs with each other.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static TURN: RwLock<()> = RwLock::new(());

/// Waits until no other test of this program is at work. A test that failed has ended its turn.
pub(crate) fn take() -> RwLockWriteGuard<'static, ()> {
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no test that wants to be alone is at work.
pub(crate) fn share() -> RwLockReadGuard<'static, ()> {
    TURN.read().unwrap_or_else(PoisonError::into_inner)
}
