//! Ranges, snapshots and watches of a store of any sizes while it is written, compacted and opened
//! again.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use mainstay_base::Rng;
use mainstay_sim::Disk;

use super::*;
use crate::{
    Durability::Memory,
    Error, LogOptions, News,
    limits::{SEGMENT_BYTES_MIN, TTL_MAX, WATCH_BYTES_MAX},
};

mod model;

fn options(shards: u32, ordered: bool) -> LogOptions {
    // So small that a few values fill a segment, and one in four dead has it compacted.
    let segment_bytes = SEGMENT_BYTES_MIN;
    LogOptions { shards, segment_bytes, ordered, dead_percent: 25, ..LogOptions::default() }
}

/// Keys of several lengths, some of which begin with others.
fn key(number: u8) -> Vec<u8> {
    let mut key = vec![number % 5; usize::from(number % 3) + 1];
    key.push(number / 16);
    key
}

fn value(seed: u8) -> Vec<u8> {
    vec![seed; usize::from(seed) * 9]
}

#[test]
fn a_snapshot_reads_what_compaction_has_removed_from_the_directory() {
    let store = RawLogStore::create(Disk::new(3), &options(1, false)).unwrap();
    let old = vec![7; 3_000];
    let put_all = |value: &[u8]| {
        for number in 0..40_u8 {
            store.put(&[number], value, Memory).unwrap();
        }
    };
    put_all(&old);
    let before = store.snapshot();
    for round in 0..3 {
        put_all(&[round]);
        store.compact().unwrap();
    }
    assert_eq!(store.stats()[0].segments, 1, "everything old is gone");
    let mut count = 0;
    before.for_each(|_, value| count += usize::from(value == old)).unwrap();
    assert_eq!(count, 40);
    assert_eq!(before.get(&[9]).unwrap().as_deref(), Some(&old[..]));
}

#[test]
fn a_snapshot_that_would_keep_too_much_says_so_and_the_store_goes_on() {
    let least = LogOptions { snapshot_bytes_max: 2 * 129, ..options(1, false) };
    let store = RawLogStore::create(Disk::new(4), &least).unwrap();
    let snapshot = store.snapshot();
    store.put(b"a", b"1", Memory).unwrap();
    store.put(b"b", b"1", Memory).unwrap();
    assert_eq!((snapshot.get(b"a").unwrap(), snapshot.kept_bytes()), (None, 2 * 129));
    store.put(b"c", b"1", Memory).unwrap();
    let lost = snapshot.get(b"a");
    assert!(matches!(lost, Err(Error::SnapshotLost { shard: 0, max: 258 })), "{lost:?}");
    assert_eq!(store.get(b"c").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn v6_while_writers_go_on_what_stays_is_shown_once_and_in_order() {
    let store = RawLogStore::create(Disk::new(5), &options(2, true)).unwrap();
    let key = |number: u32| number.to_be_bytes();
    for number in (0..800).step_by(2) {
        store.put(&key(number), &key(number), Memory).unwrap();
    }
    let is_done = AtomicBool::new(false);
    let mut odd = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = Rng::seeded(1);
            while !is_done.load(Relaxed) {
                let number = rng.below(800) as u32;
                if number % 2 == 1 && rng.below(2) == 0 {
                    store.delete(&key(number), Memory).unwrap();
                } else {
                    store.put(&key(number), &key(number), Memory).unwrap();
                }
                if rng.below(500) == 0 {
                    store.compact().unwrap();
                }
            }
        });
        for round in 0..30 {
            let range = store.range(&Span::ALL).unwrap().map(Result::unwrap);
            let mut shown: Vec<u32> = if round % 2 == 0 {
                range.map(|(key, _)| u32::from_be_bytes((&*key).try_into().unwrap())).collect()
            } else {
                range
                    .rev()
                    .map(|(key, _)| u32::from_be_bytes((&*key).try_into().unwrap()))
                    .collect()
            };
            if round % 2 == 1 {
                shown.reverse();
            }
            assert!(shown.is_sorted_by(|one, next| one < next));
            odd += shown.iter().filter(|number| **number % 2 == 1).count();
            shown.retain(|number| number % 2 == 0);
            assert_eq!(shown, (0..800).step_by(2).collect::<Vec<_>>());
        }
        is_done.store(true, Relaxed);
    });
    assert!(odd > 0, "the writers did nothing meanwhile");
}

#[test]
fn a_store_that_keeps_no_order_says_how_to_get_one() {
    let disk = Disk::new(6);
    let store = RawLogStore::create(disk.clone(), &options(1, false)).unwrap();
    store.put(b"b", b"1", Memory).unwrap();
    store.put(b"a", b"1", Memory).unwrap();
    assert!(matches!(store.range(&Span::ALL).err(), Some(Error::NotOrdered)));
    assert!(matches!(store.snapshot().range(&Span::ALL).err(), Some(Error::NotOrdered)));
    drop(store);
    // No file knows of it.
    let store = RawLogStore::open(disk, &options(1, true)).unwrap();
    let keys: Vec<_> = store.range(&Span::ALL).unwrap().map(|one| one.unwrap().0).collect();
    assert_eq!(keys, [Box::from(*b"a"), Box::from(*b"b")] as [Box<[u8]>; 2]);
}

