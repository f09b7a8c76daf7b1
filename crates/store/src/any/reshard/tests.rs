//! Another number of shards, beside a model and beside writers.

use std::{collections::BTreeMap, time::Duration};

use mainstay_base::Rng;
use mainstay_sim::{Disk, DiskFaults};

use super::*;
use crate::{
    Durability::Memory, Error, limits::SEGMENT_BYTES_MIN, mirror::tests::beside, planted::plant,
};

type Records = BTreeMap<Vec<u8>, (Vec<u8>, Option<Duration>)>;

fn options(shards: u32) -> LogOptions {
    LogOptions { shards, segment_bytes: SEGMENT_BYTES_MIN, ..LogOptions::default() }
}

fn key(number: u64) -> Vec<u8> {
    vec![number as u8; 1 + (number / 256) as usize]
}

/// Values, and how long each is there.
fn all(store: &RawLogStore<Disk>) -> Records {
    let mut records = Records::new();
    store
        .for_each(|key, value| {
            let left = store.left(key).unwrap().unwrap();
            assert!(
                records.insert(key.to_vec(), (value.to_vec(), left)).is_none(),
                "{key:?} twice"
            );
        })
        .unwrap();
    records
}

/// Random writes between steps of the copy; how the new store differs from the old one.
fn differs(seed: u64, before: u32, after: u32) -> Option<String> {
    let mut rng = Rng::seeded(seed);
    let clock = || 1_000_000;
    let store = RawLogStore::create(Disk::new(seed), &options(before)).unwrap().with_clock(clock);
    let write = |rng: &mut Rng| {
        let (key, other) = (key(rng.below(600)), key(rng.below(600)));
        let value = vec![rng.next_u64() as u8; rng.below(300) as usize];
        let ttl = Some(Duration::from_millis(1 + rng.below(1 << 30)));
        match rng.below(6) {
            0 | 1 => drop(store.put(&key, &value, Memory).unwrap()),
            2 => drop(store.put_for(&key, &value, ttl, Memory).unwrap()),
            3 => drop(store.delete(&key, Memory).unwrap()),
            4 => drop(store.touch(&key, ttl, Memory).unwrap()),
            _ => {
                let changes = [Change::Put(&key, &value), Change::Delete(&other)];
                let changes = if key == other { &changes[..1] } else { &changes };
                drop(store.batch_across_for(changes, ttl).unwrap());
            }
        }
    };
    (0..600).for_each(|_| write(&mut rng));
    let disk = Disk::new(seed + 1);
    let mut resharding = store.reshard_into(disk.clone(), &options(after)).unwrap();
    for _ in 0..60 {
        (0..rng.below(9)).for_each(|_| write(&mut rng));
        if rng.below(3) == 0 {
            resharding.advance(1 + rng.below(60)).unwrap();
        }
        if rng.below(20) == 0 {
            store.compact().unwrap();
        }
    }
    let new = resharding.finish().unwrap().with_clock(clock);
    assert_eq!(new.stats().len() as u32, after);
    assert_ne!(new.id(), store.id());
    assert!(matches!(store.put(&key(0), b"", Memory), Err(Error::Resharded)));
    assert!(matches!(store.batch_across(&[Change::Put(b"k", b"")]), Err(Error::Resharded)));
    store.upkeep().unwrap();
    let old = all(&store);
    // It was durable when it was told.
    drop(new);
    disk.power_cut();
    let new = RawLogStore::open(disk, &options(after)).unwrap().with_clock(clock);
    let found = all(&new);
    let wrong = old.iter().find(|(key, value)| found.get(*key) != Some(*value));
    let ghost = found.keys().find(|key| !old.contains_key(*key));
    wrong
        .map(|(key, _)| format!("{key:?} is missing, or another"))
        .or(ghost.map(|key| format!("{key:?} is back")))
}

#[test]
fn v12_the_new_store_has_what_the_old_one_had_with_its_ends_whenever_it_was_written() {
    for seed in 0..40 {
        assert_eq!(differs(seed, 1 << (seed % 4), 1 << (seed / 4 % 4)), None, "seed {seed}");
    }
}

#[test]
fn v12_a_mirror_that_forgets_deletes_or_ends_is_found() {
    for fault in [Fault::MirrorWithoutDeletes, Fault::EndForgotten] {
        plant(Some(fault));
        let found = (0..20).find_map(|seed| differs(seed, 2, 4));
        plant(None);
        assert!(found.is_some(), "{fault:?} was not found");
    }
}

/// Two writers beside the copy; whether something is different in the end.
fn beside_writers(copies_unlocked: bool) -> bool {
    let store = RawLogStore::create(Disk::new(3), &options(2)).unwrap();
    for number in 0..2_000 {
        store.put(&key(number), &[0; 8], Memory).unwrap();
    }
    let write = |rng: &mut Rng| {
        let key = key(rng.below(2_000));
        match rng.below(2) {
            0 => store.put(&key, &rng.next_u64().to_le_bytes(), Memory).map(drop),
            _ => store.delete(&key, Memory).map(drop),
        }
    };
    let new = beside(write, |wait_for| {
        wait_for(500);
        let mut resharding = store.reshard_into(Disk::new(4), &options(8)).unwrap();
        plant(copies_unlocked.then_some(Fault::CopiedUnlocked));
        while !resharding.advance(200).unwrap() {
            wait_for(50);
        }
        plant(None);
        resharding.finish().unwrap()
    });
    all(&new) != all(&store)
}

#[test]
fn v12_writers_go_on_while_records_are_copied_and_nothing_is_lost_or_returns() {
    for _ in 0..4 {
        assert!(!beside_writers(false));
    }
}

#[test]
fn v12_a_copy_beside_writers_without_their_lock_is_found() {
    assert!((0..200).any(|_| beside_writers(true)), "the fault was not found");
}

#[test]
fn an_error_of_the_other_disk_or_a_value_it_cannot_have_leaves_the_store_as_it_was() {
    let long = LogOptions { segment_bytes: 2 * SEGMENT_BYTES_MIN, ..options(2) };
    let store = RawLogStore::create(Disk::new(5), &long).unwrap();
    store.put(b"k", &[1; 20_000], Memory).unwrap();
    let disk = Disk::new(6);
    let resharding = store.reshard_into(disk.clone(), &long).unwrap();
    disk.set_faults(DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::NONE });
    let refused = resharding.finish().err();
    assert!(matches!(refused, Some(Error::Poisoned { .. })), "{refused:?}");
    store.put(b"k", &[2; 20_000], Memory).unwrap();
    // Segments that are too short for what there is, and for what is written.
    let refused = store.reshard_into(Disk::new(7), &options(4)).unwrap().finish().err();
    assert!(matches!(refused, Some(Error::BatchTooLong { .. })), "{refused:?}");
    store.delete(b"k", Memory).unwrap();
    let mut begun = store.reshard_into(Disk::new(8), &options(4)).unwrap();
    store.put(b"k", &[3; 20_000], Memory).unwrap();
    let refused = begun.advance(1).err();
    assert!(matches!(refused, Some(Error::BatchTooLong { .. })), "{refused:?}");
    drop(begun);
    store.put(b"j", b"", Memory).unwrap();
    assert_eq!(all(&store).len(), 2);
}
