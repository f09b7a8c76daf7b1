//! Bits flipped all over the files of stores, and scrubbing beside writers.

use std::{
    cell::Cell,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use mainstay_base::Rng;
use mainstay_sim::Disk;

use super::*;
use crate::{
    Directory, Durability, LogOptions, Options, RawLogStore, RawStore,
    format::{COPY_AT, DATA_AT, HEADER_LEN},
    limits::SEGMENT_BYTES_MIN,
    planted::plant,
};

const FAST: ScrubOptions = ScrubOptions { bytes_per_second: 0, from: None };

fn any_options() -> LogOptions {
    LogOptions { segment_bytes: SEGMENT_BYTES_MIN, dead_percent: 40, ..LogOptions::default() }
}

fn fixed_options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

fn any_store() -> Disk {
    let disk = Disk::new(7);
    let store = RawLogStore::create(disk.clone(), &any_options()).unwrap();
    for number in 0..60_u8 {
        store.put(&[number % 20], &[number; 900], Durability::Memory).unwrap();
    }
    store.compact().unwrap();
    store.close().unwrap();
    disk
}

fn fixed_store() -> Disk {
    let disk = Disk::new(7);
    let store = RawStore::create(disk.clone(), 2, 100, &fixed_options()).unwrap();
    for number in 0..200_u8 {
        store.put(&[number, 1], &[number; 100], Durability::Memory).unwrap();
        if number == 120 {
            store.compact().unwrap();
        }
    }
    store.close().unwrap();
    disk
}

fn found(disk: &Disk) -> Vec<LogDamage> {
    scrub_over(|| Ok(disk.clone()), &FAST, |_, _| true).unwrap().damage
}

/// Flips bits of headers and of what is behind them, as far as it has something, one at a time. How
/// many there were, and which were not found.
fn flips(disk: &Disk) -> (u64, Vec<(String, u64)>) {
    let (mut rng, mut count, mut missed) = (Rng::seeded(1), 0, Vec::new());
    assert_eq!(found(disk), Vec::new());
    for name in Disk::names(disk) {
        let file = disk.file(&name);
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
        let parts =
            [(0, HEADER_LEN as u64), (COPY_AT, COPY_AT + HEADER_LEN as u64), (DATA_AT, end)];
        for (from, to) in parts.into_iter().filter(|(from, to)| from < to && *to <= end) {
            for _ in 0..12 {
                let at = from + rng.below(to - from);
                let byte = bytes[at as usize];
                file.write_at(at, &[byte ^ (1 << rng.below(8))]).unwrap();
                count += 1;
                let is_told = match scrub_over(|| Ok(disk.clone()), &FAST, |_, _| true) {
                    Ok(scrubbed) => scrubbed.damage.iter().any(|damage| damage.file == name),
                    Err(_) => true,
                };
                if !is_told {
                    missed.push((name.clone(), at));
                }
                file.write_at(at, &[byte]).unwrap();
            }
        }
    }
    (count, missed)
}

#[test]
fn v17_a_flipped_bit_of_a_header_a_log_an_image_a_list_or_a_hint_is_found() {
    for disk in [any_store(), fixed_store()] {
        let (count, missed) = flips(&disk);
        assert!(count > 200 && missed.is_empty(), "{count}: {missed:?}");
    }
    plant(Some(Fault::ScrubFramesOnly));
    let (_, missed) = flips(&any_store());
    plant(None);
    assert!(!missed.is_empty(), "the fault is not found");
}

#[test]
fn v17_what_is_half_written_at_a_first_look_is_no_damage() {
    let (whole, torn) = (any_store(), any_store());
    let name = Disk::names(&torn).into_iter().find(|name| name.ends_with(".log")).unwrap();
    torn.file(&name).write_at(DATA_AT + 100, b"???").unwrap();
    // Every other time it is opened it is torn, from the first or from the second on.
    let looks = |odd: u64| {
        let opened = Cell::new(odd);
        let open = || {
            opened.set(opened.get() + 1);
            Ok(if opened.get().is_multiple_of(2) { torn.clone() } else { whole.clone() })
        };
        scrub_over(open, &FAST, |_, _| true).unwrap().damage
    };
    assert_eq!((looks(0), looks(1)), (Vec::new(), Vec::new()));
    plant(Some(Fault::ScrubOnce));
    let told = [looks(0), looks(1)];
    plant(None);
    assert!(told.iter().any(|told| !told.is_empty()), "the fault is not found");
    assert!(!found(&torn).is_empty());
}

/// Scrubs a directory again and again while somebody writes.
fn beside(path: &Path, is_done: &AtomicBool) -> u64 {
    let (mut rounds, until) = (0, Instant::now() + Duration::from_secs(2));
    let mut wrong = None;
    while wrong.is_none() && Instant::now() < until {
        match scrub(path, &FAST, |_, _| true) {
            Ok(scrubbed) if scrubbed.damage.is_empty() => rounds += 1,
            other => wrong = Some(other),
        }
    }
    is_done.store(true, Relaxed);
    assert!(wrong.is_none(), "{wrong:?}");
    rounds
}

#[test]
fn v17_beside_a_writer_nothing_sound_is_told_to_be_damaged() {
    let (dir, is_done) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let any = dir.path().join("any");
    let store = RawLogStore::create(Directory::lock(&any).unwrap(), &any_options()).unwrap();
    thread::scope(|scope| {
        let scrubbing = scope.spawn(|| beside(&any, &is_done));
        let mut number = 0_u64;
        while !is_done.load(Relaxed) {
            number += 1;
            let how =
                if number.is_multiple_of(50) { Durability::Group } else { Durability::Memory };
            store.put(&[number as u8 % 30], &[number as u8; 700], how).unwrap();
            if number.is_multiple_of(200) {
                store.compact().unwrap();
            }
        }
        assert!(scrubbing.join().unwrap() > 3);
    });
    let fixed = dir.path().join("fixed");
    is_done.store(false, Relaxed);
    let folder = Directory::lock(&fixed).unwrap();
    let store = RawStore::create(folder, 2, 100, &fixed_options()).unwrap();
    thread::scope(|scope| {
        let scrubbing = scope.spawn(|| beside(&fixed, &is_done));
        let mut number = 0_u64;
        while !is_done.load(Relaxed) {
            number += 1;
            let how =
                if number.is_multiple_of(50) { Durability::Group } else { Durability::Memory };
            store.put(&[number as u8, 0], &[number as u8; 100], how).unwrap();
            if number.is_multiple_of(2_000) {
                store.compact().unwrap();
            }
        }
        assert!(scrubbing.join().unwrap() > 3);
    });
}

#[test]
fn it_takes_as_long_as_the_budget_says() {
    let disk = any_store();
    let bytes = scrub_over(|| Ok(disk.clone()), &FAST, |_, _| true).unwrap().bytes;
    let slow = ScrubOptions { bytes_per_second: bytes * 4, from: None };
    let begin = Instant::now();
    let scrubbed = scrub_over(|| Ok(disk.clone()), &slow, |_, _| true).unwrap();
    assert_eq!(scrubbed.bytes, bytes);
    assert!(begin.elapsed() > Duration::from_millis(100), "{:?}", begin.elapsed());
}

/// What a store has whose writer was killed amid a write: the segment in use has half a frame, and the
/// next one is there already, blank.
fn half_written(disk: &Disk, spare: impl Fn(&str) -> Option<String>) -> (String, String) {
    let names = Disk::names(disk);
    let live = names.iter().rfind(|name| name.ends_with(".log")).unwrap().clone();
    let next = spare(&live).unwrap();
    let file = disk.file(&live);
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    file.set_len(last as u64 - 3).unwrap();
    disk.file(&next).set_len(SEGMENT_BYTES_MIN).unwrap();
    (live, next)
}

#[test]
fn v17_half_a_frame_is_no_damage_where_the_next_segment_is_made_and_not_begun() {
    let disk = Disk::new(7);
    let store = RawLogStore::create(disk.clone(), &any_options()).unwrap();
    for n in 0..4 {
        store.put(&[n], &[n; 900], Durability::Memory).unwrap();
    }
    drop(store);
    let (live, next) = half_written(&disk, |live| {
        let (shard, number, kind) = any_parts(live)?;
        Some(kind.name(shard, number + 1))
    });
    assert_eq!(found(&disk), Vec::new());
    // Once it is begun, the one before it was synced.
    let mut header = vec![0; DATA_AT as usize];
    disk.file(&live).read_at(0, &mut header).unwrap();
    disk.file(&next).write_at(0, &header).unwrap();
    assert!(found(&disk).iter().any(|damage| damage.file == live));

    let disk = Disk::new(7);
    let store = RawStore::create(disk.clone(), 2, 100, &fixed_options()).unwrap();
    for n in 0..9 {
        store.put(&[n, 1], &[n; 100], Durability::Memory).unwrap();
    }
    drop(store);
    let (live, next) = half_written(&disk, |live| {
        let (shard, number, _) = crate::format::parse_name(live)?;
        Some(crate::format::segment_name(shard, number + 1))
    });
    assert_eq!(found(&disk), Vec::new());
    disk.file(&live).read_at(0, &mut header).unwrap();
    disk.file(&next).write_at(0, &header).unwrap();
    assert!(found(&disk).iter().any(|damage| damage.file == live));
}

/// A folder whose files end, as often as is said, before they are read.
struct Shrinking<'a>(Disk, &'a AtomicU64);

