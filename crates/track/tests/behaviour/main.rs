//! What a tracker does, seen from outside. One file an idea; `other.rs` makes other processes.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

mod batches;
mod checkpoints;
mod events;
mod method;
mod model;
mod other;
mod others;
mod races;
mod versions;
mod waiting;
mod writes;

use mainstay_pool::{Block, BlockId, Kind, Pool, PoolOptions};
use mainstay_track::{Flush, Tracker, TrackerOptions};

fn options(block_size: usize) -> PoolOptions {
    PoolOptions::new("test", block_size).reserve(256 << 20)
}

fn pool(block_size: usize) -> Pool {
    options(block_size).create_memfd().unwrap()
}

/// By page faults where the kernel lets us, and by comparing.
fn trackers(pool: &Pool) -> impl Iterator<Item = Tracker> {
    let pool = pool.clone();
    let ways = [TrackerOptions::default as fn() -> _, || TrackerOptions::default().compare()];
    ways.into_iter().map(move |options| options().track(&pool).unwrap())
}

fn ids(flush: &Flush) -> Vec<BlockId> {
    flush.changes.iter().map(|change| change.id).collect()
}

fn blocks(pool: &Pool, count: usize) -> Vec<Block> {
    (0..count).map(|_| pool.allocate(Kind::Recoverable).unwrap()).collect()
}
