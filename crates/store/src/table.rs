//! The records of a shard in memory: slots in pages, found by a hash table of their numbers.

use hashbrown::HashTable;
use mainstay_base::{crc64, mix64};

/// Slots of a page. A table grows by pages, so that no record is ever copied for growth.
const PAGE_SLOTS: usize = 1024;
const SEQUENCE: usize = 8;

/// The hash of a key; part of the format, as it chooses the shard.
pub(crate) fn hash_of(key: &[u8]) -> u64 {
    mix64(crc64(key))
}

/// The shard of a hash, out of a power of two of them. The bits are others than those a hash table
/// looks at first.
pub(crate) fn shard_of(hash: u64, shards: usize) -> usize {
    (hash >> 40) as usize & (shards - 1)
}

/// Records: the sequence of the write that made them (0: none), key, value.
pub(crate) struct Table {
    key_len: usize,
    stride: usize,
    index: HashTable<u32>,
    pages: Vec<Box<[u8]>>,
    free: Vec<u32>,
    /// Slots that were ever used.
    slots: u32,
}

impl Table {
    pub(crate) fn new(key_len: usize, value_len: usize) -> Self {
        let stride = SEQUENCE + key_len + value_len;
        let (index, pages, free) = (HashTable::new(), Vec::new(), Vec::new());
        Self { key_len, stride, index, pages, free, slots: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes of a record in an image.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    fn record(&self, slot: u32) -> &[u8] {
        let (page, at) = (slot as usize / PAGE_SLOTS, slot as usize % PAGE_SLOTS);
        &self.pages[page][at * self.stride..][..self.stride]
    }

    fn record_mut(&mut self, slot: u32) -> &mut [u8] {
        let (page, at) = (slot as usize / PAGE_SLOTS, slot as usize % PAGE_SLOTS);
        &mut self.pages[page][at * self.stride..][..self.stride]
    }

    fn key(&self, slot: u32) -> &[u8] {
        &self.record(slot)[SEQUENCE..SEQUENCE + self.key_len]
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.index.find(hash, |slot| self.key(*slot) == key).copied()
    }

    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<&[u8]> {
        let slot = self.find(hash, key)?;
        Some(&self.record(slot)[SEQUENCE + self.key_len..])
    }

    /// Writes a record. Whoever calls has made sure that there are slots left.
    pub(crate) fn put(&mut self, hash: u64, key: &[u8], value: &[u8], sequence: u64) {
        let slot = match self.find(hash, key) {
            Some(slot) => slot,
            None => self.insert(hash),
        };
        let key_len = self.key_len;
        let record = self.record_mut(slot);
        record[..SEQUENCE].copy_from_slice(&sequence.to_le_bytes());
        record[SEQUENCE..SEQUENCE + key_len].copy_from_slice(key);
        record[SEQUENCE + key_len..].copy_from_slice(value);
    }

    fn insert(&mut self, hash: u64) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = self.slots;
            self.slots += 1;
            if slot as usize / PAGE_SLOTS == self.pages.len() {
                self.pages.push(vec![0; PAGE_SLOTS * self.stride].into());
            }
            slot
        });
        let Self { index, pages, stride, key_len, .. } = self;
        index.insert_unique(hash, slot, |slot| {
            let (page, at) = (*slot as usize / PAGE_SLOTS, *slot as usize % PAGE_SLOTS);
            hash_of(&pages[page][at * *stride + SEQUENCE..][..*key_len])
        });
        slot
    }

    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) -> bool {
        let Some(slot) = self.find(hash, key) else { return false };
        if let Ok(found) = self.index.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
        self.record_mut(slot).fill(0);
        self.free.push(slot);
        true
    }

    /// Appends up to `max` records from slot `from` on to `out`, as they are in an image. Returns
    /// how many, and the slot to go on from, if there is one.
    pub(crate) fn chunk(&self, from: u32, max: usize, out: &mut Vec<u8>) -> (usize, Option<u32>) {
        let mut count = 0;
        for slot in from..self.slots {
            if count == max {
                return (count, Some(slot));
            }
            let record = self.record(slot);
            if record[..SEQUENCE] != [0; SEQUENCE] {
                out.extend_from_slice(record);
                count += 1;
            }
        }
        (count, None)
    }

    /// Takes a record from an image.
    pub(crate) fn load(&mut self, record: &[u8]) {
        let (sequence, rest) = record.split_at(SEQUENCE);
        let (key, value) = rest.split_at(self.key_len);
        let mut eight = [0; 8];
        eight.copy_from_slice(sequence);
        self.put(hash_of(key), key, value, u64::from_le_bytes(eight));
    }

    /// How many records are in one of two tables only, or differ.
    pub(crate) fn differences(&self, other: &Self) -> u64 {
        let lacks = |a: &Self, b: &Self, twice: bool| {
            let all = (0..a.slots).filter(|slot| a.record(*slot)[..SEQUENCE] != [0; SEQUENCE]);
            all.filter(|slot| {
                let key = a.key(*slot);
                match b.find(hash_of(key), key) {
                    Some(found) => twice && b.record(found) != a.record(*slot),
                    None => true,
                }
            })
            .count() as u64
        };
        lacks(self, other, true) + lacks(other, self, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_was_freed_is_used_again_and_its_old_key_is_gone() {
        let mut table = Table::new(1, 1);
        for key in 0..=255_u8 {
            table.put(hash_of(&[key]), &[key], &[key ^ 1], 1 + u64::from(key));
        }
        assert!(table.remove(hash_of(&[7]), &[7]));
        assert!(!table.remove(hash_of(&[7]), &[7]));
        assert_eq!(table.get(hash_of(&[7]), &[7]), None);
        table.put(hash_of(&[7]), &[7], &[9], 300);
        assert_eq!((table.len(), table.slots), (256, 256));
        assert_eq!(table.get(hash_of(&[7]), &[7]), Some(&[9][..]));
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
