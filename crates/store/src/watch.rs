//! Waiting for changes of a key, or of those in a span.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mainstay_storage::Folder;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{read, retry_on_intr, write},
};

use crate::{
    error::{Error, Result},
    hooks::{Commit, Hook, Hooks},
    limits::WATCH_BYTES_MAX,
    options::Token,
    shard::Change,
    span::Span,
    store::RawStore,
};

/// What is counted for a change that waits, beside its key and value.
const NEWS_BYTES: usize = 64;

/// What a [`Watch`] has seen.
///
/// Example: see [`RawStore::watch`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum News {
    /// A key was written to.
    Put {
        /// By which write.
        token: Token,
        /// Which key.
        key: Vec<u8>,
        /// What it was set to.
        value: Vec<u8>,
        /// What it was before, if it was there and this was asked for.
        old: Option<Vec<u8>>,
    },
    /// A key was removed; it may not have been there.
    Deleted {
        /// By which write.
        token: Token,
        /// Which key.
        key: Vec<u8>,
        /// What it was before, if it was there and this was asked for.
        old: Option<Vec<u8>>,
    },
    /// More was changed than is kept for who does not take it: everything may be different. What
    /// follows has happened after this.
    Missed,
}

impl News {
    fn bytes(&self) -> usize {
        NEWS_BYTES
            + match self {
                Self::Put { key, value, old, .. } => key.len() + value.len() + len_of(old),
                Self::Deleted { key, old, .. } => key.len() + len_of(old),
                Self::Missed => 0,
            }
    }
}

fn len_of(old: &Option<Vec<u8>>) -> usize {
    old.as_ref().map_or(0, Vec::len)
}

/// Changes of some keys from the moment on when it was made, those of a key in their order. It ends
/// when it is dropped, and outlives the store only to say that there is no more.
///
/// Its descriptor can be given to `poll(2)` and its kin, or to a runtime: it is readable while there
/// is something to take.
///
/// Example: see [`RawStore::watch`].
pub struct Watch {
    queue: Arc<Queue>,
    _hook: Hook,
}

struct Queue {
    span: Span,
    wants_old: bool,
    waiting: Mutex<Waiting>,
    /// Not zero while there is something to take.
    event: OwnedFd,
}

#[derive(Default)]
struct Waiting {
    news: VecDeque<News>,
    bytes: usize,
    has_ended: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) {
        // The counter is zero or one, so there is room in it.
        if let Err(error) = retry_on_intr(|| write(&self.event, &1_u64.to_le_bytes())) {
            tracing::warn!(%error, "whoever waits for changes of a store could not be woken");
        }
    }

    fn see(&self, commit: &Commit<'_>) {
        let changes = commit.changes.iter().enumerate();
        for (number, change) in changes.filter(|(_, change)| self.span.has(change.key())) {
            let (token, wanted) = (commit.token, commit.old(number).filter(|_| self.wants_old));
            let old = wanted.map(<[u8]>::to_vec);
            let news = match change {
                Change::Put(key, value) => {
                    News::Put { token, key: key.to_vec(), value: value.to_vec(), old }
                }
                Change::Delete(key) => News::Deleted { token, key: key.to_vec(), old },
            };
            self.push(news);
        }
    }

    fn push(&self, news: News) {
        let mut waiting = self.waiting();
        let was_empty = waiting.news.is_empty();
        if waiting.bytes + news.bytes() > WATCH_BYTES_MAX {
            waiting.news.clear();
            waiting.news.push_back(News::Missed);
            waiting.bytes = News::Missed.bytes();
        }
        // One that is too long by itself was missed as well.
        if waiting.bytes + news.bytes() <= WATCH_BYTES_MAX {
            waiting.bytes += news.bytes();
            waiting.news.push_back(news);
        }
        if was_empty {
            self.signal();
        }
    }

    fn take(&self) -> Result<Option<News>> {
        let mut waiting = self.waiting();
        let Some(news) = waiting.news.pop_front() else {
            return if waiting.has_ended { Err(Error::Ended) } else { Ok(None) };
        };
        waiting.bytes -= news.bytes();
        if waiting.news.is_empty() && !waiting.has_ended {
            let reset = retry_on_intr(|| read(&self.event, &mut [0; 8]));
            reset.map_err(|error| Error::io("an eventfd")(error.into()))?;
        }
        Ok(Some(news))
    }
}

/// Ends a watch when the store, or the watch, has let go of it.
struct End(Arc<Queue>);

impl Drop for End {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.has_ended = true;
        if waiting.news.is_empty() {
            self.0.signal();
        }
    }
}

impl<F: Folder> RawStore<F> {
    /// Sees all changes of some keys from now on: those of its users, and of a leader. What nobody
    /// takes waits, up to [`WATCH_BYTES_MAX`](crate::limits::WATCH_BYTES_MAX).
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, News, Options, RawStore, Span};
    /// use std::time::Duration;
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let mut watch = store.watch(Span::ALL.prefix(b"d"))?;
    /// store.put(b"fr", b"033", Memory)?;
    /// store.put(b"de", b"049", Memory)?;
    /// let news = watch.wait(Duration::from_secs(1))?;
    /// assert!(matches!(news, Some(News::Put { key, value, .. }) if key == b"de" && value == b"049"));
    /// assert_eq!(watch.take()?, None);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the operating system says if it has no more descriptors.
    pub fn watch(&self, span: Span) -> Result<Watch> {
        Watch::of(&self.hooks, span, false)
    }

    /// The same, and of each change what the key was before. As long as there is such a watch, each write
    /// of whatever key copies what it replaces; see [`on_commit_with_old`](Self::on_commit_with_old).
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, News, Options, RawStore, Span};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Memory)?;
    /// let mut watch = store.watch_with_old(Span::ALL)?;
    /// store.delete(b"de", Memory)?;
    /// let news = watch.take()?;
    /// assert!(matches!(news, Some(News::Deleted { old: Some(old), .. }) if old == b"049"));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn watch_with_old(&self, span: Span) -> Result<Watch> {
        Watch::of(&self.hooks, span, true)
    }
}

impl Watch {
    pub(crate) fn of(hooks: &Arc<Hooks>, span: Span, wants_old: bool) -> Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Error::io("an eventfd")(error.into()))?;
        let queue = Arc::new(Queue { span, wants_old, waiting: Mutex::default(), event });
        let end = End(Arc::clone(&queue));
        let call = Arc::new(move |commit: &Commit<'_>| end.0.see(commit));
        let hook = if wants_old { hooks.add_with_old(call) } else { hooks.add(call) };
        Ok(Self { queue, _hook: hook })
    }

    /// The next change, if there is one.
    ///
    /// Example: see [`RawStore::watch`].
    ///
    /// # Errors
    /// [`Error::Ended`] if the store is closed and all was taken.
    pub fn take(&mut self) -> Result<Option<News>> {
        self.queue.take()
    }

    /// The next change; `None` if there was none for so long.
    ///
    /// Example: see [`RawStore::watch`].
    ///
    /// # Errors
    /// As [`take`](Self::take), or what the operating system says.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<News>> {
        let end = Instant::now().checked_add(timeout);
        loop {
            if let Some(news) = self.queue.take()? {
                return Ok(Some(news));
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [PollFd::new(&self.queue.event, PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::io("waiting for changes")(io::Error::from(error))),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.event.as_fd()
    }
}
