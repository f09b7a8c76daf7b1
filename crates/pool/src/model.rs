//! The lock-free parts in model checkers: the functions run here are the ones that the pool runs,
//! over the checkers' atomics.
//!
//! loom tries every interleaving and every value that the memory model allows a load to see (up to
//! a bound on preemptions). shuttle tries random schedules, sequentially consistent. Neither is
//! worth anything unless it can fail: so next to each model stands one that is broken on purpose,
//! and the test demands that the checker finds it.

mod free_list;
mod leases;
mod owner_word;

use loom::sync::atomic::AtomicU64;
use mainstay_shm::Atomic64;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release},
};

/// Which half of the orderings a model leaves out.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Without {
    Nothing,
    Releases,
    Acquires,
}

impl Without {
    fn apply(self, order: Ordering) -> Ordering {
        match (self, order) {
            (Self::Releases, Release) | (Self::Acquires, Acquire) => Relaxed,
            (Self::Releases, AcqRel) => Acquire,
            (Self::Acquires, AcqRel) => Release,
            (_, order) => order,
        }
    }
}

/// A shared word in loom.
struct Loomed {
    word: AtomicU64,
    without: Without,
}

impl Loomed {
    fn new(value: u64, without: Without) -> Self {
        Self { word: AtomicU64::new(value), without }
    }
}

impl Atomic64 for Loomed {
    fn load(&self, order: Ordering) -> u64 {
        self.word.load(self.without.apply(order))
    }

    fn store(&self, value: u64, order: Ordering) {
        self.word.store(value, self.without.apply(order));
    }

    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        let (success, failure) = (self.without.apply(success), self.without.apply(failure));
        self.word.compare_exchange(current, new, success, failure)
    }

    fn fetch_or(&self, mask: u64, order: Ordering) -> u64 {
        self.word.fetch_or(mask, self.without.apply(order))
    }

    fn fetch_and(&self, mask: u64, order: Ordering) -> u64 {
        self.word.fetch_and(mask, self.without.apply(order))
    }
}

/// Tries every execution of `model` with at most three preemptions.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Demands that some execution of a broken `model` fails.
fn finds_the_fault(model: impl Fn() + Send + Sync + 'static) {
    let found = catch_unwind(AssertUnwindSafe(|| explore(model))).is_err();
    assert!(found, "the model checker must find the fault");
}
