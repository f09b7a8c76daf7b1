//! Power cuts in the middle of many histories, on a simulated disk that loses, tears and reorders
//! what was not synced, refuses, and fails to sync; and the faults that must be found this way.

use std::collections::BTreeMap;

use mainstay_base::Rng;
use mainstay_sim::{Disk, DiskFaults};

use super::{LogOptions, LogSurvey, RawLogStore};
use crate::{
    Change, Durability, Error,
    limits::SEGMENT_BYTES_MIN,
    planted::{Fault, plant},
};

const SHARDS: usize = 2;
const VALUE_MAX: u64 = 3_000;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a shard may look like: all its states, by the number of writes (also those that failed, and
/// may be there), which was the last that was acknowledged, and the last known to be durable.
#[derive(Clone)]
struct Model {
    states: Vec<Records>,
    written: usize,
    durable: usize,
}

struct History {
    disk: Disk,
    store: Option<RawLogStore<Disk>>,
    models: Vec<Model>,
    rng: Rng,
    images: u64,
    freed: u64,
}

fn options() -> LogOptions {
    LogOptions {
        shards: SHARDS as u32,
        segment_bytes: SEGMENT_BYTES_MIN,
        threads: 1,
        cache_bytes: 8 << 10,
        // A frame or two at a time.
        compact_bytes_per_second: 100_000,
        dead_percent: 60,
        ..LogOptions::default()
    }
}

fn contents(store: &RawLogStore<Disk>) -> Result<Vec<Records>, String> {
    let mut shards = vec![Records::new(); SHARDS];
    let shown = store.for_each(|key, value| {
        let shard = store.shard(key).unwrap() as usize;
        assert!(shards[shard].insert(key.to_vec(), value.to_vec()).is_none(), "a key twice");
    });
    shown.map_err(|error| error.to_string())?;
    for (key, value) in shards.iter().flatten() {
        let found = store.get(key).map_err(|error| error.to_string())?;
        assert_eq!(found.as_deref(), Some(&value[..]));
    }
    Ok(shards)
}

impl History {
    fn new(seed: u64) -> Self {
        let disk = Disk::new(seed);
        let store = RawLogStore::create(disk.clone(), &options()).unwrap();
        let models = vec![Model { states: vec![Records::new()], written: 0, durable: 0 }; SHARDS];
        Self { disk, store: Some(store), models, rng: Rng::seeded(seed), images: 0, freed: 0 }
    }

    /// Which of the states that are allowed each shard is in. A kill loses no write at all.
    fn judge(&self, store: &RawLogStore<Disk>, was_killed: bool) -> Result<Vec<usize>, String> {
        let mut at = Vec::new();
        for (shard, (found, model)) in contents(store)?.into_iter().zip(&self.models).enumerate() {
            let first = if was_killed { model.written } else { model.durable };
            let allowed = first..model.states.len();
            let Some(state) = allowed.clone().rev().find(|at| model.states[*at] == found) else {
                let was = model.states.iter().rposition(|state| *state == found);
                let differ = |at: usize| {
                    let keys = found.keys().chain(model.states[at].keys());
                    let differ = keys.filter(|key| found.get(*key) != model.states[at].get(*key));
                    differ.map(|key| key[0]).collect::<std::collections::BTreeSet<_>>()
                };
                let differ: Vec<_> = allowed.clone().map(differ).collect();
                let what = format!("shard {shard} is as of {was:?}, allowed {allowed:?}");
                return Err(format!("{what}; keys that differ from these: {differ:?}"));
            };
            at.push(state);
        }
        Ok(at)
    }

    fn cut(&mut self, count: usize) -> Result<(), String> {
        for image in self.disk.crash_images(count) {
            self.images += 1;
            image.set_faults(DiskFaults::NONE);
            let store =
                RawLogStore::open(image.clone(), &options()).map_err(|error| error.to_string())?;
            self.judge(&store, false)?;
            if self.rng.below(8) == 0 {
                // And again, after another one as it was just opened.
                drop(store);
                image.power_cut();
                let store =
                    RawLogStore::open(image, &options()).map_err(|error| error.to_string())?;
                self.judge(&store, false)?;
            }
        }
        Ok(())
    }

    /// Notes the state a write leads to.
    fn note(&mut self, changes: &[Change<'_>], shard: usize) {
        let mut next = self.models[shard].states.last().cloned().unwrap_or_default();
        for change in changes {
            match change {
                Change::Put(key, value) => next.insert(key.to_vec(), value.to_vec()),
                Change::Delete(key) => next.remove(*key),
            };
        }
        self.models[shard].states.push(next);
    }

    fn write(&mut self) {
        let Some(store) = self.store.take() else { return };
        let name = |rng: &mut Rng| {
            // Some keys are written often and others seldom, so that old segments live long.
            let number = (if rng.below(6) == 0 { rng.below(24) } else { rng.below(8) }) as usize;
            vec![number as u8; 1 + number % 5]
        };
        let first = name(&mut self.rng);
        let shard = store.shard(&first).unwrap();
        let count = 1 + self.rng.below(3);
        let mut keys = vec![first];
        for _ in 1..count {
            let key = name(&mut self.rng);
            if store.shard(&key).unwrap() == shard {
                keys.push(key);
            }
        }
        let mut value = || {
            let (byte, len) = (self.rng.next_u64() as u8, self.rng.below(VALUE_MAX) as usize);
            vec![byte; len]
        };
        let values: Vec<Vec<u8>> = keys.iter().map(|_| value()).collect();
        let changes: Vec<Change<'_>> = keys
            .iter()
            .zip(&values)
            .map(|(key, value)| match self.rng.below(3) {
                0 => Change::Delete(key),
                _ => Change::Put(key, value),
            })
            .collect();
        let durability = [Durability::Memory, Durability::Group, Durability::Each]
            [[0, 0, 0, 1, 2][self.rng.below(5) as usize]];
        let result = store.batch(&changes, durability);
        // Refused for want of room it is nowhere; after another error it may be on the disk.
        if !matches!(result, Err(Error::Io { .. })) {
            self.note(&changes, shard as usize);
        }
        if result.is_ok() {
            let model = &mut self.models[shard as usize];
            model.written = model.states.len() - 1;
            if durability != Durability::Memory {
                model.durable = model.written;
            }
        }
        self.store = Some(store);
    }

    fn with(&self, act: impl FnOnce(&RawLogStore<Disk>)) {
        if let Some(store) = &self.store {
            act(store);
        }
    }

    /// One step, and after some of them a power cut, in several ways.
    fn step(&mut self) -> Result<(), String> {
        match self.rng.below(60) {
            0 => self.with(|store| drop(store.compact())),
            1 => {
                if self.store.as_ref().is_some_and(|store| store.sync().is_ok()) {
                    for model in &mut self.models {
                        model.durable = model.written;
                    }
                }
            }
            2..12 => self.with(|store| drop(store.upkeep())),
            12 => self.disk.set_faults(DiskFaults {
                sync_error_ppm: 100_000,
                write_error_ppm: 10_000,
                ..DiskFaults::NONE
            }),
            13 => self.disk.die_after(1 + self.rng.below(12)),
            14..18 => self.restart(false)?,
            18 => self.restart(true)?,
            19 => {
                // Dead in the middle of a compaction.
                self.disk.die_after(self.rng.below(16));
                self.with(|store| drop(store.compact()));
                self.cut(10)?;
            }
            _ => self.write(),
        }
        if self.rng.below(4) == 0 { self.cut(3) } else { Ok(()) }
    }

    /// The process dies, or closes the store, and another goes on with what the page cache has.
    fn restart(&mut self, is_closed: bool) -> Result<(), String> {
        if let Some(store) = self.store.take() {
            self.freed += store.stats().iter().map(|shard| shard.freed_bytes).sum::<u64>();
            if is_closed {
                let _may_fail = store.close();
            }
        }
        self.disk.kill();
        self.disk.set_faults(DiskFaults::NONE);
        let survey = LogSurvey::over(&self.disk, |_, _| {}).map_err(|e| e.to_string())?;
        let store = RawLogStore::open(self.disk.clone(), &options()).map_err(|e| e.to_string())?;
        if !survey.damage.is_empty() {
            return Err(format!("it opens, and a survey says {:?}", survey.damage));
        }
        let records = store.stats().iter().map(|shard| shard.records).sum::<u64>();
        if records != survey.records {
            return Err(format!("{records} records, and a survey says {}", survey.records));
        }
        // What an opening has found is durable.
        let found = self.judge(&store, true)?;
        for (model, at) in self.models.iter_mut().zip(found) {
            model.states.drain(at + 1..);
            model.states.drain(..at);
            (model.written, model.durable) = (0, 0);
        }
        self.store = Some(store);
        Ok(())
    }
}

/// The images looked at, the bytes freed, and the first thing that was wrong.
fn run(seeds: std::ops::Range<u64>, steps: usize) -> (u64, u64, Option<String>) {
    let (mut images, mut freed) = (0, 0);
    for seed in seeds {
        let mut history = History::new(seed);
        for step in 0..steps {
            if let Err(what) = history.step() {
                let what = format!("seed {seed}, step {step}: {what}");
                return (images + history.images, freed + history.freed, Some(what));
            }
        }
        images += history.images;
        freed += history.freed;
    }
    (images, freed, None)
}

#[test]
fn v1_v2_after_any_power_cut_each_shard_is_as_a_write_left_it_that_is_not_too_old() {
    let (images, freed, wrong) = run(0..240, 150);
    println!("opened {images} disks after a power cut, {freed} bytes freed");
    assert_eq!(wrong, None);
    assert!(images >= 20_000 && freed > 1 << 20, "{images} {freed}");
}

#[test]
fn v1_v5_every_planted_fault_is_found_by_power_cuts() {
    let faults = [
        Fault::SyncLeftOut,
        Fault::RotationWithoutSync,
        Fault::ErrorForgotten,
        Fault::ChecksumIgnored,
        Fault::TailTrusted,
        Fault::MovedUnsynced,
        Fault::MovedUnchecked,
        Fault::DeletesDropped,
        Fault::ListLate,
    ];
    let missed: Vec<Fault> = faults
        .into_iter()
        .filter(|fault| {
            plant(Some(*fault));
            let (images, _, wrong) = run(0..300, 150);
            plant(None);
            println!("{fault:?}: {images} disks, {wrong:?}");
            wrong.is_none()
        })
        .collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
