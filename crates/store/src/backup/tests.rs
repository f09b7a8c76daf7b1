//! Copies of stores that are written to meanwhile, and copies that do not come to their end.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use mainstay_base::Rng;
use mainstay_sim::Disk;

use crate::{
    Change, Directory,
    Durability::Memory,
    Error, History, LogOptions, OnDisk, Options, Position, RawLogStore, RawStore, Survey,
    any::damaging::{bytes_of, cuts, without_a_mark_is_whole},
    limits::SEGMENT_BYTES_MIN,
    planted::Fault,
    restore,
};

fn options() -> Options {
    Options { shards: 4, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

fn contents(store: &RawStore<Disk>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut records = BTreeMap::new();
    let add = |key: &[u8], value: &[u8]| {
        assert!(records.insert(key.to_vec(), value.to_vec()).is_none(), "{key:?} is there twice");
    };
    store.for_each(add).unwrap();
    records
}

/// Puts and deletes, over several segments, and compacts in between.
fn fill(store: &RawStore<Disk>) {
    let mut rng = Rng::seeded(3);
    for number in 0..3_000_u64 {
        let key = [rng.below(250) as u8];
        if rng.below(4) == 0 {
            store.delete(&key, Memory).unwrap();
        } else {
            store.put(&key, &number.to_le_bytes(), Memory).unwrap();
        }
        if number == 1_500 {
            store.compact().unwrap();
        }
    }
}

#[test]
fn a_copy_is_the_store_as_it_was_and_at_its_place_of_the_history() {
    let store = RawStore::create(Disk::new(1), 1, 8, &options()).unwrap();
    fill(&store);
    let (disk, before) = (Disk::new(2), contents(&store));
    let histories: Vec<_> = (0..4).map(|shard| store.history(shard).unwrap()).collect();
    let mut told = Vec::new();
    let count = store.backup(&disk, |done, all| told.push((done, all))).unwrap();
    assert_eq!(count, before.len() as u64);
    assert_eq!(told.last(), Some(&(count, count)));
    store.put(&[1], &[9; 8], Memory).unwrap();
    // Durable as it is, without a close.
    disk.power_cut();
    let copy = RawStore::open(disk.clone(), &options()).unwrap();
    assert_eq!(contents(&copy), before);
    let there: Vec<_> = (0..4).map(|shard| copy.history(shard).unwrap()).collect();
    assert_eq!(there, histories);
    assert_eq!(copy.identity(), store.identity());
    copy.verify().unwrap();
    // And it goes on as any.
    fill(&copy);
    let after = contents(&copy);
    drop(copy);
    let copy = RawStore::open(disk, &options()).unwrap();
    assert_eq!(contents(&copy), after);
    copy.verify().unwrap();
}

#[test]
fn a_store_without_a_write_is_copied_too_and_nothing_is_copied_over_a_store() {
    let store = RawStore::create(Disk::new(1), 1, 8, &options()).unwrap();
    let disk = Disk::new(2);
    assert_eq!(store.backup(&disk, |_, _| {}).unwrap(), 0);
    assert!(matches!(store.backup(&disk, |_, _| {}), Err(Error::Exists)));
    let copy = RawStore::open(disk, &options()).unwrap();
    assert_eq!(contents(&copy).len(), 0);
    copy.put(&[1], &[2; 8], Memory).unwrap();
    copy.verify().unwrap();
}

#[test]
fn a16_in_a_copy_that_is_made_while_writers_go_on_batches_are_whole() {
    let store = RawStore::create(Disk::new(1), 8, 8, &options()).unwrap();
    // Two keys that a batch gives the same value, mostly in different shards.
    let pair = |number: u64| [number.to_le_bytes(), (number | 1 << 63).to_le_bytes()];
    let put = |number: u64, round: u64| {
        let ([one, other], value) = (pair(number), round.to_le_bytes());
        let changes = [Change::Put(&one, &value), Change::Put(&other, &value)];
        store.batch_across(&changes).unwrap();
    };
    (0..200).for_each(|number| put(number, 0));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut rng, mut round) = (Rng::seeded(5), 0);
            while !is_over.load(Relaxed) {
                round += 1;
                put(rng.below(200), round);
            }
            round
        });
        let mut newest = 0;
        for copy in 0..6 {
            let disk = Disk::new(10 + copy);
            assert_eq!(store.backup(&disk, |_, _| {}).unwrap(), 400);
            let copy = RawStore::open(disk, &options()).unwrap();
            for number in 0..200 {
                let [one, other] = pair(number).map(|key| copy.get(&key).unwrap().unwrap());
                assert_eq!(one, other, "of a batch one half is there: {number}");
                newest = newest.max(u64::from_le_bytes(one.try_into().unwrap()));
            }
            copy.verify().unwrap();
        }
        is_over.store(true, Relaxed);
        assert!(writer.join().unwrap() >= newest);
    });
}

