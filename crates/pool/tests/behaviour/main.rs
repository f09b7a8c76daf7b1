//! What a pool does, seen from outside. One file an idea; `worker.rs` makes other processes.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

mod addresses;
mod deaths;
mod events;
mod format;
mod index;
mod invariants;
mod known_faults;
mod lifecycle;
mod ownership;
mod pages;
mod random_operations;
mod threads;
mod unprivileged;
mod worker;

use mainstay_pool::{BlockId, Pool, PoolOptions, State};
use std::path::PathBuf;

/// A pool in a file of its own, which other processes can join; gone with this value.
struct OnDisk {
    pool: Pool,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl OnDisk {
    fn new(options: PoolOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.pool");
        Self { pool: options.create(&path).unwrap(), path, _folder: folder }
    }

    /// As another process would: a slot, a mapping and magazines of its own.
    fn join(&self) -> Pool {
        Pool::join_any(&self.path).unwrap()
    }
}

/// Small enough to be opened many times.
fn options(block_size: usize) -> PoolOptions {
    PoolOptions::new("test", block_size).reserve(256 << 20)
}

fn state(pool: &Pool, number: u32) -> State {
    pool.block_info(number).unwrap().state
}

fn ids_in(pool: &Pool, state: State) -> Vec<BlockId> {
    let blocks = pool.blocks().unwrap().filter(|block| block.state == state);
    blocks.map(|block| block.id).collect()
}

/// Runs `work` in `count` threads, told their number, and waits until all have really ended: a scope
/// by itself waits for the work only, and a thread gives its free blocks back after that.
fn in_threads(count: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// What is free at rest can be found, and no word is impossible: asked without a reap.
fn assert_sound(pool: &Pool) {
    let report = pool.verify().unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.hidden, 0, "F2: a free block is hidden");
}
