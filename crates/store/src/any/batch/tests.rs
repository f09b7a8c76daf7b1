//! Batches over several shards under power cuts, deaths and refusals.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use mainstay_sim::{Disk, DiskFaults};
use mainstay_storage::Storage;

use super::*;
use crate::{
    Durability, Error, LogOptions, LogSurvey,
    batch::{
        full,
        histories::{FAULTS, Kind, SHARDS, VALUE, alike, keys, not_found, run},
        refused::{no_write_takes_the_place, takes_the_place},
    },
    faulty::Faulty,
    limits::SEGMENT_BYTES_MIN,
    machine::Machine,
    planted::{Fault, plant},
};

fn options() -> LogOptions {
    LogOptions {
        shards: SHARDS,
        segment_bytes: SEGMENT_BYTES_MIN,
        dead_percent: 30,
        ..LogOptions::default()
    }
}

impl Kind for RawLogStore<Machine> {
    fn create(machine: Machine) -> Self {
        Self::create(machine, &options()).unwrap()
    }

    fn open(machine: Machine) -> Result<Self> {
        Self::open(machine, &options())
    }

    alike!();

    fn counted(machine: Machine) -> Option<u64> {
        let survey = LogSurvey::over(&machine, |_, _| {}).unwrap();
        // A hint, or a copy of a header, may be half written.
        assert!(survey.damage.iter().all(|damage| damage.has_copy), "{:?}", survey.damage);
        Some(survey.records)
    }
}

#[test]
fn v10_after_any_power_cut_a_batch_is_there_in_all_of_its_shards_or_in_none() {
    let ((images, lost, kept), wrong) = run::<RawLogStore<Machine>>(0..60, 120);
    println!("opened {images} disks; of batches in doubt {lost} were lost and {kept} kept, whole");
    assert_eq!(wrong, None);
    assert!(images > 4_000 && lost > 300 && kept > 300, "{images} {lost} {kept}");
}

