//! Waiting for something to flush.
//!
//! Z1. A waiter wakes at the latest its latency, and the time to be scheduled, after the first write
//!     since the last flush.
//! Z2. While nothing is written it costs one look a latency at the process's count of page faults,
//!     since a first write to a protected page is one: under a microsecond. Once it has fired, and
//!     until the next flush, it costs nothing at all.
//! Z3. It may wake without a change: for a page of which no block differs, beside processes that
//!     nobody watches, and always where contents are compared.
//!
//! The kernel resolves an asynchronous fault by itself and tells nobody: that is why somebody has
//! to look. To be told (a synchronous fault, a signal) would cost the writer ten times as much, and
//! make system calls that write to the pool fail.

use crate::{Error, Result, tracker::Shared};
use rustix::event::{EventfdFlags, eventfd};
use std::{
    future::Future,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The signals of all waiters of a tracker.
#[derive(Default)]
pub(crate) struct Signals {
    list: Mutex<Vec<Weak<Signal>>>,
}

impl Signals {
    /// A flush begins: whatever fired is dealt with.
    pub(crate) fn reset(&self) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|signal| signal.upgrade().map(|signal| signal.reset()).is_some());
    }

    fn add(&self, signal: &Arc<Signal>) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(Arc::downgrade(signal));
    }
}

/// The later of two looks at a count that only grows.
pub(crate) fn next_look(one: u64, other: u64) -> u64 {
    one.max(other)
}

struct Signal {
    state: Mutex<State>,
    changed: Condvar,
    /// Readable while fired.
    fd: OwnedFd,
}

#[derive(Default)]
struct State {
    fired: bool,
    stop: bool,
    wakers: Vec<Waker>,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fire(&self) {
        let mut state = self.lock();
        if state.fired {
            return;
        }
        state.fired = true;
        // Fails only when the counter is full, and then it is readable anyway.
        let _ = rustix::io::write(&self.fd, &1_u64.to_le_bytes());
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn reset(&self) {
        let mut state = self.lock();
        if state.fired {
            state.fired = false;
            let _ = rustix::io::read(&self.fd, &mut [0_u8; 8]);
            drop(state);
            self.changed.notify_all();
        }
    }
}

/// Wakes when there is something to flush: blocking, as a future of any runtime, or as a descriptor
/// to be polled.
///
/// ```
/// use mainstay_pool::{Kind, PoolOptions};
/// use mainstay_track::Tracker;
/// use std::time::Duration;
/// let pool = PoolOptions::new("calls", 64).create_memfd()?;
/// let tracker = Tracker::new(&pool)?;
/// let call = pool.allocate(Kind::Recoverable)?;
/// tracker.flush()?;
/// let waiter = tracker.waiter(Duration::from_millis(1))?;
/// call.write(0, b"ringing")?;
/// assert!(waiter.wait_timeout(Duration::from_secs(20)));
/// assert_eq!(tracker.flush()?.changes.len(), 1);
/// # Ok::<(), mainstay_track::Error>(())
/// ```
pub struct Waiter {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Waiter {
    pub(crate) fn new(tracker: Arc<Shared>, latency: Duration) -> Result<Self> {
        let failed = |action| move |source| Error::System { action, source };
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| failed("make an eventfd")(e.into()))?;
        let signal = Arc::new(Signal { state: Mutex::default(), changed: Condvar::new(), fd });
        tracker.signals.add(&signal);
        let ours = signal.clone();
        let thread = std::thread::Builder::new()
            .name("track-wait".into())
            .spawn(move || look(&tracker, &ours, latency))
            .map_err(failed("start a thread"))?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// Waits until there is something to flush, at most `timeout`; whether there is.
    ///
    /// Example: see [`Waiter`].
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        let end = Instant::now().checked_add(timeout);
        let mut state = self.signal.lock();
        while !state.fired && !state.stop {
            let left = match end {
                Some(end) => end.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(1 << 30),
            };
            if left.is_zero() {
                return false;
            }
            let waited = self.signal.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.fired
    }

    /// A future that is ready when there is something to flush. It needs no runtime.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions};
    /// # use mainstay_track::Tracker;
    /// # use std::{future::Future, pin::pin, task::{Context, Poll, Waker}, time::Duration};
    /// # let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// # let tracker = Tracker::new(&pool)?;
    /// # let call = pool.allocate(Kind::Recoverable)?;
    /// # tracker.flush()?;
    /// let waiter = tracker.waiter(Duration::from_millis(1))?;
    /// let mut wait = pin!(waiter.wait()); // in async code: waiter.wait().await
    /// # let mut context = Context::from_waker(Waker::noop());
    /// call.write(0, b"ringing")?;
    /// # while wait.as_mut().poll(&mut context).is_pending() { std::thread::yield_now(); }
    /// # Ok::<(), mainstay_track::Error>(())
    /// ```
    pub fn wait(&self) -> Wait<'_> {
        Wait { waiter: self }
    }

    /// Ends a wait that is going on, without anything to flush.
    pub(crate) fn wake(&self) {
        self.signal.lock().stop = true;
        self.signal.changed.notify_all();
    }
}

/// Readable while there is something to flush; do not read it, a flush does.
impl AsFd for Waiter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.fd.as_fd()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What [`Waiter::wait`] returns.
///
/// Example: see [`Waiter::wait`].
#[must_use = "a future does nothing until it is polled"]
pub struct Wait<'w> {
    waiter: &'w Waiter,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.waiter.signal.lock();
        if state.fired {
            return Poll::Ready(());
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

/// The thread of a waiter: looks once a latency until something may have changed, then sleeps until
/// that is flushed.
fn look(tracker: &Shared, signal: &Signal, latency: Duration) {
    let mut faults = 0;
    let mut state = signal.lock();
    while !state.stop {
        if state.fired {
            state = signal.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let waited = signal.changed.wait_timeout(state, latency);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.stop || state.fired {
            continue;
        }
        drop(state);
        if tracker.may_have_changed(&mut faults) {
            signal.fire();
        }
        state = signal.lock();
    }
}
