//! Records in the order of their keys, of all shards together.

use std::ops::Bound;

use mainstay_storage::Folder;

use crate::{
    error::{Error, Result},
    kept::Kept,
    merge::{Ends, Source},
    order::{Bounds, Key, Keys, Order},
    shard::Shard,
    snapshot::Snapshot,
    span::Span,
    store::RawStore,
};

/// Records in the order of their keys, from either end: those of a store, or of a snapshot.
///
/// Of a store that others write to meanwhile, a record that is neither written nor deleted is shown
/// exactly once, one that is written with a value that it had, and one that comes or goes, or not.
/// Nobody waits.
///
/// Example: see [`RawStore::range`].
pub struct Range<'a, F: Folder> {
    of: Of<'a, F>,
    span: Span,
    ends: Ends<Part<'a>>,
}

/// Whose records.
enum Of<'a, F: Folder> {
    Store(&'a RawStore<F>),
    Snapshot(&'a Snapshot<'a, F>),
}

/// The keys of a shard, in one direction.
struct Part<'a> {
    /// Those there are.
    keys: Keys<'a>,
    /// The next of them, if it is known.
    next: Option<Key>,
    /// What a snapshot keeps: its keys may be gone.
    kept: Option<(u32, &'a Kept)>,
    bounds: Bounds,
}

impl Source for Part<'_> {
    type Key = Key;

    fn next(&mut self, backward: bool) -> Result<Option<Key>> {
        if self.next.is_none() {
            let next = if backward { self.keys.next_back() } else { self.keys.next() };
            self.next = next.map(|entry| entry.value().clone());
        }
        let Some((shard, kept)) = self.kept else { return Ok(self.next.take()) };
        // After the other one: what has gone before that is kept by now.
        let (from, to) = &self.bounds;
        let gone = kept.seen(shard)?.key((from.as_ref(), to.as_ref()), backward);
        let next = match (self.next.take(), gone) {
            (Some(next), Some(gone)) if next != gone => {
                if (next < gone) == backward {
                    self.next = Some(next);
                    Some(gone)
                } else {
                    // What is kept is found again.
                    Some(next)
                }
            }
            (next, gone) => next.or(gone),
        };
        if let Some(key) = &next {
            let end = if backward { &mut self.bounds.1 } else { &mut self.bounds.0 };
            *end = Bound::Excluded(key.clone());
        }
        Ok(next)
    }
}

/// The parts of all shards.
fn parts<'a, F: Folder>(of: &Of<'a, F>, span: &Span) -> Result<Vec<Part<'a>>> {
    let key_len = of.store().lengths().0;
    let only = of.store().header.route().only_shard(span);
    let counts = |shard: &Shard<F>| only.is_none_or(|only| shard.number() == only);
    let part = |shard: &'a Shard<F>, kept: Option<&'a Kept>| {
        let order = shard.order().ok_or(Error::NotOrdered)?;
        let kept = kept.map(|kept| (shard.number(), kept));
        let bounds = Order::bounds(span, key_len);
        Ok(Part { keys: order.keys(bounds.clone()), next: None, kept, bounds })
    };
    match *of {
        Of::Store(store) => {
            let shards = store.shards.iter().filter(|shard| counts(shard));
            shards.map(|shard| part(shard, None)).collect()
        }
        Of::Snapshot(snapshot) => {
            let parts = snapshot.parts().filter(|(shard, _)| counts(shard));
            parts.map(|(shard, kept)| part(shard, Some(kept))).collect()
        }
    }
}

impl<'a, F: Folder> Of<'a, F> {
    fn store(&self) -> &'a RawStore<F> {
        match *self {
            Of::Store(store) => store,
            Of::Snapshot(snapshot) => snapshot.store(),
        }
    }
}

