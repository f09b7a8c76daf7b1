//! Stores put together by hand: a shard has the files of a shard of another number of shards, whose
//! keys do not all belong there.

use std::collections::BTreeSet;

use mainstay_sim::Disk;
use mainstay_storage::Storage;

use crate::{
    Durability::Memory,
    Error, Identity, LogOptions, LogSurvey, Options, RawLogStore, RawStore, ScrubOptions, Survey,
    error::{MISPLACED, Result},
    limits::SEGMENT_BYTES_MIN,
    planted::{Fault, plant},
    rank::Role,
    scrub::scrub_over,
};

const ID: [u8; 16] = [7; 16];
const KEYS: u8 = 40;
const FAST: ScrubOptions = ScrubOptions { bytes_per_second: 0, from: None };

/// Puts the files of shard 0 of one disk in the place of those of another one.
fn put_together(from: &Disk, to: &Disk, begins: &str) {
    for name in to.names().into_iter().filter(|name| name.starts_with(begins)) {
        to.remove(&name);
    }
    for name in from.names().into_iter().filter(|name| name.starts_with(begins)) {
        to.file(&name).write_at(0, &bytes(from, &name)).unwrap();
    }
}

fn any(shards: u32) -> Disk {
    let disk = Disk::new(1);
    let options = LogOptions { shards, segment_bytes: SEGMENT_BYTES_MIN, ..LogOptions::default() };
    let store = RawLogStore::create_as(disk.clone(), ID, Role::Leader, &options).unwrap();
    for key in 0..KEYS {
        store.put(&[key], &[shards as u8; 900], Memory).unwrap();
    }
    store.close().unwrap();
    disk
}

fn fixed(shards: u32, has_image: bool) -> Disk {
    let disk = Disk::new(1);
    let options = Options { shards, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() };
    let of = Identity { id: ID, key_len: 1, value_len: 9, shards, shard_bits: 0, has_ends: false };
    let store = RawStore::create_as(disk.clone(), &of, Role::Leader, &options).unwrap();
    for key in 0..KEYS {
        store.put(&[key], &[shards as u8; 9], Memory).unwrap();
    }
    if has_image {
        store.compact().unwrap();
    }
    store.close().unwrap();
    disk
}

/// Is it told, with the shard and a place in one of its files?
fn is_told(opened: &Result<()>, begins: &str) -> bool {
    matches!(opened, Err(Error::Misplaced { file, offset, shard: 0, belongs: 1 })
        if file.starts_with(begins) && *offset >= 4096)
}

fn check_any() -> std::result::Result<(), String> {
    for has_hints in [true, false] {
        let disk = any(2);
        put_together(&any(1), &disk, "any-0000-");
        if !has_hints {
            for name in disk.names().into_iter().filter(|name| name.ends_with(".hint")) {
                disk.remove(&name);
            }
        }
        let opened = RawLogStore::open(disk.clone(), &LogOptions::default()).map(drop);
        if !is_told(&opened, "any-0000-") {
            return Err(format!("an opening says {opened:?}"));
        }
        let survey = LogSurvey::over(&disk, |_, _| {}).unwrap();
        let told = survey.damage.iter().any(|it| it.what == MISPLACED && !it.has_copy);
        if !told {
            return Err(format!("a survey says {:?}", survey.damage));
        }
        let scrubbed = scrub_over(|| Ok(disk.clone()), &FAST, |_, _| true).unwrap();
        let of: BTreeSet<_> = scrubbed.damage.iter().map(|it| it.what).collect();
        if of != BTreeSet::from([MISPLACED]) {
            return Err(format!("scrubbing says {:?}", scrubbed.damage));
        }
    }
    Ok(())
}

