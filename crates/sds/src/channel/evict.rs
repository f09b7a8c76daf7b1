//! Everything that leaves: messages that wait when too many do, the log's oldest, remembered ids.
//!
//! Sender ids are free, so a limit for each sender bounds nothing; the limits are the channel's,
//! and who holds most of it loses first, its oldest message first (D4).

use std::collections::VecDeque;

use super::{
    Channel,
    table::{NEVER, State, flag},
};
use crate::{limits::UNKNOWN_MAX, time::Now};

/// The messages of one sender that wait.
#[derive(Debug, Default)]
pub(super) struct Holder {
    count: usize,
    bytes: usize,
    /// Slots and epochs, oldest first.
    queue: VecDeque<(u32, u32)>,
}

impl Channel {
    /// Makes room for a message of `len` bytes that waits, and `unknown` missing ones.
    pub(super) fn make_room(&mut self, now: Now, sender: u64, len: usize, unknown: usize) {
        while let Some(holder) = self.holders.get(&sender)
            && (holder.count >= self.config.incoming_per_sender_max
                || holder.bytes + len > self.config.incoming_per_sender_bytes_max)
        {
            self.evict_oldest(now, sender);
        }
        while self.buffered > 0
            && (self.buffered >= self.config.incoming_max
                || self.buffered_bytes + len > self.config.incoming_bytes_max
                || self.unknown + unknown > UNKNOWN_MAX)
        {
            let largest = self.holders.iter().max_by_key(|(name, holder)| (holder.bytes, **name));
            let Some((&largest, _)) = largest else { return };
            self.evict_oldest(now, largest);
        }
    }

    /// A message waits from now on.
    pub(super) fn enter_buffer(&mut self, slot: u32) {
        let record = self.table.get_mut(slot);
        record.state = State::Buffered;
        record.wait_epoch = record.wait_epoch.wrapping_add(1);
        record.missing = 0;
        record.waits_for.clear();
        let (epoch, len) = (record.wait_epoch, record.body.len());
        let sender = self.table.hash(self.table.get(slot).sender());
        let holder = self.holders.entry(sender).or_default();
        holder.count += 1;
        holder.bytes += len;
        // Those that left are dropped when they are most.
        if holder.queue.len() > 2 * holder.count + 16 {
            let table = &self.table;
            holder.queue.retain(|&(slot, epoch)| waits(table.get(slot), epoch));
        }
        holder.queue.push_back((slot, epoch));
        self.buffered += 1;
        self.buffered_bytes += len;
    }

    /// A message does not wait any more.
    pub(super) fn leave_buffer(&mut self, slot: u32) {
        let record = self.table.get_mut(slot);
        let len = record.body.len();
        // Edges to it are void from now on.
        record.wait_epoch = record.wait_epoch.wrapping_add(1);
        record.state = State::Unknown;
        let sender = self.table.hash(self.table.get(slot).sender());
        if let Some(holder) = self.holders.get_mut(&sender) {
            holder.count -= 1;
            holder.bytes -= len;
            if holder.count == 0 {
                self.holders.remove(&sender);
            }
        }
        self.buffered -= 1;
        self.buffered_bytes -= len;
    }

    fn evict_oldest(&mut self, now: Now, sender: u64) {
        let Some(holder) = self.holders.get_mut(&sender) else { return };
        while let Some((slot, epoch)) = holder.queue.pop_front() {
            if waits(self.table.get(slot), epoch) {
                self.evict(now, slot);
                return;
            }
        }
    }

    /// Drops a message that waits. If others wait for it, it is missing again.
    fn evict(&mut self, now: Now, slot: u32) {
        let record = self.table.get(slot);
        self.outputs.evicted(record.id(), record.sender());
        self.stop_waiting(now, slot);
        self.cancel_answer(slot);
        self.note_forgotten(slot);
        self.table.drop_body(slot);
        if self.table.get(slot).waiters > 0 {
            self.miss(now, slot);
        } else {
            while self.edges.pop(&mut self.table, slot).is_some() {}
            self.table.remove(slot);
        }
    }

    /// A message leaves the buffer before what it waits for has come. What nothing else needs is
    /// not missing any more.
    pub(super) fn stop_waiting(&mut self, now: Now, slot: u32) {
        self.leave_buffer(slot);
        let waits_for = std::mem::take(&mut self.table.get_mut(slot).waits_for);
        for &(dependency, generation) in &waits_for {
            if self.is_current(dependency, generation) && !self.table.get(dependency).is_met() {
                self.table.get_mut(dependency).waiters -= 1;
                self.drop_unneeded(now, dependency);
            }
        }
        self.table.get_mut(slot).waits_for = waits_for;
    }

    /// Keeps the log at its length. What leaves it still counts as known.
    pub(super) fn limit_log(&mut self) {
        while self.log.len() > self.config.history {
            let Some(slot) = self.log.pop_first() else { return };
            self.cancel_answer(slot);
            self.bury(slot);
        }
    }

    /// A message is no more than an id from now on.
    pub(super) fn bury(&mut self, slot: u32) {
        let record = self.table.get_mut(slot);
        record.state = State::Tombstone;
        let (pins, generation) = (record.pins, record.generation);
        if pins == 0 {
            self.table.drop_body(slot);
        }
        self.note_tombstone(slot);
        self.tombstones.push_back((slot, generation));
        while self.tombstones.len() > 2 * self.config.history {
            let Some((slot, generation)) = self.tombstones.pop_front() else { return };
            if self.is_current(slot, generation) && self.table.get(slot).state == State::Tombstone {
                self.forget(slot);
            }
        }
    }

    /// An id is forgotten. Whatever is not later than a forgotten message cannot be told from it
    /// any more, and is not taken again (D1).
    fn forget(&mut self, slot: u32) {
        let record = self.table.get(slot);
        if record.has(flag::DELIVERED) {
            self.scalars.horizon = self.scalars.horizon.max(record.lamport);
        }
        if record.pins > 0 {
            self.set_flag(slot, flag::FORGOTTEN);
        } else {
            self.note_forgotten(slot);
            self.table.remove(slot);
        }
    }

    /// One who needed the body of a message does not need it any more.
    pub(super) fn unpin(&mut self, slot: u32) {
        let record = self.table.get_mut(slot);
        record.pins -= 1;
        if record.pins > 0 || record.state != State::Tombstone {
            return;
        }
        if record.has(flag::FORGOTTEN) {
            self.note_forgotten(slot);
            self.table.remove(slot);
        } else {
            self.note_tombstone(slot);
            self.table.drop_body(slot);
        }
    }

    /// A message that was given up, or is from before this participant's time, has come after all.
    pub(super) fn revive(&mut self, slot: u32) {
        let record = self.table.get_mut(slot);
        record.flags &= !(flag::LOST | flag::PRE_JOIN);
        // Its place among the remembered ids is void.
        record.generation = record.generation.wrapping_add(1);
        record.answer_at = NEVER;
    }
}

fn waits(record: &super::table::Record, epoch: u32) -> bool {
    record.state == State::Buffered && record.wait_epoch == epoch
}
