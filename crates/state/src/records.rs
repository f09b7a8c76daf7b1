//! Records of this process, for its commits of several states: taking one, and ending what a tenant of
//! the same lease before it has left there.

use crate::{
    Result,
    domain::{Tenant, locked},
    limits::RECORDS_PER_LEASE,
    memory::Memory,
    protocol::{World, end_records, finish_committed},
    subscribe,
    word::{Id, Phase, Status},
};
use mainstay_shm::{Atomic64, Shared64};
use std::sync::{Arc, atomic::Ordering::Acquire};

/// A record of this lease that no other thread is using.
pub(crate) struct OwnRecord<'a> {
    tenant: &'a Tenant,
    pub(crate) number: u32,
}

impl Drop for OwnRecord<'_> {
    fn drop(&mut self) {
        locked(&self.tenant.free_records).push(self.number);
    }
}

impl Tenant {
    /// Takes a record that can be used; waits for other threads of this process when all are in
    /// use.
    ///
    /// # Errors
    /// `Corrupt` when none can be used: each names states that cannot be opened, or is garbage.
    pub(crate) fn own_record(&self) -> Result<OwnRecord<'_>> {
        let mut skipped = Vec::new();
        let found = loop {
            let Some(number) = locked(&self.free_records).pop() else {
                if skipped.len() == RECORDS_PER_LEASE as usize {
                    break None;
                }
                std::thread::yield_now();
                continue;
            };
            if self.make_usable(number) {
                break Some(number);
            }
            skipped.push(number);
        };
        locked(&self.free_records).append(&mut skipped);
        let record = found.map(|number| OwnRecord { tenant: self, number });
        record.ok_or_else(|| {
            let place = self.folder.join(".records").display().to_string();
            let found = format!("committed in all records of lease {}", self.lease());
            crate::layout::corrupt(&place, "status", found)
        })
    }

    /// Ends what a tenant before us left in a record.
    fn make_usable(&self, number: u32) -> bool {
        match Status(self.status(number).load(Acquire)).phase() {
            Phase::Free | Phase::Aborted => true,
            Phase::Undecided => {
                end_records(self, self.lease());
                self.make_usable(number)
            }
            Phase::Committed => finish_committed(&Opening(self), number),
        }
    }
}

/// The same words, for finishing what a tenant before us has left: its states are opened when this
/// process has not subscribed to them.
struct Opening<'a>(&'a Tenant);

impl World for Opening<'_> {
    type Word = Shared64;
    type State = Memory;
    type Found = Arc<Memory>;

    fn status(&self, record: u32) -> &Shared64 {
        self.0.status(record)
    }

    fn count(&self, record: u32) -> &Shared64 {
        self.0.count(record)
    }

    fn entry(&self, record: u32, index: usize) -> (&Shared64, &Shared64) {
        World::entry(self.0, record, index)
    }

    fn find(&self, id: u64) -> Option<Arc<Memory>> {
        self.0.find(id).or_else(|| subscribe::by_id(self.0, id).ok().flatten())
    }

    fn is_gone(&self, id: u64) -> bool {
        matches!(subscribe::by_id(self.0, id), Ok(None))
    }

    fn is_dead(&self, id: Id) -> bool {
        self.0.is_dead(id)
    }

    fn changed(&self, state: &Memory) {
        self.0.changed(state);
    }

    fn pause(&self) {
        self.0.pause();
    }
}
