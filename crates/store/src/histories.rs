//! Random histories of a store, of either kind, and what its shards may look like after a kill or a
//! power cut in the middle of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use crate::{
    Change, Durability, Error,
    planted::{Fault, plant},
};

pub(crate) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a shard may look like: all its states, by the number of writes (also those that failed, and
/// may be there), which was the last that was acknowledged, and the last known to be durable.
#[derive(Clone)]
pub(crate) struct Model {
    /// What it was before the last opening.
    past: Vec<Records>,
    states: Vec<Records>,
    written: usize,
    durable: usize,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self { past: Vec::new(), states: vec![Records::new()], written: 0, durable: 0 }
    }

    /// Notes what a write led to.
    pub(crate) fn learn<T>(
        &mut self,
        changes: &[Change<'_>],
        durability: Durability,
        result: &Result<T, Error>,
    ) {
        // Refused for want of room it is nowhere; after another error it may be on the disk.
        if matches!(result, Err(Error::Io { .. })) {
            return;
        }
        let mut next = self.states.last().cloned().unwrap_or_default();
        for change in changes {
            match change {
                Change::Put(key, value) => next.insert(key.to_vec(), value.to_vec()),
                Change::Delete(key) => next.remove(*key),
            };
        }
        self.states.push(next);
        if result.is_ok() {
            self.written = self.states.len() - 1;
            if durability != Durability::Memory {
                self.durable = self.written;
            }
        }
    }

    /// All that was acknowledged is durable.
    pub(crate) fn is_synced(&mut self) {
        self.durable = self.written;
    }

    /// Which of the states that are allowed it is in. A kill loses no write at all.
    fn judge(&self, found: &Records, was_killed: bool) -> Result<usize, String> {
        let first = if was_killed { self.written } else { self.durable };
        let allowed = first..self.states.len();
        if let Some(state) = allowed.clone().rev().find(|at| self.states[*at] == *found) {
            return Ok(state);
        }
        let was = self.states.iter().rposition(|state| state == found);
        let differ = |at: usize| {
            let keys = found.keys().chain(self.states[at].keys());
            let differ = keys.filter(|key| found.get(*key) != self.states[at].get(*key));
            differ.map(|key| key[0]).collect::<BTreeSet<_>>()
        };
        let differ: Vec<_> = allowed.clone().map(differ).collect();
        Err(format!("as of {was:?}, allowed {allowed:?}; keys that differ from these: {differ:?}"))
    }
}

/// Which of its states each shard is in.
pub(crate) fn judge(
    models: &[Model],
    found: &[Records],
    was_killed: bool,
) -> Result<Vec<usize>, String> {
    let of_shard = |(shard, (model, found)): (usize, (&Model, &Records))| {
        model.judge(found, was_killed).map_err(|what| format!("shard {shard} is {what}"))
    };
    models.iter().zip(found).enumerate().map(of_shard).collect()
}

/// What an opening has found is durable, and all there is.
pub(crate) fn go_on_from(models: &mut [Model], found: &[usize]) {
    for (model, at) in models.iter_mut().zip(found) {
        model.states.drain(at + 1..);
        model.past.extend(model.states.drain(..at));
        (model.written, model.durable) = (0, 0);
    }
}

/// What the disks of a history are found to be after a power cut, where one may write sectors to the
/// wrong place.
#[derive(Default)]
pub(crate) struct Misdirected {
    pub(crate) is_possible: bool,
    /// How many were told to be damaged.
    pub(crate) told: u64,
    /// How many lost their end, and did not tell.
    pub(crate) shortened: u64,
}

impl Misdirected {
    /// What a call said of such a disk; `None` if that it is damaged.
    pub(crate) fn look<T>(&mut self, done: Result<T, Error>) -> Result<Option<T>, String> {
        match done {
            Ok(found) => Ok(Some(found)),
            Err(Error::Damaged { .. } | Error::Misplaced { .. }) if self.is_possible => {
                self.told += 1;
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// As [`judge`]; but nothing may vouch for the last write that was synced, and where a sector came to
    /// be written over it, the log seems to end before. Even so it is as some write left it.
    pub(crate) fn judge(&mut self, models: &[Model], found: &[Records]) -> Result<(), String> {
        let judged = judge(models, found, false);
        let was = |(model, found): (&Model, &Records)| {
            model.past.iter().chain(&model.states).any(|state| state == found)
        };
        match judged {
            Err(_) if self.is_possible && models.iter().zip(found).all(was) => {
                self.shortened += 1;
                Ok(())
            }
            judged => judged.map(drop),
        }
    }
}

/// One random history.
pub(crate) trait History {
    /// One step, and after some of them a power cut, in several ways.
    fn step(&mut self) -> Result<(), String>;

    /// Disks that were opened after a power cut.
    fn images(&self) -> u64;

    /// Bytes that compaction gave back.
    fn freed(&self) -> u64 {
        0
    }

    /// Disks that were told to be damaged, and those that lost their end untold.
    fn told(&self) -> (u64, u64) {
        (0, 0)
    }
}

/// What many histories came to.
#[derive(Default)]
pub(crate) struct Ran {
    pub(crate) images: u64,
    pub(crate) freed: u64,
    pub(crate) told: (u64, u64),
    /// The first thing that was wrong.
    pub(crate) wrong: Option<String>,
}

const STEPS: usize = 150;

/// Runs the history that begins for each seed, until something is wrong.
pub(crate) fn run<H: History>(begin: fn(u64) -> H, seeds: Range<u64>) -> Ran {
    let mut ran = Ran::default();
    for seed in seeds {
        let mut history = begin(seed);
        let wrong = |step| Some(format!("seed {seed}, step {step}: {}", history.step().err()?));
        ran.wrong = (0..STEPS).find_map(wrong);
        ran.images += history.images();
        ran.freed += history.freed();
        let told = history.told();
        ran.told = (ran.told.0 + told.0, ran.told.1 + told.1);
        if ran.wrong.is_some() {
            break;
        }
    }
    ran
}

/// The faults with which nothing was ever wrong.
pub(crate) fn not_found<H: History>(begin: fn(u64) -> H, faults: &[Fault]) -> Vec<Fault> {
    let is_missed = |fault: &Fault| {
        plant(Some(*fault));
        let Ran { images, wrong, .. } = run(begin, 0..300);
        plant(None);
        println!("{fault:?}: {images} disks, {wrong:?}");
        wrong.is_none()
    };
    faults.iter().copied().filter(is_missed).collect()
}
