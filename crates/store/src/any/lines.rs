//! The keys of a shard, and where the newest record of each is: found by a hash, or kept in the
//! order of their bytes.

use std::{
    collections::BTreeMap,
    ops::Bound::{self, Unbounded},
};

use hashbrown::{HashTable, hash_table::Entry};

use super::format::Place;
use crate::{span::Ends, table::hash_of};

pub(crate) struct Line {
    key: Box<[u8]>,
    place: Place,
}

pub(crate) enum Lines {
    Hashed(HashTable<Line>),
    Ordered(BTreeMap<Box<[u8]>, Place>),
}

impl Lines {
    pub(crate) fn new(is_ordered: bool) -> Self {
        if is_ordered { Self::Ordered(BTreeMap::new()) } else { Self::Hashed(HashTable::new()) }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Hashed(lines) => lines.len(),
            Self::Ordered(lines) => lines.len(),
        }
    }

    pub(crate) fn find(&self, key: &[u8]) -> Option<Place> {
        match self {
            Self::Hashed(lines) => {
                lines.find(hash_of(key), |line| *line.key == *key).map(|line| line.place)
            }
            Self::Ordered(lines) => lines.get(key).copied(),
        }
    }

    /// Says where a key's newest record is, and returns where the one before is.
    pub(crate) fn put(&mut self, key: &[u8], place: Place) -> Option<Place> {
        match self {
            Self::Hashed(lines) => {
                let rehash = |line: &Line| hash_of(&line.key);
                match lines.entry(hash_of(key), |line| *line.key == *key, rehash) {
                    Entry::Occupied(mut line) => {
                        Some(std::mem::replace(&mut line.get_mut().place, place))
                    }
                    Entry::Vacant(vacant) => {
                        vacant.insert(Line { key: key.into(), place });
                        None
                    }
                }
            }
            Self::Ordered(lines) => match lines.get_mut(key) {
                Some(known) => Some(std::mem::replace(known, place)),
                None => lines.insert(key.into(), place),
            },
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Place> {
        match self {
            Self::Hashed(lines) => {
                let line = lines.find_entry(hash_of(key), |line| *line.key == *key).ok()?;
                Some(line.remove().0.place)
            }
            Self::Ordered(lines) => lines.remove(key),
        }
    }

    /// All keys, in no order that counts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], Place)> {
        let (hashed, ordered) = match self {
            Self::Hashed(lines) => (Some(lines), None),
            Self::Ordered(lines) => (None, Some(lines)),
        };
        let hashed = hashed.into_iter().flatten().map(|line| (&*line.key, line.place));
        let ordered = ordered.into_iter().flatten().map(|(key, place)| (&**key, *place));
        hashed.chain(ordered)
    }

    /// At most `max` keys between two that are `wanted`, from the first on or from the last on;
    /// `None` if they are in no order.
    pub(crate) fn part(
        &self,
        bounds: &Ends,
        is_backward: bool,
        max: usize,
        wanted: impl Fn(&[u8], &Place) -> bool,
    ) -> Option<Vec<Box<[u8]>>> {
        let Self::Ordered(lines) = self else { return None };
        let lines = between(lines, bounds, is_backward).filter(|(key, at)| wanted(key, at));
        Some(lines.map(|(key, _)| key.clone()).take(max).collect())
    }
}

/// What a map has between two keys, from the first on or from the last on.
pub(super) fn between<'a, V>(
    map: &'a BTreeMap<Box<[u8]>, V>,
    (from, to): &'a Ends,
    is_backward: bool,
) -> impl Iterator<Item = (&'a Box<[u8]>, &'a V)> {
    // Each from one side only: the bounds may cross each other.
    let forward = (!is_backward).then(|| map.range::<[u8], _>((slice(from), Unbounded)));
    let backward = is_backward.then(|| map.range::<[u8], _>((Unbounded, slice(to))).rev());
    let is_within = move |key: &[u8]| match if is_backward { from } else { to } {
        Unbounded => true,
        Bound::Included(end) => {
            if is_backward {
                key >= &**end
            } else {
                key <= &**end
            }
        }
        Bound::Excluded(end) => {
            if is_backward {
                key > &**end
            } else {
                key < &**end
            }
        }
    };
    let forward = forward.into_iter().flatten();
    forward.chain(backward.into_iter().flatten()).take_while(move |(key, _)| is_within(key))
}

fn slice(bound: &Bound<Box<[u8]>>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &**key)
}
