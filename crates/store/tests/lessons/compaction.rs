//! The log is made short while the store goes on.

use std::time::Duration;

use mainstay_sim::{Disk, Storage};
use mainstay_store::{Durability, Folder, Options, RawStore, limits::SEGMENT_BYTES_MIN};

use crate::{key, on, small, value};

#[test]
fn compaction_brings_nothing_back_and_frees_what_is_dead() {
    let disk = Disk::new(1);
    let store = on(&disk);
    for round in 0..40 {
        for number in 0..50 {
            store.put(&key(number), &value(round), Durability::Memory).unwrap();
        }
    }
    for number in 0..25 {
        store.delete(&key(number), Durability::Memory).unwrap().unwrap();
    }
    let before = store.stats()[0].clone();
    store.compact().unwrap();
    let after = store.stats()[0].clone();
    assert!(before.segments > 10 && after.segments == 1, "{before:?} {after:?}");
    let bytes = |disk: &Disk| {
        let logs = disk.names().into_iter().filter(|name| name.ends_with(".log"));
        logs.map(|name| disk.file(&name).len().unwrap()).sum::<u64>()
    };
    assert_eq!(bytes(&disk), SEGMENT_BYTES_MIN);
    store.verify().unwrap();
    drop(store);
    disk.power_cut();
    let store = RawStore::open(disk, &small()).unwrap();
    for number in 0..50 {
        let expected = (number >= 25).then(|| value(39).to_vec());
        assert_eq!(store.get(&key(number)).unwrap(), expected);
    }
    store.verify().unwrap();
}

#[test]
fn a_shard_without_records_is_compacted_and_opened_again() {
    let disk = Disk::new(10);
    let store = on(&disk);
    store.compact().unwrap();
    store.put(&key(1), &value(1), Durability::Memory).unwrap();
    store.delete(&key(1), Durability::Memory).unwrap().unwrap();
    store.compact().unwrap();
    drop(store);
    disk.power_cut();
    let store = RawStore::open(disk, &small()).unwrap();
    assert_eq!((store.stats()[0].records, store.stats()[0].image), (0, 2));
}

#[test]
fn a_log_that_has_grown_long_is_compacted_without_being_asked() {
    let disk = Disk::new(2);
    let store = on(&disk);
    for number in 0..5_000 {
        store.put(&key(number % 10), &value(number), Durability::Memory).unwrap();
        if number % 50 == 0 {
            store.tend().unwrap();
        }
    }
    assert!(store.stats()[0].segments <= 5, "{:?}", store.stats());
    assert!(store.stats()[0].image > 0);
}

#[test]
fn compaction_keeps_to_its_budget_gives_each_shard_its_turn_and_is_not_seen_by_readers() {
    let disk = Disk::new(2);
    let options = Options {
        shards: 2,
        compact_bytes_per_second: 200_000,
        interval: Duration::from_millis(50),
        ..small()
    };
    let store = RawStore::create(disk.clone(), 4, 64, &options).unwrap();
    let record = 8 + 4 + 64;
    let image_bytes = || -> u64 {
        let names = disk.names().into_iter().filter(|name| name.ends_with(".image"));
        names.map(|name| Storage::len(&Folder::file(&disk, &name).unwrap()).unwrap()).sum()
    };
    for number in 0..4_000 {
        store.put(&key(number % 1_000), &value(number), Durability::Memory).unwrap();
    }
    let (mut calls, mut before) = (0, image_bytes());
    while store.stats().iter().any(|shard| shard.image == 0) {
        store.upkeep().unwrap();
        let now = image_bytes();
        // Ten thousand a call, a record, and the header and the frame of chunks.
        let allowed = 10_000 + record + 4_096 + 64;
        assert!(now.saturating_sub(before) <= allowed, "{} bytes in a call", now - before);
        assert_eq!(store.get(&key(7)).unwrap(), Some(value(3_007).to_vec()));
        (calls, before) = (calls + 1, now);
        assert!(calls < 100, "no image is finished");
    }
    assert!(calls >= 8, "{calls} calls wrote {before} bytes");
    // One that is not finished goes when the store is closed.
    for number in 0..4_000 {
        store.put(&key(number % 1_000), &value(number), Durability::Memory).unwrap();
    }
    store.upkeep().unwrap();
    let images = |disk: &Disk| disk.names().iter().filter(|name| name.ends_with(".image")).count();
    assert_eq!(images(&disk), 3);
    store.close().unwrap();
    assert_eq!(images(&disk), 2);
    let store = RawStore::open(disk, &options).unwrap();
    assert_eq!(store.get(&key(7)).unwrap(), Some(value(3_007).to_vec()));
}

#[test]
fn without_a_budget_compaction_is_left_to_the_caller() {
    let disk = Disk::new(2);
    let options = Options { compact_bytes_per_second: 0, ..small() };
    let store = RawStore::create(disk, 4, 64, &options).unwrap();
    for number in 0..5_000 {
        store.put(&key(number % 10), &value(number), Durability::Memory).unwrap();
    }
    store.tend().unwrap();
    assert_eq!(store.stats()[0].image, 0);
    store.compact().unwrap();
    assert!(store.stats()[0].image > 0);
}
