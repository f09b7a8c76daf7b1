//! The records of a shard, for the one process that writes them.
//!
//! A write is put into the ring and committed by one store; then the records are changed, each by
//! one store of an index word. Whoever finds the memory after a death makes the committed write
//! again, which comes to the same. What can be counted anew (free slots, records) is private.

mod writing;

use std::{
    ops::Range,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use xxhash_rust::xxh3::xxh3_64;

use crate::{
    error::{Error, Result},
    format::sealed,
    index::{Entry, Name, make, release_others},
    limits::RECORDS_MAX,
    live::{
        Control, LiveHeader, Place, RING_AT, read_header, ring_read, ring_read_into, write_header,
    },
    memory::Memory,
    planted::{self, Fault},
    view::{Names, Shape, View},
};

/// Records copied at a time where all are shown.
pub(crate) const SCAN_RECORDS: usize = 256;
/// Bytes by which a memory grows at least.
const GROWTH_BYTES_MIN: u64 = 64 << 10;

/// The hash of a key; part of the format, as it chooses the shard.
#[inline]
pub(crate) fn hash_of(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// Which write made a record of an image, and its key and value.
pub(crate) fn sequence_and_key(record: &[u8]) -> (u64, &[u8]) {
    let (sequence, rest) = record.split_first_chunk().expect("a record begins with eight bytes");
    (u64::from_le_bytes(*sequence), rest)
}

/// The shard of a hash, out of a power of two of them. The bits are others than those an index
/// looks at.
#[inline]
pub(crate) fn shard_of(hash: u64, shards: usize) -> usize {
    (hash >> 40) as usize & (shards - 1)
}

pub(crate) struct Table {
    view: View,
    writer: Mutex<Writer>,
    records: AtomicU64,
    ring_bytes: u64,
    /// Does the memory outlive the process?
    lasts: bool,
}

/// What only the writer needs to know, and can be found out again.
struct Writer {
    free: Vec<u32>,
    /// Freed by the write that is being made: readers may still be led there.
    freed: Vec<u32>,
    slots: u64,
    /// Slots that the memory has room for.
    room: u64,
    /// Words of the new index that are not empty.
    filled: usize,
    /// The sum of all words of both that name a slot.
    named: u64,
    /// The bucket of the old index that is moved next.
    moving: usize,
    /// The slots that are about to be filled, as far as is known.
    expected: Range<u64>,
    tables: Names,
}

/// Writes to the records, until it is dropped.
pub(crate) struct Writing<'a> {
    table: &'a Table,
    control: Control<'a>,
    writer: MutexGuard<'a, Writer>,
}

impl Table {
    /// An empty one, with an index for about so many records.
    pub(crate) fn new(
        shard: u32,
        shape: Shape,
        (memory, index, lasts): (Memory, Memory, bool),
        ring_bytes: u64,
        expected: u64,
    ) -> Result<Self> {
        let name = Name::first(expected);
        if !make(&index, name)? {
            return Err(Error::Full { shard, max: RECORDS_MAX });
        }
        memory
            .grow(shape.bytes(shape.slots_in(shape.bytes(0) + GROWTH_BYTES_MIN).max(expected)))?;
        let view = View::new(shard, shape, (memory, index))?;
        let tables = (name, None);
        view.control()?.set_tables(name.0, 0);
        let (free, freed) = (Vec::new(), Vec::new());
        let (slots, room, filled, named, moving) = (0, 0, 0, 0, 0);
        let expected = 0..0;
        let writer = Writer { free, freed, slots, room, filled, named, moving, expected, tables };
        let writer = Mutex::new(writer);
        Ok(Self { view, writer, records: AtomicU64::new(0), ring_bytes, lasts })
    }

    /// Takes over what a process left that is dead by now, or has closed it. `None` if it cannot be
    /// what one has left: words of the index are told by their sum to be others, or, if the process died
    /// within a write, by the records they name.
    pub(crate) fn adopt(view: View, ring_bytes: u64) -> Result<Option<Self>> {
        let control = view.control()?;
        let Some(committed) = control.committed() else { return Ok(None) };
        let (committed, applied) = (committed.sequence, control.applied());
        let is_suspect = control.is_suspect() && !planted::is(Fault::SuspectTakenOver);
        if is_suspect {
            return Ok(None);
        }
        let was_writing = committed != applied || control.is_replaying();
        let slots = control.slots();
        let covered = view.memory.covered()?;
        let room = view.shape.slots_in(covered);
        // One that was cut off has no slots, or not even all of the ring.
        let is_cut = slots > room || covered < view.shape.bytes(0);
        let is_whole = !is_cut || planted::is(Fault::CutIgnored);
        if !is_whole || slots > u64::from(u32::MAX) {
            return Ok(None);
        }
        let (new_name, old_name) = control.tables();
        let tables = (Name(new_name), (old_name != 0).then_some(Name(old_name)));
        if tables.1.is_some_and(|old| !old.is_apart_from(tables.0)) {
            return Ok(None);
        }
        let Some(new) = view.table(tables.0) else { return Ok(None) };
        let old = tables.1.map(|name| view.table(name));
        let mut used = vec![0_u64; (slots as usize).div_ceil(64)];
        let (mut records, mut named) = (0, 0_u64);
        let mut take = |entry: &Entry<'_>| {
            let slot = entry.slot;
            let (word, bit) = (slot as usize / 64, 1 << (slot % 64));
            if u64::from(slot) >= slots || (was_writing && !view.is_right(entry)) {
                return None;
            }
            let was_free = used[word] & bit == 0;
            used[word] |= bit;
            if was_free {
                records += 1;
                named = named.wrapping_add(entry.weight());
            }
            Some(was_free)
        };
        let Some(filled) = new.entries(|entry| take(&entry) == Some(true)) else {
            return Ok(None);
        };
        if let Some(old) = old {
            let Some(old) = old else { return Ok(None) };
            let moved = |entry: Entry<'_>| {
                let was_free = take(&entry);
                if was_free == Some(false) {
                    // Whoever moved it died between the two stores of it.
                    entry.mark_gone();
                }
                was_free.is_some()
            };
            if old.entries(moved).is_none() {
                return Ok(None);
            }
        }
        let is_used = |slot: &u32| used[*slot as usize / 64] & 1 << (slot % 64) != 0;
        let free: Vec<u32> = (0..slots as u32).rev().filter(|slot| !is_used(slot)).collect();
        let is_named = control.named(applied) == named || planted::is(Fault::NamesUnchecked);
        if !was_writing && !is_named {
            return Ok(None);
        }
        control.take_over();
        if was_writing && !planted::is(Fault::SweepLeftOut) {
            free.iter().for_each(|slot| view.clear(*slot));
        }
        release_others(&view.index, [Some(tables.0), tables.1])?;
        let (freed, moving) = (Vec::new(), 0);
        let expected = 0..0;
        let writer = Writer { free, freed, slots, room, filled, named, moving, expected, tables };
        let (writer, records) = (Mutex::new(writer), AtomicU64::new(records));
        Ok(Some(Self { view, writer, records, ring_bytes, lasts: true }))
    }

    pub(crate) fn control(&self) -> Result<Control<'_>> {
        self.view.control()
    }

    /// Does nobody believe the memory yet?
    fn is_fresh(&self) -> bool {
        read_header(&self.view.memory).is_none()
    }

    pub(crate) fn lasts(&self) -> bool {
        self.lasts
    }

    pub(crate) fn len(&self) -> u64 {
        self.records.load(Relaxed)
    }

    /// Bytes of a record in an image.
    pub(crate) fn record(&self) -> usize {
        self.view.shape.record()
    }

    /// Copies a key's value. Which write made it, if it is there.
    #[inline(always)]
    pub(crate) fn copy(&self, hash: u64, key: &[u8], value: &mut [u8]) -> Result<Option<u64>> {
        match self.view.copy_at_once(hash, key, value) {
            Some(sequence) => Ok(Some(sequence)),
            None => self.noted(self.view.copy_patiently(hash, key, value)),
        }
    }

    /// What is not as it was written is told to whoever opens the store next.
    fn noted<T>(&self, seen: Result<T>) -> Result<T> {
        if matches!(seen, Err(Error::BadSlot { .. } | Error::Damaged { .. })) {
            self.suspect()?;
        }
        seen
    }

    /// The memory is not to be taken over by whoever opens the store next.
    pub(crate) fn suspect(&self) -> Result<()> {
        self.control()?.suspect();
        Ok(())
    }

    /// See [`View::copy_at_once`].
    #[inline(always)]
    pub(crate) fn copy_at_once(&self, hash: u64, key: &[u8], value: &mut [u8]) -> Option<u64> {
        self.view.copy_at_once(hash, key, value)
    }

    /// A key's value.
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.view.shape.value_len];
        Ok(self.copy(hash, key, &mut value)?.map(|_| value))
    }

    /// Asks for what a look for a key begins with.
    #[inline]
    pub(crate) fn ask_for(&self, hash: u64) {
        if let Ok(control) = self.view.control() {
            self.view.ask_for_bucket(Name(control.tables().0), hash);
        }
    }

    /// Is the key there? For the one who writes.
    pub(crate) fn has(&self, hash: u64, key: &[u8]) -> bool {
        let tables = self.writer().tables;
        self.view.tables(tables).any(|(_, index)| self.view.find(index, hash, key).is_some())
    }

    /// See [`View::chunk`].
    pub(crate) fn chunk(
        &self,
        from: u32,
        max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<u32>)> {
        self.noted(self.view.chunk(from, max, out))
    }

    /// See [`View::check`].
    pub(crate) fn check(&self, from: u32, max: u32) -> Result<Option<u32>> {
        self.noted(self.view.check(from, max))
    }

    /// Shows each record as it is in an image, some hundred at a time: one that is neither written nor
    /// deleted meanwhile exactly once.
    pub(crate) fn each(&self, mut show: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (mut slot, mut records) = (Some(0), Vec::new());
        while let Some(from) = slot {
            records.clear();
            slot = self.chunk(from, SCAN_RECORDS, &mut records)?.1;
            records.chunks_exact(self.record()).try_for_each(&mut show)?;
        }
        Ok(())
    }

    /// How many bytes of the log the ring holds.
    pub(crate) fn ring_bytes(&self) -> u64 {
        self.ring_bytes
    }

    /// Puts a frame, which is to be at this byte of its segment, into the ring.
    pub(crate) fn ring_write(&self, at: u64, frame: &[u8]) {
        let place = (at % self.ring_bytes) as usize;
        let (first, rest) = frame.split_at(frame.len().min(self.ring_bytes as usize - place));
        // It is there as long as the memory is.
        self.view.memory.write(RING_AT + place, first);
        if !rest.is_empty() {
            self.view.memory.write(RING_AT, rest);
        }
    }

    /// The bytes from `from` to `to` of a segment, the newest of which are in the ring.
    pub(crate) fn ring_read(&self, from: u64, to: u64) -> Vec<u8> {
        ring_read(&self.view.memory, self.ring_bytes, from, to)
    }

    /// The same, in place of what is in `bytes`.
    pub(crate) fn ring_read_into(&self, from: u64, to: u64, bytes: &mut Vec<u8>) {
        ring_read_into(&self.view.memory, self.ring_bytes, (from, to), bytes);
    }

    /// To be believed from now on by whoever finds the memory.
    pub(crate) fn publish(
        &self,
        header: &LiveHeader,
        place: Place,
        durable: u64,
        since: u64,
    ) -> Result<()> {
        let control = self.control()?;
        if self.says(header, place, durable, since)? {
            // A page that nobody writes to needs not be made ready for that: a file system may be
            // long at it.
            return Ok(());
        }
        control.set_since(since);
        control.set_written(place.segment, place.at);
        control.set_durable(durable);
        // The place of the last write stays: another one could be found half written.
        let known = control.committed().is_some_and(|known| known.sequence == place.sequence);
        if !known || self.is_fresh() {
            control.commit(place);
        }
        control.set_named(self.writer().named, place.sequence);
        control.set_applied(place.sequence);
        control.set_replaying(false);
        if !write_header(&self.view.memory, header) {
            return Err(self.view.damaged("the file has become too short"));
        }
        Ok(())
    }

    /// Is all that [`publish`](Self::publish) would say said already?
    fn says(&self, header: &LiveHeader, place: Place, durable: u64, since: u64) -> Result<bool> {
        let control = self.control()?;
        let is_it = read_header(&self.view.memory).is_some_and(|it| sealed(&it) == sealed(header));
        let known = control.committed().map(|known| known.sequence);
        Ok(is_it
            && !control.is_replaying()
            && (known, control.applied()) == (Some(place.sequence), place.sequence)
            && control.written() == (place.segment, place.at)
            && (control.durable(), control.since()) == (durable, since))
    }

    /// Begins to write.
    pub(crate) fn writing(&self) -> Result<Writing<'_>> {
        Ok(Writing { table: self, control: self.control()?, writer: self.writer() })
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record from an image.
    pub(crate) fn load(writing: &mut Writing<'_>, record: &[u8]) -> Result<bool> {
        let key_len = writing.table.view.shape.key_len;
        let (sequence, rest) = sequence_and_key(record);
        let (key, value) = rest.split_at(key_len);
        if !writing.reserve(1)? {
            return Ok(false);
        }
        writing.put(key, value, sequence);
        writing.forget();
        Ok(true)
    }

    /// How many records are in one of two tables only, or differ.
    pub(crate) fn differences(&self, other: &Self) -> Result<u64> {
        let lacks = |a: &Self, b: &Self, both: bool| {
            let mut count = 0;
            let mut found = vec![0; b.view.shape.value_len];
            a.each(|record| {
                let (sequence, rest) = sequence_and_key(record);
                let (key, value) = rest.split_at(a.view.shape.key_len);
                let is_same = match b.copy(hash_of(key), key, &mut found)? {
                    Some(made) => !both || (made == sequence && found == value),
                    None => false,
                };
                count += u64::from(!is_same);
                Ok(())
            })?;
            Ok(count)
        };
        Ok(lacks(self, other, true)? + lacks(other, self, false)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Change;

    fn table() -> Table {
        let shape = Shape::new(1, 1, 4096);
        let memory = Memory::private(shape.bytes(1 << 20)).unwrap();
        let index = Memory::private(1 << 20).unwrap();
        Table::new(0, shape, (memory, index, false), 4096, 0).unwrap()
    }

    fn write(table: &Table, key: u8, value: Option<u8>, sequence: u64) {
        let mut writing = table.writing().unwrap();
        assert!(writing.reserve(1).unwrap());
        match value {
            Some(value) => writing.apply(&Change::Put(&[key], &[value]), sequence),
            None => writing.apply(&Change::Delete(&[key]), sequence),
        }
        writing.applied(sequence);
    }

    #[test]
    fn a_slot_that_was_freed_is_used_again_and_its_old_key_is_gone() {
        let table = table();
        for key in 0..=255_u8 {
            write(&table, key, Some(key ^ 1), 1 + u64::from(key));
        }
        write(&table, 7, None, 300);
        assert_eq!(table.get(hash_of(&[7]), &[7]).unwrap(), None);
        write(&table, 7, Some(9), 301);
        assert_eq!((table.len(), table.control().unwrap().slots()), (256, 256));
        assert_eq!(table.get(hash_of(&[7]), &[7]).unwrap(), Some(vec![9]));
        // An update takes one slot more, and gives one back.
        for sequence in 302..400 {
            write(&table, 7, Some(sequence as u8), sequence);
        }
        assert_eq!((table.len(), table.control().unwrap().slots()), (256, 257));
    }

    #[test]
    fn every_shard_gets_its_part_of_the_keys() {
        let mut counts = [0; 16];
        for key in 0..16_000_u64 {
            counts[shard_of(hash_of(&key.to_le_bytes()), 16)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }
}
