//! Checkpoints of what a tracker has seen change.
//!
//! Y1. A block that changed since the last completed cut is in the next, also when a checkpoint in
//!     between has failed.
//! Y2. In the background the time spent on checkpoints is at most the budget's share of all time, on
//!     average: what would cost more comes less often.

use crate::{Error, Result, Tracker};
use mainstay_pool::checkpoint::{Changed, CheckpointReport, Checkpointer};
use std::{
    collections::HashSet,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The share of time that background checkpoints take at most, unless told otherwise.
const BUDGET_PERCENT: u32 = 20;

/// Makes the checkpoints of a tracked pool: only what the tracker has seen change is looked at.
///
/// ```
/// use mainstay_pool::{Kind, PoolOptions};
/// use mainstay_track::Tracker;
/// let dir = tempfile::tempdir()?;
/// let pool = PoolOptions::new("calls", 64).create(dir.path().join("calls.pool"))?;
/// let call = pool.allocate(Kind::Recoverable)?;
/// let tracker = Tracker::new(&pool)?;
/// let mut checkpoints = tracker.checkpoints()?;
/// checkpoints.checkpoint()?;
/// call.write(0, b"ringing")?;
/// assert_eq!(checkpoints.checkpoint()?.blocks, 1);
/// assert_eq!(checkpoints.checkpoint()?.blocks, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Checkpoints {
    tracker: Tracker,
    checkpointer: Checkpointer,
    /// Changed since the last completed cut.
    changed: Vec<u32>,
    /// Everything has to be compared.
    all: bool,
}

impl Checkpoints {
    pub(crate) fn new(tracker: Tracker) -> Result<Self> {
        let checkpointer = tracker.pool().checkpointer()?;
        // What the file has of before is not known here, so the first compares everything.
        tracker.shared.state().since_cut = Some(HashSet::new());
        Ok(Self { tracker, checkpointer, changed: Vec::new(), all: true })
    }

    /// Flushes, and makes a checkpoint of the same moment. When it returns, the pool comes back as
    /// of that moment, or of a later checkpoint, after a power cut.
    ///
    /// What the flush finds is told to the pool's monitors as by [`Tracker::flush`].
    ///
    /// Example: see [`Checkpoints`].
    ///
    /// # Errors
    /// As [`Tracker::flush`]; `Pool` with `Checkpoint` when the disk refuses. The last completed
    /// cut stays, and nothing is forgotten (Y1).
    pub fn checkpoint(&mut self) -> Result<CheckpointReport> {
        let Self { tracker, checkpointer, changed, all } = self;
        let (flush, captured) = tracker.shared.flush_and(|ground, cut, state| {
            changed.extend(state.since_cut.iter_mut().flat_map(HashSet::drain));
            let which = if *all { Changed::All } else { Changed::Blocks(changed) };
            Ok(checkpointer.capture(ground, cut, which)?)
        })?;
        let mut report = checkpointer.write(captured)?;
        changed.clear();
        *all = false;
        report.broken_batches = flush.broken_batches;
        Ok(report)
    }

    /// Makes checkpoints in a thread of its own: every `interval`, or less often if they would take
    /// more than 20 % of the time. Each is told to `each`.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions};
    /// # use mainstay_track::Tracker;
    /// use std::{sync::mpsc, time::Duration};
    /// # let dir = tempfile::tempdir()?;
    /// # let pool = PoolOptions::new("calls", 64).create(dir.path().join("calls.pool"))?;
    /// # let tracker = Tracker::new(&pool)?;
    /// let (done, made) = mpsc::channel();
    /// let background = tracker.checkpoints()?.spawn(Duration::from_millis(10), move |report| {
    ///     let _ = done.send(report.map(|report| report.cut));
    /// })?;
    /// let first = made.recv()??;
    /// assert!(made.recv()?? > first);
    /// background.stop(); // after a last checkpoint
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `System` when there is no thread to be had.
    pub fn spawn(
        self,
        interval: Duration,
        each: impl FnMut(Result<CheckpointReport>) + Send + 'static,
    ) -> Result<Background> {
        self.spawn_within(interval, BUDGET_PERCENT, each)
    }

    /// As [`Checkpoints::spawn`], with a budget: how many percent of the time checkpoints may take.
    ///
    /// ```
    /// # use mainstay_pool::PoolOptions;
    /// # use mainstay_track::{Error, Tracker};
    /// # use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// # let pool = PoolOptions::new("calls", 64).create(dir.path().join("calls.pool"))?;
    /// # let tracker = Tracker::new(&pool)?;
    /// let second = Duration::from_secs(1);
    /// let refused = tracker.checkpoints()?.spawn_within(second, 101, |_| {});
    /// assert!(matches!(refused, Err(Error::Limit { .. })));
    /// drop(tracker.checkpoints()?.spawn_within(second, 100, |_| {})?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Limit` for a budget outside of 1 to 100; `System`.
    pub fn spawn_within(
        mut self,
        interval: Duration,
        budget_percent: u32,
        mut each: impl FnMut(Result<CheckpointReport>) + Send + 'static,
    ) -> Result<Background> {
        if !(1..=100).contains(&budget_percent) {
            let value = budget_percent.into();
            return Err(Error::Limit { what: "budget in percent", value, min: 1, max: 100 });
        }
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = stop.clone();
        let body = move || {
            loop {
                let start = Instant::now();
                each(self.checkpoint());
                let pause = pause(interval, budget_percent, start.elapsed());
                let (flag, changed) = &*stopped;
                let flag = flag.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = changed.wait_timeout_while(flag, pause, |stop| !*stop);
                if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                    break;
                }
            }
            each(self.checkpoint());
        };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(body);
        let thread = thread.map_err(|source| Error::System { action: "start a thread", source })?;
        Ok(Background { stop, thread: Some(thread) })
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.tracker.shared.state().since_cut = None;
    }
}

/// How long to wait after a checkpoint that took `took` (Y2).
fn pause(interval: Duration, budget_percent: u32, took: Duration) -> Duration {
    let affordable = took * 100 / budget_percent;
    interval.max(affordable).saturating_sub(took)
}

/// A thread that makes checkpoints. Ends when it is dropped, after a last one.
///
/// Example: see [`Checkpoints::spawn`].
#[must_use = "the thread ends when it is dropped"]
pub struct Background {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Ends the thread, as dropping it does.
    ///
    /// Example: see [`Checkpoints::spawn`].
    pub fn stop(self) {}
}

impl Drop for Background {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has panicked in the caller's function, which was told there.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn y2_a_checkpoint_that_takes_long_comes_less_often() {
        let ms = Duration::from_millis;
        assert_eq!(pause(ms(100), 20, ms(1)), ms(99), "within the budget: every interval");
        assert_eq!(pause(ms(100), 20, ms(20)), ms(80), "at the limit");
        assert_eq!(pause(ms(100), 20, ms(40)), ms(160), "40 of 200");
        assert_eq!(pause(ms(100), 100, ms(400)), ms(0));
    }
}
