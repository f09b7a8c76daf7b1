//! What a message depends on: what is met, what waits itself, what is missing.
//!
//! Source: LIP-109, Receive Message ("Dependencies are met if the message IDs in the
//! `causal_history` of the received message appear in the local history"). Beside the history, ids
//! count as met that left it or were given up; a message that is here but waits itself is waited
//! for without being asked for.

use super::{
    Channel,
    agenda::Plan,
    table::{NEVER, NONE, State, flag},
};
use crate::{
    config::Start,
    limits::{UNKNOWN_PER_MESSAGE_MAX, WANTED_MAX},
    repair,
    time::Now,
    wire::{EntryView, MessageView},
};

/// Missing messages that only sync messages cite: the oldest are forgotten first.
const HEARD_OF_MAX: usize = 1024;

/// What one entry of a causal history means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dependency {
    /// Nothing to wait for.
    Met,
    /// It is here and waits itself.
    Waits(u32),
    /// It is missing, and that is known.
    Missing(u32),
    /// It was never heard of.
    New,
    /// It was never heard of, and is from before this participant joined.
    PreJoin,
}

impl Dependency {
    fn is_missing(self) -> bool {
        matches!(self, Self::Missing(_) | Self::New)
    }

    pub(super) fn is_unmet(self) -> bool {
        self.is_missing() || matches!(self, Self::Waits(_))
    }
}

impl Channel {
    /// Looks up all that a message cites, one entry for each entry of its causal history, and notes
    /// which of these are unacknowledged messages of one's own.
    pub(super) fn look_up(&mut self, now: Now, message: &MessageView<'_>, pre_join: bool) {
        let mut found = std::mem::take(&mut self.scratch);
        found.clear();
        self.own_cited.clear();
        self.looked_up.clear();
        self.look_ups += 1;
        // The entries up to here are from before this participant joined, if they are new.
        let mut pre_join_until = 0;
        for (index, entry) in message.causal.iter().enumerate() {
            // Who cites itself would wait for itself.
            if entry.id.is_empty() || entry.id == message.id {
                found.push(Dependency::Met);
                continue;
            }
            let Some(slot) = self.table.find(entry.id) else {
                found.push(Dependency::New);
                continue;
            };
            let record = self.table.get_mut(slot);
            record.cited_by = self.look_ups;
            self.looked_up.push(slot);
            if record.own != NONE || record.failed {
                self.own_cited.push(slot);
            }
            if record.has(flag::PRE_JOIN) {
                pre_join_until = index;
            }
            found.push(match record.state {
                State::Logged | State::Tombstone => Dependency::Met,
                State::Buffered => Dependency::Waits(slot),
                State::Unknown => Dependency::Missing(slot),
            });
        }
        if self.is_joining(now) || pre_join {
            pre_join_until = found.len();
        }
        for entry in &mut found[..pre_join_until] {
            if *entry == Dependency::New {
                *entry = Dependency::PreJoin;
            }
        }
        // What is cited last was sent last: it has the others among its own dependencies.
        let missing = found.iter().filter(|entry| entry.is_missing()).count();
        let too_many = missing.saturating_sub(UNKNOWN_PER_MESSAGE_MAX);
        for entry in found.iter_mut().filter(|entry| entry.is_missing()).take(too_many) {
            *entry = Dependency::Met;
        }
        self.scratch = found;
    }

    fn is_joining(&self, now: Now) -> bool {
        self.config.start == Start::Joining
            && (!self.scalars.joined
                || (self.joining_until != NEVER && now.mono_ms < self.joining_until))
    }

    /// The first message was accepted.
    pub(super) fn joined(&mut self, now: Now) {
        if !self.scalars.joined {
            self.scalars.joined = true;
            self.note_scalars();
            if self.config.start == Start::Joining {
                self.joining_until = now.mono_ms + self.config.t_min_ms;
            }
        }
    }

    /// How many of the entries that were looked up are new.
    pub(super) fn new_dependencies(&self) -> usize {
        self.scratch.iter().filter(|entry| **entry == Dependency::New).count()
    }

    /// Makes `waiter` wait for what is unmet of its dependencies, which were looked up, and has the
    /// missing ones asked for. Without a waiter it is a sync message that cites them: they are
    /// asked for all the same.
    pub(super) fn depend(&mut self, now: Now, message: &MessageView<'_>, waiter: Option<u32>) {
        if self.scratch.iter().all(|dependency| *dependency == Dependency::Met) {
            return;
        }
        let found = std::mem::take(&mut self.scratch);
        for (entry, dependency) in message.causal.iter().zip(&found) {
            let slot = match *dependency {
                Dependency::Met => continue,
                Dependency::PreJoin => {
                    self.remember_pre_join(&entry);
                    continue;
                }
                Dependency::Waits(slot) => slot,
                Dependency::Missing(slot) => {
                    self.learn(slot, &entry);
                    slot
                }
                // It may be cited twice.
                Dependency::New => match self.table.find(entry.id) {
                    Some(slot) => slot,
                    None => self.insert_missing(now, &entry),
                },
            };
            match waiter {
                Some(waiter) => {
                    self.edges.add(&mut self.table, slot, waiter);
                    let generation = self.table.get(slot).generation;
                    let waiter = self.table.get_mut(waiter);
                    waiter.missing += 1;
                    waiter.waits_for.push((slot, generation));
                }
                None => self.hear_of(slot),
            }
        }
        self.scratch = found;
    }

