//! Records in the order of their keys, of all shards together.

use std::{
    collections::VecDeque,
    marker::PhantomData,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use mainstay_storage::Folder;

use super::{
    kept::Kept,
    raw::RawLogStore,
    shard::Shard,
    snapshot::LogSnapshot,
    typed::{Field, LogStore, bytes_of},
};
use crate::{
    error::{Error, Result},
    folder::Directory,
    merge::{Ends, Source},
    span::{self, Span},
};

/// Keys of a shard that are copied at a time.
const KEYS: usize = 64;

type Record = (Box<[u8]>, Arc<[u8]>);

/// Records in the order of their keys, from either end: those of a store, or of a snapshot. A value
/// is read when its turn comes.
///
/// Of a store that others write to meanwhile, a record that is neither written nor deleted is shown
/// exactly once, one that is written with a value that it had, and one that comes or goes, or not.
///
/// Example: see [`RawLogStore::range`].
pub struct RawLogRange<'a, F: Folder> {
    of: Of<'a, F>,
    bounds: span::Ends,
    /// The shard that has all of them, if it is one.
    only: Option<u32>,
    ends: Ends<Part<'a, F>>,
}

/// Whose records.
enum Of<'a, F: Folder> {
    Store(&'a RawLogStore<F>),
    Snapshot(&'a LogSnapshot<'a, F>),
}

impl<'a, F: Folder> Of<'a, F> {
    fn store(&self) -> &'a RawLogStore<F> {
        match *self {
            Of::Store(store) => store,
            Of::Snapshot(snapshot) => snapshot.store(),
        }
    }
}

/// The keys of a shard, in one direction.
struct Part<'a, F: Folder> {
    shard: &'a Shard<F>,
    kept: Option<&'a Kept<F::File>>,
    /// What has not been copied yet.
    bounds: span::Ends,
    ready: VecDeque<Box<[u8]>>,
    is_done: bool,
    /// By the clock, when it was begun.
    now: u64,
}

impl<F: Folder> Source for Part<'_, F> {
    type Key = Box<[u8]>;

    fn next(&mut self, backward: bool) -> Result<Option<Box<[u8]>>> {
        if self.ready.is_empty() && !self.is_done {
            self.ready =
                self.shard.keys(self.kept, &self.bounds, backward, (KEYS, self.now))?.into();
            self.is_done = self.ready.len() < KEYS;
            if let Some(last) = self.ready.back() {
                let end = if backward { &mut self.bounds.1 } else { &mut self.bounds.0 };
                *end = Bound::Excluded(last.clone());
            }
        }
        Ok(self.ready.pop_front())
    }
}

