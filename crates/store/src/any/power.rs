//! Power cuts in the middle of many histories, on a simulated disk that loses, tears and reorders
//! what was not synced, refuses, and fails to sync; and the faults that must be found this way.

use mainstay_base::Rng;
use mainstay_sim::{Disk, DiskFaults};

use super::{LogOptions, LogSurvey, RawLogStore};
use crate::{
    Change, Durability,
    histories::{History, Misdirected, Model, Ran, Records, go_on_from, judge, not_found, run},
    keyed::Files,
    limits::SEGMENT_BYTES_MIN,
    machine::{self, MISDIRECTS, SHREDS, SOUND, as_it_is, disk_with},
    planted::{Fault, plant},
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
    /// What the disk does at all times.
    faults: DiskFaults,
    misdirected: Misdirected,
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

fn contents(store: &RawLogStore<Files<Disk>>) -> crate::Result<Vec<Records>> {
    let mut shards = vec![Records::new(); SHARDS];
    let shown = store.for_each(|key, value| {
        let shard = store.shard(key).unwrap() as usize;
        assert!(shards[shard].insert(key.to_vec(), value.to_vec()).is_none(), "a key twice");
    });
    shown?;
    for (key, value) in shards.iter().flatten() {
        let found = store.get(key)?;
        assert_eq!(found.as_deref(), Some(&value[..]));
    }
    Ok(shards)
}

impl History for OfLogs {
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
                ..self.faults
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

    fn told(&self) -> (u64, u64) {
        (self.misdirected.told, self.misdirected.shortened)
    }

    fn freed(&self) -> u64 {
        self.freed
    }
}

impl OfLogs {
    fn new(seed: u64) -> Self {
        Self::on(machine::disk(seed), seed, as_it_is)
    }

    fn on(disk: Disk, seed: u64, over: fn(&Disk) -> Files<Disk>) -> Self {
        let (faults, rng) = (disk.faults(), Rng::seeded(seed));
        let is_possible = faults.misdirect_ppm > 0;
        let misdirected = Misdirected { is_possible, ..Misdirected::default() };
        let store = Some(RawLogStore::create(over(&disk), &options()).unwrap());
        let models = vec![Model::new(); SHARDS];
        Self { disk, over, store, models, rng, images: 0, freed: 0, faults, misdirected }
    }

    fn cut(&mut self, count: usize) -> Result<(), String> {
        for image in self.disk.crash_images(count) {
            self.images += 1;
            image.set_faults(SOUND);
            let opened = RawLogStore::open((self.over)(&image), &options());
            let Some(store) = self.misdirected.look(opened)? else { continue };
            let Some(found) = self.misdirected.look(contents(&store))? else { continue };
            self.misdirected.judge(&self.models, &found)?;
            if self.rng.below(8) == 0 {
                // And again, after another one as it was just opened.
                drop(store);
                image.power_cut();
                let store = RawLogStore::open((self.over)(&image), &options())
                    .map_err(|error| error.to_string())?;
                let found = contents(&store).map_err(|error| error.to_string())?;
                self.misdirected.judge(&self.models, &found)?;
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
        self.disk.set_faults(self.faults);
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
        let found = contents(&store).map_err(|error| error.to_string())?;
        let found = judge(&self.models, &found, true)?;
        go_on_from(&mut self.models, &found);
        self.store = Some(store);
        Ok(())
    }
}

#[test]
fn v1_v2_after_any_power_cut_each_shard_is_as_a_write_left_it_that_is_not_too_old() {
    let Ran { images, freed, wrong, .. } = run(OfLogs::new, 0..240);
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
    let missed = not_found(OfLogs::new, &faults);
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// The same histories on a disk that tears sectors inside.
fn on_shreds(seed: u64) -> OfLogs {
    OfLogs::on(disk_with(seed, SHREDS), seed, as_it_is)
}

/// The same on one that writes some sectors to the wrong place.
fn on_misdirected(seed: u64) -> OfLogs {
    OfLogs::on(disk_with(seed, MISDIRECTS), seed, as_it_is)
}

#[test]
fn v1_a_sector_torn_inside_is_no_other_write() {
    let Ran { images, wrong, .. } = run(on_shreds, 0..80);
    println!("opened {images} disks with sectors torn inside");
    assert_eq!(wrong, None);
    assert!(images >= 6_000, "{images}");
}

#[test]
fn v1_a_sector_written_to_the_wrong_place_is_told_or_harms_nothing() {
    let Ran { images, told, wrong, .. } = run(on_misdirected, 0..80);
    println!("opened {images} disks with misdirected sectors; told, and ended early: {told:?}");
    assert_eq!(wrong, None);
    // Where a sector with zeros came to lie in the last write that was synced, it looks as if it were torn.
    assert!(images >= 6_000 && told.0 > 600 && told.1 < images / 250, "{images} {told:?}");
}

#[test]
fn v1_what_lies_at_the_end_of_a_log_and_what_a_list_says_of_it_are_needed_to_tell_it() {
    plant(Some(Fault::EndUnlooked));
    let Ran { images, told, wrong, .. } = run(on_misdirected, 0..80);
    plant(None);
    assert!(wrong.is_some() || told.1 > images / 125, "{images} {told:?}");
    assert!(not_found(on_misdirected, &[Fault::ListUnmarked]).is_empty());
}

#[test]
fn v1_checksums_that_are_not_looked_at_are_found_by_torn_and_misdirected_sectors() {
    assert!(not_found(on_shreds, &[Fault::ChecksumIgnored]).is_empty());
    assert!(not_found(on_misdirected, &[Fault::ChecksumIgnored]).is_empty());
}

/// The same histories over encrypted files.
#[cfg(feature = "encryption")]
fn encrypted(seed: u64) -> OfLogs {
    OfLogs::on(machine::disk(seed), seed, machine::encrypted)
}

#[cfg(feature = "encryption")]
#[test]
fn e2_after_any_power_cut_an_encrypted_log_is_as_a_write_left_it_that_is_not_too_old() {
    let Ran { images, freed, wrong, .. } = run(encrypted, 0..60);
    println!("opened {images} encrypted disks after a power cut, {freed} bytes freed");
    assert_eq!(wrong, None);
    assert!(images >= 5_000 && freed > 1 << 18, "{images} {freed}");
}
