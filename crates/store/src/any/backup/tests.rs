//! Copies of stores that are written to and compacted meanwhile, and copies that do not come to their
//! end.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use mainstay_base::Rng;
use mainstay_sim::Disk;

use super::*;
use crate::{
    Change, Directory, Durability,
    Durability::Memory,
    LogOptions, LogStore, LogSurvey,
    limits::SEGMENT_BYTES_MIN,
    machine::{SOUND, disk},
    planted::plant,
};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

fn options() -> LogOptions {
    LogOptions {
        shards: 4,
        segment_bytes: SEGMENT_BYTES_MIN,
        dead_percent: 30,
        cache_bytes: 0,
        ..LogOptions::default()
    }
}

fn contents<F: Folder>(store: &RawLogStore<F>) -> Records {
    let mut records = Records::new();
    let add = |key: &[u8], value: &[u8]| {
        assert!(records.insert(key.to_vec(), value.to_vec()).is_none(), "{key:?} is there twice");
    };
    store.for_each(add).unwrap();
    records
}

/// Puts and deletes over several segments.
fn fill<F: Folder>(store: &RawLogStore<F>, seed: u64, count: u64) {
    let mut rng = Rng::seeded(seed);
    for number in 0..count {
        let key = [rng.below(60) as u8];
        if rng.below(4) == 0 {
            store.delete(&key, Memory).unwrap();
        } else {
            let value = [&number.to_le_bytes()[..], &vec![seed as u8; rng.below(900) as usize]];
            store.put(&key, &value.concat(), Memory).unwrap();
        }
    }
}

fn restored(copy: &Disk) -> Result<RawLogStore<Disk>> {
    RawLogStore::restore(copy, Disk::new(99), &options(), |_, _| {})
}

#[test]
fn v11_a_copy_is_the_store_as_it_was_and_is_brought_up_to_date_by_what_is_new() {
    let store = RawLogStore::create(Disk::new(1), &options()).unwrap().with_clock(|| 1_000);
    let copy = Disk::new(2);
    assert_eq!(store.backup(&copy, |_, _| {}).unwrap().records, 0);
    assert_eq!(contents(&restored(&copy).unwrap()), Records::new());
    for round in 0..6 {
        fill(&store, round, 150);
        store.put_for(b"ends", &[round as u8], Some(Duration::from_secs(9)), Memory).unwrap();
        let (before, mut told) = (contents(&store), Vec::new());
        let made = store.backup(&copy, |done, all| told.push((done, all))).unwrap();
        assert_eq!(made.records, before.len() as u64);
        assert!(made.copied_bytes < 130_000 && made.copied_bytes > 30_000, "{made:?}");
        assert_eq!(told.last(), Some(&(made.copied_bytes, made.copied_bytes)));
        // A second one has nothing to do.
        let again = store.backup(&copy, |_, _| {}).unwrap();
        assert_eq!(again, LogCopied { copied_bytes: 0, ..made });
        store.put(&[1], b"later", Memory).unwrap();
        store.compact().unwrap();
        let made = store.backup(&copy, |_, _| {}).unwrap();
        // What was compacted is there no more.
        let names = copy.names();
        assert_eq!(names.len() as u64, made.segments + 1, "{names:?}");
        copy.power_cut();
        let anew = restored(&copy).unwrap().with_clock(|| 2_000);
        assert!(contents(&anew) == contents(&store));
        for shard in 0..options().shards {
            assert_eq!(anew.history(shard).unwrap(), store.history(shard).unwrap());
        }
        assert_eq!(anew.left(b"ends").unwrap(), Some(Some(Duration::from_secs(8))));
        anew.verify().unwrap();
        // And it goes on as any.
        fill(&anew, 50, 200);
        anew.compact().unwrap();
        let after = contents(&anew);
        let disk = Disk::clone(&anew.folder);
        anew.close().unwrap();
        disk.power_cut();
        assert!(LogSurvey::over(&disk, |_, _| {}).unwrap().damage.is_empty());
        let opened = RawLogStore::open(disk, &options()).unwrap().with_clock(|| 2_000);
        assert!(contents(&opened) == after);
    }
}

const WRITES_PER_COPY: u64 = 300;

