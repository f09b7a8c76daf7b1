//! What the living acknowledged: in memory outside of the pool, which no death touches.

use crate::shared::Sharable;
use std::sync::atomic::AtomicU64;

/// The two who write; each has pairs of its own.
pub(crate) const VICTIM: usize = 0;
pub(crate) const SURVIVOR: usize = 1;
/// Pairs of blocks each of them has: both blocks of a pair are written in one batch.
pub(crate) const PAIRS: usize = 64;

/// One value for each pair of one writer.
pub(crate) type Values = [AtomicU64; PAIRS];

pub(crate) struct Board {
    /// Block numbers, plus one.
    pub(crate) blocks: [[[AtomicU64; 2]; PAIRS]; 2],
    /// The value whose batch was begun.
    pub(crate) begun: [Values; 2],
    /// The value whose batch has ended.
    pub(crate) ended: [Values; 2],
    /// What had ended when the last completed checkpoint began.
    pub(crate) kept: [Values; 2],
    /// Counts completed checkpoints of all victims; the values above are being changed while odd.
    pub(crate) kept_by: AtomicU64,
    /// Rounds of work.
    pub(crate) progress: [AtomicU64; 2],
    pub(crate) quit: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
}
// SAFETY: atomics only, all zero at first.
unsafe impl Sharable for Board {}
