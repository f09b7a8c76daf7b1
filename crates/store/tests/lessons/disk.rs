//! A disk that fails, is full, or gives back other bytes than it got.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use mainstay_sim::{Disk, DiskFaults, Storage};
use mainstay_store::{
    Change, Durability, Error, FixedStore, LogOptions, Options, RawLogStore, RawStore,
    limits::SEGMENT_BYTES_MIN,
};

use crate::{key, on, small, value};

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

fn log_options() -> LogOptions {
    let (shards, segment_bytes) = (1, SEGMENT_BYTES_MIN);
    LogOptions { shards, segment_bytes, dead_percent: 30, ..LogOptions::default() }
}

/// The disk takes no more than so many bytes beyond what it has.
fn fill_up(disk: &Disk, more: u64) {
    let bytes: u64 =
        disk.names().iter().map(|name| disk.file(name).len().unwrap_or_default()).sum();
    disk.set_faults(DiskFaults { bytes_max: bytes + more, ..DiskFaults::NONE });
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
}

#[test]
fn a_full_disk_refuses_the_write_and_a_log_store_goes_on() {
    // Full in the middle of a frame, at the end of one, in a new segment and in its header.
    for more in (0..12_000).step_by(211) {
        let disk = Disk::new(more);
        let store = RawLogStore::create(disk.clone(), &log_options()).unwrap();
        let put = |key: u8, byte: u8| store.put(&[key], &[byte; 700], Durability::Each);
        for number in 0..8 {
            put(number, 1).unwrap();
        }
        fill_up(&disk, more);
        let mut written = 8;
        let refused = loop {
            match put(written, 1) {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
        };
        assert!(is_full(&refused), "{refused}");
        for _again in 0..3 {
            assert!(put(written, 1).is_err_and(|error| is_full(&error)));
        }
        let batch = store.batch_across(&[Change::Put(&[written], &[1; 700])]);
        assert!(batch.is_err_and(|error| is_full(&error)));
        assert!(store.stats()[0].poisoned.is_none());
        assert_eq!(store.get(&[written]).unwrap(), None);
        assert_eq!(store.get(&[written - 1]).unwrap().as_deref(), Some(&[1; 700][..]));
        // What is open already is as it is told to be after a power cut at this moment.
        for image in disk.crash_images(4) {
            let store = RawLogStore::open(image, &log_options()).unwrap();
            assert_eq!(store.stats()[0].records, u64::from(written));
        }
        disk.set_faults(DiskFaults::NONE);
        for number in written..written + 8 {
            put(number, 2).unwrap();
        }
        store.verify().unwrap();
        drop(store);
        disk.power_cut();
        let store = RawLogStore::open(disk, &log_options()).unwrap();
        assert_eq!(store.stats()[0].records, u64::from(written) + 8, "{more} bytes more");
        for number in 0..written + 8 {
            let byte = if number < written { 1 } else { 2 };
            assert_eq!(store.get(&[number]).unwrap().as_deref(), Some(&[byte; 700][..]));
        }
    }
}

#[test]
fn a_compaction_that_finds_no_room_ends_no_store() {
    for more in (0..3_000).step_by(97) {
        let disk = Disk::new(more);
        let store = RawLogStore::create(disk.clone(), &log_options()).unwrap();
        let put = |key: &[u8], byte: u8| store.put(key, &[byte; 700], Durability::Memory);
        // Of the first segment something is to be moved, the later ones are dead.
        for number in 0..4_u8 {
            put(&[number], 1).unwrap();
        }
        for number in 0..100 {
            put(b"often", number).unwrap();
        }
        store.sync().unwrap();
        let before = store.stats()[0].clone();
        fill_up(&disk, more);
        let mut refused = 0;
        for _ in 0..30 {
            if let Err(error) = store.upkeep() {
                assert!(is_full(&error), "{error}");
                refused += 1;
            }
            assert!(store.stats()[0].poisoned.is_none());
        }
        let lists = disk.names().iter().filter(|name| name.ends_with(".list")).count();
        assert!(lists <= 2, "{:?}", disk.names());
        assert!(refused > 0 || more > 500, "{more} bytes are room for all");
        disk.set_faults(DiskFaults::NONE);
        store.compact().unwrap();
        let after = store.stats()[0].clone();
        assert!(after.log_bytes < before.log_bytes / 4, "{before:?} {after:?}");
        put(b"next", 7).unwrap();
        store.close().unwrap();
        disk.power_cut();
        let store = RawLogStore::open(disk, &log_options()).unwrap();
        let value = |key: &[u8]| store.get(key).unwrap().map(|value| value[0]);
        assert_eq!((value(b"often"), value(b"next")), (Some(99), Some(7)));
        assert!((0..4).all(|number| value(&[number]) == Some(1)));
    }
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
