//! Power cuts in the middle of many histories, on a simulated disk that loses, tears and reorders
//! what was not synced, refuses, and fails to sync; and the faults that must be found this way.

use mainstay_base::Rng;
use mainstay_sim::{Disk, DiskFaults};

use super::{LogOptions, LogSurvey, RawLogStore};
use crate::{
    Change, Durability,
    histories::{History, Model, Ran, Records, go_on_from, judge, not_found, run},
    keyed::Files,
    limits::SEGMENT_BYTES_MIN,
    machine::{self, SOUND, as_it_is},
    planted::Fault,
};

const SHARDS: usize = 2;
const VALUE_MAX: u64 = 3_000;

struct OfLogs {
    disk: Disk,
    /// What is on it, as it is or encrypted.
    over: fn(&Disk) -> Files<Disk>,
    store: Option<RawLogStore<Files<Disk>>>,
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

fn contents(store: &RawLogStore<Files<Disk>>) -> Result<Vec<Records>, String> {
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

impl History for OfLogs {
    fn new(seed: u64) -> Self {
        Self::on(seed, as_it_is)
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.below(60) {
            0 => self.with(|store| drop(store.compact())),
            1 => {
                if self.store.as_ref().is_some_and(|store| store.sync().is_ok()) {
                    self.models.iter_mut().for_each(Model::is_synced);
                }
            }
            2..12 => self.with(|store| drop(store.upkeep())),
            12 => self.disk.set_faults(DiskFaults {
                sync_error_ppm: 100_000,
                write_error_ppm: 10_000,
                ..SOUND
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

    fn images(&self) -> u64 {
        self.images
    }

    fn freed(&self) -> u64 {
        self.freed
    }
}

impl OfLogs {
    fn on(seed: u64, over: fn(&Disk) -> Files<Disk>) -> Self {
        let (disk, rng) = (machine::disk(seed), Rng::seeded(seed));
        let store = Some(RawLogStore::create(over(&disk), &options()).unwrap());
        let models = vec![Model::new(); SHARDS];
        Self { disk, over, store, models, rng, images: 0, freed: 0 }
    }

    fn cut(&mut self, count: usize) -> Result<(), String> {
        for image in self.disk.crash_images(count) {
            self.images += 1;
            image.set_faults(SOUND);
            let store = RawLogStore::open((self.over)(&image), &options())
                .map_err(|error| error.to_string())?;
            judge(&self.models, &contents(&store)?, false)?;
            if self.rng.below(8) == 0 {
                // And again, after another one as it was just opened.
                drop(store);
                image.power_cut();
                let store = RawLogStore::open((self.over)(&image), &options())
                    .map_err(|error| error.to_string())?;
                judge(&self.models, &contents(&store)?, false)?;
            }
        }
        Ok(())
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
        self.models[shard as usize].learn(&changes, durability, &result);
        self.store = Some(store);
    }

    fn with(&self, act: impl FnOnce(&RawLogStore<Files<Disk>>)) {
        if let Some(store) = &self.store {
            act(store);
        }
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
        self.disk.set_faults(SOUND);
        let folder = (self.over)(&self.disk);
        let survey = LogSurvey::over(&folder, |_, _| {}).map_err(|e| e.to_string())?;
        let store = RawLogStore::open(folder, &options()).map_err(|e| e.to_string())?;
        // A hint, or a copy of a header, may be half written.
        if !survey.damage.iter().all(|damage| damage.has_copy) {
            return Err(format!("it opens, and a survey says {:?}", survey.damage));
        }
        let records = store.stats().iter().map(|shard| shard.records).sum::<u64>();
        if records != survey.records {
            return Err(format!("{records} records, and a survey says {}", survey.records));
        }
        let found = judge(&self.models, &contents(&store)?, true)?;
        go_on_from(&mut self.models, &found);
        self.store = Some(store);
        Ok(())
    }
}

#[test]
fn v1_v2_after_any_power_cut_each_shard_is_as_a_write_left_it_that_is_not_too_old() {
    let Ran { images, freed, wrong } = run::<OfLogs>(0..240);
    println!("opened {images} disks after a power cut, {freed} bytes freed");
    assert_eq!(wrong, None);
    assert!(images >= 20_000 && freed > 1 << 20, "{images} {freed}");
}

#[test]
fn v1_v5_every_planted_fault_is_found_by_power_cuts() {
    let faults = [
        Fault::SyncLeftOut,
        Fault::RotationWithoutSync,
        Fault::NamesUnsynced,
        Fault::CutBeforeName,
        Fault::ErrorForgotten,
        Fault::ChecksumIgnored,
        Fault::TailTrusted,
        Fault::MovedUnsynced,
        Fault::MovedUnchecked,
        Fault::DeletesDropped,
        Fault::ListLate,
    ];
    let missed = not_found::<OfLogs>(&faults);
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// The same histories over encrypted files.
#[cfg(feature = "encryption")]
struct OfEncrypted(OfLogs);

#[cfg(feature = "encryption")]
impl History for OfEncrypted {
    fn new(seed: u64) -> Self {
        Self(OfLogs::on(seed, machine::encrypted))
    }

    fn step(&mut self) -> Result<(), String> {
        self.0.step()
    }

    fn images(&self) -> u64 {
        self.0.images()
    }

    fn freed(&self) -> u64 {
        self.0.freed()
    }
}

#[cfg(feature = "encryption")]
#[test]
fn e2_after_any_power_cut_an_encrypted_log_is_as_a_write_left_it_that_is_not_too_old() {
    let Ran { images, freed, wrong } = run::<OfEncrypted>(0..60);
    println!("opened {images} encrypted disks after a power cut, {freed} bytes freed");
    assert_eq!(wrong, None);
    assert!(images >= 5_000 && freed > 1 << 18, "{images} {freed}");
}
