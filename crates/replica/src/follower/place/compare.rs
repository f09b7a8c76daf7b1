//! What a shard of a follower does where the log is of no use: its records are compared with the
//! leader's, in steps.

use mainstay_store::{Change, History, Position};

use super::{Answer, Mode, Place, Taken, Told, Wrong, protocol};
use crate::{
    digest::{Parts, Sums, part_of, record_hash},
    limits::{HASHES_MAX, PART_BITS_MAX, PART_RECORDS, ROUND_RECORDS},
    records::lines,
    traits::{Chunk, Sink},
    wire::{self, Acked, Message, Way},
};

/// What is looked at in one go: on a disk that seeks for each record that is less than a heartbeat, or
/// not much more.
const CHUNK: Chunk = Chunk { records: 256, bytes: 1 << 20 };

/// A comparison.
pub(super) struct Compare<C> {
    /// Where it was, if what it has and the leader has not is to be set aside.
    aside: Option<Position>,
    pub(super) from: Position,
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
    pub(super) work: Option<Work<C>>,
}

/// Records that are looked through, some of them in each step.
pub(super) struct Work<C> {
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

impl<C: Default> Place<C> {
    pub(super) fn info<K: Sink<Scan = C>>(
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
    pub(in crate::follower) fn work<K: Sink<Scan = C>>(
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

    /// The parts in which something differs.
    pub(super) fn differ(&mut self, parts: &[u8]) -> Result<Taken, Wrong> {
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

    /// Hashes of this round that the leader does not have.
    pub(super) fn stale(&mut self, hashes: &[u8]) -> Result<Taken, Wrong> {
        let Mode::Comparing(compare) = &mut self.mode else {
            return protocol("hashes, and nothing is compared");
        };
        if compare.stale.len() + hashes.len() / 8 > compare.asked {
            return protocol("more hashes than were sent");
        }
        compare.stale.extend(wire::hashes(hashes));
        Ok(Taken::default())
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

    pub(super) fn records<K: Sink<Scan = C>>(
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
    pub(super) fn round(&mut self) -> Result<Taken, Wrong> {
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
