//! The tracker's figures, one file a group.

mod checkpoint;
mod checksum;
mod first_write;
mod flush;
mod idle;
mod peers;

use mainstay_base::Rng;
use mainstay_pool::{Block, Kind, Pool};

use crate::Outcome;
use crate::part::{Group, Part};

pub(crate) const PART: Part = Part { name: "track", groups: GROUPS, roles: &[] };

const GROUPS: &[Group] =
    &[first_write::GROUP, flush::GROUP, checksum::GROUP, checkpoint::GROUP, idle::GROUP];

const PAGE: usize = 4_096;

/// Blocks of a page each, with something in them.
fn filled(pool: &Pool, count: usize) -> Outcome<Vec<Block>> {
    let mut blocks = Vec::with_capacity(count);
    for number in 0..count {
        let block = pool.allocate(Kind::Recoverable)?;
        block.write(0, &(number as u64).to_le_bytes())?;
        blocks.push(block);
    }
    Ok(blocks)
}

/// A hundredth of `count` numbers below it, scattered, each once; others for each seed.
fn a_hundredth(count: usize, seed: u64) -> Vec<usize> {
    let mut rng = Rng::seeded(seed);
    let chosen = (0..count / 100).map(|k| k * 100 + rng.below(100) as usize);
    chosen.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundredth_is_scattered_and_each_number_is_there_once() {
        let mut chosen = a_hundredth(10_000, 3);
        assert_eq!(chosen.len(), 100);
        assert_ne!(chosen, a_hundredth(10_000, 4));
        chosen.dedup();
        assert!(chosen.len() == 100 && chosen.iter().all(|number| *number < 10_000));
    }
}
