//! Sending: LIP-109, Send Message; Ephemeral Messages; SDS-R send message.

use super::{
    Channel,
    agenda::Plan,
    order::compare,
    sync::UNCITED_MAX,
    table::{NONE, State, flag},
};
use crate::{
    config::FilterPolicy,
    error::{Error, Result, shown, within},
    limits::{CONTENT_LEN_MAX, ID_LEN_MAX, LAMPORT_MAX, MESSAGE_LEN_MAX},
    output::Reason,
    time::Now,
    wire::{Body, EntryView, FIELDS_LEN, Message, Profile, entry_len, put_entry, write_head},
};

/// Messages that may be cited by nobody, cited by one of content in addition to the log's tail.
pub(super) const UNCITED_ON_CONTENT_MAX: usize = 4;

/// A sparse filter goes with every so many messages, and after so much time.
const FILTER_EVERY: u32 = 16;
const FILTER_EVERY_MS: u64 = 10_000;

/// What there is room for of a list of entries: those from here on, with their hints from there on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fits {
    pub(super) from: usize,
    pub(super) hints_from: usize,
    /// The bytes that they take.
    pub(super) len: usize,
}

/// A message that was sent.
///
/// ```
/// use mainstay_sds::{Channel, Config, Now};
/// let mut channel = Channel::new("room", b"alice", Config::lip())?;
/// let now = Now { mono_ms: 0, wall_ms: 1_760_000_000_000 };
/// assert_eq!(channel.send(now, b"m1", b"hello")?.lamport, 1_760_000_000_000);
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Its Lamport time, in units of the profile.
    pub lamport: u64,
}

impl Channel {
    /// Sends `content` to everybody in the channel, as the message `id`, which no other message
    /// may have.
    ///
    /// # Errors
    /// [`Error::DuplicateId`], [`Error::OutgoingFull`], [`Error::Limit`], [`Error::Undrained`].
    ///
    /// Example: see [`Channel`].
    pub fn send(&mut self, now: Now, id: &[u8], content: &[u8]) -> Result<Sent> {
        within("length of the message's id", id.len() as u64, 1, ID_LEN_MAX as u64)?;
        let max = CONTENT_LEN_MAX as u64;
        within("length of the content", content.len() as u64, 1, max)?;
        let (count, limit) = (self.outgoing.len(), self.config.outgoing_max);
        if count >= limit {
            return Err(Error::OutgoingFull { count, limit });
        }
        if self.table.find(id).is_some() {
            return Err(Error::DuplicateId { id: shown(id) });
        }
        // Nothing is longer than the default allows.
        let max = self.config.message_len_max;
        if max < MESSAGE_LEN_MAX {
            let len = self.wire_len(id, content);
            within("length of the message", len as u64, 0, max as u64)?;
        }
        let Some(lamport) = self.next_lamport(now) else {
            let (min, max) = (0, LAMPORT_MAX - 1);
            return Err(Error::Limit { what: "Lamport time", value: LAMPORT_MAX, min, max });
        };
        self.begin()?;
        // What is due by now may go along.
        self.run_agenda(now);

        let slot = self.write(id, content, lamport);
        self.scalars.lamport = lamport;
        // The filter of a message does not have the message itself.
        self.broadcast(now, slot, Reason::Content, true);
        let geometry = (u64::from(self.filter.params().bits), self.filter.params().hashes);
        let adds = self.filter.adds();
        let (hashes, fresh) = self.add_to_filter(slot);
        let resend_at = now.mono_ms + self.config.resend_ms;
        let own = self.outgoing.add(slot, hashes, fresh, geometry, adds, resend_at);
        let record = self.table.get_mut(slot);
        record.own = own;
        record.pins = 1;
        self.plan(Plan::Resend, slot, resend_at);

        self.log.insert(&self.table, slot);
        self.note_put(slot);
        self.limit_log();
        self.note_uncited(slot);
        self.news(now);
        self.heard(now);
        self.prune();
        Ok(Sent { lamport })
    }

