//! Checking every word of a pool, and mending what cannot be.

use crate::{
    Corruption, Error, Pool, Result, State,
    extents::Extents,
    freelist,
    inner::Inner,
    reap::{self, ReapReport},
    word::Word,
};
use mainstay_shm::{
    Atomic64,
    lease::{self, LEASE_SLOTS, Prober, SlotEntry},
};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// How many findings of one sort a report lists; it counts all.
const FINDINGS_MAX: usize = 1_000;

/// What a check has found.
///
/// Example: see [`Pool::verify`].
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Blocks checked.
    pub blocks: u64,
    /// Impossible owner words, and there should be none: the first 1,000 of them.
    pub corrupt: Vec<Corruption>,
    /// How many impossible owner words there are.
    pub corrupt_count: u64,
    /// Words that name a slot which was closed orderly, and should hold nothing.
    pub strangers: u64,
    /// Free blocks whose hint says "taken": unusable until the next reap. While the pool is at
    /// work a few may show that are just being taken.
    pub hidden: u64,
    /// Blocks that dead processes hold or keep at hand, until the next reap.
    pub of_the_dead: u64,
    /// Live blocks whose header claims more bytes than a block has.
    pub overlong: u64,
}

impl VerifyReport {
    /// Whether nothing is wrong that a reap would not put right.
    ///
    /// Example: see [`Pool::verify`].
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.corrupt_count == 0 && self.strangers == 0 && self.overlong == 0
    }
}

/// What the checksums in block headers say of the data.
///
/// Example: see [`Pool::verify_checksums`].
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct ChecksumReport {
    /// Live blocks whose data has the checksum in their header.
    pub matching: u64,
    /// Live blocks that have a checksum and other data: they changed since a tracker last saw
    /// them, or are damaged.
    pub differing: u64,
    /// Live blocks that no tracker has seen in this life.
    pub without: u64,
    /// The first 1,000 of those that differ.
    pub first_differing: Vec<u32>,
}

/// What a repair has done.
///
/// Example: see [`Pool::repair`].
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct RepairReport {
    /// What was taken back from the dead first.
    pub reaped: ReapReport,
    /// Impossible words that were mended into orphans: their data is offered by the next recovery.
    pub orphaned: u64,
    /// Impossible words that were mended into free blocks.
    pub freed: u64,
    /// Lengths that were cut to the block size.
    pub shortened: u64,
    /// Hints that were put right.
    pub hints: u64,
    /// The count of extents was impossible, and is again what this process knows.
    pub recounted: bool,
}

/// Which slots may own something, at one moment.
struct Census {
    in_use: u32,
    dead: u32,
}

impl Census {
    fn take(slots: &[SlotEntry], prober: &Prober) -> Result<Self> {
        let mut census = Self { in_use: 0, dead: 0 };
        for (slot, entry) in slots.iter().enumerate() {
            let alive = prober.is_alive(slot as u32)?;
            if alive || entry.state.load(Acquire) != lease::CLEAN {
                census.in_use |= 1 << slot;
                census.dead |= if alive { 0 } else { 1 << slot };
            }
        }
        Ok(census)
    }
}

impl Extents {
    pub(crate) fn verify(&self) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        let slots = self.slots()?;
        let prober = Prober::new(&self.backing)?;
        let mut census = Census::take(slots, &prober)?;
        let mut strange = 0;
        for extent in 0..self.refresh()? {
            for group in 0..self.groups() {
                let (hints, words) = self.group(extent, group);
                let taken = hints.load(Acquire);
                for (place, word) in words.iter().enumerate() {
                    let mut seen = Word(word.load(Acquire));
                    if seen.owners() & !(census.in_use | strange) != 0 {
                        // A process may have joined after the census, and may have left by now.
                        census = Census::take(slots, &prober)?;
                        seen = Word(word.load(Acquire));
                        strange |= seen.owners() & !census.in_use;
                    }
                    let word = seen;
                    let number = self.first_of(extent, group) + place as u32;
                    report.blocks += 1;
                    if word.state() == State::Corrupt {
                        report.corrupt_count += 1;
                        if report.corrupt.len() < FINDINGS_MAX {
                            report.corrupt.push(Corruption::OwnerWord { number, word: word.0 });
                        }
                        continue;
                    }
                    report.strangers += u64::from(word.owners() & !census.in_use != 0);
                    report.of_the_dead += u64::from(word.owners() & census.dead != 0);
                    report.hidden += u64::from(word.is_free() && taken & 1 << place != 0);
                    let length = u64::from(self.cold(number).length.load(Relaxed));
                    let overlong = word.is_live() && length > self.geometry.block_size;
                    report.overlong += u64::from(overlong);
                }
            }
        }
        Ok(report)
    }
}

impl Extents {
    pub(crate) fn verify_checksums(&self) -> Result<ChecksumReport> {
        let mut report = ChecksumReport::default();
        let mut data = vec![0; self.geometry.block_size as usize];
        for number in self.numbers()? {
            if !self.load(number).is_live() {
                continue;
            }
            let stored = self.cold(number).checksum.load(Relaxed);
            self.copy_data(number, &mut data);
            match stored {
                0 => report.without += 1,
                stored if stored == mainstay_base::crc32c(&data) => report.matching += 1,
                _ => {
                    report.differing += 1;
                    if report.first_differing.len() < FINDINGS_MAX {
                        report.first_differing.push(number);
                    }
                }
            }
        }
        Ok(report)
    }
}

