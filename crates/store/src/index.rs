//! The index of a shard: which slot has the record of a key, as words in memory that others read.
//!
//! A word is a 32-bit print of the key's hash and a slot, or nothing. Words stand in buckets of
//! eight, a cache line each, and a key is in the first bucket, from the one its print names on, that
//! had room when it came. A search ends at a bucket with an empty word; so a word is emptied only
//! in a bucket that has one, and marked as gone elsewhere.
//!
//! Each change is one store, after which the table is whole: whoever writes can die at any time,
//! and whoever reads needs no lock.
//!
//! Tables of each size have two places of their own in one file, which is mapped once and for all:
//! so whoever reads needs nothing to keep a table from going. A table that is no longer used is
//! zeros, and its place may be taken by a later one. A reader that is late finds nothing there, or a
//! word that leads to a record; it believes what the record itself says, and that nothing is there
//! only if the names of the tables are still the same.

use std::sync::atomic::Ordering::{Acquire, Release};

use mainstay_shm::{
    Atomic64, Shared64, copy,
    line::{LINE_WORDS, find_upper},
};

use crate::{error::Result, live::mixed, memory::Memory};

/// Words of a bucket.
const BUCKET: usize = LINE_WORDS;
const LINE_BYTES: usize = BUCKET * size_of::<u64>();
/// Never used, at least not since a search may have passed.
const EMPTY: u64 = 0;
/// Used once; searches go on behind it.
const GONE: u64 = (u32::MAX as u64) << 32;
/// The fewest words of a table.
const WORDS_MIN: usize = 512;
/// The most.
const WORDS_MAX: u64 = 1 << 40;

/// What part of a hash a word has. Other bits choose the shard.
#[inline]
pub(crate) fn print_of(hash: u64) -> u32 {
    hash as u32
}

/// What the word of a slot counts for in the sum of all.
pub(crate) fn weight_of(print: u32, slot: u32) -> u64 {
    mixed(word_of(print, slot))
}

fn word_of(print: u32, slot: u32) -> u64 {
    u64::from(print) << 32 | (u64::from(slot) + 1)
}

/// The slot a word names.
#[inline]
fn slot_of(word: u64) -> Option<u32> {
    (word as u32).checked_sub(1)
}

/// Of a table: how many buckets it has, as a power of two; which of the two places of that size is its
/// own, as a multiple of that; and how many were begun before. So where a bucket is takes few steps. Never
/// 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Name(pub(crate) u32);

/// Bits of the power.
const POWER_BITS: u32 = 6;
/// Bits of these and the place.
const PLACE_BITS: u32 = POWER_BITS + 2;
/// The places of a size are two and three times as far as a table is long: before them are those of
/// smaller ones.
const FIRST_PLACE: u32 = 2;

impl Name {
    /// Of the first table, for about so many records.
    pub(crate) fn first(records: u64) -> Self {
        Self::of(1, FIRST_PLACE, power_for(records))
    }

    fn of(number: u32, place: u32, power: u32) -> Self {
        Self(number << PLACE_BITS | place << POWER_BITS | power)
    }

    /// Of the one after this, which is at another place.
    pub(crate) fn next(self, records: u64) -> Self {
        let number = ((self.0 >> PLACE_BITS) + 1) % (1 << (u32::BITS - PLACE_BITS));
        let power = power_for(records);
        let is_same_size = power == self.0 % (1 << POWER_BITS);
        let place = if is_same_size { self.place() as u32 ^ 1 } else { FIRST_PLACE };
        Self::of(number.max(1), place, power)
    }

    fn place(self) -> usize {
        (self.0 >> POWER_BITS & 3) as usize
    }

    /// How many buckets it has.
    #[inline(always)]
    fn buckets(self) -> usize {
        // A name that is no table's may say more than there can be; nothing is found there.
        1_usize.wrapping_shl(self.0)
    }

    /// The number of the bucket of a print in the file.
    #[inline(always)]
    fn bucket(self, print: u32) -> usize {
        self.place().wrapping_shl(self.0) | print as usize & (self.buckets() - 1)
    }

