//! Making a channel of what was kept, and putting it to sleep.

use super::{
    Channel,
    agenda::Plan,
    table::{State, flag},
};
use crate::{
    bloom::Params,
    config::{Config, Keep},
    error::{Error, Result},
    hash::FilterHashes,
    limits::{LAMPORT_MAX, UNCONFIRMED_MAX},
    persist::codec::{EVICTED, Item, Loaded, Scalars, Tag, UNACKNOWLEDGED},
    planted,
    time::Now,
    wire::{Body, EntryView, MessageView},
};

impl Channel {
    /// The channel that these changes are of, as [`Persistence::load`] returns them. Without any it
    /// is new.
    ///
    /// What waited goes on waiting, what was not acknowledged is sent again, and what was delivered
    /// and not confirmed is delivered again ([`Config::confirm`]). The filter is made anew of the
    /// log.
    ///
    /// # Errors
    /// [`Error::Saved`] if the changes are damaged, incomplete or of another profile.
    ///
    /// Example: see [`Persistence`].
    ///
    /// [`Persistence`]: crate::persist::Persistence
    /// [`Persistence::load`]: crate::persist::Persistence::load
    pub fn load(
        name: &str,
        own_id: &[u8],
        config: Config,
        now: Now,
        changes: &[impl AsRef<[u8]>],
    ) -> Result<Self> {
        let mut channel = Self::new(name, own_id, config)?;
        if changes.is_empty() {
            return Ok(channel);
        }
        let saved = |what| Error::Saved { channel: name.to_owned(), what };
        let bytes = changes.iter().map(|change| change.as_ref().len()).sum();
        let loaded = Loaded::read(channel.config.profile, changes.iter().map(AsRef::as_ref))
            .map_err(saved)?;
        channel.changes.resume(loaded.number, bytes);
        channel.restore(now, loaded).map_err(saved)?;
        Ok(channel)
    }

    pub(crate) fn restore(&mut self, now: Now, loaded: Loaded) -> Result<(), &'static str> {
        check_numbers(&loaded)?;
        // All of it is kept already: what comes again waits for nothing.
        self.outputs.after = 0;
        let keep = std::mem::replace(&mut self.config.keep, Keep::Nothing);
        self.scalars = loaded.scalars;
        let mut items: Vec<(Vec<u8>, Item)> = loaded.items.into_iter().collect();
        items.sort_unstable_by_key(|(_, item)| item.since);
        for (id, item) in items.iter().filter(|(_, item)| item.tag != Tag::Buffered) {
            self.restore_item(now, id, item)?;
        }
        self.restore_filter();
        self.restore_cited();
        self.deliver_again();
        // What waited for something that is forgotten by now is delivered here for the first time:
        // not before it is kept that it was, or its number would be another message's one day.
        if keep == Keep::Durable {
            self.outputs.after = self.changes.next();
        }
        let delivered = self.scalars.delivered;
        for (id, item) in items.iter().filter(|(_, item)| item.tag == Tag::Buffered) {
            self.restore_waiting(now, id, item)?;
        }
        self.limit_log();
        self.config.keep = keep;
        if self.scalars.delivered > delivered {
            self.mark_imported();
        }
        if self.log.len() > 0 {
            self.news(now);
        }
        self.prune();
        Ok(())
    }

    /// A message of the log, or one that left it.
    fn restore_item(&mut self, now: Now, id: &[u8], item: &Item) -> Result<(), &'static str> {
        const DAMAGED: &str = "a message in it cannot be read; restore it from elsewhere";
        let unacknowledged = item.flags & UNACKNOWLEDGED != 0;
        let unconfirmed = self.config.confirm && item.number > self.scalars.confirmed;
        let (slot, in_log) = if item.tag == Tag::Logged {
            let message = MessageView::parse(self.config.profile, &item.body)
                .ok()
                .filter(|message| message.id == id && self.table.find(id).is_none())
                .ok_or(DAMAGED)?;
            let entry = EntryView { id, hint: &item.hint, sender: message.sender };
            let slot = self.table.insert(&entry);
            let mut body = self.table.fresh_body();
            let parts = Body::of(&mut body, &message);
            let record = self.table.get_mut(slot);
            record.body = body;
            record.parts = parts;
            (slot, item.flags & EVICTED == 0)
        } else {
            if self.table.find(id).is_some() {
                return Err(DAMAGED);
            }
            (self.table.insert(&EntryView { id, hint: &[], sender: &[] }), false)
        };
        let record = self.table.get_mut(slot);
        record.state = if in_log { State::Logged } else { State::Tombstone };
        record.flags = item.flags & (flag::DELIVERED | flag::LOST | flag::PRE_JOIN);
        record.lamport = item.lamport;
        record.number = item.number;
        if item.tag == Tag::Logged {
            if unconfirmed && item.number > 0 {
                if self.unconfirmed.len() >= UNCONFIRMED_MAX {
                    return Err("more deliveries are unconfirmed than can be");
                }
                record.pins += 1;
                self.unconfirmed.push_back((item.number, slot));
            }
            if unacknowledged && self.outgoing.len() < crate::limits::OUTGOING_MAX {
                self.table.get_mut(slot).pins += 1;
                self.restore_own(now, slot, item.attempts);
            }
        }
        if in_log {
            self.log.insert(&self.table, slot);
        } else {
            self.bury(slot);
        }
        Ok(())
    }

    /// An own message that nobody acknowledged: it is sent again, after a random part of the time.
    fn restore_own(&mut self, now: Now, slot: u32, attempts: u8) {
        let hashes = FilterHashes::of(self.config.profile, self.table.get(slot).id());
        let at = now.mono_ms + self.rng.below(self.config.resend_ms + 1);
        // What our filter knew when it was sent is forgotten: filters of the same size are no
        // evidence any more, and causal histories are.
        let geometry = (u64::from(self.filter.params().bits), self.filter.params().hashes);
        let own = self.outgoing.add(slot, hashes, 0, geometry, 0, at);
        self.outgoing.get_mut(own).attempts = attempts;
        self.table.get_mut(slot).own = own;
        self.plan(Plan::Resend, slot, at);
    }

    /// The filter is not kept (LIP-109, Participant state): it is made anew of the log.
    fn restore_filter(&mut self) {
        let slots: Vec<u32> = self.log.slots().collect();
        for slot in slots {
            self.add_to_filter(slot);
        }
    }

    /// Which messages nobody cites is not kept either.
    fn restore_cited(&mut self) {
        let slots: Vec<u32> = self.log.slots().collect();
        for &slot in &slots {
            self.cite_by(slot);
        }
        for slot in slots {
            self.note_uncited(slot);
        }
    }

    fn restore_waiting(&mut self, now: Now, id: &[u8], item: &Item) -> Result<(), &'static str> {
        let message = MessageView::parse(self.config.profile, &item.body)
            .ok()
            .filter(|message| message.id == id)
            .ok_or("a message that waits cannot be read; restore it from elsewhere")?;
        let known = self.table.find(id);
        self.look_up(now, &message, false);
        self.accept(now, &message, known, false);
        Ok(())
    }

    /// What was delivered before and not confirmed comes again, in the order of its numbers.
    fn deliver_again(&mut self) {
        if planted("not-again") {
            return;
        }
        self.unconfirmed.make_contiguous().sort_unstable();
        for index in 0..self.unconfirmed.len() {
            let (_, slot) = self.unconfirmed[index];
            let later = self.log.slots().rev().position(|found| found == slot);
            self.hand_out(slot, later.unwrap_or_default(), true);
        }
    }

    /// Puts a quiet channel to sleep: all of it becomes one piece of bytes, a fraction of what it
    /// takes awake. A channel with outputs that were not polled, changes that are not kept, or
    /// something planned, is given back as it is.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Now};
    /// let channel = Channel::new("room", b"alice", Config::lip())?;
    /// let asleep = channel.hibernate().expect("nothing is planned");
    /// assert!(asleep.memory_bytes() < 400);
    /// let awake = asleep.wake(Now::zero())?;
    /// assert_eq!(awake.name(), "room");
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[allow(clippy::missing_errors_doc, clippy::result_large_err, reason = "it is given back")]
    pub fn hibernate(self) -> Result<Hibernated, Self> {
        let busy = self.has_output()
            || !self.outputs.is_empty()
            || self.poll_timeout().is_some()
            || self.changes.is_busy();
        if busy {
            return Err(self);
        }
        let empty = self.table.len() == 0 && self.scalars == Default::default();
        let number = self.changes.next();
        let bytes = if empty { Vec::new() } else { self.snapshot(number) };
        let params = self.filter_params;
        let Self { name, own_id, config, .. } = self;
        let kept = number - 1;
        Ok(Hibernated { name, own_id, config: Box::new(config), bytes: bytes.into(), kept, params })
    }
}

