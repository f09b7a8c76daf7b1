//! The protocol in model checkers: the functions run here are the ones that states run, over the
//! checkers' atomics.
//!
//! loom tries every interleaving and every value that the memory model allows a load to see (up to
//! a bound on preemptions; and as it remembers one access a word only, it leaves some schedules out).
//! shuttle draws schedules, sequentially consistent, and here lets processes die in the middle.
//! Neither is worth anything unless it can fail: so next to each model
//! stands one that is broken on purpose, and the test demands that the checker finds it.

mod deaths;
mod pins;
mod records;
mod scene;

use loom::sync::atomic::{AtomicU64, fence};
use mainstay_shm::Atomic64;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst},
};

/// What a model leaves out.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Without {
    Nothing,
    Releases,
    Acquires,
    /// The one order of all sequentially consistent steps.
    Order,
    /// The comparison in exchanges: they always store.
    Comparison,
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

    /// loom takes sequentially consistent accesses for acquire and release ones, and knows the one
    /// order of such fences only: so each such load has a fence before it, which is what keeps it
    /// behind the stores and exchanges that come first. What is weaker in this than the real thing
    /// can only make a model fail that should not.
    fn order(&self, order: Ordering, is_load: bool) -> Ordering {
        let order = match order {
            SeqCst => {
                if is_load && self.without != Without::Order {
                    fence(SeqCst);
                }
                AcqRel
            }
            order => order,
        };
        match (self.without, order) {
            (Without::Releases, Release) | (Without::Acquires, Acquire) => Relaxed,
            (Without::Releases, AcqRel) => Acquire,
            (Without::Acquires, AcqRel) => Release,
            (_, order) => order,
        }
    }
}

impl Atomic64 for Loomed {
    fn load(&self, order: Ordering) -> u64 {
        let order = match self.order(order, true) {
            AcqRel => Acquire,
            Release => Relaxed,
            order => order,
        };
        self.word.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        let order = match self.order(order, false) {
            AcqRel => Release,
            Acquire => Relaxed,
            order => order,
        };
        self.word.store(value, order);
    }

    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        if self.without == Without::Comparison {
            return Ok(self.word.swap(new, AcqRel));
        }
        let failure = match self.order(failure, false) {
            AcqRel => Acquire,
            Release => Relaxed,
            order => order,
        };
        self.word.compare_exchange(current, new, self.order(success, false), failure)
    }

    fn fetch_or(&self, mask: u64, order: Ordering) -> u64 {
        self.word.fetch_or(mask, self.order(order, false))
    }

    fn fetch_and(&self, mask: u64, order: Ordering) -> u64 {
        self.word.fetch_and(mask, self.order(order, false))
    }
}

/// Tries every execution of `model` with at most `preemptions` of them.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Demands that some execution of a broken `model` fails.
fn finds_the_fault(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let found = catch_unwind(AssertUnwindSafe(|| explore(preemptions, model))).is_err();
    assert!(found, "the model checker must find the fault");
}