impl<F: Folder> RawLogStore<F> {
    /// Records in the order of their keys, of a store that was opened with
    /// [`LogOptions::ordered`](crate::LogOptions::ordered).
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore, Span};
    /// let options = LogOptions { ordered: true, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &options)?;
    /// for key in ["berg", "ast", "bergwerk", "zahl"] {
    ///     store.put(key.as_bytes(), b"", Memory)?;
    /// }
    /// let mut found = store.range(&Span::ALL.prefix(b"berg"))?;
    /// assert_eq!(&*found.next().unwrap()?.0, b"berg");
    /// assert_eq!(&*found.next_back().unwrap()?.0, b"bergwerk");
    /// assert!(found.next().is_none());
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotOrdered`].
    pub fn range(&self, span: &Span) -> Result<RawLogRange<'_, F>> {
        RawLogRange::of(Of::Store(self), span)
    }
}

impl<'a, F: Folder> RawLogRange<'a, F> {
    pub(super) fn of_snapshot(snapshot: &'a LogSnapshot<'a, F>, span: &Span) -> Result<Self> {
        Self::of(Of::Snapshot(snapshot), span)
    }

    fn of(of: Of<'a, F>, span: &Span) -> Result<Self> {
        if !of.store().options.ordered {
            return Err(Error::NotOrdered);
        }
        let only = of.store().header.route().only_shard(span);
        Ok(Self { of, bounds: span.ends(), only, ends: Ends::new() })
    }

    /// The next key from the front, without its value: nothing is read from the disk.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore, Span};
    /// let options = LogOptions { ordered: true, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &options)?;
    /// store.put(b"b", b"", Memory)?;
    /// store.put(b"a", b"", Memory)?;
    /// let mut range = store.range(&Span::ALL)?;
    /// assert_eq!(range.next_key()?.as_deref(), Some(&b"a"[..]));
    /// assert_eq!(range.next_key_back()?.as_deref(), Some(&b"b"[..]));
    /// assert_eq!(range.next_key()?, None);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// Of a snapshot, [`Error::SnapshotLost`].
    pub fn next_key(&mut self) -> Result<Option<Box<[u8]>>> {
        self.key(false)
    }

    /// The same from the back.
    ///
    /// Example: see [`next_key`](Self::next_key).
    ///
    /// # Errors
    /// As [`next_key`](Self::next_key).
    pub fn next_key_back(&mut self) -> Result<Option<Box<[u8]>>> {
        self.key(true)
    }

    fn key(&mut self, backward: bool) -> Result<Option<Box<[u8]>>> {
        let (of, bounds, only) = (&self.of, &self.bounds, self.only);
        let now = self.of.store().now();
        self.ends.next(backward, || {
            let part = |shard, kept| {
                let (bounds, ready) = (bounds.clone(), VecDeque::new());
                Part { shard, kept, bounds, ready, is_done: false, now }
            };
            let counts = |shard: &Shard<F>| only.is_none_or(|only| shard.number == only);
            Ok(match *of {
                Of::Store(store) => {
                    let shards = store.shards.iter().filter(|shard| counts(shard));
                    shards.map(|shard| part(shard, None)).collect()
                }
                Of::Snapshot(snapshot) => {
                    let parts = snapshot.parts().filter(|(shard, _)| counts(shard));
                    parts.map(|(shard, kept)| part(shard, Some(kept))).collect()
                }
            })
        })
    }

    fn record(&mut self, backward: bool) -> Result<Option<Record>> {
        while let Some(key) = self.key(backward)? {
            let value = match self.of {
                Of::Store(store) => store.get(&key)?,
                Of::Snapshot(snapshot) => snapshot.get(&key)?,
            };
            // Otherwise it has gone meanwhile.
            if let Some(value) = value {
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }
}

impl<F: Folder> Iterator for RawLogRange<'_, F> {
    type Item = Result<(Box<[u8]>, Arc<[u8]>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.record(false).transpose()
    }
}

impl<F: Folder> DoubleEndedIterator for RawLogRange<'_, F> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.record(true).transpose()
    }
}

/// Records of a [`LogStore`] in the order of their keys, from either end; see [`RawLogRange`].
///
/// Example: see [`LogStore::range`].
pub struct LogRange<'a, K, V> {
    raw: RawLogRange<'a, Directory>,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Field, V: Field> LogStore<K, V> {
    /// Records in the order of their keys, of a store that was opened with
    /// [`LogOptions::ordered`](crate::LogOptions::ordered). Keys are compared as their bytes.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let options = LogOptions { ordered: true, ..LogOptions::default() };
    /// let store = LogStore::<u64, String>::create(dir.path(), &options)?;
    /// for number in [700, 3, 256] {
    ///     store.put(&number, &number.to_string(), Memory)?;
    /// }
    /// let found = store.range(4..)?.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(found, [(256, "256".to_owned()), (700, "700".to_owned())]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotOrdered`].
    pub fn range(&self, keys: impl RangeBounds<K>) -> Result<LogRange<'_, K, V>> {
        self.span(&Span::between(&keys, bytes_of))
    }

    /// The same for keys whose bytes begin with these.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let options = LogOptions { ordered: true, ..LogOptions::default() };
    /// let store = LogStore::<String, String>::create(dir.path(), &options)?;
    /// for key in ["berg", "barn", "bergwerk"] {
    ///     store.put(&key.to_owned(), &String::new(), Memory)?;
    /// }
    /// let last = store.prefix(b"berg")?.next_back().transpose()?;
    /// assert_eq!(last.unwrap().0, "bergwerk");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`range`](Self::range).
    pub fn prefix(&self, prefix: &[u8]) -> Result<LogRange<'_, K, V>> {
        self.span(&Span::ALL.prefix(prefix))
    }

    fn span(&self, span: &Span) -> Result<LogRange<'_, K, V>> {
        Ok(LogRange { raw: self.raw().range(span)?, types: PhantomData })
    }
}

impl<K: Field, V: Field> LogRange<'_, K, V> {
    fn record(&mut self, backward: bool) -> Result<Option<(K, V)>> {
        let Some((key, value)) = self.raw.record(backward)? else { return Ok(None) };
        let key = K::decode(&key).ok_or(Error::Undecodable { what: "key" })?;
        let value = V::decode(&value).ok_or(Error::Undecodable { what: "value" })?;
        Ok(Some((key, value)))
    }
}

impl<K: Field, V: Field> Iterator for LogRange<'_, K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.record(false).transpose()
    }
}

impl<K: Field, V: Field> DoubleEndedIterator for LogRange<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.record(true).transpose()
    }
}
