//! Writing to the records of a shard: each change fills a slot that nothing names, and turns one word
//! of the index to it.

use std::sync::{PoisonError, atomic::Ordering::Relaxed};

use super::{GROWTH_BYTES_MIN, Names, Place, Table, Writer, Writing, hash_of};
use crate::{
    error::Result,
    index::{Use, make, make_ready, print_of, release, weight_of},
    shard::Change,
};

/// Buckets of the old index that are moved along with each record written.
const MOVED_BUCKETS: usize = 2;
/// Bytes that are made ready in one go.
const PIECE_BYTES: usize = 2 << 20;
/// How many changes of a write are on their way from memory at a time.
const AHEAD: usize = 8;

impl Table {
    /// Has some of the memory ready that is about to be written, beside whoever writes: the pieces of
    /// the index are first, since it is written all over from the beginning on. False if there are no
    /// more.
    pub(crate) fn make_ready(&self, piece: usize) -> bool {
        let view = &self.view;
        let (name, filled, expected) = {
            let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            (writer.tables.0, writer.slots, writer.expected.clone())
        };
        if expected.is_empty() {
            return false;
        }
        let of_index = name.bytes().div_ceil(PIECE_BYTES);
        if piece < of_index {
            make_ready(&view.index, name, piece * PIECE_BYTES, PIECE_BYTES);
            return true;
        }
        let bytes = |slots| view.shape.bytes(slots) as usize;
        let before = (piece - of_index).saturating_mul(PIECE_BYTES);
        let from = bytes(expected.start).saturating_add(before);
        let to = bytes(expected.end).min(from.saturating_add(PIECE_BYTES));
        // Nothing is left to do where the writer was first.
        let from = from.max(bytes(filled));
        if from < to {
            view.memory.make_ready(from, to - from);
        }
        to < bytes(expected.end)
    }
}