fn check_fixed() -> std::result::Result<(), String> {
    for has_image in [true, false] {
        let disk = fixed(2, has_image);
        put_together(&fixed(1, has_image), &disk, "shard-0000-");
        let opened = RawStore::open(disk.clone(), &Options::default()).map(drop);
        if !is_told(&opened, "shard-0000-") {
            return Err(format!("an opening says {opened:?}"));
        }
        let survey = Survey::over(&disk, |_, _| {}).unwrap();
        let damage: Vec<_> = survey.files.iter().flat_map(|file| &file.damage).collect();
        if survey.can_be_opened() || damage.iter().any(|it| it.what != MISPLACED) {
            return Err(format!("a survey says {damage:?}"));
        }
        let scrubbed = scrub_over(|| Ok(disk.clone()), &FAST, |_, _| true).unwrap();
        let of: BTreeSet<_> = scrubbed.damage.iter().map(|it| it.what).collect();
        if of != BTreeSet::from([MISPLACED]) {
            return Err(format!("scrubbing says {:?}", scrubbed.damage));
        }
    }
    Ok(())
}

#[test]
fn v19_keys_in_a_shard_where_they_do_not_belong_are_told_by_who_opens_and_who_looks() {
    assert_eq!(check_any(), Ok(()));
    assert_eq!(check_fixed(), Ok(()));
}

#[test]
fn v19_strangers_that_are_taken_are_found() {
    plant(Some(Fault::StrangersTaken));
    let found = (check_any(), check_fixed());
    plant(None);
    assert!(found.0.is_err() && found.1.is_err(), "{found:?}");
}

#[test]
fn v19_files_of_two_shards_in_each_others_place_are_told_by_their_headers() {
    let disks = [(any(2), "any-"), (fixed(2, true), "shard-")];
    for (disk, begins) in &disks {
        let shard = |number| format!("{begins}000{number}-");
        let files: Vec<_> =
            disk.names().into_iter().map(|name| (bytes(disk, &name), name)).collect();
        for (_, name) in &files {
            disk.remove(name);
        }
        for (bytes, name) in &files {
            let (one, other) =
                (name.replace(&shard(0), &shard(1)), name.replace(&shard(1), &shard(0)));
            let name = if one == *name { &other } else { &one };
            disk.file(name).write_at(0, bytes).unwrap();
        }
    }
    let [(any, _), (fixed, _)] = disks;
    let refused = [
        RawLogStore::open(any, &LogOptions::default()).map(drop),
        RawStore::open(fixed, &Options::default()).map(drop),
    ];
    assert!(refused.iter().all(|it| matches!(it, Err(Error::Damaged { .. }))), "{refused:?}");
}

fn bytes(disk: &Disk, name: &str) -> Vec<u8> {
    let mut bytes = vec![0; disk.file(name).len().unwrap() as usize];
    disk.file(name).read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn v19_a_salvage_puts_strangers_where_they_belong_unless_something_is_there() {
    let disk = any(2);
    put_together(&any(1), &disk, "any-0000-");
    let options = LogOptions { shards: 2, ..LogOptions::default() };
    let (store, told) = RawLogStore::salvage(&disk, Disk::new(9), &options, |_, _| {}).unwrap();
    assert_eq!(told.records, u64::from(KEYS));
    let mut of_one = 0;
    for key in 0..KEYS {
        // Those of shard 0 are of the store that had one shard, those of shard 1 of that which had two.
        let right = if store.shard(&[key]).unwrap() == 0 { 1 } else { 2 };
        of_one += u64::from(right == 1);
        assert_eq!(store.get(&[key]).unwrap().as_deref(), Some(&[right; 900][..]));
    }
    assert!(of_one > 10 && told.damage.iter().any(|it| it.what == MISPLACED));
    assert_eq!((told.unknown, told.doubtful, told.is_whole()), (1, 0, false));
    // Where the other shard has nothing they are saved.
    for name in disk.names().into_iter().filter(|name| name.starts_with("any-0001-")) {
        disk.remove(&name);
    }
    put_together(&empty(), &disk, "any-0001-");
    let (store, told) = RawLogStore::salvage(&disk, Disk::new(9), &options, |_, _| {}).unwrap();
    assert_eq!((told.records, told.doubtful), (u64::from(KEYS), u64::from(KEYS) - of_one));
    assert_eq!(store.get(&[0]).unwrap().as_deref(), Some(&[1; 900][..]));
}

fn empty() -> Disk {
    let disk = Disk::new(1);
    let options =
        LogOptions { shards: 2, segment_bytes: SEGMENT_BYTES_MIN, ..LogOptions::default() };
    drop(RawLogStore::create_as(disk.clone(), ID, Role::Leader, &options).unwrap());
    disk
}
