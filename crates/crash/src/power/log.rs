//! The log of a block device, in the format of dm-log-writes, which QEMU's `blklogwrites` writes.
//!
//! Source: `Documentation/admin-guide/device-mapper/log-writes.rst` and `drivers/md/dm-log-writes.c`
//! of the kernel: a super sector with magic, version, number of entries and sector size; then for
//! each entry a sector with first sector, number of sectors, flags and length, and its data.

use super::rig::Outcome;
use mainstay_base::Rng;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const SECTOR: usize = 512;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// What stands at the start of an acknowledgement.
pub(super) const ACKNOWLEDGED: &[u8; 8] = b"MAIN-ACK";

struct Entry {
    offset: u64,
    flags: u64,
    data: Vec<u8>,
}

/// All that was done to the device.
pub(super) struct Log {
    entries: Vec<Entry>,
}

/// A moment at which the power is cut.
pub(super) struct PowerCut {
    /// Before this entry.
    pub(super) at: usize,
    /// The last checkpoint that was acknowledged by then.
    pub(super) acknowledged: u64,
}

/// What becomes of the writes after the last flush.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Lost,
    Prefix,
    /// Some of the writes, whichever.
    Subset,
    /// Some of the sectors, whichever.
    Torn,
}

impl Log {
    pub(super) fn read(path: &Path) -> Outcome<Self> {
        let bytes = fs::read(path)?;
        let word = |at: usize| -> Outcome<u64> {
            let word = bytes.get(at..at + 8).ok_or("the log is too short")?;
            Ok(u64::from_le_bytes(word.try_into()?))
        };
        if word(0)? != MAGIC {
            return Err("the log does not start with its magic".into());
        }
        let count = word(16)?;
        let mut entries = Vec::new();
        let mut at = SECTOR;
        for _ in 0..count {
            let (sector, sectors, flags) = (word(at)?, word(at + 8)?, word(at + 16)?);
            at += SECTOR;
            let len = if flags & DISCARD != 0 { 0 } else { sectors as usize * SECTOR };
            let data = bytes.get(at..at + len).ok_or("the log ends in the middle")?.to_vec();
            entries.push(Entry { offset: sector * SECTOR as u64, flags, data });
            at += len;
        }
        Ok(Self { entries })
    }

    /// A moment after the first acknowledgement, and what was acknowledged by then. What lies past
    /// the file system, from byte `end` on, are acknowledgements.
    pub(super) fn draw(&self, rng: &mut Rng, end: u64) -> PowerCut {
        let acknowledged = |entry: &Entry| {
            let is_one = entry.offset >= end && entry.data.starts_with(ACKNOWLEDGED);
            let number = entry.data.get(8..16).and_then(|bytes| bytes.try_into().ok());
            number.filter(|_| is_one).map(u64::from_le_bytes)
        };
        let first = self.entries.iter().position(|entry| acknowledged(entry).is_some());
        let first = first.unwrap_or(0);
        let at = first + rng.below((self.entries.len() - first) as u64 + 1) as usize;
        let last = self.entries[..at].iter().rev().find_map(acknowledged);
        PowerCut { at, acknowledged: last.unwrap_or(0) }
    }

    /// Writes to `image`, which is as the device was at first, what a power cut leaves.
    pub(super) fn replay(
        &self,
        image: &File,
        at: usize,
        fate: Fate,
        rng: &mut Rng,
    ) -> io::Result<()> {
        let before = &self.entries[..at];
        let flushed = before.iter().rposition(|entry| entry.flags & FLUSH != 0).unwrap_or(0);
        let (durable, volatile) = before.split_at(flushed);
        durable.iter().try_for_each(|entry| image.write_all_at(&entry.data, entry.offset))?;
        let count = rng.below(volatile.len() as u64 + 1) as usize;
        for (number, entry) in volatile.iter().enumerate() {
            match fate {
                Fate::Lost => {}
                Fate::Prefix if number < count => image.write_all_at(&entry.data, entry.offset)?,
                Fate::Subset if rng.below(2) == 0 => {
                    image.write_all_at(&entry.data, entry.offset)?;
                }
                Fate::Torn => {
                    for (sector, bytes) in entry.data.chunks(SECTOR).enumerate() {
                        if rng.below(2) == 0 {
                            image.write_all_at(bytes, entry.offset + (sector * SECTOR) as u64)?;
                        }
                    }
                }
                Fate::Prefix | Fate::Subset => {}
            }
        }
        Ok(())
    }
}
