//! What the workers did, kept where no death of theirs can reach it.
//!
//! L1. Before a transaction can commit, its entry says what it has read and what it is about to
//!     write: a version follows from the one before, so this is known. Only what is published may
//!     become a later version, and its entry says which as soon as that is known.
//! L2. When a commit was acknowledged, or refused, the entry says so.
//! L3. Between two judgements a log only grows. So what was committed since the last one is what
//!     the entries say, and perhaps what the dead and the frozen were about to.

use crate::{
    shared::{Sharable, Text},
    shift::THREADS,
    state::actor::Plan,
    storm::{Orders, WORKERS},
};
use std::{
    fmt,
    sync::atomic::{
        AtomicU32, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
    },
};

/// The states of a storm: between the accounts amounts are moved, and what they hold together never
/// changes; others only count, and one is published as well.
pub(crate) struct Storm;

impl Plan for Storm {
    const NAMES: &'static [&'static str] =
        &["account.0", "account.1", "account.2", "account.3", "count.0", "count.1", "published"];
    const ACCOUNTS: usize = 4;
}

pub(crate) const STATES: usize = 7;
pub(crate) const ALL: [usize; STATES] = [0, 1, 2, 3, 4, 5, 6];
/// What is published. Its contents may say too early a version, so it has no part where only contents
/// are seen.
pub(crate) const PUBLISHED: usize = 6;

/// Entries of a log. A thread whose log is full only looks on until it is judged.
const ENTRIES: usize = 4_096;

/// How far a transaction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Phase {
    /// It may be committed already, or never be.
    Open,
    /// It is, and its author knows.
    Committed,
    /// It is not, and never will be.
    Refused,
}

/// One state in a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Touch {
    pub(crate) state: usize,
    /// The version it read. What it writes is the one after.
    pub(crate) version: u64,
    pub(crate) writes: bool,
    /// It writes whatever is there: if it is open, the version may be a later one.
    pub(crate) blind: bool,
}

impl Touch {
    pub(crate) fn read(state: usize, version: u64) -> Self {
        Self { state, version, writes: false, blind: false }
    }

    pub(crate) fn write(state: usize, version: u64) -> Self {
        Self { writes: true, ..Self::read(state, version) }
    }

    pub(crate) fn publish(state: usize, version: u64) -> Self {
        Self { blind: true, ..Self::write(state, version) }
    }

    fn pack(self) -> u64 {
        let flags = u64::from(self.writes) << 7 | u64::from(self.blind) << 6;
        self.version << 8 | flags | (self.state as u64 + 1)
    }

    fn unpack(word: u64) -> Option<Self> {
        let state = (word & 0x3F) as usize;
        let state = state.checked_sub(1).filter(|state| *state < STATES)?;
        let (writes, blind) = (word & 0x80 != 0, word & 0x40 != 0);
        Some(Self { state, version: word >> 8, writes, blind })
    }
}

pub(crate) struct Entry {
    phase: AtomicU32,
    /// A judge has seen it committed while it was open.
    counted: AtomicU32,
    author: AtomicU64,
    /// On the machine's clock.
    began: AtomicU64,
    ended: AtomicU64,
    touches: [AtomicU64; STATES],
}

/// An entry as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) phase: Phase,
    pub(crate) counted: bool,
    pub(crate) author: u64,
    pub(crate) began: u64,
    pub(crate) ended: u64,
    pub(crate) touches: Vec<Touch>,
}

impl Seen {
    pub(crate) fn writes(&self) -> impl Iterator<Item = &Touch> {
        self.touches.iter().filter(|touch| touch.writes)
    }
}

/// What one thread did since the last judgement.
pub(crate) struct Log {
    used: AtomicUsize,
    entries: [Entry; ENTRIES],
}

pub(crate) struct Ledger {
    pub(crate) orders: Orders,
    pub(crate) place: Text,
    pub(crate) logs: [[Log; THREADS]; WORKERS],
    /// The version of each state at the last judgement.
    pub(crate) judged: [AtomicU64; STATES],
    /// When that was.
    pub(crate) judged_at: AtomicU64,
    /// Threads of each worker that are just joining or leaving a state.
    pub(crate) joining: [AtomicU32; WORKERS],
    /// The process that keeps the states alive is to leave.
    pub(crate) leave: AtomicU32,
    pub(crate) tallies: Tallies,
    last_author: AtomicU64,
}
// SAFETY: atomics and texts, and orders, which may be shared.
unsafe impl Sharable for Ledger {}

/// What is counted, over all states of a run.
pub(crate) struct Tallies {
    pub(crate) singles: AtomicU64,
    pub(crate) transfers: AtomicU64,
    pub(crate) published: AtomicU64,
    pub(crate) views: AtomicU64,
    pub(crate) full: AtomicU64,
    /// Transactions in the histories that were checked.
    pub(crate) checked: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) claims: AtomicU64,
    pub(crate) pins: AtomicU64,
    pub(crate) records: AtomicU64,
}

impl Tallies {
    pub(crate) fn add(which: &AtomicU64, by: u64) {
        which.fetch_add(by, Relaxed);
    }
}

