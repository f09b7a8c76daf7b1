//! Records in the order of their keys, of all shards together.

use std::{cmp::Ordering, collections::BinaryHeap};

use mainstay_storage::Folder;

use crate::{
    error::{Error, Result},
    order::{Key, Keys},
    span::Span,
    store::RawStore,
};

/// Records in the order of their keys, from either end.
///
/// Writers go on meanwhile, and nobody waits: a record that is neither written nor deleted in the
/// meantime is shown exactly once, one that is written with a value that it had, and one that comes
/// or goes, or not.
///
/// Example: see [`RawStore::range`].
pub struct Range<'a, F: Folder> {
    store: &'a RawStore<F>,
    span: Span,
    front: Option<Merge<'a>>,
    back: Option<Merge<'a>>,
    /// The last keys that came from either end: what is beyond the other one has been shown.
    first: Option<Key>,
    last: Option<Key>,
}

/// The keys of all shards, in one direction.
struct Merge<'a> {
    shards: Vec<Keys<'a>>,
    heap: BinaryHeap<Next>,
    backward: bool,
}

/// The next key of a shard. The greatest of them is the one to come first.
#[derive(PartialEq, Eq)]
struct Next {
    key: Key,
    shard: usize,
    backward: bool,
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = (&self.key, self.shard).cmp(&(&other.key, other.shard));
        if self.backward { order } else { order.reverse() }
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> Merge<'a> {
    fn of<F: Folder>(store: &'a RawStore<F>, span: &Span, backward: bool) -> Result<Self> {
        let keys = store.shards.iter().map(|shard| {
            let order = shard.order().ok_or(Error::NotOrdered)?;
            Ok(order.keys(span, store.lengths().0))
        });
        let shards: Vec<Keys<'a>> = keys.collect::<Result<_>>()?;
        let mut merge = Self { heap: BinaryHeap::with_capacity(shards.len()), shards, backward };
        (0..merge.shards.len()).for_each(|shard| merge.advance(shard));
        Ok(merge)
    }

    fn advance(&mut self, shard: usize) {
        let keys = &mut self.shards[shard];
        let next = if self.backward { keys.next_back() } else { keys.next() };
        if let Some(entry) = next {
            let (key, backward) = (entry.value().clone(), self.backward);
            self.heap.push(Next { key, shard, backward });
        }
    }

    fn next(&mut self) -> Option<Next> {
        let next = self.heap.pop()?;
        self.advance(next.shard);
        Some(next)
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
        let is_ordered = self.shards.iter().all(|shard| shard.order().is_some());
        let range = Range {
            store: self,
            span: span.clone(),
            front: None,
            back: None,
            first: None,
            last: None,
        };
        if is_ordered { Ok(range) } else { Err(Error::NotOrdered) }
    }
}

impl<'a, F: Folder> Range<'a, F> {
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
        self.store.check_key(key)?;
        while let Some(next) = self.next_key(backward)? {
            next.copy_to(key);
            if self.store.read_into(key, value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn next_key(&mut self, backward: bool) -> Result<Option<Key>> {
        let merge = if backward { &mut self.back } else { &mut self.front };
        let merge = match merge {
            Some(merge) => merge,
            None => merge.insert(Merge::of(self.store, &self.span, backward)?),
        };
        let Some(Next { key, .. }) = merge.next() else { return Ok(None) };
        let is_new = if backward {
            self.first.as_ref().is_none_or(|first| key > *first)
        } else {
            self.last.as_ref().is_none_or(|last| key < *last)
        };
        if !is_new {
            return Ok(None);
        }
        let end = if backward { &mut self.last } else { &mut self.first };
        *end = Some(key.clone());
        Ok(Some(key))
    }

    fn record(&mut self, backward: bool) -> Option<Result<(Vec<u8>, Vec<u8>)>> {
        let (key_len, value_len) = self.store.lengths();
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