    pub(crate) fn words(self) -> usize {
        self.buckets().saturating_mul(BUCKET)
    }

    pub(crate) fn bytes(self) -> usize {
        self.buckets().saturating_mul(LINE_BYTES)
    }

    /// Where it is.
    fn at(self) -> usize {
        self.bytes().saturating_mul(self.place())
    }

    /// Where it is in the file, and how many bytes of it.
    #[cfg(test)]
    pub(crate) fn range(self) -> (u64, u64) {
        (self.at() as u64, self.bytes() as u64)
    }

    /// Can both be there at once?
    pub(crate) fn is_apart_from(self, other: Self) -> bool {
        self.at() != other.at()
    }
}

/// The buckets of a table that so many records fill by half at most, as a power of two.
fn power_for(records: u64) -> u32 {
    let words = records.saturating_mul(2).clamp(WORDS_MIN as u64, WORDS_MAX);
    (words.next_power_of_two() / BUCKET as u64).trailing_zeros()
}

/// Where the larger tables end that have at least so many words.
pub(crate) fn end_of(words: u64) -> u64 {
    let bytes = words.next_power_of_two().max(WORDS_MIN as u64) * size_of::<u64>() as u64;
    bytes * 4
}

/// Makes room for a table, all zeros. False if there is none.
pub(crate) fn make(memory: &Memory, name: Name) -> Result<bool> {
    memory.make(name.at(), name.bytes())
}

/// Has some of the memory of a table ready before it is written.
pub(crate) fn make_ready(memory: &Memory, name: Name, from: usize, len: usize) {
    let left = name.bytes().saturating_sub(from);
    memory.make_ready(name.at() + from, len.min(left));
}

/// Gives the memory of a table back.
pub(crate) fn release(memory: &Memory, name: Name) {
    memory.release(name.at(), name.bytes());
}

/// Gives back the memory of all tables but these.
pub(crate) fn release_others(memory: &Memory, used: [Option<Name>; 2]) -> Result<()> {
    let covered = memory.covered()? as usize;
    let mut kept: Vec<_> = used.iter().flatten().map(|name| (name.at(), name.bytes())).collect();
    kept.sort_unstable();
    let mut from = 0;
    for (at, bytes) in kept.into_iter().chain([(covered, 0)]) {
        if at > from {
            memory.release(from, at - from);
        }
        from = at + bytes;
    }
    Ok(())
}

/// A word that names a slot.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    bucket: &'a [Shared64],
    word: &'a Shared64,
    seen: u64,
    pub(crate) slot: u32,
}

impl Entry<'_> {
    /// Does the word still say what it said?
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.word.load(Acquire) == self.seen
    }

    /// What part of a hash it has.
    pub(crate) fn print(&self) -> u32 {
        (self.seen >> 32) as u32
    }

    /// What it counts for in the sum of all words that name a slot.
    pub(crate) fn weight(&self) -> u64 {
        mixed(self.seen)
    }

    /// Names another slot instead.
    pub(crate) fn turn_to(&self, slot: u32) {
        self.word.store(word_of((self.seen >> 32) as u32, slot), Release);
    }

    /// Names nothing any more.
    pub(crate) fn remove(&self) -> Use {
        if self.bucket.iter().any(|word| word.load(Acquire) == EMPTY) {
            self.word.store(EMPTY, Release);
            return Use::Changed;
        }
        self.mark_gone();
        Use::Same
    }

    /// The same, whatever the bucket.
    pub(crate) fn mark_gone(&self) {
        self.word.store(GONE, Release);
    }
}

/// What may be the word of a key: the first one with its print in the bucket that its print names.
#[inline(always)]
pub(crate) fn first(memory: &Memory, name: Name, print: u32) -> Option<Entry<'_>> {
    let line = memory.line(name.bucket(print))?;
    let found = find_upper(line, print);
    // Some word in any case: what it says is looked at anyway.
    let word = &line[found.trailing_zeros() as usize % BUCKET];
    let seen = word.load(Acquire);
    let slot = slot_of(seen)?;
    ((seen >> 32) as u32 == print).then_some(Entry { bucket: line, word, seen, slot })
}

