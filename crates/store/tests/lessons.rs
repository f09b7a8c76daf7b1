//! Faults of earlier stores, each a test.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mainstay_sim::{Disk, DiskFaults, Storage};
use mainstay_store::{
    Change, Directory, Durability, Error, FixedStore, Folder, Options, RawStore, Reader,
    limits::{KEY_BYTES_MAX, SEGMENT_BYTES_MIN, SHARDS_MAX, VALUE_BYTES_MAX},
};

fn small() -> Options {
    Options { shards: 1, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn value(number: u32) -> [u8; 64] {
    [number as u8; 64]
}

fn on(disk: &Disk) -> RawStore<Disk> {
    RawStore::create(disk.clone(), 4, 64, &small()).expect("an empty disk takes a store")
}

#[test]
fn a_burst_followed_by_silence_is_synced_by_the_timer() {
    let dir = tempfile::tempdir().unwrap();
    let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default()).unwrap();
    let tokens: Vec<_> =
        (0..100).map(|key| store.put(&key, &1, Durability::Interval).unwrap()).collect();
    let end = Instant::now() + Duration::from_secs(20);
    while !tokens.iter().all(|token| store.is_durable(*token).unwrap()) {
        assert!(Instant::now() < end, "nobody synced");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_same_directory_cannot_be_opened_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = FixedStore::<u64, u64>::create(dir.path(), &small()).unwrap();
    let again = FixedStore::<u64, u64>::open(dir.path(), &small());
    assert!(matches!(again, Err(Error::Locked)));
    assert!(matches!(FixedStore::<u64, u64>::create(dir.path(), &small()), Err(Error::Locked)));
    store.close().unwrap();
    assert!(matches!(FixedStore::<u64, u64>::create(dir.path(), &small()), Err(Error::Exists)));
    let other = FixedStore::<u64, u32>::open(dir.path(), &small());
    assert!(matches!(other, Err(Error::OtherSizes { value: 8, asked_value: 4, .. })));
    assert!(FixedStore::<u64, u64>::open(dir.path(), &small()).is_ok());
}

#[test]
fn compaction_brings_nothing_back_and_frees_what_is_dead() {
    let disk = Disk::new(1);
    let store = on(&disk);
    for round in 0..40 {
        for number in 0..50 {
            store.put(&key(number), &value(round), Durability::Memory).unwrap();
        }
    }
    for number in 0..25 {
        store.delete(&key(number), Durability::Memory).unwrap().unwrap();
    }
    let before = store.stats()[0].clone();
    store.compact().unwrap();
    let after = store.stats()[0].clone();
    assert!(before.segments > 10 && after.segments == 1, "{before:?} {after:?}");
    let bytes = |disk: &Disk| {
        let logs = disk.names().into_iter().filter(|name| name.ends_with(".log"));
        logs.map(|name| disk.file(&name).len().unwrap()).sum::<u64>()
    };
    assert_eq!(bytes(&disk), SEGMENT_BYTES_MIN);
    store.verify().unwrap();
    drop(store);
    disk.power_cut();
    let store = RawStore::open(disk, &small()).unwrap();
    for number in 0..50 {
        let expected = (number >= 25).then(|| value(39).to_vec());
        assert_eq!(store.get(&key(number)).unwrap(), expected);
    }
    store.verify().unwrap();
}

#[test]
fn a_shard_without_records_is_compacted_and_opened_again() {
    let disk = Disk::new(10);
    let store = on(&disk);
    store.compact().unwrap();
    store.put(&key(1), &value(1), Durability::Memory).unwrap();
    store.delete(&key(1), Durability::Memory).unwrap().unwrap();
    store.compact().unwrap();
    drop(store);
    disk.power_cut();
    let store = RawStore::open(disk, &small()).unwrap();
    assert_eq!((store.stats()[0].records, store.stats()[0].image), (0, 2));
}

#[test]
fn a_log_that_has_grown_long_is_compacted_without_being_asked() {
    let disk = Disk::new(2);
    let store = on(&disk);
    for number in 0..5_000 {
        store.put(&key(number % 10), &value(number), Durability::Memory).unwrap();
        if number % 50 == 0 {
            store.tend().unwrap();
        }
    }
    assert!(store.stats()[0].segments <= 5, "{:?}", store.stats());
    assert!(store.stats()[0].image > 0);
}

#[test]
fn compaction_keeps_to_its_budget_gives_each_shard_its_turn_and_is_not_seen_by_readers() {
    let disk = Disk::new(2);
    let options = Options {
        shards: 2,
        compact_bytes_per_second: 200_000,
        interval: Duration::from_millis(50),
        ..small()
    };
    let store = RawStore::create(disk.clone(), 4, 64, &options).unwrap();
    let record = 8 + 4 + 64;
    let image_bytes = || -> u64 {
        let names = disk.names().into_iter().filter(|name| name.ends_with(".image"));
        names.map(|name| Storage::len(&Folder::file(&disk, &name).unwrap()).unwrap()).sum()
    };
    for number in 0..4_000 {
        store.put(&key(number % 1_000), &value(number), Durability::Memory).unwrap();
    }
    let (mut calls, mut before) = (0, image_bytes());
    while store.stats().iter().any(|shard| shard.image == 0) {
        store.upkeep().unwrap();
        let now = image_bytes();
        // Ten thousand a call, a record, and the header and the frame of chunks.
        let allowed = 10_000 + record + 4_096 + 64;
        assert!(now.saturating_sub(before) <= allowed, "{} bytes in a call", now - before);
        assert_eq!(store.get(&key(7)).unwrap(), Some(value(3_007).to_vec()));
        (calls, before) = (calls + 1, now);
        assert!(calls < 100, "no image is finished");
    }
    assert!(calls >= 8, "{calls} calls wrote {before} bytes");
    // One that is not finished goes when the store is closed.
    for number in 0..4_000 {
        store.put(&key(number % 1_000), &value(number), Durability::Memory).unwrap();
    }
    store.upkeep().unwrap();
    let images = |disk: &Disk| disk.names().iter().filter(|name| name.ends_with(".image")).count();
    assert_eq!(images(&disk), 3);
    store.close().unwrap();
    assert_eq!(images(&disk), 2);
    let store = RawStore::open(disk, &options).unwrap();
    assert_eq!(store.get(&key(7)).unwrap(), Some(value(3_007).to_vec()));
}

#[test]
fn without_a_budget_compaction_is_left_to_the_caller() {
    let disk = Disk::new(2);
    let options = Options { compact_bytes_per_second: 0, ..small() };
    let store = RawStore::create(disk, 4, 64, &options).unwrap();
    for number in 0..5_000 {
        store.put(&key(number % 10), &value(number), Durability::Memory).unwrap();
    }
    store.tend().unwrap();
    assert_eq!(store.stats()[0].image, 0);
    store.compact().unwrap();
    assert!(store.stats()[0].image > 0);
}

#[test]
fn a_failed_sync_poisons_instead_of_being_forgotten() {
    let disk = Disk::new(3);
    let store = on(&disk);
    store.put(&key(1), &value(1), Durability::Group).unwrap();
    disk.set_faults(DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::NONE });
    let failed = store.put(&key(1), &value(2), Durability::Group);
    assert!(matches!(failed, Err(Error::Poisoned { shard: 0, .. })));
    disk.set_faults(DiskFaults::NONE);
    for durability in [Durability::Memory, Durability::Each] {
        let refused = store.put(&key(2), &value(2), durability);
        assert!(matches!(refused, Err(Error::Poisoned { .. })));
    }
    assert!(store.sync().is_err() && store.tend().is_err() && store.compact().is_err());
    assert!(store.stats()[0].poisoned.is_some());
    drop(store);
    // The page cache still shows what never was saved; a store opened on it saves it.
    disk.kill();
    let store = RawStore::open(disk.clone(), &small()).unwrap();
    let found = store.get(&key(1)).unwrap();
    drop(store);
    disk.power_cut();
    let store = RawStore::open(disk, &small()).unwrap();
    assert_eq!(store.get(&key(1)).unwrap(), found);
    assert_eq!(store.get(&key(2)).unwrap(), None);
}

#[test]
fn a_full_disk_refuses_the_write_and_the_store_goes_on() {
    let disk = Disk::new(4);
    let store = on(&disk);
    disk.set_faults(DiskFaults { bytes_max: SEGMENT_BYTES_MIN + 4096, ..DiskFaults::NONE });
    let mut written = 0;
    let refused = loop {
        match store.put(&key(written), &value(1), Durability::Each) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
    assert_eq!(store.get(&key(written)).unwrap(), None);
    disk.set_faults(DiskFaults::NONE);
    store.put(&key(written), &value(2), Durability::Each).unwrap();
    drop(store);
    disk.power_cut();
    let store = RawStore::open(disk, &small()).unwrap();
    assert_eq!(store.stats()[0].records, u64::from(written) + 1);
}

#[test]
fn a_flipped_bit_in_any_file_is_found_or_harms_nobody() {
    let disk = Disk::new(5);
    let store = on(&disk);
    for number in 0..20 {
        store.put(&key(number), &value(number), Durability::Memory).unwrap();
    }
    store.compact().unwrap();
    for number in 10..30 {
        store.put(&key(number), &value(number + 1), Durability::Memory).unwrap();
    }
    store.close().unwrap();
    let (mut found, mut harmless) = (0, 0);
    for name in disk.names() {
        let len = disk.file(&name).len().unwrap().min(9_000);
        for at in (0..len).step_by(7) {
            let Some(copy) = disk.crash_images(1).next() else { panic!("no copy of the disk") };
            let file = copy.file(&name);
            let mut byte = [0];
            file.read_at(at, &mut byte).unwrap();
            file.write_at(at, &[byte[0] ^ 1 << (at % 8)]).unwrap();
            match RawStore::open(copy, &small()) {
                Err(Error::Damaged { .. } | Error::Version { .. }) => found += 1,
                Err(other) => panic!("{name} {at}: {other}"),
                Ok(store) => {
                    for number in 0..30 {
                        let new = if number < 10 { number } else { number + 1 };
                        let value = Some(value(new).to_vec());
                        assert_eq!(store.get(&key(number)).unwrap(), value, "{name} {at}");
                    }
                    harmless += 1;
                }
            }
        }
    }
    assert!(found > 500 && harmless > 500, "found {found}, harmless {harmless}");
}

#[test]
fn damage_under_a_running_store_is_found_by_verify() {
    let disk = Disk::new(6);
    let store = on(&disk);
    for number in 0..20 {
        store.put(&key(number), &value(number), Durability::Each).unwrap();
    }
    store.verify().unwrap();
    let name = disk.names().into_iter().find(|name| name.ends_with(".log")).unwrap();
    disk.file(&name).write_at(4_096 + 300, b"?").unwrap();
    let told = store.verify();
    assert!(matches!(&told, Err(Error::Damaged { file, .. }) if *file == name), "{told:?}");
}

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

#[test]
fn a_token_of_an_earlier_life_is_not_mistaken_for_one_of_this() {
    let disk = Disk::new(9);
    let store = on(&disk);
    let lost = store.put(&key(1), &value(1), Durability::Memory).unwrap();
    assert!(!store.is_durable(lost).unwrap());
    drop(store);
    disk.power_cut();
    let store = RawStore::open(disk, &small()).unwrap();
    store.put(&key(2), &value(2), Durability::Each).unwrap();
    assert!(matches!(store.is_durable(lost), Err(Error::OtherEpoch { .. })));
    assert!(matches!(store.wait(lost), Err(Error::OtherEpoch { .. })));
}

/// As many open files as this user may have: a shard takes some, and a login often allows 1,024.
fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .expect("up to the maximum it is the user's own choice");
}

#[test]
fn limits_hold_at_the_limit_and_one_past_it() {
    allow_open_files();
    let try_sizes = |key, value| RawStore::create(Disk::new(1), key, value, &small()).map(drop);
    assert!(try_sizes(KEY_BYTES_MAX, VALUE_BYTES_MAX).is_ok() && try_sizes(1, 0).is_ok());
    for (key, value) in [(0, 1), (KEY_BYTES_MAX + 1, 1), (1, VALUE_BYTES_MAX + 1)] {
        assert!(matches!(try_sizes(key, value), Err(Error::OutOfLimits { .. })));
    }
    let with = |options: Options| RawStore::create(Disk::new(1), 1, 1, &options);
    for shards in [0, 3, SHARDS_MAX + 1, 2 * SHARDS_MAX] {
        assert!(matches!(with(Options { shards, ..small() }), Err(Error::OutOfLimits { .. })));
    }
    assert!(with(Options { shards: SHARDS_MAX, ..small() }).is_ok());
    for segment_bytes in [SEGMENT_BYTES_MIN - 1, SEGMENT_BYTES_MIN + 1, (1 << 30) + 4096] {
        let refused = with(Options { segment_bytes, ..small() });
        assert!(matches!(refused, Err(Error::OutOfLimits { .. })));
    }
    let store = with(Options { records_max: 2, ..small() }).unwrap();
    for key in [b"a", b"b"] {
        store.put(key, b"1", Durability::Memory).unwrap();
    }
    let refused = store.put(b"c", b"1", Durability::Memory);
    assert!(matches!(refused, Err(Error::Full { max: 2, .. })));
    store.put(b"a", b"2", Durability::Memory).unwrap();
    store.delete(b"b", Durability::Memory).unwrap().unwrap();
    store.put(b"c", b"1", Durability::Memory).unwrap();
    assert!(matches!(store.get(b"ab"), Err(Error::OutOfLimits { .. })));
    assert!(matches!(store.put(b"a", b"", Durability::Memory), Err(Error::OutOfLimits { .. })));
}

#[test]
fn a_killed_creation_leaves_no_store_and_can_be_done_again() {
    for operations in 0..200 {
        let disk = Disk::new(operations);
        disk.die_after(operations);
        let made = RawStore::create(disk.clone(), 4, 64, &Options { shards: 2, ..small() });
        let was_made = made.is_ok();
        drop(made);
        disk.power_cut();
        match RawStore::open(disk.clone(), &small()) {
            Ok(_) => {}
            Err(Error::NotAStore) => {
                assert!(!was_made);
                RawStore::create(disk, 4, 64, &small()).unwrap();
            }
            Err(other) => panic!("{operations}: {other}"),
        }
        if was_made {
            return;
        }
    }
    panic!("no creation came to its end");
}

#[test]
fn a_directory_holds_what_was_written_after_it_is_opened_again() {
    fn files(path: &Path) -> usize {
        fs::read_dir(path).unwrap().count()
    }
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() };
    let store = FixedStore::<u32, [u8; 64]>::create(dir.path(), &options).unwrap();
    for number in 0..3_000 {
        store.put(&(number % 500), &value(number), Durability::Memory).unwrap();
    }
    store.close().unwrap();
    let store = FixedStore::<u32, [u8; 64]>::open(dir.path(), &options).unwrap();
    store.raw().verify().unwrap();
    let mut seen = 0;
    store
        .for_each(|key, found| {
            assert_eq!(found, value(2_500 + key));
            seen += 1;
        })
        .unwrap();
    assert_eq!(seen, 500);
    store.raw().compact().unwrap();
    assert!(files(dir.path()) < 20);
}