/// Copies a store while batches over several shards are written and others compact it; what was not
/// whole in a copy.
fn torn(copies: u64) -> Option<String> {
    let fault = planted::current();
    let store = RawLogStore::create(Disk::new(1), &options()).unwrap();
    let pair = |number: u64| [number.to_le_bytes(), (number | 1 << 63).to_le_bytes()];
    let put = |number: u64, round: u64| {
        let ([one, other], value) = (pair(number), [round; 30].map(u64::to_le_bytes).concat());
        let changes = [Change::Put(&one, &value), Change::Put(&other, &value)];
        store.batch_across(&changes).unwrap();
    };
    (0..100).for_each(|number| put(number, 0));
    let (is_over, made) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            plant(fault);
            let (mut rng, mut round) = (Rng::seeded(5), 0);
            while !is_over.load(Relaxed) {
                // So many a copy: who writes without a pause leaves compaction behind, and each copy
                // has more to do than the one before.
                if round == WRITES_PER_COPY * (made.load(Relaxed) + 1) {
                    thread::yield_now();
                    continue;
                }
                round += 1;
                put(rng.below(100), round);
            }
        });
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                store.compact().unwrap();
                thread::yield_now();
            }
        });
        let copy = Disk::new(10);
        let differs = |_| {
            store.backup(&copy, |_, _| {}).unwrap();
            made.fetch_add(1, Relaxed);
            let anew = match restored(&copy) {
                Ok(anew) => anew,
                Err(error) => return Some(error.to_string()),
            };
            let differ = (0..100).find(|number| {
                let [one, other] = pair(*number).map(|key| anew.get(&key).unwrap());
                one.is_none() || one != other
            })?;
            Some(format!("of a batch one half is there: {differ}"))
        };
        let found = (0..copies).find_map(differs);
        is_over.store(true, Relaxed);
        found
    })
}

#[test]
fn v11_in_a_copy_that_is_made_while_others_write_and_compact_batches_are_whole() {
    assert_eq!(torn(30), None);
    plant(Some(Fault::CopyOfMoments));
    let found = torn(400);
    plant(None);
    assert!(found.is_some(), "copies of several moments were not found");
}

/// Copies again and again to a disk that dies in the middle and loses its power. How often the copy
/// was then the older one, and the newer one; and what was wrong.
fn cut(seeds: std::ops::Range<u64>) -> ((u64, u64), Option<String>) {
    let (mut older, mut newer) = (0, 0);
    for seed in seeds {
        let mut rng = Rng::seeded(seed);
        let store = RawLogStore::create(Disk::new(seed), &options()).unwrap();
        let mut copy = disk(seed + 1_000);
        fill(&store, seed, 80);
        store.backup(&copy, |_, _| {}).unwrap();
        let mut before = contents(&store);
        for round in 0..12 {
            fill(&store, 100 + round, 40);
            store.compact().unwrap();
            let after = contents(&store);
            copy.die_after(rng.below(70));
            let made = store.backup(&copy, |_, _| {});
            let images: Vec<Disk> = copy.crash_images(4).collect();
            for image in &images {
                image.set_faults(SOUND);
                let found = match restored(image) {
                    Ok(anew) => contents(&anew),
                    Err(error) => return ((older, newer), Some(format!("seed {seed}: {error}"))),
                };
                let is_new = found == after;
                if !(is_new || found == before && made.is_err()) {
                    let what = format!("seed {seed}, round {round}: {made:?}, and it is neither");
                    return ((older, newer), Some(what));
                }
                *if is_new { &mut newer } else { &mut older } += 1;
            }
            // It goes on with one of them.
            copy = images.into_iter().next().unwrap();
            before = contents(&restored(&copy).unwrap());
        }
    }
    ((older, newer), None)
}

#[test]
fn v11_a_copy_that_is_interrupted_is_what_it_was_before_or_what_it_was_to_be() {
    let ((older, newer), wrong) = cut(0..12);
    println!("after a power cut {older} copies were the older one, {newer} the newer one");
    assert_eq!(wrong, None);
    assert!(older > 50 && newer > 50, "{older} {newer}");
}

