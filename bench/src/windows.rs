//! How a scaling figure is taken, on a machine that is not ours alone.
//!
//! Two workers that share one processor with other work take turns, and then *everything* seems to
//! scale, even a lock. So the run is cut into windows, and
//!
//! * W1: all workers start at one instant, and window `k` of each covers the same stretch of time;
//! * W2: a window counts only when every worker had [`CPU_SHARE_MIN`] of a processor all through it;
//! * W3: beside each figure stand a control known not to scale (a stack with one head) and one known
//!   to scale (nothing shared), measured in turns with it: a method that cannot tell these two apart
//!   proves nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Outcome;
use crate::clock::{cpu_ns, wait_until, wall_ns};
use crate::method::median;

/// Length of a window: long against the clock's cost, short against a time slice.
pub(crate) const WINDOW_NS: u64 = 2_000_000;
/// The share of a processor below which a worker was disturbed.
const CPU_SHARE_MIN: f64 = 0.97;
/// A window that ends later than this held something longer than a batch, and the one after it,
/// cut short, does not cover the time the other worker's covers.
const WINDOW_NS_MAX: f64 = 1.1 * WINDOW_NS as f64;
const WINDOW_NS_MIN: f64 = 0.9 * WINDOW_NS as f64;
/// Fewer undisturbed windows than this are not trusted.
pub(crate) const WINDOWS_MIN: usize = 8;

/// What one worker did in one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    pub(crate) index: u64,
    pub(crate) wall_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) operations: u64,
}

impl Window {
    fn undisturbed(&self) -> bool {
        let wall = self.wall_ns as f64;
        (WINDOW_NS_MIN..=WINDOW_NS_MAX).contains(&wall)
            && self.cpu_ns as f64 >= CPU_SHARE_MIN * wall
    }

    fn rate(&self) -> f64 {
        self.operations as f64 / self.wall_ns as f64
    }
}

/// Runs `batch` (a few microseconds of work; returns how many operations that was) from `start_ns`
/// on for `count` windows, on the calling thread.
pub(crate) fn record(
    start_ns: u64,
    count: usize,
    mut batch: impl FnMut() -> Outcome<u64>,
) -> Outcome<Vec<Window>> {
    let mut windows = Vec::with_capacity(count);
    wait_until(start_ns);
    let (mut wall, mut cpu, mut operations) = (wall_ns(), cpu_ns(), 0);
    loop {
        operations += batch()?;
        let now = wall_ns();
        let index = wall.saturating_sub(start_ns) / WINDOW_NS;
        if now < start_ns + (index + 1) * WINDOW_NS {
            continue;
        }
        let cpu_now = cpu_ns();
        windows.push(Window { index, wall_ns: now - wall, cpu_ns: cpu_now - cpu, operations });
        if index + 1 >= count as u64 {
            return Ok(windows);
        }
        (wall, cpu, operations) = (now, cpu_now, 0);
    }
}

/// One run of one or more workers: their windows, by worker.
pub(crate) type Run = Vec<Vec<Window>>;

/// Total rates (operations a nanosecond) in the windows where nobody was disturbed (W2).
fn undisturbed_rates(run: &Run) -> Vec<f64> {
    let Some((first, others)) = run.split_first() else { return Vec::new() };
    let total_rate = |window: &Window| {
        let mut total = window.undisturbed().then(|| window.rate())?;
        for other in others {
            let same = other.iter().find(|w| w.index == window.index)?;
            total += same.undisturbed().then(|| same.rate())?;
        }
        Some(total)
    };
    first.iter().filter_map(total_rate).collect()
}

/// Total rate of the whole run, disturbed or not.
fn whole_rate(run: &Run) -> f64 {
    run.iter()
        .map(|worker| {
            let operations: u64 = worker.iter().map(|w| w.operations).sum();
            let wall: u64 = worker.iter().map(|w| w.wall_ns).sum();
            operations as f64 / wall.max(1) as f64
        })
        .sum()
}

/// The runs of one load: alone, and two at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scaling {
    one: Vec<Run>,
    two: Vec<Run>,
}

/// What a [`Scaling`] comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scaled {
    /// Total rate of two workers against one.
    pub(crate) ratio: f64,
    /// Million operations a second of two workers together, and of one.
    pub(crate) two_mops: f64,
    pub(crate) one_mops: f64,
    /// Undisturbed windows behind the smaller of the two rates.
    pub(crate) windows: usize,
    /// False when there were too few windows and the whole runs had to serve.
    pub(crate) trusted: bool,
}

impl Scaling {
    pub(crate) fn push(&mut self, one: Run, two: Run) {
        self.one.push(one);
        self.two.push(two);
    }

    /// Undisturbed windows of the side that has fewer.
    pub(crate) fn windows(&self) -> usize {
        let count = |runs: &[Run]| runs.iter().map(|r| undisturbed_rates(r).len()).sum();
        usize::min(count(&self.one), count(&self.two))
    }

    /// `None` when nothing ran.
    ///
    /// With too few undisturbed windows the whole runs are compared by wall time: workers that had
    /// to take turns then look slower than they are, never faster.
    pub(crate) fn sum_up(&self) -> Option<Scaled> {
        let windows = self.windows();
        let trusted = windows >= WINDOWS_MIN;
        let rates = |runs: &[Run]| -> Vec<f64> {
            if trusted {
                runs.iter().flat_map(undisturbed_rates).collect()
            } else {
                runs.iter().map(whole_rate).collect()
            }
        };
        let (one, two) = (median(&rates(&self.one))?, median(&rates(&self.two))?);
        let mops = 1e3;
        Some(Scaled {
            ratio: two / one,
            two_mops: two * mops,
            one_mops: one * mops,
            windows,
            trusted,
        })
    }
}

