//! Who writes: the victim, with a tracker and checkpoints; the survivor, with batches only.

use super::board::{Board, PAIRS, SURVIVOR, VICTIM};
use crate::{
    stepper::{self, Act},
    verdict::{Harm, Verdict},
};
use mainstay_base::Rng;
use mainstay_pool::{Block, Kind, Offer, Pool, PoolOptions};
use mainstay_track::Tracker;
use std::{path::Path, sync::atomic::Ordering::SeqCst, thread, time::Duration};

/// Larger than a value, and not a divisor of a page: neighbours share pages.
const BLOCK_SIZE: usize = 200;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Makes the pool and its pairs.
pub(crate) fn prepare(file: &Path, board: &Board) {
    let made = || -> Outcome<()> {
        let options = PoolOptions::new("storm", BLOCK_SIZE).growth_step(64).max_blocks(1_024);
        let pool = options.create(file)?;
        for number in board.blocks.iter().flatten().flatten() {
            number.store(u64::from(pool.allocate(Kind::Recoverable)?.number()) + 1, SeqCst);
        }
        Ok(pool.close()?)
    };
    if let Err(error) = made() {
        panic!("cannot make the pool that is to be stormed: {error}");
    }
}

/// One writer's pairs, held.
struct Pairs<'a> {
    board: &'a Board,
    who: usize,
    blocks: Vec<[Block; 2]>,
}

impl<'a> Pairs<'a> {
    fn attach(pool: &Pool, board: &'a Board, who: usize) -> Outcome<Self> {
        let attach =
            |at: &std::sync::atomic::AtomicU64| pool.attach_number((at.load(SeqCst) - 1) as u32);
        let blocks = board.blocks[who].iter().map(|[one, two]| Ok([attach(one)?, attach(two)?]));
        Ok(Self { board, who, blocks: blocks.collect::<Outcome<_>>()? })
    }

    /// A batch: both blocks of a pair get its next value.
    fn write(&self, pool: &Pool, pair: usize) -> Outcome<()> {
        let begun = &self.board.begun[self.who][pair];
        let value = begun.load(SeqCst) + 1;
        begun.store(value, SeqCst);
        let batch = pool.batch()?;
        for block in &self.blocks[pair] {
            block.write(96, &value.to_le_bytes())?;
            // Now and then a batch is in the middle for longer than it takes to look away.
            if value.is_multiple_of(5) && pair.is_multiple_of(3) {
                thread::sleep(Duration::from_micros(200));
            }
        }
        batch.end();
        self.board.ended[self.who][pair].store(value, SeqCst);
        self.board.batches.fetch_add(1, SeqCst);
        Ok(())
    }
}

/// The value in a block.
pub(crate) fn value_of(data: &[u8]) -> u64 {
    u64::from_le_bytes(data[96..104].try_into().expect("eight bytes are eight bytes"))
}

/// The victim's life: until it is killed.
pub(crate) fn live(file: &Path, board: &Board, verdict: &Verdict, seed: u64, steps: u64) -> i32 {
    let live = || -> Outcome<()> {
        if steps > 0 {
            stepper::arm(steps, Act::Kill);
        }
        let mut rng = Rng::seeded(seed);
        let pool = Pool::join_any(file)?;
        // What the victim before held beyond its pairs.
        for left in pool.recover(Offer::Orphans)? {
            let is_of_a_pair = board
                .blocks
                .iter()
                .flatten()
                .flatten()
                .any(|number| number.load(SeqCst) == u64::from(left.number()) + 1);
            if is_of_a_pair { left.park()? } else { left.free()? }
        }
        let pairs = Pairs::attach(&pool, board, VICTIM)?;
        // It may have died in the middle of a batch: that pair is written anew, before any cut.
        for pair in 0..PAIRS {
            if board.begun[VICTIM][pair].load(SeqCst) != board.ended[VICTIM][pair].load(SeqCst) {
                pairs.write(&pool, pair)?;
            }
        }
        let tracker = Tracker::new(&pool)?;
        let mut checkpoints = tracker.checkpoints()?;
        let mut extra = Vec::new();
        loop {
            board.progress[VICTIM].fetch_add(1, SeqCst);
            for _ in 0..rng.below(30) {
                pairs.write(&pool, rng.below(PAIRS as u64) as usize)?;
            }
            match rng.below(4) {
                0 if extra.len() < 40 => extra.push(pool.allocate(Kind::Recoverable)?),
                1 => drop(extra.pop().map(Block::free).transpose()?),
                _ => {}
            }
            if rng.below(3) == 0 {
                tracker.flush()?;
                board.flushes.fetch_add(1, SeqCst);
            } else {
                // Who writes on while the checkpoint is made may be in it, or not.
                let ended = board
                    .ended
                    .each_ref()
                    .map(|values| values.each_ref().map(|value| value.load(SeqCst)));
                checkpoints.checkpoint()?;
                board.kept_by.fetch_add(1, SeqCst);
                for (kept, ended) in board.kept.iter().flatten().zip(ended.iter().flatten()) {
                    kept.store(*ended, SeqCst);
                }
                board.kept_by.fetch_add(1, SeqCst);
                board.checkpoints.fetch_add(1, SeqCst);
            }
        }
    };
    let Err(error) = live() else { return 0 };
    verdict.report(Harm::Stuck, &format!("a victim: {error}"));
    1
}

/// The survivor's life: until it is told to quit.
pub(crate) fn survive(file: &Path, board: &Board, verdict: &Verdict) -> i32 {
    let live = || -> Outcome<()> {
        let pool = Pool::join_any(file)?;
        let pairs = Pairs::attach(&pool, board, SURVIVOR)?;
        let mut next = 0;
        while board.quit.load(SeqCst) == 0 {
            pairs.write(&pool, next % PAIRS)?;
            next += 1;
            board.progress[SURVIVOR].fetch_add(1, SeqCst);
            thread::sleep(Duration::from_micros(300));
        }
        Ok(())
    };
    let Err(error) = live() else { return 0 };
    verdict.report(Harm::Stuck, &format!("the survivor: {error}"));
    1
}
