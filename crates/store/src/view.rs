//! The records of a shard as anybody reads them, without a lock.
//!
//! A slot has the sequence of the write that filled it (0: none), a checksum, key and value. A slot
//! is filled while no word of the index names it, and emptied when none does any more. So a reader
//! believes what it copied if the sequence was the same before and after, and the word that led
//! there still says so. If then the checksum is another one, the slot is damaged: it is told, and never
//! shown (A4).

use std::sync::atomic::{
    Ordering::{Acquire, Relaxed},
    fence,
};

use mainstay_shm::{
    Atomic64, Shared64, copy,
    sum::{Anywhere, Instruction, Rounds, Sum},
};

use crate::{
    error::{Error, Result},
    format::live_name,
    index::{self, Entry, Index, Name, print_of},
    live::{Control, RING_AT},
    memory::Memory,
    planted::{self, Fault},
    slot,
    table::hash_of,
};

const SEQUENCE: usize = 0;
const SUM: usize = 1;
const KEY: usize = 2;
const WORD: usize = size_of::<u64>();
/// How often a reader starts again before it takes the memory for damaged.
const ATTEMPTS: usize = 100_000;
/// How often a slot is looked at again before it is taken for damaged.
const SECOND_LOOKS: u32 = 100;

/// Sizes of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) key_len: usize,
    pub(crate) value_len: usize,
    key_words: usize,
    /// Words of a slot.
    stride: usize,
    slots_at: usize,
}

impl Shape {
    pub(crate) fn new(key_len: usize, value_len: usize, ring_bytes: u64) -> Self {
        let (key_words, value_words) = (key_len.div_ceil(WORD), value_len.div_ceil(WORD));
        let stride = KEY + key_words + value_words;
        Self { key_len, value_len, key_words, stride, slots_at: RING_AT + ring_bytes as usize }
    }

    /// Bytes of a record in an image: sequence, key, value.
    pub(crate) fn record(&self) -> usize {
        WORD + self.key_len + self.value_len
    }

    /// Bytes of a memory with this many slots.
    pub(crate) fn bytes(&self, slots: u64) -> u64 {
        (self.slots_at as u64).saturating_add(slots.saturating_mul((self.stride * WORD) as u64))
    }

    /// How many slots a memory of so many bytes has.
    pub(crate) fn slots_in(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.slots_at as u64) / (self.stride * WORD) as u64
    }

    fn slot_at(&self, slot: u32) -> usize {
        self.slots_at + slot as usize * self.stride * WORD
    }
}

/// The table in use, and the one before while its words are being moved.
pub(crate) type Names = (Name, Option<Name>);

/// What a look at one table gave.
enum Seen {
    Record(u64),
    Nothing,
    /// Somebody wrote meanwhile.
    Changed,
    /// This slot is not as it was written.
    Bad(u32),
}

/// Has a slot the checksum of what is in it, which has so many words of a key?
#[inline(always)]
fn is_sound(words: &[Shared64], sequence: u64, value_at: usize) -> bool {
    words[SUM].load(Relaxed) == sum_of(words, sequence, value_at)
}

#[inline(always)]
fn sum_of(words: &[Shared64], sequence: u64, value_at: usize) -> u64 {
    let (key, value) = words[KEY..].split_at(value_at - KEY);
    begun(Anywhere::here(), sequence).take_in(key).take_in(value).end()
}

/// The sum of nothing is not that of a slot of zeros.
#[inline(always)]
fn begun<R: Rounds>(rounds: R, sequence: u64) -> Sum<R> {
    Sum::by(rounds, !sequence)
}

pub(crate) struct View {
    pub(crate) shard: u32,
    pub(crate) shape: Shape,
    /// Its rows are slots.
    pub(crate) memory: Memory,
    /// Its lines are buckets.
    pub(crate) index: Memory,
    /// For sums, if the processor has it: asked once.
    instruction: Option<Instruction>,
}

impl View {
    pub(crate) fn new(shard: u32, shape: Shape, (memory, index): (Memory, Memory)) -> Result<Self> {
        let memory = memory.in_rows(shape.slots_at, shape.stride)?;
        Ok(Self { shard, shape, memory, index, instruction: Instruction::here() })
    }

    pub(crate) fn damaged(&self, what: &'static str) -> Error {
        Error::Damaged { file: live_name(self.shard), offset: 0, what }
    }

