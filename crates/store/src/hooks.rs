//! Who is told of each write, in the order of the writes.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use mainstay_storage::Folder;

use crate::{options::Token, shard::Change, store::RawStore};

/// A write that has just been made: of a user, of a leader, or one that a replica was mended with.
///
/// Example: see [`RawStore::on_commit`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Commit<'a> {
    /// Which write.
    pub token: Token,
    /// What it made.
    pub changes: &'a [Change<'a>],
    /// When what it puts ends, of values of any size; 0: never.
    pub(crate) end: u64,
}

/// Who is to be told of each write.
pub(crate) type Hooks = Calls<dyn Fn(&Commit<'_>) + Send + Sync>;

/// Who is to look whether there are new writes.
pub(crate) type Wakes = Calls<dyn Fn() + Send + Sync>;

/// All who are to be called.
pub(crate) struct Calls<C: ?Sized> {
    calls: ArcSwap<Vec<(u64, Arc<C>)>>,
    /// How many, for who writes.
    count: AtomicUsize,
    /// The number of the next one; the lock of who adds and removes.
    next: Mutex<u64>,
}

impl<C: ?Sized> Default for Calls<C> {
    fn default() -> Self {
        Self { calls: ArcSwap::default(), count: AtomicUsize::new(0), next: Mutex::new(0) }
    }
}

impl Hooks {
    /// Under the lock of the log, so in the order of the writes.
    #[inline]
    pub(crate) fn call(&self, commit: &Commit<'_>) {
        self.each(|call| {
            // The write is made, and others may have to follow: nothing can end it here.
            if catch_unwind(AssertUnwindSafe(|| call(commit))).is_err() {
                tracing::error!(write = ?commit.token, "a hook of the store has panicked");
            }
        });
    }
}

impl Wakes {
    #[inline]
    pub(crate) fn wake(&self) {
        self.each(|call| call());
    }
}

impl<C: ?Sized> Calls<C> {
    #[inline]
    fn each(&self, call: impl Fn(&C)) {
        if self.count.load(Relaxed) > 0 {
            self.calls.load().iter().for_each(|(_, known)| call(known));
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<(u64, Arc<C>)>)) {
        let mut calls = Vec::clone(&self.calls.load());
        change(&mut calls);
        self.count.store(calls.len(), Relaxed);
        self.calls.store(Arc::new(calls));
    }
}

impl<C: ?Sized + Send + Sync + 'static> Calls<C> {
    pub(crate) fn add(self: &Arc<Self>, call: Arc<C>) -> Hook {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *next;
        *next += 1;
        self.change(|calls| calls.push((number, call)));
        let of: Weak<Self> = Arc::downgrade(self);
        Hook { of, number }
    }
}

/// What a hook can be taken out of.
trait Remove: Send + Sync {
    fn remove(&self, number: u64);
}

impl<C: ?Sized + Send + Sync> Remove for Calls<C> {
    fn remove(&self, number: u64) {
        let _one = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        self.change(|calls| calls.retain(|(known, _)| *known != number));
    }
}

/// Has a closure called after each write, until it is dropped.
///
/// Example: see [`RawStore::on_commit`].
#[must_use = "dropped, it is called no more"]
pub struct Hook {
    of: Weak<dyn Remove>,
    number: u64,
}

impl Drop for Hook {
    fn drop(&mut self) {
        if let Some(calls) = self.of.upgrade() {
            calls.remove(self.number);
        }
    }
}

impl<F: Folder> RawStore<F> {
    /// Has `call` called after each write, by the thread that writes, in the order of the writes of a
    /// shard, and so of each key: while it is called, no other writer of the shard gets in. It may
    /// read the store, and must not write to it. What it is told of is visible, and may not be durable
    /// yet. A call that panics is logged, and the write is as it was.
    ///
    /// ```
    /// use mainstay_store::{Change, Durability::Memory, Options, RawStore};
    /// use std::sync::{Arc, Mutex};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let values = Arc::new(Mutex::new(Vec::new()));
    /// let seen = Arc::clone(&values);
    /// let hook = store.on_commit(move |commit| {
    ///     for change in commit.changes {
    ///         if let Change::Put(b"de", value) = change {
    ///             seen.lock().unwrap().push(value.to_vec());
    ///         }
    ///     }
    /// });
    /// store.put(b"de", b"049", Memory)?;
    /// store.put(b"de", b"+49", Memory)?;
    /// drop(hook);
    /// store.put(b"de", b"***", Memory)?;
    /// assert_eq!(*values.lock().unwrap(), [b"049", b"+49"]);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    pub fn on_commit(&self, call: impl Fn(&Commit<'_>) + Send + Sync + 'static) -> Hook {
        self.hooks.add(Arc::new(call))
    }
}
