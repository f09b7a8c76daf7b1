//! The index of a shard: which slot has the record of a key, as words in memory that others read.
//!
//! A word is a 32-bit print of the key's hash and a slot, or nothing. Words stand in buckets of
//! eight, a cache line each, and a key is in the first bucket, from the one its print names on, that
//! had room when it came. A search ends at a bucket with an empty word; so a word is emptied only
//! in a bucket that has one, and marked as gone elsewhere.
//!
//! Each change is one store, after which the index is whole: whoever writes can die at any time,
//! and whoever reads needs no lock.

use std::sync::atomic::Ordering::{Acquire, Release};

use mainstay_shm::{Atomic64, Shared64};

use crate::memory::Memory;

/// Words of a bucket.
const BUCKET: usize = 8;
/// Never used, at least not since a search may have passed.
const EMPTY: u64 = 0;
/// Used once; searches go on behind it.
const GONE: u64 = (u32::MAX as u64) << 32;
/// The fewest words of an index.
pub(crate) const WORDS_MIN: usize = 512;

/// What part of a hash a word has. Other bits choose the shard.
pub(crate) fn print_of(hash: u64) -> u32 {
    hash as u32
}

fn word_of(print: u32, slot: u32) -> u64 {
    u64::from(print) << 32 | (u64::from(slot) + 1)
}

/// The slot a word names.
fn slot_of(word: u64) -> Option<u32> {
    (word as u32).checked_sub(1)
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

/// What became of a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// An empty word was taken, or one became empty.
    Changed,
    /// The number of words that are not empty is as it was.
    Same,
}

/// One table of words. Its length is a power of two.
pub(crate) struct Index {
    pub(crate) generation: u32,
    memory: Memory,
    words: usize,
}

impl Index {
    /// `None` if there are not that many words, or their number cannot be.
    pub(crate) fn new(generation: u32, memory: Memory, words: usize) -> Option<Self> {
        let is_sound = words.is_power_of_two() && words >= WORDS_MIN;
        let is_there = is_sound && memory.words(0, words).is_some();
        is_there.then_some(Self { generation, memory, words })
    }

    pub(crate) fn len(&self) -> usize {
        self.words
    }

    /// Bytes of an index with this many words.
    pub(crate) fn bytes(words: usize) -> u64 {
        (words * size_of::<u64>()) as u64
    }

    #[inline]
    fn all(&self) -> &[Shared64] {
        // They were there when it was made.
        self.memory.words(0, self.words).unwrap_or_default()
    }

    /// Shows what may be the words of a key, until `look` has an answer.
    #[inline]
    pub(crate) fn search<'a, R>(
        &'a self,
        print: u32,
        mut look: impl FnMut(Entry<'a>) -> Option<R>,
    ) -> Option<R> {
        let words = self.all();
        let buckets = self.words / BUCKET;
        let mut bucket = print as usize & (buckets - 1);
        for _ in 0..buckets {
            let line = words.get(bucket * BUCKET..(bucket + 1) * BUCKET)?;
            // Which of the words it is cannot be foretold, so nothing branches on it.
            let (mut ends, mut those) = (false, 0_u32);
            let mut seen = [0; BUCKET];
            for (number, (word, seen)) in line.iter().zip(&mut seen).enumerate() {
                *seen = word.load(Acquire);
                ends |= *seen == EMPTY;
                those |= u32::from((*seen >> 32) as u32 == print) << number;
            }
            while those != 0 {
                let number = those.trailing_zeros() as usize % BUCKET;
                those &= those - 1;
                let (word, seen) = (&line[number], seen[number]);
                if let Some(slot) = slot_of(seen)
                    && let Some(found) = look(Entry { bucket: line, word, seen, slot })
                {
                    return Some(found);
                }
            }
            if ends {
                return None;
            }
            bucket = (bucket + 1) & (buckets - 1);
        }
        None
    }

    /// Puts a word where there is room; `None` if there is none.
    pub(crate) fn insert(&self, print: u32, slot: u32) -> Option<Use> {
        self.insert_word(word_of(print, slot))
    }

    fn insert_word(&self, new: u64) -> Option<Use> {
        let words = self.all();
        let buckets = self.words / BUCKET;
        let mut bucket = (new >> 32) as usize & (buckets - 1);
        for _ in 0..buckets {
            for word in words.get(bucket * BUCKET..(bucket + 1) * BUCKET)? {
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

    /// Copies the words of a bucket to another index, and then marks them as gone here. How many
    /// empty words they took; `None` behind the last bucket, or if there was no room.
    pub(crate) fn move_bucket(&self, bucket: usize, to: &Self) -> Option<usize> {
        let mut taken = 0;
        for word in self.all().get(bucket * BUCKET..(bucket + 1) * BUCKET)? {
            let seen = word.load(Acquire);
            if slot_of(seen).is_some() {
                taken += usize::from(to.insert_word(seen)? == Use::Changed);
                word.store(GONE, Release);
            }
        }
        Some(taken)
    }

    /// Shows all words that name a slot, as long as `each` says to go on. How many are not empty.
    pub(crate) fn entries(&self, mut each: impl FnMut(Entry<'_>) -> bool) -> Option<usize> {
        let mut filled = 0;
        for bucket in self.all().chunks(BUCKET) {
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
