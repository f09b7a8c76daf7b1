//! T1, T2, T4, T5: which writes are reported.

use crate::{blocks, ids, options, pool, trackers};
use mainstay_base::crc32c;
use mainstay_pool::{Kind, Pool};
use mainstay_track::{ChangeKind, Tracker};

#[test]
fn t2_exactly_the_blocks_that_differ_are_reported_and_each_once() {
    let pool = pool(256);
    let blocks = blocks(&pool, 100);
    for tracker in trackers(&pool) {
        tracker.flush().unwrap();
        assert!(tracker.flush().unwrap().changes.is_empty(), "nothing was written");
        let byte = [tracker.method() as u8 + 1];
        for at in [3, 4, 70] {
            blocks[at].write(255, &byte).unwrap();
        }
        // On the page of others, and the same as before: no difference.
        blocks[5].write(0, &[0]).unwrap();
        let flush = tracker.flush().unwrap();
        let mut expected = [3, 4, 70].map(|at: usize| blocks[at].id());
        expected.sort();
        assert_eq!(ids(&flush), expected, "{:?}", flush.method);
        assert!(flush.changes.iter().all(|change| change.kind == ChangeKind::Written));
        assert!(tracker.flush().unwrap().changes.is_empty());
    }
}

#[test]
fn t1_a_new_block_of_zeros_and_a_freed_one_are_reported() {
    let pool = pool(64);
    for tracker in trackers(&pool) {
        tracker.flush().unwrap();
        let block = pool.allocate(Kind::Recoverable).unwrap();
        let id = block.id();
        let flush = tracker.flush().unwrap();
        assert_eq!((ids(&flush), flush.changes[0].kind), (vec![id], ChangeKind::New));
        block.free().unwrap();
        // The same number, and zeros again, in the next life.
        let again = pool.allocate(Kind::Recoverable).unwrap();
        let flush = tracker.flush().unwrap();
        assert!(ids(&flush).contains(&again.id()));
        let gone = again.id();
        again.free().unwrap();
        let flush = tracker.flush().unwrap();
        assert_eq!((ids(&flush), flush.changes[0].kind), (vec![gone], ChangeKind::Freed));
    }
}

#[test]
fn t1_a_block_freed_and_allocated_anew_between_two_flushes_is_a_new_one() {
    let pool = pool(64);
    for tracker in trackers(&pool) {
        let before = pool.allocate(Kind::Recoverable).unwrap();
        let (number, uuid) = (before.number(), before.uuid());
        tracker.flush().unwrap();
        before.free().unwrap();
        let mut rest = Vec::new();
        let again = loop {
            let block = pool.allocate(Kind::Recoverable).unwrap();
            if block.number() == number {
                break block;
            }
            rest.push(block);
        };
        let flush = tracker.flush().unwrap();
        let change = flush.changes.iter().find(|change| change.id.number == number).unwrap();
        assert_eq!((change.id, change.kind), (again.id(), ChangeKind::New));
        assert_ne!(change.uuid, uuid);
    }
}

#[test]
fn t1_a_change_that_keeps_the_crc32c_is_reported() {
    // CRC32C is linear: two contents whose difference is a multiple of its polynomial have the
    // same. The polynomial itself, reflected, with its leading bit first, is 33 bits long.
    let delta: u64 = (0x82F6_3B78_u64 << 1) | 1;
    let (zeros, mut other) = ([0_u8; 64], [0_u8; 64]);
    other[8..16].copy_from_slice(&delta.to_le_bytes());
    assert_eq!(crc32c(&zeros), crc32c(&other), "the test's own arithmetic");
    let pool = pool(64);
    let block = pool.allocate(Kind::Recoverable).unwrap();
    for tracker in trackers(&pool) {
        block.write(0, &zeros).unwrap();
        tracker.flush().unwrap();
        block.write(0, &other).unwrap();
        let flush = tracker.flush().unwrap();
        assert_eq!(ids(&flush), [block.id()]);
        assert_eq!(flush.changes[0].checksum, crc32c(&zeros));
    }
}

#[test]
fn t1_writes_by_system_calls_on_the_descriptor_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let in_file = options(64).create(folder.path().join("test.pool")).unwrap();
    for pool in [pool(64), in_file] {
        let block = pool.allocate(Kind::Recoverable).unwrap();
        for tracker in trackers(&pool) {
            tracker.flush().unwrap();
            tracker.flush().unwrap();
            let ground = pool.ground().unwrap();
            let data = ground.data(0).start + 64 * u64::from(block.number());
            let byte = tracker.method() as u8 + 7;
            rustix::io::pwrite(pool.as_fd(), &[byte], data + 5).unwrap();
            let flush = tracker.flush().unwrap();
            assert_eq!(ids(&flush), [block.id()], "{:?}", flush.method);
            assert!(flush.compared);
            assert!(
                !tracker.flush().unwrap().compared
                    || flush.method != tracker.method()
                    || tracker.method() == mainstay_track::Method::Compare
            );
        }
    }
}