/// What became of a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// An empty word was taken, or one became empty.
    Changed,
    /// The number of words that are not empty is as it was.
    Same,
}

/// One table of words. Their number is a power of two.
#[derive(Clone, Copy)]
pub(crate) struct Index<'a> {
    words: &'a [Shared64],
}

impl<'a> Index<'a> {
    /// `None` if it is not there.
    #[inline]
    pub(crate) fn of(memory: &'a Memory, name: Name) -> Option<Self> {
        memory.words(name.at(), name.words()).map(|words| Self { words })
    }

    #[inline]
    fn line(self, bucket: usize) -> Option<&'a [Shared64; BUCKET]> {
        self.words.get(bucket * BUCKET..)?.first_chunk()
    }

    /// Shows what may be the words of a key, until `look` has an answer.
    #[inline]
    pub(crate) fn search<R>(
        self,
        print: u32,
        mut look: impl FnMut(Entry<'a>) -> Option<R>,
    ) -> Option<R> {
        let buckets = self.words.len() / BUCKET;
        let mut bucket = print as usize & buckets.wrapping_sub(1);
        for _ in 0..buckets {
            let line = self.line(bucket)?;
            let mut found = find_upper(line, print);
            while found != 0 {
                let word = &line[found.trailing_zeros() as usize % BUCKET];
                found &= found - 1;
                let seen = word.load(Acquire);
                if (seen >> 32) as u32 == print
                    && let Some(slot) = slot_of(seen)
                    && let Some(found) = look(Entry { bucket: line, word, seen, slot })
                {
                    return Some(found);
                }
            }
            if line.iter().any(|word| word.load(Acquire) == EMPTY) {
                return None;
            }
            bucket = (bucket + 1) & (buckets - 1);
        }
        None
    }

    /// Asks for the bucket that a key is looked for first in.
    #[inline]
    pub(crate) fn ask_for(self, print: u32) {
        let buckets = self.words.len() / BUCKET;
        if let Some(line) = self.line(print as usize & buckets.wrapping_sub(1)) {
            copy::prefetch(line.as_ptr().cast(), size_of_val(line));
        }
    }

    /// Puts a word where there is room; `None` if there is none.
    pub(crate) fn insert(self, print: u32, slot: u32) -> Option<Use> {
        self.insert_word(word_of(print, slot))
    }

    fn insert_word(self, new: u64) -> Option<Use> {
        let print = (new >> 32) as u32;
        let buckets = self.words.len() / BUCKET;
        let mut bucket = print as usize & buckets.wrapping_sub(1);
        for _ in 0..buckets {
            let line = self.line(bucket)?;
            for word in line {
                let seen = word.load(Acquire);
                if slot_of(seen).is_none() {
                    word.store(new, Release);
                    return Some(if seen == EMPTY { Use::Changed } else { Use::Same });
                }
            }
            bucket = (bucket + 1) & (buckets - 1);
        }
        None
    }

    /// Copies the words of a bucket to another table, and then marks them as gone here. How many
    /// empty words they took; `None` behind the last bucket, or if there was no room.
    pub(crate) fn move_bucket(self, bucket: usize, to: Index<'_>) -> Option<usize> {
        let mut taken = 0;
        for word in self.line(bucket)? {
            let seen = word.load(Acquire);
            if slot_of(seen).is_some() {
                taken += usize::from(to.insert_word(seen)? == Use::Changed);
                word.store(GONE, Release);
            }
        }
        Some(taken)
    }

    /// Shows all words that name a slot, as long as `each` says to go on. How many are not empty.
    pub(crate) fn entries(self, mut each: impl FnMut(Entry<'a>) -> bool) -> Option<usize> {
        let mut filled = 0;
        for bucket in self.words.chunks(BUCKET) {
            for word in bucket {
                let seen = word.load(Acquire);
                filled += usize::from(seen != EMPTY);
                if let Some(slot) = slot_of(seen)
                    && !each(Entry { bucket, word, seen, slot })
                {
                    return None;
                }
            }
        }
        Some(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tables_share_a_byte() {
        let powers = power_for(0)..=power_for(u64::MAX);
        let names = powers.flat_map(|power| [2, 3].map(|place| Name::of(1, place, power)));
        let mut places: Vec<_> = names.collect();
        places.sort_unstable_by_key(|name| name.at());
        assert!(places[0].at() > 0);
        assert!(places.windows(2).all(|two| two[0].at() + two[0].bytes() == two[1].at()));
    }

    #[test]
    fn what_no_table_in_use_has_is_given_back() {
        let memory = Memory::private(1 << 20).unwrap();
        let words = || memory.words(0, (1 << 20) / 8).unwrap();
        words().iter().for_each(|word| word.store(7, Release));
        let (new, old) = (Name::first(2_000), Name::first(200));
        release_others(&memory, [Some(new), Some(old)]).unwrap();
        let is_kept =
            |at| [new, old].iter().any(|its| (its.at()..its.at() + its.bytes()).contains(&at));
        for (number, word) in words().iter().enumerate() {
            assert_eq!(word.load(Acquire), if is_kept(number * 8) { 7 } else { 0 }, "{number}");
        }
    }

    #[test]
    fn a_key_is_found_in_whatever_word_and_bucket_it_came_to() {
        let memory = Memory::private(1 << 20).unwrap();
        let name = Name::first(0);
        assert!(make(&memory, name).unwrap());
        let index = Index::of(&memory, name).unwrap();
        // All of them belong into one bucket, the prints 0 and that of a word that is gone too.
        let buckets = (WORDS_MIN / BUCKET) as u32;
        let prints: Vec<u32> = (0..20).map(|number| number * buckets).collect();
        let slot_of = |print: u32| index.search(print, |entry| Some(entry.slot));
        for (slot, print) in (0..).zip(&prints) {
            assert_eq!(slot_of(*print), None);
            assert_eq!(index.insert(*print, slot), Some(Use::Changed));
        }
        assert_eq!(index.insert(u32::MAX, 99), Some(Use::Changed));
        for (slot, print) in (0..).zip(&prints) {
            assert_eq!(slot_of(*print), Some(slot));
            let at_once = first(&memory, name, *print).map(|entry| entry.slot);
            assert_eq!(at_once, (slot < BUCKET as u32).then_some(slot), "of its own bucket only");
        }
        index.search(prints[3], |entry| Some(entry.remove())).unwrap();
        assert_eq!((slot_of(prints[3]), slot_of(prints[19])), (None, Some(19)));
        assert_eq!(index.insert(prints[3], 50), Some(Use::Same));
        assert_eq!((slot_of(prints[3]), slot_of(u32::MAX)), (Some(50), Some(99)));
        // Of two records with one print both are shown.
        index.insert(prints[3], 51).unwrap();
        let mut shown = Vec::new();
        index.search(prints[3], |entry| {
            shown.push(entry.slot);
            None::<()>
        });
        assert_eq!(shown, [50, 51]);
    }

    #[test]
    fn the_next_table_is_at_another_place_and_has_a_name_of_its_own() {
        let mut name = Name::first(0);
        for records in [0, 0, 256, 257, 1_000_000, 0, 1 << 40] {
            let next = name.next(records);
            assert_ne!((next.0, next.at()), (name.0, name.at()));
            assert!(next.words() as u64 >= (records * 2).min(1 << 40), "{records}");
            name = next;
        }
        assert_eq!(Name::first(257).words(), 1_024);
        let last = Name(u32::MAX << PLACE_BITS);
        assert_eq!(last.next(0).0 >> PLACE_BITS, 1, "0 is no name");
    }
}
