//! Writers and readers at the same time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

use mainstay_sim::Disk;
use mainstay_store::{
    Change, Durability, Error, FixedStore, LogOptions, LogStore, Options, RawStore, Reader,
    limits::SEGMENT_BYTES_MIN,
};

use crate::{key, on, small, value};

#[test]
fn two_writers_of_one_key_lose_no_update_and_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FixedStore::<u64, u64>::create(dir.path(), &small()).unwrap());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let add = |count: Option<u64>| Some(count.unwrap_or(0) + 1);
                    let token = store.update(&7, Durability::Group, add).unwrap();
                    assert!(store.is_durable(token).unwrap());
                }
            });
        }
    });
    assert_eq!(store.get(&7).unwrap(), Some(200));
    assert_eq!(store.stats()[0].durable, 200);
}

#[test]
fn two_writers_of_one_key_of_any_size_lose_no_update() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { shards: 1, ..LogOptions::default() };
    let store = LogStore::<u64, u64>::create(dir.path(), &options).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let add = |count: Option<u64>| Some(count.unwrap_or(0) + 1);
                    let token = store.update(&7, Durability::Group, add).unwrap().unwrap();
                    assert!(store.is_durable(token).unwrap());
                }
            });
        }
    });
    assert_eq!(store.get(&7).unwrap(), Some(200));
    assert_eq!(store.raw().stats()[0].sequence, 200);
}

/// Counts up by comparing and swapping, of several threads.
macro_rules! count_up {
    ($store:expr) => {{
        let store = &$store;
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut left = 300;
                    while left > 0 {
                        let old = store.get(&7).unwrap();
                        let new = old.unwrap_or(0) + 1;
                        let how = Durability::Memory;
                        let swapped = store.compare_and_swap(&7, old.as_ref(), Some(&new), how);
                        left -= u32::from(swapped.unwrap().is_some());
                    }
                });
            }
        });
        assert_eq!(store.get(&7).unwrap(), Some(1_200));
    }};
}

#[test]
fn of_writers_that_compare_and_swap_one_at_a_time_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let (fixed, any) = (dir.path().join("fixed"), dir.path().join("any"));
    count_up!(FixedStore::<u64, u64>::create(&fixed, &small()).unwrap());
    count_up!(LogStore::<u64, u64>::create(&any, &LogOptions::default()).unwrap());
}

#[test]
fn readers_beside_a_writer_see_whole_values() {
    let store = on(&Disk::new(7));
    store.put(&key(1), &value(0), Durability::Memory).unwrap();
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..2_000 {
                store.put(&key(1), &value(number), Durability::Memory).unwrap();
            }
            end.store(true, Ordering::Relaxed);
        });
        while !end.load(Ordering::Relaxed) {
            let seen = store.get(&key(1)).unwrap().unwrap();
            assert!(seen.iter().all(|byte| *byte == seen[0]));
        }
    });
}

#[test]
fn readers_never_see_a_value_go_back_or_a_key_vanish_while_the_index_grows() {
    const KEYS: u32 = 6_000;
    let options = Options { shards: 1, ..Options::default() };
    let dir = tempfile::tempdir().unwrap();
    let store = FixedStore::<u32, [u8; 64]>::create(dir.path(), &options).unwrap();
    let reader = Reader::open(dir.path()).unwrap();
    let round_of = |value: &[u8; 64]| {
        assert!(value.iter().all(|byte| *byte == value[0]), "{value:?}");
        value[0]
    };
    let (known, end) = (AtomicU32::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let (writes, store, reader) = ((&known, &end), &store, &reader);
        scope.spawn(move || {
            let (known, end) = writes;
            for round in 0..6 {
                for number in 0..KEYS {
                    store.put(&number, &value(round), Durability::Memory).unwrap();
                    known.fetch_max(number + 1, Ordering::Release);
                    // Others come and go, so that words are used up and the index is made anew.
                    store.put(&(KEYS + number), &value(0), Durability::Memory).unwrap();
                    store.delete(&(KEYS + number), Durability::Memory).unwrap().unwrap();
                }
            }
            end.store(true, Ordering::Release);
        });
        let (known, end) = (&known, &end);
        let round_of = &round_of;
        let look = move |get: &dyn Fn(u32) -> Option<[u8; 64]>| {
            let (mut last, mut looks) = (vec![0; KEYS as usize], 0_u32);
            while !end.load(Ordering::Acquire) || looks < 1_000 {
                let known = known.load(Ordering::Acquire);
                looks += 1;
                let Some(number) = looks.wrapping_mul(2_654_435_761).checked_rem(known) else {
                    continue;
                };
                let round = round_of(&get(number).expect("a key that was there"));
                assert!(round >= last[number as usize], "{number} went back");
                last[number as usize] = round;
            }
        };
        scope.spawn(move || look(&|number| store.get(&number).unwrap()));
        let in_place = move |number: u32| reader.get(&number.to_le_bytes()).unwrap();
        scope
            .spawn(move || look(&|number| in_place(number).map(|value| value.try_into().unwrap())));
    });
}

#[test]
fn a_batch_is_one_write_of_one_shard() {
    let disk = Disk::new(8);
    let options = Options { shards: 4, ..small() };
    let store = RawStore::create(disk, 4, 64, &options).unwrap();
    let first = store.shard(&key(0)).unwrap();
    let other = (1..).find(|number| store.shard(&key(*number)).unwrap() != first).unwrap();
    let (a, b) = (key(0), key(other));
    let refused =
        store.batch(&[Change::Put(&a, &value(1)), Change::Delete(&b)], Durability::Memory);
    assert!(matches!(refused, Err(Error::AcrossShards { .. })));
    assert_eq!(store.get(&a).unwrap(), None);
    let record = 1 + 4 + 64;
    let most = (SEGMENT_BYTES_MIN as usize - 4096 - 48) / record;
    let full = vec![Change::Put(&a, &[1; 64]); most];
    store.batch(&full, Durability::Each).unwrap().unwrap();
    let long = vec![Change::Put(&a, &[2; 64]); most + 1];
    let refused = store.batch(&long, Durability::Each);
    assert!(matches!(refused, Err(Error::BatchTooLong { .. })));
    assert_eq!(store.get(&a).unwrap(), Some(vec![1; 64]));
}
