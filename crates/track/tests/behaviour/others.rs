//! T1 for other processes and other mappings: L1, L2.

use crate::{ids, options, other::Other};
use mainstay_pool::{Error as PoolError, Kind, Pool};
use mainstay_track::{Error, Method, Tracker, TrackerOptions, Watched};
use std::{path::PathBuf, time::Duration};

fn shared() -> (tempfile::TempDir, PathBuf, Pool) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.pool");
    let pool = options(64).create(&file).unwrap();
    (folder, file, pool)
}

#[test]
fn l1_writes_of_a_process_that_nobody_watches_are_found_also_its_last_ones() {
    let (_folder, file, pool) = shared();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let tracker = Tracker::new(&pool).unwrap();
    tracker.flush().unwrap();
    let mut other = Other::start(&file);
    for value in 1..5 {
        other.ask(&format!("write {} {value}", block.number()));
        let flush = tracker.flush().unwrap();
        assert_eq!(ids(&flush), [block.id()]);
        assert!(flush.compared);
    }
    other.ask(&format!("write {} 7", block.number()));
    other.kill();
    assert_eq!(ids(&tracker.flush().unwrap()), [block.id()], "it died after its last write");
    assert!(tracker.flush().unwrap().changes.is_empty());
    // It came, wrote, and was gone between two flushes.
    let mut short = Other::start(&file);
    short.ask(&format!("write {} 8", block.number()));
    short.kill();
    pool.reap().unwrap();
    assert_eq!(ids(&tracker.flush().unwrap()), [block.id()]);
    assert_eq!(tracker.flush().unwrap().compared, tracker.method() == Method::Compare);
}

#[test]
fn l1_writes_of_a_watched_process_are_found_without_comparing() {
    let (_folder, file, pool) = shared();
    let blocks = crate::blocks(&pool, 200);
    let tracker = Tracker::new(&pool).unwrap();
    if tracker.method() != Method::Pages {
        println!("skipped: {}", tracker.refusal().unwrap());
        return;
    }
    tracker.flush().unwrap();
    let mut other = Other::start(&file);
    other.ask("watch");
    assert!(tracker.flush().unwrap().compared, "what it wrote before is not known");
    for (value, block) in blocks.iter().enumerate().step_by(37) {
        other.ask(&format!("write {} {}", block.number(), value + 1));
        let flush = tracker.flush().unwrap();
        assert_eq!(ids(&flush), [block.id()]);
        assert!(!flush.compared && flush.examined <= 64, "only the page: {}", flush.examined);
    }
    // Its new blocks and those it frees are seen, and its death.
    let id = other.ask("allocate");
    let flush = tracker.flush().unwrap();
    assert!(flush.changes.iter().any(|change| change.id.to_string() == id));
    other.ask(&format!("write {} 99", blocks[0].number()));
    other.kill();
    let flush = tracker.flush().unwrap();
    assert!(ids(&flush).contains(&blocks[0].id()) && flush.compared);
    // One that watches no longer is compared with.
    let mut other = Other::start(&file);
    other.ask("watch");
    tracker.flush().unwrap();
    other.ask(&format!("write {} 5", blocks[7].number()));
    other.ask("unwatch");
    other.ask(&format!("write {} 5", blocks[9].number()));
    let mut expected = [blocks[7].id(), blocks[9].id()];
    expected.sort();
    assert_eq!(ids(&tracker.flush().unwrap()), expected);
}

#[test]
fn l2_two_trackers_in_two_processes_both_find_what_a_third_writes() {
    let (_folder, file, pool) = shared();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let tracker = Tracker::new(&pool).unwrap();
    let (mut second, mut third) = (Other::start(&file), Other::start(&file));
    second.ask("track");
    third.ask("watch");
    tracker.flush().unwrap();
    second.ask("flush");
    for value in 1..20 {
        third.ask(&format!("write {} {value}", block.number()));
        if value % 2 == 0 {
            assert_eq!(ids(&tracker.flush().unwrap()), [block.id()]);
            assert!(second.ask("flush").ends_with(&format!(" {}", block.number())));
        } else {
            assert!(second.ask("flush").ends_with(&format!(" {}", block.number())));
            assert_eq!(ids(&tracker.flush().unwrap()), [block.id()]);
        }
    }
    // And what we write, although we take our bits ourselves.
    block.write(0, b"ours").unwrap();
    tracker.flush().unwrap();
    assert!(second.ask("flush").ends_with(&format!(" {}", block.number())));
}

#[test]
fn l1_writes_through_a_second_mapping_of_this_process_are_found() {
    let (_folder, file, pool) = shared();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let tracker = Tracker::new(&pool).unwrap();
    tracker.flush().unwrap();
    let second = Pool::join_any(&file).unwrap();
    let same = second.attach(block.id()).unwrap();
    same.write(0, b"one").unwrap();
    assert_eq!(ids(&tracker.flush().unwrap()), [block.id()]);
    let watched = Watched::new(&second);
    tracker.flush().unwrap();
    same.write(0, b"two").unwrap();
    let flush = tracker.flush().unwrap();
    assert_eq!(ids(&flush), [block.id()]);
    assert_eq!(flush.compared, watched.is_err());
    same.write(0, b"thr").unwrap();
    drop((watched, same, second));
    assert_eq!(ids(&tracker.flush().unwrap()), [block.id()]);
}

#[test]
fn a_child_made_by_fork_is_refused_and_takes_nothing_from_its_parent() {
    let (_folder, _file, pool) = shared();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let tracker = Tracker::new(&pool).unwrap();
    tracker.flush().unwrap();
    block.write(0, b"ours").unwrap();
    // SAFETY: the child asks, and leaves by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(tracker.flush(), Err(Error::Pool(PoolError::Forked { .. })))
            && matches!(Tracker::new(&pool), Err(Error::Pool(PoolError::Forked { .. })));
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
    assert_eq!(ids(&tracker.flush().unwrap()), [block.id()]);
}

#[test]
fn b2_a_batch_of_another_process_holds_a_flush_off_until_it_ends_or_dies() {
    let (_folder, file, pool) = shared();
    let options = TrackerOptions::default().batch_wait(Duration::from_millis(30));
    let tracker = options.track(&pool).unwrap();
    let mut other = Other::start(&file);
    other.ask("batch");
    let refused = tracker.flush().unwrap_err();
    let Error::Pool(PoolError::BatchOpen { pid, .. }) = refused else { panic!("{refused}") };
    assert_ne!(pid, std::process::id());
    other.ask("end");
    assert_eq!(tracker.flush().unwrap().broken_batches, 0);
    other.ask("batch");
    other.kill();
    assert_eq!(tracker.flush().unwrap().broken_batches, 1, "told, and not waited for");
    assert_eq!(tracker.flush().unwrap().broken_batches, 0);
}
