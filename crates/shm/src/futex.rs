//! Sleeping until a word in shared memory changes.
//!
//! Source: futex(2), without `FUTEX_PRIVATE_FLAG`, so that it works over processes.
//!
//! Example: see [`wait`].

use crate::Shared32;
use rustix::{
    io::Errno,
    thread::{
        ClockId,
        futex::{self, Flags, Timespec, Wait, WaitFlags, WaitPtr, WaitvFlags},
    },
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

/// How many words [`wait_any`] takes at once.
///
/// Example: see [`wait_any`].
pub const WORDS_MAX: usize = 128;

/// Sleeps while each word is what was seen of it, at most `timeout`; false when the time was over.
/// As with [`wait`], look at the words again.
///
/// ```
/// use mainstay_shm::{futex, Shared32};
/// use std::time::Duration;
/// let words = [Shared32::new(1), Shared32::new(2)];
/// assert!(futex::wait_any(&[(&words[0], 1), (&words[1], 1)], Duration::from_secs(1)));
/// assert!(!futex::wait_any(&[(&words[0], 1), (&words[1], 2)], Duration::from_millis(1)));
/// ```
///
/// # Panics
/// When there are more than [`WORDS_MAX`] words, or none.
pub fn wait_any(words: &[(&Shared32, u32)], timeout: Duration) -> bool {
    assert!((1..=WORDS_MAX).contains(&words.len()), "1 to {WORDS_MAX} words");
    let waits: Vec<Wait> = words
        .iter()
        .map(|(word, seen)| {
            let mut wait = Wait::new();
            wait.val = u64::from(*seen);
            wait.uaddr = WaitPtr::new(word.as_ptr().cast_mut().cast());
            wait.flags = WaitFlags::SIZE_U32;
            wait
        })
        .collect();
    // The kernel takes a point in time here, not a span.
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0) + u64::from(timeout.subsec_nanos());
    let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
    let until = Timespec {
        tv_sec: now.tv_sec.saturating_add(seconds).saturating_add((nanos / 1_000_000_000) as i64),
        tv_nsec: (nanos % 1_000_000_000) as i64,
    };
    let woken = futex::waitv(&waits, WaitvFlags::empty(), Some(&until), ClockId::Monotonic);
    !matches!(woken, Err(Errno::TIMEDOUT))
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
