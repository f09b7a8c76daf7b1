//! Trying again after a conflict.

use crate::{Error, Result};
use mainstay_base::Rng;
use std::{
    thread,
    time::{Duration, Instant},
};

/// How often and how long a transaction is tried again after a conflict.
///
/// Between tries the loser waits: nothing at first, then a random time up to a bound that doubles.
///
/// ```
/// use mainstay_state::RetryPolicy;
/// use std::time::Duration;
/// let policy = RetryPolicy::new().tries(10).time(Duration::from_millis(50));
/// let never = RetryPolicy::new().tries(1);
/// assert_ne!(policy, never);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetryPolicy {
    tries: u32,
    time: Duration,
    pause_max: Duration,
}

impl Default for RetryPolicy {
    /// Up to 1,000 tries in 10 seconds, with pauses of up to a millisecond.
    fn default() -> Self {
        Self { tries: 1_000, time: Duration::from_secs(10), pause_max: Duration::from_millis(1) }
    }
}

/// The bound of the first pause.
const PAUSE_MIN: Duration = Duration::from_nanos(200);
/// Pauses shorter than this are spent spinning: a sleep takes some 50 microseconds.
const SPIN_MAX: Duration = Duration::from_micros(20);

impl RetryPolicy {
    /// The default.
    ///
    /// Example: see [`RetryPolicy`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// At most this many tries, at least one.
    ///
    /// Example: see [`RetryPolicy`].
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = tries.max(1);
        self
    }

    /// No new try after this time.
    ///
    /// Example: see [`RetryPolicy`].
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// The longest pause between two tries.
    ///
    /// ```
    /// use mainstay_state::RetryPolicy;
    /// let impatient = RetryPolicy::new().pause_max(std::time::Duration::ZERO);
    /// # assert_ne!(impatient, RetryPolicy::new());
    /// ```
    #[must_use]
    pub fn pause_max(mut self, pause: Duration) -> Self {
        self.pause_max = pause;
        self
    }

    pub(crate) fn run<R>(self, mut attempt: impl FnMut() -> Result<R>) -> Result<R> {
        let start = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            let state = match attempt() {
                Err(Error::Conflict { state }) => state,
                result => return result,
            };
            let elapsed = start.elapsed();
            if tries >= self.tries || elapsed >= self.time {
                return Err(Error::RetriesExhausted { state, tries, elapsed });
            }
            self.pause(tries, elapsed);
        }
    }

    fn pause(self, tries: u32, elapsed: Duration) {
        let bound = PAUSE_MIN.saturating_mul(1 << tries.min(30)).min(self.pause_max);
        let bound_ns = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        if bound_ns == 0 {
            return;
        }
        // Two losers must not wait equally long: they started at different times.
        let seed = elapsed.as_nanos() as u64 ^ u64::from(std::process::id()) << 32;
        let pause = Duration::from_nanos(Rng::seeded(seed).below(bound_ns));
        if pause > SPIN_MAX {
            thread::sleep(pause);
            return;
        }
        let until = Instant::now() + pause;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict() -> Error {
        Error::Conflict { state: "x".into() }
    }

    #[test]
    fn only_conflicts_are_tried_again() {
        let mut tries = 0;
        let other = RetryPolicy::new().run(|| -> Result<()> {
            tries += 1;
            Err(Error::Deleted { state: "x".into() })
        });
        assert!(matches!(other, Err(Error::Deleted { .. })));
        assert_eq!(tries, 1);
    }

    #[test]
    fn the_number_of_tries_and_the_time_are_kept() {
        let mut tries = 0;
        let policy = RetryPolicy::new().tries(4);
        let failed = policy.run(|| -> Result<()> {
            tries += 1;
            Err(conflict())
        });
        assert!(matches!(failed, Err(Error::RetriesExhausted { tries: 4, .. })), "{failed:?}");
        assert_eq!(tries, 4);
        let no_time =
            RetryPolicy::new().time(Duration::ZERO).run(|| -> Result<()> { Err(conflict()) });
        assert!(matches!(no_time, Err(Error::RetriesExhausted { tries: 1, .. })));
    }
}
