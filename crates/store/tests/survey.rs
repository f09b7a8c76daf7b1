//! What is said of files without opening the store.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::fs;

use mainstay_sim::{Disk, Storage};
use mainstay_store::{
    Durability, Error, FileKind, FileReport, FixedStore, OnDisk, Options, RawStore, Survey,
    limits::SEGMENT_BYTES_MIN,
};

fn small() -> Options {
    Options { shards: 1, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

/// An image, a log behind it, and a leftover.
fn worked_on() -> Disk {
    let disk = Disk::new(1);
    let store = RawStore::create(disk.clone(), 4, 64, &small()).unwrap();
    let put = |number: u32, value: u8| {
        store.put(&number.to_be_bytes(), &[value; 64], Durability::Memory).unwrap();
    };
    (0..300).for_each(|number| put(number, 1));
    store.compact().unwrap();
    (200..500).for_each(|number| put(number, 2));
    store.close().unwrap();
    let unfinished = disk.file("shard-0000-00000000000000ff.image");
    unfinished.write_at(0, &[0; 100]).unwrap();
    unfinished.sync().unwrap();
    disk
}

fn survey(disk: &Disk) -> Survey {
    Survey::over(disk, |_, _| {}).unwrap()
}

#[test]
fn a_sound_store_is_said_to_be_sound_with_all_its_records() {
    let disk = worked_on();
    let mut told = Vec::new();
    let survey = Survey::over(&disk, |done, total| told.push((done, total))).unwrap();
    assert!(survey.is_sound() && survey.can_be_opened(), "{survey:?}");
    assert_eq!((survey.key_bytes, survey.value_bytes, survey.shards), (4, 64, 1));
    assert_eq!(survey.records, 500);
    let count = |kind| survey.files.iter().filter(|file| file.kind == kind).count();
    assert_eq!((count(FileKind::Store), count(FileKind::Image)), (1, 1));
    assert!(count(FileKind::Segment) >= 2);
    assert_eq!(count(FileKind::Leftover), 1);
    let image = survey.files.iter().find(|file| file.kind == FileKind::Image).unwrap();
    assert_eq!((image.records, image.parts, image.sequence), (300, 2, 300));
    let (done, total) = *told.last().unwrap();
    assert!(done == total && told.is_sorted());
}

#[test]
fn every_flipped_bit_is_found_and_whether_it_hurts_is_as_an_opening_says() {
    let disk = worked_on();
    let whole = survey(&disk);
    let (mut hurting, mut mended) = (0, 0);
    for file in &whole.files {
        // Headers densely, what follows in steps that meet every part of a frame.
        let places = (0..700).step_by(19).chain((4_096..file.bytes).step_by(131));
        for at in places.filter(|at| *at < file.bytes) {
            let copy = disk.crash_images(1).next().unwrap();
            let target = copy.file(&file.name);
            let mut byte = [0];
            target.read_at(at, &mut byte).unwrap();
            target.write_at(at, &[byte[0] ^ 1 << (at % 8)]).unwrap();
            let found = Survey::over(&copy, |_, _| {});
            let opened = RawStore::open(copy, &small());
            match (found, opened) {
                (Ok(found), Ok(_)) => {
                    assert!(found.can_be_opened(), "{} {at}: {found:?}", file.name);
                    mended += u32::from(!found.is_sound());
                }
                (Ok(found), Err(Error::Damaged { file: name, .. })) => {
                    let blamed = |file: &&FileReport| !file.damage.is_empty();
                    let damaged: Vec<_> = found.files.iter().filter(blamed).collect();
                    assert!(!found.can_be_opened(), "{} {at}: {found:?}", file.name);
                    assert!(damaged.iter().any(|file| file.name == name), "{name}: {damaged:?}");
                    hurting += 1;
                }
                (Err(_), Err(_)) => hurting += 1,
                (found, opened) => panic!("{} {at}: {found:?}, {:?}", file.name, opened.err()),
            }
        }
    }
    assert!(hurting > 100 && mended > 10, "{hurting} {mended}");
}

#[test]
fn a_survey_goes_on_behind_the_first_damage() {
    let disk = worked_on();
    let log = survey(&disk).files.into_iter().find(|file| file.kind == FileKind::Segment).unwrap();
    for at in [4_096 + 60, 4_096 + 1_000, 4_096 + 3_000] {
        disk.file(&log.name).write_at(at, b"?!").unwrap();
    }
    let found = survey(&disk);
    let report = found.files.iter().find(|file| file.name == log.name).unwrap();
    assert_eq!(report.damage.len(), 3, "{report:?}");
    assert!(report.parts + 3 >= log.parts && !found.can_be_opened());
}

#[test]
fn a_write_that_was_not_finished_is_no_damage() {
    let disk = Disk::new(2);
    let store = RawStore::create(disk.clone(), 4, 64, &small()).unwrap();
    let token = store.put(b"abcd", &[1; 64], Durability::Group).unwrap();
    drop(store);
    let name = disk.names().into_iter().find(|name| name.ends_with(".log")).unwrap();
    let end = 4_096 + (48 + 1 + 4 + 64_u64).next_multiple_of(8);
    disk.file(&name).write_at(end, b"MSLF and no more").unwrap();
    let found = survey(&disk);
    let report = found.files.iter().find(|file| file.name == name).unwrap();
    assert!(found.is_sound() && report.unfinished, "{report:?}");
    assert_eq!(report.sequence, token.sequence);
}

#[test]
fn looking_changes_nothing_and_several_may_while_nobody_writes() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(OnDisk::open(&dir.path().join("none")), Err(Error::NotAStore)));
    assert!(matches!(OnDisk::open(dir.path()), Err(Error::NotAStore)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default()).unwrap();
    for key in 0..1_000 {
        store.put(&key, &(key * 2), Durability::Memory).unwrap();
    }
    assert!(matches!(OnDisk::open(dir.path()), Err(Error::Locked)));
    assert!(matches!(Survey::of(dir.path(), |_, _| {}), Err(Error::Locked)));
    store.close().unwrap();
    let bytes = || {
        let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        files.sort();
        files
    };
    let before = bytes();
    let (one, other) = (OnDisk::open(dir.path()).unwrap(), OnDisk::open(dir.path()).unwrap());
    let locked = FixedStore::<u64, u64>::open(dir.path(), &Options::default());
    assert!(matches!(locked, Err(Error::Locked)));
    for view in [&one, &other] {
        let mut seen = 0;
        view.for_each(|key, value| {
            let key = u64::from_le_bytes(key.try_into().unwrap());
            assert_eq!(value, (key * 2).to_le_bytes());
            seen += 1;
        })
        .unwrap();
        assert_eq!((seen, view.shards().map(|shard| shard.records).sum::<u64>()), (1_000, 1_000));
        // The note at the end says that every write was durable.
        assert!(view.shards().all(|shard| shard.durable + 1 == shard.sequence));
        assert_eq!(view.get(&7_u64.to_le_bytes()).unwrap(), Some(14_u64.to_le_bytes().to_vec()));
        assert!(matches!(view.get(b"short"), Err(Error::OutOfLimits { .. })));
    }
    assert_eq!(bytes(), before);
    drop((one, other));
    // The same without the file of the lock, as on a medium that takes none.
    fs::remove_file(dir.path().join("lock")).unwrap();
    assert!(OnDisk::open(dir.path()).is_ok() && !dir.path().join("lock").exists());
}
