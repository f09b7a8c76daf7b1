//! Headers whose checksums are right and whose numbers cannot be: found by fuzzing, refused before
//! anything is reserved for them.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use mainstay_base::crc32c;
use mainstay_sim::{Disk, Storage};
use mainstay_store::{
    Directory, Durability, Error, LogOnDisk, LogOptions, LogSurvey, Options, RawLogStore, RawStore,
    Survey,
};

const HEADER: usize = 128;

/// A closed store with an image.
fn store() -> Disk {
    let disk = Disk::new(1);
    let options = Options { shards: 1, segment_bytes: 16 << 10, ..Options::default() };
    let store = RawStore::create(disk.clone(), 2, 3, &options).unwrap();
    store.put(b"de", b"049", Durability::Memory).unwrap();
    store.compact().unwrap();
    store.close().unwrap();
    disk
}

/// Puts numbers into both copies of a header, and makes their checksums right.
fn change(disk: &Disk, ending: &str, numbers: &[(usize, u64)]) {
    let name = disk.names().into_iter().find(|name| name.ends_with(ending)).unwrap();
    let file = disk.file(&name);
    let mut header = [0; HEADER];
    file.read_at(0, &mut header).unwrap();
    for (at, number) in numbers {
        header[*at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    let sum = crc32c(&header[..HEADER - 4]);
    header[HEADER - 4..].copy_from_slice(&sum.to_le_bytes());
    for at in [0, 512] {
        file.write_at(at, &header).unwrap();
    }
}

#[test]
fn numbers_that_cannot_be_are_refused_though_their_checksum_is_right() {
    // Offsets as in docs/format/store.md.
    let cases: &[(&str, &[(usize, u64)])] = &[
        (".image", &[(72, 1 << 40)]),
        (".image", &[(72, 1 << 30), (80, 1 << 40)]),
        (".image", &[(56, u64::MAX), (64, u64::MAX)]),
        (".image", &[(56, 9), (64, 8)]),
        (".log", &[(56, 0)]),
        (".log", &[(56, u64::MAX)]),
        (".log", &[(64, 1 << 30)]),
        ("store", &[(48, 1 << 30)]),
        ("store", &[(64, u64::MAX - 1)]),
    ];
    for (ending, numbers) in cases {
        let disk = store();
        change(&disk, ending, numbers);
        match Survey::over(&disk, |_, _| {}) {
            Ok(survey) => assert!(!survey.can_be_opened(), "{ending} {numbers:?}"),
            Err(error) => assert!(matches!(error, Error::Damaged { .. }), "{error}"),
        }
        let opened = RawStore::open(disk, &Options::default()).map(drop);
        assert!(matches!(opened, Err(Error::Damaged { .. })), "{ending} {numbers:?} {opened:?}");
    }
}

#[test]
fn numbers_at_their_limits_are_taken() {
    let disk = store();
    change(&disk, "store", &[(64, (1 << 62) - 1)]);
    let store = RawStore::open(disk, &Options::default()).unwrap();
    assert_eq!(store.get(b"de").unwrap(), Some(b"049".to_vec()));
}

#[test]
fn a_frame_with_a_right_checksum_that_is_not_made_of_changes_is_found_once() {
    let disk = store();
    let name = disk.names().into_iter().find(|name| name.ends_with(".log")).unwrap();
    let file = disk.file(&name);
    let mut frame = [0; 56];
    file.read_at(4096, &mut frame).unwrap();
    frame[12..16].copy_from_slice(&99_u32.to_le_bytes());
    let sum = crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&sum.to_le_bytes());
    file.write_at(4096, &frame).unwrap();
    let survey = Survey::over(&disk, |_, _| {}).unwrap();
    let damage: usize = survey.files.iter().map(|file| file.damage.len()).sum();
    assert!((1..=2).contains(&damage), "{survey:?}");
}

#[test]
fn a_log_that_says_it_is_huge_takes_no_memory_and_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let folder = Directory::lock(dir.path()).unwrap();
        RawLogStore::open(folder, &LogOptions::default())
    };
    let folder = Directory::lock(dir.path()).unwrap();
    let store = RawLogStore::create(folder, &LogOptions::default()).unwrap();
    store.put(b"a", b"1", Durability::Each).unwrap();
    drop(store);
    let logs = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let log = logs.into_iter().find(|path| path.extension().is_some_and(|it| it == "log")).unwrap();
    let file = std::fs::File::options().write(true).open(log).unwrap();
    let len = file.metadata().unwrap().len();
    // More than this machine has memory; none of it is on the disk.
    file.set_len(1 << 42).unwrap();
    assert!(matches!(open(), Err(Error::Damaged { .. })));
    assert!(!LogSurvey::of(dir.path(), |_, _| {}).unwrap().damage.is_empty());
    assert!(matches!(LogOnDisk::open(dir.path()), Err(Error::Damaged { .. })));
    file.set_len(len).unwrap();
    assert_eq!(open().unwrap().get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
}
