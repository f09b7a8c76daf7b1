//! One follower of a leader.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use mainstay_store::{Position, Reached};

use super::{LeadSettings, compare::Compare, long::Long};
use crate::{
    limits::{AT_ONCE_BYTES, BATCH_BYTES, MESSAGE_BYTES_MAX, WRITE_BYTES_MAX},
    traits::{Found, Source},
    wire::{self, Acked, Hello, Message, Reason, Way, Write, encode, put_write},
};

/// How much of the log is read for a place in one step, about.
const SEEK_BYTES: u64 = 256 << 10;

/// Why a session ends.
#[derive(Debug)]
pub(super) enum Stop {
    /// The ends do not fit together.
    Misfit { reason: Reason, ours: u64, theirs: u64 },
    /// The follower does not keep to the protocol.
    Protocol(String),
    /// The store refused something.
    Store(mainstay_store::Error),
}

impl From<mainstay_store::Error> for Stop {
    fn from(error: mainstay_store::Error) -> Self {
        Self::Store(error)
    }
}

pub(super) fn protocol<T>(what: &str) -> Result<T, Stop> {
    Err(Stop::Protocol(what.to_owned()))
}

/// What a step came to.
#[derive(Default)]
pub(super) struct Done {
    pub(super) messages: Vec<Bytes>,
    /// The shard of the last of them, if it is one that can be sent in parts; and where it leads, if
    /// it is a write.
    long: Option<(u32, Option<Position>)>,
    /// The first part of a long message is sent, and more will be.
    pub(super) begins_long: bool,
    /// Bytes of the messages that need an allowance.
    counted: u64,
    /// Up to which write of which shard the log was read.
    pub(super) read: Option<(u32, u64)>,
    /// What is wanted of the log is not what it was.
    pub(super) has_changed: bool,
    /// The messages need not wait for the follower; see [`super::Output::Send`].
    pub(super) at_once: bool,
}

/// Where a follower is with a shard.
enum Shard<S: Source> {
    /// It has not said.
    Silent,
    /// The place where it says that it is is looked for in the log.
    Finding { seek: S::Seek, at: Position, is_empty: bool },
    /// It gets the log from here on.
    Live {
        tail: S::Tail,
        /// It is told when it has this write.
        tell_at: Option<u64>,
        /// Until then the log is kept for it.
        is_behind: bool,
    },
    /// Its records are compared; then it gets the log from here on.
    Comparing { tail: S::Tail, compare: Compare<S::Scan> },
}

pub(super) struct Session<S: Source> {
    is_joined: bool,
    heard: Duration,
    spoke: Duration,
    /// Bytes sent that count, and how many may be.
    sent: u64,
    allowance: u64,
    /// How many were allowed at first: the follower has taken as many as there are more by now.
    window: Option<u64>,
    shards: Vec<Shard<S>>,
    /// The last write and the bytes of messages on their way, by shard.
    flying: Vec<VecDeque<(u64, u64)>>,
    turn: usize,
    /// Whether long messages can be sent in parts, and the one that is.
    takes_parts: bool,
    long: Option<Long>,
}

