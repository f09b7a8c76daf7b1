//! Who follows, and who led until another one does, writes nothing of its own: every operation that
//! writes is refused, in stores of all kinds, and none of them changes anything.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{fmt::Debug, time::Duration};

use mainstay_store::{
    Change, Directory, Durability, Durability::Memory, Error, ExpiringStore, FixedStore,
    LogOptions, LogStore, Options, RawLogStore, RawStore,
};

/// How a store has come to take no writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// It follows.
    Demoted,
    /// It leads, and has heard of another one.
    Fenced,
}

const HOWS: [How; 2] = [How::Demoted, How::Fenced];
const ALL: [Durability; 4] = [Memory, Durability::Interval, Durability::Group, Durability::Each];
const TTL: Option<Duration> = Some(Duration::from_secs(3_600));
/// A time that is over.
const OVER: Option<u64> = Some(1);
const SHARDS: u32 = 4;

fn options() -> Options {
    Options { shards: SHARDS, ..Options::default() }
}

fn log_options() -> LogOptions {
    LogOptions { shards: SHARDS, ..LogOptions::default() }
}

/// That it was refused, for that reason.
#[track_caller]
fn is_refused<T: Debug>(how: How, what: &str, done: Result<T, Error>) {
    let is_it = match how {
        How::Demoted => matches!(done, Err(Error::Follows)),
        How::Fenced => matches!(done, Err(Error::Replaced { .. })),
    };
    assert!(is_it, "{how:?}: {what}: {done:?}");
}

/// All that a store has, and how it came to it.
macro_rules! state {
    ($raw:expr) => {{
        let mut records = Vec::new();
        $raw.for_each(|key, value| records.push((key.to_vec(), value.to_vec()))).unwrap();
        records.sort();
        let histories: Vec<_> = (0..SHARDS).map(|shard| $raw.history(shard).unwrap()).collect();
        let written: Vec<_> = $raw.stats().iter().map(|shard| shard.sequence).collect();
        (records, histories, written)
    }};
}

/// Has a store take no more writes, and does something that may not change it.
macro_rules! changes_nothing {
    ($how:expr, $store:ident, $raw:expr, $tried:expr) => {{
        match $how {
            How::Demoted => $store.demote().unwrap(),
            How::Fenced => $raw.fence($raw.epoch() + 1).unwrap(),
        }
        let before = state!($raw);
        assert!(!before.0.is_empty());
        $tried;
        assert_eq!(state!($raw), before);
        $raw.sync().unwrap();
        $raw.tend().unwrap();
        $raw.upkeep().unwrap();
        $raw.compact().unwrap();
        $raw.verify().unwrap();
        assert_eq!(state!($raw), before);
    }};
}

/// What both kinds of raw stores do by methods of the same names: one record is there, the other is not.
macro_rules! try_raw {
    ($how:expr, $raw:expr, $there:expr, $value:expr, $other:expr) => {
        let (how, raw, there, old, other) = ($how, $raw, $there, $value, $other);
        let (put, gone) = (Change::Put(other, old), Change::Delete(there));
        for durability in ALL {
            is_refused(how, "put", raw.put(there, old, durability));
            is_refused(how, "put of a new one", raw.put(other, old, durability));
            is_refused(how, "insert", raw.insert(other, old, durability));
            is_refused(how, "delete", raw.delete(there, durability));
            let changed = |old: Option<&[u8]>| old.map(<[u8]>::to_vec);
            is_refused(how, "update", raw.update(there, durability, changed));
            let made = |_: Option<&[u8]>| Some(old.to_vec());
            is_refused(how, "update of a new one", raw.update(other, durability, made));
            is_refused(how, "update to nothing", raw.update(there, durability, |_| None));
            let swap = |key, old, new| raw.compare_and_swap(key, old, new, durability);
            is_refused(how, "swap", swap(there, Some(old), Some(old)));
            is_refused(how, "swap of a new one", swap(other, None, Some(old)));
            is_refused(how, "swap to nothing", swap(there, Some(old), None));
            is_refused(how, "batch", raw.batch(&[gone], durability));
            is_refused(how, "batch of a new one", raw.batch(&[put], durability));
        }
        is_refused(how, "batch across", raw.batch_across(&[put, gone]));
        is_refused(how, "batch across one shard", raw.batch_across(&[gone]));
    };
}

fn try_fixed(how: How, raw: &RawStore<Directory>, value: &[u8]) {
    let (there, other) = (7_u64.to_le_bytes(), 8_u64.to_le_bytes());
    try_raw!(how, raw, &there, value, &other);
    is_refused(how, "resharding", raw.reshard(&Options { shards: 2, ..options() }).map(drop));
}

#[test]
fn a_store_of_fixed_sizes_that_does_not_lead_refuses_every_write_and_changes_nothing() {
    for how in HOWS {
        let dir = tempfile::tempdir().unwrap();
        let mut store = FixedStore::<u64, u64>::create(dir.path(), &options()).unwrap();
        store.put(&7, &70, Durability::Group).unwrap();
        let tried = |store: &FixedStore<u64, u64>| {
            is_refused(how, "put", store.put(&7, &1, Memory));
            is_refused(how, "insert", store.insert(&8, &1, Memory));
            is_refused(how, "delete", store.delete(&7, Memory));
            let swapped = store.compare_and_swap(&7, Some(&70), Some(&1), Memory);
            is_refused(how, "swap", swapped);
            is_refused(how, "update", store.update(&7, Memory, |old| old.map(|old| old + 1)));
            is_refused(how, "batch across", store.batch_across(&[(7, None), (8, Some(1))]));
            try_fixed(how, store.raw(), &70_u64.to_le_bytes());
        };
        changes_nothing!(how, store, store.raw(), tried(&store));
        assert_eq!(store.get(&7).unwrap(), Some(70));
    }
}

