//! Bits flipped all over the files of stores, and scrubbing beside writers.

use std::{
    cell::Cell,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
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
