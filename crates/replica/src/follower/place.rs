//! Where a shard of a follower is, and how it gets on.

mod compare;

use mainstay_shm::hook;
use mainstay_store::{History, Position};

use self::compare::Compare;
use super::Told;
use crate::{
    records::changes,
    traits::Sink,
    wire::{self, Acked, Message},
};

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
            Message::Differ { parts, .. } => self.differ(parts),
            Message::Records { bytes, count, .. } => self.records(sink, *count, bytes),
            Message::Stale { hashes, .. } => self.stale(hashes),
            Message::Round { .. } => self.round(),
            Message::Writes { tip, bytes, .. } => {
                self.saw_tip(*tip);
                self.writes(sink, bytes)
            }
            Message::CaughtUp { at, .. } => self.caught_up(sink, *at),
            _ => protocol("a message for no shard"),
        }
    }

    /// From here on it is at no place.
    fn leave(&mut self) {
        self.at = None;
        self.count_anew(Acked { shard: self.shard, ..Acked::default() });
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