    /// Takes over what an entry says of a missing message, if nothing was said before, or if what
    /// was said was of no use: it may have been a lie.
    fn learn(&mut self, slot: u32, entry: &EntryView<'_>) {
        let record = self.table.get_mut(slot);
        let in_vain = record.asked > 0 || record.fetches > 1;
        if (record.hint().is_empty() || in_vain) && !entry.hint.is_empty() {
            record.set_hint(entry.hint);
        }
        if (record.sender().is_empty() || in_vain) && !entry.sender.is_empty() {
            record.set_sender(entry.sender);
        }
    }

    fn insert_missing(&mut self, now: Now, entry: &EntryView<'_>) -> u32 {
        let slot = self.table.insert(entry);
        self.miss(now, slot);
        slot
    }

    /// What the message that was looked up depends on is cited by it from now on: it is in the log,
    /// and will be cited itself.
    pub(super) fn cite_looked_up(&mut self) {
        for &slot in &self.looked_up {
            self.table.get_mut(slot).flags |= flag::CITED;
        }
    }

    /// The same for one that waited, or was loaded.
    pub(super) fn cite_by(&mut self, slot: u32) {
        let body = std::mem::take(&mut self.table.get_mut(slot).body);
        // A body that is kept was read before, and is a whole message.
        if let Ok(message) = MessageView::parse(self.config.profile, &body) {
            for entry in message.causal.iter().filter(|entry| entry.id != message.id) {
                if let Some(cited) = self.table.find(entry.id) {
                    self.cited(cited);
                }
            }
        }
        self.table.get_mut(slot).body = body;
    }

    /// A message is missing from now on.
    pub(super) fn miss(&mut self, now: Now, slot: u32) {
        self.unknown += 1;
        let record = self.table.get_mut(slot);
        record.state = State::Unknown;
        record.tries = 0;
        record.asked = 0;
        record.fetches = 0;
        let record = self.table.get(slot);
        self.outputs.missing(record.id(), record.hint(), record.sender(), false);
        if let Some(after) = self.config.lost_after_ms {
            let at = now.mono_ms + after;
            self.table.get_mut(slot).lost_at = at;
            self.plan(Plan::Lose, slot, at);
        }
        if self.config.fetch {
            // At once, but as a plan: what released it may bring it along.
            self.table.get_mut(slot).fetch_at = now.mono_ms;
            self.plan(Plan::Fetch, slot, now.mono_ms);
        }
        self.arm(now, slot);
    }

    /// Plans when to ask for a missing message (LIP-109, SDS-R receive message: "SHOULD add any
    /// unmet causal dependencies to its outgoing repair request buffer").
    pub(super) fn arm(&mut self, now: Now, slot: u32) {
        if !self.config.repair || self.own_id.is_empty() {
            return;
        }
        if self.wanted >= WANTED_MAX {
            self.queue_unarmed(slot);
            return;
        }
        self.wanted += 1;
        self.set_flag(slot, flag::WANTED);
        let Self { config, own_id, table, .. } = self;
        let delay = repair::request_delay_ms(
            config.profile,
            own_id,
            table.get(slot).id(),
            config.t_min_ms,
            config.t_max_ms,
        );
        let at = now.mono_ms + delay;
        self.table.get_mut(slot).request_at = at;
        self.plan(Plan::Request, slot, at);
    }

    /// A message is not missing any more: nothing of what was planned to get it happens
    /// (LIP-109, SDS-R receive message: "MUST remove entries matching the received message ID from
    /// its outgoing repair request buffer").
    pub(super) fn found(&mut self, now: Now, slot: u32) {
        self.unknown -= 1;
        let record = self.table.get_mut(slot);
        let was_wanted = record.has(flag::WANTED);
        record.flags &= !(flag::WANTED | flag::DUE | flag::HEARD_OF);
        record.request_at = NEVER;
        record.fetch_at = NEVER;
        record.lost_at = NEVER;
        if was_wanted {
            self.wanted -= 1;
            if let Some(next) = self.next_unarmed() {
                self.arm(now, next);
            }
        }
    }

    /// A missing message waits until there is room among those that are asked for.
    pub(super) fn queue_unarmed(&mut self, slot: u32) {
        // Those that were found meanwhile are dropped when they are most.
        if self.unarmed.len() > 2 * self.unknown + 16 {
            let mut unarmed = std::mem::take(&mut self.unarmed);
            unarmed.retain(|&(slot, generation)| self.is_unarmed(slot, generation));
            self.unarmed = unarmed;
        }
        let generation = self.table.get(slot).generation;
        self.unarmed.push_back((slot, generation));
    }