/// A child has its parent's descriptors until it becomes another program; a lock that ended with the
/// last of them would be there for a while when whoever had it is gone.
#[test]
fn a_directory_can_be_opened_as_soon_as_it_was_closed_also_while_programs_are_started() {
    let dir = tempfile::tempdir().unwrap();
    let ends = AtomicBool::new(false);
    let started = std::thread::scope(|scope| {
        let start = || {
            let mut started = 0;
            while !ends.load(Ordering::Relaxed) {
                assert!(Command::new("true").status().unwrap().success());
                started += 1;
            }
            started
        };
        let starters = [scope.spawn(start), scope.spawn(start)];
        for _ in 0..3_000 {
            drop(Directory::lock(dir.path()).unwrap());
        }
        ends.store(true, Ordering::Relaxed);
        starters.map(|starter| starter.join().unwrap())
    });
    assert!(started.iter().all(|started| *started > 0), "{started:?}");
}

#[test]
fn a10_memory_is_not_believed_once_its_log_has_been_replaced_by_an_older_one() {
    let (place, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy_logs = |from: &Path, to: &Path| {
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "log") {
                fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        }
    };
    let open = || FixedStore::<u32, u64>::open(place.path(), &small()).unwrap();
    let store = FixedStore::<u32, u64>::create(place.path(), &small()).unwrap();
    store.put(&1, &1, Durability::Memory).unwrap();
    store.close().unwrap();
    copy_logs(place.path(), kept.path());
    let store = open();
    assert!(store.raw().stats()[0].adopted);
    store.put(&1, &2, Durability::Memory).unwrap();
    store.close().unwrap();
    copy_logs(kept.path(), place.path());
    let store = open();
    assert!(!store.raw().stats()[0].adopted);
    assert_eq!(store.get(&1).unwrap(), Some(1));
    store.raw().verify().unwrap();
}
