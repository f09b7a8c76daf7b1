//! A lock that is held for nanoseconds: taken by one exchange, given back by one plain store.
//!
//! K1. Between `lock` and the drop of its guard nobody else has the value.
//!
//! The standard mutex gives itself back by a second exchange, since it has to know whether somebody
//! sleeps on it; on the way of a message through memory that exchange is a quarter of the cost
//! (measured). Whoever finds this one taken looks again, then lets others run, then naps: a holder
//! that was preempted gets its turn whatever the priorities are. Nothing that is done under it may
//! wait, or run code of a user.

use std::{
    cell::UnsafeCell,
    hint::spin_loop,
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

const LOOKS: u32 = 64;
const TURNS: u32 = LOOKS + 64;
const NAP: Duration = Duration::from_micros(50);

pub(super) struct Latch<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: by K1 the value is reached by one thread at a time, and passed on by a release store and
// an acquire exchange; so it only moves between threads, for which `Send` is enough.
unsafe impl<T: Send> Sync for Latch<T> {}

/// The right to the value.
pub(super) struct Held<'l, T> {
    latch: &'l Latch<T>,
}

impl<T> Latch<T> {
    pub(super) fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    #[inline]
    pub(super) fn lock(&self) -> Held<'_, T> {
        if self.taken.swap(true, Ordering::Acquire) {
            self.wait();
        }
        Held { latch: self }
    }

    /// Returns when it has taken it.
    #[cold]
    fn wait(&self) {
        let mut turn = 0;
        loop {
            match turn {
                0..LOOKS => spin_loop(),
                LOOKS..TURNS => thread::yield_now(),
                _ => thread::sleep(NAP),
            }
            turn = turn.saturating_add(1);
            // Looking does not take the line away from the holder, as an exchange would.
            let free = !self.taken.load(Ordering::Relaxed);
            if free && !self.taken.swap(true, Ordering::Acquire) {
                return;
            }
        }
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard was made after `taken` went from false to true by this thread, and only
        // its drop sets it back: nobody else has the value (K1).
        unsafe { &*self.latch.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; and `&mut self` is the only way to this guard.
        unsafe { &mut *self.latch.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.latch.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k1_one_at_a_time_has_the_value_however_many_want_it() {
        const EACH: u64 = 30_000;
        let latch = Latch::new((0_u64, 0_u64));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let mut held = latch.lock();
                        held.0 += 1;
                        assert_eq!(held.0, held.1 + 1, "nobody was in between");
                        held.1 += 1;
                    }
                });
            }
        });
        assert_eq!(*latch.lock(), (4 * EACH, 4 * EACH));
    }

    #[test]
    fn a_holder_that_takes_its_time_is_waited_for() {
        let latch = Latch::new(0);
        thread::scope(|scope| {
            let held = latch.lock();
            let waiting = scope.spawn(|| *latch.lock());
            thread::sleep(Duration::from_millis(20));
            drop({
                let mut held = held;
                *held = 7;
                held
            });
            assert_eq!(waiting.join().unwrap(), 7);
        });
    }
}
