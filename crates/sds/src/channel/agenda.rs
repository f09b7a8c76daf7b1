//! What is to be done when: a heap with lazy deletion. An entry counts only if the record still
//! says the same time, so that changing one's mind costs nothing.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{Channel, table::NEVER};

/// What is planned for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Plan {
    /// Send it again: nobody acknowledged it.
    Resend,
    /// Ask for it.
    Request,
    /// Send it again for others.
    Answer,
    /// Have it fetched from elsewhere.
    Fetch,
    /// Give it up.
    Lose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) at: u64,
    pub(super) plan: Plan,
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<Entry>>,
    /// When so many entries are reached, those that do not count any more are dropped.
    sweep_at: usize,
}

impl Agenda {
    pub(super) fn memory(&self) -> usize {
        self.heap.capacity() * size_of::<Entry>()
    }
}

/// Sweeping is not worth it below this.
const SWEEP_MIN: usize = 1024;

impl Channel {
    /// Plans something for a message; the record says the same time already.
    pub(super) fn plan(&mut self, plan: Plan, slot: u32, at: u64) {
        let generation = self.table.get(slot).generation;
        self.agenda.heap.push(Reverse(Entry { at, plan, slot, generation }));
        if self.agenda.heap.len() > self.agenda.sweep_at.max(SWEEP_MIN) {
            let mut heap = std::mem::take(&mut self.agenda.heap);
            heap.retain(|Reverse(entry)| self.counts_still(entry));
            self.agenda.sweep_at = 2 * heap.len();
            self.agenda.heap = heap;
        }
    }

    /// The next entry that is due.
    pub(super) fn due_now(&mut self, now_ms: u64) -> Option<Entry> {
        self.prune();
        let Reverse(first) = self.agenda.heap.peek()?;
        if first.at > now_ms {
            return None;
        }
        self.agenda.heap.pop().map(|Reverse(entry)| entry)
    }

    /// When the first entry that counts is due; `NEVER` without one (D5).
    pub(super) fn next_planned(&self) -> u64 {
        self.agenda.heap.peek().map_or(NEVER, |Reverse(entry)| entry.at)
    }

    /// Drops what does not count from the top, so that nobody wakes up for it.
    pub(super) fn prune(&mut self) {
        while let Some(Reverse(first)) = self.agenda.heap.peek()
            && !self.counts_still(first)
        {
            self.agenda.heap.pop();
        }
    }

    fn counts_still(&self, entry: &Entry) -> bool {
        let record = self.table.get(entry.slot);
        let planned = match entry.plan {
            Plan::Resend if record.own == super::table::NONE => NEVER,
            Plan::Resend => self.outgoing.get(record.own).resend_at,
            Plan::Request => record.request_at,
            Plan::Answer => record.answer_at,
            Plan::Fetch => record.fetch_at,
            Plan::Lose => record.lost_at,
        };
        record.generation == entry.generation && planned == entry.at
    }
}