impl<F: Folder> RawStore<F> {
    /// Records in the order of their keys, of a store that was opened with
    /// [`Options::ordered`](crate::Options::ordered).
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore, Span};
    /// let options = Options { ordered: true, ..Options::default() };
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &options)?;
    /// for (key, value) in [(b"fr", b"033"), (b"de", b"049"), (b"dk", b"045")] {
    ///     store.put(key, value, Memory)?;
    /// }
    /// let keys = |found: Vec<(Vec<u8>, Vec<u8>)>| -> Vec<Vec<u8>> {
    ///     found.into_iter().map(|(key, _)| key).collect()
    /// };
    /// let found = store.range(&Span::ALL.prefix(b"d"))?.collect::<Result<_, _>>()?;
    /// assert_eq!(keys(found), [b"de", b"dk"]);
    /// let found = store.range(&Span::ALL.from(b"dk"))?.rev().collect::<Result<_, _>>()?;
    /// assert_eq!(keys(found), [b"fr", b"dk"]);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotOrdered`].
    pub fn range(&self, span: &Span) -> Result<Range<'_, F>> {
        Range::of(Of::Store(self), span)
    }
}

impl<'a, F: Folder> Range<'a, F> {
    pub(crate) fn of_snapshot(snapshot: &'a Snapshot<'a, F>, span: &Span) -> Result<Self> {
        Self::of(Of::Snapshot(snapshot), span)
    }

    fn of(of: Of<'a, F>, span: &Span) -> Result<Self> {
        if of.store().shards.iter().any(|shard| shard.order().is_none()) {
            return Err(Error::NotOrdered);
        }
        Ok(Self { of, span: span.clone(), ends: Ends::new() })
    }

    /// Copies the next record from the front into `key` and `value`, which have the lengths of the
    /// store's. False behind the last one.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore, Span};
    /// let options = Options { ordered: true, ..Options::default() };
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &options)?;
    /// store.put(b"de", b"049", Memory)?;
    /// let (mut key, mut value) = ([0; 2], [0; 3]);
    /// let mut range = store.range(&Span::ALL)?;
    /// assert!(range.read_next(&mut key, &mut value)?);
    /// assert_eq!((&key, &value), (b"de", b"049"));
    /// assert!(!range.read_next(&mut key, &mut value)?);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::read_into`].
    pub fn read_next(&mut self, key: &mut [u8], value: &mut [u8]) -> Result<bool> {
        self.read(key, value, false)
    }

    /// The same from the back: false before the first one.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Options, RawStore, Span};
    /// let options = Options { ordered: true, ..Options::default() };
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &options)?;
    /// store.put(b"de", b"049", Memory)?;
    /// store.put(b"fr", b"033", Memory)?;
    /// let (mut key, mut value) = ([0; 2], [0; 3]);
    /// assert!(store.range(&Span::ALL)?.read_next_back(&mut key, &mut value)?);
    /// assert_eq!((&key, &value), (b"fr", b"033"));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::read_into`].
    pub fn read_next_back(&mut self, key: &mut [u8], value: &mut [u8]) -> Result<bool> {
        self.read(key, value, true)
    }

    fn read(&mut self, key: &mut [u8], value: &mut [u8], backward: bool) -> Result<bool> {
        // Before the key is written to.
        self.of.store().check_key(key)?;
        while let Some(next) = self.next_key(backward)? {
            next.copy_to(key);
            let is_there = match self.of {
                Of::Store(store) => store.read_into(key, value)?,
                Of::Snapshot(snapshot) => snapshot.read_into(key, value)?,
            };
            if is_there {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn next_key(&mut self, backward: bool) -> Result<Option<Key>> {
        self.ends.next(backward, || parts(&self.of, &self.span))
    }

    fn record(&mut self, backward: bool) -> Option<Result<(Vec<u8>, Vec<u8>)>> {
        let (key_len, value_len) = self.of.store().lengths();
        let (mut key, mut value) = (vec![0; key_len], vec![0; value_len]);
        match self.read(&mut key, &mut value, backward) {
            Ok(true) => Some(Ok((key, value))),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl<F: Folder> Iterator for Range<'_, F> {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.record(false)
    }
}

impl<F: Folder> DoubleEndedIterator for Range<'_, F> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.record(true)
    }
}