impl fmt::Display for Tallies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let get = |which: &AtomicU64| which.load(Relaxed);
        write!(
            f,
            "{} single commits, {} transfers, {} published, {} views of several states; {} conflicts, \
             {} times no slot; of the dead: {} claims and {} pins scavenged, {} open commits ended; {} \
             transactions in histories that are serializable",
            get(&self.singles),
            get(&self.transfers),
            get(&self.published),
            get(&self.views),
            get(&self.conflicts),
            get(&self.full),
            get(&self.claims),
            get(&self.pins),
            get(&self.records),
            get(&self.checked),
        )
    }
}

/// Nanoseconds of the machine's clock: the same in all processes.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Ledger {
    /// For new states; nobody works.
    pub(crate) fn clear(&self) {
        self.logs.iter().flatten().for_each(Log::clear);
        self.judged.iter().for_each(|version| version.store(0, SeqCst));
        self.joining.iter().for_each(|threads| threads.store(0, SeqCst));
        self.leave.store(0, SeqCst);
    }

    /// A number that no transaction has had.
    pub(crate) fn new_author(&self) -> u64 {
        self.last_author.fetch_add(1, Relaxed) + 1
    }
}

impl Log {
    pub(crate) fn clear(&self) {
        self.used.store(0, SeqCst);
    }

    pub(crate) fn has_room(&self, entries: usize) -> bool {
        self.used.load(Relaxed) + entries <= ENTRIES
    }

    /// A transaction is about to commit: it has read, and will write, this much. None when the log
    /// is full.
    pub(crate) fn open(&self, author: u64, began: u64, touches: &[Touch]) -> Option<&Entry> {
        let at = self.used.load(Relaxed);
        let entry = self.entries.get(at)?;
        entry.phase.store(Phase::Open as u32, Relaxed);
        entry.counted.store(0, Relaxed);
        entry.author.store(author, Relaxed);
        entry.began.store(began, Relaxed);
        entry.ended.store(u64::MAX, Relaxed);
        for (at, word) in entry.touches.iter().enumerate() {
            word.store(touches.get(at).map_or(0, |touch| touch.pack()), Relaxed);
        }
        // Release: whoever sees it counted sees what it says.
        self.used.store(at + 1, Release);
        Some(entry)
    }

    /// All entries.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Seen> {
        self.entries[..self.used.load(Acquire)].iter().map(Entry::look)
    }

    /// Forgets all but the last entry, and that as well unless it is open. `counted` are the
    /// authors of which a judge has seen that they have committed.
    pub(crate) fn keep_the_open_one(&self, counted: &[u64]) {
        let used = self.used.load(Acquire);
        let Some(last) = used.checked_sub(1) else { return };
        let seen = self.entries[last].look();
        if seen.phase != Phase::Open {
            return self.clear();
        }
        // Its author has a reference to the entry, and goes on from there.
        for entry in &self.entries[..last] {
            entry.counted.store(0, Relaxed);
            entry.settle(Phase::Refused);
        }
        let is_counted = counted.contains(&seen.author);
        self.entries[last].counted.fetch_or(u32::from(is_counted), Relaxed);
    }
}

impl Entry {
    /// What it has published came after this version.
    pub(crate) fn came_after(&self, touch: Touch) {
        self.touches[0].store(touch.pack(), Relaxed);
    }

    /// How it ended.
    pub(crate) fn settle(&self, phase: Phase) {
        self.ended.store(now_ns(), Relaxed);
        self.phase.store(phase as u32, Release);
    }

    fn look(&self) -> Seen {
        let phase = match self.phase.load(Acquire) {
            0 => Phase::Open,
            1 => Phase::Committed,
            _ => Phase::Refused,
        };
        let touches = self.touches.iter().filter_map(|word| Touch::unpack(word.load(Relaxed)));
        Seen {
            phase,
            counted: self.counted.load(Relaxed) != 0,
            author: self.author.load(Relaxed),
            began: self.began.load(Relaxed),
            ended: self.ended.load(Relaxed),
            touches: touches.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Shared;

    #[test]
    fn an_entry_says_what_was_put_in_and_only_an_open_one_outlives_a_judgement() {
        let ledger = Shared::<Ledger>::new();
        let log = &ledger.logs[1][1];
        let touches =
            [Touch::write(0, 7), Touch::read(STATES - 1, 0), Touch::publish(PUBLISHED, 9)];
        log.open(1, 10, &touches).unwrap().settle(Phase::Committed);
        let entry = log.open(2, 20, &touches[..1]).unwrap();
        let seen: Vec<_> = log.entries().collect();
        assert_eq!((seen[0].phase, seen[1].phase), (Phase::Committed, Phase::Open));
        assert_eq!((seen[0].touches.as_slice(), seen[1].began), (touches.as_slice(), 20));
        log.keep_the_open_one(&[2]);
        let phases: Vec<_> = log.entries().map(|seen| (seen.phase, seen.counted)).collect();
        assert_eq!(phases, [(Phase::Refused, false), (Phase::Open, true)]);
        entry.settle(Phase::Refused);
        log.keep_the_open_one(&[]);
        assert_eq!(log.entries().count(), 0);
    }

    #[test]
    fn a_full_log_takes_no_more() {
        let ledger = Shared::<Ledger>::new();
        let log = &ledger.logs[0][0];
        (0..ENTRIES).for_each(|at| assert!(log.open(at as u64, 0, &[]).is_some()));
        assert!(!log.has_room(1) && log.open(0, 0, &[]).is_none());
    }
}
