//! A view is what the owner has, closed or not, alone or beside it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::Duration,
};

use mainstay_base::Rng;
use mainstay_sim::Chance as _;

use super::LogOnDisk;
use crate::{Change, Directory, Durability::Memory, Error, LogOptions, RawLogStore};

type Records = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

fn options() -> LogOptions {
    LogOptions { shards: 4, segment_bytes: 16 << 10, ..LogOptions::default() }
}

fn create(path: &Path) -> RawLogStore<Directory> {
    RawLogStore::create(Directory::lock(path).unwrap(), &options()).unwrap()
}

fn seen(view: &LogOnDisk) -> Records {
    let mut records = Records::new();
    let show = |key: &[u8], value: &[u8], end| {
        assert_eq!(records.insert(key.to_vec(), (value.to_vec(), end)), None, "shown once");
    };
    view.for_each(show).unwrap();
    for (key, record) in &records {
        assert_eq!(view.get(key).unwrap().as_ref(), Some(record));
    }
    records
}

fn owned(store: &RawLogStore<Directory>) -> Records {
    let mut records = Records::new();
    let show = |key: &[u8], value: &[u8]| {
        let end = store.end(key).unwrap().flatten();
        records.insert(key.to_vec(), (value.to_vec(), end));
    };
    store.for_each(show).unwrap();
    records
}

#[test]
fn a_view_has_what_the_owner_has_whether_it_is_open_closed_or_was_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = create(dir.path());
    let mut rng = Rng::seeded(7);
    for round in 0..12 {
        for _ in 0..200 {
            let key = [rng.below(120) as u8, 7];
            let value = vec![round; rng.below(300) as usize];
            match rng.below(5) {
                0 => drop(store.delete(&key, Memory).unwrap()),
                1 => {
                    let ttl = Duration::from_secs(rng.between(1_000, 2_000));
                    store.put_for(&key, &value, Some(ttl), Memory).unwrap();
                }
                2 => {
                    let other = [key[0] ^ 1, 7];
                    let both = [Change::Put(&key, &value), Change::Delete(&other)];
                    store.batch_across(&both).unwrap();
                }
                _ => drop(store.put(&key, &value, Memory).unwrap()),
            }
        }
        if round % 3 == 0 {
            store.compact().unwrap();
        }
        let expected = owned(&store);
        assert!(expected.len() > 40, "{}", expected.len());
        let view = LogOnDisk::open(dir.path()).unwrap();
        assert_eq!(seen(&view), expected, "beside its owner");
        assert_eq!((view.id(), view.records()), (store.id(), expected.len() as u64));
        let epoch = store.epoch();
        if round % 2 == 0 {
            store.close().unwrap()
        } else {
            drop(store)
        }
        assert_eq!(seen(&LogOnDisk::open(dir.path()).unwrap()), expected, "alone");
        // What the first view holds is still there.
        assert_eq!(seen(&view), expected);
        drop(view);
        store = RawLogStore::open(Directory::lock(dir.path()).unwrap(), &options()).unwrap();
        assert_eq!(store.epoch(), epoch + 1, "looking begins no epoch");
    }
}

#[test]
fn views_opened_while_somebody_writes_and_compacts_lack_nothing_that_was_written_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    let keys: Vec<[u8; 2]> = (0..16).map(|number| [number, 1]).collect();
    let (done, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let write = || {
        let mut number = 0_u64;
        while !over.load(SeqCst) {
            number += 1;
            let value = [number.to_le_bytes().to_vec(), vec![7; 500]].concat();
            let changes: Vec<_> = keys.iter().map(|key| Change::Put(key, &value)).collect();
            store.batch_across(&changes).unwrap();
            done.store(number, SeqCst);
            if number.is_multiple_of(5) {
                store.compact().unwrap();
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(write);
        while done.load(SeqCst) == 0 {
            thread::yield_now();
        }
        let mut views = 0;
        while views < 50 || done.load(SeqCst) < 50 {
            views += 1;
            let before = done.load(SeqCst);
            let view = LogOnDisk::open(dir.path()).unwrap();
            let records = seen(&view);
            assert_eq!(records.len(), keys.len());
            for (value, _) in records.values() {
                let number = u64::from_le_bytes(value[..8].try_into().unwrap());
                assert!(number >= before, "{number} after {before}");
            }
        }
        over.store(true, SeqCst);
    });
}

#[test]
fn damage_is_told_also_beside_an_owner() {
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    for number in 0..50_u8 {
        store.put(&[number], &[number; 700], Memory).unwrap();
    }
    let log = |name: &str| name.starts_with("any-0000-") && name.ends_with(".log");
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap()).collect();
    names.retain(|entry| log(entry.file_name().to_str().unwrap()));
    names.sort_unstable_by_key(std::fs::DirEntry::file_name);
    let file = names[0].path();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[5_000] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let told = LogOnDisk::open(dir.path()).map(|view| view.for_each(|_, _, _| {}));
    let told = told.and_then(|read| read);
    assert!(matches!(told, Err(Error::Damaged { .. })), "{told:?}");
}

#[test]
fn where_there_is_no_such_store_it_is_said() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(LogOnDisk::open(dir.path()), Err(Error::NotAStore)));
    assert!(matches!(LogOnDisk::open(&dir.path().join("none")), Err(Error::NotAStore)));
}
