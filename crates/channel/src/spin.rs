//! Looking again for a moment before going to sleep, as long as that pays.
//!
//! Sleeping and waking takes some microseconds, so it is worth looking that long, if the other side
//! is at work on another processor right now. On a busy machine it mostly is not, and whoever looks
//! takes the processor away from it. So each success makes the next look longer, each failure halves
//! it, and when nothing is left of it there is a short try now and then. A thread in any case gives
//! others their turn a few times first: if the other side is one of them, that is the quickest way to
//! it, and it does much at once (measured: half the time a message on a machine under load). A task
//! does not, as its thread is not its own.

use std::{
    hint::spin_loop,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

/// About three microseconds.
const PAUSES_MAX: u32 = 256;
const YIELDS: u32 = 4;
const PAUSES_TRY: u32 = 48;
/// How many do without, between two tries.
const TRY_EVERY: u32 = 32;

/// How long looking again has paid so far.
#[derive(Debug)]
pub(crate) struct Spin {
    pauses: AtomicU32,
    calls: AtomicU32,
}

impl Spin {
    pub(crate) fn new() -> Self {
        Self { pauses: AtomicU32::new(PAUSES_MAX), calls: AtomicU32::new(0) }
    }

    /// Looks until something is found, or it no longer pays; then gives others their turn.
    #[inline]
    pub(crate) fn find<T, E>(
        &self,
        mut look: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        if let Some(found) = self.find_at_once(&mut look)? {
            return Ok(Some(found));
        }
        for _ in 0..YIELDS {
            std::thread::yield_now();
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The same for a task, which never blocks the thread that it shares with others: it looks for
    /// some microseconds at most.
    #[inline]
    pub(crate) fn find_at_once<T, E>(
        &self,
        mut look: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let limit = self.limit();
        let (mut spent, mut step) = (0, 1);
        while spent < limit {
            (0..step).for_each(|_| spin_loop());
            spent += step;
            step = (step + 1).min(8);
            if let Some(found) = look()? {
                self.pauses.store((limit * 2).min(PAUSES_MAX), Relaxed);
                return Ok(Some(found));
            }
        }
        if limit > 0 {
            self.pauses.store(limit / 2, Relaxed);
        }
        Ok(None)
    }

    fn limit(&self) -> u32 {
        let pauses = self.pauses.load(Relaxed);
        if alone() {
            return 0;
        }
        if pauses >= PAUSES_TRY / 2 {
            return pauses;
        }
        if self.calls.fetch_add(1, Relaxed).is_multiple_of(TRY_EVERY) { PAUSES_TRY } else { 0 }
    }
}

/// With one processor, whoever looks keeps the other side from running.
fn alone() -> bool {
    static ALONE: OnceLock<bool> = OnceLock::new();
    *ALONE.get_or_init(|| std::thread::available_parallelism().is_ok_and(|count| count.get() == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often it looks.
    fn looks(spin: &Spin, succeeds_at: u32) -> u32 {
        let mut looks = 0;
        let _ = spin.find_at_once(|| {
            looks += 1;
            Ok::<_, ()>((looks == succeeds_at).then_some(()))
        });
        looks
    }

    #[test]
    fn a_thread_looks_again_after_each_turn_that_it_has_given_to_others_and_a_task_gives_none() {
        let (thread, task) = (Spin::new(), Spin::new());
        let mut count = 0;
        let found = thread.find(|| {
            count += 1;
            Ok::<Option<()>, ()>(None)
        });
        assert_eq!((found, count), (Ok(None), looks(&task, u32::MAX) + YIELDS));
    }

    #[test]
    fn failures_make_it_shorter_until_only_a_try_is_left_and_successes_bring_it_back() {
        let spin = Spin::new();
        if alone() {
            assert_eq!(looks(&spin, u32::MAX), 0);
            return;
        }
        let first = looks(&spin, u32::MAX);
        assert!(first > 20, "{first}");
        let later: Vec<u32> = (0..200).map(|_| looks(&spin, u32::MAX)).collect();
        let tries = later[20..].iter().filter(|looks| **looks > 0).count();
        assert!(
            (6..=14).contains(&tries),
            "{tries} of 180: one in 32, and one half as long after it"
        );
        (0..8 * TRY_EVERY).for_each(|_| _ = looks(&spin, 1));
        assert_eq!(looks(&spin, u32::MAX), first);
    }
}
