//! The two clocks every figure is taken with.
//!
//! Wall time is what a user waits. Thread CPU time is what the operation costs when somebody else
//! has the processor for a while: on a busy machine the first can be four times the second.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`, which every process of the machine reads alike.
pub(crate) fn wall_ns() -> u64 {
    to_ns(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds of CPU this thread has had.
pub(crate) fn cpu_ns() -> u64 {
    to_ns(clock_gettime(ClockId::ThreadCPUTime))
}

fn to_ns(time: Timespec) -> u64 {
    // Neither clock is ever negative.
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// How long one piece of work took, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) wall_ns: f64,
    pub(crate) cpu_ns: f64,
}

impl Span {
    /// Runs `work` and times it.
    pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (Span, T) {
        let (cpu, wall) = (cpu_ns(), wall_ns());
        let value = work();
        let (wall_after, cpu_after) = (wall_ns(), cpu_ns());
        let span = Span { wall_ns: (wall_after - wall) as f64, cpu_ns: (cpu_after - cpu) as f64 };
        (span, value)
    }

    /// The share of one operation of `operations`.
    pub(crate) fn per(self, operations: u64) -> Span {
        let n = operations as f64;
        Span { wall_ns: self.wall_ns / n, cpu_ns: self.cpu_ns / n }
    }
}

/// Waits until [`wall_ns`] reaches `deadline`: sleeping at first, spinning at the end, so that
/// several workers start within a microsecond of each other.
pub(crate) fn wait_until(deadline: u64) {
    const SPIN_NS: u64 = 500_000;
    let ahead = deadline.saturating_sub(wall_ns());
    if ahead > SPIN_NS {
        std::thread::sleep(Duration::from_nanos(ahead - SPIN_NS));
    }
    while wall_ns() < deadline {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_costs_wall_time_but_no_cpu_time() {
        let (span, ()) = Span::of(|| std::thread::sleep(Duration::from_millis(20)));
        assert!(span.wall_ns >= 20e6, "{span:?}");
        assert!(span.cpu_ns < 10e6, "{span:?}");
    }

    #[test]
    fn waiting_ends_at_the_deadline_and_not_before() {
        let deadline = wall_ns() + 2_000_000;
        wait_until(deadline);
        assert!(wall_ns() >= deadline);
    }
}