#[test]
fn a_store_of_records_that_end_that_does_not_lead_refuses_every_write_and_changes_nothing() {
    for how in HOWS {
        let dir = tempfile::tempdir().unwrap();
        let mut store = ExpiringStore::<u64, u64>::create(dir.path(), &options()).unwrap();
        store.put(&7, &70, TTL, Durability::Group).unwrap();
        // It is over, and its leader has not said so yet.
        store.put_until(&6, &60, OVER, Durability::Group).unwrap();
        let tried = |store: &ExpiringStore<u64, u64>| {
            is_refused(how, "put", store.put(&7, &1, None, Memory));
            is_refused(how, "put until", store.put_until(&7, &1, OVER, Memory));
            is_refused(how, "insert", store.insert(&8, &1, TTL, Memory));
            is_refused(how, "insert over one that has ended", store.insert(&6, &1, TTL, Memory));
            is_refused(how, "touch", store.touch(&7, None, Memory));
            is_refused(how, "delete", store.delete(&7, Memory));
            let swapped = store.compare_and_swap(&7, Some(&70), Some(&1), Memory);
            is_refused(how, "swap", swapped);
            is_refused(how, "update", store.update(&7, Memory, |old| old.map(|old| old + 1)));
            is_refused(how, "batch", store.batch(&[(7, None)], TTL, Memory));
            is_refused(how, "batch across", store.batch_across(&[(7, None), (8, Some(1))], TTL));
            let raw = store.raw();
            let (there, other) = (7_u64.to_le_bytes(), 8_u64.to_le_bytes());
            let value = 70_u64.to_le_bytes();
            is_refused(how, "raw put", raw.put(&there, &value, TTL, Memory));
            is_refused(how, "raw put until", raw.put_until(&there, &value, OVER, Memory));
            is_refused(how, "raw insert", raw.insert(&other, &value, TTL, Memory));
            is_refused(how, "raw touch", raw.touch(&there, TTL, Memory));
            is_refused(how, "raw delete", raw.delete(&there, Memory));
            let swapped = raw.compare_and_swap(&there, Some(&value), None, Memory);
            is_refused(how, "raw swap", swapped);
            is_refused(how, "raw update", raw.update(&there, Memory, |_| None));
            let change = Change::Delete(&there);
            is_refused(how, "raw batch", raw.batch(&[change], TTL, Memory));
            is_refused(how, "raw batch across", raw.batch_across(&[change], TTL));
            // What has ended is deleted by who leads, and so here.
            assert_eq!((raw.sweep(100).unwrap(), raw.sweep_all().unwrap()), (0, 0));
            let stored = raw.raw().get(&there).unwrap().unwrap();
            try_fixed(how, raw.raw(), &stored);
        };
        changes_nothing!(how, store, store.raw().raw(), tried(&store));
        assert_eq!((store.get(&7).unwrap(), store.get(&6).unwrap()), (Some(70), None));
    }
}

fn try_any(how: How, raw: &RawLogStore<Directory>) {
    try_raw!(how, raw, b"there", b"value", b"other");
    is_refused(how, "put for", raw.put_for(b"there", b"value", TTL, Memory));
    is_refused(how, "put until", raw.put_until(b"there", b"value", OVER, Memory));
    is_refused(how, "insert for", raw.insert_for(b"other", b"value", TTL, Memory));
    is_refused(how, "insert over one that has ended", raw.insert_for(b"ended", b"", TTL, Memory));
    is_refused(how, "touch", raw.touch(b"there", TTL, Memory));
    let changes = [Change::Delete(b"there"), Change::Put(b"other", b"value")];
    is_refused(how, "batch across for", raw.batch_across_for(&changes, TTL));
    assert_eq!(raw.sweep(100).unwrap(), 0);
    is_refused(
        how,
        "resharding",
        raw.reshard(&LogOptions { shards: 2, ..log_options() }).map(drop),
    );
}

#[test]
fn a_store_of_any_sizes_that_does_not_lead_refuses_every_write_and_changes_nothing() {
    for how in HOWS {
        let dir = tempfile::tempdir().unwrap();
        let mut store = LogStore::<String, String>::create(dir.path(), &log_options()).unwrap();
        let (there, other) = ("there".to_owned(), "other".to_owned());
        let value = "value".to_owned();
        store.put(&there, &value, Durability::Group).unwrap();
        store.put_until(&"ended".to_owned(), &value, OVER, Durability::Group).unwrap();
        let tried = |store: &LogStore<String, String>| {
            is_refused(how, "put", store.put(&there, &value, Memory));
            is_refused(how, "put for", store.put_for(&there, &value, TTL, Memory));
            is_refused(how, "put until", store.put_until(&there, &value, OVER, Memory));
            is_refused(how, "insert", store.insert(&other, &value, Memory));
            is_refused(how, "insert for", store.insert_for(&other, &value, TTL, Memory));
            is_refused(how, "touch", store.touch(&there, TTL, Memory));
            is_refused(how, "delete", store.delete(&there, Memory));
            let swapped = store.compare_and_swap(&there, Some(&value), None, Memory);
            is_refused(how, "swap", swapped);
            is_refused(how, "update", store.update(&there, Memory, |_| None));
            is_refused(how, "batch", store.batch(&[(there.clone(), None)], Memory));
            let changes = [(there.clone(), None), (other.clone(), Some(value.clone()))];
            is_refused(how, "batch across", store.batch_across(&changes));
            try_any(how, store.raw());
        };
        changes_nothing!(how, store, store.raw(), tried(&store));
        assert_eq!(store.get(&there).unwrap(), Some(value.clone()));
    }
}
