//! Snapshots beside copies of a model, and beside writers.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use mainstay_base::Rng;
use mainstay_sim::Disk;

use super::*;
use crate::{
    Change,
    Durability::Memory,
    Options, Position,
    limits::SEGMENT_BYTES_MIN,
    planted::{Fault, plant},
    write_changes,
};

const VALUE: usize = 40;
const KEYS: u64 = 600;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

fn options(shards: u32) -> Options {
    Options { shards, segment_bytes: SEGMENT_BYTES_MIN, ordered: true, ..Options::default() }
}

fn key(number: u64) -> [u8; 2] {
    (number as u16).to_be_bytes()
}

/// What a snapshot does not show as it was.
fn differs(snapshot: &Snapshot<'_, Disk>, records: &Records, rng: &mut Rng) -> Option<String> {
    let mut found = Records::new();
    let mut twice = None;
    let shown = snapshot.for_each(|key, value| {
        if found.insert(key.to_vec(), value.to_vec()).is_some() {
            twice = Some(key.to_vec());
        }
    });
    if let Err(error) = shown {
        return Some(error.to_string());
    }
    if let Some(key) = twice {
        return Some(format!("{key:?} was shown twice"));
    }
    if found != *records {
        return Some("the records are others".to_owned());
    }
    for number in (0..KEYS).step_by(7) {
        if snapshot.get(&key(number)).ok()? != records.get(&key(number)[..]).cloned() {
            return Some(format!("key {number} has another value"));
        }
    }
    let (from, to) = (key(rng.below(KEYS)), key(rng.below(KEYS)));
    let span = Span::ALL.from(&from).before(&to);
    let expected = || records.iter().filter(|(key, _)| span.has(key));
    let whole = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
    let range = || snapshot.range(&span).unwrap().map(Result::unwrap);
    if !range().eq(expected().map(whole)) || !range().rev().eq(expected().rev().map(whole)) {
        return Some(format!("the range {span:?} is another"));
    }
    None
}

/// What is wrong in a history of writes, snapshots and compactions.
fn run(seed: u64) -> Option<String> {
    let mut rng = Rng::seeded(seed);
    let disk = Disk::new(seed);
    let store = RawStore::create(disk, 2, VALUE, &options(1 << (seed % 3))).unwrap();
    let (mut records, mut snapshots) = (Records::new(), Vec::new());
    for step in 0..900 {
        let (number, value) = (rng.below(KEYS), vec![rng.next_u64() as u8; VALUE]);
        match rng.below(60) {
            0 if snapshots.len() < 4 => snapshots.push((store.snapshot(), records.clone())),
            1 if !snapshots.is_empty() => {
                drop(snapshots.swap_remove(rng.below(snapshots.len() as u64) as usize));
            }
            2 => store.compact().unwrap(),
            3 => store.tend().unwrap(),
            4..24 => {
                store.delete(&key(number), Memory).unwrap();
                records.remove(&key(number)[..]);
            }
            24..28 => {
                // A key twice in one write, and keys of several shards.
                let other = key(rng.below(KEYS));
                let first = vec![1; VALUE];
                let changes = [
                    Change::Put(&key(number), &first),
                    Change::Delete(&other),
                    Change::Put(&key(number), &value),
                ];
                store.batch_across(&changes).unwrap();
                records.remove(&other[..]);
                records.insert(key(number).to_vec(), value);
            }
            28..31 => {
                for (snapshot, was) in &snapshots {
                    if let Some(what) = differs(snapshot, was, &mut rng) {
                        return Some(format!("seed {seed}, step {step}: {what}"));
                    }
                }
            }
            _ => {
                store.put(&key(number), &value, Memory).unwrap();
                records.insert(key(number).to_vec(), value);
            }
        }
    }
    drop(snapshots);
    assert!(store.shards.iter().all(|shard| shard.snapshots().is_empty()));
    None
}

#[test]
fn a13_a_snapshot_is_what_the_store_was_whatever_is_written_and_compacted_since() {
    for seed in 0..60 {
        assert_eq!(run(seed), None);
    }
    plant(Some(Fault::SnapshotForgotten));
    let wrong = run(0);
    plant(None);
    assert!(wrong.is_some(), "a record that was not kept was not found");
}

