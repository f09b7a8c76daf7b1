//! Records that are looked through in steps, and what comes for shards meanwhile (O7).

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

use super::{Follower, Link, place::Wrong};
use crate::{
    limits::MESSAGE_BYTES_MAX,
    traits::Sink,
    wire::{Message, decode},
};

/// What a follower is at, and what waits for that.
#[derive(Default)]
pub(super) struct Working {
    /// Which shard looks through its records.
    pub(super) shard: Option<u32>,
    waiting: VecDeque<Bytes>,
    waiting_bytes: u64,
}

impl Working {
    pub(super) fn is_busy(&self) -> bool {
        self.shard.is_some() || !self.waiting.is_empty()
    }

    /// Keeps a message for when the shard that looks through its records has done so.
    pub(super) fn put_off(&mut self, window_bytes: u64, bytes: &[u8]) -> Result<(), Wrong> {
        // More than was allowed is on its way only if the leader does not care.
        let max = window_bytes.saturating_add(2 * MESSAGE_BYTES_MAX as u64);
        self.waiting_bytes += taken_by(bytes);
        if self.waiting_bytes > max {
            return Err(Wrong::Protocol("more messages than were allowed".to_owned()));
        }
        self.waiting.push_back(Bytes::copy_from_slice(bytes));
        Ok(())
    }

    fn next(&mut self) -> Option<Bytes> {
        let bytes = self.waiting.pop_front()?;
        self.waiting_bytes -= taken_by(&bytes);
        Some(bytes)
    }
}

/// What a message that waits takes, about.
fn taken_by(bytes: &[u8]) -> u64 {
    bytes.len() as u64 + 64
}

impl<K: Sink> Follower<K> {
    /// Goes on with what it is at; says whether that is done, and something else may be next.
    pub(super) fn work(&mut self, now: Duration) -> bool {
        if self.link != Link::Open || !self.working.is_busy() {
            return false;
        }
        if now >= self.spoke + self.settings.heartbeat {
            self.send(now, &Message::Alive { tips: &[] });
        }
        if let Err(wrong) = self.work_on(now) {
            self.give_up(now, wrong);
        }
        self.working.shard.is_none()
    }

    fn work_on(&mut self, now: Duration) -> Result<(), Wrong> {
        if let Some(shard) = self.working.shard.take() {
            let Some(place) = self.shards.get_mut(shard as usize) else { return Ok(()) };
            let mut answers = Vec::new();
            let taken = place.work(&self.sink, &mut answers)?;
            self.working.shard = place.is_working().then_some(shard);
            self.note(now, taken, &answers);
            return Ok(());
        }
        let Some(bytes) = self.working.next() else { return Ok(()) };
        let (_, message) = decode(&bytes).map_err(|error| Wrong::Protocol(error.to_string()))?;
        self.of_shards(now, bytes.len(), message)
    }
}