/// Numbers that no working channel has would end in an overflow, now or later.
fn check_numbers(loaded: &Loaded) -> Result<(), &'static str> {
    let Scalars { lamport, horizon, delivered, confirmed, .. } = loaded.scalars;
    let items = || loaded.items.values();
    let sane = lamport < LAMPORT_MAX
        && horizon < LAMPORT_MAX
        && delivered.max(loaded.number) < u64::MAX / 2
        && confirmed <= delivered
        && items().all(|item| item.lamport < LAMPORT_MAX && item.number <= delivered);
    if sane || planted("saved-numbers-unchecked") {
        Ok(())
    } else {
        Err("a number in it is past all limits; restore it from elsewhere")
    }
}

/// A channel that sleeps.
///
/// Example: see [`Channel::hibernate`].
#[derive(Clone, Debug)]
pub struct Hibernated {
    name: Box<str>,
    own_id: Box<[u8]>,
    config: Box<Config>,
    bytes: Box<[u8]>,
    /// The number of the last change that was kept elsewhere.
    kept: u64,
    params: Params,
}

impl Hibernated {
    /// The channel's name.
    ///
    /// Example: see [`Channel::hibernate`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes it takes.
    ///
    /// Example: see [`Channel::hibernate`].
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + size_of::<Config>()
            + self.name.len()
            + self.own_id.len()
            + self.bytes.len()
    }

    /// The channel as it was.
    ///
    /// # Errors
    /// None in a working program: the bytes are the channel's own.
    ///
    /// Example: see [`Channel::hibernate`].
    pub fn wake(self, now: Now) -> Result<Channel> {
        let Self { name, own_id, config, bytes, kept, params } = self;
        let mut channel = Channel::new(&name, &own_id, *config)?;
        channel.filter_params = params;
        if !bytes.is_empty() {
            let saved = |what| Error::Saved { channel: name.to_string(), what };
            let loaded = Loaded::read(channel.config.profile, [&*bytes]).map_err(saved)?;
            channel.restore(now, loaded).map_err(saved)?;
            // It was asleep because nothing was new; what was kept elsewhere still is.
            channel.sync.at = super::table::NEVER;
        }
        channel.changes.resume(kept, bytes.len());
        Ok(channel)
    }
}
