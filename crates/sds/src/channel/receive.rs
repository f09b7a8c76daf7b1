//! Receiving: LIP-109, Receive Message; Deliver Message; Review ACK Status.

use super::{
    Channel,
    own::Verdict,
    table::{NONE, State, flag},
};
use crate::{
    bloom::PeerFilter,
    config::Start,
    error::{Error, Result, shown},
    limits::{LAMPORT_MAX, UNCONFIRMED_MAX},
    output::Received,
    time::Now,
    wire::{Body, EntryView, Kind, MessageView, Profile},
};

/// Ephemeral messages that are known again when they come twice.
const EPHEMERAL_REMEMBERED: usize = 64;

impl Channel {
    /// Takes a message in that somebody sent: any bytes, from anybody.
    ///
    /// # Errors
    /// What is wrong with the message; it has changed nothing then (D4).
    ///
    /// Example: see [`Received`].
    pub fn receive(&mut self, now: Now, bytes: &[u8]) -> Result<Received> {
        let message = MessageView::parse(self.config.profile, bytes)?;
        if message.channel != self.name.as_bytes() {
            let (expected, found) = (self.name.to_string(), shown(message.channel));
            return Err(Error::OtherChannel { expected, found });
        }
        if message.id.is_empty() {
            return Err(Error::Malformed { what: "an empty id", at: 0 });
        }
        self.begin()?;
        let received = match message.kind() {
            Kind::Ephemeral => Ok(self.receive_ephemeral(&message)),
            Kind::Sync => self.receive_sync(now, &message),
            Kind::Content => self.receive_content(now, &message),
        };
        self.prune();
        received
    }

    /// LIP-109, Ephemeral Messages: "delivered immediately without buffering for causal
    /// dependencies or including in the local log" (D3).
    fn receive_ephemeral(&mut self, message: &MessageView<'_>) -> Received {
        if self.is_own(message) {
            return Received::Own;
        }
        // It has no record that would tell that it was here: the network may carry it twice.
        let hash = self.table.hash(message.id);
        if self.ephemeral.contains(&hash) {
            return Received::Duplicate;
        }
        if self.ephemeral.len() == EPHEMERAL_REMEMBERED {
            self.ephemeral.pop_front();
        }
        self.ephemeral.push_back(hash);
        let content = message.content.unwrap_or_default();
        self.outputs.deliver(message.id, message.sender, content, &[], None, 0, 0, false);
        Received::Ephemeral
    }

    /// LIP-109, Periodic Sync Message: "MUST process the causal history and bloom filter of these
    /// sync messages following the same steps as regular messages, but MUST NOT persist the sync
    /// messages themselves" (D3).
    fn receive_sync(&mut self, now: Now, message: &MessageView<'_>) -> Result<Received> {
        if self.is_own(message) {
            return Ok(Received::Own);
        }
        // Its Lamport time moves no clock here. Refusing it would cut off those who missed how the
        // others' clocks got ahead: its history tells them what to ask for.
        self.check_lamport_end(message)?;
        self.look_up(now, message, false);
        self.review(now, message);
        self.heed_requests(now, message);
        let unmet = self.scratch.iter().filter(|dependency| dependency.is_unmet()).count();
        self.depend(now, message, None);
        self.limit_heard_of(now);
        self.joined(now);
        self.heard_sync(now, message, unmet);
        self.remember_sync(message.id);
        self.deliver_ready(now);
        Ok(Received::Sync)
    }

    /// The nim peers take a sync message for one of content, keep it and cite it. So that nobody
    /// waits for it then, its id counts as known.
    pub(super) fn remember_sync(&mut self, id: &[u8]) {
        if self.config.profile != Profile::Nim || self.config.only_own_peers {
            return;
        }
        let slot = match self.table.find(id) {
            None => self.table.insert(&EntryView { id, hint: &[], sender: &[] }),
            Some(slot) if self.table.get(slot).state == State::Unknown => {
                self.found_without(slot);
                slot
            }
            Some(_) => return,
        };
        self.bury(slot);
        self.release(slot);
    }

    fn found_without(&mut self, slot: u32) {
        // Nothing is planned at a time here, so the clock does not matter.
        self.found(Now::zero(), slot);
    }

