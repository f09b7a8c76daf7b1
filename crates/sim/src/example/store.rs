//! What a node of the register keeps on its disk: one record, in two places written in turns, so
//! that a torn one leaves the other.

use super::Flaw;
use crate::{Disk, DiskFile, SECTOR_BYTES, Storage};
use mainstay_base::crc32c;
use std::io;

/// Orders the values: first by counter, then by who wrote it, and in which life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Tag {
    pub(super) counter: u64,
    pub(super) node: u32,
    pub(super) life: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Record {
    pub(super) tag: Tag,
    pub(super) value: u64,
}

/// Checksum, counter, node, life, value.
const RECORD_LEN: usize = 4 + 8 + 4 + 8 + 8;

pub(super) struct Store {
    file: DiskFile,
    flaw: Option<Flaw>,
    record: Record,
    /// Where the record is, so that the other place is written next.
    place: usize,
}

impl Store {
    /// Finds what an earlier life kept, and makes it safe: it may never have got to the disk.
    pub(super) fn open(disk: &Disk, flaw: Option<Flaw>) -> io::Result<Self> {
        let file = disk.file("register");
        if file.len()? < 2 * SECTOR_BYTES as u64 {
            file.set_len(2 * SECTOR_BYTES as u64)?;
            file.sync()?;
        }
        let mut store = Self { file, flaw, record: Record::default(), place: 0 };
        for place in 0..2 {
            let mut bytes = [0; RECORD_LEN];
            store.file.read_at((place * SECTOR_BYTES) as u64, &mut bytes)?;
            if let Some(record) = decode(&bytes, flaw)
                && record.tag > store.record.tag
            {
                (store.record, store.place) = (record, place);
            }
        }
        if flaw != Some(Flaw::TrustsTheCache) && store.record.tag != Tag::default() {
            store.keep(store.record)?;
        }
        Ok(store)
    }

    pub(super) fn record(&self) -> Record {
        self.record
    }

    /// Returns when the record is safe.
    pub(super) fn keep(&mut self, record: Record) -> io::Result<()> {
        if self.flaw != Some(Flaw::OnePlace) {
            self.place = 1 - self.place;
        }
        self.file.write_at((self.place * SECTOR_BYTES) as u64, &encode(&record))?;
        if self.flaw != Some(Flaw::NeverSyncs) {
            self.file.sync()?;
        }
        self.record = record;
        Ok(())
    }
}

fn encode(record: &Record) -> [u8; RECORD_LEN] {
    let Record { tag: Tag { counter, node, life }, value } = *record;
    let mut bytes = [0; RECORD_LEN];
    bytes[4..12].copy_from_slice(&counter.to_le_bytes());
    bytes[12..16].copy_from_slice(&node.to_le_bytes());
    bytes[16..24].copy_from_slice(&life.to_le_bytes());
    bytes[24..].copy_from_slice(&value.to_le_bytes());
    let crc = crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; RECORD_LEN], flaw: Option<Flaw>) -> Option<Record> {
    let (crc, rest) = bytes.split_first_chunk()?;
    if u32::from_le_bytes(*crc) != crc32c(rest) && flaw != Some(Flaw::NoChecksum) {
        return None;
    }
    let (counter, rest) = rest.split_first_chunk()?;
    let (node, rest) = rest.split_first_chunk()?;
    let (life, rest) = rest.split_first_chunk()?;
    let (value, _) = rest.split_first_chunk()?;
    let tag = Tag {
        counter: u64::from_le_bytes(*counter),
        node: u32::from_le_bytes(*node),
        life: u64::from_le_bytes(*life),
    };
    Some(Record { tag, value: u64::from_le_bytes(*value) })
}
