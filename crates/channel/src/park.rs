//! Blocking a thread until a waker is called: the blocking face on top of the asynchronous one.

use std::{
    cell::OnceCell,
    sync::Arc,
    task::{Context, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

/// This thread, as somebody who waits.
pub(crate) struct Parker {
    waker: Waker,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static PARKER: OnceCell<Parker> = const { OnceCell::new() };
}

impl Parker {
    fn new() -> Self {
        Self { waker: Waker::from(Arc::new(Unpark(thread::current()))) }
    }

    /// Lends the thread's own one.
    pub(crate) fn with<T>(work: impl FnOnce(&Self) -> T) -> T {
        let mut work = Some(work);
        let lent =
            PARKER.try_with(|parker| work.take().map(|work| work(parker.get_or_init(Self::new))));
        match (lent, work) {
            (Ok(Some(done)), _) => done,
            // The thread is ending and its local values are gone: one for this time only.
            (_, Some(work)) => work(&Self::new()),
            (_, None) => unreachable!("the work was done, and its result returned"),
        }
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    /// Sleeps until the waker is called or the deadline has come; may also return for no reason.
    pub(crate) fn park(&self, deadline: Option<Instant>) {
        match deadline {
            None => thread::park(),
            Some(deadline) => {
                thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
            }
        }
    }
}
