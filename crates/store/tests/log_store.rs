//! What a store of any sizes does, besides what the simulated disk shows.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use mainstay_sim::{Disk, Storage};
use mainstay_store::{
    Change, Durability, Error, FixedStore, LogOptions, LogStore, LogSurvey, Options, RawLogStore,
    limits::{ANY_KEY_BYTES_MAX, ANY_VALUE_BYTES_MAX, SEGMENT_BYTES_MIN, SHARDS_MAX},
};

fn small() -> LogOptions {
    LogOptions { shards: 1, segment_bytes: SEGMENT_BYTES_MIN, ..LogOptions::default() }
}

type Store = LogStore<Vec<u8>, Vec<u8>>;

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect();
    files.sort();
    files
}

/// Changes a byte of a file, which may be a sparse or a short one.
fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn all(store: &RawLogStore<impl mainstay_store::Folder>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut records = BTreeMap::new();
    store.for_each(|key, value| drop(records.insert(key.to_vec(), value.to_vec()))).unwrap();
    records
}

#[test]
fn keys_and_values_are_taken_at_their_limits_and_not_one_past_them() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes: 1 << 30, shards: 1, ..LogOptions::default() };
    let store = Store::create(dir.path(), &options).unwrap();
    let (key, value) = (vec![7; ANY_KEY_BYTES_MAX], vec![8; ANY_VALUE_BYTES_MAX]);
    store.put(&key, &value, Durability::Memory).unwrap();
    assert!(store.get(&key).unwrap().unwrap() == value);
    let refused = [
        store.put(&vec![7; ANY_KEY_BYTES_MAX + 1], &vec![], Durability::Memory).map(drop),
        store.put(&vec![], &vec![], Durability::Memory).map(drop),
        store.put(&vec![1], &vec![8; ANY_VALUE_BYTES_MAX + 1], Durability::Memory).map(drop),
        store.get(&vec![]).map(drop),
        store.delete(&vec![7; ANY_KEY_BYTES_MAX + 1], Durability::Memory).map(drop),
    ];
    assert!(refused.iter().all(|one| matches!(one, Err(Error::OutOfLimits { .. }))), "{refused:?}");
}

#[test]
fn a_write_fills_a_segment_and_none_is_longer() {
    let store = RawLogStore::create(Disk::new(1), &small()).unwrap();
    let most = store.record_bytes_max() as usize;
    store.put(b"k", &vec![1; most - 1], Durability::Group).unwrap();
    let refused = store.put(b"k", &vec![2; most + 3], Durability::Group);
    assert!(matches!(refused, Err(Error::BatchTooLong { .. })), "{refused:?}");
    assert_eq!(store.get(b"k").unwrap().unwrap().len(), most - 1);
}

#[test]
fn options_out_of_their_limits_make_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = [
        LogOptions { shards: 2 * SHARDS_MAX, ..small() },
        LogOptions { shards: 3, ..small() },
        LogOptions { segment_bytes: SEGMENT_BYTES_MIN - 4096, ..small() },
        LogOptions { segment_bytes: SEGMENT_BYTES_MIN + 1, ..small() },
        LogOptions { dead_percent: 0, ..small() },
        LogOptions { dead_percent: 101, ..small() },
    ];
    for options in wrong {
        let refused = Store::create(dir.path(), &options).err();
        assert!(matches!(refused, Some(Error::OutOfLimits { .. })), "{options:?}");
    }
    assert!(matches!(Store::open(dir.path(), &small()), Err(Error::NotAStore)));
}