/// A load that workers run side by side in threads of this process.
pub(crate) trait Load: Sync {
    /// What one worker repeats. Called on the worker's own thread.
    fn batch(&self, worker: usize) -> Outcome<Box<dyn FnMut() -> Outcome<u64> + '_>>;
}

/// Runs `workers` threads of `load` from a common start (W1).
pub(crate) fn run_threads(load: &dyn Load, workers: usize, count: usize) -> Outcome<Run> {
    const NOT_YET: u64 = u64::MAX;
    let (ready, start) = (AtomicU64::new(0), AtomicU64::new(NOT_YET));
    let worker = |number: usize| -> Outcome<Vec<Window>> {
        let batch = load.batch(number);
        // Counted also when the batch could not be built: the others must not wait for ever.
        ready.fetch_add(1, Ordering::Release);
        let mut batch = batch?;
        batch()?;
        while start.load(Ordering::Acquire) == NOT_YET {
            std::thread::yield_now();
        }
        record(start.load(Ordering::Acquire), count, batch)
    };
    let worker = &worker;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|n| scope.spawn(move || worker(n))).collect();
        while ready.load(Ordering::Acquire) < workers as u64 {
            std::thread::yield_now();
        }
        start.store(wall_ns() + START_DELAY_NS, Ordering::Release);
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a worker panicked".into())))
            .collect()
    })
}

/// From "everybody is ready" to the common start: enough for the last one to see it.
pub(crate) const START_DELAY_NS: u64 = 3_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn window(index: u64, share: f64, operations: u64) -> Window {
        let cpu_ns = (WINDOW_NS as f64 * share) as u64;
        Window { index, wall_ns: WINDOW_NS, cpu_ns, operations }
    }

    fn even(count: u64, share: f64, operations: u64) -> Vec<Window> {
        (0..count).map(|k| window(k, share, operations)).collect()
    }

    #[test]
    fn workers_that_take_turns_on_one_processor_do_not_seem_to_scale() {
        let mut scaling = Scaling::default();
        let alone = even(20, 1.0, 1_000);
        // Each worker has the processor for half of every window and does half the work.
        let turns = vec![even(20, 0.5, 500), even(20, 0.5, 500)];
        scaling.push(vec![alone], turns);
        let scaled = scaling.sum_up().unwrap();
        assert!(!scaled.trusted);
        assert!(scaled.ratio < 1.1, "{scaled:?}");
    }

    #[test]
    fn a_window_counts_only_when_both_workers_were_undisturbed_in_it() {
        let run = vec![
            vec![window(0, 1.0, 10), window(1, 0.90, 5), window(2, 1.0, 10), window(4, 1.0, 10)],
            vec![window(0, 1.0, 10), window(1, 1.0, 10), window(2, 0.96, 9), window(3, 1.0, 10)],
        ];
        assert_eq!(undisturbed_rates(&run), [20.0 / WINDOW_NS as f64]);
    }

    #[test]
    fn a_window_stretched_by_a_stop_does_not_count_nor_does_the_rest_after_it() {
        for length in [2 * WINDOW_NS, WINDOW_NS / 2] {
            let odd = Window { index: 0, wall_ns: length, cpu_ns: length, operations: 9 };
            assert!(undisturbed_rates(&vec![vec![odd]]).is_empty(), "{length}");
        }
    }

    #[test]
    fn work_that_shares_nothing_doubles_and_work_on_one_word_does_not() {
        let mut scaling = Scaling::default();
        scaling.push(vec![even(10, 1.0, 100)], vec![even(10, 1.0, 100), even(10, 0.98, 100)]);
        let scaled = scaling.sum_up().unwrap();
        assert!(scaled.trusted && scaled.windows == 10);
        assert_eq!(scaled.ratio, 2.0);

        let mut contended = Scaling::default();
        contended.push(vec![even(10, 1.0, 100)], vec![even(10, 1.0, 15), even(10, 1.0, 15)]);
        assert_eq!(contended.sum_up().unwrap().ratio, 0.3);
    }

    #[test]
    fn recorded_windows_follow_each_other_from_the_common_start() {
        let start = wall_ns() + 1_000_000;
        let windows = record(start, 3, || {
            std::hint::black_box(0);
            Ok(1)
        })
        .unwrap();
        assert!(!windows.is_empty() && windows.len() <= 3, "{windows:?}");
        assert!(windows.windows(2).all(|pair| pair[0].index < pair[1].index));
        assert!(windows.iter().all(|w| w.operations > 0));
    }

    #[test]
    fn a_worker_that_cannot_start_fails_the_run_instead_of_hanging_it() {
        struct Broken;
        impl Load for Broken {
            fn batch(&self, worker: usize) -> Outcome<Box<dyn FnMut() -> Outcome<u64> + '_>> {
                if worker == 1 { Err("no second worker".into()) } else { Ok(Box::new(|| Ok(1))) }
            }
        }
        let error = run_threads(&Broken, 2, 1).unwrap_err();
        assert_eq!(error.to_string(), "no second worker");
    }
}
