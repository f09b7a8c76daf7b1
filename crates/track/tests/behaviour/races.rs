//! T1 under fire: writers that never wait for a flush.

use crate::{blocks, options};
use mainstay_track::{Tracker, TrackerOptions};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::{Duration, Instant},
};

/// How many writes each of the two writers makes to pages.
const WRITES: u64 = 5_000_000;
/// Blocks of each writer: how many writes may be unacknowledged at a time.
const BLOCKS: usize = 8_192;

/// Each writer writes a number to one of its blocks only after the number written there before was
/// noticed: so each single write has to be noticed, or the writer gets stuck, which is told.
fn every_write_is_noticed(tracker: &Tracker, writes: u64) {
    let pool = tracker.pool();
    let owned = [blocks(pool, BLOCKS), blocks(pool, BLOCKS)];
    let numbers = owned.iter().flatten().map(|block| block.number() as usize);
    let noticed: Vec<AtomicU64> = (0..=numbers.max().unwrap()).map(|_| AtomicU64::new(0)).collect();
    let by_number: Vec<Option<&mainstay_pool::Block>> = {
        let mut by_number = vec![None; noticed.len()];
        owned.iter().flatten().for_each(|block| by_number[block.number() as usize] = Some(block));
        by_number
    };
    let stop = AtomicBool::new(false);
    let limit = Duration::from_secs(240);
    let (written, flushes) = std::thread::scope(|scope| {
        let flusher = scope.spawn(|| {
            let mut flushes = 0_u64;
            loop {
                let last = stop.load(SeqCst);
                let flush = tracker.flush().unwrap();
                flushes += 1;
                for change in &flush.changes {
                    let number = change.id.number as usize;
                    let mut value = [0; 8];
                    by_number[number].unwrap().read(0, &mut value).unwrap();
                    noticed[number].store(u64::from_le_bytes(value), SeqCst);
                }
                if last {
                    return flushes;
                }
            }
        });
        let writers = owned.each_ref().map(|owned| {
            let noticed = &noticed;
            scope.spawn(move || {
                let start = Instant::now();
                let mut round = 0;
                let mut written = 0;
                while written < writes {
                    round += 1_u64;
                    for block in owned {
                        let noticed = &noticed[block.number() as usize];
                        while noticed.load(SeqCst) + 1 < round {
                            assert!(start.elapsed() < limit, "a write was missed");
                            std::thread::yield_now();
                        }
                        block.write(0, &round.to_le_bytes()).unwrap();
                        written += 1;
                    }
                }
                (written, round)
            })
        });
        let written = writers.map(|writer| writer.join());
        stop.store(true, SeqCst);
        (written.map(Result::unwrap), flusher.join().unwrap())
    });
    for (owned, (_, round)) in owned.iter().zip(written) {
        for block in owned {
            let seen = noticed[block.number() as usize].load(SeqCst);
            assert_eq!(seen, round, "the last write to block {}", block.number());
        }
    }
    let total: u64 = written.iter().map(|(written, _)| written).sum();
    println!("{total} writes, none missed, {flushes} flushes, by {:?}", tracker.method());
}

#[test]
fn t1_of_ten_million_writes_beside_a_flusher_none_is_missed() {
    let pool = options(64).create_memfd().unwrap();
    every_write_is_noticed(&Tracker::new(&pool).unwrap(), WRITES);
}

#[test]
fn t1_writes_to_a_file_beside_a_flusher_are_not_missed() {
    let folder = tempfile::tempdir().unwrap();
    let pool = options(64).create(folder.path().join("test.pool")).unwrap();
    every_write_is_noticed(&Tracker::new(&pool).unwrap(), WRITES / 20);
}

#[test]
fn t1_writes_beside_a_flusher_that_compares_are_not_missed() {
    let pool = options(64).create_memfd().unwrap();
    let tracker = TrackerOptions::default().compare().track(&pool).unwrap();
    every_write_is_noticed(&tracker, WRITES / 20);
}
