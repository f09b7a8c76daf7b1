//! Stores whose files are encrypted: what is in their directories, what a wrong key or none is told,
//! what damage is, and that a rotation of keys can be killed anywhere.

#![cfg(feature = "encryption")]
#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{collections::BTreeMap, fs, path::Path};

use mainstay_sim::{Disk, DiskFaults};
use mainstay_storage::{
    planted::{Fault, plant},
    rekey,
};
use mainstay_store::{
    Change, Directory, Durability, Encrypted, Error, FixedStore, Folder, Key, Keys, LogOptions,
    LogSurvey, OnDisk, Options, RawLogStore, RawStore, Reader, Survey, encrypted_under,
    restore_with,
};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

fn keys(byte: u8) -> Keys {
    Keys::new(Key::new(&[byte; 32]))
}

fn both() -> Keys {
    keys(2).with_older(Key::new(&[1; 32]))
}

fn options() -> Options {
    Options { shards: 2, segment_bytes: 16 << 10, threads: 1, ..Options::default() }
}

fn log_options() -> LogOptions {
    LogOptions { shards: 2, segment_bytes: 16 << 10, threads: 1, ..LogOptions::default() }
}

fn key_of(number: u64) -> Vec<u8> {
    format!("subscriber-{number:05}").into_bytes()
}

fn value_of(number: u64) -> Vec<u8> {
    format!("+49 30 555 {number:05} calls nobody").into_bytes()
}

const COUNT: u64 = 400;

/// Fills a store so that it has segments, and an image, or hints and a list.
fn fill_fixed(folder: Directory) -> RawStore<Directory> {
    let (key, value) = (key_of(0).len(), value_of(0).len());
    let store = RawStore::create(folder, key, value, &options()).unwrap();
    for number in 0..COUNT {
        store.put(&key_of(number), &value_of(number), Durability::Memory).unwrap();
        if number == COUNT / 2 {
            store.compact().unwrap();
        }
    }
    store
}

fn fill_any(folder: Directory) -> RawLogStore<Directory> {
    let store = RawLogStore::create(folder, &log_options()).unwrap();
    for number in 0..2 * COUNT {
        store.put(&key_of(number % COUNT), &value_of(number), Durability::Memory).unwrap();
    }
    store.compact().unwrap();
    store
}

/// In which files of a directory there is a piece of a key or of a value.
fn files_with_content(place: &Path) -> Vec<String> {
    let pieces: [&[u8]; 4] = [b"subscri", b"criber-0", b"+49 30 ", b" nobody"];
    let entries = fs::read_dir(place).unwrap().map(Result::unwrap);
    let has_piece = |entry: &fs::DirEntry| {
        let bytes = fs::read(entry.path()).unwrap();
        pieces.iter().any(|piece| bytes.windows(piece.len()).any(|bytes| bytes == *piece))
    };
    entries.filter(has_piece).map(|entry| entry.file_name().into_string().unwrap()).collect()
}

#[test]
fn e1_no_key_and_no_value_is_in_any_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let store = fill_fixed(Directory::lock_with(&at("fixed"), &keys(1)).unwrap());
    store.backup(&Directory::lock_with(&at("copy"), &keys(1)).unwrap(), |_, _| {}).unwrap();
    // Also while it is open.
    assert_eq!(files_with_content(&at("fixed")), [""; 0]);
    store.close().unwrap();
    restore_with(&at("copy"), &at("restored"), &keys(1), |_, _| {}).unwrap();
    fill_any(Directory::lock_with(&at("any"), &keys(1)).unwrap()).close().unwrap();
    for place in ["fixed", "copy", "restored", "any"] {
        assert_eq!(files_with_content(&at(place)), [""; 0], "{place}");
        assert_eq!(encrypted_under(&at(place)).unwrap(), Some(keys(1).current().id().to_string()));
    }
    // As it would be found.
    drop(fill_fixed(Directory::lock(&at("plain")).unwrap()));
    fill_any(Directory::lock(&at("plain any")).unwrap()).close().unwrap();
    assert!(files_with_content(&at("plain")).len() > 2);
    assert!(files_with_content(&at("plain any")).len() > 2);
    assert_eq!(encrypted_under(&at("plain")).unwrap(), None);
}

