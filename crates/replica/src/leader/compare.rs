//! Finding out which records a follower lacks, and which it has that the leader does not.
//!
//! The follower sends a sum for each part of the shard; of the parts that differ it sends the
//! hashes of its records, round by round; it gets the records whose hashes it did not send, and
//! the hashes of those that are not here. Writers go on meanwhile: what they change is in the log
//! behind the place at which the comparison began, which the follower gets afterwards.

use bytes::Bytes;

use super::session::{Stop, protocol};
use crate::{
    digest::{Parts, Sums, part_of, record_hash},
    limits::{BATCH_BYTES, HASHES_MAX, ROUND_HASHES_MAX},
    records::put_record,
    traits::{Chunk, Source},
    wire::{self, Message, encode},
};

/// What is looked at in one step, at most.
const CHUNK: Chunk = Chunk { records: 512, bytes: 1 << 20 };

/// What records are sent of in one step, at most.
const SENT: Chunk = Chunk { records: 2_048, bytes: BATCH_BYTES as u64 };

pub(super) struct Compare<C> {
    phase: Phase<C>,
    bits: u8,
    parts: Parts,
}

enum Phase<C> {
    /// The follower has not been told how it gets on.
    Telling(Message<'static>),
    /// The follower's sums are awaited.
    Waiting,
    /// The leader's are made.
    Summing { scan: C, theirs: Vec<u64>, ours: Sums },
    /// The follower's hashes are awaited.
    Wanting { hashes: Vec<u64> },
    /// Records are looked through.
    Scanning { scan: C, round: Round },
    /// Those that are not here are told.
    Telltale { round: Round, at: usize },
}

struct Round {
    first: u32,
    last: u32,
    is_last: bool,
    /// Sorted.
    hashes: Vec<u64>,
    /// Which of them are here.
    here: Vec<bool>,
}

/// What a step of comparing came to.
#[derive(Default)]
pub(super) struct Step {
    pub(super) messages: Vec<Bytes>,
    /// Bytes of them that need an allowance.
    pub(super) counted: u64,
    /// They are records, which can be sent in parts.
    pub(super) can_be_long: bool,
    pub(super) is_over: bool,
}

impl Step {
    fn say(epoch: u64, message: &Message<'_>) -> Self {
        Self { messages: vec![encode(epoch, message)], ..Self::default() }
    }