#[test]
fn stores_of_the_two_kinds_are_told_apart_and_never_made_over_each_other() {
    let (any, fixed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(Store::create(any.path(), &small()).unwrap());
    drop(FixedStore::<u64, u64>::create(fixed.path(), &Options::default()).unwrap());
    assert!(matches!(Store::open(fixed.path(), &small()), Err(Error::OtherKind { .. })));
    assert!(matches!(Store::create(fixed.path(), &small()), Err(Error::Exists)));
    assert!(matches!(Store::create(any.path(), &small()), Err(Error::Exists)));
    let (asked, options) = (any.path(), Options::default());
    let opened = FixedStore::<u64, u64>::open(asked, &options);
    assert!(matches!(opened, Err(Error::OtherKind { .. })));
    assert!(matches!(FixedStore::<u64, u64>::create(asked, &options), Err(Error::Exists)));
    assert!(matches!(LogSurvey::of(fixed.path(), |_, _| {}), Err(Error::OtherKind { .. })));
}

#[test]
fn the_same_directory_cannot_be_opened_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), &small()).unwrap();
    assert!(matches!(Store::open(dir.path(), &small()), Err(Error::Locked)));
    assert!(matches!(LogSurvey::of(dir.path(), |_, _| {}), Err(Error::Locked)));
    drop(store);
    drop(Store::open(dir.path(), &small()).unwrap());
}

#[test]
fn a_flipped_bit_anywhere_in_a_segment_is_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), &small()).unwrap();
    for number in 0..40_u8 {
        store.put(&vec![number], &vec![number; 700], Durability::Memory).unwrap();
    }
    store.close().unwrap();
    let wanted: BTreeMap<_, _> = (0..40_u8).map(|n| (vec![n], vec![n; 700])).collect();
    for path in files(dir.path(), "log") {
        let end = fs::metadata(&path).unwrap().len();
        for at in (0..128).step_by(9).chain((4096..end).step_by(211)) {
            flip(&path, at);
            let survey = LogSurvey::of(dir.path(), |_, _| {}).unwrap();
            let opened =
                RawLogStore::open(mainstay_store::Directory::lock(dir.path()).unwrap(), &small());
            if at >= 4096 {
                assert!(!survey.damage.is_empty(), "byte {at} of {path:?}");
            }
            if let Ok(store) = opened {
                for (key, value) in &wanted {
                    match store.get(key) {
                        Ok(found) => assert_eq!(found.as_deref(), Some(&value[..]), "byte {at}"),
                        Err(error) => assert!(matches!(error, Error::Damaged { .. }), "{error}"),
                    }
                }
                if at >= 4096 {
                    // The bits between records are nobody's; a record's are found.
                    let _may_be_found = store.verify();
                }
            }
            flip(&path, at);
        }
    }
    let store = Store::open(dir.path(), &small()).unwrap();
    assert_eq!(all(store.raw()), wanted);
}

/// A closed store with values that were replaced, keys that were deleted and others that end, of
/// several segments that a list and hints describe; and what it has, and once had.
fn described() -> (Disk, BTreeMap<Vec<u8>, Option<Vec<u8>>>) {
    let (disk, memory) = (Disk::new(5), Durability::Memory);
    let options = LogOptions { dead_percent: 90, ..small() };
    let store = RawLogStore::create(disk.clone(), &options).unwrap().with_clock(|| 1_000);
    for round in 0..3_u8 {
        for key in 0..60_u8 {
            store.put(&[key], &vec![key ^ round; 900 + usize::from(key)], memory).unwrap();
        }
        for _ in 0..20 {
            store.put(b"often", &[round; 600], memory).unwrap();
        }
    }
    for key in 0..8_u8 {
        store.delete(&[key], memory).unwrap();
        store.put_for(&[key + 8], b"ends", Some(Duration::from_secs(9)), memory).unwrap();
    }
    store.compact().unwrap();
    store.close().unwrap();
    let store = RawLogStore::open(disk.clone(), &options).unwrap().with_clock(|| 1_000);
    let mut wanted: BTreeMap<_, _> = (0..60).map(|key| (vec![key], None)).collect();
    wanted.extend(all(&store).into_iter().map(|(key, value)| (key, Some(value))));
    assert!(wanted.values().filter(|value| value.is_none()).count() == 8 && wanted.len() == 61);
    store.close().unwrap();
    let count = |ending: &str| disk.names().iter().filter(|name| name.ends_with(ending)).count();
    assert!(count(".log") > 3 && count(".hint") > 3 && count(".list") == 1, "{:?}", disk.names());
    (disk, wanted)
}

