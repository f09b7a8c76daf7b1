//! A store is made, opened again, and opened by others; and its limits.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use mainstay_sim::{Disk, Storage};
use mainstay_store::{
    Directory, Durability, Error, FixedStore, Folder, LogOptions, Options, RawLogStore, RawStore,
    Result,
    limits::{KEY_BYTES_MAX, SEGMENT_BYTES_MIN, SHARDS_MAX, VALUE_BYTES_MAX},
};

use crate::{key, on, small, value};

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

/// What an opening and a creation say without the header, and whether the record is there with it.
type Without = (Option<Error>, Option<Error>, bool);

/// Takes the header of a store with a record away, and puts it back.
fn without_its_header<S>(
    header: &str,
    (create, open): (impl Fn(&Disk) -> Result<S>, impl Fn(&Disk) -> Result<S>),
    (put, has): (impl Fn(&S), impl Fn(&S) -> bool),
) -> std::result::Result<Without, Box<dyn std::error::Error>> {
    let disk = Disk::new(3);
    put(&create(&disk)?);
    let file = Folder::file(&disk, header)?;
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(0, &mut bytes)?;
    drop(file);
    Folder::remove(&disk, header)?;
    let (opened, created) = (open(&disk).err(), create(&disk).err());
    Folder::file(&disk, header)?.write_at(0, &bytes)?;
    Ok((opened, created, has(&open(&disk)?)))
}

#[test]
fn a_store_whose_header_is_gone_is_told_and_no_creation_removes_it() {
    let create = |disk: &Disk| RawStore::create(disk.clone(), 4, 64, &small());
    let open = |disk: &Disk| RawStore::open(disk.clone(), &small());
    let put = |store: &RawStore<Disk>| {
        store.put(&key(1), &value(1), Durability::Each).unwrap();
    };
    let has = |store: &RawStore<Disk>| store.get(&key(1)).unwrap() == Some(value(1).to_vec());
    let fixed = without_its_header("store", (create, open), (put, has)).unwrap();
    let compacted = |store: &RawStore<Disk>| {
        put(store);
        // Its records are in an image.
        store.compact().unwrap();
    };
    let image = without_its_header("store", (create, open), (compacted, has)).unwrap();
    let options = LogOptions { shards: 1, ..LogOptions::default() };
    let create = |disk: &Disk| RawLogStore::create(disk.clone(), &options);
    let open = |disk: &Disk| RawLogStore::open(disk.clone(), &options);
    let put = |store: &RawLogStore<Disk>| {
        store.put(b"key", b"value", Durability::Each).unwrap();
    };
    let has = |store: &RawLogStore<Disk>| store.contains(b"key").unwrap();
    let any = without_its_header("any", (create, open), (put, has)).unwrap();
    for (opened, created, is_there) in [fixed, image, any] {
        assert!(matches!(opened, Some(Error::HeaderGone { .. })), "{opened:?}");
        assert!(matches!(created, Some(Error::HeaderGone { .. })), "{created:?}");
        assert!(is_there);
    }
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
