//! Records and changes of an expiring store as its user put them: without the time before each value,
//! and without what has ended.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use mainstay_storage::Folder;

use super::{RawExpiring, STAMP, has_ended};
use crate::{
    error::Result,
    hooks::{Commit, Hook, Old},
    range::Range,
    shard::Change,
    span::Span,
    watch::{News, Watch},
};

/// Records of a [`RawExpiring`] in the order of their keys, from either end; see [`Range`].
///
/// Example: see [`RawExpiring::range`].
pub struct ExpiringRange<'a, F: Folder> {
    stored: Range<'a, F>,
    now: u64,
}

impl<F: Folder> ExpiringRange<'_, F> {
    fn record(&mut self, backward: bool) -> Option<Result<(Vec<u8>, Vec<u8>)>> {
        loop {
            let next = if backward { self.stored.next_back() } else { self.stored.next() };
            match next? {
                Ok((_, stored)) if has_ended(&stored, self.now) => {}
                Ok((key, stored)) => return Some(Ok((key, without_stamp(&stored).to_vec()))),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl<F: Folder> Iterator for ExpiringRange<'_, F> {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.record(false)
    }
}

impl<F: Folder> DoubleEndedIterator for ExpiringRange<'_, F> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.record(true)
    }
}

/// Changes of some keys of a [`RawExpiring`]; see [`Watch`].
///
/// Example: see [`RawExpiring::watch`].
pub struct ExpiringWatch(Watch);

impl ExpiringWatch {
    /// The next change, if there is one.
    ///
    /// Example: see [`RawExpiring::watch`].
    ///
    /// # Errors
    /// As [`Watch::take`].
    pub fn take(&mut self) -> Result<Option<News>> {
        Ok(self.0.take()?.map(seen))
    }

    /// The next change; `None` if there was none for so long.
    ///
    /// Example: see [`RawExpiring::watch`].
    ///
    /// # Errors
    /// As [`Watch::wait`].
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<News>> {
        Ok(self.0.wait(timeout)?.map(seen))
    }
}

impl AsFd for ExpiringWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn without_stamp(stored: &[u8]) -> &[u8] {
    stored.get(STAMP..).unwrap_or_default()
}

fn seen(news: News) -> News {
    let cut = |stored: Vec<u8>| without_stamp(&stored).to_vec();
    match news {
        News::Put { token, key, value, old } => {
            News::Put { token, key, value: cut(value), old: old.map(cut) }
        }
        News::Deleted { token, key, old } => News::Deleted { token, key, old: old.map(cut) },
        News::Missed => News::Missed,
    }
}

/// Calls with what a commit is to the user of an expiring store.
fn tell(commit: &Commit<'_>, call: &impl Fn(&Commit<'_>)) {
    let cut = commit.changes.iter().map(|change| match *change {
        Change::Put(key, stored) => Change::Put(key, without_stamp(stored)),
        Change::Delete(key) => Change::Delete(key),
    });
    let changes: Vec<Change<'_>> = cut.collect();
    let old = commit.old.iter().map(|old| Some(Arc::from(without_stamp(old.as_deref()?))));
    let old: Vec<Old> = old.collect();
    call(&Commit { changes: &changes, old: &old, ..*commit });
}

impl<F: Folder> RawExpiring<F> {
    /// Is the key there, and has not ended?
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, Options, RawExpiring};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), || 1_000)?;
    /// store.put_until(b"de", b"049", Some(2_000), Memory)?;
    /// store.put_until(b"fr", b"033", Some(999), Memory)?;
    /// assert!(store.contains(b"de")? && !store.contains(b"fr")?);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::get`](crate::RawStore::get).
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        Ok(self.live(key, |_| ())?.is_some())
    }

    /// Records in the order of their keys, of a store that was opened with
    /// [`Options::ordered`](crate::Options::ordered); none that has ended when this is called.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawExpiring, Span};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let options = Options { ordered: true, ..Options::default() };
    /// let store = RawExpiring::create(disk, 2, 3, &options, || 1_000)?;
    /// store.put_until(b"de", b"049", Some(2_000), Memory)?;
    /// store.put_until(b"dk", b"045", Some(999), Memory)?;
    /// let found = store.range(&Span::ALL.prefix(b"d"))?.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(found, [(b"de".to_vec(), b"049".to_vec())]);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotOrdered`](crate::Error::NotOrdered).
    pub fn range(&self, span: &Span) -> Result<ExpiringRange<'_, F>> {
        Ok(ExpiringRange { stored: self.raw().range(span)?, now: (self.clock)() })
    }

    /// Sees all changes of some keys from now on, as [`RawStore::watch`](crate::RawStore::watch) does. A
    /// record that ends is told of when it is swept: as deleted.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, News, Options, RawExpiring, Span};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), || 1_000)?;
    /// let mut watch = store.watch(Span::ALL)?;
    /// store.put_until(b"de", b"049", Some(999), Memory)?;
    /// assert!(matches!(watch.take()?, Some(News::Put { value, .. }) if value == b"049"));
    /// store.sweep_all()?;
    /// assert!(matches!(watch.take()?, Some(News::Deleted { key, .. }) if key == b"de"));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::watch`](crate::RawStore::watch).
    pub fn watch(&self, span: Span) -> Result<ExpiringWatch> {
        self.raw().watch(span).map(ExpiringWatch)
    }

    /// The same, and of each change what the key was before; see
    /// [`RawStore::watch_with_old`](crate::RawStore::watch_with_old).
    ///
    /// Example: see [`RawStore::watch_with_old`](crate::RawStore::watch_with_old).
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn watch_with_old(&self, span: Span) -> Result<ExpiringWatch> {
        self.raw().watch_with_old(span).map(ExpiringWatch)
    }

    /// Has `call` called after each write, as [`RawStore::on_commit`](crate::RawStore::on_commit) does,
    /// with values as they were put.
    ///
    /// ```
    /// use mainstay_store::{Change, Durability::Memory, Options, RawExpiring};
    /// use std::sync::{Arc, Mutex};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), || 0)?;
    /// let values = Arc::new(Mutex::new(Vec::new()));
    /// let seen = Arc::clone(&values);
    /// let hook = store.on_commit(move |commit| {
    ///     for change in commit.changes {
    ///         if let Change::Put(_, value) = change {
    ///             seen.lock().unwrap().push(value.to_vec());
    ///         }
    ///     }
    /// });
    /// store.put(b"de", b"049", None, Memory)?;
    /// assert_eq!(*values.lock().unwrap(), [b"049"]);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    pub fn on_commit(&self, call: impl Fn(&Commit<'_>) + Send + Sync + 'static) -> Hook {
        self.raw().on_commit(move |commit| tell(commit, &call))
    }

    /// The same, and each call can ask for the [old](Commit::old) value of each change, as it was put; see
    /// [`RawStore::on_commit_with_old`](crate::RawStore::on_commit_with_old).
    ///
    /// Example: see [`RawStore::on_commit_with_old`](crate::RawStore::on_commit_with_old).
    pub fn on_commit_with_old(&self, call: impl Fn(&Commit<'_>) + Send + Sync + 'static) -> Hook {
        self.raw().on_commit_with_old(move |commit| tell(commit, &call))
    }
}
