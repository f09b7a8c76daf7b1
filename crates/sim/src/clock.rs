//! The clocks of a node: one that only goes forward, and one that people set.
//!
//! C1. The monotonic clock never goes back, whatever its speed is set to.
//! C2. A deadline is kept: at the time [`Clock::when`] returns, the clock shows the deadline or
//! more.

use crate::Time;
use std::time::Duration;

/// What a node's own clocks show.
///
/// ```
/// use mainstay_sim::{Now, Time};
/// let now = Now { monotonic: Time::START, wall_unix_ns: 1_700_000_000_000_000_000 };
/// assert_eq!(now.monotonic, Time::START);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since the node's host began, at the speed of its own crystal. Never goes back.
    pub monotonic: Time,
    /// What the node takes for the time of day, in nanoseconds since 1970. May jump either way.
    pub wall_unix_ns: u64,
}

/// The fastest and slowest a clock may be set to, in parts per million either way.
const DRIFT_PPM_MAX: i32 = 500_000;

#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// World time and monotonic time when the speed was last set.
    set_at: Time,
    set_to: Time,
    drift_ppm: i32,
    /// Wall minus monotonic.
    wall_ahead_ns: u64,
}

impl Clock {
    pub(crate) fn new(now: Time, wall_unix_ns: u64) -> Self {
        Self { set_at: now, set_to: Time::START, drift_ppm: 0, wall_ahead_ns: wall_unix_ns }
    }

    pub(crate) fn now(&self, world: Time) -> Now {
        let monotonic = self.monotonic(world);
        let wall_unix_ns = monotonic.as_nanos().saturating_add(self.wall_ahead_ns);
        Now { monotonic, wall_unix_ns }
    }

    fn monotonic(&self, world: Time) -> Time {
        let passed = world.since(self.set_at);
        if self.drift_ppm == 0 {
            return self.set_to + passed;
        }
        let nanos = passed.as_nanos() * self.speed() / 1_000_000;
        self.set_to + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The first world time at which the monotonic clock shows `deadline`, at the present speed.
    pub(crate) fn when(&self, deadline: Time) -> Time {
        let left = deadline.since(self.set_to);
        if self.drift_ppm == 0 {
            return self.set_at + left;
        }
        let nanos = (left.as_nanos() * 1_000_000).div_ceil(self.speed());
        let when = self.set_at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        debug_assert!(when == Time::NEVER || self.monotonic(when) >= deadline, "C2");
        when
    }

    /// Changes the speed from now on, to at most half as fast again or half as slow.
    pub(crate) fn drift(&mut self, world: Time, ppm: i32) {
        self.set_to = self.monotonic(world);
        self.set_at = world;
        self.drift_ppm = ppm.clamp(-DRIFT_PPM_MAX, DRIFT_PPM_MAX);
    }

    /// Sets the wall clock forward or back.
    pub(crate) fn jump(&mut self, by_ns: i64) {
        self.wall_ahead_ns = self.wall_ahead_ns.saturating_add_signed(by_ns);
    }

    fn speed(&self) -> u128 {
        u128::from(1_000_000_u32.saturating_add_signed(self.drift_ppm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn c1_the_monotonic_clock_goes_on_from_where_it_is_when_its_speed_changes() {
        let mut clock = Clock::new(Time::START, 0);
        let mut last = Time::START;
        for (second, ppm) in [(1, 200), (2, -500_000), (3, 900_000), (4, 0)] {
            let world = Time::START + SECOND * second;
            let before = clock.now(world).monotonic;
            clock.drift(world, ppm);
            assert_eq!(clock.now(world).monotonic, before);
            assert!(before > last);
            last = before;
        }
        // 1 s, then 1.0002, then 0.5, then 1.5 (900,000 is more than a clock can do).
        assert_eq!(last, Time::from_nanos(4_000_200_000));
    }

    #[test]
    fn c2_a_deadline_has_come_when_the_world_says_so_and_not_a_nanosecond_before() {
        for ppm in [-500_000, -77, -1, 0, 1, 33, 499_999] {
            let mut clock = Clock::new(Time::START, 0);
            clock.drift(Time::from_nanos(12_345), ppm);
            for deadline in [12_346, 99_999, 1_000_000_007, 3_600_000_000_000] {
                let deadline = Time::from_nanos(deadline);
                let when = clock.when(deadline);
                assert!(clock.now(when).monotonic >= deadline);
                let before = Time::from_nanos(when.as_nanos() - 1);
                assert!(clock.now(before).monotonic < deadline, "{ppm} {deadline}");
            }
        }
    }

    #[test]
    fn the_wall_clock_jumps_and_the_monotonic_clock_does_not() {
        let mut clock = Clock::new(Time::START, 1_000);
        let world = Time::START + SECOND;
        let before = clock.now(world);
        clock.jump(-500);
        assert_eq!(clock.now(world).wall_unix_ns, before.wall_unix_ns - 500);
        assert_eq!(clock.now(world).monotonic, before.monotonic);
    }
}