#[test]
fn t1_writes_of_the_kernel_into_the_mapping_are_found() {
    let pool = pool(4_096);
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let tracker = Tracker::new(&pool).unwrap();
    tracker.flush().unwrap();
    let random = std::fs::File::open("/dev/urandom").unwrap();
    // SAFETY: 64 bytes inside of the block, to which nobody refers.
    let read = unsafe {
        use std::os::fd::AsRawFd;
        libc::read(random.as_raw_fd(), block.as_ptr().add(100).cast(), 64)
    };
    assert_eq!(read, 64);
    assert_eq!(ids(&tracker.flush().unwrap()), [block.id()]);
}

#[test]
fn t1_a_length_that_was_changed_is_reported_and_a_wild_one_harms_nobody() {
    let pool = pool(64);
    let blocks = blocks(&pool, 3);
    for tracker in trackers(&pool) {
        blocks.iter().for_each(|block| block.set_used_len(64).unwrap());
        tracker.flush().unwrap();
        blocks[1].set_used_len(7).unwrap();
        let flush = tracker.flush().unwrap();
        assert_eq!(ids(&flush), [blocks[1].id()]);
        assert!(!flush.changes[0].overlong);
        // Somebody mad writes a length into the header, and changes the data.
        let header = header_of(&pool, blocks[2].number());
        rustix::io::pwrite(pool.as_fd(), &u32::MAX.to_le_bytes(), header + 32).unwrap();
        blocks[0].write(0, &[tracker.method() as u8 + 1]).unwrap();
        let flush = tracker.flush().unwrap();
        let wild: Vec<_> =
            flush.changes.iter().filter(|change| change.overlong).map(|change| change.id).collect();
        assert_eq!(wild, [blocks[2].id()], "an error of that block");
        assert!(ids(&flush).contains(&blocks[0].id()), "and not of the tracker");
    }
}

/// Where the cold header of a block is in the file: see `docs/format/pool.md`.
fn header_of(pool: &Pool, number: u32) -> u64 {
    let per_extent = pool.ground().unwrap().blocks_per_extent();
    let extent = u64::from(number) / per_extent;
    let info = pool.info().unwrap();
    let extent_size = (info.file_len - 8_192) / info.extents;
    let hints = per_extent * 8 + per_extent.div_ceil(64) * 8;
    8_192 + extent * extent_size + hints.next_multiple_of(64) + u64::from(number) % per_extent * 48
}

#[test]
fn t5_what_changed_while_nobody_tracked_is_reported_first() {
    let pool = pool(64);
    let blocks = blocks(&pool, 4);
    let tracker = Tracker::new(&pool).unwrap();
    let first = tracker.flush().unwrap();
    assert_eq!(first.changes.len(), 4);
    drop(tracker);
    blocks[2].write(0, b"unseen").unwrap();
    let tracker = Tracker::new(&pool).unwrap();
    assert_eq!(ids(&tracker.flush().unwrap()), [blocks[2].id()]);
    let kept = tracker.changes_since(&mainstay_track::ClockVector::default());
    assert_eq!(kept.len(), 4, "the others are known with the versions in their headers");
    assert_eq!(kept[0].version.stamp, first.version.unwrap().stamp);
}

#[test]
fn blocks_larger_than_a_piece_and_across_pages_are_compared_as_a_whole() {
    for size in [5_000, 16 << 10, (16 << 10) + 1, 100_000] {
        let pool = pool(size);
        let blocks = blocks(&pool, 3);
        let tracker = Tracker::new(&pool).unwrap();
        tracker.flush().unwrap();
        blocks[1].write(size - 1, &[1]).unwrap();
        let flush = tracker.flush().unwrap();
        assert_eq!(ids(&flush), [blocks[1].id()]);
        assert_eq!(flush.changes[0].checksum, crc32c(&blocks[1].to_vec().unwrap()));
    }
}

#[test]
fn growth_while_tracked_is_followed() {
    let pool = options(64).growth_step(64).create_memfd().unwrap();
    for tracker in trackers(&pool) {
        tracker.flush().unwrap();
        let new = blocks(&pool, 300);
        assert_eq!(tracker.flush().unwrap().changes.len(), 300);
        new[299].write(0, b"x").unwrap();
        assert_eq!(ids(&tracker.flush().unwrap()), [new[299].id()]);
        new.into_iter().for_each(|block| block.free().unwrap());
        assert_eq!(tracker.flush().unwrap().count(ChangeKind::Freed), 300);
    }
}

#[test]
fn a_write_by_a_system_call_beside_growth_is_found_a_few_flushes_later_at_the_latest() {
    let pool = options(64).growth_step(64).create_memfd().unwrap();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let tracker = Tracker::new(&pool).unwrap();
    if tracker.method() != mainstay_track::Method::Pages {
        println!("skipped: {}", tracker.refusal().unwrap());
        return;
    }
    tracker.flush().unwrap();
    tracker.flush().unwrap();
    let data = pool.ground().unwrap().data(0).start + 64 * u64::from(block.number());
    rustix::io::pwrite(pool.as_fd(), b"x", data).unwrap();
    let mut kept = Vec::new();
    let found = (0..40).position(|_| {
        // The pool grows before each flush.
        kept.extend(blocks(&pool, 64));
        ids(&tracker.flush().unwrap()).contains(&block.id())
    });
    assert!(found.is_some_and(|flush| flush < 16), "{found:?}");
}