struct ShrinkingFile<'a>(<Disk as Folder>::File, &'a AtomicU64);

impl<'a> Folder for Shrinking<'a> {
    type File = ShrinkingFile<'a>;

    fn file(&self, name: &str) -> io::Result<Self::File> {
        Ok(ShrinkingFile(Folder::file(&self.0, name)?, self.1))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Folder::names(&self.0)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Folder::remove(&self.0, name)
    }

    fn sync_names(&self) -> io::Result<()> {
        Folder::sync_names(&self.0)
    }
}

impl Storage for ShrinkingFile<'_> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        match self.1.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Err(ErrorKind::UnexpectedEof.into()),
            Err(_) => self.0.read_at(offset, bytes),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

#[test]
fn v17_a_file_that_is_made_shorter_while_it_is_read_is_read_again() {
    for disk in [any_store(), fixed_store()] {
        let shorter = AtomicU64::new(5);
        let open = || Ok(Shrinking(disk.clone(), &shorter));
        assert_eq!(scrub_over(open, &FAST, |_, _| true).unwrap().damage, Vec::new());
        assert_eq!(shorter.load(Relaxed), 0);
        // One that never can be read is an error, and no loop.
        shorter.store(u64::MAX, Relaxed);
        assert!(matches!(scrub_over(open, &FAST, |_, _| true), Err(Error::Io { .. })));
    }
}

