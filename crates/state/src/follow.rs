//! A thread that tells a hook of the commits of all processes.

use crate::{Commit, CommitHook, Result, Watch, bridge::refused, value::Value, watch::RECHECK};
use mainstay_shm::fork::Epoch;
use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What [`State::follow`](crate::State::follow) returns: a hook is called as long as it lives.
///
/// ```
/// # use mainstay_state::{Commit, Domain};
/// # use std::{sync::mpsc, time::Duration};
/// # let dir = tempfile::tempdir()?;
/// # let domain = Domain::open(dir.path())?;
/// let state = domain.reader::<[u8]>("speed").or_else(|_| domain.writer("speed"))?;
/// let (sender, told) = mpsc::channel();
/// let follower = state.follow(Duration::from_millis(10), move |commit: &Commit<'_>| {
///     let _ = sender.send((commit.version, commit.value.to_vec()));
/// })?;
/// // By any process:
/// domain.writer::<[u8]>("speed")?.replace(b"80")?;
/// assert_eq!(told.recv()?, (1, b"80".to_vec()));
/// follower.stop()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "the hook is called as long as this lives"]
pub struct Follower {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<Result<()>>>,
    epoch: Epoch,
}

#[derive(Debug, Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn ask(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Sleeps for so long; true at once when it was asked.
    fn is_asked_within(&self, pause: Duration) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(asked, pause, |asked| !*asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Follower {
    pub(crate) fn start<T: Value + ?Sized + 'static>(
        watch: Watch<T>,
        interval: Duration,
        hook: impl CommitHook + 'static,
    ) -> Result<Self> {
        let stop = Arc::new(Stop::default());
        let asked = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("mainstay-follow".into())
            .spawn(move || run(watch, interval, hook, &asked))
            .map_err(|source| refused("start a thread", source))?;
        Ok(Self { stop, thread: Some(thread), epoch: Epoch::now() })
    }

    /// Whether it has ended by itself: the state was deleted, or cannot be read any more.
    ///
    /// ```
    /// # use mainstay_state::{Commit, Domain, Error};
    /// # use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// let follower = state.follow(Duration::ZERO, |_: &Commit<'_>| {})?;
    /// assert!(!follower.has_ended());
    /// state.delete()?;
    /// while !follower.has_ended() {
    ///     std::thread::sleep(Duration::from_millis(1));
    /// }
    /// assert!(matches!(follower.stop(), Err(Error::Deleted { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops, and says why it has ended before, if it has. The hook is not called any more when this
    /// returns. Dropping does the same.
    ///
    /// Example: see [`Follower`].
    ///
    /// # Errors
    /// `Deleted`, or as [`State::read`](crate::State::read).
    pub fn stop(mut self) -> Result<()> {
        self.end().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// How the thread ended, or how its hook panicked.
    fn end(&mut self) -> thread::Result<Result<()>> {
        self.stop.ask();
        let Some(thread) = self.thread.take() else { return Ok(Ok(())) };
        // A hook that drops its own follower is called for the last time; and a child made by fork
        // has no such thread.
        if thread.thread().id() == thread::current().id() || !self.epoch.is_current() {
            return Ok(Ok(()));
        }
        thread.join()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Who wants to know how it ended calls `stop`.
        let _ = self.end();
    }
}

fn run<T: Value + ?Sized>(
    mut watch: Watch<T>,
    interval: Duration,
    mut hook: impl CommitHook,
    stop: &Stop,
) -> Result<()> {
    let mut told = None;
    while !stop.is_asked_within(Duration::ZERO) {
        if watch.wait(RECHECK)?.is_none() {
            continue;
        }
        let began = Instant::now();
        {
            let snapshot = watch.read()?;
            let version = snapshot.version();
            // What is read may be newer than what was waited for: then it is news once more.
            if told.replace(version) == Some(version) {
                continue;
            }
            hook.committed(&Commit::new(watch.state().name(), version, snapshot.bytes()));
        }
        if stop.is_asked_within(interval.saturating_sub(began.elapsed())) {
            break;
        }
    }
    Ok(())
}
