//! A message that is too long to be sent as one: its parts are, one after the other, and nothing else
//! that needs an allowance until the last one is (E2).

use bytes::Bytes;
use mainstay_store::Position;

use crate::wire::{Message, encode};

/// Where a write led, and how long the message with it is: two that are the same here are the same
/// write of the same history.
pub(super) type Same = (u32, Position, usize);

pub(super) struct Long {
    shard: u32,
    whole: Bytes,
    at: usize,
    same: Option<Same>,
}

impl Long {
    pub(super) fn new(shard: u32, whole: Bytes, leads_to: Option<Position>) -> Self {
        let same = leads_to.map(|position| (shard, position, whole.len()));
        Self { shard, whole, at: 0, same }
    }

    /// The next part.
    pub(super) fn next(&mut self, epoch: u64, part_bytes: usize) -> Bytes {
        let (shard, whole, at) = (self.shard, self.whole.len() as u64, self.at as u64);
        let end = self.whole.len().min(self.at + part_bytes);
        let bytes = &self.whole[self.at..end];
        let part = encode(epoch, &Message::Part { shard, whole, at, bytes });
        self.at = end;
        part
    }

    pub(super) fn is_over(&self) -> bool {
        self.at == self.whole.len()
    }

    pub(super) fn same(&self) -> Option<Same> {
        self.same
    }

    pub(super) fn whole(&self) -> &Bytes {
        &self.whole
    }

    /// Followers that are sent the same have its bytes once.
    pub(super) fn share(&mut self, with: &Self) {
        self.whole = with.whole.clone();
    }
}