/// A store that loses its power after a copy was made of it, and what the next copy says.
fn ahead() -> Option<Error> {
    for seed in 0..40 {
        let disk = Disk::new(seed);
        let store = RawLogStore::create(disk.clone(), &options()).unwrap();
        let copy = Disk::new(seed + 1_000);
        fill(&store, seed, 30);
        store.backup(&copy, |_, _| {}).unwrap();
        let copied = contents(&store);
        drop(store);
        disk.power_cut();
        let store = RawLogStore::open(disk, &options()).unwrap();
        fill(&store, seed + 1, 30);
        if let Err(error) = store.backup(&copy, |_, _| {}) {
            return Some(error);
        }
        assert_ne!(contents(&store), copied);
        assert_eq!(contents(&restored(&copy).unwrap()), contents(&store));
    }
    None
}

#[test]
fn v11_every_planted_fault_of_copies_is_found() {
    for fault in [Fault::CopyUnsynced, Fault::CopyTidiedEarly] {
        plant(Some(fault));
        let (seen, wrong) = cut(0..40);
        plant(None);
        println!("{fault:?}: {seen:?} {wrong:?}");
        assert!(wrong.is_some(), "{fault:?} was not found");
    }
    assert!(ahead().is_none());
    plant(Some(Fault::CopyAhead));
    let found = ahead();
    plant(None);
    assert!(matches!(found, Some(Error::OtherCopy { .. })), "{found:?}");
}

#[test]
fn a_copy_is_of_one_store_and_of_one_history() {
    let store = RawLogStore::create(Disk::new(1), &options()).unwrap();
    fill(&store, 1, 100);
    let copy = Disk::new(2);
    store.backup(&copy, |_, _| {}).unwrap();
    // Not into a store, and no store into a copy.
    let other = RawLogStore::create(Disk::new(3), &options()).unwrap();
    assert!(matches!(store.backup(&other.folder, |_, _| {}), Err(Error::Exists)));
    assert!(matches!(RawLogStore::create(copy.clone(), &options()), Err(Error::Exists)));
    let onto = RawLogStore::restore(&copy, copy.clone(), &options(), |_, _| {});
    assert!(matches!(onto, Err(Error::Exists)));
    let onto = RawLogStore::restore(&copy, Disk::clone(&other.folder), &options(), |_, _| {});
    assert!(matches!(onto, Err(Error::Exists)));
    let refused = other.backup(&copy, |_, _| {});
    assert!(matches!(refused, Err(Error::OtherCopy { what: "another store" })), "{refused:?}");
    assert!(matches!(restored(&Disk::new(4)), Err(Error::NotACopy)));
    // What was restored and written to has another history than what was copied later.
    let anew = restored(&copy).unwrap();
    fill(&store, 2, 100);
    store.backup(&copy, |_, _| {}).unwrap();
    fill(&anew, 3, 100);
    let refused = anew.backup(&copy, |_, _| {});
    assert!(matches!(refused, Err(Error::OtherCopy { .. })), "{refused:?}");
    assert_eq!(contents(&restored(&copy).unwrap()), contents(&store));
    // And continues what it was made of.
    let (first, again) = (Disk::new(5), Disk::new(6));
    store.backup(&first, |_, _| {}).unwrap();
    let anew = RawLogStore::restore(&first, again, &options(), |_, _| {}).unwrap();
    fill(&anew, 4, 100);
    let made = anew.backup(&first, |_, _| {}).unwrap();
    assert!(made.copied_bytes < made.bytes, "{made:?}");
    assert_eq!(contents(&restored(&first).unwrap()), contents(&anew));
}

