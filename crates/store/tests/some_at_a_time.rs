//! Iterators and pages: all that stays is shown once, however it is read.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use mainstay_base::Rng;
use mainstay_sim::Disk;
use mainstay_store::{
    Cursor, Durability::Memory, Error, FixedStore, LogOptions, LogStore, Options, Plain, RawStore,
};

#[test]
fn pages_of_any_size_have_each_record_that_stays_once_beside_writers() {
    let options = Options { shards: 4, ..Options::default() };
    let store = RawStore::create(Disk::new(1), 2, 1, &options).unwrap();
    // Even ones stay; odd ones come and go.
    for number in 0..2_000_u16 {
        store.put(&number.to_be_bytes(), &[0], Memory).unwrap();
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = Rng::seeded(1);
            while !over.load(Relaxed) {
                let key = (rng.below(1_000) as u16 * 2 + 1).to_be_bytes();
                store.put(&key, &[1], Memory).unwrap();
                store.delete(&(rng.below(1_000) as u16 * 2 + 1).to_be_bytes(), Memory).unwrap();
            }
        });
        for max in [1, 7, 64, 10_000] {
            let (mut seen, mut next) = (BTreeSet::new(), Some(Cursor::default()));
            while let Some(from) = next {
                let mut shown = 0;
                next = store
                    .page(from, max, |key, _| {
                        shown += 1;
                        let number = u16::from_be_bytes(key.try_into().unwrap());
                        assert!(number % 2 == 1 || seen.insert(number), "{number} twice");
                    })
                    .unwrap();
                assert!(shown <= max && (shown > 0 || next.is_none()));
            }
            assert_eq!(seen.len(), 1_000, "{max} at a time");
        }
        over.store(true, Relaxed);
    });
    let past = store.page(Cursor::default(), usize::MAX, |_, _| {}).unwrap();
    assert_eq!(past, None);
    let mut count = 0;
    store.for_each(|_, _| count += 1).unwrap();
    assert_eq!(store.len(), count);
}

#[test]
fn an_iterator_is_left_and_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default()).unwrap();
    assert_eq!(store.iter().count(), 0);
    for number in 0..3_000 {
        store.put(&number, &(number + 1), Memory).unwrap();
    }
    let mut records = store.iter();
    let first: Vec<_> = records.by_ref().take(700).map(Result::unwrap).collect();
    let rest: Vec<_> = records.map(Result::unwrap).collect();
    assert_eq!((first.len(), rest.len()), (700, 2_300));
    let all: BTreeSet<_> = first.into_iter().chain(rest).collect();
    assert!(all.into_iter().eq((0..3_000).map(|number| (number, number + 1))));
}

#[test]
fn an_iterator_over_values_of_any_size_shows_a_shard_as_it_was_and_nothing_that_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { shards: 1, segment_bytes: 64 << 10, ..LogOptions::default() };
    let store = LogStore::<u64, Vec<u8>>::create(dir.path(), &options).unwrap();
    for number in 0..500 {
        store.put(&number, &vec![7; 1_000], Memory).unwrap();
    }
    store.put_for(&1_000, &Vec::new(), Some(Duration::from_millis(1)), Memory).unwrap();
    thread::sleep(Duration::from_millis(5));
    let mut records = store.iter();
    let mut seen = vec![records.next().unwrap().unwrap().0];
    // What is written and moved from here on is not shown.
    for number in 0..500 {
        store.put(&number, &vec![8; 10], Memory).unwrap();
    }
    store.put(&2_000, &Vec::new(), Memory).unwrap();
    store.raw().compact().unwrap();
    for record in records {
        let (key, value) = record.unwrap();
        assert_eq!(value, [7; 1_000]);
        seen.push(key);
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..500));
    let of_two = LogOptions { shards: 2, ..options };
    drop(store);
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::<u64, u64>::create(dir.path(), &of_two).unwrap();
    for number in 0..300 {
        store.put(&number, &number, Memory).unwrap();
    }
    let seen: BTreeSet<_> = (&store).into_iter().map(Result::unwrap).collect();
    assert!(seen.into_iter().eq((0..300).map(|number| (number, number))));
}

#[test]
fn a_value_of_another_type_ends_an_iterator_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::<u64, u64>::create(dir.path(), &LogOptions::default()).unwrap();
    store.put(&1, &2, Memory).unwrap();
    store.close().unwrap();
    let store = LogStore::<u64, Plain<[u8; 3]>>::open(dir.path(), &LogOptions::default()).unwrap();
    let mut records = store.iter();
    assert!(matches!(records.next(), Some(Err(Error::Undecodable { what: "value" }))));
    assert!(records.next().is_none());
}