    /// How long a message would be, at most, if this was sent now, or is sent again later. Requests
    /// and hints do not count: they take the room that is left of [`Config::message_len_max`].
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config};
    /// let mut config = Config::lip();
    /// config.message_len_max = 20_000;
    /// let mut channel = Channel::new("room", b"alice", config)?;
    /// let now = mainstay_sds::Now::zero();
    /// assert!(channel.wire_len(b"m1", b"hello") > 18_752, "a filter is most of it");
    /// assert!(channel.send(now, b"m1", b"hello").is_err(), "which grows when it has rolled");
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    ///
    /// [`Config::message_len_max`]: crate::Config::message_len_max
    #[must_use]
    pub fn wire_len(&self, id: &[u8], content: &[u8]) -> usize {
        let fields = self.config.profile.fields();
        // Hints take the room that is left.
        let entry = |slot: u32| entry_len(fields.causal, &self.table.get(slot).entry().bare());
        let tail: usize = self.log.tail(self.config.causal).map(entry).sum();
        let mut extra: Vec<usize> = self.uncited.iter().map(|&(slot, _)| entry(slot)).collect();
        extra.sort_unstable_by(|a, b| b.cmp(a));
        let extra: usize = extra.iter().take(UNCITED_ON_CONTENT_MAX).sum();
        let names = self.own_id.len() + id.len() + self.name.len() + FIELDS_LEN;
        names + tail + extra + content.len() + self.filter.field_len_max(fields.filter)
    }

    /// Sends `content` to whoever listens right now: it is not kept, not repeated and has no place
    /// in the order (LIP-109, Ephemeral Messages).
    ///
    /// # Errors
    /// [`Error::NotInProfile`] in the nim profile; [`Error::Limit`], [`Error::Undrained`].
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Now, Output, Received};
    /// let mut alice = Channel::new("room", b"alice", Config::lip())?;
    /// let mut bob = Channel::new("room", b"bob", Config::lip())?;
    /// alice.send_ephemeral(b"t1", b"alice is typing")?;
    /// let Some(Output::Broadcast(broadcast)) = alice.poll_output() else { panic!() };
    /// assert_eq!(bob.receive(Now::zero(), broadcast.bytes)?, Received::Ephemeral);
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn send_ephemeral(&mut self, id: &[u8], content: &[u8]) -> Result<()> {
        if self.config.profile == Profile::Nim {
            let profile = self.config.profile;
            return Err(Error::NotInProfile { profile, what: "ephemeral messages" });
        }
        within("length of the message's id", id.len() as u64, 1, ID_LEN_MAX as u64)?;
        let max = CONTENT_LEN_MAX as u64;
        within("length of the content", content.len() as u64, 1, max)?;
        self.begin()?;
        let message = Message {
            id: id.to_vec(),
            sender: self.own_id.to_vec(),
            channel: self.name.as_bytes().to_vec(),
            content: Some(content.to_vec()),
            ..Message::default()
        };
        let bytes = message.encode(Profile::Lip);
        self.outputs.broadcast(Reason::Ephemeral, id, |out| out.extend_from_slice(&bytes));
        Ok(())
    }

    /// The Lamport time of the next message; `None` at the end of all times.
    pub(super) fn next_lamport(&self, now: Now) -> Option<u64> {
        let wall = now.wall_ms / self.config.profile.unit_ms();
        let lamport = match self.config.profile {
            // LIP-109, Send Message: "max(timeNowInMs, current_lamport_timestamp + 1)".
            Profile::Lip => wall.max(self.scalars.lamport + 1),
            // In seconds, and one more, as all nim peers do.
            Profile::Nim => wall.max(self.scalars.lamport) + 1,
        };
        (lamport < LAMPORT_MAX).then_some(lamport)
    }

    /// Makes the record of an own message, with its body.
    fn write(&mut self, id: &[u8], content: &[u8], lamport: u64) -> u32 {
        let profile = self.config.profile;
        let number = profile.fields().causal;
        let mut body = self.table.fresh_body();
        write_head(&mut body, profile, &self.own_id, id, self.name.as_bytes(), lamport);
        // LIP-109, Send Message: "the preceding few message IDs in the local history", in order.
        let tail = self.config.causal;
        for slot in self.log.tail(tail) {
            self.table.get_mut(slot).flags |= flag::CITED;
        }
        let mut extra = [0; UNCITED_MAX];
        let count = self.uncited_before(tail, &mut extra[..UNCITED_ON_CONTENT_MAX], true);
        let cited = || extra[..count].iter().copied().chain(self.log.tail(tail));
        let max = self.config.message_len_max;
        let fits = if max < MESSAGE_LEN_MAX {
            let filter = self.filter.field_len_max(profile.fields().filter);
            let names = self.own_id.len() + id.len() + self.name.len() + FIELDS_LEN;
            let room = max.saturating_sub(names + content.len() + filter);
            self.fit(&cited().collect::<Vec<u32>>(), room)
        } else {
            Fits::default()
        };
        for (index, slot) in cited().enumerate() {
            let entry = self.table.get(slot).entry();
            put_entry(
                &mut body,
                number,
                &if index < fits.hints_from { entry.bare() } else { entry },
            );
        }
        let name = self.name.as_bytes();
        let parts = Body::finish(&mut body, profile, &self.own_id, name, content);
        let slot = self.table.insert(&EntryView { id, hint: &[], sender: &self.own_id });
        let record = self.table.get_mut(slot);
        record.state = State::Logged;
        record.flags = flag::DELIVERED;
        record.lamport = lamport;
        record.body = body;
        record.parts = parts;
        slot
    }

    /// What of these messages, oldest first, can be cited in `room` bytes: the hints of the oldest
    /// are left out first, then the oldest.
    pub(super) fn fit(&self, slots: &[u32], room: usize) -> Fits {
        let number = self.config.profile.fields().causal;
        let mut left = room;
        let mut first_that_fits = |len: &dyn Fn(u32) -> usize| {
            let mut fits = slots.len();
            while fits > 0 && len(slots[fits - 1]) <= left {
                fits -= 1;
                left -= len(slots[fits]);
            }
            fits
        };
        let bare = |slot: u32| entry_len(number, &self.table.get(slot).entry().bare());
        let hint = |slot: u32| entry_len(number, &self.table.get(slot).entry()) - bare(slot);
        let from = first_that_fits(&bare);
        let hints_from = first_that_fits(&hint).max(from);
        Fits { from, hints_from, len: room - left }
    }

    /// Sends an own message, with what is to be said at the moment: the filter, and requests.
    pub(super) fn broadcast(&mut self, now: Now, slot: u32, reason: Reason, may_skip: bool) {
        let with_filter = !may_skip || self.filter_is_due(now);
        let profile = self.config.profile;
        let fields = profile.fields();
        let taken = self.table.get(slot).body.len() + self.filter.field_len(fields.filter);
        let room = self.config.message_len_max.saturating_sub(taken);
        let requests = self.take_requests(now, self.config.requests, room);
        let Self { outputs, table, filter, .. } = self;
        let record = table.get(slot);
        outputs.broadcast(reason, record.id(), |out| {
            record.parts.assemble(
                out,
                profile,
                &record.body,
                |out| {
                    if with_filter {
                        filter.write_field(out, fields.filter);
                    } else if profile == Profile::Nim {
                        crate::wire::proto::put_bytes_field(out, fields.filter, &[]);
                    }
                },
                |out| requests.write(out, table, fields.requests),
            );
        });
    }

    fn filter_is_due(&mut self, now: Now) -> bool {
        let due = match self.config.filter_policy {
            FilterPolicy::Always => true,
            FilterPolicy::Sparse => {
                self.filter_skipped >= FILTER_EVERY - 1
                    || now.mono_ms >= self.filter_sent_at + FILTER_EVERY_MS
            }
        };
        if due {
            self.filter_sent_at = now.mono_ms;
            self.filter_skipped = 0;
        } else {
            self.filter_skipped += 1;
        }
        due
    }

    /// A message that is in the log now may never be cited: it came late and stands before the tail
    /// that its holders cite, or too many come at once. It is watched until it is.
    pub(super) fn note_uncited(&mut self, slot: u32) {
        while let Some(&(first, generation)) = self.uncited.front()
            && !self.is_uncited(first, generation)
        {
            self.uncited.pop_front();
        }
        let record = self.table.get(slot);
        if record.state == State::Logged && !record.has(flag::CITED) {
            self.uncited.push_back((slot, record.generation));
        }
        // One that is never cited and in nobody's way stays in front; the others pass it here.
        if self.uncited.len() > self.config.history {
            self.retain_uncited();
        }
    }

    /// Its sender sends a message again, and so has not heard that it arrived: it is cited again,
    /// however far back it stands by now, and if nobody says anything, by a sync message.
    pub(super) fn heard_resend(&mut self, now: Now, slot: u32) {
        self.needed += 1;
        let record = self.table.get(slot);
        if record.state != State::Logged || record.own != NONE {
            return;
        }
        if record.has(flag::CITED) {
            let generation = record.generation;
            self.table.get_mut(slot).flags &= !flag::CITED;
            // It may stand there still from the time before it was cited.
            if !self.uncited.contains(&(slot, generation)) {
                self.note_uncited(slot);
            }
        }
        self.news(now);
    }

    /// Drops those that were cited meanwhile.
    pub(super) fn retain_uncited(&mut self) {
        let mut uncited = std::mem::take(&mut self.uncited);
        uncited.retain(|&(slot, generation)| self.is_uncited(slot, generation));
        self.uncited = uncited;
    }

    pub(super) fn is_uncited(&self, slot: u32, generation: u32) -> bool {
        let record = self.table.get(slot);
        record.generation == generation && record.state == State::Logged && !record.has(flag::CITED)
    }

    /// The oldest messages that are cited by nobody and stand before the last `tail` of the log, in
    /// the log's order. With `cite` they count as cited from now on, else it is the others' turn the
    /// next time.
    pub(super) fn uncited_before(&mut self, tail: usize, extra: &mut [u32], cite: bool) -> usize {
        let first_of_tail = self.log.before_last(tail.saturating_sub(1));
        let Some(first_of_tail) = first_of_tail else { return 0 };
        let first_of_tail = (self.table.get(first_of_tail).lamport, first_of_tail);
        let (mut count, mut looked_at) = (0, 0);
        // A few more are looked at than fit, as some may be in the tail.
        for index in 0..self.uncited.len().min(2 * extra.len() + tail) {
            if count == extra.len() {
                break;
            }
            looked_at = index + 1;
            let (slot, generation) = self.uncited[index];
            if !self.is_uncited(slot, generation) {
                continue;
            }
            let key = (self.table.get(slot).lamport, slot);
            if compare(&self.table, key, first_of_tail).is_lt() {
                extra[count] = slot;
                count += 1;
            }
        }
        let table = &self.table;
        let key = |slot: u32| (table.get(slot).lamport, slot);
        extra[..count].sort_unstable_by(|&a, &b| compare(table, key(a), key(b)));
        if cite {
            for &slot in &extra[..count] {
                self.cited(slot);
            }
        } else {
            self.uncited.rotate_left(looked_at);
        }
        count
    }

    /// An own message needs no acknowledgement any more.
    pub(super) fn settle(&mut self, slot: u32) {
        let own = self.table.get(slot).own;
        if own == NONE {
            return;
        }
        if let Some(moved) = self.outgoing.remove(own) {
            self.table.get_mut(moved).own = own;
        }
        self.table.get_mut(slot).own = NONE;
        self.note_settled(slot);
        self.unpin(slot);
    }
}