impl<S: Source> Session<S> {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            is_joined: false,
            heard: now,
            spoke: now,
            sent: 0,
            allowance: 0,
            window: None,
            shards: Vec::new(),
            flying: Vec::new(),
            turn: 0,
            takes_parts: false,
            long: None,
        }
    }

    /// What it is in the middle of being sent.
    pub(super) fn long(&self) -> Option<&Long> {
        self.long.as_ref()
    }

    pub(super) fn long_mut(&mut self) -> Option<&mut Long> {
        self.long.as_mut()
    }

    pub(super) fn is_joined(&self) -> bool {
        self.is_joined
    }

    pub(super) fn heard(&mut self, now: Duration) {
        self.heard = now;
    }

    pub(super) fn heard_at(&self) -> Duration {
        self.heard
    }

    pub(super) fn spoke(&mut self, now: Duration) {
        self.spoke = now;
    }

    pub(super) fn spoke_at(&self) -> Duration {
        self.spoke
    }

    /// What is held for it beside what was sent.
    pub(super) fn held_bytes(&self) -> usize {
        let of = |shard: &Shard<S>| match shard {
            Shard::Comparing { compare, .. } => compare.held_bytes(),
            _ => 0,
        };
        self.shards.iter().map(of).sum()
    }

    pub(super) fn behind_bytes(&self, source: &S, shard: u32) -> u64 {
        let on_its_way: u64 =
            self.flying.get(shard as usize).into_iter().flatten().map(|(_, bytes)| *bytes).sum();
        match self.shards.get(shard as usize) {
            Some(Shard::Live { tail, .. } | Shard::Comparing { tail, .. }) => {
                on_its_way + source.behind_bytes(tail).unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Behind which frame the log has to stay.
    pub(super) fn wants_behind(&self, source: &S, shard: u32, bytes_max: u64) -> Option<u64> {
        let tail = match self.shards.get(shard as usize)? {
            Shard::Live { tail, is_behind: true, .. } | Shard::Comparing { tail, .. } => tail,
            _ => return None,
        };
        (source.behind_bytes(tail).ok()? <= bytes_max).then(|| source.place(tail).1)
    }

    /// Does the follower fit?
    pub(super) fn hello(&mut self, theirs: &Hello, ours: &Hello) -> Result<(), Stop> {
        let differ = |reason, ours: u64, theirs: u64| Err(Stop::Misfit { reason, ours, theirs });
        let (one, other) = (&ours.identity, &theirs.identity);
        if ours.version != theirs.version {
            return differ(Reason::Version, ours.version.into(), theirs.version.into());
        }
        if theirs.is_blank {
            return Ok(());
        }
        check_fits(one, other, ours.write_bytes_max, theirs.write_bytes_max)
            .map_err(|(reason, ours, theirs)| Stop::Misfit { reason, ours, theirs })?;
        self.is_joined = true;
        self.takes_parts = theirs.takes_parts;
        self.shards = (0..one.shards).map(|_| Shard::Silent).collect();
        self.flying = (0..one.shards).map(|_| VecDeque::new()).collect();
        Ok(())
    }

    pub(super) fn acked(
        &mut self,
        allowance: u64,
        acks: &[u8],
        own: &mut [Acked],
    ) -> Result<(), Stop> {
        let window = *self.window.get_or_insert(allowance);
        if allowance.saturating_sub(window) > self.sent {
            return protocol("a follower that has taken more than it was sent");
        }
        self.allowance = self.allowance.max(allowance);
        for acked in wire::acks(acks) {
            let index = acked.shard as usize;
            let (Some(own), Some(flying)) = (own.get_mut(index), self.flying.get_mut(index)) else {
                return protocol("an acknowledgement for a shard that is not there");
            };
            *own = acked;
            while flying.front().is_some_and(|(sequence, _)| *sequence <= acked.applied) {
                flying.pop_front();
            }
        }
        Ok(())
    }

    /// Bytes that the follower has not taken yet, as far as it has said so.
    fn on_their_way(&self) -> u64 {
        let Some(window) = self.window else { return u64::MAX };
        self.sent.saturating_sub(self.allowance - window)
    }

    /// May something be sent that counts?
    fn may_send(&self, settings: &LeadSettings) -> bool {
        self.sent < self.allowance && self.on_their_way() < settings.window_max
    }

    /// Takes in what a follower says of one of its shards.
    pub(super) fn handle(&mut self, source: &S, message: Message<'_>) -> Result<(), Stop> {
        let shard = match message {
            Message::Sync { shard, .. }
            | Message::Summary { shard, .. }
            | Message::Want { shard, .. } => shard,
            _ => return protocol("a message that followers do not send"),
        };
        let Some(place) = self.shards.get_mut(shard as usize) else {
            return protocol("a shard that is not there, or nobody said hello");
        };
        match (message, place) {
            (Message::Sync { at, is_empty, .. }, place) => {
                *place = begin(source, shard, at, is_empty)?;
                Ok(())
            }
            (Message::Summary { bits, sums, .. }, Shard::Comparing { compare, .. }) => {
                compare.summary(bits, sums)
            }
            (
                Message::Want { first, last, ends, is_last, hashes, .. },
                Shard::Comparing { compare, .. },
            ) => compare.want(first, last, ends, is_last, hashes),
            // It was answered before the follower knew that it begins anew.
            _ => Ok(()),
        }
    }

    /// Does a bit of what there is to do, if there is something.
    pub(super) fn step(
        &mut self,
        source: &S,
        settings: &LeadSettings,
        now: Duration,
        epoch: u64,
    ) -> Result<Option<Done>, Stop> {
        let part_bytes = settings.of_a_part();
        if self.long.is_some() {
            let may_send = self.may_send(settings);
            let part = may_send.then(|| self.next_part(now, epoch, part_bytes)).flatten();
            return Ok(part.map(|part| Done { messages: vec![part], ..Done::default() }));
        }
        let count = self.shards.len();
        for ahead in 1..=count {
            let index = (self.turn + ahead) % count;
            if let Some(mut done) = self.step_shard(source, settings, index, epoch)? {
                self.turn = index;
                if let Some((shard, leads_to)) = done.long
                    && let Some(whole) = done.messages.pop_if(|last| last.len() > part_bytes)
                {
                    self.long = self.split(Long::new(shard, whole, leads_to), &mut done)?;
                    let part = self.next_part(now, epoch, part_bytes);
                    done.begins_long = self.long.is_some();
                    done.messages.extend(part);
                }
                self.sent += done.counted;
                if !done.messages.is_empty() {
                    self.spoke = now;
                }
                return Ok(Some(done));
            }
        }
        Ok(None)
    }

    /// A message is too long to be sent as one: it is not, unless the follower can take it only so.
    fn split(&self, long: Long, done: &mut Done) -> Result<Option<Long>, Stop> {
        if self.takes_parts {
            done.counted = 0;
            return Ok(Some(long));
        }
        if long.whole().len() > MESSAGE_BYTES_MAX {
            let (ours, theirs) = (long.whole().len() as u64, WRITE_BYTES_MAX as u64);
            return Err(Stop::Misfit { reason: Reason::WriteBytes, ours, theirs });
        }
        done.messages.push(long.whole().clone());
        Ok(None)
    }

    fn next_part(&mut self, now: Duration, epoch: u64, part_bytes: usize) -> Option<Bytes> {
        let long = self.long.as_mut()?;
        let part = long.next(epoch, part_bytes);
        if long.is_over() {
            self.long = None;
        }
        self.sent += part.len() as u64;
        self.spoke = now;
        Some(part)
    }

    fn step_shard(
        &mut self,
        source: &S,
        settings: &LeadSettings,
        index: usize,
        epoch: u64,
    ) -> Result<Option<Done>, Stop> {
        let may_send = self.may_send(settings);
        let shard = index as u32;
        let mut done = Done::default();
        match &mut self.shards[index] {
            Shard::Silent => return Ok(None),
            Shard::Finding { seek, at, is_empty } => {
                let (at, is_empty) = (*at, *is_empty);
                if let Some(found) = source.seek_on(seek, SEEK_BYTES)? {
                    self.shards[index] = sought(source, settings, shard, found, (at, is_empty))?;
                    done.has_changed = true;
                }
            }
            Shard::Comparing { compare, .. } => {
                let Some(step) = compare.step(source, shard, epoch, may_send)? else {
                    return Ok(None);
                };
                done.counted = step.counted;
                done.long = step.can_be_long.then_some((shard, None));
                done.messages = step.messages;
                if step.is_over {
                    let Some(tip) = source.tip(shard)? else { return no_place(shard) };
                    let place = std::mem::replace(&mut self.shards[index], Shard::Silent);
                    if let Shard::Comparing { tail, .. } = place {
                        let tell_at = Some(tip.sequence);
                        self.shards[index] = Shard::Live { tail, tell_at, is_behind: true };
                    }
                    done.has_changed = true;
                }
            }
            Shard::Live { tail, tell_at, is_behind } => {
                let at = source.place(tail).0;
                if tell_at.is_some_and(|tell_at| at.sequence >= tell_at) {
                    *tell_at = None;
                    done.has_changed = std::mem::take(is_behind);
                    done.messages.push(encode(epoch, &Message::CaughtUp { shard, at }));
                    return Ok(Some(done));
                }
                if !may_send {
                    return Ok(None);
                }
                let read = read(source, tail)?;
                if read.is_cut {
                    return self.restart(source, index, Way::Cut, epoch).map(Some);
                }
                if read.count == 0 {
                    return Ok(None);
                }
                let at = source.place(tail).0;
                let tip = source.tip(shard)?.map_or(at.sequence, |tip| tip.sequence);
                let (count, bytes) = (read.count, &*read.bytes);
                let message = encode(epoch, &Message::Writes { shard, tip, count, bytes });
                done.counted = message.len() as u64;
                done.long = Some((shard, Some(at)));
                self.flying[index].push_back((at.sequence, done.counted));
                done.messages.push(message);
                done.read = Some((shard, at.sequence));
                done.at_once = self.on_their_way() <= AT_ONCE_BYTES;
            }
        }
        Ok(Some(done))
    }

    /// The follower has to be compared: what it lacks is not in the log any more.
    fn restart(&mut self, source: &S, index: usize, way: Way, epoch: u64) -> Result<Done, Stop> {
        let (tail, info) = compare(source, index as u32, way)?;
        self.shards[index] = Shard::Comparing { tail, compare: Compare::new() };
        self.flying[index].clear();
        Ok(Done { messages: vec![encode(epoch, &info)], has_changed: true, ..Done::default() })
    }
}

/// What of two replicas does not fit.
pub(crate) fn check_fits(
    ours: &mainstay_store::Identity,
    theirs: &mainstay_store::Identity,
    leader_bytes: u64,
    follower_bytes: u64,
) -> Result<(), (Reason, u64, u64)> {
    let id = |id: [u8; 16]| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&id[..8]);
        u64::from_le_bytes(eight)
    };
    if ours.id != theirs.id {
        return Err((Reason::OtherStore, id(ours.id), id(theirs.id)));
    }
    if ours.shards != theirs.shards {
        return Err((Reason::Shards, ours.shards.into(), theirs.shards.into()));
    }
    if ours.shard_bits != theirs.shard_bits {
        return Err((Reason::ShardBits, ours.shard_bits.into(), theirs.shard_bits.into()));
    }
    if ours.key_len != theirs.key_len {
        return Err((Reason::KeyLen, ours.key_len as u64, theirs.key_len as u64));
    }
    if ours.value_len != theirs.value_len {
        return Err((Reason::ValueLen, ours.value_len as u64, theirs.value_len as u64));
    }
    if follower_bytes < leader_bytes {
        return Err((Reason::WriteBytes, leader_bytes, follower_bytes));
    }
    Ok(())
}

