//! Virtual time.

use std::{
    fmt,
    ops::{Add, AddAssign, Sub},
    time::Duration,
};

/// A point in virtual time: nanoseconds since something began, 584 years of them.
///
/// The world counts from its own beginning; a node's own clock counts from when its host began,
/// at its own speed. The two are the same type, because to a protocol they are the same thing.
///
/// ```
/// use mainstay_sim::Time;
/// use std::time::Duration;
/// let later = Time::START + Duration::from_millis(1_500);
/// assert_eq!(later - Time::START, Duration::from_millis(1_500));
/// assert_eq!(later.to_string(), "1.500000000");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// Where a world begins.
    ///
    /// Example: see [`Time`].
    pub const START: Self = Self(0);

    /// As late as it gets.
    ///
    /// ```
    /// use mainstay_sim::Time;
    /// assert!(Time::START < Time::NEVER);
    /// ```
    pub const NEVER: Self = Self(u64::MAX);

    /// So many nanoseconds after the beginning.
    ///
    /// ```
    /// use mainstay_sim::Time;
    /// assert_eq!(Time::from_nanos(5).as_nanos(), 5);
    /// ```
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the beginning.
    ///
    /// Example: see [`Time::from_nanos`].
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; nothing if it is still to come.
    ///
    /// ```
    /// use mainstay_sim::Time;
    /// use std::time::Duration;
    /// let (a, b) = (Time::from_nanos(3), Time::from_nanos(8));
    /// assert_eq!(b.since(a), Duration::from_nanos(5));
    /// assert_eq!(a.since(b), Duration::ZERO);
    /// ```
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos_of(by)))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, by: Duration) {
        *self = *self + by;
    }
}

impl Sub for Time {
    type Output = Duration;

    /// As [`Time::since`].
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}s")
    }
}

/// Nanoseconds, as many as fit.
pub(crate) fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_wraps() {
        assert_eq!(Time::NEVER + Duration::from_secs(1), Time::NEVER);
        assert_eq!(Time::START + Duration::MAX, Time::NEVER);
        assert_eq!(Time::START - Time::NEVER, Duration::ZERO);
    }
}