    /// The message that has waited longest for being asked for.
    pub(super) fn next_unarmed(&mut self) -> Option<u32> {
        while let Some((slot, generation)) = self.unarmed.pop_front() {
            if self.is_unarmed(slot, generation) {
                return Some(slot);
            }
        }
        None
    }

    fn is_unarmed(&self, slot: u32, generation: u32) -> bool {
        let record = self.table.get(slot);
        record.generation == generation
            && record.state == State::Unknown
            && !record.has(flag::WANTED)
    }

    /// A sync message cites a missing message that maybe nothing waits for.
    fn hear_of(&mut self, slot: u32) {
        let record = self.table.get(slot);
        if record.state != State::Unknown || record.has(flag::HEARD_OF) {
            return;
        }
        let generation = record.generation;
        self.set_flag(slot, flag::HEARD_OF);
        self.heard_of.push_back((slot, generation));
    }

    /// Keeps the list of what was only heard of within its limit.
    pub(super) fn limit_heard_of(&mut self, now: Now) {
        while self.heard_of.len() > HEARD_OF_MAX {
            let Some((slot, generation)) = self.heard_of.pop_front() else { return };
            if !self.is_current(slot, generation) || !self.table.get(slot).has(flag::HEARD_OF) {
                continue;
            }
            self.table.get_mut(slot).flags &= !flag::HEARD_OF;
            self.drop_unneeded(now, slot);
        }
    }

    /// Forgets a missing message if nothing needs it any more.
    pub(super) fn drop_unneeded(&mut self, now: Now, slot: u32) {
        let record = self.table.get(slot);
        let needed = record.waiters > 0 || record.has(flag::HEARD_OF);
        if record.state != State::Unknown || needed {
            return;
        }
        self.found(now, slot);
        while self.edges.pop(&mut self.table, slot).is_some() {}
        self.table.remove(slot);
    }

    /// A message from before this participant joined counts as known, and is reported once.
    fn remember_pre_join(&mut self, entry: &EntryView<'_>) {
        if self.table.find(entry.id).is_some() {
            return;
        }
        self.outputs.missing(entry.id, entry.hint, entry.sender, true);
        let slot = self.table.insert(entry);
        self.set_flag(slot, flag::PRE_JOIN | flag::CITED);
        self.bury(slot);
    }

    /// What waited for `slot` waits for one less.
    pub(super) fn release(&mut self, slot: u32) {
        while let Some(waiter) = self.edges.pop(&mut self.table, slot) {
            let Some(waiter) = waiter else { continue };
            let record = self.table.get_mut(waiter);
            record.missing -= 1;
            if record.missing == 0 {
                self.ready.push(&self.table, waiter);
            }
        }
    }

    /// The message `id` is known to the application from elsewhere: what waits for it need not, and
    /// it will not be delivered. Whether anything here depended on it.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Now};
    /// let mut channel = Channel::new("room", b"alice", Config::lip())?;
    /// assert!(!channel.mark_known(Now::zero(), b"m1")?, "it is noted all the same");
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) if it is no id, and as for every input.
    pub fn mark_known(&mut self, now: Now, id: &[u8]) -> crate::Result<bool> {
        self.begin()?;
        let max = crate::limits::ID_LEN_MAX as u64;
        crate::error::within("length of the message's id", id.len() as u64, 1, max)?;
        let slot = match self.table.find(id) {
            None => self.table.insert(&EntryView { id, hint: &[], sender: &[] }),
            Some(slot) => match self.table.get(slot).state {
                State::Logged => return Ok(false),
                State::Tombstone => {
                    // Delivered in the end or not: from now on it counts as delivered.
                    self.set_flag(slot, flag::DELIVERED);
                    return Ok(false);
                }
                State::Buffered => {
                    self.stop_waiting(now, slot);
                    self.cancel_answer(slot);
                    slot
                }
                State::Unknown => {
                    self.found(now, slot);
                    slot
                }
            },
        };
        let needed = self.table.get(slot).waiters > 0;
        self.set_flag(slot, flag::DELIVERED);
        self.add_to_filter(slot);
        self.bury(slot);
        self.release(slot);
        self.deliver_ready(now);
        self.prune();
        Ok(needed)
    }

    /// Adds a message's id to the filter, and returns what that says of it.
    pub(super) fn add_to_filter(&mut self, slot: u32) -> (crate::hash::FilterHashes, u8) {
        let id = self.table.get(slot).id();
        let hashes = crate::hash::FilterHashes::of(self.config.profile, id);
        (hashes, self.filter.add(hashes))
    }
}

const _: () = assert!(NONE as usize > crate::limits::UNKNOWN_MAX, "every slot is a real one");
