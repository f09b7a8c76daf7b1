//! Batches over several shards under power cuts, deaths and refusals.

use std::thread;

use mainstay_base::Rng;
use mainstay_sim::{Disk, DiskFaults};

use super::{
    full,
    histories::{FAULTS, Kind, SHARDS, VALUE, alike, die, keys, not_found, run},
    refused::{no_write_takes_the_place, takes_the_place},
    *,
};
use crate::{
    Durability, FixedStore, Found, OnDisk, Options, Position, Reached, Survey,
    faulty::Faulty,
    limits::SEGMENT_BYTES_MIN,
    machine::Machine,
    planted::{Fault, plant},
};

fn options() -> Options {
    Options { shards: SHARDS, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

fn of_each<F: Folder>(store: &RawStore<F>) -> Vec<Vec<Vec<u8>>> {
    keys(|key| store.shard(key).unwrap())
}

impl Kind for RawStore<Machine> {
    fn create(machine: Machine) -> Self {
        Self::create(machine, 2, VALUE, &options()).unwrap()
    }

    fn open(machine: Machine) -> Result<Self> {
        Self::open(machine, &options())
    }

    alike!();
}

#[test]
fn a12_after_any_power_cut_a_batch_is_there_in_all_of_its_shards_or_in_none() {
    let ((images, lost, kept), wrong) = run::<RawStore<Machine>>(0..60, 120);
    println!("opened {images} disks; of batches in doubt {lost} were lost and {kept} kept, whole");
    assert_eq!(wrong, None);
    assert!(images > 4_000 && lost > 300 && kept > 300, "{images} {lost} {kept}");
}

#[test]
fn a12_every_planted_fault_of_batches_is_found() {
    let missed = not_found::<RawStore<Machine>>(&FAULTS);
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn a12_a_death_before_any_store_leaves_all_of_a_batch_or_nothing() {
    let (deaths, wrong) = die::<RawStore<Machine>>(0..3, 700);
    println!("died {deaths} times");
    assert_eq!(wrong, None);
    assert!(deaths > 800, "{deaths}");
    plant(Some(Fault::BatchUnmarked));
    let (_, wrong) = die::<RawStore<Machine>>(0..3, 700);
    plant(None);
    assert!(wrong.is_some(), "a batch without its parts was not found");
}

#[test]
fn what_one_shard_refuses_no_shard_of_the_batch_gets() {
    let disk = Disk::new(1);
    let store = RawStore::create(disk.clone(), 2, VALUE, &options()).unwrap();
    let keys = of_each(&store);
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

#[test]
fn a12_a_disk_that_is_full_at_any_byte_refuses_a_batch_whole_and_the_store_goes_on() {
    // A segment is made whole, so that no more than the number of those that fit matters.
    let room = 0..(u64::from(SHARDS) + 1) * SEGMENT_BYTES_MIN;
    let (refused, wrong) = full::refused::<RawStore<Machine>>(room, 1_031);
    println!("{refused} batches were refused");
    assert_eq!(wrong, None);
    assert!(refused > 150, "{refused}");
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
    let keys = of_each(&store);
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
    let keys = of_each(store.raw());
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
    let keys = of_each(&store);
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
    let keys = of_each(store.raw());
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

#[test]
fn a12_no_write_takes_the_place_that_a_failed_batch_has_named() {
    no_write_takes_the_place!(RawStore, |folder| RawStore::create(folder, 2, VALUE, &options())
        .unwrap());
}
