//! Hints that the disk cannot read.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use mainstay_sim::{Disk, DiskFaults, DiskFile};
use mainstay_storage::{Folder, Storage};

use super::*;
use crate::{
    Durability, LogOptions, LogSurvey, RawLogStore, ScrubOptions,
    any::{LogDamage, LogSalvaged},
    format::{COPY_AT, HEADER_LEN},
    keyed::Ring,
    limits::SEGMENT_BYTES_MIN,
    planted::plant,
    scrub::scrub_over,
    store::IDLE_LOOKS,
};

/// A disk that reads of hints up to one call, and from then on answers EIO for as long as it is told.
#[derive(Clone)]
struct Dying {
    disk: Disk,
    /// Calls on hints that are left.
    left: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

struct DyingFile {
    file: DiskFile,
    of: Option<Dying>,
}

impl Dying {
    fn after(disk: &Disk, calls: u64) -> Self {
        let (left, refused) = (Arc::new(AtomicU64::new(calls)), Arc::default());
        Self { disk: disk.clone(), left, refused }
    }

    fn call(&self) -> io::Result<()> {
        if self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Ok(());
        }
        self.refused.fetch_add(1, Relaxed);
        // The error of the simulated disk, for this call alone.
        self.disk.set_faults(DiskFaults { read_error_ppm: 1_000_000, ..DiskFaults::NONE });
        let refused = self.disk.file("any").read_at(0, &mut [0]);
        self.disk.set_faults(DiskFaults::NONE);
        refused
    }
}

impl Folder for Dying {
    type File = DyingFile;

