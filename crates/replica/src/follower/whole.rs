//! Whether the store says that it is whole (O6).

use mainstay_shm::hook;

use super::{Follower, Output, Told, place::Place};
use crate::{traits::Sink, wire::Message};

impl<K: Sink> Follower<K> {
    /// Does a message change records other than as the log of a whole copy goes on (O6)?
    pub(super) fn leads_away(&self, shard: u32, message: &Message<'_>) -> bool {
        let changes = matches!(
            message,
            Message::Records { .. } | Message::Round { .. } | Message::Writes { .. }
        );
        let is_apart = self.settings.as_one && !self.is_caught_up();
        let leads = is_apart || self.shards.get(shard as usize).is_some_and(Place::is_mending);
        changes && leads && !hook::planted("stream-whole-kept")
    }

    /// Notes after a sync that the store is whole, if that is news. Where a shard caught up while the
    /// sync was under way, the next one comes at once.
    pub(super) fn note_whole(&mut self) {
        if self.is_whole || self.is_whole_due || !self.is_caught_up() {
            return;
        }
        match self.sink.set_whole(true) {
            Ok(()) => self.is_whole = true,
            Err(error) => self.outputs.push_back(Output::Told(Told::Failed(error.into()))),
        }
    }

    /// Has each shard all that the leader had?
    pub(super) fn is_caught_up(&self) -> bool {
        if hook::planted("stream-whole-of-some") {
            return self.shards.iter().any(Place::is_caught_up);
        }
        self.shards.iter().all(Place::is_caught_up)
    }
}