impl Writing<'_> {
    /// Makes sure that so many records can be written. False if there can be no more.
    pub(crate) fn reserve(&mut self, count: usize) -> Result<bool> {
        let lacking = (count as u64).saturating_sub(self.writer.free.len() as u64);
        let slots = self.writer.slots + lacking;
        let table = self.table;
        let view = &table.view;
        if slots > u64::from(u32::MAX) {
            return Ok(false);
        }
        if slots > self.writer.room {
            // By an eighth, so that growing is rare and little is taken too much.
            let least = view.shape.slots_in(view.shape.bytes(0) + GROWTH_BYTES_MIN);
            let wanted = (slots + (slots / 8).max(least)).min(u64::from(u32::MAX));
            // Where there is no room for so much, there may be for what is needed.
            if !matches!(view.memory.grow(view.shape.bytes(wanted)), Ok(true))
                && !view.memory.grow(view.shape.bytes(slots))?
            {
                return Ok(false);
            }
            self.writer.room = view.shape.slots_in(view.memory.covered()?);
        }
        let words = self.writer.tables.0.words();
        if (self.writer.filled + count).saturating_mul(4) > words * 3 {
            return self.grow_index(count);
        }
        Ok(true)
    }

    /// Makes room for so many records that are about to come, in one go. [`Table::make_ready`] is what
    /// takes time then.
    pub(crate) fn expect(&mut self, count: usize) -> Result<bool> {
        if !self.reserve(count)? {
            return Ok(false);
        }
        let slots = self.writer.slots;
        self.writer.expected = slots..slots + count as u64;
        Ok(true)
    }

    /// Begins a new table, to which the words of the present one move little by little. False if
    /// there is no room for it.
    fn grow_index(&mut self, count: usize) -> Result<bool> {
        let view = &self.table.view;
        while self.writer.tables.1.is_some() {
            if view.tables(self.writer.tables).count() < 2 {
                return Err(view.damaged("the file of the index has become too short"));
            }
            self.move_some();
        }
        let old = self.writer.tables.0;
        let new = old.next(self.table.len() + count as u64);
        if !make(&view.index, new)? {
            return Ok(false);
        }
        (self.writer.filled, self.writer.moving) = (0, 0);
        self.set_tables((new, Some(old)));
        Ok(true)
    }

    fn set_tables(&mut self, tables: Names) {
        self.writer.tables = tables;
        self.control.set_tables(tables.0.0, tables.1.map_or(0, |old| old.0));
    }

    /// Moves a few words from the old table, and gives it back when it has none left.
    fn move_some(&mut self) {
        let view = &self.table.view;
        let (new, Some(old)) = self.writer.tables else { return };
        let (Some(to), Some(from)) = (view.table(new), view.table(old)) else { return };
        for _ in 0..MOVED_BUCKETS {
            if let Some(taken) = from.move_bucket(self.writer.moving, to) {
                self.writer.filled += taken;
                self.writer.moving += 1;
                continue;
            }
            self.set_tables((new, None));
            return release(&view.index, old);
        }
    }

    /// The slot and the value of a key.
    pub(crate) fn current(&self, hash: u64, key: &[u8]) -> Result<Option<(u32, Box<[u8]>)>> {
        let view = &self.table.view;
        let mut tables = view.tables(self.writer.tables);
        let entry = tables.find_map(|(_, index)| view.find(index, hash, key));
        let Some(entry) = entry else { return Ok(None) };
        let mut value = vec![0; view.shape.value_len];
        let found = self.table.copy(hash, key, &mut value)?;
        Ok(found.map(|_| (entry.slot, value.into())))
    }

    /// From here on the write counts, whoever dies.
    pub(crate) fn commit(&self, place: Place) {
        self.control.commit(place);
    }

    /// Asks for the records that the first changes of a write replace.
    pub(crate) fn ask_for_first(&self, changes: &[Change<'_>]) {
        for change in changes.iter().take(AHEAD) {
            self.ask_for_record(change);
        }
    }

    fn ask_for_record(&self, change: &Change<'_>) {
        self.table.view.ask_for_record(self.writer.tables.0, hash_of(change.key()));
    }

    /// Makes the changes of a write one after another, and shows each when it is made, with how many
    /// records there were before. There are slots reserved for them, and the first were asked for.
    pub(crate) fn apply_all<'c>(
        &mut self,
        changes: &[Change<'c>],
        sequence: u64,
        mut made: impl FnMut(&Change<'c>, u64),
    ) {
        for (number, change) in changes.iter().enumerate() {
            // Others that memory is asked for meanwhile cost a fraction of waiting for each.
            if let Some(later) = changes.get(number + 2 * AHEAD) {
                let name = self.writer.tables.0;
                self.table.view.ask_for_bucket(name, hash_of(later.key()));
            }
            if let Some(soon) = changes.get(number + AHEAD) {
                self.ask_for_record(soon);
            }
            let before = self.table.len();
            self.apply(change, sequence);
            made(change, before);
        }
    }

    /// Makes one change of a write. There is a slot reserved for it.
    pub(crate) fn apply(&mut self, change: &Change<'_>, sequence: u64) {
        match change {
            Change::Put(key, value) => self.put(key, value, sequence),
            Change::Delete(key) => self.remove(key),
        }
        self.move_some();
    }

    /// The records have all of the write.
    pub(crate) fn applied(&mut self, sequence: u64) {
        self.control.set_named(self.writer.named, sequence);
        self.control.set_applied(sequence);
        self.forget();
    }

    /// Slots that were freed can be used again.
    pub(super) fn forget(&mut self) {
        let Writer { free, freed, .. } = &mut *self.writer;
        free.append(freed);
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8], sequence: u64) {
        let (table, hash) = (self.table, hash_of(key));
        let view = &table.view;
        let find = |(_, index)| view.find(index, hash, key);
        let found = view.tables(self.writer.tables).find_map(find);
        let slot = match self.writer.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = self.writer.slots;
                self.writer.slots += 1;
                self.control.set_slots(self.writer.slots);
                slot as u32
            }
        };
        view.fill(slot, sequence, key, value);
        let weight = weight_of(print_of(hash), slot);
        self.writer.named = self.writer.named.wrapping_add(weight);
        match found {
            Some(entry) => {
                self.writer.named = self.writer.named.wrapping_sub(entry.weight());
                entry.turn_to(slot);
                view.clear(entry.slot);
                self.writer.freed.push(entry.slot);
            }
            None => {
                let new = view.table(self.writer.tables.0);
                let used = new.and_then(|new| new.insert(print_of(hash), slot));
                self.writer.filled += usize::from(used == Some(Use::Changed));
                self.table.records.fetch_add(1, Relaxed);
            }
        }
    }

    fn remove(&mut self, key: &[u8]) {
        let (table, hash) = (self.table, hash_of(key));
        let view = &table.view;
        let tables = self.writer.tables;
        for (name, index) in view.tables(tables) {
            let Some(entry) = view.find(index, hash, key) else { continue };
            if name == tables.0 {
                let emptied = usize::from(entry.remove() == Use::Changed);
                self.writer.filled = self.writer.filled.saturating_sub(emptied);
            } else {
                entry.mark_gone();
            }
            self.writer.named = self.writer.named.wrapping_sub(entry.weight());
            view.clear(entry.slot);
            self.writer.freed.push(entry.slot);
            self.table.records.fetch_sub(1, Relaxed);
            return;
        }
    }
}