impl Pool {
    /// Compares every live block with the checksum in its header, if it has one.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions};
    /// let pool = PoolOptions::new("sound", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// assert_eq!(pool.verify_checksums()?.without, 1);
    /// pool.ground()?.note(block.id(), 7, 1);
    /// assert_eq!(pool.verify_checksums()?.first_differing, [block.number()]);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn verify_checksums(&self) -> Result<ChecksumReport> {
        self.inner().check_fork()?;
        self.inner().extents.verify_checksums()
    }

    /// Checks every owner word, hint and header. Changes nothing; others may go on working.
    ///
    /// ```
    /// let pool = mainstay_pool::PoolOptions::new("sound", 64).create_memfd()?;
    /// assert!(pool.verify()?.is_sound());
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.inner().check_fork()?;
        self.inner().extents.verify()
    }

    /// Mends what [`Pool::verify`] finds. An impossible word becomes an orphan, so that its data
    /// is offered for recovery, or a free block where it named none.
    ///
    /// ```
    /// let mut pool = mainstay_pool::PoolOptions::new("sound", 64).create_memfd()?;
    /// let report = pool.repair()?;
    /// assert_eq!((report.orphaned, report.freed), (0, 0), "nothing was wrong");
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NotAlone` when another process has the pool open; `StillShared` when there are other
    /// handles in this one, `StillHeld` when it holds blocks.
    pub fn repair(&mut self) -> Result<RepairReport> {
        // The only handle, borrowed mutably, and no guard: so no other thread of this process can
        // take a block while the words that name us are treated as garbage.
        let handles = self.other_handles();
        let inner = self.inner();
        inner.check()?;
        if handles > 0 {
            return Err(Error::StillShared { pool: inner.display(), handles });
        }
        // The pins keep others out until the end.
        let _alone = pin_all_others(inner)?;
        let guards = inner.guards();
        if guards > 0 {
            return Err(Error::StillHeld { pool: inner.display(), guards });
        }
        inner.extras.clear();
        inner.collect_idle();
        let all = !(1 << inner.slot);
        let recounted = mend_count(&inner.extents)?;
        let reaped = reap::sweep(inner, all)?;
        let mut report = RepairReport { reaped, recounted, ..RepairReport::default() };
        for extent in 0..inner.extents.refresh()? {
            for group in 0..inner.extents.groups() {
                let (hints, words) = inner.extents.group(extent, group);
                for (place, word) in words.iter().enumerate() {
                    let number = inner.extents.first_of(extent, group) + place as u32;
                    mend(inner, number, word, &mut report);
                }
                report.hints += u64::from(freelist::repair_hints(hints, words));
            }
        }
        for (slot, entry) in inner.extents.slots()?.iter().enumerate() {
            if slot != inner.slot as usize {
                entry.state.store(lease::CLEAN, Release);
            }
        }
        Ok(report)
    }
}

/// A count that can be true is believed; any other becomes what this process has seen itself.
fn mend_count(extents: &Extents) -> Result<bool> {
    let count = &extents.live()?.extents;
    if count.load(Acquire) >= extents.known() && extents.refresh().is_ok() {
        return Ok(false);
    }
    count.store(extents.known(), Release);
    Ok(true)
}

fn mend(inner: &Inner, number: u32, word: &impl Atomic64, report: &mut RepairReport) {
    let seen = Word(word.load(Acquire));
    if seen.state() == State::Corrupt {
        let freed = !seen.is_live();
        let next = if freed { seen.freed_next_tag() } else { seen.orphaned() };
        // Alone: the exchange cannot fail.
        if word.compare_exchange(seen.0, next.0, AcqRel, Relaxed).is_ok() {
            report.freed += u64::from(freed);
            report.orphaned += u64::from(!freed);
        }
    } else if seen.is_owned_by(inner.slot) {
        // This process holds nothing (checked), so the claim is of garbage.
        if let Some((next, _)) = seen.reaped(1 << inner.slot) {
            let _ = word.compare_exchange(seen.0, next.0, AcqRel, Relaxed);
        }
    }
    let cold = inner.extents.cold(number);
    let block_size = inner.extents.geometry.block_size;
    if u64::from(cold.length.load(Relaxed)) > block_size {
        cold.length.store(block_size as u32, Relaxed);
        report.shortened += 1;
    }
}

fn pin_all_others(inner: &Inner) -> Result<Prober> {
    let mut prober = Prober::new(&inner.extents.backing)?;
    let slots = inner.extents.slots()?;
    for slot in (0..LEASE_SLOTS as u32).filter(|slot| *slot != inner.slot) {
        if !prober.pin_dead(slot)? {
            let entry = &slots[slot as usize];
            let (pid, name) = (entry.pid.load(Relaxed), entry.display_name());
            return Err(Error::NotAlone { pool: inner.display(), pid, name });
        }
    }
    Ok(prober)
}