#[test]
fn a_flipped_bit_in_what_describes_segments_is_found_by_the_opening_or_harms_nobody() {
    let (disk, wanted) = described();
    let (mut found, mut harmless) = (0, 0);
    for name in disk.names().into_iter().filter(|name| !name.ends_with(".log")) {
        let mut bytes = vec![0; disk.file(&name).len().unwrap() as usize];
        disk.file(&name).read_at(0, &mut bytes).unwrap();
        // Most of the space between a header and what is behind it is empty.
        let places = (0..bytes.len()).filter(|at| bytes[*at] != 0 || at % 131 == 0);
        for at in places {
            let copy = disk.crash_images(1).next().unwrap();
            copy.file(&name).write_at(at as u64, &[bytes[at] ^ 1 << (at % 8)]).unwrap();
            let opened = RawLogStore::open(copy, &small()).map(|store| store.with_clock(|| 1_000));
            let store = match opened {
                Err(Error::Damaged { .. } | Error::Version { .. }) => {
                    found += 1;
                    continue;
                }
                opened => opened.unwrap(),
            };
            harmless += 1;
            for (key, value) in &wanted {
                match store.get(key) {
                    Ok(found) => assert_eq!(&found.as_deref(), &value.as_deref(), "{name} {at}"),
                    Err(error) => assert!(matches!(error, Error::Damaged { .. }), "{error}"),
                }
            }
            let mut seen = BTreeMap::new();
            let shown = store.for_each(|key, value| {
                seen.insert(key.to_vec(), Some(value.to_vec()));
            });
            let live = wanted.iter().filter(|(_, value)| value.is_some());
            match shown {
                Ok(()) => assert!(seen.iter().eq(live), "{name} {at}"),
                Err(error) => assert!(matches!(error, Error::Damaged { .. }), "{error}"),
            }
        }
    }
    println!("{found} were found by the opening, {harmless} harmed nobody");
    assert!(harmless > 500, "found {found}, harmless {harmless}");
}

#[test]
fn a_segment_that_is_missing_is_told_from_one_that_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), &small()).unwrap();
    for number in 0..100_u8 {
        // Every other one is replaced again and again, so that compaction has something to do.
        let key = if number % 2 == 0 { vec![0] } else { vec![number] };
        store.put(&key, &vec![number; 700], Durability::Memory).unwrap();
    }
    store.raw().compact().unwrap();
    let wanted = all(store.raw());
    store.close().unwrap();
    let survey = LogSurvey::of(dir.path(), |_, _| {}).unwrap();
    assert!(survey.damage.is_empty(), "{survey:?}");
    let segments = files(dir.path(), "log");
    assert!(segments.len() > 3, "{segments:?}");
    for path in segments {
        let away = dir.path().join("away");
        fs::rename(&path, &away).unwrap();
        let opened = Store::open(dir.path(), &small()).map(|store| all(store.raw()));
        assert!(matches!(opened, Err(Error::Damaged { .. })), "{path:?} {opened:?}");
        fs::rename(&away, &path).unwrap();
    }
    assert_eq!(all(Store::open(dir.path(), &small()).unwrap().raw()), wanted);
}

