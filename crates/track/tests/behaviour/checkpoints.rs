//! Y1: what a tracker's checkpoints hold.

use crate::options;
use mainstay_base::Rng;
use mainstay_pool::{Block, BlockId, Kind, Pool, State, checkpoint};
use mainstay_track::{Tracker, TrackerOptions};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

fn contents(pool: &Pool) -> BTreeMap<BlockId, (usize, Vec<u8>)> {
    let live = pool
        .blocks()
        .unwrap()
        .filter(|block| matches!(block.state, State::Held | State::Parked | State::Orphan));
    live.map(|block| {
        let (info, data) = pool.copy_block(block.id.number).unwrap().unwrap();
        (info.id, (info.used_len, data))
    })
    .collect()
}

/// What the checkpoint file would give back.
fn restored(file: &Path) -> BTreeMap<BlockId, (usize, Vec<u8>)> {
    let copy = file.with_extension("copy");
    let _ = std::fs::remove_file(&copy);
    let mut checkpoint = file.as_os_str().to_owned();
    checkpoint.push(".checkpoint");
    checkpoint::restore(checkpoint, &copy).unwrap();
    contents(&Pool::join_any(&copy).unwrap())
}

#[test]
fn y1_each_checkpoint_holds_the_pool_as_it_was() {
    for (seed, compare) in [(1, false), (2, false), (3, true)] {
        let mut rng = Rng::seeded(seed);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("test.pool");
        let pool = options(300).growth_step(16).create(&file).unwrap();
        let options = TrackerOptions::default();
        let options = if compare { options.compare() } else { options };
        let tracker = options.track(&pool).unwrap();
        let mut held: Vec<Block> = Vec::new();
        let mut checkpoints = tracker.checkpoints().unwrap();
        for round in 0..25 {
            for _ in 0..rng.below(20) {
                match (rng.below(8), held.is_empty()) {
                    (0..=2, _) | (_, true) => held.push(pool.allocate(Kind::Recoverable).unwrap()),
                    (3, _) => {
                        let at = rng.below(held.len() as u64) as usize;
                        held.swap_remove(at).free().unwrap();
                    }
                    (4, _) => {
                        let at = rng.below(held.len() as u64) as usize;
                        held[at].set_used_len(rng.below(300) as usize).unwrap();
                    }
                    _ => {
                        let at = rng.below(held.len() as u64) as usize;
                        held[at]
                            .write(rng.below(290) as usize, &rng.next_u64().to_le_bytes())
                            .unwrap();
                    }
                }
                if rng.below(6) == 0 {
                    // What a flush has told belongs into the checkpoint all the same.
                    tracker.flush().unwrap();
                }
            }
            if round == 12 {
                drop(checkpoints);
                checkpoints = tracker.checkpoints().unwrap();
            }
            checkpoints.checkpoint().unwrap();
            assert_eq!(restored(&file), contents(&pool), "seed {seed}, round {round}");
        }
    }
}

#[test]
fn background_checkpoints_come_at_their_interval_and_the_last_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.pool");
    let pool = options(64).create(&file).unwrap();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let tracker = Tracker::new(&pool).unwrap();
    let (done, made) = mpsc::channel();
    let start = Instant::now();
    let interval = Duration::from_millis(30);
    let background = tracker.checkpoints().unwrap().spawn_within(interval, 100, move |report| {
        let _ = done.send(report.unwrap().cut);
    });
    let background = background.unwrap();
    for value in 0..5_u8 {
        block.write(0, &[value]).unwrap();
        made.recv_timeout(Duration::from_secs(20)).unwrap();
    }
    assert!(start.elapsed() >= 4 * interval);
    block.write(0, b"last").unwrap();
    background.stop();
    assert_eq!(restored(&file), contents(&pool));
}
