//! Who else may have written: other processes, other mappings, and system calls on the file.
//!
//! L1. [`Neighbours::survey`] says "compare everything" unless it is certain that since the last
//!     survey nobody wrote whose page bits are not taken: whoever came, left, died, or is not
//!     watched counts as a writer, and so does a change of the file by a system call.
//! L2. The bits of one process are taken by one tracker; another tracker finds them claimed, and
//!     compares.

use crate::{Result, limits::DEBT_FLUSHES_MAX};
use mainstay_pool::{Ground, Neighbour};
use mainstay_shm::{FileEvents, RemoteWatch};
use std::{collections::HashMap, ops::Range};

#[derive(Default)]
pub(crate) struct Neighbours {
    tenancies: u64,
    /// By slot, with the epoch of its tenant.
    last: HashMap<u32, (u64, Cover)>,
    events: Option<FileEvents>,
    extents: u64,
    /// For how many flushes a change of the file that may only be growth has not been looked into.
    debt: u32,
}

enum Cover {
    /// Its page bits are taken.
    Watched(RemoteWatch),
    /// Not known what it writes.
    Open,
    /// It died, and everything has been compared since.
    Gone,
}

impl Neighbours {
    /// To be called before a tracker first looks at the blocks.
    pub(crate) fn begin(&mut self, ground: Ground<'_>) -> Result<()> {
        self.events = Some(FileEvents::new(ground.backing())?);
        self.extents = ground.extents()?;
        self.tenancies = ground.tenancies()?;
        Ok(())
    }

    /// Whether everything has to be compared (L1).
    pub(crate) fn survey(&mut self, ground: Ground<'_>) -> Result<bool> {
        let by_call = self.written_by_call(ground)?;
        // Before the list: whoever comes in between is in the list, or counted the next time.
        let tenancies = ground.tenancies()?;
        let mut compare = by_call || tenancies != self.tenancies;
        let neighbours = ground.neighbours()?;
        let mut last = std::mem::take(&mut self.last);
        for one in neighbours {
            let before = last.remove(&one.slot).filter(|(epoch, _)| *epoch == one.epoch);
            let cover = match (one.alive, before) {
                (false, Some((_, Cover::Gone))) => Cover::Gone,
                (true, Some((_, Cover::Watched(watch)))) if one.base != 0 => Cover::Watched(watch),
                (false, _) => {
                    compare = true;
                    Cover::Gone
                }
                // What it wrote before its bits were claimed is in no bits of ours.
                (true, _) => {
                    compare = true;
                    claim(ground, &one)?.map_or(Cover::Open, Cover::Watched)
                }
            };
            self.last.insert(one.slot, (one.epoch, cover));
        }
        // Those who have left may have written until they did.
        compare |= last.values().any(|(_, cover)| !matches!(cover, Cover::Gone));
        self.tenancies = tenancies;
        Ok(compare)
    }

    /// Whether somebody wrote to the file by a system call. Growth looks the same from outside; if
    /// there was growth as well, it is looked into as soon as there is none, or at last after a few
    /// flushes.
    fn written_by_call(&mut self, ground: Ground<'_>) -> Result<bool> {
        let extents = ground.extents()?;
        let grown = extents != self.extents;
        self.extents = extents;
        let modified = self.events.as_ref().is_none_or(FileEvents::modified);
        if modified || self.debt > 0 {
            self.debt += 1;
        }
        let due = self.debt > 0 && (!grown || self.debt >= DEBT_FLUSHES_MAX);
        if due {
            self.debt = 0;
        }
        Ok(due)
    }

    /// Appends what watched processes wrote in `range`; what cannot be told sets `everything`.
    pub(crate) fn take(
        &mut self,
        range: Range<u64>,
        written: &mut Vec<Range<u64>>,
        everything: &mut bool,
    ) {
        for (_, cover) in self.last.values_mut() {
            if let Cover::Watched(watch) = cover
                && !matches!(watch.take(range.clone(), written), Ok(Some(())))
            {
                *everything = true;
                *cover = Cover::Open;
            }
        }
    }

    /// Whether somebody may write whose page faults are not ours.
    pub(crate) fn any(&self) -> bool {
        self.last.values().any(|(_, cover)| !matches!(cover, Cover::Gone))
    }
}

/// Opens the page map of a neighbour that offers it, and that no other tracker reads.
fn claim(ground: Ground<'_>, one: &Neighbour) -> Result<Option<RemoteWatch>> {
    if one.base == 0 || !ground.claim_watch(one.slot)? {
        return Ok(None);
    }
    Ok(RemoteWatch::new(ground.backing(), one.pid, one.start_time, one.base).ok())
}
