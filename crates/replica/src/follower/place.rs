//! Where a shard of a follower is, and how it gets on.

use mainstay_shm::hook;
use mainstay_store::{Change, History, Position};

use super::Told;
use crate::{
    digest::{Parts, Sums, part_of, record_hash},
    limits::{HASHES_MAX, PART_BITS_MAX, PART_RECORDS, ROUND_RECORDS},
    records::{changes, lines},
    traits::{Chunk, Sink},
    wire::{self, Acked, Message, Way},
};

/// What is looked at in one go: on a disk that seeks for each record that is less than a heartbeat, or
/// not much more.
const CHUNK: Chunk = Chunk { records: 256, bytes: 1 << 20 };

/// Why a follower gives up.
pub(super) enum Wrong {
    /// The leader does not keep to the protocol.
    Protocol(String),
    /// The store refused something.
    Store(mainstay_store::Error),
}

impl From<mainstay_store::Error> for Wrong {
    fn from(error: mainstay_store::Error) -> Self {
        Self::Store(error)
    }
}

fn protocol<T>(what: &str) -> Result<T, Wrong> {
    Err(Wrong::Protocol(what.to_owned()))
}

/// What became of a message.
#[derive(Default)]
pub(super) struct Taken {
    /// There is something to sync.
    pub(super) changed: bool,
    pub(super) told: Vec<Told>,
}

/// A message that is to be sent.
pub(super) enum Answer {
    Summary { shard: u32, bits: u8, sums: Vec<u8> },
    Want { shard: u32, round: (u32, u32), ends: bool, is_last: bool, hashes: Vec<u8> },
}

impl Answer {
    pub(super) fn message(&self) -> Message<'_> {
        match self {
            Self::Summary { shard, bits, sums } => {
                Message::Summary { shard: *shard, bits: *bits, sums }
            }
            Self::Want { shard, round: (first, last), ends, is_last, hashes } => Message::Want {
                shard: *shard,
                first: *first,
                last: *last,
                ends: *ends,
                is_last: *is_last,
                hashes,
            },
        }
    }
}

enum Mode<C> {
    /// There is no channel, or the leader has not answered.
    Asked,
    /// It takes the log.
    Live,
    /// Its records are compared.
    Comparing(Box<Compare<C>>),
    /// It has the leader's records, and takes the log up to where it is at a place again.
    Replaying { at: Position },
}

struct Compare<C> {
    /// Where it was, if what it has and the leader has not is to be set aside.
    aside: Option<Position>,
    from: Position,
    sums: Sums,
    parts: Parts,
    /// The rounds that are left, the next one last.
    rounds: Vec<(u32, u32)>,
    round: (u32, u32),
    /// How many hashes the leader was sent in this round.
    asked: usize,
    /// Those of them that it does not have.
    stale: Vec<u64>,
    kept: u64,
    /// Until it is done, no message for the shard is looked at (O7).
    work: Option<Work<C>>,
}

/// Records that are looked through, some of them in each step.
struct Work<C> {
    scan: C,
    what: What,
}

enum What {
    /// The sums of parts are made.
    Sums,
    /// The hashes of a round are sent.
    Hashes(Vec<u64>),
    /// Those that the leader does not have are looked for.
    Stale { hashes: Vec<u64>, gone: Vec<(Vec<u8>, Vec<u8>)> },
}

pub(super) struct Place<C> {
    shard: u32,
    at: Option<Position>,
    /// Where it is, or the place that it was at last.
    left: Position,
    /// What it has and the leader has not may never have been the leader's.
    is_aside: bool,
    mode: Mode<C>,
    acked: Acked,
    /// Up to where it is durable once the sync has ended that is under way.
    syncing: Option<u64>,
    told: Acked,
    tip: u64,
    is_caught_up: bool,
}

impl<C: Default> Place<C> {
    /// Of a store in which all is durable.
    pub(super) fn new(shard: u32, history: History) -> Self {
        let (History::At(left) | History::Mending(left)) = history;
        let at = history.position();
        let sequence = at.map_or(0, |at| at.sequence);
        let acked = Acked { shard, received: sequence, applied: sequence, durable: sequence };
        let told = Acked { shard, ..Acked::default() };
        let (mode, is_aside, is_caught_up) = (Mode::Asked, false, false);
        Self { shard, at, left, is_aside, mode, acked, syncing: None, told, tip: 0, is_caught_up }
    }

    pub(super) fn at(&self) -> Option<Position> {
        self.at
    }

    pub(super) fn acked(&self) -> Acked {
        self.acked
    }

    pub(super) fn tip(&self) -> u64 {
        self.tip
    }