#[test]
fn compaction_brings_nothing_back_and_frees_what_is_dead() {
    let disk = Disk::new(3);
    let store = RawLogStore::create(disk.clone(), &small()).unwrap();
    for round in 0..50_u8 {
        for key in 0..20_u8 {
            store.put(&[key], &[round; 300], Durability::Memory).unwrap();
        }
    }
    for key in 0..10_u8 {
        store.delete(&[key], Durability::Memory).unwrap();
    }
    let before = store.stats()[0].log_bytes;
    store.compact().unwrap();
    let after = store.stats()[0].clone();
    assert!(before > 300_000 && after.log_bytes < 40_000, "{before} {after:?}");
    assert!(after.freed_bytes > 250_000, "{after:?}");
    let check = |store: &RawLogStore<Disk>| {
        let wanted: BTreeMap<_, _> = (10..20_u8).map(|key| (vec![key], vec![49; 300])).collect();
        assert_eq!(all(store), wanted);
    };
    check(&store);
    drop(store);
    disk.power_cut();
    let store = RawLogStore::open(disk.clone(), &small()).unwrap();
    check(&store);
    for key in 10..20_u8 {
        store.delete(&[key], Durability::Memory).unwrap();
    }
    for number in 0..200_u16 {
        store.put(&number.to_be_bytes(), &[1; 300], Durability::Memory).unwrap();
        store.delete(&number.to_be_bytes(), Durability::Memory).unwrap();
    }
    store.compact().unwrap();
    assert_eq!(store.stats()[0].records, 0);
    drop(store);
    assert_eq!(all(&RawLogStore::open(disk, &small()).unwrap()), BTreeMap::new());
}

#[test]
fn deletes_do_not_fill_the_disk_behind_a_segment_that_lives() {
    let store = RawLogStore::create(Disk::new(4), &small()).unwrap();
    for key in 0..15_u8 {
        store.put(&[key], &[9; 700], Durability::Memory).unwrap();
    }
    let mut most = 0;
    for number in 0..6_000_u32 {
        let key = format!("a key that is longer than its value: {number}");
        store.put(key.as_bytes(), b"1", Durability::Memory).unwrap();
        store.delete(key.as_bytes(), Durability::Memory).unwrap();
        if number % 20 == 0 {
            store.upkeep().unwrap();
        }
        most = most.max(store.stats()[0].log_bytes);
    }
    assert!(most < 40 * SEGMENT_BYTES_MIN, "{most}");
    assert_eq!(all(&store).len(), 15);
}

#[test]
fn compaction_reads_no_more_than_it_may_at_a_time() {
    let interval = std::time::Duration::from_millis(10);
    let options = LogOptions { compact_bytes_per_second: 100_000, interval, ..small() };
    let store = RawLogStore::create(Disk::new(5), &options).unwrap();
    for number in 0..200_u8 {
        store.put(b"k", &[number; 500], Durability::Memory).unwrap();
        store.put(&[number], &[number; 100], Durability::Memory).unwrap();
    }
    let moved = |store: &RawLogStore<Disk>| store.stats()[0].moved_bytes;
    let freed = |store: &RawLogStore<Disk>| store.stats()[0].freed_bytes;
    let mut steps = 0;
    while freed(&store) == 0 {
        let before = moved(&store);
        store.upkeep().unwrap();
        // A thousand bytes, and the rest of the last frame.
        assert!(moved(&store) - before <= 1_000 + 600, "step {steps}");
        steps += 1;
        assert!(steps < 1_000, "nothing is freed");
    }
    assert!(steps >= 8, "a segment was compacted in {steps} steps");
}

#[test]
fn an_opening_after_a_close_reads_no_values() {
    let disk = Disk::new(6);
    let store = RawLogStore::create(disk.clone(), &small()).unwrap();
    for number in 0..200_u8 {
        store.put(&[number], &[number; 1000], Durability::Memory).unwrap();
    }
    store.close().unwrap();
    let before = disk.operations();
    let store = RawLogStore::open(disk.clone(), &small()).unwrap();
    let clean = disk.operations() - before;
    let segments = store.stats()[0].segments;
    // For each segment two headers, and its hint's two headers and body.
    assert!(clean < 16 * segments + 40, "{clean} calls for {segments} segments");
    assert_eq!(all(&store).len(), 200);
}