#[test]
fn a16_a_copy_that_did_not_come_to_its_end_is_no_store_and_can_be_made_again() {
    let store = RawStore::create(Disk::new(1), 1, 8, &options()).unwrap();
    fill(&store);
    let before = contents(&store);
    let (mut unfinished, mut finished) = (0, 0);
    for calls in 0..200 {
        let disk = Disk::new(calls);
        disk.die_after(calls);
        let outcome = store.backup(&disk, |_, _| {});
        disk.power_cut();
        match RawStore::open(disk.clone(), &options()) {
            Ok(copy) => {
                assert_eq!(contents(&copy), before, "dead after {calls} calls");
                finished += 1;
            }
            Err(error @ (Error::NotAStore | Error::NotCopied)) => {
                assert!(outcome.is_err(), "it was told to be durable after {calls} calls");
                if matches!(error, Error::NotCopied) {
                    unfinished += 1;
                    assert!(error.to_string().contains("run the same backup"), "{error}");
                    let look = Survey::over(&disk, |_, _| {}).err();
                    assert!(matches!(look, Some(Error::NotCopied)), "{look:?}");
                    let made = RawStore::create(disk.clone(), 1, 8, &options()).err();
                    assert!(matches!(made, Some(Error::NotCopied)), "{made:?}");
                }
                store.backup(&disk, |_, _| {}).unwrap();
                assert_eq!(contents(&RawStore::open(disk, &options()).unwrap()), before);
            }
            Err(other) => panic!("dead after {calls} calls: {other}"),
        }
    }
    assert!(unfinished > 20 && finished > 20, "{unfinished} unfinished, {finished} finished");
}

#[test]
fn a16_a_copy_without_a_mark_is_whole_whatever_power_cuts_leave() {
    without_a_mark_is_whole(4, Fault::CopyUnsynced, |seed| {
        let more = Options { shards: 16, ..options() };
        let store = RawStore::create(Disk::new(seed), 1, 8, &more).unwrap();
        fill(&store);
        cuts(
            |to| {
                store.backup(&to, |_, _| {})?;
                Ok(contents(&RawStore::open(to, &options())?))
            },
            |image| Ok(contents(&RawStore::open(image, &options())?)),
        )
    });
}

#[test]
fn a16_a_store_of_which_the_header_is_gone_is_nothing_to_copy_over() {
    let store = RawStore::create(Disk::new(1), 1, 8, &options()).unwrap();
    fill(&store);
    let any = RawLogStore::create(Disk::new(2), &LogOptions::default()).unwrap();
    any.put(b"key", b"value", Memory).unwrap();
    for (header, is_any) in [("store", false), ("any", true)] {
        let disk = Disk::new(3);
        if is_any {
            let other = RawLogStore::create(disk.clone(), &LogOptions::default()).unwrap();
            other.put(b"key", b"other", Memory).unwrap();
            other.close().unwrap();
        } else {
            let other = RawStore::create(disk.clone(), 1, 8, &options()).unwrap();
            fill(&other);
            other.close().unwrap();
        }
        assert!(disk.remove(header));
        let before = bytes_of(&disk);
        let refused = if is_any {
            any.backup(&disk, |_, _| {}).err()
        } else {
            store.backup(&disk, |_, _| {}).err()
        };
        assert!(matches!(refused, Some(Error::HeaderGone { .. })), "{refused:?}");
        assert!(bytes_of(&disk) == before);
    }
}

#[test]
fn a19_of_a_follower_that_is_not_whole_nothing_is_copied_restored_or_shown() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [place, kept, anew] = dirs.each_ref().map(|dir| dir.path());
    let leader = RawStore::create(Disk::new(1), 1, 8, &options()).unwrap();
    let folder = Directory::lock(place).unwrap();
    let replica = RawStore::create_replica(folder, &leader.identity(), &options()).unwrap();
    let refused = replica.backup(&Directory::lock(kept).unwrap(), |_, _| {});
    assert!(matches!(refused, Err(Error::NotWhole)));
    replica.close().unwrap();
    assert!(matches!(restore(place, anew, |_, _| {}), Err(Error::NotWhole)));
    assert!(matches!(OnDisk::open(place), Err(Error::NotWhole)));
    let survey = Survey::of(place, |_, _| {}).unwrap();
    assert!(survey.is_sound() && !survey.is_whole);

    // Whole, but a shard is on its way: no caller has said that it is not whole any more.
    let replica = RawStore::open(Directory::lock(place).unwrap(), &options()).unwrap();
    replica.set_whole(true).unwrap();
    replica.mend(2, &[], History::Mending(Position::START)).unwrap();
    let refused = replica.backup(&Directory::lock(kept).unwrap(), |_, _| {});
    assert!(matches!(refused, Err(Error::Mending { shard: 2 })));
    replica.close().unwrap();
    assert!(matches!(OnDisk::open(place), Err(Error::Mending { shard: 2 })));
    assert!(!Survey::of(place, |_, _| {}).unwrap().is_whole);

    let replica = RawStore::open(Directory::lock(place).unwrap(), &options()).unwrap();
    replica.mend(2, &[], History::At(Position::START)).unwrap();
    assert_eq!(replica.backup(&Directory::lock(kept).unwrap(), |_, _| {}).unwrap(), 0);
    replica.close().unwrap();
    OnDisk::open(place).unwrap();
    assert_eq!(restore(kept, anew, |_, _| {}).unwrap(), 0);
}
