//! The clocks of a running node.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{Duration, Instant};

use crate::time::Now;

/// What the time is: tokio's clock for timers (so that a test can pause it), and the system's for
/// Lamport times.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let clock = mainstay_sds::driver::Clock::start();
/// assert!(clock.now().mono_ms < 1000);
/// # });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// One that starts at 0 now.
    ///
    /// Example: see [`Clock`].
    #[must_use]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// What both clocks say.
    ///
    /// Example: see [`Clock`].
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = self.started.elapsed().as_millis();
        // A clock before 1970 is wrong, and Lamport times go on from what the others say.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Now {
            mono_ms: u64::try_from(mono).unwrap_or(u64::MAX),
            wall_ms: u64::try_from(wall).unwrap_or(u64::MAX),
        }
    }

    /// The moment at which the monotonic clock says `mono_ms`; a far one if there is none such.
    pub(super) fn at(&self, mono_ms: u64) -> Instant {
        const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
        let after = Duration::from_millis(mono_ms).min(FAR);
        self.started + after
    }
}