fn contents(place: &Path, keys: &Keys) -> Records {
    let mut found = Records::new();
    let view = OnDisk::open_with(place, keys).unwrap();
    view.for_each(|key, value| drop(found.insert(key.to_vec(), value.to_vec()))).unwrap();
    found
}

fn filled() -> Records {
    (0..COUNT).map(|number| (key_of(number), value_of(number))).collect()
}

#[test]
fn a_store_its_backup_and_what_is_restored_of_it_have_the_same_records() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let store = fill_fixed(Directory::lock_with(&at("fixed"), &keys(1)).unwrap());
    // Under another key: each directory has its own.
    store.backup(&Directory::lock_with(&at("copy"), &keys(2)).unwrap(), |_, _| {}).unwrap();
    drop(store);
    restore_with(&at("copy"), &at("restored"), &keys(2), |_, _| {}).unwrap();
    assert_eq!(contents(&at("fixed"), &keys(1)), filled());
    assert_eq!(contents(&at("copy"), &keys(2)), filled());
    assert_eq!(contents(&at("restored"), &keys(2)), filled());
    assert!(Survey::of_with(&at("fixed"), &keys(1), |_, _| {}).unwrap().is_sound());
}

#[test]
fn e1_a_store_that_gets_other_shards_is_encrypted_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    let store = fill_fixed(Directory::lock_with(&place, &keys(1)).unwrap());
    let mut resharding = store.reshard(&Options { shards: 8, ..options() }).unwrap();
    resharding.advance(COUNT / 2).unwrap();
    assert_eq!(files_with_content(&dir.path().join("store.resharding")), [""; 0]);
    let new = resharding.finish().unwrap();
    drop(store);
    new.close().unwrap();
    assert_eq!(files_with_content(&place), [""; 0]);
    assert_eq!(encrypted_under(&place).unwrap(), Some(keys(1).current().id().to_string()));
    assert_eq!(contents(&place, &keys(1)), filled());
}

