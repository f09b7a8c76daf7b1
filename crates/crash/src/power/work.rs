//! Who makes checkpoints, and who looks at what a power cut has left.
//!
//! What is written in a round follows from the seed alone, so the state of the pool at each
//! checkpoint can be computed, and what comes back has to be one of these, to the last byte.

use super::{log::ACKNOWLEDGED, rig::Outcome};
use crate::{
    finding::{Check, Finding, ensure},
    verdict::Harm,
};
use mainstay_base::Rng;
use mainstay_pool::{Kind, PoolOptions, Uuid};
use mainstay_track::Tracker;
use std::{fs::File, os::unix::fs::FileExt, path::Path};

const BLOCKS: usize = 96;
const BLOCK_SIZE: usize = 1_000;

fn options() -> PoolOptions {
    PoolOptions::new("power", BLOCK_SIZE).growth_step(32).max_blocks(128)
}

/// What each block holds after each round: a number, all over.
fn states(rounds: u64, seed: u64) -> Vec<[u64; BLOCKS]> {
    let mut rng = Rng::seeded(seed);
    let mut states = vec![[0; BLOCKS]];
    for round in 1..=rounds {
        let mut state = states[states.len() - 1];
        // The first tells which round it is.
        state[0] = round;
        (0..20).for_each(|_| state[rng.below(BLOCKS as u64 - 1) as usize + 1] = round);
        states.push(state);
    }
    states
}

fn content(value: u64) -> Vec<u8> {
    value.to_le_bytes().iter().copied().cycle().take(BLOCK_SIZE).collect()
}

/// Makes a pool on the file system, and a checkpoint each round, which is acknowledged.
pub(super) fn write(folder: &Path, device: &Path, rounds: u64, seed: u64) -> i32 {
    let written = || -> Outcome<()> {
        let acknowledgements = File::options().write(true).open(device)?;
        let pool = options().create(folder.join("power.pool"))?;
        let blocks = (0..BLOCKS).map(|_| pool.allocate(Kind::Recoverable));
        let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
        for (number, block) in blocks.iter().enumerate() {
            // Which of them it is: behind what is compared.
            block.write(0, &content(0))?;
            block.set_used_len(number)?;
        }
        let tracker = Tracker::new(&pool)?;
        let mut checkpoints = tracker.checkpoints()?;
        for (round, state) in states(rounds, seed).iter().enumerate().skip(1) {
            let batch = pool.batch()?;
            for (block, value) in blocks.iter().zip(state) {
                if *value == round as u64 {
                    block.write(0, &content(*value))?;
                }
            }
            batch.end();
            checkpoints.checkpoint()?;
            let mut sector = [0; 512];
            sector[..8].copy_from_slice(ACKNOWLEDGED);
            sector[8..16].copy_from_slice(&(round as u64).to_le_bytes());
            acknowledgements.write_all_at(&sector, super::rig::FS_BYTES)?;
        }
        Ok(())
    };
    match written() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("the workload: {error}");
            1
        }
    }
}

/// Looks at a file system after a power cut, when `acknowledged` was the last checkpoint that the
/// workload had been told of.
pub(super) fn look(folder: &Path, acknowledged: u64, rounds: u64, seed: u64) -> Check {
    // Another boot, whatever this machine's is.
    let pool = options().boot(Uuid::from_u128(0xDEAD)).join(folder.join("power.pool"));
    let pool = match pool {
        Ok(pool) => pool,
        Err(_) if acknowledged == 0 => return Ok(()),
        Err(error) => {
            let what = format!("no pool after checkpoint {acknowledged}: {error}");
            return Err(Finding { harm: Harm::Lost, what });
        }
    };
    let mut found = [const { Vec::new() }; BLOCKS];
    for block in pool.blocks()? {
        if let Some((info, data)) = pool.copy_block(block.id.number)? {
            let place = found.get_mut(info.used_len).filter(|place| place.is_empty());
            let what = || format!("block {} has the length {}", info.id, info.used_len);
            ensure(place.is_some(), Harm::Torn, what)?;
            place.into_iter().for_each(|place| place.clone_from(&data));
        }
    }
    let round = found[0].first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
    let states = states(rounds, seed);
    let state = usize::try_from(round).ok().and_then(|round| states.get(round));
    let is_one = state.is_some_and(|state| {
        state.iter().zip(&found).all(|(value, data)| *data == content(*value))
    });
    ensure(is_one, Harm::Torn, || format!("a mix, of checkpoint {round} by its first block"))?;
    ensure(round >= acknowledged, Harm::Lost, || {
        format!("checkpoint {round}, and {acknowledged} was acknowledged")
    })
}
