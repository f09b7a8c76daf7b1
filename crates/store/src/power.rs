//! Power cuts in the middle of many histories, on a simulated disk that loses, tears and reorders
//! what was not synced, refuses, and fails to sync; and the faults that must be found this way.

use mainstay_base::Rng;
use mainstay_sim::DiskFaults;

use crate::{
    Change, Durability, Options, RawStore,
    histories::{History, Misdirected, Model, Ran, Records, go_on_from, judge, not_found, run},
    limits::SEGMENT_BYTES_MIN,
    machine::{MISDIRECTS, Machine, SHREDS, SOUND, Snapshot, disk, disk_with},
    planted::{Fault, plant},
};

const SHARDS: usize = 2;
const VALUE: usize = 700;

struct OfRecords {
    machine: Machine,
    /// The memory as it was at some times.
    kept: Vec<Snapshot>,
    store: Option<RawStore<Machine>>,
    models: Vec<Model>,
    rng: Rng,
    images: u64,
    /// What the disk does at all times.
    faults: DiskFaults,
    misdirected: Misdirected,
}

/// An image takes several calls of `tend`: each writes two or three records.
fn options() -> Options {
    Options {
        shards: SHARDS as u32,
        segment_bytes: SEGMENT_BYTES_MIN,
        compact_bytes_per_second: 40_000,
        ..Options::default()
    }
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

impl History for OfRecords {
    fn step(&mut self) -> Result<(), String> {
        match self.rng.below(60) {
            0 => {
                if let Some(store) = &self.store {
                    let _may_fail = store.compact();
                }
            }
            1 => {
                if self.store.as_ref().is_some_and(|store| store.sync().is_ok()) {
                    self.models.iter_mut().for_each(Model::is_synced);
                }
            }
            2 | 11..15 => {
                if let Some(store) = &self.store {
                    let _may_fail = store.tend();
                }
            }
            3 => self.machine.disk.set_faults(DiskFaults {
                sync_error_ppm: 200_000,
                write_error_ppm: 20_000,
                ..self.faults
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

    fn images(&self) -> u64 {
        self.images
    }

    fn told(&self) -> (u64, u64) {
        (self.misdirected.told, self.misdirected.shortened)
    }
}

impl OfRecords {
    fn new(seed: u64) -> Self {
        Self::on(Machine::new(disk(seed), seed.is_multiple_of(2)), seed)
    }

    fn on(machine: Machine, seed: u64) -> Self {
        let store = RawStore::create(machine.clone(), 1, VALUE, &options()).unwrap();
        let models = vec![Model::new(); SHARDS];
        let (kept, store, rng) = (Vec::new(), Some(store), Rng::seeded(seed));
        let faults = machine.disk.faults();
        let is_possible = faults.misdirect_ppm > 0;
        let misdirected = Misdirected { is_possible, ..Misdirected::default() };
        Self { machine, kept, store, models, rng, images: 0, faults, misdirected }
    }

    fn cut(&mut self, count: usize) -> Result<(), String> {
        for image in self.machine.disk.crash_images(count) {
            self.images += 1;
            image.set_faults(SOUND);
            let kept = if self.rng.below(8) == 0 { &self.kept[..] } else { &[] };
            let machine = self.machine.after_power_cut(image, kept, &mut self.rng);
            let opened = RawStore::open(machine.clone(), &options());
            let Some(store) = self.misdirected.look(opened)? else { continue };
            self.misdirected.judge(&self.models, &contents(&store)?)?;
            if self.rng.below(8) == 0 {
                // And again, after another one as it was just opened.
                drop(store);
                let image = machine.disk.crash_images(1).next().ok_or("no image")?;
                let machine = machine.after_power_cut(image, &[], &mut self.rng);
                let store =
                    RawStore::open(machine, &options()).map_err(|error| error.to_string())?;
                self.misdirected.judge(&self.models, &contents(&store)?)?;
            }
        }
        Ok(())
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
        self.models[shard as usize].learn(&changes, durability, &result);
        self.store = Some(store);
    }

    /// The process dies, and another goes on with what the page cache has.
    fn restart(&mut self) -> Result<(), String> {
        self.store = None;
        self.machine.disk.kill();
        self.machine.disk.set_faults(self.faults);
        let store = RawStore::open(self.machine.clone(), &options()).map_err(|e| e.to_string())?;
        let found = judge(&self.models, &contents(&store)?, true)?;
        go_on_from(&mut self.models, &found);
        self.store = Some(store);
        Ok(())
    }
}

#[test]
fn a1_a2_after_any_power_cut_each_shard_is_as_a_write_left_it_that_is_not_too_old() {
    let Ran { images, wrong, .. } = run(OfRecords::new, 0..260);
    println!("opened {images} disks after a power cut");
    assert_eq!(wrong, None);
    assert!(images >= 20_000, "{images}");
}

#[test]
fn a1_a6_every_planted_fault_is_found_by_power_cuts() {
    let faults = [
        Fault::SyncLeftOut,
        Fault::RotationWithoutSync,
        Fault::NamesUnsynced,
        Fault::CutBeforeName,
        Fault::ErrorForgotten,
        Fault::LogCutEarly,
        Fault::ImageHeaderEarly,
        Fault::ImageAhead,
        Fault::ImageDatedLate,
        Fault::ChecksumIgnored,
        Fault::TailTrusted,
        Fault::SyncTooShort,
        Fault::RingLeftOut,
        Fault::BootIgnored,
        Fault::VouchedUnsynced,
    ];
    let missed = not_found(OfRecords::new, &faults);
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// The same histories on a disk that tears sectors inside.
fn on_shreds(seed: u64) -> OfRecords {
    OfRecords::on(Machine::new(disk_with(seed, SHREDS), seed.is_multiple_of(2)), seed)
}

/// The same on one that writes some sectors to the wrong place.
fn on_misdirected(seed: u64) -> OfRecords {
    OfRecords::on(Machine::new(disk_with(seed, MISDIRECTS), seed.is_multiple_of(2)), seed)
}

#[test]
fn a1_a_sector_torn_inside_is_no_other_write() {
    let Ran { images, wrong, .. } = run(on_shreds, 0..80);
    println!("opened {images} disks with sectors torn inside");
    assert_eq!(wrong, None);
    assert!(images >= 6_000, "{images}");
}

#[test]
fn a4_a_sector_written_to_the_wrong_place_is_told_or_harms_nothing() {
    let Ran { images, told, wrong, .. } = run(on_misdirected, 0..80);
    println!("opened {images} disks with misdirected sectors; told, and ended early: {told:?}");
    assert_eq!(wrong, None);
    // Where a sector with zeros came to lie in the last write that was synced, it looks as if it were torn.
    assert!(images >= 6_000 && told.0 > 200 && told.1 < images / 700, "{images} {told:?}");
    plant(Some(Fault::EndUnlooked));
    let Ran { images, told, wrong, .. } = run(on_misdirected, 0..80);
    plant(None);
    assert!(wrong.is_some() || told.1 > images / 700, "the fault is not found: {images} {told:?}");
}

#[test]
fn a1_a4_checksums_that_are_not_looked_at_are_found_by_torn_and_misdirected_sectors() {
    assert!(not_found(on_shreds, &[Fault::ChecksumIgnored]).is_empty());
    assert!(not_found(on_misdirected, &[Fault::ChecksumIgnored]).is_empty());
}

/// The same histories over encrypted files.
#[cfg(feature = "encryption")]
fn encrypted(seed: u64) -> OfRecords {
    OfRecords::on(Machine::encrypted(disk(seed)), seed)
}

#[cfg(feature = "encryption")]
#[test]
fn e2_after_any_power_cut_an_encrypted_shard_is_as_a_write_left_it_that_is_not_too_old() {
    let Ran { images, wrong, .. } = run(encrypted, 0..60);
    println!("opened {images} encrypted disks after a power cut");
    assert_eq!(wrong, None);
    assert!(images >= 5_000, "{images}");
}

#[cfg(feature = "encryption")]
#[test]
fn e2_faults_of_encryption_and_of_the_store_are_found_by_power_cuts() {
    use mainstay_storage::planted::{Fault as Planted, plant};

    let missed =
        not_found(encrypted, &[Fault::SyncLeftOut, Fault::TailTrusted, Fault::VouchedUnsynced]);
    assert!(missed.is_empty(), "not found: {missed:?}");
    plant(Some(Planted::HeaderUnsynced));
    let Ran { wrong, images, .. } = run(encrypted, 0..300);
    plant(None);
    println!("{:?}: {images} disks, {wrong:?}", Planted::HeaderUnsynced);
    assert!(wrong.is_some());
}
