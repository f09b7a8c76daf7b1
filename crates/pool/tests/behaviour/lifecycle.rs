//! Beginning and end: who keeps a pool open, and what closing does.

use crate::{OnDisk, assert_sound, options, state};
use mainstay_pool::{Block, Error, Kind, Offer, Pool, PoolSet, PoolView, SetBlockId, State};
use std::sync::Barrier;

/// Which slots are leased, asked by somebody who takes none.
fn leased(shared: &OnDisk) -> Vec<u32> {
    let view = PoolView::open(&shared.path).unwrap();
    let holders = view.holders().unwrap();
    holders.into_iter().filter(|holder| holder.alive).map(|holder| holder.slot).collect()
}

#[test]
fn a_guard_outlives_every_handle_and_ends_the_pool_when_it_goes() {
    let shared = OnDisk::new(options(64));
    let pool = shared.join();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let clone = block.try_clone().unwrap();
    let slot = pool.slot();
    drop(pool);
    assert!(leased(&shared).contains(&slot));
    block.write(0, b"still mapped").unwrap();
    drop(block);
    // Also a clone can be made of what is left.
    let last = clone.try_clone().unwrap();
    drop(clone);
    assert_eq!(&last.to_vec().unwrap()[..12], b"still mapped");
    drop(last);
    assert_eq!(leased(&shared), [shared.pool.slot()], "the slot is free");
    assert_eq!(shared.join().slot(), slot);
}

#[test]
fn a_guard_dropped_in_another_thread_ends_the_pool_as_well() {
    let shared = OnDisk::new(options(64));
    let pool = shared.join();
    let block = pool.allocate(Kind::Transient).unwrap();
    drop(pool);
    std::thread::spawn(move || drop(block)).join().unwrap();
    assert_eq!(leased(&shared), [shared.pool.slot()]);
    assert_eq!(shared.pool.info().unwrap().counts.held, 0);
}

#[test]
fn of_the_last_handle_and_the_last_guards_dropped_at_once_one_ends_the_pool() {
    let shared = OnDisk::new(options(64));
    for _ in 0..200 {
        let pool = shared.join();
        let guards: Vec<Block> =
            (0..3).map(|_| pool.allocate(Kind::Recoverable).unwrap()).collect();
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for guard in guards {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    guard.free().unwrap();
                });
            }
            start.wait();
            drop(pool);
        });
        assert_eq!(leased(&shared), [shared.pool.slot()]);
    }
    let counts = shared.pool.info().unwrap().counts;
    assert_eq!((counts.held, counts.cached, counts.parked), (0, 0, 0));
    assert_sound(&shared.pool);
}

#[test]
fn closing_says_what_is_still_open() {
    let shared = OnDisk::new(options(64));
    let pool = shared.join();
    let slot = pool.slot();
    let clone = pool.clone();
    assert!(matches!(clone.close(), Err(Error::StillShared { handles: 1, .. })));
    let block = pool.allocate(Kind::Recoverable).unwrap();
    assert!(matches!(pool.close(), Err(Error::StillHeld { guards: 1, .. })));
    assert!(leased(&shared).contains(&slot), "the guard keeps it");
    drop(block);
    assert!(!leased(&shared).contains(&slot));
    shared.join().close().unwrap();
}

#[test]
fn an_orderly_close_leaves_nothing_to_sweep() {
    let shared = OnDisk::new(options(64));
    let pool = shared.join();
    drop(pool.allocate(Kind::Recoverable).unwrap());
    pool.close().unwrap();
    let report = shared.pool.reap().unwrap();
    assert_eq!((report.slots, report.uncached, report.orphaned), (0, 0, 0));
    assert_eq!(shared.pool.recover(Offer::Orphans).unwrap().count(), 0, "parked is no orphan");
    assert_eq!(shared.pool.recover(Offer::Unheld).unwrap().count(), 1);
    shared.pool.flush();
    assert_sound(&shared.pool);
}

#[test]
fn pools_that_are_used_in_turns_do_not_disturb_each_other() {
    // More than a thread keeps at hand, and several with the same place there.
    let pools: Vec<Pool> = (0..13)
        .map(|number| options(64 + 64 * number).max_blocks(256).create_memfd().unwrap())
        .collect();
    let mut held = Vec::new();
    for round in 0..1_000 {
        // Bursts, so that what a thread has at hand is now nearly nothing and now nearly too much.
        let pool = &pools[round * 7 % pools.len()];
        for _ in 0..round * 37 % 90 {
            let block = pool.allocate(Kind::Transient).unwrap();
            block.write(0, &[round as u8; 64]).unwrap();
            held.push((round, block));
        }
        while held.len() > 60 {
            let (round, block) = held.swap_remove(round * 31 % held.len());
            let mut data = [0; 64];
            block.read(0, &mut data).unwrap();
            assert_eq!(data, [round as u8; 64]);
            if round % 2 == 0 { drop(block) } else { block.free().unwrap() }
        }
    }
    drop(held);
    for pool in pools {
        pool.flush();
        let info = pool.info().unwrap();
        assert_eq!(info.counts.free, info.blocks(), "{:?}", info.counts);
        assert_sound(&pool);
        pool.close().unwrap();
    }
}

