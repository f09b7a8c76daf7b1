//! Time is an input.

/// What the clocks say at the moment of a call. The core has no clock of its own.
///
/// Timers go by the monotonic clock, so that a step of the wall clock neither freezes nor fires
/// them; the wall clock is looked at for Lamport times only (LIP-109, Send Message).
///
/// ```
/// use mainstay_sds::Now;
/// let now = Now { mono_ms: 5, wall_ms: 1_760_000_000_000 };
/// assert_eq!(now.after(10).mono_ms, 15);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back, from any start.
    pub mono_ms: u64,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

impl Now {
    /// The start of both clocks: for examples and tests.
    ///
    /// ```
    /// assert_eq!(mainstay_sds::Now::zero().mono_ms, 0);
    /// ```
    #[must_use]
    pub fn zero() -> Self {
        Self { mono_ms: 0, wall_ms: 0 }
    }

    /// Both clocks `ms` later.
    ///
    /// Example: see [`Now`].
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self { mono_ms: self.mono_ms.saturating_add(ms), wall_ms: self.wall_ms.saturating_add(ms) }
    }
}
