//! M1 to M3: free blocks that threads keep at hand are nobody's loss.

use crate::{assert_sound, in_threads, options};
use mainstay_pool::{Block, Error, Kind};
use std::{
    collections::BTreeSet,
    sync::{Barrier, mpsc},
};

#[test]
fn a_thread_that_ends_gives_its_free_blocks_back() {
    let pool = options(64).max_blocks(1_024).create_memfd().unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            drop(pool.allocate(Kind::Transient).unwrap());
            pool.info().unwrap().counts.cached
        });
        assert!(thread.join().unwrap() > 0, "it had some at hand");
    });
    let counts = pool.info().unwrap().counts;
    assert_eq!((counts.cached, counts.held), (0, 0));
    assert_sound(&pool);
}

#[test]
fn a_full_pool_takes_what_idle_threads_keep_at_hand() {
    let pool = options(64).max_blocks(64).growth_step(64).create_memfd().unwrap();
    let (ready, done) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            drop(pool.allocate(Kind::Transient).unwrap());
            ready.wait();
            done.wait();
            // It finds its magazine empty, and the pool full.
            assert!(matches!(pool.allocate(Kind::Transient), Err(Error::Full { .. })));
            done.wait();
        });
        ready.wait();
        let held: Vec<Block> = (0..64).map(|_| pool.allocate(Kind::Transient).unwrap()).collect();
        let numbers: BTreeSet<u32> = held.iter().map(Block::number).collect();
        assert_eq!(numbers.len(), 64, "every block, each once");
        done.wait();
        done.wait();
    });
}

#[test]
fn threads_that_hand_blocks_to_each_other_lose_none() {
    let pool = options(64).max_blocks(4_096).create_memfd().unwrap();
    std::thread::scope(|scope| {
        let (give, take) = mpsc::sync_channel::<Block>(100);
        let giver = scope.spawn(|| {
            let give = give;
            for round in 0..20_000_u64 {
                let block = pool.allocate(Kind::Recoverable).unwrap();
                block.write(0, &round.to_le_bytes()).unwrap();
                give.send(block).unwrap();
            }
        });
        let taker = scope.spawn(|| {
            for (round, block) in take.into_iter().enumerate() {
                let mut value = [0; 8];
                block.read(0, &mut value).unwrap();
                assert_eq!(u64::from_le_bytes(value), round as u64);
                block.free().unwrap();
            }
        });
        giver.join().unwrap();
        taker.join().unwrap();
    });
    let info = pool.info().unwrap();
    assert_eq!(info.counts.free, info.blocks(), "{:?}", info.counts);
    assert_sound(&pool);
}

#[test]
fn at_rest_among_the_living_no_free_block_is_hidden_and_none_is_held_twice() {
    let pool = options(64).max_blocks(512).growth_step(64).create_memfd().unwrap();
    for _ in 0..10 {
        // Nearly full, so that threads fight for the last blocks, steal and give back.
        in_threads(6, |thread| {
            let mut held = Vec::new();
            for round in 0..3_000 {
                if held.len() < 80 {
                    match pool.allocate(Kind::Transient) {
                        Ok(block) => {
                            let owner = thread << 32 | round;
                            block.write(0, &owner.to_le_bytes()).unwrap();
                            held.push((owner, block));
                        }
                        Err(Error::Full { .. }) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
                if round % 3 != 0 && !held.is_empty() {
                    let (owner, block): (usize, Block) = held.swap_remove(round * 17 % held.len());
                    let mut value = [0; 8];
                    block.read(0, &mut value).unwrap();
                    assert_eq!(usize::from_le_bytes(value), owner, "held twice");
                    drop(block);
                }
            }
        });
        // Nobody has died, so no reaper has helped.
        assert_sound(&pool);
        let info = pool.info().unwrap();
        assert_eq!(info.counts.free, info.blocks(), "{:?}", info.counts);
    }
}

#[test]
fn a_thousand_short_threads_leave_nothing_behind() {
    let pool = options(64).create_memfd().unwrap();
    for _ in 0..100 {
        in_threads(10, |_| pool.allocate(Kind::Recoverable).unwrap().free().unwrap());
    }
    let info = pool.info().unwrap();
    assert_eq!((info.counts.cached, info.counts.free), (0, info.blocks()));
    assert_sound(&pool);
    pool.close().unwrap();
}