    pub(crate) fn control(&self) -> Result<Control<'_>> {
        Control::of(&self.memory).ok_or_else(|| self.damaged("the file has become too short"))
    }

    #[inline]
    fn slot(&self, slot: u32) -> Option<&[Shared64]> {
        self.memory.row(slot as usize, self.shape.stride)
    }

    /// Another process may have made the files longer.
    #[cold]
    fn look_further(&self) {
        if let Err(error) = self.memory.covered().and(self.index.covered()) {
            tracing::warn!(%error, "the length of a file with records is not known");
        }
    }

    #[inline(always)]
    fn has_key(&self, words: &[Shared64], key: &[u8]) -> bool {
        let mut chunks = key.chunks_exact(WORD);
        let mut at = KEY;
        for chunk in &mut chunks {
            let mut word = [0; WORD];
            word.copy_from_slice(chunk);
            if words[at].load(Relaxed) != u64::from_le_bytes(word) {
                return false;
            }
            at += 1;
        }
        let rest = chunks.remainder();
        if rest.is_empty() {
            return true;
        }
        let mut word = [0; WORD];
        word[..rest.len()].copy_from_slice(rest);
        words[at].load(Relaxed) == u64::from_le_bytes(word)
    }

    /// The word of a slot with which its value begins.
    fn value_word(&self) -> usize {
        KEY + self.shape.key_words
    }

    fn value_at(&self, slot: u32) -> usize {
        self.shape.slot_at(slot) + (KEY + self.shape.key_words) * WORD
    }

    /// A table of the index, if it is there.
    #[inline]
    pub(crate) fn table(&self, name: Name) -> Option<Index<'_>> {
        Index::of(&self.index, name)
    }

    /// The tables with these names, as far as they are there; the old one first, since words go from
    /// there to the new one.
    pub(crate) fn tables(&self, names: Names) -> impl Iterator<Item = (Name, Index<'_>)> {
        let named = |name| Some((name, self.table(name)?));
        [names.1, Some(names.0)].into_iter().flatten().filter_map(named)
    }

    /// Copies a key's value, and says which write made it.
    #[inline(always)]
    pub(crate) fn copy(&self, hash: u64, key: &[u8], value: &mut [u8]) -> Result<Option<u64>> {
        match self.copy_at_once(hash, key, value) {
            Some(sequence) => Ok(Some(sequence)),
            None => self.copy_patiently(hash, key, value),
        }
    }

    /// The same, if the record is where it is mostly: there is one table, the key is in the first
    /// bucket, no other there has its print, nobody writes, and the processor has an instruction for sums.
    /// `None` says nothing. Short enough that the processor begins the next look before memory has
    /// answered this one.
    #[inline(always)]
    pub(crate) fn copy_at_once(&self, hash: u64, key: &[u8], value: &mut [u8]) -> Option<u64> {
        let rounds = self.instruction?;
        let (name, 0) = Control::of(&self.memory)?.tables() else { return None };
        let entry = index::first(&self.index, Name(name), print_of(hash))?;
        let value_at = KEY + key.len().div_ceil(WORD);
        let count = value_at + value.len().div_ceil(WORD);
        let words = self.memory.row(entry.slot as usize, count)?;
        // One that is empty has no sound sum.
        let before = slot::begin(&words[SEQUENCE]);
        if !self.has_key(words, key) {
            return None;
        }
        match self.copied(rounds, &entry, words, (before, value_at), value)? {
            Seen::Record(sequence) => Some(sequence),
            Seen::Nothing | Seen::Changed | Seen::Bad(_) => None,
        }
    }

    /// The same, wherever the record is and whoever writes.
    #[inline(never)]
    pub(crate) fn copy_patiently(
        &self,
        hash: u64,
        key: &[u8],
        value: &mut [u8],
    ) -> Result<Option<u64>> {
        let control = self.control()?;
        let mut looks = 0;
        for _ in 0..ATTEMPTS {
            let (new, old) = control.tables();
            let mut seen = Seen::Nothing;
            if old != 0 {
                seen = self.look(Name(old), hash, key, value);
            }
            if matches!(seen, Seen::Nothing) {
                seen = self.look(Name(new), hash, key, value);
            }
            match seen {
                Seen::Record(sequence) => return Ok(Some(sequence)),
                Seen::Nothing => {
                    fence(Acquire);
                    // Otherwise the tables are not those in which everything is by now.
                    if control.tables() == (new, old) {
                        return Ok(None);
                    }
                }
                Seen::Bad(slot) if looks == SECOND_LOOKS => return Err(self.bad_slot(slot)),
                Seen::Bad(_) => looks += 1,
                Seen::Changed => std::hint::spin_loop(),
            }
        }
        Err(self.damaged("the index leads to no record"))
    }

    fn look(&self, name: Name, hash: u64, key: &[u8], value: &mut [u8]) -> Seen {
        let Some(index) = self.table(name) else {
            self.look_further();
            return Seen::Changed;
        };
        let look = |entry: Entry<'_>| self.look_at(&entry, key, value);
        index.search(print_of(hash), look).unwrap_or(Seen::Nothing)
    }

    /// `None` if it is the record of another key.
    #[inline(always)]
    fn look_at(&self, entry: &Entry<'_>, key: &[u8], value: &mut [u8]) -> Option<Seen> {
        // As many words as a slot has, from lengths that a caller may know when it is compiled.
        let value_at = KEY + key.len().div_ceil(WORD);
        let count = value_at + value.len().div_ceil(WORD);
        let Some(words) = self.memory.row(entry.slot as usize, count) else {
            self.look_further();
            return Some(Seen::Changed);
        };
        let before = slot::begin(&words[SEQUENCE]);
        if before == 0 {
            return Some(Seen::Changed);
        }
        if !self.has_key(words, key) {
            return self.look_at_other(entry, words, (before, value_at));
        }
        self.copied(Anywhere::here(), entry, words, (before, value_at), value)
    }

    /// Copies the value of a slot with the right key, and sums up what it has.
    #[inline(always)]
    fn copied(
        &self,
        rounds: impl Rounds,
        entry: &Entry<'_>,
        words: &[Shared64],
        (before, value_at): (u64, usize),
        value: &mut [u8],
    ) -> Option<Seen> {
        let (key, rest) = words[KEY..].split_at(value_at - KEY);
        let sum = begun(rounds, before).take_in(key).copy(rest, value)?;
        Some(self.judged(entry, words, before, sum.end()))
    }

    /// Whether it is right that the record that an entry leads to is another key's.
    #[inline(never)]
    fn look_at_other(
        &self,
        entry: &Entry<'_>,
        words: &[Shared64],
        (before, value_at): (u64, usize),
    ) -> Option<Seen> {
        match self.judged(entry, words, before, sum_of(words, before, value_at)) {
            Seen::Record(_) => None,
            seen => Some(seen),
        }
    }

    /// What was seen if a slot has this checksum, and had this sequence before.
    #[inline(always)]
    fn judged(&self, entry: &Entry<'_>, words: &[Shared64], before: u64, sum: u64) -> Seen {
        let is_sound = sum == words[SUM].load(Relaxed) || planted::is(Fault::SlotUnchecked);
        let is_same = slot::is_same(&words[SEQUENCE], before, fence);
        if !(is_same & entry.is_current()) {
            Seen::Changed
        } else if is_sound {
            Seen::Record(before)
        } else {
            Seen::Bad(entry.slot)
        }
    }

    #[cold]
    pub(crate) fn bad_slot(&self, slot: u32) -> Error {
        let offset = self.shape.slot_at(slot) as u64;
        Error::BadSlot { file: live_name(self.shard), shard: self.shard, slot, offset }
    }

    /// Is this a word of whoever's record is in the slot that it names, and is that as it was written?
    /// For the one who writes.
    pub(crate) fn is_right(&self, entry: &Entry<'_>) -> bool {
        let Some(words) = self.slot(entry.slot) else { return false };
        let sequence = slot::begin(&words[SEQUENCE]);
        let mut key = vec![0; self.shape.key_len];
        sequence != 0
            && is_sound(words, sequence, self.value_word())
            && copy::words(&words[KEY..], &mut key)
            && print_of(hash_of(&key)) == entry.print()
    }

    /// The entry of a key, for the one who writes.
    pub(crate) fn find<'a>(&self, index: Index<'a>, hash: u64, key: &[u8]) -> Option<Entry<'a>> {
        index.search(print_of(hash), |entry| {
            let words = self.slot(entry.slot)?;
            self.has_key(words, key).then_some(entry)
        })
    }

    /// Asks for the bucket that a look for a key begins with.
    #[inline]
    pub(crate) fn ask_for_bucket(&self, name: Name, hash: u64) {
        if let Some(index) = self.table(name) {
            index.ask_for(print_of(hash));
        }
    }

    /// Asks for the beginning of what seems to be the record of a key.
    #[inline]
    pub(crate) fn ask_for_record(&self, name: Name, hash: u64) {
        let index = self.table(name);
        let slot = index.and_then(|index| index.search(print_of(hash), |entry| Some(entry.slot)));
        if let Some(words) = slot.and_then(|slot| self.slot(slot)) {
            copy::prefetch(words.as_ptr().cast(), (KEY + self.shape.key_words) * WORD);
        }
    }

    /// Fills a slot that no entry names. False if there is no such slot.
    pub(crate) fn fill(&self, slot: u32, sequence: u64, key: &[u8], value: &[u8]) -> bool {
        let Some(words) = self.slot(slot) else { return false };
        slot::open(&words[SEQUENCE], fence);
        let at = self.shape.slot_at(slot) + KEY * WORD;
        // What is behind a key or a value in its last word is zero.
        for (from, bytes) in [(KEY, key), (KEY + self.shape.key_words, value)] {
            if !bytes.len().is_multiple_of(WORD) {
                words[from + bytes.len() / WORD].store(0, Relaxed);
            }
        }
        let is_done = self.memory.write(at, key) && self.memory.write(self.value_at(slot), value);
        words[SUM].store(sum_of(words, sequence, self.value_word()), Relaxed);
        slot::close(&words[SEQUENCE], sequence);
        is_done
    }

    /// Empties a slot that no entry names any more.
    pub(crate) fn clear(&self, slot: u32) {
        if let Some(words) = self.slot(slot) {
            slot::clear(&words[SEQUENCE]);
        }
    }

    /// Looks whether slots from one on, so many at most, are as they were written. Where to go on, if
    /// there are more.
    pub(crate) fn check(&self, from: u32, max: u32) -> Result<Option<u32>> {
        let slots = u32::try_from(self.control()?.slots()).unwrap_or(u32::MAX);
        let end = slots.min(from.saturating_add(max));
        for slot in from..end {
            let mut looks = 0;
            while let Some(words) = self.slot(slot) {
                let before = slot::begin(&words[SEQUENCE]);
                if before == 0 || is_sound(words, before, self.value_word()) {
                    break;
                }
                looks += u32::from(slot::is_same(&words[SEQUENCE], before, fence));
                if looks > SECOND_LOOKS {
                    return Err(self.bad_slot(slot));
                }
            }
        }
        Ok((end < slots).then_some(end))
    }

    /// Appends up to `max` records from a slot on, as they are in an image. Returns how many, and
    /// the slot to go on from, if there is one.
    pub(crate) fn chunk(
        &self,
        from: u32,
        max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<u32>)> {
        let slots = u32::try_from(self.control()?.slots()).unwrap_or(u32::MAX);
        let mut count = 0;
        for slot in from..slots {
            if count == max {
                return Ok((count, Some(slot)));
            }
            count += usize::from(self.append(slot, out)?);
        }
        Ok((count, None))
    }

    /// Appends the record of a slot, if it has one.
    fn append(&self, slot: u32, out: &mut Vec<u8>) -> Result<bool> {
        if self.slot(slot).is_none() {
            self.look_further();
        }
        let missing = || self.damaged("the file ends before its slots do");
        let words = self.slot(slot).ok_or_else(missing)?;
        let start = out.len();
        for _ in 0..ATTEMPTS {
            let before = slot::begin(&words[SEQUENCE]);
            if before == 0 {
                return Ok(false);
            }
            out.resize(start + self.shape.record(), 0);
            let record = &mut out[start..];
            record[..WORD].copy_from_slice(&before.to_le_bytes());
            let (key, value) = record[WORD..].split_at_mut(self.shape.key_len);
            let is_there = self.memory.read(self.shape.slot_at(slot) + KEY * WORD, key)
                && self.memory.read(self.value_at(slot), value);
            let is_sound = is_sound(words, before, self.value_word());
            if slot::is_same(&words[SEQUENCE], before, fence) && is_there {
                return if is_sound { Ok(true) } else { Err(self.bad_slot(slot)) };
            }
            out.truncate(start);
        }
        Err(self.damaged("a record changes without end"))
    }
}