#[test]
fn try_allocate_never_grows_the_pool_but_sees_that_another_has() {
    let shared = OnDisk::new(options(64).growth_step(64));
    assert!(shared.pool.try_allocate(Kind::Transient).unwrap().is_none(), "nothing there yet");
    let other = shared.join();
    let theirs = other.allocate(Kind::Transient).unwrap();
    let mut mine = Vec::new();
    while let Some(block) = shared.pool.try_allocate(Kind::Transient).unwrap() {
        mine.push(block);
    }
    // All of the extent that the other made, but for what it keeps at hand.
    assert_eq!(mine.len(), 32);
    assert_eq!(shared.pool.info().unwrap().extents, 1);
    drop(theirs);
}

#[test]
fn a_full_pool_says_so_and_goes_on_when_a_block_is_freed() {
    let pool = options(64).growth_step(16).max_blocks(32).create_memfd().unwrap();
    let mut held: Vec<Block> = (0..32).map(|_| pool.allocate(Kind::Recoverable).unwrap()).collect();
    let full = pool.allocate(Kind::Recoverable).unwrap_err();
    assert!(matches!(full, Error::Full { blocks: 32, blocks_max: 32, .. }), "{full}");
    assert!(pool.try_allocate(Kind::Recoverable).unwrap().is_none());
    assert!(matches!(pool.reserve(mainstay_pool::Uuid::nil()), Err(Error::Full { .. })));
    held.pop().unwrap().free().unwrap();
    held.push(pool.allocate(Kind::Recoverable).unwrap());
    assert_eq!(pool.info().unwrap().counts.held, 32);
}

#[test]
fn a_block_is_zeros_whatever_it_was_before() {
    let pool = options(1_000).max_blocks(4).create_memfd().unwrap();
    for round in 0..100 {
        let block = pool.allocate(Kind::Recoverable).unwrap();
        assert_eq!(block.to_vec().unwrap(), [0; 1_000], "round {round}");
        block.write(0, &[0xFF; 1_000]).unwrap();
        block.free().unwrap();
    }
}

#[test]
fn bytes_outside_of_a_block_are_refused() {
    let pool = options(100).create_memfd().unwrap();
    let block = pool.allocate(Kind::Transient).unwrap();
    block.write(0, &[1; 100]).unwrap();
    for (offset, len) in [(0, 101), (100, 1), (101, 0), (usize::MAX, 1), (50, usize::MAX / 2)] {
        let mut target = vec![0; len.min(200)];
        if target.len() == len {
            assert!(matches!(block.read(offset, &mut target), Err(Error::OutOfBlock { .. })));
            assert!(matches!(block.write(offset, &target), Err(Error::OutOfBlock { .. })));
        }
        let used = block.set_used_len(offset.max(len));
        assert_eq!(used.is_err(), offset.max(len) > 100);
    }
    block.read(100, &mut []).unwrap();
    assert_eq!(block.as_atomics().len(), 100);
}

#[test]
fn a_set_of_pools_takes_the_smallest_class_that_fits() {
    let folder = tempfile::tempdir().unwrap();
    let set = PoolSet::open(folder.path(), "mixed", &[1_024, 64, 256, 64]).unwrap();
    let sizes: Vec<usize> = set.classes().iter().map(Pool::block_size).collect();
    assert_eq!(sizes, [64, 256, 1_024], "in order, each once");
    for (len, class) in [(0, 64), (1, 64), (64, 64), (65, 256), (256, 256), (257, 1_024)] {
        let block = set.allocate(len, Kind::Recoverable).unwrap();
        assert_eq!((block.len(), block.used_len()), (class, len));
    }
    let past = set.allocate(1_025, Kind::Recoverable);
    assert!(matches!(past, Err(Error::NoSizeClass { len: 1_025, largest: 1_024 })));
    assert!(matches!(PoolSet::create_memfd("none", &[]), Err(Error::NoClasses)));

    let block = set.allocate(100, Kind::Recoverable).unwrap();
    block.write(0, b"in the second class").unwrap();
    let id = set.id_of(&block);
    drop(block);
    let wrong = SetBlockId { block_size: 100, ..id };
    assert!(matches!(set.attach(wrong), Err(Error::NoSizeClass { .. })));
    drop(set);
    let set = PoolSet::open(folder.path(), "mixed", &[64, 256, 1_024]).unwrap();
    assert_eq!(&set.attach(id).unwrap().to_vec().unwrap()[..19], b"in the second class");
    let mut kept = Vec::new();
    set.recover(Offer::Unheld, |block| {
        kept.push(block);
        Ok(())
    })
    .unwrap();
    assert_eq!(kept.len(), 7, "of all classes");
}

#[test]
fn a_seed_decides_the_uuids() {
    let uuids = |seed: u64| {
        let pool = options(64).seed(seed).create_memfd().unwrap();
        let blocks: Vec<Block> =
            (0..100).map(|_| pool.allocate(Kind::Recoverable).unwrap()).collect();
        blocks.iter().map(Block::uuid).collect::<Vec<_>>()
    };
    assert_eq!(uuids(1), uuids(1));
    assert_ne!(uuids(1), uuids(2));
    let mut all = [uuids(1), uuids(2)].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 200);
}

#[test]
fn two_handles_of_one_process_have_slots_of_their_own() {
    let first = options(64).create_memfd().unwrap();
    let second = Pool::join_any_fd(first.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let block = first.allocate(Kind::Recoverable).unwrap();
    let same = second.attach(block.id()).unwrap();
    same.write(0, b"one memory").unwrap();
    assert_eq!(&block.to_vec().unwrap()[..10], b"one memory");
    assert_ne!(block.as_ptr(), same.as_ptr(), "two mappings");
    drop(first);
    assert_eq!(state(&second, same.number()), State::Held);
}
