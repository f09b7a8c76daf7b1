//! Changes of a state as an asynchronous stream.

use crate::{
    Result, Snapshot, State, Watch,
    bridge::{Bell, Sleeper},
    value::Value,
};
use futures_core::{FusedStream, Stream};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// The changes of a state, as a stream for `async` code on any runtime, or none: each item is the
/// number of a version that is newer than the one before.
///
/// It tells *that* there is a newer version, not of each one in between: after a pause the next item
/// is the newest. [`Changes::at_most_every`] makes the pauses. The stream ends after an error,
/// as when the state was deleted.
///
/// Nothing is lost when a future of it is dropped halfway, as `select!` does: a version counts as
/// told only when it was returned. One thread of this process wakes the tasks of up to 120 streams.
/// Whoever would rather wait in an event loop of their own has [`Watch::descriptor`].
///
/// ```
/// # use mainstay_state::Domain;
/// # use std::{pin::pin, sync::Arc, task::{Context, Poll, Wake, Waker}, thread};
/// # struct Unpark(thread::Thread);
/// # impl Wake for Unpark { fn wake(self: Arc<Self>) { self.0.unpark(); } }
/// # fn block_on<F: Future>(future: F) -> F::Output {
/// #     let (mut future, waker) = (pin!(future), Waker::from(Arc::new(Unpark(thread::current()))));
/// #     loop {
/// #         match future.as_mut().poll(&mut Context::from_waker(&waker)) {
/// #             Poll::Ready(output) => return output,
/// #             Poll::Pending => thread::park(),
/// #         }
/// #     }
/// # }
/// # let dir = tempfile::tempdir()?;
/// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
/// let mut changes = state.changes()?;
/// let writer = thread::spawn(move || state.replace(b"80").map(drop));
/// block_on(async {
///     let version = changes.next().await.expect("a stream ends after an error only")?;
///     assert_eq!((version, &*changes.read()?), (1, &b"80"[..]));
///     Ok::<(), mainstay_state::Error>(())
/// })?;
/// # writer.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a stream does nothing until it is polled"]
pub struct Changes<T: Value + ?Sized> {
    /// Before the watch: it has the state too, and the last handle of it may have something to do.
    sleeper: Option<Sleeper>,
    watch: Watch<T>,
    interval: Duration,
    /// When the last item was returned.
    last: Option<Instant>,
    ended: bool,
}

impl<T: Value + ?Sized> Changes<T> {
    pub(crate) fn new(watch: Watch<T>) -> Self {
        Self { sleeper: None, watch, interval: Duration::ZERO, last: None, ended: false }
    }

    /// From now on at most one item every `interval`: the newest version then.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # use std::{pin::pin, task::{Context, Waker}, time::Duration};
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// let mut changes = state.changes()?.at_most_every(Duration::from_secs(3600));
    /// # let mut context = Context::from_waker(Waker::noop());
    /// state.replace(b"80")?;
    /// assert!(pin!(changes.next()).poll(&mut context).is_ready());
    /// state.replace(b"90")?;
    /// assert!(pin!(changes.next()).poll(&mut context).is_pending(), "not before the hour is over");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn at_most_every(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The next item, for those who do not have the combinators of a library for streams.
    ///
    /// Example: see [`Changes`].
    #[expect(
        clippy::should_implement_trait,
        reason = "what all libraries for streams call it; it is no iterator's"
    )]
    pub fn next(&mut self) -> impl Future<Output = Option<Result<u64>>> + use<'_, T> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context))
    }

    /// The current version, which may be newer than the one that was told of.
    ///
    /// Example: see [`Changes`].
    ///
    /// # Errors
    /// As [`State::read`].
    pub fn read(&self) -> Result<Snapshot<'_, T>> {
        self.watch.read()
    }

    /// The handle that it watches.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// assert_eq!(state.changes()?.state().name(), "speed");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn state(&self) -> &State<T> {
        self.watch.state()
    }

    /// Asks to be woken.
    fn sleep(&mut self, due: Option<Instant>, context: &Context<'_>) -> Result<()> {
        let sleeper = match &mut self.sleeper {
            Some(sleeper) => sleeper,
            none => none.insert(Sleeper::new(self.watch.state().memory())?),
        };
        sleeper.wait_for(self.watch.seen(), due, Bell::Task(context.waker().clone()));
        Ok(())
    }

    /// The last item, or the last but the end.
    fn told(&mut self, item: Result<u64>) -> Poll<Option<Result<u64>>> {
        if let Some(sleeper) = &self.sleeper {
            sleeper.cancel();
        }
        self.ended = item.is_err();
        self.last = Some(Instant::now());
        Poll::Ready(Some(item))
    }
}

impl<T: Value + ?Sized> Stream for Changes<T> {
    type Item = Result<u64>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let due = this.last.and_then(|last| last.checked_add(this.interval));
        let is_due = due.is_none_or(|due| Instant::now() >= due);
        if is_due && let Some(item) = this.watch.news().transpose() {
            return this.told(item);
        }
        match this.sleep(due.filter(|_| !is_due), context) {
            Ok(()) => Poll::Pending,
            Err(error) => this.told(Err(error)),
        }
    }
}

impl<T: Value + ?Sized> FusedStream for Changes<T> {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}
