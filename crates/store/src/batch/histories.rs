//! Random histories of stores, of either kind, in which batches have parts in several shards.

use std::collections::BTreeMap;

use mainstay_base::Rng;
use mainstay_sim::DiskFaults;

use crate::{
    Change, Durability, Result as StoreResult,
    killed::{be_mortal, mortal},
    machine::{Machine, SOUND, disk},
    planted::{Fault, plant},
};

pub(crate) const SHARDS: u32 = 4;
/// Keys of a shard. The first has the number of the last write, so that no two states are equal.
const KEYS: usize = 5;
pub(crate) const VALUE: usize = 300;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;
type Planned = Vec<(u32, Vec<(Vec<u8>, Option<Vec<u8>>)>)>;

/// A store of either kind.
pub(crate) trait Kind: Sized {
    fn create(machine: Machine) -> Self;
    fn open(machine: Machine) -> StoreResult<Self>;
    fn shard(&self, key: &[u8]) -> u32;
    fn batch(&self, changes: &[Change<'_>], how: Durability) -> StoreResult<()>;
    fn batch_across(&self, changes: &[Change<'_>]) -> StoreResult<()>;
    fn for_each(&self, show: impl FnMut(&[u8], &[u8])) -> StoreResult<()>;
    /// What is done from time to time; none of it may matter.
    fn tend(&self);
    fn compact(&self);
    fn has_given_up(&self, shard: usize) -> bool;
    fn close(self);
    /// Records, as who only looks counts them, if that can be told.
    fn counted(_: Machine) -> Option<u64> {
        None
    }
}

/// What both kinds call the same.
macro_rules! alike {
    () => {
        fn shard(&self, key: &[u8]) -> u32 {
            self.shard(key).unwrap()
        }

        fn batch(&self, changes: &[Change<'_>], how: Durability) -> Result<()> {
            self.batch(changes, how).map(drop)
        }

        fn batch_across(&self, changes: &[Change<'_>]) -> Result<()> {
            self.batch_across(changes).map(drop)
        }

        fn for_each(&self, show: impl FnMut(&[u8], &[u8])) -> Result<()> {
            self.for_each(show)
        }

        fn tend(&self) {
            let _may_fail = self.tend();
        }

        fn compact(&self) {
            let _may_fail = self.compact();
        }

        fn has_given_up(&self, shard: usize) -> bool {
            self.stats()[shard].poisoned.is_some()
        }

        fn close(self) {
            let _may_fail = self.close();
        }
    };
}
pub(crate) use alike;

/// Keys of each shard.
pub(crate) fn keys(shard_of: impl Fn(&[u8]) -> u32) -> Vec<Vec<Vec<u8>>> {
    let mut keys = vec![Vec::new(); SHARDS as usize];
    for number in 0..200_u16 {
        let key = number.to_le_bytes().to_vec();
        let of = &mut keys[shard_of(&key) as usize];
        if of.len() < KEYS {
            of.push(key);
        }
    }
    assert!(keys.iter().all(|of| of.len() == KEYS));
    keys
}

/// What a shard may look like: its states by the number of writes (also of those that failed and may
/// be there), how many were acknowledged, and how many are durable.
#[derive(Clone)]
struct Model {
    states: Vec<Records>,
    written: usize,
    durable: usize,
}

pub(crate) struct History<S> {
    machine: Machine,
    store: Option<S>,
    keys: Vec<Vec<Vec<u8>>>,
    models: Vec<Model>,
    /// Batches: in each shard that has a part, the state it leads to.
    batches: Vec<Vec<(u32, usize)>>,
    rng: Rng,
    number: u64,
    images: u64,
    /// Of them, those that lost a batch that was begun, and those that have one in doubt.
    lost: u64,
    kept: u64,
}

impl<S: Kind> History<S> {
    fn new(seed: u64, has_memory: bool) -> Self {
        let machine = Machine::new(disk(seed), has_memory);
        let store = S::create(machine.clone());
        let model = Model { states: vec![Records::new()], written: 0, durable: 0 };
        Self {
            machine,
            keys: keys(|key| store.shard(key)),
            store: Some(store),
            models: vec![model; SHARDS as usize],
            batches: Vec::new(),
            rng: Rng::seeded(seed),
            number: 0,
            images: 0,
            lost: 0,
            kept: 0,
        }
    }

    /// Which state each shard is in, if it may be, and no batch is there in part.
    fn judge(&self, store: &S, was_killed: bool) -> Result<Vec<usize>, String> {
        let mut shards = vec![Records::new(); SHARDS as usize];
        store
            .for_each(|key, value| {
                let of = &mut shards[store.shard(key) as usize];
                assert!(of.insert(key.to_vec(), value.to_vec()).is_none(), "a key twice");
            })
            .map_err(|error| error.to_string())?;
        let mut at = Vec::new();
        for (shard, (found, model)) in shards.into_iter().zip(&self.models).enumerate() {
            let first = if was_killed { model.written } else { model.durable };
            let state = model.states.iter().rposition(|state| *state == found);
            match state.filter(|state| *state >= first) {
                Some(state) => at.push(state),
                None => {
                    return Err(format!("shard {shard} is as of {state:?}, not {first} or later"));
                }
            }
        }
        for batch in &self.batches {
            let made = batch.iter().filter(|(shard, state)| at[*shard as usize] >= *state).count();
            if made != 0 && made != batch.len() {
                return Err(format!("{made} of {} shards have their part, {at:?}", batch.len()));
            }
        }
        Ok(at)
    }

    fn cut(&mut self, count: usize) -> Result<(), String> {
        for image in self.machine.disk.crash_images(count) {
            self.images += 1;
            image.set_faults(SOUND);
            let machine = self.machine.after_power_cut(image, &[], &mut self.rng);
            let store = S::open(machine).map_err(|error| error.to_string())?;
            let at = self.judge(&store, false)?;
            let is_in_doubt = |of: &&Vec<(u32, usize)>| {
                of.iter().all(|(shard, state)| self.models[*shard as usize].written < *state)
            };
            for batch in self.batches.iter().filter(is_in_doubt) {
                let (shard, state) = batch[0];
                let is_there = at[shard as usize] >= state;
                *if is_there { &mut self.kept } else { &mut self.lost } += 1;
            }
        }
        Ok(())
    }

    /// Changes of one shard, or of several.
    fn plan(&mut self) -> Planned {
        let mut of: Vec<u32> = (0..SHARDS).filter(|_| self.rng.below(2) == 0).collect();
        if of.is_empty() || self.rng.below(2) == 0 {
            of = vec![self.rng.below(u64::from(SHARDS)) as u32];
        }
        self.number += 1;
        let mut number = vec![0; VALUE];
        number[..8].copy_from_slice(&self.number.to_le_bytes());
        let mut changes = |shard: &u32| {
            let keys = &self.keys[*shard as usize];
            let mut changes = vec![(keys[0].clone(), Some(number.clone()))];
            for key in &keys[1..] {
                let value = vec![self.rng.next_u64() as u8; VALUE];
                match self.rng.below(6) {
                    0 => changes.push((key.clone(), None)),
                    1 => changes.push((key.clone(), Some(value))),
                    _ => {}
                }
            }
            (*shard, changes)
        };
        of.iter().map(&mut changes).collect()
    }

    fn write(&mut self) {
        let Some(store) = self.store.take() else { return };
        let planned = self.plan();
        let changes: Vec<Change<'_>> =
            planned.iter().flat_map(|(_, changes)| made(changes)).collect();
        let how = [Durability::Memory, Durability::Group][(self.rng.below(4) == 0) as usize];
        let is_one = planned.len() == 1;
        let result = if is_one { store.batch(&changes, how) } else { store.batch_across(&changes) };
        // What was refused is nowhere. It is in doubt, as a whole, if all shards gave up because of it.
        let had_given_up = |model: &Model| model.written + 1 < model.states.len();
        let of = || planned.iter().map(|(shard, _)| *shard as usize);
        let refused = result.is_err()
            && (of().any(|shard| had_given_up(&self.models[shard]))
                || of().any(|shard| !store.has_given_up(shard)));
        if !refused {
            self.note(
                &planned,
                result.is_ok(),
                result.is_ok() && (!is_one || how != Durability::Memory),
            );
        }
        self.store = Some(store);
    }

    /// Notes the states that a write leads to.
    fn note(&mut self, planned: &Planned, written: bool, durable: bool) {
        let mut batch = Vec::new();
        for (shard, changes) in planned {
            let model = &mut self.models[*shard as usize];
            let mut next = model.states.last().cloned().unwrap_or_default();
            for (key, value) in changes {
                match value {
                    Some(value) => next.insert(key.clone(), value.clone()),
                    None => next.remove(key),
                };
            }
            model.states.push(next);
            let last = model.states.len() - 1;
            if written {
                model.written = last;
            }
            if durable {
                model.durable = last;
            }
            batch.push((*shard, last));
        }
        self.batches.push(batch);
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.below(40) {
            0 => {
                if let Some(store) = &self.store {
                    store.tend();
                }
            }
            1 => {
                if let Some(store) = &self.store {
                    store.compact();
                }
            }
            2 => self.machine.disk.set_faults(DiskFaults {
                sync_error_ppm: 150_000,
                write_error_ppm: 20_000,
                ..SOUND
            }),
            3..9 => {
                // Dead in the middle of a write, and what the disk has then.
                self.machine.disk.die_after(self.rng.below(14));
                self.write();
                self.cut(6)?;
                self.restart()?;
            }
            9..11 => self.restart()?,
            _ => self.write(),
        }
        if self.rng.below(3) == 0 { self.cut(2) } else { Ok(()) }
    }

    fn restart(&mut self) -> Result<(), String> {
        if let Some(store) = self.store.take()
            && self.rng.below(4) == 0
        {
            store.close();
        }
        self.machine.disk.kill();
        self.machine.disk.set_faults(SOUND);
        let counted = S::counted(self.machine.clone());
        let store = S::open(self.machine.clone()).map_err(|e| e.to_string())?;
        let at = self.judge(&store, true)?;
        if let Some(counted) = counted {
            let mut count = 0;
            store.for_each(|_, _| count += 1).map_err(|error| error.to_string())?;
            if count != counted {
                return Err(format!("{count} records, and who only looks counts {counted}"));
            }
        }
        self.forget(at);
        self.store = Some(store);
        Ok(())
    }

    /// What is there now is where all begins anew.
    fn forget(&mut self, at: Vec<usize>) {
        for (model, at) in self.models.iter_mut().zip(at) {
            model.states.drain(at + 1..);
            model.states.drain(..at);
            (model.written, model.durable) = (0, 0);
        }
        self.batches.clear();
    }
}

pub(crate) fn made(changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> impl Iterator<Item = Change<'_>> {
    changes.iter().map(|(key, value)| Change::of(key, value.as_deref()))
}

/// Disks looked at, how many lost or kept a batch that was in doubt, and what was wrong first.
pub(crate) fn run<S: Kind>(
    seeds: std::ops::Range<u64>,
    steps: usize,
) -> ((u64, u64, u64), Option<String>) {
    let mut seen = (0, 0, 0);
    for seed in seeds {
        let mut history = History::<S>::new(seed, seed.is_multiple_of(2));
        for step in 0..steps {
            let done = history.step();
            if let Err(what) = done {
                return (seen, Some(format!("seed {seed}, step {step}: {what}")));
            }
        }
        seen = (seen.0 + history.images, seen.1 + history.lost, seen.2 + history.kept);
    }
    (seen, None)
}

/// The faults with which nothing was ever wrong.
pub(crate) fn not_found<S: Kind>(faults: &[Fault]) -> Vec<Fault> {
    let is_missed = |fault: &Fault| {
        plant(Some(*fault));
        let (seen, wrong) = run::<S>(0..200, 120);
        plant(None);
        println!("{fault:?}: {seen:?}, {wrong:?}");
        wrong.is_none()
    };
    faults.iter().copied().filter(is_missed).collect()
}

/// All faults of batches.
pub(crate) const FAULTS: [Fault; 5] = [
    Fault::BatchUnmarked,
    Fault::BatchBehindGap,
    Fault::BatchUnsynced,
    Fault::BatchUnsettled,
    Fault::BatchForgotten,
];

/// Deaths before each store to the memory; what was wrong first.
pub(crate) fn die<S: Kind>(seeds: std::ops::Range<u64>, steps: u64) -> (u64, Option<String>) {
    be_mortal();
    let mut deaths = 0;
    for seed in seeds {
        let mut history = History::<S>::new(seed, true);
        for step in 0..steps {
            let planned = history.plan();
            let changes: Vec<Change<'_>> =
                planned.iter().flat_map(|(_, changes)| made(changes)).collect();
            let Some(store) = history.store.take() else { break };
            let done = mortal(step % 90, || store.batch_across(&changes));
            history.note(&planned, matches!(done, Some(Ok(()))), false);
            drop(store);
            if done.is_none() {
                deaths += 1;
            }
            // The one who finishes it may die as well.
            let machine = history.machine.clone();
            let steps = if history.rng.below(3) == 0 { history.rng.below(60) } else { u64::MAX };
            machine.disk.kill();
            deaths += u64::from(mortal(steps, || drop(S::open(machine))).is_none());
            if let Err(what) = history.restart() {
                return (deaths, Some(format!("seed {seed}, step {step}: {what}")));
            }
        }
    }
    (deaths, None)
}