#[test]
fn damage_of_a_store_or_of_a_copy_is_told_with_its_place() {
    let disk = Disk::new(1);
    let store = RawLogStore::create(disk.clone(), &options()).unwrap();
    fill(&store, 1, 300);
    let copy = Disk::new(2);
    store.backup(&copy, |_, _| {}).unwrap();
    let flip = |disk: &Disk, name: &str, at: u64| {
        let (file, mut byte) = (disk.file(name), [0]);
        file.read_at(at, &mut byte).unwrap();
        file.write_at(at, &[byte[0] ^ 1]).unwrap();
    };
    let names: Vec<String> =
        copy.names().into_iter().filter(|name| name.ends_with("log")).collect();
    for (number, name) in names.iter().enumerate() {
        let at = 5_000 + number as u64 * 17;
        if copy.file(name).len().unwrap() <= at {
            continue;
        }
        flip(&copy, name, at);
        match restored(&copy) {
            Err(Error::Damaged { file, offset, .. }) => {
                assert!(file == *name && offset <= at && offset + 1_500 > at, "{file} {offset}");
            }
            other => panic!("{name}: {:?}", other.err()),
        }
        flip(&copy, name, at);
        // A copy that is begun anew looks at all of the store.
        flip(&disk, name, at);
        match store.backup(&Disk::new(3), |_, _| {}) {
            Err(Error::Damaged { file, .. }) => assert_eq!(file, *name),
            other => panic!("{name}: {other:?}"),
        }
        flip(&disk, name, at);
    }
    // One that lost a file gets it again.
    assert!(copy.remove(&names[0]));
    assert!(restored(&copy).is_err());
    assert!(RawLogStore::check_copy(&copy, |_, _| {}).is_err());
    assert!(!copy.names().contains(&names[0]), "who looks for it does not make it");
    store.backup(&copy, |_, _| {}).unwrap();
    assert_eq!(contents(&restored(&copy).unwrap()), contents(&store));
}

#[test]
fn a_store_of_a_directory_is_copied_and_restored_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let [store, copy, anew] = ["store", "copy", "anew"].map(|name| dir.path().join(name));
    let store = LogStore::<u64, String>::create(&store, &options()).unwrap();
    store.put(&1, &"one".into(), Durability::Group).unwrap();
    store.raw().backup(&Directory::lock(&copy).unwrap(), |_, _| {}).unwrap();
    assert!(matches!(LogStore::<u64, String>::open(&copy, &options()), Err(Error::NotAStore)));
    let (mut told, mut all) = (0, 0);
    let restored = crate::restore(&copy, &anew, |done, total| (told, all) = (done, total));
    assert_eq!((restored.unwrap(), told), (1, all));
    let anew = LogStore::<u64, String>::open(&anew, &options()).unwrap();
    assert_eq!(anew.get(&1).unwrap().as_deref(), Some("one"));
}

#[test]
fn v11_a_first_copy_that_did_not_come_to_its_end_says_so() {
    let store = RawLogStore::create(Disk::new(1), &options()).unwrap();
    fill(&store, 1, 300);
    let before = contents(&store);
    let (mut nothing, mut unfinished, mut finished) = (0, 0, 0);
    for calls in 0..2_000 {
        if finished > 10 {
            break;
        }
        let disk = Disk::new(100 + calls);
        disk.die_after(calls);
        let outcome = store.backup(&disk, |_, _| {});
        disk.power_cut();
        match (restored(&disk), RawLogStore::check_copy(&disk, |_, _| {})) {
            (Ok(copy), Ok(())) => {
                assert_eq!(contents(&copy), before, "dead after {calls} calls");
                finished += 1;
            }
            (Err(Error::NotWhole), Err(Error::NotWhole)) => unfinished += 1,
            // Not a single file is there.
            (Err(Error::NotACopy), Err(Error::NotACopy)) => {
                assert!(disk.names().is_empty(), "dead after {calls} calls: {:?}", disk.names());
                nothing += 1;
            }
            (one, other) => panic!("dead after {calls} calls: {:?} {other:?}", one.err()),
        }
        if finished == 0 {
            assert!(outcome.is_err(), "it was told to be durable after {calls} calls");
            // No store is made over it, and the next copy finishes it.
            if disk.names().iter().any(|name| name.starts_with("copy-")) {
                let refused = RawLogStore::create(disk.clone(), &options());
                assert!(matches!(refused, Err(Error::Exists)));
            }
            store.backup(&disk, |_, _| {}).unwrap();
            assert_eq!(contents(&restored(&disk).unwrap()), before);
        }
    }
    assert!(unfinished > 20, "{nothing} without a file, {unfinished} unfinished");
}