    pub(super) fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    /// Is it on its way to a place that its log does not lead to?
    pub(super) fn is_mending(&self) -> bool {
        matches!(self.mode, Mode::Comparing(_) | Mode::Replaying { .. })
    }

    /// Are records looked through? Then [`work`](Self::work) is next, and no message.
    pub(super) fn is_working(&self) -> bool {
        matches!(&self.mode, Mode::Comparing(compare) if compare.work.is_some())
    }

    pub(super) fn saw_tip(&mut self, tip: u64) {
        self.tip = self.tip.max(tip);
    }

    pub(super) fn disconnected(&mut self) {
        self.mode = Mode::Asked;
        self.is_caught_up = false;
    }

    /// What to ask the leader.
    pub(super) fn ask(&mut self) -> (u32, Option<Position>) {
        self.told = Acked { shard: self.shard, ..Acked::default() };
        // What another leader had, or the same one in another life, says nothing of this one.
        self.tip = self.at.map_or(0, |at| at.sequence);
        (self.shard, self.at)
    }

    pub(super) fn sync_begins(&mut self) {
        self.syncing = Some(self.acked.applied);
    }

    /// The sync that was under way has ended well.
    pub(super) fn synced(&mut self) {
        if let Some(sequence) = self.syncing.take() {
            self.acked.durable = self.acked.durable.max(sequence);
        }
    }

    /// What counts from now on. A sync that is under way is for another place, and does not.
    fn count_anew(&mut self, acked: Acked) {
        (self.acked, self.syncing) = (acked, None);
    }

    /// What is new for the leader. Before the leader has answered, the place may be none of its.
    pub(super) fn ack_due(&mut self) -> Option<Acked> {
        if matches!(self.mode, Mode::Asked) || self.acked == self.told {
            return None;
        }
        self.told = self.acked;
        Some(self.acked)
    }

    pub(super) fn take<K: Sink<Scan = C>>(
        &mut self,
        sink: &K,
        message: &Message<'_>,
        answers: &mut Vec<Answer>,
    ) -> Result<Taken, Wrong> {
        match message {
            Message::Info { way, from, records, .. } => {
                self.info(sink, *way, *from, *records, answers)
            }
            Message::Differ { parts, .. } => {
                let Mode::Comparing(compare) = &mut self.mode else {
                    return protocol("parts that differ, and nothing is compared");
                };
                if parts.len() != Parts::none(compare.sums.bits).0.len() {
                    return protocol("another number of parts");
                }
                compare.parts = Parts(parts.to_vec());
                compare.rounds = compare.plan();
                self.next_round();
                Ok(Taken::default())
            }
            Message::Records { bytes, count, .. } => self.records(sink, *count, bytes),
            Message::Stale { hashes, .. } => {
                let Mode::Comparing(compare) = &mut self.mode else {
                    return protocol("hashes, and nothing is compared");
                };
                if compare.stale.len() + hashes.len() / 8 > compare.asked {
                    return protocol("more hashes than were sent");
                }
                compare.stale.extend(wire::hashes(hashes));
                Ok(Taken::default())
            }
            Message::Round { .. } => self.round(),
            Message::Writes { tip, bytes, .. } => {
                self.saw_tip(*tip);
                self.writes(sink, bytes)
            }
            Message::CaughtUp { at, .. } => self.caught_up(sink, *at),
            _ => protocol("a message for no shard"),
        }
    }

    fn info<K: Sink<Scan = C>>(
        &mut self,
        sink: &K,
        way: Way,
        from: Position,
        records: u64,
        answers: &mut Vec<Answer>,
    ) -> Result<Taken, Wrong> {
        let (shard, was) = (self.shard, self.at);
        self.is_caught_up = false;
        // A place that was none of the leader's does not say how far that is.
        let least = if way == Way::Resume { self.tip } else { 0 };
        self.tip = least.max(from.sequence);
        let told = vec![Told::Way { shard, way, was }];
        if way == Way::Resume {
            if self.at != Some(from) {
                return protocol("a place to go on from that this shard is not at");
            }
            (self.mode, self.is_aside) = (Mode::Live, false);
            return Ok(Taken { changed: false, told });
        }
        let own = sink.records(shard)?;
        // Behind a cut log it is what it was.
        if way != Way::Cut {
            self.is_aside = own > 0;
        }
        let parts = (records.max(own) / PART_RECORDS).max(1).next_power_of_two();
        let bits = (parts.trailing_zeros() as u8).min(PART_BITS_MAX);
        let sums = Sums::new(bits);
        let work = if own == 0 {
            sink.expect(shard, records)?;
            answers.push(Answer::Summary { shard, bits, sums: Vec::new() });
            None
        } else {
            Some(Work::new(What::Sums))
        };
        self.mode = Mode::Comparing(Box::new(Compare {
            aside: self.is_aside.then_some(self.left),
            from,
            sums,
            parts: Parts::none(bits),
            rounds: Vec::new(),
            round: (0, 0),
            asked: 0,
            stale: Vec::new(),
            kept: 0,
            work,
        }));
        if matches!(way, Way::Diverged | Way::Older) {
            // Its numbers are those of another history, or may be.
            self.count_anew(Acked { shard, ..Acked::default() });
        }
        Ok(Taken { changed: false, told })
    }

