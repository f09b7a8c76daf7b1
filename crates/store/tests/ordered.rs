//! Records in the order of their keys, compared with an ordered map in memory.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use mainstay_base::Rng;
use mainstay_sim::Disk;
use mainstay_store::{
    Change, Durability::Memory, Error, FixedStore, Options, Position, RawStore, Span,
    limits::SEGMENT_BYTES_MIN, write_changes,
};
use proptest::prelude::*;

/// Longer than what is compared as one number.
const KEY: usize = 18;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

fn ordered(shards: u32) -> Options {
    Options { shards, segment_bytes: SEGMENT_BYTES_MIN, ordered: true, ..Options::default() }
}

/// Few keys, which differ at the beginning, in the middle and at the end.
fn key(number: u8) -> Vec<u8> {
    let mut key = vec![0; KEY];
    for (at, shift) in [(0, 0), (7, 1), (15, 2), (16, 3), (17, 5)] {
        key[at] = [0, 1, 254, 255][usize::from(number >> shift & 3)];
    }
    key
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Batch(Vec<(u8, Option<u8>)>),
    Update(u8),
    Reopen { cut: bool },
    Compact,
    Look { from: (u8, usize), to: (u8, usize), prefix: (u8, usize), ends: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let end = || (any::<u8>(), 0..=KEY + 2);
    prop_oneof![
        12 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        6 => any::<u8>().prop_map(Step::Delete),
        2 => prop::collection::vec((any::<u8>(), any::<Option<u8>>()), 1..9).prop_map(Step::Batch),
        2 => any::<u8>().prop_map(Step::Update),
        1 => any::<bool>().prop_map(|cut| Step::Reopen { cut }),
        1 => Just(Step::Compact),
        8 => (end(), end(), (any::<u8>(), 0..4_usize), any::<u32>())
            .prop_map(|(from, to, prefix, ends)| Step::Look { from, to, prefix, ends }),
    ]
}

/// A key, or one that is longer or shorter.
fn end((number, len): (u8, usize)) -> Vec<u8> {
    let mut end = key(number);
    end.resize(len, 1);
    end
}

/// Takes records from both ends, as the bits of `ends` say, until they meet.
fn look(store: &RawStore<Disk>, records: &Records, span: &Span, mut ends: u32) {
    let mut found = store.range(span).unwrap();
    let mut expected = records.iter().filter(|(key, _)| span.has(key));
    loop {
        let (found, expected) = match ends & 1 {
            0 => (found.next(), expected.next()),
            _ => (found.next_back(), expected.next_back()),
        };
        ends = ends.rotate_right(1);
        let found = found.transpose().unwrap();
        assert_eq!(found.as_ref().map(|(key, value)| (key, value)), expected);
        if found.is_none() {
            break;
        }
    }
    assert!(found.next().is_none() && found.next_back().is_none());
}

fn run(steps: &[Step], shards: u32) {
    let disk = Disk::new(1);
    let mut store = RawStore::create(disk.clone(), KEY, 1, &ordered(shards)).unwrap();
    let mut records = Records::new();
    for step in steps {
        match step {
            Step::Put(number, value) => {
                store.put(&key(*number), &[*value], Memory).unwrap();
                records.insert(key(*number), vec![*value]);
            }
            Step::Delete(number) => {
                let was_there = store.delete(&key(*number), Memory).unwrap().is_some();
                assert_eq!(records.remove(&key(*number)).is_some(), was_there);
            }
            Step::Batch(changes) => {
                let changes: Vec<_> = changes
                    .iter()
                    .map(|(number, value)| (key(*number), value.map(|v| [v])))
                    .collect();
                let shard = store.shard(&changes[0].0).unwrap();
                let of_one = changes.iter().filter(|(key, _)| store.shard(key).unwrap() == shard);
                let made: Vec<Change<'_>> = of_one
                    .map(|(key, value)| Change::of(key, value.as_ref().map(|value| &value[..])))
                    .collect();
                store.batch(&made, Memory).unwrap();
                for change in made {
                    match change {
                        Change::Put(key, value) => records.insert(key.to_vec(), value.to_vec()),
                        Change::Delete(key) => records.remove(key),
                    };
                }
            }
            Step::Update(number) => {
                store.update(&key(*number), Memory, |_| Some(vec![7])).unwrap();
                records.insert(key(*number), vec![7]);
            }
            Step::Reopen { cut } => {
                store.sync().unwrap();
                drop(store);
                if *cut {
                    disk.power_cut();
                }
                store = RawStore::open(disk.clone(), &ordered(shards)).unwrap();
            }
            Step::Compact => store.compact().unwrap(),
            Step::Look { from, to, prefix, ends } => {
                let span = Span::ALL.from(&end(*from)).before(&end(*to));
                look(&store, &records, &span, *ends);
                look(&store, &records, &Span::ALL.from(&end(*from)), *ends);
                look(&store, &records, &Span::ALL.prefix(&end(*prefix)), *ends);
            }
        }
    }
    look(&store, &records, &Span::ALL, 0);
    look(&store, &records, &Span::ALL, u32::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_part_from_either_end_is_that_of_an_ordered_map(
        steps in prop::collection::vec(step(), 1..80),
        shards in 0..4_u32,
    ) {
        run(&steps, 1 << shards);
    }
}

#[test]
fn a_store_that_keeps_no_order_says_how_to_get_one() {
    let disk = Disk::new(2);
    let store = RawStore::create(disk.clone(), 1, 1, &Options::default()).unwrap();
    store.put(b"b", b"1", Memory).unwrap();
    store.put(b"a", b"1", Memory).unwrap();
    let refused = store.range(&Span::ALL).err().unwrap();
    assert!(matches!(refused, Error::NotOrdered), "{refused}");
    drop(store);
    // The order is made at each opening that wants it, and no file knows of it.
    let store = RawStore::open(disk.clone(), &ordered(1)).unwrap();
    let keys: Vec<_> = store.range(&Span::ALL).unwrap().map(|record| record.unwrap().0).collect();
    assert_eq!(keys, [b"a", b"b"]);
    drop(store);
    let store = RawStore::open(disk, &Options::default()).unwrap();
    assert!(store.range(&Span::ALL).is_err());
}

#[test]
fn memory_that_was_taken_over_from_a_dead_owner_is_in_order_too() {
    let folder = tempfile::tempdir().unwrap();
    let options = ordered(4);
    let store = FixedStore::<[u8; 3], u32>::create(folder.path(), &options).unwrap();
    for number in (0..900_u32).rev() {
        let key = format!("{number:03}");
        store.put(key.as_bytes().try_into().unwrap(), &number, Memory).unwrap();
    }
    drop(store);
    let store = FixedStore::<[u8; 3], u32>::open(folder.path(), &options).unwrap();
    assert!(store.stats().iter().all(|shard| shard.adopted));
    let values = |found: mainstay_store::FixedRange<'_, [u8; 3], u32>| -> Vec<u32> {
        found.map(|record| record.unwrap().1).collect()
    };
    assert_eq!(values(store.range(..).unwrap()), (0..900).collect::<Vec<_>>());
    assert_eq!(values(store.range(*b"090"..=*b"110").unwrap()), (90..=110).collect::<Vec<_>>());
    let mut last = store.prefix(b"7").unwrap().rev();
    assert_eq!(last.next().unwrap().unwrap(), (*b"799", 799));
}

#[test]
fn a_replica_is_in_order_as_its_leader_is() {
    let leader = RawStore::create(Disk::new(3), 1, 1, &ordered(1)).unwrap();
    let replica = RawStore::create_replica(Disk::new(4), &leader.identity(), &ordered(1)).unwrap();
    let mut position = Position::START;
    for changes in [
        [Change::Put(b"c", b"1"), Change::Put(b"a", b"2")],
        [Change::Delete(b"c"), Change::Put(b"b", b"3")],
    ] {
        let mut bytes = Vec::new();
        write_changes(&changes, &mut bytes);
        position = replica.apply(0, 1, 2, &bytes).unwrap();
    }
    assert_eq!(position.sequence, 2);
    let found: Vec<_> = replica.range(&Span::ALL).unwrap().map(Result::unwrap).collect();
    assert_eq!(found, [(b"a".to_vec(), b"2".to_vec()), (b"b".to_vec(), b"3".to_vec())]);
}

#[test]
fn a11_while_writers_go_on_what_stays_is_shown_once_and_in_order() {
    let store = RawStore::create(Disk::new(5), 4, 4, &ordered(4)).unwrap();
    let key = |number: u32| number.to_be_bytes();
    // Even keys stay, and are written to; odd ones come and go.
    for number in (0..2_000).step_by(2) {
        store.put(&key(number), &key(number), Memory).unwrap();
    }
    let is_done = AtomicBool::new(false);
    let (mut seen, mut odd) = (0, 0);
    thread::scope(|scope| {
        for seed in 0..2 {
            let (store, is_done) = (&store, &is_done);
            scope.spawn(move || {
                let mut rng = Rng::seeded(seed);
                while !is_done.load(Relaxed) {
                    let number = rng.below(2_000) as u32;
                    if number % 2 == 1 && rng.below(2) == 0 {
                        store.delete(&key(number), Memory).unwrap();
                    } else {
                        store.put(&key(number), &key(number), Memory).unwrap();
                    }
                }
            });
        }
        for round in 0..60 {
            let mut stays = (0..2_000).step_by(2);
            let range = store.range(&Span::ALL).unwrap();
            let mut check = |record: Result<(Vec<u8>, Vec<u8>), Error>, next: Option<u32>| {
                let (key, value) = record.unwrap();
                assert_eq!(key, value);
                let number = u32::from_be_bytes(key.try_into().unwrap());
                if number % 2 == 0 {
                    assert_eq!(Some(number), next);
                    seen += 1;
                }
                odd += number % 2;
                number % 2 == 0
            };
            let mut next = if round % 2 == 0 { stays.next() } else { stays.next_back() };
            let mut step = |record, backward: bool| {
                if check(record, next) {
                    next = if backward { stays.next_back() } else { stays.next() };
                }
            };
            if round % 2 == 0 {
                range.for_each(|record| step(record, false));
            } else {
                range.rev().for_each(|record| step(record, true));
            }
        }
        is_done.store(true, Relaxed);
    });
    assert_eq!(seen, 60 * 1_000);
    assert!(odd > 0);
}