    fn receive_content(&mut self, now: Now, message: &MessageView<'_>) -> Result<Received> {
        let known = self.table.find(message.id);
        let is_own = self.is_own(message);
        if let Some(slot) = known
            && is_own
            && self.table.get(slot).state != State::Unknown
        {
            // LIP-109, Receive Message: "SHOULD ignore the message if it has a sender_id matching
            // its own". If it is not known here, the state that had it was lost, and what others
            // still have of it is taken back.
            self.heard_copy(slot);
            return Ok(Received::Own);
        }
        if let Err(refused) = self.check_lamport(now, message) {
            self.hear_out(now, message, known);
            return Err(refused);
        }
        if self.unconfirmed.len() >= UNCONFIRMED_MAX {
            return Err(Error::Unconfirmed { count: self.unconfirmed.len() });
        }
        // A message that comes again does not count: who sends it again waits to hear that it has
        // arrived, and must not silence with it those whose sync messages would say so.
        if known.is_none_or(|slot| self.table.get(slot).state == State::Unknown) {
            self.heard(now);
        }
        let pre_join = known.is_some_and(|slot| self.table.get(slot).has(flag::PRE_JOIN));
        self.look_up(now, message, pre_join);
        if !is_own {
            // A duplicate brings news too: the filter may be of today.
            self.review(now, message);
            self.heed_requests(now, message);
        }
        if let Some(slot) = known {
            let record = self.table.get(slot);
            let given_up = record.has(flag::LOST | flag::PRE_JOIN) && !record.has(flag::DELIVERED);
            match record.state {
                State::Logged | State::Buffered => {
                    self.heard_copy(slot);
                    // Copies for those who asked carry no filter, those of the sender do.
                    if message.filter.is_some_and(|filter| !filter.is_empty()) {
                        self.heard_resend(now, slot);
                    }
                    return Ok(Received::Duplicate);
                }
                State::Tombstone if !given_up => return Ok(Received::Duplicate),
                State::Tombstone => self.revive(slot),
                State::Unknown => {}
            }
        }
        let lamport = message.lamport.unwrap_or_default();
        if lamport <= self.scalars.horizon {
            return Ok(self.too_old(now, known));
        }
        Ok(self.accept(now, message, known, pre_join))
    }

    /// A message that was asked for and is not believed because of its time. What it depends on may
    /// be believed, and bring this participant's own time closer: it is asked for, as if a sync
    /// message had cited it.
    fn hear_out(&mut self, now: Now, message: &MessageView<'_>, known: Option<u32>) {
        let is_wanted = known.is_some_and(|slot| self.table.get(slot).state == State::Unknown);
        let has_end = message.lamport.is_some_and(|lamport| lamport >= LAMPORT_MAX);
        if is_wanted && !has_end {
            self.look_up(now, message, false);
            self.depend(now, message, None);
            self.limit_heard_of(now);
        }
    }

    /// A message that may have been delivered and forgotten (D1). What waits for it need not.
    fn too_old(&mut self, now: Now, known: Option<u32>) -> Received {
        if let Some(slot) = known {
            if self.table.get(slot).state == State::Unknown {
                self.lose(now, slot);
            } else {
                self.set_flag(slot, flag::LOST);
                self.bury(slot);
            }
        }
        Received::TooOld
    }

    /// A message of content that was not here before. What it cites was looked up.
    pub(super) fn accept(
        &mut self,
        now: Now,
        message: &MessageView<'_>,
        known: Option<u32>,
        pre_join: bool,
    ) -> Received {
        let mut body = self.table.fresh_body();
        let parts = Body::of(&mut body, message);
        let is_met = !self.scratch.iter().any(|dependency| dependency.is_unmet());
        if !is_met {
            let sender = self.table.hash(message.sender);
            self.make_room(now, sender, body.len(), self.new_dependencies());
            // Who had to go may be one that this message waits for.
            self.look_up(now, message, pre_join);
        }
        // What was unmet still is: nothing is delivered to make room.
        // Making room may have dropped the record, if only those who had to go needed it.
        let known = known.and_then(|_| self.table.find(message.id));
        let slot = match known {
            Some(slot) => {
                if self.table.get(slot).state == State::Unknown {
                    self.found(now, slot);
                }
                self.table.get_mut(slot).set_sender(message.sender);
                slot
            }
            None => {
                let entry = EntryView { id: message.id, hint: &[], sender: message.sender };
                self.table.insert(&entry)
            }
        };
        let record = self.table.get_mut(slot);
        record.lamport = message.lamport.unwrap_or_default();
        record.body = body;
        record.parts = parts;
        // LIP-109, Receive Message: "if the message has a populated content field, the participant
        // MUST include the received message ID in its local bloom filter".
        self.add_to_filter(slot);
        self.joined(now);
        self.news(now);
        if !is_met {
            self.enter_buffer(slot);
            self.depend(now, message, Some(slot));
            self.note_put(slot);
            return Received::Buffered { missing: self.table.get(slot).missing as usize };
        }
        self.depend(now, message, None);
        self.cite_looked_up();
        self.ready.push(&self.table, slot);
        let delivered = self.deliver_ready(now);
        Received::Delivered { released: delivered.saturating_sub(1) }
    }

    /// Delivers what is ready, and what becomes ready by that, each after all it depends on, and
    /// else in the order of the log (D1). How many there were.
    pub(super) fn deliver_ready(&mut self, now: Now) -> usize {
        let mut count = 0;
        while let Some(slot) = self.ready.pop(&self.table) {
            if self.table.get(slot).state == State::Buffered {
                self.leave_buffer(slot);
                self.cite_by(slot);
            }
            self.deliver(slot);
            self.release(slot);
            count += 1;
        }
        if count > 0 {
            self.limit_log();
            self.news(now);
        }
        count
    }

