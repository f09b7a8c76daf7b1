//! Deaths before any store to the memory of a shard, in the middle of many histories, with another
//! process going on; and the faults that must be found this way.
//!
//! Whoever dies here panics out of the store, which then changes nothing any more. The next one
//! finds the memory as it was at that moment, as after SIGKILL.

use std::{
    cell::Cell,
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    sync::Once,
};

use mainstay_base::Rng;
use mainstay_shm::hook;
use mainstay_sim::Disk;

use crate::{
    Change, Durability, Options, RawStore,
    limits::SEGMENT_BYTES_MIN,
    machine::Machine,
    planted::{Fault, plant},
};

const VALUE: usize = 100;
const KEYS: u64 = 700;
/// The most stores before which a death is tried in an operation.
const STEPS: u64 = 80;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

thread_local! {
    /// Stores that this thread still makes.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Death;

pub(crate) fn be_mortal() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        hook::install(|_| match LEFT.get() {
            Some(0) => {
                LEFT.set(None);
                panic_any(Death);
            }
            Some(left) => LEFT.set(Some(left - 1)),
            None => {}
        });
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Death>() {
                usual(info);
            }
        }));
    });
}

/// Does something that may die before its store number `steps`. `None` if it did.
pub(crate) fn mortal<T>(steps: u64, act: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(Some(steps));
    let done = catch_unwind(AssertUnwindSafe(act));
    LEFT.set(None);
    match done {
        Ok(value) => Some(value),
        Err(death) if death.is::<Death>() => None,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// How long the longest writes are.
#[derive(Clone, Copy)]
enum Longest {
    /// Nearly as long as a segment, and all of them go through the ring.
    InRing,
    /// Too long for it.
    PastRing,
}

impl Longest {
    fn options(self) -> Options {
        let segment_bytes = match self {
            Self::InRing => SEGMENT_BYTES_MIN,
            Self::PastRing => 160 << 10,
        };
        Options { shards: 1, segment_bytes, ..Options::default() }
    }

    fn changes(self) -> usize {
        match self {
            Self::InRing => 110,
            // With some deletes among them.
            Self::PastRing => 1_200,
        }
    }
}

fn contents(store: &RawStore<Machine>) -> Result<Records, String> {
    let (mut records, mut twice) = (Records::new(), None);
    let seen = store.for_each(|key, value| {
        if records.insert(key.to_vec(), value.to_vec()).is_some() {
            twice = Some(key.to_vec());
        }
    });
    seen.map_err(|error| error.to_string())?;
    match twice {
        None => Ok(records),
        Some(key) => Err(format!("{key:?} is there twice")),
    }
}

struct History {
    longest: Longest,
    machine: Machine,
    store: RawStore<Machine>,
    records: Records,
    rng: Rng,
    deaths: u64,
}

impl History {
    fn new(seed: u64, longest: Longest) -> Self {
        let machine = Machine::new(Disk::new(seed), true);
        let store = RawStore::create(machine.clone(), 2, VALUE, &longest.options()).unwrap();
        Self { longest, machine, store, records: Records::new(), rng: Rng::seeded(seed), deaths: 0 }
    }

    /// Another process opens the store, and may die doing so.
    fn reopen(&mut self) -> Result<(), String> {
        loop {
            self.machine.disk.kill();
            let steps = if self.rng.below(4) == 0 { self.rng.below(40) } else { u64::MAX };
            let machine = self.machine.clone();
            match mortal(steps, || RawStore::open(machine, &self.longest.options())) {
                Some(Ok(store)) => {
                    if !store.stats()[0].adopted {
                        return Err("the memory was not believed".to_owned());
                    }
                    self.store = store;
                    return Ok(());
                }
                Some(Err(error)) => return Err(error.to_string()),
                None => self.deaths += 1,
            }
        }
    }

    fn step(&mut self, number: u64) -> Result<(), String> {
        let steps = number % STEPS;
        let mut next = self.records.clone();
        let kind = self.rng.below(40);
        let died = match kind {
            0 => mortal(steps, || self.store.compact().unwrap()).is_none(),
            1..=3 => mortal(steps, || self.store.sync().unwrap()).is_none(),
            _ => {
                let most = self.longest.changes();
                let count = if kind == 4 { most as u64 } else { 1 + self.rng.below(3) };
                let changes: Vec<(Vec<u8>, Option<Vec<u8>>)> = (0..count)
                    .map(|_| {
                        let key = (self.rng.below(KEYS) as u16).to_le_bytes().to_vec();
                        let value = vec![self.rng.next_u64() as u8; VALUE];
                        (key, (self.rng.below(3) > 0).then_some(value))
                    })
                    .collect();
                for (key, value) in &changes {
                    match value {
                        Some(value) => next.insert(key.clone(), value.clone()),
                        None => next.remove(key),
                    };
                }
                let changes: Vec<Change<'_>> =
                    changes.iter().map(|(key, value)| Change::of(key, value.as_deref())).collect();
                let how =
                    [Durability::Memory, Durability::Group][(self.rng.below(4) == 0) as usize];
                mortal(steps, || self.store.batch(&changes, how).unwrap()).is_none()
            }
        };
        if !died {
            self.records = next;
            return Ok(());
        }
        self.deaths += 1;
        self.reopen()?;
        let found = contents(&self.store)?;
        if found != self.records && found != next {
            return Err(format!("neither as before the write nor as after it ({kind})"));
        }
        self.records = found;
        if self.rng.below(16) == 0 {
            self.store.verify().map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

fn run(longest: Longest, seeds: Range<u64>, steps: u64) -> (u64, Option<String>) {
    be_mortal();
    let mut deaths = 0;
    for seed in seeds {
        let mut history = History::new(seed, longest);
        for step in 0..steps {
            if let Err(what) = history.step(step) {
                let what = format!("seed {seed}, step {step}: {what}");
                return (deaths + history.deaths, Some(what));
            }
        }
        deaths += history.deaths;
    }
    (deaths, None)
}

#[test]
fn a10_a_death_before_any_store_leaves_each_write_made_or_not_and_none_is_lost() {
    for (longest, seeds, least) in [(Longest::InRing, 0..4, 5_000), (Longest::PastRing, 4..5, 500)]
    {
        let (deaths, wrong) = run(longest, seeds, 6_000);
        println!("died {deaths} times");
        assert_eq!(wrong, None);
        assert!(deaths > least, "{deaths}");
    }
}

#[test]
fn a10_every_planted_fault_is_found_by_deaths() {
    let faults = [
        (Fault::CommitLate, Longest::InRing),
        (Fault::RingLate, Longest::InRing),
        (Fault::LongLate, Longest::PastRing),
        (Fault::AppliedEarly, Longest::InRing),
        (Fault::SweepLeftOut, Longest::InRing),
    ];
    let missed: Vec<Fault> = faults
        .into_iter()
        .filter(|(fault, longest)| {
            plant(Some(*fault));
            let (deaths, wrong) = run(*longest, 0..6, 6_000);
            plant(None);
            println!("{fault:?}: {deaths} deaths, {wrong:?}");
            wrong.is_none()
        })
        .map(|(fault, _)| fault)
        .collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
