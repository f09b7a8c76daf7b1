//! Batches over several shards under power cuts, deaths and refusals.

use std::{collections::BTreeMap, thread};

use mainstay_base::Rng;
use mainstay_sim::{Disk, DiskFaults};

use super::*;
use crate::{
    Durability, FixedStore, Found, OnDisk, Options, Position, Reached, Survey,
    killed::{be_mortal, mortal},
    limits::SEGMENT_BYTES_MIN,
    machine::Machine,
    planted::plant,
};

const SHARDS: u32 = 4;
/// Keys of a shard. The first has the number of the last write, so that no two states are equal.
const KEYS: usize = 5;
const VALUE: usize = 300;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;
type Planned = Vec<(u32, Vec<(Vec<u8>, Option<Vec<u8>>)>)>;

fn options() -> Options {
    Options { shards: SHARDS, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

/// Keys of each shard.
fn keys<F: Folder>(store: &RawStore<F>) -> Vec<Vec<Vec<u8>>> {
    let mut keys = vec![Vec::new(); SHARDS as usize];
    for number in 0..200_u16 {
        let key = number.to_le_bytes().to_vec();
        let of = &mut keys[store.shard(&key).unwrap() as usize];
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

struct History {
    machine: Machine,
    store: Option<RawStore<Machine>>,
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

impl History {
    fn new(seed: u64, has_memory: bool) -> Self {
        let machine = Machine::new(Disk::new(seed), has_memory);
        let store = RawStore::create(machine.clone(), 2, VALUE, &options()).unwrap();
        let model = Model { states: vec![Records::new()], written: 0, durable: 0 };
        Self {
            machine,
            keys: keys(&store),
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
    fn judge(&self, store: &RawStore<Machine>, was_killed: bool) -> Result<Vec<usize>, String> {
        let mut shards = vec![Records::new(); SHARDS as usize];
        store
            .for_each(|key, value| {
                let of = &mut shards[store.shard(key).unwrap() as usize];
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
            image.set_faults(DiskFaults::NONE);
            let machine = self.machine.after_power_cut(image, &[], &mut self.rng);
            let store = RawStore::open(machine, &options()).map_err(|error| error.to_string())?;
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
        let result = if is_one {
            store.batch(&changes, how).map(drop)
        } else {
            store.batch_across(&changes).map(drop)
        };
        // What was refused is nowhere. It is in doubt, as a whole, if all shards gave up because of it.
        let had_given_up = |model: &Model| model.written + 1 < model.states.len();
        let of = || planned.iter().map(|(shard, _)| *shard as usize);
        let stats = store.stats();
        let refused = result.is_err()
            && (of().any(|shard| had_given_up(&self.models[shard]))
                || of().any(|shard| stats[shard].poisoned.is_none()));
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
                    let _may_fail = store.tend();
                }
            }
            1 => {
                if let Some(store) = &self.store {
                    let _may_fail = store.compact();
                }
            }
            2 => self.machine.disk.set_faults(DiskFaults {
                sync_error_ppm: 150_000,
                write_error_ppm: 20_000,
                ..DiskFaults::NONE
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
        self.store = None;
        self.machine.disk.kill();
        self.machine.disk.set_faults(DiskFaults::NONE);
        let store = RawStore::open(self.machine.clone(), &options()).map_err(|e| e.to_string())?;
        let at = self.judge(&store, true)?;
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

fn made(changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> impl Iterator<Item = Change<'_>> {
    changes.iter().map(|(key, value)| Change::of(key, value.as_deref()))
}

/// Disks looked at, how many lost or kept a batch that was in doubt, and what was wrong first.
fn run(seeds: std::ops::Range<u64>, steps: usize) -> ((u64, u64, u64), Option<String>) {
    let mut seen = (0, 0, 0);
    for seed in seeds {
        let mut history = History::new(seed, seed.is_multiple_of(2));
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

#[test]
fn a12_after_any_power_cut_a_batch_is_there_in_all_of_its_shards_or_in_none() {
    let ((images, lost, kept), wrong) = run(0..60, 120);
    println!("opened {images} disks; of batches in doubt {lost} were lost and {kept} kept, whole");
    assert_eq!(wrong, None);
    assert!(images > 4_000 && lost > 300 && kept > 300, "{images} {lost} {kept}");
}

#[test]
fn a12_every_planted_fault_of_batches_is_found() {
    let faults = [
        Fault::BatchUnmarked,
        Fault::BatchBehindGap,
        Fault::BatchUnsynced,
        Fault::BatchUnsettled,
        Fault::BatchForgotten,
    ];
    let missed: Vec<Fault> = faults
        .into_iter()
        .filter(|fault| {
            plant(Some(*fault));
            let (seen, wrong) = run(0..200, 120);
            plant(None);
            println!("{fault:?}: {seen:?}, {wrong:?}");
            wrong.is_none()
        })
        .collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// Deaths before each store to the memory; what was wrong first.
fn die(seeds: std::ops::Range<u64>, steps: u64) -> (u64, Option<String>) {
    be_mortal();
    let mut deaths = 0;
    for seed in seeds {
        let mut history = History::new(seed, true);
        for step in 0..steps {
            let planned = history.plan();
            let changes: Vec<Change<'_>> =
                planned.iter().flat_map(|(_, changes)| made(changes)).collect();
            let Some(store) = history.store.take() else { break };
            let done = mortal(step % 90, || store.batch_across(&changes).map(drop));
            history.note(&planned, matches!(done, Some(Ok(()))), false);
            drop(store);
            if done.is_none() {
                deaths += 1;
            }
            // The one who finishes it may die as well.
            let machine = history.machine.clone();
            let steps = if history.rng.below(3) == 0 { history.rng.below(60) } else { u64::MAX };
            machine.disk.kill();
            deaths +=
                u64::from(mortal(steps, || drop(RawStore::open(machine, &options()))).is_none());
            if let Err(what) = history.restart() {
                return (deaths, Some(format!("seed {seed}, step {step}: {what}")));
            }
        }
    }
    (deaths, None)
}

#[test]
fn a12_a_death_before_any_store_leaves_all_of_a_batch_or_nothing() {
    let (deaths, wrong) = die(0..3, 700);
    println!("died {deaths} times");
    assert_eq!(wrong, None);
    assert!(deaths > 800, "{deaths}");
    plant(Some(Fault::BatchUnmarked));
    let (_, wrong) = die(0..3, 700);
    plant(None);
    assert!(wrong.is_some(), "a batch without its parts was not found");
}

#[test]
fn what_one_shard_refuses_no_shard_of_the_batch_gets() {
    let disk = Disk::new(1);
    let store = RawStore::create(disk.clone(), 2, VALUE, &options()).unwrap();
    let keys = keys(&store);
    let value = [7; VALUE];
    let all: Vec<Change<'_>> = keys.iter().map(|of| Change::Put(&of[0], &value)).collect();
    store.batch_across(&all).unwrap();
    drop(store);
    let few = Options { records_max: 1, ..options() };
    let store = RawStore::open(disk.clone(), &few).unwrap();
    let before = sequences(&store);
    // The last shard is the one without room.
    let mut changes: Vec<Change<'_>> = keys.iter().map(|of| Change::Delete(&of[0])).collect();
    changes[3] = Change::Put(&keys[3][1], &value);
    assert!(matches!(store.batch_across(&changes), Err(Error::Full { shard: 3, max: 1 })));
    changes[3] = Change::Put(&keys[3][0], &value[1..]);
    assert!(matches!(store.batch_across(&changes), Err(Error::OutOfLimits { .. })));
    changes[3] = Change::Delete(b"abc");
    assert!(matches!(store.batch_across(&changes), Err(Error::OutOfLimits { .. })));
    assert_eq!(store.batch_across(&[]).unwrap(), []);
    // No room for another segment of some shard.
    while store.put(&keys[2][0], &value, Durability::Memory).unwrap().sequence % 40 != 30 {}
    let full = sequences(&store);
    disk.set_faults(DiskFaults { bytes_max: disk_bytes(&disk), ..DiskFaults::NONE });
    let refused = loop {
        let changes: Vec<Change<'_>> = keys.iter().map(|of| Change::Put(&of[0], &value)).collect();
        let before = sequences(&store);
        if let Err(error) = store.batch_across(&changes) {
            assert_eq!(before, sequences(&store));
            break error;
        }
    };
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
    assert!(full.iter().zip(sequences(&store)).all(|(full, now)| now >= *full) && before != full);
    disk.set_faults(DiskFaults::NONE);
    store.batch_across(&all).unwrap();
    store.verify().unwrap();
}

fn sequences(store: &RawStore<Disk>) -> Vec<u64> {
    store.stats().iter().map(|shard| shard.sequence).collect()
}

fn disk_bytes(disk: &Disk) -> u64 {
    use mainstay_sim::Storage;
    disk.names().iter().map(|name| disk.file(name).len().unwrap()).sum()
}

#[test]
fn a_batch_takes_all_of_a_segment_and_not_a_byte_more() {
    // A frame of 48 bytes; a mark and a length of 5; for each other shard 20; a change has a byte,
    // a key of 2 and a value.
    let room = SEGMENT_BYTES_MIN - 4096 - 48 - 5 - 20;
    let largest = |change: u64| (room / change, room % change);
    let value =
        (1..).find(|value| largest(3 + value).1 == 0 && largest(3 + value).0 < 200).unwrap();
    let two = Options { shards: 2, ..options() };
    let store = RawStore::create(Disk::new(1), 2, value as usize, &two).unwrap();
    let mut of: Vec<Vec<[u8; 2]>> = vec![Vec::new(); 2];
    for number in 0..2_000_u16 {
        let key = number.to_le_bytes();
        of[store.shard(&key).unwrap() as usize].push(key);
    }
    let (count, bytes) = (largest(3 + value).0 as usize, vec![1; value as usize]);
    let mut changes: Vec<Change<'_>> = vec![Change::Put(&of[0][0], &bytes)];
    changes.extend(of[1][..count - 1].iter().map(|key| Change::Put(key, &bytes)));
    store.batch_across(&changes).unwrap();
    let one_more = [1, 2];
    changes.push(Change::Delete(&one_more));
    let refused = store.batch_across(&changes);
    assert!(matches!(refused, Err(Error::BatchTooLong { max: 12_288, .. })), "{refused:?}");
    assert_eq!(store.stats().iter().map(|shard| shard.records).sum::<u64>(), count as u64);
}

#[test]
fn after_a_failed_sync_all_shards_of_the_batch_wait_for_the_next_opening() {
    let disk = Disk::new(1);
    let store = RawStore::create(disk.clone(), 2, VALUE, &options()).unwrap();
    let keys = keys(&store);
    let changes: Vec<Change<'_>> =
        keys[1..].iter().map(|of| Change::Put(&of[0], &[1; VALUE])).collect();
    disk.set_faults(DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::NONE });
    assert!(matches!(store.batch_across(&changes), Err(Error::Poisoned { .. })));
    disk.set_faults(DiskFaults::NONE);
    for of in &keys[1..] {
        let refused = store.put(&of[1], &[2; VALUE], Durability::Memory);
        assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
    }
    store.put(&keys[0][1], &[2; VALUE], Durability::Memory).unwrap();
}

#[test]
fn whoever_looks_sees_all_of_a_batch_that_counts_though_it_was_never_finished() {
    let dir = tempfile::tempdir().unwrap();
    let store = FixedStore::<[u8; 2], [u8; VALUE]>::create(dir.path(), &options()).unwrap();
    let keys = keys(store.raw());
    let changes: Vec<Change<'_>> = keys.iter().map(|of| Change::Put(&of[0], &[1; VALUE])).collect();
    plant(Some(Fault::BatchLeftHalf));
    let half = store.raw().batch_across(&changes);
    plant(None);
    assert!(half.is_err());
    drop(store);
    let view = OnDisk::open(dir.path()).unwrap();
    assert!(keys.iter().all(|of| view.get(&of[0]).unwrap() == Some(vec![1; VALUE])));
    drop(view);
    let survey = Survey::of(dir.path(), |_, _| {}).unwrap();
    assert_eq!((survey.records, survey.is_sound()), (4, true));
    for _ in 0..2 {
        let store = FixedStore::<[u8; 2], [u8; VALUE]>::open(dir.path(), &options()).unwrap();
        let found = |of: &Vec<Vec<u8>>| store.raw().get(&of[0]).unwrap();
        assert!(keys.iter().all(|of| found(of) == Some(vec![1; VALUE])));
        store.raw().verify().unwrap();
    }
}

#[test]
fn a_batch_that_an_opening_finished_is_the_same_write_for_replicas() {
    let machine = Machine::new(Disk::new(5), true);
    let store = RawStore::create(machine.clone(), 2, VALUE, &options()).unwrap();
    let keys = keys(&store);
    let changes: Vec<Change<'_>> = keys.iter().map(|of| Change::Put(&of[0], &[1; VALUE])).collect();
    plant(Some(Fault::BatchLeftHalf));
    assert!(store.batch_across(&changes).is_err());
    plant(None);
    let epoch = store.epoch();
    drop(store);
    let store = RawStore::open(machine, &options()).unwrap();
    for shard in 0..SHARDS {
        // Whole, and with the place in the history that it was to have.
        let Found::Here(mut tail) = store.tail(shard, Position::START).unwrap() else { panic!() };
        let (mut found, mut count) = (Vec::new(), 0);
        let reached = store.read_tail(&mut tail, 1 << 20, |written| {
            found.extend_from_slice(written.changes);
            count += written.count;
        });
        assert_eq!((reached.unwrap(), count), (Reached::End, 1));
        assert_eq!(tail.position(), Position::START.after(epoch, &found));
    }
    let replica = RawStore::create_replica(Disk::new(6), &store.identity(), &options()).unwrap();
    assert!(matches!(replica.batch_across(&changes), Err(Error::Follows)));
}

#[test]
fn batches_over_crossing_shards_and_single_writes_hold_nobody_up_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let store = FixedStore::<[u8; 2], u64>::create(dir.path(), &options()).unwrap();
    let keys = keys(store.raw());
    let before = [100_u64; SHARDS as usize];
    let value = before[0].to_le_bytes();
    let all: Vec<Change<'_>> = keys.iter().map(|of| Change::Put(&of[0], &value)).collect();
    store.raw().batch_across(&all).unwrap();
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (store, keys) = (&store, &keys);
            scope.spawn(move || {
                let mut rng = Rng::seeded(thread);
                for number in 0..60_u64 {
                    let (one, other) = (rng.below(4) as usize, rng.below(4) as usize);
                    // All of a round have one number.
                    let value = (thread << 32 | number).to_le_bytes();
                    let changes = [
                        Change::Put(&keys[one][1], &value),
                        Change::Put(&keys[other][2], &value),
                        Change::Put(&keys[3 - one][3], &value),
                    ];
                    store.raw().batch_across(&changes).unwrap();
                    store.raw().put(&keys[other][4], &value, Durability::Group).unwrap();
                }
            });
        }
    });
    assert!(store.stats().iter().all(|shard| shard.poisoned.is_none()));
    store.raw().verify().unwrap();
}