#[test]
fn a_burst_followed_by_silence_is_synced_by_the_timer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), &small()).unwrap();
    let token = store.put(&vec![1], &vec![2], Durability::Interval).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !store.is_durable(token).unwrap() {
        assert!(std::time::Instant::now() < end, "nobody syncs");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn values_that_were_read_are_kept_up_to_a_bound_and_are_never_old() {
    let options = LogOptions { cache_bytes: 20_000, segment_bytes: 1 << 20, ..small() };
    let store = RawLogStore::create(Disk::new(7), &options).unwrap();
    for number in 0..100_u8 {
        store.put(&[number], &[number; 1000], Durability::Memory).unwrap();
        assert_eq!(store.get(&[number]).unwrap().as_deref(), Some(&[number; 1000][..]));
        store.put(&[number], &[!number; 1000], Durability::Memory).unwrap();
        assert_eq!(store.get(&[number]).unwrap().as_deref(), Some(&[!number; 1000][..]));
    }
    assert!((1_000..=20_000).contains(&store.cached_bytes()), "{}", store.cached_bytes());
}

#[test]
fn writers_and_readers_beside_compaction_see_whole_values() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() };
    let store = Store::create(dir.path(), &options).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for part in 0..2_u8 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..3_000_u32 {
                    let key = vec![part, (number % 32) as u8];
                    let len = 100 + number as usize % 900;
                    store.put(&key, &vec![number as u8; len], Durability::Memory).unwrap();
                }
            });
        }
        let (store, done) = (&store, &done);
        let reader = scope.spawn(move || {
            let mut seen = 0_u64;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for key in 0..32_u8 {
                    let Some(value) = store.get(&vec![seen as u8 & 1, key]).unwrap() else {
                        continue;
                    };
                    let whole = value.iter().all(|byte| *byte == value[0]);
                    assert!(whole && (100..1_000).contains(&value.len()));
                }
                store.for_each(|_, value| assert!(value.iter().all(|b| *b == value[0]))).unwrap();
                seen += 1;
            }
            seen
        });
        for _ in 0..30 {
            store.raw().compact().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    store.raw().verify().unwrap();
}

#[test]
fn a_batch_is_of_one_shard() {
    let options = LogOptions { shards: 4, ..small() };
    let store = RawLogStore::create(Disk::new(8), &options).unwrap();
    let other = (0..100_u8).find(|key| store.shard(&[*key]).unwrap() != store.shard(b"a").unwrap());
    let changes = [Change::Put(b"a", b"1"), Change::Put(&[other.unwrap()], b"2")];
    assert!(matches!(store.batch(&changes, Durability::Memory), Err(Error::AcrossShards { .. })));
    assert!(!store.contains(b"a").unwrap());
    assert_eq!(store.batch(&[], Durability::Memory).unwrap(), None);
}

#[test]
fn a_token_of_an_earlier_opening_says_nothing() {
    let disk = Disk::new(9);
    let store = RawLogStore::create(disk.clone(), &small()).unwrap();
    let token = store.put(b"a", b"1", Durability::Group).unwrap();
    drop(store);
    let store = RawLogStore::open(disk, &small()).unwrap();
    assert!(matches!(store.wait(token), Err(Error::OtherEpoch { .. })));
    assert!(matches!(store.is_durable(token), Err(Error::OtherEpoch { .. })));
}

#[test]
fn a_value_that_is_no_value_of_the_type_is_an_error_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), &small()).unwrap();
    store.put(&vec![0; 8], &vec![1, 2, 3], Durability::Memory).unwrap();
    store.close().unwrap();
    let store = LogStore::<u64, u64>::open(dir.path(), &small()).unwrap();
    assert!(matches!(store.get(&0), Err(Error::Undecodable { what: "value" })));
    let updated = store.update(&0, Durability::Memory, |_| Some(7));
    assert!(matches!(updated, Err(Error::Undecodable { .. })));
    assert!(matches!(store.for_each(|_, _| {}), Err(Error::Undecodable { .. })));
    assert_eq!(store.raw().get(&[0; 8]).unwrap().as_deref(), Some(&[1, 2, 3][..]));
}