    /// Does the next bit of what it is at; what it has to say is in `answers`.
    pub(super) fn work<K: Sink<Scan = C>>(
        &mut self,
        sink: &K,
        answers: &mut Vec<Answer>,
    ) -> Result<Taken, Wrong> {
        let Mode::Comparing(compare) = &mut self.mode else { return Ok(Taken::default()) };
        let Some(mut work) = compare.work.take() else { return Ok(Taken::default()) };
        let (shard, bits, (first, last)) = (self.shard, compare.sums.bits, compare.round);
        let (scan, parts) = (&mut work.scan, &compare.parts);
        let is_of_round = |key: &[u8]| (first..=last).contains(&part_of(key, bits));
        match &mut work.what {
            What::Sums => {
                let sums = &mut compare.sums;
                let mut add = |key: &[u8], rest: &[u8]| sums.add(key, rest);
                if sink.scan(shard, scan, CHUNK, &|_| true, &mut add)? {
                    compare.work = Some(work);
                } else {
                    let sums = Message::hashes(&compare.sums.sums);
                    answers.push(Answer::Summary { shard, bits, sums });
                }
                Ok(Taken::default())
            }
            What::Hashes(hashes) => {
                let wanted = |key: &[u8]| is_of_round(key) && parts.has(part_of(key, bits));
                let mut add = |key: &[u8], rest: &[u8]| hashes.push(record_hash(key, rest));
                let is_more = sink.scan(shard, scan, CHUNK, &wanted, &mut add)?;
                if !is_more || hashes.len() + CHUNK.records > HASHES_MAX {
                    compare.asked += hashes.len();
                    let hashes = Message::hashes(&std::mem::take(hashes));
                    let (ends, is_last) = (!is_more, compare.rounds.is_empty());
                    let round = compare.round;
                    answers.push(Answer::Want { shard, round, ends, is_last, hashes });
                }
                if is_more {
                    compare.work = Some(work);
                }
                Ok(Taken::default())
            }
            What::Stale { hashes, gone } => {
                let mut add = |key: &[u8], rest: &[u8]| {
                    if hashes.binary_search(&record_hash(key, rest)).is_ok() {
                        gone.push((key.to_vec(), rest.to_vec()));
                    }
                };
                if sink.scan(shard, scan, CHUNK, &is_of_round, &mut add)? {
                    compare.work = Some(work);
                    return Ok(Taken::default());
                }
                let gone = std::mem::take(gone);
                let taken = self.give_up(sink, &gone)?;
                self.next_round();
                Ok(taken)
            }
        }
    }

    /// Has the hashes of the next round sent; after the last one the log is next.
    fn next_round(&mut self) {
        let Mode::Comparing(compare) = &mut self.mode else { return };
        match compare.rounds.pop() {
            Some(round) => {
                (compare.round, compare.asked) = (round, 0);
                compare.work = Some(Work::new(What::Hashes(Vec::new())));
            }
            None => self.mode = Mode::Replaying { at: compare.from },
        }
    }

    /// From here on it is at no place.
    fn leave(&mut self) {
        self.at = None;
        self.count_anew(Acked { shard: self.shard, ..Acked::default() });
    }

    fn records<K: Sink<Scan = C>>(
        &mut self,
        sink: &K,
        count: u32,
        bytes: &[u8],
    ) -> Result<Taken, Wrong> {
        let Mode::Comparing(compare) = &mut self.mode else {
            return protocol("records, and nothing is compared");
        };
        let Some(records) = lines(&sink.identity(), count, bytes) else {
            return protocol("records of another length");
        };
        let mut kept = Vec::new();
        if compare.aside.is_some() {
            for record in &records {
                let old = sink.record(record.key)?.filter(|old| old != record.rest);
                kept.extend(old.map(|old| (record.key.to_vec(), old)));
            }
        }
        let told = compare.keep(sink, self.shard, &kept)?;
        let puts: Vec<_> = records.iter().map(|record| record.put).collect();
        sink.mend(self.shard, &puts, History::Mending(self.left))?;
        self.leave();
        Ok(Taken { changed: true, told })
    }

