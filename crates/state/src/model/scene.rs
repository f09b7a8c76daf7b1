//! States and records as the models have them.

use crate::{
    limits::RECORDS_PER_LEASE,
    protocol::{Words, World},
    word::{Id, NOTHING, Phase, Plain, Status},
};
use mainstay_shm::Atomic64;
use std::{
    ops::Deref,
    sync::atomic::Ordering::{self, Relaxed, Release},
};

/// A checker's words, and what else differs between the checkers.
pub(super) trait Checker: Sized + 'static {
    type Word: Atomic64;
    type Shared<T>: Deref<Target = T> + Clone;

    fn fence(order: Ordering);
    fn pause();
}

/// The words of a state.
pub(super) struct State<C: Checker> {
    id: u64,
    current: C::Word,
    owners: Vec<C::Word>,
    versions: Vec<C::Word>,
    keepers: Vec<C::Word>,
    announced: Vec<C::Word>,
    /// Whoever claims sees no lines at all: a fault.
    pub(super) is_blind: bool,
}

impl<C: Checker> State<C> {
    /// Version 1 in slot 0; a line for each of `ids`.
    pub(super) fn new(id: u64, slots: usize, ids: &[Id], word: impl Fn(u64) -> C::Word) -> Self {
        let fill = |count: usize, value: u64| (0..count).map(|_| word(value)).collect();
        Self {
            id,
            current: word(Plain::new(1, 0).bits()),
            owners: fill(slots, 0),
            versions: (0..slots).map(|slot| word(u64::from(slot == 0))).collect(),
            keepers: ids.iter().map(|id| word(id.0)).collect(),
            announced: fill(ids.len(), NOTHING),
            is_blind: false,
        }
    }

    pub(super) fn set_current(&mut self, word: C::Word) {
        self.current = word;
    }

    pub(super) fn unpin(&self, line: u32) {
        self.announced(line).store(NOTHING, Release);
    }

    pub(super) fn keep(&self, slot: u32, owner: Id) {
        self.owner(slot).store(owner.0, Release);
    }

    pub(super) fn release(&self, slot: u32) {
        self.owner(slot).store(0, Release);
    }

    pub(super) fn seal(&self, slot: u32, version: u64) {
        self.version(slot).store(version, Release);
    }
}

impl<C: Checker> Words for State<C> {
    type Word = C::Word;

    fn id(&self) -> u64 {
        self.id
    }

    fn current(&self) -> &C::Word {
        &self.current
    }

    fn slots(&self) -> u32 {
        self.owners.len() as u32
    }

    fn owner(&self, slot: u32) -> &C::Word {
        &self.owners[slot as usize]
    }

    fn version(&self, slot: u32) -> &C::Word {
        &self.versions[slot as usize]
    }

    fn lines(&self) -> u32 {
        if self.is_blind { 0 } else { self.keepers.len() as u32 }
    }

    fn keeper(&self, line: u32) -> &C::Word {
        &self.keepers[line as usize]
    }

    fn announced(&self, line: u32) -> &C::Word {
        &self.announced[line as usize]
    }

    fn fence(order: Ordering) {
        C::fence(order);
    }
}

/// A record; lease `n` of a model has record `8 n` only, the others stay free.
pub(super) struct Record<C: Checker> {
    status: C::Word,
    count: C::Word,
    entries: [[C::Word; 2]; 3],
}

impl<C: Checker> Record<C> {
    pub(super) fn new(word: impl Fn(u64) -> C::Word) -> Self {
        let free = Status::new(0, Phase::Free).0;
        let pair = || [word(0), word(0)];
        Self { status: word(free), count: word(0), entries: [pair(), pair(), pair()] }
    }
}

/// Who may read the dead: which ids are.
pub(super) type Deaths = Box<dyn Fn(Id) -> bool + Send + Sync>;

/// A process's view of the world: the records, and the states that it maps.
pub(super) struct View<C: Checker> {
    pub(super) records: C::Shared<Vec<Record<C>>>,
    pub(super) states: Vec<C::Shared<State<C>>>,
    pub(super) deaths: Deaths,
    /// Records that nobody uses: what stands in for the seven others of each lease.
    pub(super) unused: Record<C>,
    /// Never sees that a record has anything to be ended or helped: a fault.
    pub(super) sees_no_records: bool,
}

impl<C: Checker> View<C> {
    fn record(&self, record: u32) -> &Record<C> {
        let known = self.records.get((record / RECORDS_PER_LEASE) as usize);
        let is_first = record.is_multiple_of(RECORDS_PER_LEASE);
        known.filter(|_| is_first && !self.sees_no_records).unwrap_or(&self.unused)
    }
}

impl<C: Checker> World for View<C> {
    type Word = C::Word;
    type State = State<C>;
    type Found = C::Shared<State<C>>;

    fn status(&self, record: u32) -> &C::Word {
        &self.record(record).status
    }

    fn count(&self, record: u32) -> &C::Word {
        &self.record(record).count
    }

    fn entry(&self, record: u32, index: usize) -> (&C::Word, &C::Word) {
        let [base, target] = &self.record(record).entries[index];
        (base, target)
    }

    fn find(&self, id: u64) -> Option<C::Shared<State<C>>> {
        self.states.iter().find(|state| state.id == id).cloned()
    }

    fn is_dead(&self, id: Id) -> bool {
        (self.deaths)(id)
    }

    fn changed(&self, _: &State<C>) {}

    fn pause(&self) {
        C::pause();
    }
}

/// The word of a state that nobody is changing any more.
pub(super) fn at_rest<C: Checker>(state: &State<C>) -> Plain {
    Plain::of(state.current.load(Relaxed)).expect("a plain word")
}