#[test]
fn a13_while_writers_go_on_a_snapshot_has_whole_batches_and_each_key_once() {
    const ACCOUNTS: u64 = 400;
    let store = RawStore::create(Disk::new(1), 2, 8, &options(4)).unwrap();
    for number in 0..ACCOUNTS {
        store.put(&key(number), &100_i64.to_le_bytes(), Memory).unwrap();
    }
    let total = |records: Vec<(Vec<u8>, Vec<u8>)>| {
        let mut seen = Records::new();
        let mut sum = 0;
        for (key, value) in records {
            sum += i64::from_le_bytes(value.as_slice().try_into().unwrap());
            assert!(seen.insert(key, value).is_none(), "a key twice");
        }
        (sum, seen.len() as u64)
    };
    let is_done = AtomicBool::new(false);
    let mut mixes = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = Rng::seeded(1);
            while !is_done.load(Relaxed) {
                let (from, to) = (rng.below(ACCOUNTS), rng.below(ACCOUNTS));
                if from == to {
                    continue;
                }
                let balance = |number| {
                    let value = store.get(&key(number)).unwrap().unwrap();
                    i64::from_le_bytes(value.try_into().unwrap())
                };
                let (less, more) = (balance(from) - 1, balance(to) + 1);
                store
                    .batch_across(&[
                        Change::Put(&key(from), &less.to_le_bytes()),
                        Change::Put(&key(to), &more.to_le_bytes()),
                    ])
                    .unwrap();
            }
        });
        for round in 0..80 {
            let snapshot = store.snapshot();
            let mut records = Vec::new();
            if round % 2 == 0 {
                let add = |key: &[u8], value: &[u8]| records.push((key.to_vec(), value.to_vec()));
                snapshot.for_each(add).unwrap();
            } else {
                records.extend(snapshot.range(&Span::ALL).unwrap().map(Result::unwrap));
            }
            let found = total(records);
            assert_eq!(found, (100 * ACCOUNTS as i64, ACCOUNTS), "round {round}");
            let mut sum = 0;
            store
                .for_each(|_, value| sum += i64::from_le_bytes(value.try_into().unwrap()))
                .unwrap();
            mixes += u32::from(sum != 100 * ACCOUNTS as i64);
        }
        is_done.store(true, Relaxed);
    });
    println!("{mixes} of 80 looks without a snapshot saw a mix");
}

#[test]
fn a_snapshot_of_one_shard_has_nothing_of_another() {
    let store = RawStore::create(Disk::new(1), 2, 1, &options(2)).unwrap();
    let of = |shard| (0..).map(key).find(|key| store.shard(key).unwrap() == shard).unwrap();
    let (ours, other) = (of(1), of(0));
    store.put(&ours, b"1", Memory).unwrap();
    store.put(&other, b"1", Memory).unwrap();
    let snapshot = store.snapshot_shard(1).unwrap();
    store.put(&ours, b"2", Memory).unwrap();
    assert_eq!(snapshot.get(&ours).unwrap(), Some(b"1".to_vec()));
    assert!(matches!(snapshot.get(&other), Err(Error::OutOfLimits { value: 0, .. })));
    let (mut by_slots, all) = (Vec::new(), [(ours.to_vec(), b"1".to_vec())]);
    snapshot.for_each(|key, value| by_slots.push((key.to_vec(), value.to_vec()))).unwrap();
    assert_eq!(by_slots, all);
    let in_order: Vec<_> = snapshot.range(&Span::ALL).unwrap().map(Result::unwrap).collect();
    assert_eq!(in_order, all);
    assert_eq!(snapshot.tokens().map(|token| token.shard).collect::<Vec<_>>(), [1]);
    assert!(matches!(store.snapshot_shard(2), Err(Error::OutOfLimits { value: 2, .. })));
}

#[test]
fn a_snapshot_keeps_as_much_as_it_may_and_is_lost_with_one_byte_more() {
    let lost_with = |snapshot_bytes_max| {
        let options = Options { snapshot_bytes_max, ..options(1) };
        let store = RawStore::create(Disk::new(1), 2, VALUE, &options).unwrap();
        let value = [1; VALUE];
        store.put(&key(1), &value, Memory).unwrap();
        let snapshot = store.snapshot();
        // A key that was there, one that was not, and the first one again.
        for number in [1, 2, 1] {
            store.put(&key(number), &value, Memory).unwrap();
        }
        let kept = snapshot.kept_bytes();
        let all = [
            snapshot.get(&key(1)).map(drop),
            snapshot.for_each(|_, _| {}),
            snapshot.range(&Span::ALL).unwrap().next().transpose().map(drop),
        ];
        let lost = all.iter().filter(|one| matches!(one, Err(Error::SnapshotLost { .. }))).count();
        // Writers do not care, and another one can be taken.
        assert_eq!(store.get(&key(2)).unwrap(), Some(value.to_vec()));
        assert!(store.snapshot().get(&key(2)).unwrap().is_some());
        (kept, lost)
    };
    let (all, lost) = lost_with(u64::MAX);
    assert_eq!((all > 2 * 128, lost), (true, 0));
    assert_eq!(lost_with(all), (all, 0));
    assert_eq!(lost_with(all - 1), (0, 3));
}

#[test]
fn a_snapshot_of_a_replica_stays_while_the_leaders_writes_come_in() {
    let leader = RawStore::create(Disk::new(1), 2, 1, &options(1)).unwrap();
    let replica = RawStore::create_replica(Disk::new(2), &leader.identity(), &options(1)).unwrap();
    let apply = |changes: &[Change<'_>]| {
        let mut bytes = Vec::new();
        write_changes(changes, &mut bytes);
        replica.apply(0, 1, changes.len() as u32, &bytes).unwrap()
    };
    apply(&[Change::Put(&key(1), b"1")]);
    let snapshot = replica.snapshot();
    apply(&[Change::Delete(&key(1)), Change::Put(&key(2), b"2")]);
    let mending = crate::History::Mending(Position::START);
    replica.mend(0, &[Change::Put(&key(3), b"3")], mending).unwrap();
    let found: Vec<_> = snapshot.range(&Span::ALL).unwrap().map(Result::unwrap).collect();
    assert_eq!(found, [(key(1).to_vec(), b"1".to_vec())]);
}