    /// What the leader does not have is looked for, if there is any, and given up.
    fn round(&mut self) -> Result<Taken, Wrong> {
        let Mode::Comparing(compare) = &mut self.mode else {
            return protocol("the end of a round, and nothing is compared");
        };
        let mut hashes = std::mem::take(&mut compare.stale);
        if hashes.is_empty() {
            self.next_round();
        } else {
            hashes.sort_unstable();
            compare.work = Some(Work::new(What::Stale { hashes, gone: Vec::new() }));
        }
        Ok(Taken::default())
    }

    fn give_up<K: Sink<Scan = C>>(
        &mut self,
        sink: &K,
        gone: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<Taken, Wrong> {
        let mut taken = Taken::default();
        let Mode::Comparing(compare) = &mut self.mode else { return Ok(taken) };
        if compare.aside.is_some() {
            taken.told = compare.keep(sink, self.shard, gone)?;
        }
        let deletes: Vec<_> = gone.iter().map(|(key, _)| (Change::Delete(key), 0)).collect();
        if !deletes.is_empty() {
            sink.mend(self.shard, &deletes, History::Mending(self.left))?;
            self.leave();
            taken.changed = true;
        }
        Ok(taken)
    }

    fn writes<K: Sink<Scan = C>>(&mut self, sink: &K, bytes: &[u8]) -> Result<Taken, Wrong> {
        let mut taken = Taken::default();
        for write in wire::writes(bytes) {
            let at = match &self.mode {
                Mode::Live => self.at,
                Mode::Replaying { at } => Some(*at),
                _ => None,
            };
            let Some(at) = at else { return protocol("writes that nobody waits for") };
            if write.position.sequence <= at.sequence {
                continue;
            }
            let position = write.position;
            let follows = at.after(position.epoch, write.changes) == position;
            if !follows && !hook::planted("stream-place-unchecked") {
                return protocol("a write that does not follow the one before");
            }
            taken.changed = true;
            if matches!(self.mode, Mode::Live) {
                let epoch = position.epoch;
                let there = sink.apply(self.shard, epoch, write.count, write.changes)?;
                (self.at, self.left) = (Some(there), there);
                self.acked.received = there.sequence;
                self.acked.applied = there.sequence;
                if there != position {
                    return protocol("a write that led somewhere else");
                }
                continue;
            }
            let found = changes(&sink.identity(), write.count, write.changes);
            let Some(changes) = found else {
                return protocol("a write that is not made of changes");
            };
            sink.mend(self.shard, &changes, History::Mending(self.left))?;
            self.leave();
            self.mode = Mode::Replaying { at: position };
        }
        Ok(taken)
    }

    fn caught_up<K: Sink<Scan = C>>(&mut self, sink: &K, at: Position) -> Result<Taken, Wrong> {
        let here = match &self.mode {
            Mode::Live => self.at,
            Mode::Replaying { at } => Some(*at),
            _ => None,
        };
        if here != Some(at) {
            return protocol("the end of catching up at a place that this shard is not at");
        }
        let changed = matches!(self.mode, Mode::Replaying { .. });
        if changed {
            sink.mend(self.shard, &[], History::At(at))?;
            let (shard, sequence) = (self.shard, at.sequence);
            (self.at, self.left) = (Some(at), at);
            self.count_anew(Acked { shard, received: sequence, applied: sequence, durable: 0 });
            (self.mode, self.is_aside) = (Mode::Live, false);
        }
        self.tip = self.tip.max(at.sequence);
        self.is_caught_up = true;
        Ok(Taken { changed, told: vec![Told::CaughtUp { shard: self.shard }] })
    }
}

impl<C: Default> Work<C> {
    fn new(what: What) -> Self {
        Self { scan: C::default(), what }
    }
}

impl<C> Compare<C> {
    /// Parts that differ in rounds of some tens of thousands of records, the first round last.
    fn plan(&self) -> Vec<(u32, u32)> {
        let mut rounds: Vec<(u32, u32)> = Vec::new();
        let mut records = u64::MAX;
        for part in (0..1_u32 << self.sums.bits).filter(|part| self.parts.has(*part)) {
            let own = self.sums.counts[part as usize];
            match rounds.last_mut() {
                Some(round) if records.saturating_add(own) <= ROUND_RECORDS => {
                    round.1 = part;
                    records += own;
                }
                _ => {
                    rounds.push((part, part));
                    records = own;
                }
            }
        }
        rounds.reverse();
        rounds
    }

    /// Sets records aside.
    fn keep<K: Sink>(
        &mut self,
        sink: &K,
        shard: u32,
        records: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<Vec<Told>, Wrong> {
        let Some(from) = self.aside.filter(|_| !records.is_empty()) else { return Ok(Vec::new()) };
        sink.set_aside(shard, from, records)?;
        self.kept += records.len() as u64;
        Ok(vec![Told::SetAside { shard, records: records.len() as u64 }])
    }
}
