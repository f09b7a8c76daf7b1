//! Sleeping until a word in shared memory changes.
//!
//! Source: futex(2), without `FUTEX_PRIVATE_FLAG`, so that it works over processes.
//!
//! Example: see [`wait`].

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Backing, Mapping};
    use std::{sync::atomic::Ordering::Relaxed, time::Instant};

    fn two_mappings() -> [Mapping; 2] {
        let backing = Backing::memfd("test").unwrap();
        backing.allocate(0, 4_096).unwrap();
        [0, 1].map(|_| {
            let mapping = Mapping::new(&backing, 4_096, Access::ReadWrite).unwrap();
            mapping.refresh(&backing).unwrap();
            mapping
        })
    }

    #[test]
    fn a_sleeper_is_woken_through_another_mapping_of_the_word() {
        let [ours, theirs] = two_mappings();
        let word = &ours.view::<Shared32>(64, 1).unwrap()[0];
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                let seen = theirs.view::<Shared32>(64, 1).unwrap();
                let start = Instant::now();
                while seen[0].load(Relaxed) == 0 {
                    wait(&seen[0], 0, Duration::from_secs(20));
                }
                start.elapsed()
            });
            std::thread::sleep(Duration::from_millis(20));
            word.increment(Relaxed);
            wake_all(word);
            let slept = sleeper.join().unwrap();
            assert!(slept < Duration::from_secs(10), "not woken: {slept:?}");
        });
    }

    #[test]
    fn a_word_that_has_changed_is_not_waited_for_and_a_timeout_is_kept() {
        let word = Shared32::new(5);
        let start = Instant::now();
        assert!(wait(&word, 4, Duration::from_secs(20)));
        assert!(!wait(&word, 5, Duration::from_millis(20)));
        assert!((Duration::from_millis(20)..Duration::from_secs(10)).contains(&start.elapsed()));
        assert!(!wait(&word, 5, Duration::ZERO));
    }
}