/// All bytes of a directory.
fn bytes_of(place: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(place).unwrap().map(Result::unwrap);
    let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
    entries.map(|entry| (name(&entry), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn e5_a_key_too_few_or_too_many_or_another_one_is_told_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fill_fixed(Directory::lock_with(&at("fixed"), &keys(1)).unwrap()).close().unwrap();
    fill_any(Directory::lock_with(&at("any"), &keys(1)).unwrap()).close().unwrap();
    let id = keys(1).current().id().to_string();
    let is_encrypted = |error: &Error| matches!(error, Error::Encrypted { key } if *key == id);
    let is_other = |error: &Error| matches!(error, Error::OtherKey { wanted, .. } if *wanted == id);
    for place in [at("fixed"), at("any")] {
        let before = bytes_of(&place);
        let lock = || Directory::lock(&place).unwrap();
        let wrong = || Directory::lock_with(&place, &keys(2)).unwrap();
        let without = [
            RawStore::create(lock(), 2, 3, &options()).err(),
            RawLogStore::create(lock(), &log_options()).err(),
        ];
        let with = [
            RawStore::create(wrong(), 2, 3, &options()).err(),
            RawLogStore::create(wrong(), &log_options()).err(),
        ];
        for error in without.into_iter().chain(with).flatten() {
            let is_right = is_encrypted(&error) || is_other(&error);
            assert!(is_right || matches!(error, Error::Exists), "{error}");
        }
        assert!(bytes_of(&place) == before);
    }
    let fixed = [
        RawStore::open(Directory::lock(&at("fixed")).unwrap(), &options()).err(),
        OnDisk::open(&at("fixed")).err(),
        Survey::of(&at("fixed"), |_, _| {}).err(),
        Reader::open(&at("fixed")).err(),
        RawLogStore::open(Directory::lock(&at("any")).unwrap(), &log_options()).err(),
        LogSurvey::of(&at("any"), |_, _| {}).err(),
    ];
    for error in fixed {
        assert!(error.as_ref().is_some_and(is_encrypted), "{error:?}");
    }
    let other = [
        RawStore::open(Directory::lock_with(&at("fixed"), &keys(2)).unwrap(), &options()).err(),
        OnDisk::open_with(&at("fixed"), &keys(2)).err(),
        Survey::of_with(&at("fixed"), &keys(2), |_, _| {}).err(),
        RawLogStore::open(Directory::lock_with(&at("any"), &keys(2)).unwrap(), &log_options())
            .err(),
        LogSurvey::of_with(&at("any"), &keys(2), |_, _| {}).err(),
        restore_with(&at("fixed"), &at("new"), &keys(2), |_, _| {}).err(),
    ];
    for error in other {
        assert!(error.as_ref().is_some_and(is_other), "{error:?}");
        assert!(error.unwrap().to_string().contains(&id));
    }
    fill_fixed(Directory::lock(&at("plain")).unwrap()).close().unwrap();
    let before = bytes_of(&at("plain"));
    let wrong = || Directory::lock_with(&at("plain"), &keys(1)).unwrap();
    let plain = [
        RawStore::open(wrong(), &options()).err(),
        RawStore::create(wrong(), 2, 3, &options()).err(),
        OnDisk::open_with(&at("plain"), &keys(1)).err(),
        mainstay_store::rekey(&at("plain"), &both(), |_, _| {}).err(),
    ];
    for error in plain {
        assert!(matches!(error, Some(Error::NotEncrypted { .. })), "{error:?}");
    }
    assert!(bytes_of(&at("plain")) == before);
    let nothing = mainstay_store::rekey(&at("nothing"), &both(), |_, _| {});
    assert!(matches!(nothing, Err(Error::NotAStore)));
}

#[test]
fn e3_a_flipped_bit_anywhere_makes_no_record_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("fixed");
    fill_fixed(Directory::lock_with(&place, &keys(1)).unwrap()).close().unwrap();
    let sound = bytes_of(&place);
    let (mut told, mut same) = (0, 0);
    for (name, bytes) in &sound {
        for at in (0..bytes.len()).step_by(97) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(place.join(name), &flipped).unwrap();
            let mut found = Records::new();
            let view = OnDisk::open_with(&place, &keys(1));
            let seen = view.and_then(|view| {
                view.for_each(|key, value| drop(found.insert(key.to_vec(), value.to_vec())))
            });
            match seen {
                Ok(()) if found == filled() => same += 1,
                // The last sector of a log has its last writes, and the frame that vouches for them;
                // a mark beside the log tells that from writes that were never finished.
                Ok(()) => panic!("{name} at {at}: {} of {COUNT} records", found.len()),
                Err(Error::Damaged { .. }) => told += 1,
                Err(error) => panic!("{name} at {at}: {error}"),
            }
        }
        fs::write(place.join(name), bytes).unwrap();
    }
    assert!(told > 100 && same > 100, "{told} {same}");
}

type Sealed = RawStore<Encrypted<Disk>>;

fn records(store: &Sealed) -> Records {
    let mut found = Records::new();
    store.for_each(|key, value| drop(found.insert(key.to_vec(), value.to_vec()))).unwrap();
    found
}

/// A small store under the first key, closed, and all of it durable.
fn small() -> (Disk, Records) {
    let disk = Disk::new(7);
    let folder = Encrypted::new(disk.clone(), keys(1));
    let store = RawStore::create(folder, 2, 8, &options()).unwrap();
    for number in 0..50_u16 {
        let (key, value) = (number.to_le_bytes(), u64::from(number).to_le_bytes());
        store.batch(&[Change::Put(&key, &value)], Durability::Memory).unwrap();
    }
    store.compact().unwrap();
    let found = records(&store);
    store.close().unwrap();
    (disk, found)
}

fn opened(disk: &Disk, keys: Keys) -> Result<Records, Error> {
    RawStore::open(Encrypted::new(disk.clone(), keys), &options()).map(|store| records(&store))
}

