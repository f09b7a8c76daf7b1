//! Tells a reader that was held up by the pool from one that only waited for a CPU.
//!
//! A *gap* is the time between two successful reads of a live block. The scheduler says how long
//! this thread was runnable and not running (`/proc/thread-self/schedstat`, second number): that
//! much of a gap is the machine's doing. What is left, whether the thread burnt it or slept it
//! away, is *unexplained*; more than [`STALL_NS_MIN`] of it is a **stall**.
//!
//! The number is read every [`BASELINE_NS`], not at every read (it costs as much as ten reads), so
//! some of the waiting may belong to the time before the gap: that time is taken off again. The
//! count errs towards too many stalls, by at most `BASELINE_NS` of unexplained time.
//!
//! Where the kernel keeps no such statistics, the time on the CPU is what is left of a gap: then a
//! thread that slept is taken for one that waited, and the demo says which rule was used.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::time::{ClockId, clock_gettime};

use super::wire::ReaderReport;

/// Unexplained time between two reads that makes a stall.
pub(super) const STALL_NS_MIN: u64 = 100_000_000;
/// How old the last look at the scheduler's statistics may be.
const BASELINE_NS: u64 = 5_000_000;

/// How long a thread waited for a CPU in all its life, as far as that is known.
pub(super) enum Waiting {
    /// By the scheduler's own count.
    Scheduler(File),
    /// By what its CPU clock did not count.
    CpuClock,
}

impl Waiting {
    /// Of the calling thread: to be asked on this thread only.
    pub(super) fn of_this_thread() -> Self {
        match File::open("/proc/thread-self/schedstat") {
            // Kernels that do not keep the numbers show zeros, for a thread that is running.
            Ok(file) if schedstat(&file).is_some_and(|(ran, _)| ran > 0) => Self::Scheduler(file),
            Ok(_) | Err(_) => Self::CpuClock,
        }
    }

    fn ns(&self, now_ns: u64) -> u64 {
        match self {
            Self::Scheduler(file) => schedstat(file).map_or(0, |(_, waited)| waited),
            Self::CpuClock => {
                let ran = clock_gettime(ClockId::ThreadCPUTime);
                let ran_ns =
                    ran.tv_sec.cast_unsigned() * 1_000_000_000 + ran.tv_nsec.cast_unsigned();
                now_ns.saturating_sub(ran_ns)
            }
        }
    }
}