#[test]
fn a19_of_a_follower_of_any_sizes_that_is_not_whole_nothing_is_copied_or_shown() {
    let dir = tempfile::tempdir().unwrap();
    let leader = RawLogStore::create(Disk::new(1), &options()).unwrap();
    let folder = Directory::lock(dir.path()).unwrap();
    let replica = RawLogStore::create_replica(folder, &leader.identity(), &options()).unwrap();
    assert!(matches!(replica.backup(&Disk::new(2), |_, _| {}), Err(Error::NotWhole)));
    assert!(matches!(crate::LogOnDisk::open(dir.path()), Err(Error::NotWhole)));
    replica.close().unwrap();
    assert!(!LogSurvey::of(dir.path(), |_, _| {}).unwrap().is_whole);
    let folder = Directory::lock(dir.path()).unwrap();
    let replica = RawLogStore::open(folder, &options()).unwrap();
    let (mending, start) = (crate::History::Mending, crate::Position::START);
    replica.set_whole(true).unwrap();
    replica.mend(1, &[], &[], mending(start)).unwrap();
    let refused = replica.backup(&Disk::new(2), |_, _| {});
    assert!(matches!(refused, Err(Error::Mending { shard: 1 })));
    assert!(matches!(replica.set_whole(true), Ok(())), "it says so already");
    replica.set_whole(false).unwrap();
    assert!(matches!(replica.set_whole(true), Err(Error::Mending { shard: 1 })));
    replica.mend(1, &[], &[], crate::History::At(start)).unwrap();
    replica.set_whole(true).unwrap();
    assert_eq!(replica.backup(&Disk::new(2), |_, _| {}).unwrap().records, 0);
    assert_eq!(crate::LogOnDisk::open(dir.path()).unwrap().records(), 0);
}

#[test]
fn v11_a_copy_of_another_history_is_refused_wherever_its_segments_end() {
    let options = LogOptions { shards: 1, ..options() };
    for later in (0..400).chain([3_000]) {
        let store = RawLogStore::create(Disk::new(1), &options).unwrap();
        store.put(b"k", b"before", Memory).unwrap();
        let (old, copy) = (Disk::new(2), Disk::new(3));
        store.backup(&old, |_, _| {}).unwrap();
        store.put(b"k2", b"of one history", Memory).unwrap();
        store.backup(&copy, |_, _| {}).unwrap();
        // The other one has zeros, or bytes like those of a frame, where this copy ends.
        let anew = RawLogStore::restore(&old, Disk::new(4), &options, |_, _| {}).unwrap();
        let value = if later % 2 == 0 { vec![0; later] } else { FRAME_LIKE.repeat(later / 4) };
        anew.put(b"z", &value, Memory).unwrap();
        let names = copy.names();
        let refused = anew.backup(&copy, |_, _| {});
        assert!(matches!(refused, Err(Error::OtherCopy { .. })), "{later}: {refused:?}");
        assert_eq!(copy.names(), names);
        let kept = RawLogStore::restore(&copy, Disk::new(5), &options, |_, _| {}).unwrap();
        assert_eq!(contents(&kept), contents(&store));
    }
}

const FRAME_LIKE: &[u8] = b"MSAF";

#[test]
fn v11_a_copy_with_later_segments_of_another_history_is_refused() {
    let options = LogOptions { shards: 1, ..options() };
    let store = RawLogStore::create(Disk::new(1), &options).unwrap();
    let fill = |store: &RawLogStore<Disk>, number: u8| {
        store.put(&[number], &[number; 9_000], Memory).unwrap();
    };
    fill(&store, 1);
    let (old, copy) = (Disk::new(2), Disk::new(3));
    store.backup(&old, |_, _| {}).unwrap();
    // In segments that the other one never begins.
    (2..6).for_each(|number| fill(&store, number));
    store.backup(&copy, |_, _| {}).unwrap();
    let anew = RawLogStore::restore(&old, Disk::new(4), &options, |_, _| {}).unwrap();
    let refused = anew.backup(&copy, |_, _| {});
    assert!(matches!(refused, Err(Error::OtherCopy { .. })), "{refused:?}");
    let kept = RawLogStore::restore(&copy, Disk::new(5), &options, |_, _| {}).unwrap();
    assert_eq!(contents(&kept), contents(&store));
}