#[test]
fn what_is_behind_all_files_is_no_place_to_begin_at() {
    let disk = any_store();
    let last = Disk::names(&disk).into_iter().max().unwrap();
    let from = |name: String| {
        let options = ScrubOptions { from: Some(name), ..FAST };
        scrub_over(|| Ok(disk.clone()), &options, |_, _| true)
    };
    assert_eq!(from(last.clone()).unwrap().files, 1);
    assert!(matches!(from(last + "~"), Err(Error::NoSuchFile { .. })));
}

#[test]
fn it_can_be_stopped_within_a_file_and_goes_on_with_it() {
    for disk in [any_store(), fixed_store()] {
        let scrub = |options: &ScrubOptions, told: &mut (dyn FnMut(u64) -> bool + Send)| {
            scrub_over(|| Ok(disk.clone()), options, |behind, _| told(behind)).unwrap()
        };
        let mut begun = vec![0];
        for name in Disk::names(&disk).into_iter().filter(|name| !name.ends_with(".live")) {
            begun.push(begun.last().unwrap() + disk.file(&name).len().unwrap());
        }
        let mut heard = Vec::new();
        let whole = scrub(&FAST, &mut |behind| {
            heard.push(behind);
            true
        });
        assert!(heard.is_sorted() && heard.last() <= begun.last());
        let within: Vec<_> = heard.into_iter().filter(|behind| !begun.contains(behind)).collect();
        assert!(within.len() > 20, "{}", within.len());
        for stop in within {
            let stopped = scrub(&FAST, &mut |behind| behind < stop);
            assert!(stopped.damage.is_empty() && stopped.files < whole.files);
            let from = ScrubOptions { from: stopped.next.clone(), ..FAST };
            let rest = scrub(&from, &mut |_| true);
            assert_eq!(stopped.files + rest.files, whole.files, "{:?}", stopped.next);
        }
        // Also while it waits, and of what it has not read yet nothing is told.
        let slow = ScrubOptions { bytes_per_second: 100, from: None };
        let (begin, mut calls) = (Instant::now(), 0);
        let stopped = scrub(&slow, &mut |_| {
            calls += 1;
            calls < 4
        });
        assert!(stopped.next.is_some() && begin.elapsed() < Duration::from_secs(5));
    }
}