#[test]
fn v10_every_planted_fault_of_batches_is_found() {
    let missed = not_found::<RawLogStore<Machine>>(&FAULTS);
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn v10_an_opening_finishes_a_batch_with_its_ends_and_who_only_looks_counts_it() {
    let disk = Disk::new(5);
    let store = RawLogStore::create(disk.clone(), &options()).unwrap().with_clock(|| 1_000);
    let keys = keys(|key| store.shard(key).unwrap());
    let old: Vec<_> = keys.iter().map(|of| Change::Put(&of[0], b"old")).collect();
    store.batch_across(&old).unwrap();
    let values = keys.iter().map(|of| vec![of[0][0]; VALUE]).collect::<Vec<_>>();
    let mut changes: Vec<_> =
        keys.iter().zip(&values).map(|(of, value)| Change::Put(&of[1], value)).collect();
    changes.push(Change::Delete(&keys[3][0]));
    let ttl = Some(Duration::from_secs(60));
    plant(Some(Fault::BatchLeftHalf));
    let half = store.batch_across_for(&changes, ttl);
    plant(None);
    assert!(half.is_err());
    for of in &keys {
        // Nobody takes the place that the batch has named, not even who closes it.
        assert!(matches!(store.put(&of[2], b"", Durability::Memory), Err(Error::Poisoned { .. })));
    }
    assert!(store.close().is_err());
    disk.kill();
    let survey = LogSurvey::over(&disk, |_, _| {}).unwrap();
    assert_eq!((survey.records, survey.damage.len()), (7, 0));
    for _ in 0..2 {
        let store = RawLogStore::open(disk.clone(), &options()).unwrap().with_clock(|| 2_000);
        for (of, value) in keys.iter().zip(&values) {
            assert_eq!(store.get(&of[1]).unwrap().as_deref(), Some(&value[..]));
            assert_eq!(store.left(&of[1]).unwrap(), Some(Some(Duration::from_secs(59))));
        }
        assert_eq!(store.get(&keys[3][0]).unwrap(), None);
        store.verify().unwrap();
        disk.power_cut();
    }
    // Nor do hints and compaction bring anything back.
    let store = RawLogStore::open(disk.clone(), &options()).unwrap().with_clock(|| 62_000);
    assert_eq!(store.sweep(100).unwrap(), 4);
    store.close().unwrap();
    let store = RawLogStore::open(disk, &LogOptions { dead_percent: 1, ..options() }).unwrap();
    store.compact().unwrap();
    let mut left = Vec::new();
    store.for_each(|key, _| left.push(key.to_vec())).unwrap();
    left.sort();
    let mut expected: Vec<_> = keys[..3].iter().map(|of| of[0].clone()).collect();
    expected.sort();
    assert_eq!(left, expected);
}

#[test]
fn parts_that_no_shard_can_have_are_damage_and_not_made() {
    // A batch as another number of shards would have had it.
    let disk = Disk::new(5);
    let one = LogOptions { shards: 1, ..options() };
    let store = RawLogStore::create(disk.clone(), &one).unwrap();
    let shard = &store.shards[0];
    let mut parts = Vec::new();
    write_part((1, 1), &[Change::Put(b"k", b"v")], 0, &mut parts);
    let entry = Entry { parts: &parts, ..Entry::new(&[Change::Put(b"a", b"b")], 0) };
    shard.append(store.store(), &mut shard.writer(), &entry, Why::New).unwrap();
    drop(store);
    disk.kill();
    let opened = RawLogStore::open(disk.clone(), &one);
    let what = opened.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(what.contains("a batch has parts that no shard can have"), "{what}");
    let survey = LogSurvey::over(&disk, |_, _| {}).unwrap();
    assert_eq!(survey.damage.len(), 1, "{survey:?}");
}

#[test]
fn what_one_shard_refuses_no_shard_of_the_batch_gets() {
    let disk = Disk::new(1);
    let store = RawLogStore::create(disk.clone(), &options()).unwrap();
    let keys = keys(|key| store.shard(key).unwrap());
    let sequences = || store.stats().iter().map(|shard| shard.sequence).collect::<Vec<_>>();
    let value = [7; VALUE];
    let long = vec![7; SEGMENT_BYTES_MIN as usize];
    let mut changes: Vec<_> = keys.iter().map(|of| Change::Put(&of[0], &value)).collect();
    changes[3] = Change::Put(&keys[3][0], &long);
    let refused = store.batch_across(&changes);
    assert!(matches!(refused, Err(Error::BatchTooLong { .. })), "{refused:?}");
    // All of them together do not fit into the frame of the first, though each does into its own.
    let half = vec![7; SEGMENT_BYTES_MIN as usize / 2];
    let halves: Vec<_> = keys.iter().map(|of| Change::Put(&of[0], &half)).collect();
    assert!(matches!(store.batch_across(&halves), Err(Error::BatchTooLong { .. })));
    assert!(matches!(store.batch_across(&[Change::Delete(b"")]), Err(Error::OutOfLimits { .. })));
    assert_eq!(store.batch_across(&[]).unwrap(), []);
    assert_eq!(sequences(), [0; SHARDS as usize]);
    changes[3] = Change::Put(&keys[3][0], &value);
    // No room for another segment of some shard.
    let names = disk.names();
    let bytes: u64 = names.iter().map(|name| disk.file(name).len().unwrap()).sum();
    disk.set_faults(DiskFaults { bytes_max: bytes + 20_000, ..DiskFaults::NONE });
    let refused = loop {
        let before = sequences();
        if let Err(error) = store.batch_across(&changes) {
            assert_eq!(before, sequences());
            break error;
        }
    };
    assert!(refused.is_full(), "{refused}");
    disk.set_faults(DiskFaults::NONE);
    store.batch_across(&changes).unwrap();
    store.verify().unwrap();
}

#[test]
fn v10_a_disk_that_is_full_at_any_byte_refuses_a_batch_whole_and_the_store_goes_on() {
    let refuse = || full::refused::<RawLogStore<Machine>>(0..6_000, 13);
    let (refused, wrong) = refuse();
    println!("{refused} batches were refused");
    assert_eq!(wrong, None);
    assert!(refused > 1_300, "{refused}");
    plant(Some(Fault::BatchUnreserved));
    let (_, wrong) = refuse();
    plant(None);
    assert!(wrong.is_some(), "a batch that begins without room for its parts was not found");
}

#[test]
fn hooks_hear_of_each_part_and_a_snapshot_has_all_of_a_batch_or_nothing() {
    let store = RawLogStore::create(Disk::new(3), &options()).unwrap();
    let keys = keys(|key| store.shard(key).unwrap());
    let heard = Arc::new(Mutex::new(0));
    let told = Arc::clone(&heard);
    let hook = store.on_commit(move |commit| *told.lock().unwrap() += commit.changes.len());
    let (is_over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let snapshots = thread::scope(|scope| {
        for writer in 1..3_u64 {
            let (store, keys, is_over, written) = (&store, &keys, &is_over, &written);
            scope.spawn(move || {
                let mut number = 0_u64;
                while !is_over.load(Relaxed) {
                    number += 1;
                    let value = (writer << 32 | number).to_le_bytes();
                    let changes: Vec<_> =
                        keys.iter().map(|of| Change::Put(&of[0], &value)).collect();
                    store.batch_across(&changes).unwrap();
                    written.fetch_add(1, Relaxed);
                }
            });
        }
        let mut snapshots = 0;
        while written.load(Relaxed) < 400 || snapshots < 20 {
            let snapshot = store.snapshot();
            let mut seen: Vec<_> = keys.iter().map(|of| snapshot.get(&of[0]).unwrap()).collect();
            seen.dedup();
            assert_eq!(seen.len(), 1, "a snapshot has a part of a batch");
            snapshots += 1;
            let _may_fail = store.tend();
        }
        is_over.store(true, Relaxed);
        snapshots
    });
    drop(hook);
    let batches = written.load(Relaxed) as usize;
    assert_eq!(*heard.lock().unwrap(), batches * keys.len());
    assert!(snapshots >= 20, "{snapshots}");
    let mut watch = store.watch(crate::Span::ALL).unwrap();
    let changes: Vec<_> = keys.iter().map(|of| Change::Put(&of[1], b"")).collect();
    store.batch_across(&changes).unwrap();
    let mut seen = Vec::new();
    while let Some(crate::News::Put { key, .. }) = watch.take().unwrap() {
        seen.push(key);
    }
    assert_eq!(seen, keys.iter().map(|of| of[1].clone()).collect::<Vec<_>>());
}

#[test]
fn v10_no_write_takes_the_place_that_a_failed_batch_has_named() {
    no_write_takes_the_place!(RawLogStore, |folder| RawLogStore::create(folder, &options())
        .unwrap());
}