    fn count(mut self) -> Self {
        self.counted = self.messages.iter().map(|bytes| bytes.len() as u64).sum();
        self
    }
}

impl<C: Default> Compare<C> {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Waiting, bits: 0, parts: Parts::none(0) }
    }

    /// One that begins with telling the follower how it gets on.
    pub(super) fn told(info: Message<'static>) -> Self {
        Self { phase: Phase::Telling(info), ..Self::new() }
    }

    pub(super) fn held_bytes(&self) -> usize {
        match &self.phase {
            Phase::Telling(_) | Phase::Waiting => 0,
            Phase::Summing { theirs, ours, .. } => (theirs.len() + 2 * ours.sums.len()) * 8,
            Phase::Wanting { hashes } => hashes.len() * 8,
            Phase::Scanning { round, .. } | Phase::Telltale { round, .. } => round.hashes.len() * 9,
        }
    }

    pub(super) fn summary(&mut self, bits: u8, sums: &[u8]) -> Result<(), Stop> {
        if !matches!(self.phase, Phase::Waiting) {
            return protocol("sums that nobody asked for");
        }
        self.bits = bits;
        let theirs = wire::hashes(sums).collect();
        self.phase = Phase::Summing { scan: C::default(), theirs, ours: Sums::new(bits) };
        Ok(())
    }

    pub(super) fn want(
        &mut self,
        first: u32,
        last: u32,
        ends: bool,
        is_last: bool,
        more: &[u8],
    ) -> Result<(), Stop> {
        let Phase::Wanting { hashes } = &mut self.phase else {
            return protocol("hashes that nobody asked for");
        };
        if hashes.len() + more.len() / 8 > ROUND_HASHES_MAX {
            return protocol("more hashes in a round than there may be");
        }
        if last >= 1 << self.bits {
            return protocol("hashes of parts that are not there");
        }
        hashes.extend(wire::hashes(more));
        if ends {
            let mut hashes = std::mem::take(hashes);
            hashes.sort_unstable();
            let here = vec![false; hashes.len()];
            let round = Round { first, last, is_last, hashes, here };
            self.phase = Phase::Scanning { scan: C::default(), round };
        }
        Ok(())
    }

    pub(super) fn step<S: Source<Scan = C>>(
        &mut self,
        source: &S,
        shard: u32,
        epoch: u64,
        may_send: bool,
    ) -> Result<Option<Step>, Stop> {
        match &mut self.phase {
            Phase::Waiting | Phase::Wanting { .. } => Ok(None),
            Phase::Telling(info) => {
                let step = Step::say(epoch, info);
                let Message::Info { way, .. } = info else { return Ok(Some(step)) };
                let is_over = *way == wire::Way::Resume;
                self.phase = Phase::Waiting;
                Ok(Some(Step { is_over, ..step }))
            }
            Phase::Summing { scan, theirs, ours } => {
                if !theirs.is_empty() {
                    let mut add = |key: &[u8], rest: &[u8]| ours.add(key, rest);
                    if source.scan(shard, scan, CHUNK, &|_| true, &mut add)? {
                        return Ok(Some(Step::default()));
                    }
                }
                self.parts = differing(self.bits, theirs, &ours.sums);
                let is_over = self.parts.is_none();
                let step = Step::say(epoch, &Message::Differ { shard, parts: &self.parts.0 });
                self.phase = Phase::Wanting { hashes: Vec::new() };
                Ok(Some(Step { is_over, ..step }))
            }
            Phase::Scanning { .. } | Phase::Telltale { .. } if !may_send => Ok(None),
            Phase::Scanning { scan, round } => {
                let scanned = look(source, shard, scan, round, &self.parts, self.bits)?;
                let mut step = Step::default();
                if scanned.count > 0 {
                    let (count, bytes) = (scanned.count, &*scanned.bytes);
                    let are_any = source.identity().is_any();
                    let records = Message::Records { shard, count, are_any, bytes };
                    step = Step::say(epoch, &records).count();
                    step.can_be_long = true;
                }
                if !scanned.is_more {
                    let round = std::mem::replace(round, Round::none());
                    self.phase = Phase::Telltale { round, at: 0 };
                }
                Ok(Some(step))
            }
            Phase::Telltale { round, at } => {
                let rest = round.hashes.iter().zip(&round.here).skip(*at);
                let mut stale = Vec::new();
                for (hash, here) in rest {
                    if stale.len() == HASHES_MAX {
                        break;
                    }
                    *at += 1;
                    if !here {
                        stale.push(*hash);
                    }
                }
                if !stale.is_empty() {
                    let hashes = &Message::hashes(&stale);
                    return Ok(Some(Step::say(epoch, &Message::Stale { shard, hashes }).count()));
                }
                let step = Step::say(epoch, &Message::Round { shard });
                let is_over = round.is_last;
                self.phase = Phase::Wanting { hashes: Vec::new() };
                Ok(Some(Step { is_over, ..step }))
            }
        }
    }
}

impl Round {
    fn none() -> Self {
        Self { first: 0, last: 0, is_last: false, hashes: Vec::new(), here: Vec::new() }
    }

    /// Whether it is about all parts there are.
    fn is_only(&self, bits: u8) -> bool {
        self.first == 0 && u64::from(self.last) + 1 == 1 << bits
    }
}

/// Which parts differ: all, for a follower that has no records.
fn differing(bits: u8, theirs: &[u64], ours: &[u64]) -> Parts {
    if theirs.is_empty() {
        return Parts::all(bits);
    }
    let mut parts = Parts::none(bits);
    for (part, (one, other)) in (0..).zip(theirs.iter().zip(ours)) {
        if one != other {
            parts.insert(part);
        }
    }
    parts
}

struct Scanned {
    count: u32,
    bytes: Vec<u8>,
    is_more: bool,
}

fn look<S: Source>(
    source: &S,
    shard: u32,
    scan: &mut S::Scan,
    round: &mut Round,
    parts: &Parts,
    bits: u8,
) -> Result<Scanned, Stop> {
    let identity = source.identity();
    let (mut count, mut bytes) = (0, Vec::with_capacity(BATCH_BYTES));
    // For a follower without records everything is sent, and nothing has to be hashed.
    let is_all = round.hashes.is_empty() && round.is_only(bits) && parts.is_all(bits);
    let (first, last) = (round.first, round.last);
    let wanted = |key: &[u8]| {
        let part = part_of(key, bits);
        is_all || ((first..=last).contains(&part) && parts.has(part))
    };
    let is_more = source.scan(shard, scan, SENT, &wanted, &mut |key, rest| {
        if !is_all && let Ok(at) = round.hashes.binary_search(&record_hash(key, rest)) {
            round.here[at] = true;
            return;
        }
        count += 1;
        put_record(&identity, key, rest, &mut bytes);
    })?;
    Ok(Scanned { count, bytes, is_more })
}
