//! What a victim was told about its writes: in memory outside of the store, which no death touches.

use crate::shared::Sharable;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Threads of a victim that write; each has keys of its own.
pub(crate) const WRITERS: usize = 3;
pub(crate) const KEYS: usize = 96;
pub(crate) const SHARDS: usize = 2;
/// Keys of a batch, at most.
pub(crate) const BATCH_KEYS: usize = 6;

/// What a key is to be: there or not, and as of which of its writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State(u64);

impl State {
    /// The write after this one.
    pub(crate) fn next(self, is_there: bool) -> Self {
        Self((((self.0 >> 1) + 1) << 1) | u64::from(is_there))
    }

    /// The number in the value; none if the key is not there.
    pub(crate) fn version(self) -> Option<u64> {
        (self.0 & 1 == 1).then_some(self.0 >> 1)
    }
}

/// The batch that a writer is in the middle of.
pub(crate) struct Batch {
    pub(crate) count: AtomicU64,
    pub(crate) keys: [AtomicU64; BATCH_KEYS],
}

pub(crate) struct Board {
    begun: [AtomicU64; KEYS],
    acknowledged: [AtomicU64; KEYS],
    pub(crate) batches: [Batch; WRITERS],
    /// The last write of each shard that a victim was told to be durable.
    pub(crate) durable: [AtomicU64; SHARDS],
    /// The victim has the store open.
    pub(crate) is_open: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) compactions: AtomicU64,
}
// SAFETY: atomics only, all zero at first.
unsafe impl Sharable for Board {}

impl Board {
    pub(crate) fn begun(&self, key: usize) -> State {
        State(self.begun[key].load(SeqCst))
    }

    pub(crate) fn acknowledged(&self, key: usize) -> State {
        State(self.acknowledged[key].load(SeqCst))
    }

    pub(crate) fn begin(&self, key: usize, state: State) {
        self.begun[key].store(state.0, SeqCst);
    }

    pub(crate) fn acknowledge(&self, key: usize) {
        self.acknowledged[key].store(self.begun[key].load(SeqCst), SeqCst);
    }

    /// The key was found so after a death: that is how it goes on.
    pub(crate) fn settle(&self, key: usize, state: State) {
        self.begin(key, state);
        self.acknowledge(key);
    }
}
