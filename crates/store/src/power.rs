//! Power cuts in the middle of many histories, on a simulated disk that loses, tears and reorders
//! what was not synced, refuses, and fails to sync; and the faults that must be found this way.

use std::collections::BTreeMap;

use mainstay_base::Rng;
use mainstay_sim::{Disk, DiskFaults};

use crate::{
    Change, Durability, Error, Options, RawStore,
    limits::SEGMENT_BYTES_MIN,
    machine::{Machine, Snapshot},
    planted::{Fault, plant},
};

const SHARDS: usize = 2;
const VALUE: usize = 700;

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
    machine: Machine,
    /// The memory as it was at some times.
    kept: Vec<Snapshot>,
    store: Option<RawStore<Machine>>,
    models: Vec<Model>,
    rng: Rng,
    images: u64,
}

fn options() -> Options {
    Options { shards: SHARDS as u32, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

fn contents(store: &RawStore<Machine>) -> Result<Vec<Records>, String> {
    let (mut shards, mut twice) = (vec![Records::new(); SHARDS], None);
    let seen = store.for_each(|key, value| {
        let shard = store.shard(key).unwrap() as usize;
        if shards[shard].insert(key.to_vec(), value.to_vec()).is_some() {
            twice = Some(key.to_vec());
        }
    });
    seen.map_err(|error| error.to_string())?;
    match twice {
        None => Ok(shards),
        Some(key) => Err(format!("{key:?} is there twice")),
    }
}

impl History {
    fn new(seed: u64) -> Self {
        let machine = Machine::new(Disk::new(seed), seed.is_multiple_of(2));
        let store = RawStore::create(machine.clone(), 1, VALUE, &options()).unwrap();
        let models = vec![Model { states: vec![Records::new()], written: 0, durable: 0 }; SHARDS];
        let (kept, store, rng) = (Vec::new(), Some(store), Rng::seeded(seed));
        Self { machine, kept, store, models, rng, images: 0 }
    }

    /// Which of the states that are allowed each shard is in. A kill loses no write at all.
    fn judge(&self, store: &RawStore<Machine>, was_killed: bool) -> Result<Vec<usize>, String> {
        let mut at = Vec::new();
        for (shard, (found, model)) in contents(store)?.into_iter().zip(&self.models).enumerate() {
            let first = if was_killed { model.written } else { model.durable };
            let allowed = first..model.states.len();
            let Some(state) = allowed.clone().rev().find(|at| model.states[*at] == found) else {
                let was = model.states.iter().rposition(|state| *state == found);
                return Err(format!("shard {shard} is as of {was:?}, allowed {allowed:?}"));
            };
            at.push(state);
        }
        Ok(at)
    }

    fn cut(&mut self, count: usize) -> Result<(), String> {
        for image in self.machine.disk.crash_images(count) {
            self.images += 1;
            image.set_faults(DiskFaults::NONE);
            let kept = if self.rng.below(8) == 0 { &self.kept[..] } else { &[] };
            let machine = self.machine.after_power_cut(image, kept, &mut self.rng);
            let store = RawStore::open(machine, &options()).map_err(|error| error.to_string())?;
            self.judge(&store, false)?;
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
        let first = [self.rng.below(24) as u8];
        let shard = store.shard(&first).unwrap();
        let count = 1 + self.rng.below(3);
        let mut keys = vec![first];
        for _ in 1..count {
            let key = [self.rng.below(24) as u8];
            if store.shard(&key).unwrap() == shard {
                keys.push(key);
            }
        }
        let values: Vec<Vec<u8>> =
            keys.iter().map(|_| vec![self.rng.next_u64() as u8; VALUE]).collect();
        let changes: Vec<Change<'_>> = keys
            .iter()
            .zip(&values)
            .map(|(key, value)| match self.rng.below(4) {
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

    /// One step, and after some of them a power cut, in several ways.
    fn step(&mut self) -> Result<(), String> {
        match self.rng.below(60) {
            0 => {
                if let Some(store) = &self.store {
                    let _may_fail = store.compact();
                }
            }
            1 => {
                if self.store.as_ref().is_some_and(|store| store.sync().is_ok()) {
                    for model in &mut self.models {
                        model.durable = model.written;
                    }
                }
            }
            2 => {
                if let Some(store) = &self.store {
                    let _may_fail = store.tend();
                }
            }
            3 => self.machine.disk.set_faults(DiskFaults {
                sync_error_ppm: 200_000,
                write_error_ppm: 20_000,
                ..DiskFaults::NONE
            }),
            4 => self.machine.disk.die_after(1 + self.rng.below(12)),
            5..8 => self.restart()?,
            10 => {
                if let Some(store) = &self.store {
                    let _may_fail = store.verify();
                }
            }
            9 if self.machine.has_memory() => {
                self.kept.push(self.machine.snapshot());
                self.kept.truncate(3);
            }
            8 => {
                // Dead in the middle of an image.
                self.machine.disk.die_after(self.rng.below(8));
                if let Some(store) = &self.store {
                    let _dies = store.compact();
                }
                self.cut(10)?;
            }
            _ => self.write(),
        }
        if self.rng.below(4) == 0 { self.cut(3) } else { Ok(()) }
    }

    /// The process dies, and another goes on with what the page cache has.
    fn restart(&mut self) -> Result<(), String> {
        self.store = None;
        self.machine.disk.kill();
        self.machine.disk.set_faults(DiskFaults::NONE);
        let store = RawStore::open(self.machine.clone(), &options()).map_err(|e| e.to_string())?;
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

/// The images looked at, and the first that was wrong.
fn run(seeds: std::ops::Range<u64>, steps: usize) -> (u64, Option<String>) {
    let mut images = 0;
    for seed in seeds {
        let mut history = History::new(seed);
        for step in 0..steps {
            if let Err(what) = history.step() {
                return (
                    images + history.images,
                    Some(format!("seed {seed}, step {step}: {what}")),
                );
            }
        }
        images += history.images;
    }
    (images, None)
}

#[test]
fn a1_a2_after_any_power_cut_each_shard_is_as_a_write_left_it_that_is_not_too_old() {
    let (images, wrong) = run(0..240, 150);
    println!("opened {images} disks after a power cut");
    assert_eq!(wrong, None);
    assert!(images >= 20_000, "{images}");
}

#[test]
fn a1_a6_every_planted_fault_is_found_by_power_cuts() {
    let faults = [
        Fault::SyncLeftOut,
        Fault::RotationWithoutSync,
        Fault::ErrorForgotten,
        Fault::LogCutEarly,
        Fault::ImageHeaderEarly,
        Fault::ImageAhead,
        Fault::ChecksumIgnored,
        Fault::TailTrusted,
        Fault::SyncTooShort,
        Fault::RingLeftOut,
        Fault::BootIgnored,
    ];
    let missed: Vec<Fault> = faults
        .into_iter()
        .filter(|fault| {
            plant(Some(*fault));
            let (images, wrong) = run(0..300, 150);
            plant(None);
            println!("{fault:?}: {images} disks, {wrong:?}");
            wrong.is_none()
        })
        .collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
