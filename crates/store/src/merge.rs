//! Keys of several shards in one order, from either end.

use std::{cmp::Ordering, collections::BinaryHeap};

use crate::error::Result;

/// The keys of a shard, in one direction.
pub(crate) trait Source {
    type Key: Ord + Clone;

    fn next(&mut self, backward: bool) -> Result<Option<Self::Key>>;
}

/// The keys of all shards, in one direction.
struct Merge<S: Source> {
    shards: Vec<S>,
    heap: BinaryHeap<Next<S::Key>>,
    backward: bool,
}

/// The next key of a shard. The greatest of them is the one to come first.
#[derive(PartialEq, Eq)]
struct Next<K> {
    key: K,
    shard: usize,
    backward: bool,
}

impl<K: Ord> Ord for Next<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = (&self.key, self.shard).cmp(&(&other.key, other.shard));
        if self.backward { order } else { order.reverse() }
    }
}

impl<K: Ord> PartialOrd for Next<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<S: Source> Merge<S> {
    fn of(shards: Vec<S>, backward: bool) -> Result<Self> {
        let mut merge = Self { heap: BinaryHeap::with_capacity(shards.len()), shards, backward };
        (0..merge.shards.len()).try_for_each(|shard| merge.advance(shard))?;
        Ok(merge)
    }

    fn advance(&mut self, shard: usize) -> Result<()> {
        let backward = self.backward;
        if let Some(key) = self.shards[shard].next(backward)? {
            self.heap.push(Next { key, shard, backward });
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<S::Key>> {
        let Some(next) = self.heap.pop() else { return Ok(None) };
        self.advance(next.shard)?;
        Ok(Some(next.key))
    }
}

/// Keys taken from both ends, until they meet.
pub(crate) struct Ends<S: Source> {
    front: Option<Merge<S>>,
    back: Option<Merge<S>>,
    /// The last keys that came from either end: what is beyond the other one has been shown.
    first: Option<S::Key>,
    last: Option<S::Key>,
}

impl<S: Source> Ends<S> {
    pub(crate) fn new() -> Self {
        Self { front: None, back: None, first: None, last: None }
    }

    /// The next key from an end; `begin` gives the shards when that end is first used.
    pub(crate) fn next(
        &mut self,
        backward: bool,
        begin: impl FnOnce() -> Result<Vec<S>>,
    ) -> Result<Option<S::Key>> {
        let merge = if backward { &mut self.back } else { &mut self.front };
        let merge = match merge {
            Some(merge) => merge,
            None => merge.insert(Merge::of(begin()?, backward)?),
        };
        let Some(key) = merge.next()? else { return Ok(None) };
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
}
