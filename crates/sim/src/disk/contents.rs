//! One file: what is safe, what readers see, and for each sector between them the versions that a
//! power cut may leave.

use super::{DiskFaults, SECTOR_BYTES, images::Loss};
use crate::Chance;
use mainstay_base::Rng;
use std::{collections::BTreeMap, io};

pub(super) type Sector = [u8; SECTOR_BYTES];

/// The versions of a sector since the last sync that saved it, each with the number of the
/// operation that made it.
#[derive(Clone)]
pub(super) struct Dirty {
    pub(super) versions: Vec<(u64, Box<Sector>)>,
    /// A sync failed, so the kernel takes it for saved. A later write makes it dirty again.
    taken_for_clean: bool,
}

#[derive(Clone, Default)]
pub(super) struct Contents {
    /// Whole sectors, with zeros past the end.
    pub(super) safe: Vec<u8>,
    pub(super) safe_len: u64,
    seen: Vec<u8>,
    pub(super) dirty: BTreeMap<u64, Dirty>,
    /// Lengths since the last sync that saved one.
    pub(super) lengths: Vec<(u64, u64)>,
    length_taken_for_clean: bool,
}

impl Contents {
    pub(super) fn len(&self) -> u64 {
        self.seen.len() as u64
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let found = start.and_then(|start| self.seen.get(start..start.checked_add(bytes.len())?));
        let found = found.ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    /// The caller has checked that the end is within the limits.
    pub(super) fn write(&mut self, operation: u64, offset: u64, bytes: &[u8]) {
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if bytes.is_empty() {
            return;
        }
        if end > self.seen.len() {
            self.seen.resize(end, 0);
            self.note_length(operation);
        }
        self.seen[start..end].copy_from_slice(bytes);
        self.note_sectors(operation, start, end);
    }

    pub(super) fn set_len(&mut self, operation: u64, len: u64) {
        let (old, new) = (self.seen.len(), len as usize);
        if new == old {
            return;
        }
        self.seen.resize(new, 0);
        self.note_length(operation);
        // What was cut off is zeros if the file grows again.
        if new < old {
            self.note_sectors(operation, new, old);
        }
    }

    /// Saves the sectors from byte `start` to `end`, and the length.
    pub(super) fn sync(&mut self, start: u64, end: u64) {
        if !self.length_taken_for_clean {
            self.safe_len = self.len();
            self.lengths.clear();
        }
        let Self { safe, dirty, .. } = self;
        dirty.retain(|sector, dirty| {
            if dirty.taken_for_clean || !is_in(*sector, start, end) {
                return true;
            }
            if let Some((_, newest)) = dirty.versions.last() {
                put(safe, *sector, newest);
            }
            false
        });
    }

    pub(super) fn fail_sync(&mut self, start: u64, end: u64) {
        self.length_taken_for_clean = !self.lengths.is_empty();
        for (sector, dirty) in &mut self.dirty {
            dirty.taken_for_clean |= is_in(*sector, start, end);
        }
    }

    pub(super) fn after_power_cut(&self, how: Loss, faults: &DiskFaults, rng: &mut Rng) -> Self {
        let choice = how.choose(self, rng);
        let mut left = self.with(&choice);
        self.damage(&mut left, &choice, faults, rng);
        left
    }

    /// What is left if of each dirty sector, and of the length, the version of that number is
    /// left: 0 is the safe one.
    pub(super) fn with(&self, choice: &Choice) -> Self {
        let mut safe = self.safe.clone();
        for ((sector, dirty), version) in self.dirty.iter().zip(&choice.sectors) {
            if let Some((_, bytes)) = version.checked_sub(1).and_then(|v| dirty.versions.get(v)) {
                put(&mut safe, *sector, bytes);
            }
        }
        let length = choice.length.checked_sub(1).and_then(|version| self.lengths.get(version));
        let len = length.map_or(self.safe_len, |(_, len)| *len);
        Self::of(safe, len)
    }

    /// A file that has these bytes, all of them safe.
    fn of(mut safe: Vec<u8>, len: u64) -> Self {
        safe.resize(len as usize, 0);
        let seen = safe.clone();
        safe.resize(seen.len().next_multiple_of(SECTOR_BYTES), 0);
        Self { safe, safe_len: len, seen, ..Self::default() }
    }

    /// D5.
    fn damage(&self, left: &mut Self, choice: &Choice, faults: &DiskFaults, rng: &mut Rng) {
        let sectors = left.safe.len() / SECTOR_BYTES;
        for ((&sector, dirty), version) in self.dirty.iter().zip(&choice.sectors) {
            if sectors == 0 {
                break;
            }
            let newer = dirty.versions.get(*version).or(dirty.versions.last());
            let Some((_, newer)) = newer else { continue };
            if rng.chance(faults.shred_ppm) && (sector as usize) < sectors {
                let start = sector as usize * SECTOR_BYTES;
                shred(&mut left.safe[start..start + SECTOR_BYTES], newer, rng);
            }
            if rng.chance(faults.misdirect_ppm) {
                put(&mut left.safe, rng.below(sectors as u64), newer);
            }
        }
        *left = Self::of(std::mem::take(&mut left.safe), left.safe_len);
    }

    fn note_length(&mut self, operation: u64) {
        self.lengths.push((operation, self.len()));
        self.length_taken_for_clean = false;
    }

    fn note_sectors(&mut self, operation: u64, start: usize, end: usize) {
        for sector in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let first = sector * SECTOR_BYTES;
            let mut bytes = Box::new([0; SECTOR_BYTES]);
            if let Some(seen) = self.seen.get(first..) {
                let there = seen.len().min(SECTOR_BYTES);
                bytes[..there].copy_from_slice(&seen[..there]);
            }
            let dirty = self
                .dirty
                .entry(sector as u64)
                .or_insert_with(|| Dirty { versions: Vec::new(), taken_for_clean: false });
            dirty.taken_for_clean = false;
            dirty.versions.push((operation, bytes));
        }
    }
}

/// Has the sector bytes from `start` to `end`?
fn is_in(sector: u64, start: u64, end: u64) -> bool {
    let first = sector * SECTOR_BYTES as u64;
    first < end && first + SECTOR_BYTES as u64 > start
}

/// Which version of each dirty sector, in order, and of the length.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Choice {
    pub(super) sectors: Vec<usize>,
    pub(super) length: usize,
}

/// Some words at the front are those of the newer version: at least one that differs is, and at
/// least one is not, if there are two.
fn shred(old: &mut [u8], newer: &Sector, rng: &mut Rng) {
    const WORD: usize = 8;
    let words = old.chunks(WORD).zip(newer.chunks(WORD)).enumerate();
    let differ: Vec<_> = words.filter(|(_, (old, new))| old != new).map(|(at, _)| at).collect();
    if let [_, others @ ..] = &differ[..]
        && !others.is_empty()
    {
        let torn_at = rng.pick(others) * WORD;
        old[..torn_at].copy_from_slice(&newer[..torn_at]);
    }
}

fn put(safe: &mut Vec<u8>, sector: u64, bytes: &Sector) {
    let start = sector as usize * SECTOR_BYTES;
    if safe.len() < start + SECTOR_BYTES {
        safe.resize(start + SECTOR_BYTES, 0);
    }
    safe[start..start + SECTOR_BYTES].copy_from_slice(bytes);
}
