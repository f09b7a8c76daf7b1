//! Who is told of each write, in the order of the writes.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use mainstay_storage::Folder;

use crate::{
    error::Result,
    options::Token,
    planted::{self, Fault},
    shard::Change,
    store::RawStore,
};

/// A value that a change replaces; none if there was nothing.
pub(crate) type Old = Option<Arc<[u8]>>;

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
    /// What each change replaces; none at all if nobody asked.
    pub(crate) old: &'a [Old],
}

impl<'a> Commit<'a> {
    /// The value that a change replaces or removes, by its number in [`changes`](Self::changes); `None`
    /// if its key was not there. Of a record that had ended and was not yet removed it is what it was:
    /// that it ended was told to nobody. Only hooks made by
    /// [`on_commit_with_old`](RawStore::on_commit_with_old) are told; others may be, and need not.
    ///
    /// Example: see [`RawStore::on_commit_with_old`].
    #[must_use]
    pub fn old(&self, number: usize) -> Option<&'a [u8]> {
        self.old.get(number)?.as_deref()
    }
}

/// Who is to be told of each write.
pub(crate) type Hooks = Calls<dyn Fn(&Commit<'_>) + Send + Sync>;

/// Who is to look whether there are new writes.
pub(crate) type Wakes = Calls<dyn Fn() + Send + Sync>;

/// One who is to be called.
struct Known<C: ?Sized> {
    number: u64,
    wants_old: bool,
    call: Arc<C>,
}

impl<C: ?Sized> Clone for Known<C> {
    fn clone(&self) -> Self {
        Self { call: Arc::clone(&self.call), ..*self }
    }
}

/// All who are to be called.
pub(crate) struct Calls<C: ?Sized> {
    calls: ArcSwap<Vec<Known<C>>>,
    /// How many, for who writes.
    count: AtomicUsize,
    /// How many of them want to know what was there before.
    with_old: AtomicUsize,
    /// The number of the next one; the lock of who adds and removes.
    next: Mutex<u64>,
}

impl<C: ?Sized> Default for Calls<C> {
    fn default() -> Self {
        let (calls, next) = (ArcSwap::default(), Mutex::new(0));
        Self { calls, count: AtomicUsize::new(0), with_old: AtomicUsize::new(0), next }
    }
}

impl Hooks {
    /// Under the lock of the log, so in the order of the writes.
    #[inline]
    pub(crate) fn call(&self, commit: &Commit<'_>) {
        // Whoever began to ask after this write had begun is told of the next one on.
        let knows_old = commit.old.len() == commit.changes.len();
        self.each(|Known { wants_old, call, .. }| {
            if *wants_old && !knows_old {
                return;
            }
            // The write is made, and others may have to follow: nothing can end it here.
            if catch_unwind(AssertUnwindSafe(|| call(commit))).is_err() {
                tracing::error!(write = ?commit.token, "a hook of the store has panicked");
            }
        });
    }

    /// What each change of a write is about to replace, if somebody wants to know: what `read` finds, or
    /// what an earlier one of the same write puts. Before the write is made, under the lock of the log.
    ///
    /// # Errors
    /// Those of `read`; then the write must not be made.
    #[inline]
    pub(crate) fn old_of(
        &self,
        changes: &[Change<'_>],
        read: impl FnMut(&[u8]) -> Result<Old>,
    ) -> Result<Vec<Old>> {
        // This allocates nothing.
        if self.with_old.load(Relaxed) == 0 { Ok(Vec::new()) } else { old_of(changes, read) }
    }

    /// One who is told what was there before, too.
    pub(crate) fn add_with_old(
        self: &Arc<Self>,
        call: Arc<dyn Fn(&Commit<'_>) + Send + Sync>,
    ) -> Hook {
        self.add_one(call, true)
    }
}

impl Wakes {
    #[inline]
    pub(crate) fn wake(&self) {
        self.each(|known| (known.call)());
    }
}

impl<C: ?Sized> Calls<C> {
    #[inline]
    fn each(&self, call: impl Fn(&Known<C>)) {
        if self.count.load(Relaxed) > 0 {
            self.calls.load().iter().for_each(call);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Known<C>>)) {
        let mut calls = Vec::clone(&self.calls.load());
        change(&mut calls);
        let with_old = calls.iter().filter(|known| known.wants_old).count();
        self.with_old.store(with_old, Relaxed);
        self.count.store(calls.len(), Relaxed);
        self.calls.store(Arc::new(calls));
    }
}

impl<C: ?Sized + Send + Sync + 'static> Calls<C> {
    pub(crate) fn add(self: &Arc<Self>, call: Arc<C>) -> Hook {
        self.add_one(call, false)
    }

    fn add_one(self: &Arc<Self>, call: Arc<C>, wants_old: bool) -> Hook {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *next;
        *next += 1;
        self.change(|calls| calls.push(Known { number, wants_old, call }));
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
        self.change(|calls| calls.retain(|known| known.number != number));
    }
}

#[cold]
fn old_of(changes: &[Change<'_>], mut read: impl FnMut(&[u8]) -> Result<Old>) -> Result<Vec<Old>> {
    // The last value of a key that this write has put or removed before.
    let mut made: HashMap<&[u8], Old> = HashMap::new();
    let mut all = Vec::with_capacity(changes.len());
    for change in changes {
        let earlier = made.get(change.key()).filter(|_| !planted::is(Fault::OldOfBatch));
        all.push(match earlier {
            Some(old) => old.clone(),
            None => read(change.key())?,
        });
        if changes.len() > 1 {
            let new = match change {
                Change::Put(_, value) => Some(Arc::from(*value)),
                Change::Delete(_) => None,
            };
            made.insert(change.key(), new);
        }
    }
    Ok(all)
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

    /// The same, and each call can ask for the [old](Commit::old) value of each change. As long as there
    /// is such a hook, each write copies what it replaces; else none does.
    ///
    /// This is what an index of one's own is kept with. It is filled once, by a snapshot taken after the
    /// hook is there; what the hook was told of that the snapshot has already is left out:
    ///
    /// ```
    /// use mainstay_store::{Change, Commit, Durability::Memory, Options, RawStore, Token};
    /// use std::{collections::BTreeSet, sync::{Arc, Mutex}};
    ///
    /// /// Which countries have a dialling code, and what is not in it yet.
    /// #[derive(Default)]
    /// struct ByCode {
    ///     pairs: BTreeSet<(Vec<u8>, Vec<u8>)>,
    ///     /// None from when it is filled on.
    ///     waiting: Option<Vec<(Token, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>)>>,
    /// }
    /// impl ByCode {
    ///     fn change(&mut self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) {
    ///         if let Some(old) = old {
    ///             self.pairs.remove(&(old.to_vec(), key.to_vec()));
    ///         }
    ///         if let Some(new) = new {
    ///             self.pairs.insert((new.to_vec(), key.to_vec()));
    ///         }
    ///     }
    ///     fn see(&mut self, commit: &Commit<'_>) {
    ///         for (number, change) in commit.changes.iter().enumerate() {
    ///             let (key, old) = (change.key(), commit.old(number));
    ///             let new = match change {
    ///                 Change::Put(_, value) => Some(*value),
    ///                 _ => None,
    ///             };
    ///             match &mut self.waiting {
    ///                 Some(waiting) => {
    ///                     let (old, new) = (old.map(<[u8]>::to_vec), new.map(<[u8]>::to_vec));
    ///                     waiting.push((commit.token, key.to_vec(), old, new));
    ///                 }
    ///                 None => self.change(key, old, new),
    ///             }
    ///         }
    ///     }
    /// }
    ///
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.put(b"ca", b"001", Memory)?;
    /// let waiting = Some(Vec::new());
    /// let index = Arc::new(Mutex::new(ByCode { waiting, ..ByCode::default() }));
    /// let seen = Arc::clone(&index);
    /// let hook = store.on_commit_with_old(move |commit| seen.lock().unwrap().see(commit));
    /// // Whoever writes goes on meanwhile.
    /// let snapshot = store.snapshot();
    /// let last: Vec<Token> = snapshot.tokens().collect();
    /// let mut pairs = BTreeSet::new();
    /// snapshot.for_each(|key, value| {
    ///     pairs.insert((value.to_vec(), key.to_vec()));
    /// })?;
    /// let mut filled = index.lock().unwrap();
    /// filled.pairs = pairs;
    /// for (token, key, old, new) in filled.waiting.take().unwrap_or_default() {
    ///     if token.sequence > last[token.shard as usize].sequence {
    ///         filled.change(&key, old.as_deref(), new.as_deref());
    ///     }
    /// }
    /// drop((filled, snapshot));
    ///
    /// store.put(b"us", b"001", Memory)?;
    /// store.put(b"ca", b"+01", Memory)?;
    /// let index = index.lock().unwrap();
    /// let pairs: Vec<_> = index.pairs.iter().map(|(code, key)| (&code[..], &key[..])).collect();
    /// assert_eq!(pairs, [(&b"+01"[..], &b"ca"[..]), (b"001", b"us")]);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// As long as it is there, a write of a key whose old value cannot be read is refused with
    /// [`Error::Damaged`](crate::Error::Damaged), since an index could not be kept right.
    pub fn on_commit_with_old(&self, call: impl Fn(&Commit<'_>) + Send + Sync + 'static) -> Hook {
        self.hooks.add_with_old(Arc::new(call))
    }
}

#[cfg(test)]
mod tests;