/// Kills a rotation before each of its calls, and cuts the power then. What is wrong after one of
/// them, or how many disks were opened.
fn killed_rotations(faults: DiskFaults) -> Result<usize, String> {
    let (disk, found) = small();
    let copy = || disk.crash_images(1).next().unwrap();
    let mut images = 0;
    for calls in 0.. {
        let of = copy();
        of.set_faults(faults);
        of.die_after(calls);
        let done = rekey(&of, &both(), |_, _| {});
        let is_all = done.is_ok() && !of.is_dead();
        for after in of.crash_images(4) {
            images += 1;
            after.set_faults(DiskFaults::NONE);
            let what = |keys: &str, error| format!("after {calls} calls, {keys}: {error}");
            let again = after.crash_images(1).next().unwrap();
            match opened(&again, both()) {
                Ok(records) if records == found => {}
                Ok(_) => return Err(what("both", "other records".to_owned())),
                Err(error) => return Err(what("both", error.to_string())),
            }
            if !is_all {
                rekey(&after, &both(), |_, _| {})
                    .map_err(|error| what("again", error.to_string()))?;
            }
            let after = after.crash_images(1).next().unwrap();
            match opened(&after, keys(2)) {
                Ok(records) if records == found => {}
                Ok(_) => return Err(what("new", "other records".to_owned())),
                Err(error) => return Err(what("new", error.to_string())),
            }
            if !matches!(opened(&after, keys(1)), Err(Error::OtherKey { .. })) {
                return Err(what("old", "something is still under it".to_owned()));
            }
        }
        if is_all {
            return Ok(images);
        }
    }
    unreachable!("a rotation comes to its end")
}

#[test]
fn e6_a_rotation_that_is_killed_at_any_call_is_done_again() {
    let images = killed_rotations(DiskFaults::NONE).unwrap();
    println!("opened {images} disks after killed rotations");
    assert!(images > 50, "{images}");
    // Also on a disk that tears inside of sectors.
    let shredding = DiskFaults { shred_ppm: 1_000_000, ..DiskFaults::NONE };
    killed_rotations(shredding).unwrap();
    plant(Some(Fault::RewrappedAtOnce));
    let wrong = killed_rotations(shredding);
    plant(None);
    assert!(wrong.is_err(), "a planted fault is found");
}

#[test]
fn e6_a_rotation_whose_sync_fails_is_not_taken_for_done() {
    let (disk, found) = small();
    let mut failed = 0;
    for _ in 0..40 {
        let of = disk.crash_images(1).next().unwrap();
        of.set_faults(DiskFaults { sync_error_ppm: 100_000, ..DiskFaults::NONE });
        failed += usize::from(rekey(&of, &both(), |_, _| {}).is_err());
        of.set_faults(DiskFaults::NONE);
        rekey(&of, &both(), |_, _| {}).unwrap();
        for after in of.crash_images(3) {
            assert_eq!(opened(&after, keys(2)).unwrap(), found);
            // No copy of a header is under the old key any more.
            assert!(matches!(opened(&after, keys(1)), Err(Error::OtherKey { .. })));
        }
    }
    assert!(failed > 10, "{failed}");
}

#[test]
fn a_store_goes_on_under_two_keys_after_a_rotation_was_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { shards: 2, ..Options::default() };
    let lock = |keys: &Keys| Directory::lock_with(dir.path(), keys).unwrap();
    FixedStore::<u64, u64>::create_in(lock(&keys(1)), &options).unwrap().close().unwrap();
    let store = FixedStore::<u64, u64>::open_in(lock(&both()), &options).unwrap();
    for number in 0..1_000 {
        store.put(&number, &(number * number), Durability::Memory).unwrap();
    }
    store.raw().compact().unwrap();
    store.close().unwrap();
    // The image is under the new key, the header of the store under the old one.
    let one = |keys: &Keys| OnDisk::open_with(dir.path(), keys).err();
    assert!(matches!(one(&keys(1)), Some(Error::OtherKey { .. })));
    assert!(matches!(one(&keys(2)), Some(Error::OtherKey { .. })));
    let done = mainstay_store::rekey(dir.path(), &both(), |_, _| {}).unwrap();
    assert!(done.changed > 0 && done.unchanged > 0, "{done:?}");
    let store = FixedStore::<u64, u64>::open_in(lock(&keys(2)), &options).unwrap();
    assert_eq!(store.get(&31).unwrap(), Some(961));
}

#[test]
fn names_of_an_encrypted_folder_are_those_of_the_one_beneath() {
    let disk = Disk::new(7);
    let folder = Encrypted::new(disk.clone(), keys(1));
    let _empty = Folder::file(&folder, "notes").unwrap();
    assert_eq!(folder.names().unwrap(), disk.names());
    assert!(folder.mapped("notes").unwrap().is_none());
}