    /// LIP-109, Deliver Message: Lamport time, place in the log.
    fn deliver(&mut self, slot: u32) {
        self.scalars.delivered += 1;
        let record = self.table.get_mut(slot);
        record.state = State::Logged;
        record.flags |= flag::DELIVERED;
        record.number = self.scalars.delivered;
        record.waits_for.clear();
        if self.config.confirm {
            record.pins += 1;
            self.unconfirmed.push_back((self.scalars.delivered, slot));
        }
        // "If the received message's Lamport timestamp is greater than the participant's local
        // Lamport timestamp, the participant MUST update its local Lamport timestamp".
        self.scalars.lamport = match self.config.profile {
            Profile::Lip => self.scalars.lamport.max(record.lamport),
            // One more, as all nim peers do; but not, as they do, before it is delivered: what
            // nobody can deliver would move the clocks of those who hear it, and the others would
            // not believe them any more.
            Profile::Nim => self.scalars.lamport.max(record.lamport) + 1,
        };
        let later = self.log.insert(&self.table, slot);
        self.hand_out(slot, later, false);
        self.note_put(slot);
        self.note_uncited(slot);
    }

    /// Gives a message to the application. `later` messages come after it.
    pub(super) fn hand_out(&mut self, slot: u32, later: usize, again: bool) {
        let next = later.checked_sub(1).and_then(|later| self.log.before_last(later));
        let Self { outputs, table, .. } = self;
        let record = table.get(slot);
        outputs.deliver(
            record.id(),
            record.sender(),
            record.content(),
            next.map_or(&[], |next| table.get(next).id()),
            Some(record.lamport),
            record.number,
            later,
            again,
        );
    }

    fn is_own(&self, message: &MessageView<'_>) -> bool {
        !self.own_id.is_empty() && message.sender == &*self.own_id
    }

    /// How far ahead a Lamport time may be: of the clock, or of the channel, which may have run
    /// ahead of the clock by itself.
    fn check_lamport(&self, now: Now, message: &MessageView<'_>) -> Result<()> {
        let Some(lamport) = message.lamport else { return Ok(()) };
        let unit = self.config.profile.unit_ms();
        let ahead = if self.scalars.joined || self.config.start == Start::Beginning {
            self.config.lamport_ahead_ms
        } else {
            // One who joins has nothing to compare with, and would refuse such a channel for ever.
            // One who wants all of it finds the way by its older messages.
            self.config.lamport_join_ahead_ms.max(self.config.lamport_ahead_ms)
        };
        let by_clock = now.wall_ms.saturating_add(ahead) / unit;
        let by_channel = self.scalars.lamport + self.config.lamport_gap;
        let limit = by_clock.max(by_channel).min(LAMPORT_MAX - 1);
        if lamport <= limit {
            return Ok(());
        }
        Err(Error::LamportAhead { lamport, limit })
    }

    /// A Lamport time so late that nothing could come after it.
    fn check_lamport_end(&self, message: &MessageView<'_>) -> Result<()> {
        match message.lamport {
            Some(lamport) if lamport >= LAMPORT_MAX => {
                Err(Error::LamportAhead { lamport, limit: LAMPORT_MAX - 1 })
            }
            _ => Ok(()),
        }
    }

    /// LIP-109, Review ACK Status.
    fn review(&mut self, now: Now, message: &MessageView<'_>) {
        // "MUST mark all messages in the received causal_history as acknowledged".
        let cited = std::mem::take(&mut self.own_cited);
        for &slot in &cited {
            // It may be cited twice.
            let record = self.table.get_mut(slot);
            if std::mem::take(&mut record.failed) || record.own != NONE {
                self.acknowledge(slot);
            }
        }
        self.own_cited = cited;
        let Some(bytes) = message.filter.filter(|_| self.outgoing.len() > 0) else { return };
        let filter = PeerFilter::parse(self.config.profile, bytes, self.filter_params);
        let Some(filter) = filter else { return };
        let sender = self.table.hash(message.sender);
        let senders_min = if self.config.participants <= 2 { 1 } else { 2 };
        let mut verdicts = std::mem::take(&mut self.verdicts);
        self.outgoing.review(&filter, sender, self.filter.adds(), senders_min, |slot, verdict| {
            verdicts.push((slot, verdict));
        });
        for (slot, verdict) in verdicts.drain(..) {
            match verdict {
                Verdict::Acknowledged => self.acknowledge(slot),
                Verdict::Possibly => self.possibly_acknowledged(now, slot),
            }
        }
        self.verdicts = verdicts;
    }

    fn acknowledge(&mut self, slot: u32) {
        self.outputs.acknowledged(self.table.get(slot).id());
        self.settle(slot);
    }

    /// LIP-109, Periodic Outgoing Buffer Sweep: "distinct resend periods for unacknowledged and
    /// possibly acknowledged messages".
    fn possibly_acknowledged(&mut self, now: Now, slot: u32) {
        self.outputs.possibly(self.table.get(slot).id());
        let at = now.mono_ms + self.config.resend_possibly_ms;
        let own = self.table.get(slot).own;
        self.outgoing.get_mut(own).resend_at = at;
        self.plan(super::agenda::Plan::Resend, slot, at);
    }
}
