//! Flushing in a thread of its own.

use crate::{Error, Flush, Result, Tracker, Waiter};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

/// A thread that flushes whenever something was written. Ends when it is dropped, after a last
/// flush.
///
/// ```
/// use mainstay_pool::{Kind, PoolOptions};
/// use mainstay_track::Tracker;
/// use std::{sync::mpsc, time::Duration};
/// let pool = PoolOptions::new("calls", 64).create_memfd()?;
/// let tracker = Tracker::new(&pool)?;
/// let (found, flushes) = mpsc::channel();
/// let worker = tracker.spawn(Duration::from_millis(1), move |flush| {
///     let _ = found.send(flush);
/// })?;
/// let call = pool.allocate(Kind::Recoverable)?;
/// # let within = Duration::from_secs(20);
/// let flush = flushes.recv_timeout(within).expect("it was written")?;
/// assert_eq!(flush.changes[0].id, call.id());
/// worker.stop();
/// # Ok::<(), mainstay_track::Error>(())
/// ```
#[must_use = "the thread ends when it is dropped"]
pub struct Worker {
    stop: Arc<AtomicBool>,
    waiter: Arc<Waiter>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(crate) fn new(
        tracker: Tracker,
        waiter: Waiter,
        mut each: impl FnMut(Result<Flush>) + Send + 'static,
    ) -> Result<Self> {
        let (stop, waiter) = (Arc::new(AtomicBool::new(false)), Arc::new(waiter));
        let (stopped, waits) = (stop.clone(), waiter.clone());
        let body = move || {
            while !stopped.load(Relaxed) {
                if waits.wait_timeout(Duration::from_secs(3_600)) {
                    report(tracker.flush(), &mut each);
                }
            }
            report(tracker.flush(), &mut each);
        };
        let thread = std::thread::Builder::new().name("track".into()).spawn(body);
        let thread = thread.map_err(|source| Error::System { action: "start a thread", source })?;
        Ok(Self { stop, waiter, thread: Some(thread) })
    }

    /// Ends the thread, as dropping it does.
    ///
    /// Example: see [`Worker`].
    pub fn stop(self) {}
}

/// A waiter wakes rather too often: what has found nothing is not worth telling.
fn report(flush: Result<Flush>, each: &mut impl FnMut(Result<Flush>)) {
    if !matches!(&flush, Ok(flush) if flush.changes.is_empty()) {
        each(flush);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.waiter.wake();
        if let Some(thread) = self.thread.take() {
            // It has panicked in the caller's function, which was told there.
            let _ = thread.join();
        }
    }
}