#[test]
fn v8_a_watch_sees_writes_in_their_order_and_nothing_that_is_only_moved() {
    let store = RawLogStore::create(Disk::new(7), &options(1, false)).unwrap();
    let mut watch = store.watch(Span::ALL.prefix(b"k")).unwrap();
    for seed in 0..60_u8 {
        store.put(b"k1", &[seed], Memory).unwrap();
        store.put(b"other", &vec![seed; 2_000], Memory).unwrap();
    }
    store.put(b"k2", b"stays", Memory).unwrap();
    store.delete(b"k1", Memory).unwrap();
    let before = store.stats()[0].segments;
    store.compact().unwrap();
    assert!(store.stats()[0].segments < before, "nothing was compacted");
    let mut seen = Vec::new();
    while let Some(news) = watch.take().unwrap() {
        seen.push(match news {
            News::Put { key, value, .. } => (key, Some(value)),
            News::Deleted { key, .. } => (key, None),
            News::Missed => panic!("there was room"),
        });
    }
    let mut expected: Vec<_> = (0..60_u8).map(|seed| (b"k1".to_vec(), Some(vec![seed]))).collect();
    expected.push((b"k2".to_vec(), Some(b"stays".to_vec())));
    expected.push((b"k1".to_vec(), None));
    assert_eq!(seen, expected);
}

#[test]
fn a_value_that_is_too_long_for_a_watch_is_missed_and_the_next_one_is_seen() {
    let long = LogOptions { shards: 1, ..LogOptions::default() };
    let store = RawLogStore::create(Disk::new(8), &long).unwrap();
    let mut watch = store.watch(Span::ALL).unwrap();
    let most = WATCH_BYTES_MAX - 64 - 1;
    store.put(b"k", &vec![1; most], Memory).unwrap();
    assert!(matches!(watch.take().unwrap(), Some(News::Put { value, .. }) if value.len() == most));
    store.put(b"k", &vec![1; most + 1], Memory).unwrap();
    store.put(b"k", b"short", Memory).unwrap();
    assert_eq!(watch.take().unwrap(), Some(News::Missed));
    assert!(matches!(watch.take().unwrap(), Some(News::Put { value, .. }) if value == b"short"));
    assert_eq!(watch.take().unwrap(), None);
}

#[test]
fn v9_what_has_ended_is_removed_for_good_though_older_records_of_its_key_are_in_the_log() {
    let disk = Disk::new(9);
    let store = RawLogStore::create(disk.clone(), &options(1, false)).unwrap();
    let now = Arc::new(AtomicU64::new(1_000));
    let clock = Arc::clone(&now);
    let store = store.with_clock(move || clock.load(Relaxed));
    let mut watch = store.watch(Span::ALL).unwrap();
    for number in 0..200_u8 {
        store.put(&[number], &[1; 300], Memory).unwrap();
        store.put_for(&[number], &[2; 300], Some(Duration::from_millis(5)), Memory).unwrap();
    }
    now.fetch_add(5, Relaxed);
    assert_eq!(store.get(&[7]).unwrap(), None);
    assert_eq!((store.sweep(150).unwrap(), store.sweep(1_000).unwrap()), (150, 50));
    let mut deleted = 0;
    while let Some(news) = watch.take().unwrap() {
        deleted += usize::from(matches!(news, News::Deleted { .. }));
    }
    assert_eq!(deleted, 200);
    store.compact().unwrap();
    store.sync().unwrap();
    drop(store);
    disk.power_cut();
    // By a clock that was set back nothing returns either.
    let store = RawLogStore::open(disk, &options(1, false)).unwrap().with_clock(|| 0);
    store.for_each(|key, _| panic!("{key:?} is back")).unwrap();
    assert_eq!(store.stats()[0].records, 0);
}

#[test]
fn a_time_to_live_has_its_limits_and_the_longest_value_has_room_for_one() {
    let store = RawLogStore::create(Disk::new(10), &options(1, false)).unwrap().with_clock(|| 7);
    let ms = Duration::from_millis;
    for ttl in [ms(1), TTL_MAX] {
        store.put_for(b"k", b"v", Some(ttl), Memory).unwrap();
        assert_eq!(store.left(b"k").unwrap(), Some(Some(ttl)));
    }
    for ttl in [Duration::ZERO, Duration::from_nanos(999_999), TTL_MAX + ms(1), Duration::MAX] {
        let refused = store.put_for(b"k", b"v", Some(ttl), Memory);
        assert!(matches!(refused, Err(Error::OutOfLimits { .. })), "{ttl:?}");
    }
    let most = store.record_bytes_max() as usize - 1;
    store.put(b"k", &vec![1; most], Memory).unwrap();
    let refused = store.put_for(b"k", &vec![1; most], Some(ms(1)), Memory);
    assert!(matches!(refused, Err(Error::BatchTooLong { .. })), "{refused:?}");
    store.put_for(b"k", &vec![1; most - 8], Some(ms(1)), Memory).unwrap();
}