fn schedstat(file: &File) -> Option<(u64, u64)> {
    let mut line = [0; 96];
    let length = file.read_at(&mut line, 0).ok()?;
    let mut numbers = std::str::from_utf8(&line[..length]).ok()?.split_whitespace();
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Measures the gaps of one reader.
pub(super) struct Pace {
    waiting: Waiting,
    last_ns: Option<u64>,
    baseline: Baseline,
    window_began_ns: u64,
    counted: ReaderReport,
}

struct Baseline {
    at_ns: u64,
    waited_ns: u64,
}

impl Pace {
    /// Starts at `now_ns`; gaps count from the first read on.
    pub(super) fn new(waiting: Waiting, now_ns: u64) -> Self {
        let baseline = Baseline { at_ns: now_ns, waited_ns: waiting.ns(now_ns) };
        let scheduler = matches!(waiting, Waiting::Scheduler(_));
        let counted = ReaderReport { scheduler, ..ReaderReport::default() };
        Self { waiting, last_ns: None, baseline, window_began_ns: now_ns, counted }
    }

    /// A live block was read at `now_ns`.
    pub(super) fn read_at(&mut self, now_ns: u64) {
        self.counted.reads += 1;
        if let Some(last_ns) = self.last_ns.replace(now_ns) {
            let gap_ns = now_ns.saturating_sub(last_ns);
            self.counted.gap_ns = self.counted.gap_ns.max(gap_ns);
            if gap_ns > STALL_NS_MIN {
                let waited_ns = self.waiting.ns(now_ns).saturating_sub(self.baseline.waited_ns);
                let before_ns = last_ns.saturating_sub(self.baseline.at_ns);
                self.judge(gap_ns, waited_ns.saturating_sub(before_ns));
            }
        }
        if now_ns.saturating_sub(self.baseline.at_ns) > BASELINE_NS {
            self.baseline = Baseline { at_ns: now_ns, waited_ns: self.waiting.ns(now_ns) };
        }
    }

    fn judge(&mut self, gap_ns: u64, waited_ns: u64) {
        let unexplained_ns = gap_ns.saturating_sub(waited_ns);
        self.counted.unexplained_ns = self.counted.unexplained_ns.max(unexplained_ns);
        self.counted.stalls += u64::from(unexplained_ns > STALL_NS_MIN);
    }

    /// A block had no whole side.
    pub(super) fn torn(&mut self) {
        self.counted.torn += 1;
    }

    /// A record was older than before.
    pub(super) fn rolled_back(&mut self) {
        self.counted.rolled_back += 1;
    }

    /// What was counted since the last report, at `now_ns`. A gap that is still open counts.
    pub(super) fn report(&mut self, now_ns: u64) -> ReaderReport {
        let open_ns = self.last_ns.map_or(0, |last_ns| now_ns.saturating_sub(last_ns));
        let mut report = self.counted;
        report.gap_ns = report.gap_ns.max(open_ns);
        report.window_ns = now_ns.saturating_sub(self.window_began_ns);
        self.window_began_ns = now_ns;
        self.counted =
            ReaderReport { scheduler: self.counted.scheduler, ..ReaderReport::default() };
        report
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::role::monotonic_ns;
    use super::*;

    const MS: u64 = 1_000_000;

    fn pace() -> Pace {
        Pace::new(Waiting::of_this_thread(), monotonic_ns())
    }

    #[test]
    fn sleeping_between_two_reads_is_a_stall() {
        let mut pace = pace();
        // Without the statistics a sleep is not told from waiting: the module says so.
        if matches!(pace.waiting, Waiting::CpuClock) {
            return;
        }
        pace.read_at(monotonic_ns());
        std::thread::sleep(Duration::from_millis(130));
        pace.read_at(monotonic_ns());
        let report = pace.report(monotonic_ns());
        assert_eq!(report.stalls, 1);
        assert!(report.gap_ns > 130 * MS && report.unexplained_ns > 100 * MS);
    }

    #[test]
    fn burning_the_cpu_between_two_reads_is_a_stall() {
        for waiting in [Waiting::of_this_thread(), Waiting::CpuClock] {
            let mut pace = Pace::new(waiting, monotonic_ns());
            pace.read_at(monotonic_ns());
            let ran_ns = || {
                let ran = clock_gettime(ClockId::ThreadCPUTime);
                ran.tv_sec.cast_unsigned() * 1_000 * MS + ran.tv_nsec.cast_unsigned()
            };
            let until_ns = ran_ns() + 120 * MS;
            let began = Instant::now();
            while ran_ns() < until_ns && began.elapsed() < Duration::from_secs(10) {
                std::hint::spin_loop();
            }
            pace.read_at(monotonic_ns());
            assert_eq!(pace.report(monotonic_ns()).stalls, 1);
        }
    }

    #[test]
    fn a_gap_in_which_the_thread_waited_for_a_cpu_is_none() {
        let mut pace = pace();
        pace.judge(500 * MS, 450 * MS);
        assert_eq!((pace.counted.stalls, pace.counted.unexplained_ns), (0, 50 * MS));
        pace.judge(500 * MS, 399 * MS);
        assert_eq!((pace.counted.stalls, pace.counted.unexplained_ns), (1, 101 * MS));
    }

    #[test]
    fn a_report_starts_the_count_anew_and_shows_an_open_gap() {
        let mut pace = pace();
        let start_ns = monotonic_ns();
        pace.read_at(start_ns);
        pace.read_at(start_ns + 2 * MS);
        pace.torn();
        let report = pace.report(start_ns + 7 * MS);
        assert_eq!((report.reads, report.torn, report.gap_ns), (2, 1, 5 * MS));
        let report = pace.report(start_ns + 8 * MS);
        assert_eq!((report.reads, report.torn, report.gap_ns), (0, 0, 6 * MS));
        assert_eq!(report.window_ns, MS);
    }
}