fn no_place<T>(shard: u32) -> Result<T, Stop> {
    Err(Stop::Store(mainstay_store::Error::Mending { shard }))
}

/// A follower says that it is `at` some place.
fn begin<S: Source>(
    source: &S,
    shard: u32,
    at: Option<Position>,
    is_empty: bool,
) -> Result<Shard<S>, Stop> {
    match at {
        None => compare_told(source, shard, Way::Unfinished),
        Some(at) => Ok(Shard::Finding { seek: source.seek(shard, at)?, at, is_empty }),
    }
}

/// How it goes on, as its place was found, or was not.
fn sought<S: Source>(
    source: &S,
    settings: &LeadSettings,
    shard: u32,
    found: Found<S::Tail>,
    (at, is_empty): (Position, bool),
) -> Result<Shard<S>, Stop> {
    let tip = source.tip(shard)?.ok_or(mainstay_store::Error::Mending { shard })?;
    let behind = tip.sequence.saturating_sub(at.sequence);
    let way = match found {
        // Records are sent faster than the writes that made them.
        Found::Here(_) if is_empty && behind > settings.replay_max => Way::Unfinished,
        Found::Here(tail) => {
            let (way, records) = (Way::Resume, source.records(shard)?);
            let compare = Compare::told(Message::Info { shard, way, from: at, records });
            return Ok(Shard::Comparing { tail, compare });
        }
        Found::Older => Way::Older,
        Found::Foreign => Way::Diverged,
    };
    compare_told(source, shard, way)
}