    fn file(&self, name: &str) -> io::Result<DyingFile> {
        let of = name.ends_with(".hint").then(|| self.clone());
        of.as_ref().map_or(Ok(()), Self::call)?;
        Ok(DyingFile { file: self.disk.file(name), of })
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Folder::names(&self.disk)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Folder::remove(&self.disk, name)
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for DyingFile {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.of.as_ref().map_or(Ok(()), Dying::call)?;
        self.file.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.of.as_ref().map_or(Ok(()), Dying::call)?;
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

fn options() -> LogOptions {
    LogOptions { shards: 2, threads: 1, segment_bytes: SEGMENT_BYTES_MIN, ..LogOptions::default() }
}

const RECORDS: u8 = 60;

/// A closed store with some hints.
fn closed(ring: Ring<'_>) -> (Disk, u64) {
    let disk = Disk::new(7);
    let store = RawLogStore::create(ring.over(disk.clone()), &options()).unwrap();
    for number in 0..RECORDS {
        store.put(&[number], &[number; 900], Durability::Memory).unwrap();
    }
    store.delete(&[0], Durability::Memory).unwrap();
    store.close().unwrap();
    let hints = Disk::names(&disk).iter().filter(|name| name.ends_with(".hint")).count() as u64;
    assert!(hints > 4);
    (disk, hints)
}

fn check<F: Folder>(store: &RawLogStore<F>) {
    assert_eq!(store.get(&[0]).unwrap(), None);
    for number in 1..RECORDS {
        assert_eq!(store.get(&[number]).unwrap().as_deref(), Some(&[number; 900][..]));
    }
}

fn unread<F: Folder>(store: &RawLogStore<F>) -> u64 {
    store.stats().iter().map(|shard| shard.unread_hints).sum()
}

fn told(damage: &[LogDamage]) -> u64 {
    let unread = |place: &&LogDamage| place.what == UNREAD_HINT && place.has_copy;
    let count = damage.iter().filter(unread).count();
    assert_eq!(count, damage.len(), "{damage:?}");
    count as u64
}

/// Reads a store in each way while its hints cannot be read from some call on. How many calls were
/// refused.
fn read_without_hints(ring: Ring<'_>, calls: u64) -> Result<u64> {
    let (disk, hints) = closed(ring);
    let mut refused = 0;
    let dying = |disk: &Disk| Dying::after(disk, calls);

    // Who only looks: what is told is what could not be read.
    let folder = dying(&disk);
    let survey = LogSurvey::over(&ring.over(folder.clone()), |_, _| {})?;
    assert_eq!(survey.records, u64::from(RECORDS) - 1);
    let in_survey = told(&survey.damage);
    assert_eq!(in_survey > 0, folder.refused.load(Relaxed) > 0);
    refused += folder.refused.load(Relaxed);

    let fast = ScrubOptions { bytes_per_second: 0, from: None };
    let folder = dying(&disk);
    let scrubbed = scrub_over(|| Ok(ring.over(folder.clone())), &fast, |_, _| true)?;
    assert!(told(&scrubbed.damage) <= hints);
    assert!(calls > 0 || told(&scrubbed.damage) == hints);

    let folder = dying(&disk);
    let header = any_header(&ring.over(folder.clone()))?;
    let mut seen = 0;
    for shard in 0..2 {
        let how = How::View;
        let found = load(&ring.over(folder.clone()), &header, shard, how, &mut |_| {})?;
        seen += found.unread_hints.len();
    }
    assert_eq!(seen > 0, folder.refused.load(Relaxed) > 0);

    let folder = dying(&disk);
    let to = Disk::new(1);
    let (saved, found): (_, LogSalvaged) =
        RawLogStore::salvage(&ring.over(folder), to, &options(), |_, _| {})?;
    assert!(found.is_whole() && found.doubtful == 0);
    check(&saved);

    // Who writes: then all hints are sound again.
    let folder = dying(&disk);
    let store = RawLogStore::open(ring.over(folder.clone()), &options())?;
    check(&store);
    let count = unread(&store);
    assert_eq!(count > 0, folder.refused.load(Relaxed) > 0);
    assert!(count <= hints && (calls > 0 || count == hints));
    folder.left.store(u64::MAX, Relaxed);
    store.upkeep()?;
    store.close()?;
    assert_eq!(LogSurvey::over(&ring.over(disk.clone()), |_, _| {})?.damage, []);
    let store = RawLogStore::open(ring.over(disk), &options())?;
    check(&store);
    assert_eq!(unread(&store), 0);
    Ok(refused)
}

#[test]
fn v18_a_hint_that_the_disk_cannot_read_is_as_good_as_none_and_is_told() {
    for calls in 0.. {
        if read_without_hints(Ring::NONE, calls).unwrap() == 0 {
            assert!(calls > 30, "{calls}");
            break;
        }
    }
}

#[cfg(feature = "encryption")]
#[test]
fn v18_the_same_of_hints_that_are_encrypted() {
    let keys = crate::Keys::new(crate::Key::new(&[7; 32]));
    for calls in (0..).step_by(7) {
        if read_without_hints(Ring::of(&keys), calls).unwrap() == 0 {
            assert!(calls > 30, "{calls}");
            break;
        }
    }
}

#[test]
fn v18_a_hint_that_is_needed_is_found() {
    plant(Some(Fault::HintNeeded));
    let found = read_without_hints(Ring::NONE, 0);
    plant(None);
    assert!(matches!(found, Err(Error::Io { .. })), "{:?}", found.err());
}

/// Changes each byte in turn of what the header of a hint says, with the right checksum. Which of these
/// are not told.
fn untold(disk: &Disk) -> Vec<(String, usize)> {
    let mut untold = Vec::new();
    for name in Disk::names(disk).into_iter().filter(|name| name.ends_with(".hint")) {
        let file = disk.file(&name);
        let mut before = [0; HEADER_LEN];
        file.read_at(0, &mut before).unwrap();
        for at in 32..HEADER_LEN - 4 {
            let mut after = before;
            after[at] ^= 1;
            let sum = mainstay_base::crc32c(&after[..HEADER_LEN - 4]).to_le_bytes();
            after[HEADER_LEN - 4..].copy_from_slice(&sum);
            for copy in [0, COPY_AT] {
                file.write_at(copy, &after).unwrap();
            }
            if LogSurvey::over(disk, |_, _| {}).unwrap().damage.is_empty() {
                untold.push((name.clone(), at));
            }
            for copy in [0, COPY_AT] {
                file.write_at(copy, &before).unwrap();
            }
        }
    }
    untold
}

#[test]
fn v20_a_hint_whose_header_says_something_else_than_its_segment_is_told() {
    let (disk, _) = closed(Ring::NONE);
    assert_eq!(untold(&disk), []);
    assert_eq!(LogSurvey::over(&disk, |_, _| {}).unwrap().damage, []);
    plant(Some(Fault::HintHeaderIgnored));
    let found = untold(&disk);
    plant(None);
    assert!(!found.is_empty());
}

/// What an opening says of a store of six records that its process left alone, and was killed; the
/// value of the last one is lost. For some time there was no room on its disk.
fn left_alone() -> Result<Option<Arc<[u8]>>> {
    let disk = Disk::new(7);
    let options = LogOptions { shards: 1, ..options() };
    let store = RawLogStore::create(disk.clone(), &options)?;
    for number in 0..6 {
        store.put(&[number], &[number + 1; 100], Durability::Each)?;
    }
    let file = |name: &String| disk.file(name).len().map_err(Error::io(&**name));
    let bytes = disk.names().iter().map(file).sum::<Result<u64>>()?;
    for bytes_max in [bytes, u64::MAX] {
        disk.set_faults(DiskFaults { bytes_max, ..DiskFaults::NONE });
        for _ in 0..2 * IDLE_LOOKS {
            store.tend()?;
        }
    }
    drop(store);
    let name = Kind::Log.name(0, 1);
    let file = Folder::file(&disk, &name).map_err(Error::io(&*name))?;
    let mut bytes = vec![0; Storage::len(&file).map_err(Error::io(&*name))? as usize];
    file.read_at(0, &mut bytes).map_err(Error::io(&*name))?;
    let last = bytes.windows(100).position(|value| value == [6; 100]);
    let at = last.ok_or(Error::Damaged { file: name, offset: 0, what: "the value is missing" })?;
    // Nothing is there but zeros, as of a write that is not finished.
    file.write_at(at as u64, &[0; 100]).map_err(Error::io("the log"))?;
    RawLogStore::open(disk, &options)?.get(&[5])
}

#[test]
fn v1_the_last_write_of_a_store_that_was_idle_is_missed_if_it_is_damaged() {
    assert!(matches!(left_alone(), Err(Error::Damaged { .. })));
    plant(Some(Fault::EndUnmarked));
    let untold = left_alone();
    plant(None);
    assert!(matches!(untold, Ok(None)), "the planted fault was not found");
}

/// What an opening says of each disk that a power cut leaves, where a write took the place of another one
/// of which only a part came to be, or was left.
fn over_remains(seed: u64, before: impl Fn(&Disk, &LogOptions) -> Option<()>) -> Result<u64> {
    let (disk, options) = (Disk::new(seed), LogOptions { shards: 1, ..options() });
    let Some(()) = before(&disk, &options) else { return Ok(0) };
    let mut count = 0;
    for image in disk.crash_images(60) {
        image.set_faults(DiskFaults::NONE);
        RawLogStore::open(image, &options)?;
        count += 1;
    }
    Ok(count)
}

/// The disk was full, so that a part of a write was there, and then it had room for another one.
fn after_a_refusal(disk: &Disk, options: &LogOptions) -> Option<()> {
    let store = RawLogStore::create(disk.clone(), options).ok()?;
    store.put(b"a", &[1; 900], Durability::Each).ok()?;
    let bytes = disk.names().iter().map(|name| disk.file(name).len().unwrap_or(0)).sum::<u64>();
    disk.set_faults(DiskFaults { bytes_max: bytes + 2_500, ..DiskFaults::NONE });
    store.put(b"b", &[0xbb; 3_000], Durability::Memory).err()?;
    disk.set_faults(DiskFaults::NONE);
    store.put(b"c", &[0xcc; 600], Durability::Memory).ok().map(drop)
}

/// The same on one that then does not even take zeros in the place of what is there.
fn after_a_refusal_of_all(disk: &Disk, options: &LogOptions) -> Option<()> {
    let store = RawLogStore::create(disk.clone(), options).ok()?;
    store.put(b"a", &[1; 900], Durability::Each).ok()?;
    disk.set_faults(DiskFaults { no_space_ppm: 1_000_000, ..DiskFaults::NONE });
    store.put(b"b", &[0xbb; 3_000], Durability::Memory).err()?;
    disk.set_faults(DiskFaults::NONE);
    store.put(b"c", &[0xcc; 600], Durability::Memory).ok().map(drop)
}

/// A power cut left a part of a write, and the first opening could not sync.
fn after_a_failed_opening(disk: &Disk, options: &LogOptions) -> Option<()> {
    let store = RawLogStore::create(disk.clone(), options).ok()?;
    store.put(b"a", &[1; 900], Durability::Each).ok()?;
    store.put(b"b", &[0xbb; 1_200], Durability::Memory).ok()?;
    drop(store);
    disk.power_cut();
    // It syncs other files before.
    disk.set_faults(DiskFaults { sync_error_ppm: 400_000, ..DiskFaults::NONE });
    RawLogStore::open(disk.clone(), options).err()?;
    disk.set_faults(DiskFaults::NONE);
    let store = RawLogStore::open(disk.clone(), options).ok()?;
    store.put(b"c", &[0xcc; 600], Durability::Memory).ok().map(drop)
}

#[test]
fn v1_of_two_writes_that_took_the_same_place_no_power_cut_leaves_a_mixture() {
    let all = |seeds: u64, before: fn(&Disk, &LogOptions) -> Option<()>| -> Result<u64> {
        (0..seeds).map(|seed| over_remains(seed, before)).sum()
    };
    for before in [after_a_refusal, after_a_refusal_of_all, after_a_failed_opening] {
        let count = all(300, before);
        assert!(matches!(count, Ok(1_000..)), "{count:?}");
        plant(Some(Fault::RemainsLeft));
        let found = all(3_000, before);
        plant(None);
        assert!(matches!(found, Err(Error::Damaged { .. })), "the fault is not found: {found:?}");
    }
}