/// A comparison that begins with telling the follower.
fn compare_told<S: Source>(source: &S, shard: u32, way: Way) -> Result<Shard<S>, Stop> {
    let (tail, info) = compare(source, shard, way)?;
    Ok(Shard::Comparing { tail, compare: Compare::told(info) })
}

/// Where the log goes on from behind a comparison that begins now, and what a follower is told.
fn compare<S: Source>(
    source: &S,
    shard: u32,
    way: Way,
) -> Result<(S::Tail, Message<'static>), Stop> {
    // Writers go on meanwhile: the place is then one before the last.
    let tail = source.tail_end(shard)?;
    let from = source.place(&tail).0;
    let info = Message::Info { shard, way, from, records: source.records(shard)? };
    Ok((tail, info))
}

struct Read {
    count: u32,
    bytes: Vec<u8>,
    is_cut: bool,
}

fn read<S: Source>(source: &S, tail: &mut S::Tail) -> Result<Read, Stop> {
    let mut read = Read { count: 0, bytes: Vec::new(), is_cut: false };
    let reached = source.read(tail, BATCH_BYTES as u64, &mut |written| {
        read.count += 1;
        let (position, count, changes) = (written.position, written.count, written.changes);
        put_write(&Write { position, count, changes }, &mut read.bytes);
    })?;
    read.is_cut = reached == Reached::Cut && read.count == 0;
    Ok(read)
}
