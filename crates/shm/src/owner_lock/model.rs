//! I1 and I2 in loom: every interleaving, and every value the memory model allows.
//!
//! membarrier(2) makes every other thread of the process pass a full fence at some point of its
//! program while it runs. Here both sides have one, as in the lock's slower form; the shorter form
//! is the same argument with the kernel issuing the owner's.

use super::{Flag, enter, is_out, want};
use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicBool, fence},
    },
    thread,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering::{self, Relaxed, Release, SeqCst},
};

impl Flag for AtomicBool {
    fn get(&self, order: Ordering) -> bool {
        self.load(order)
    }

    fn put(&self, value: bool, order: Ordering) {
        self.store(value, order);
    }

    fn swap(&self, value: bool, order: Ordering) -> bool {
        self.swap(value, order)
    }
}

struct Guarded {
    inside: AtomicBool,
    wanted: AtomicBool,
    value: UnsafeCell<u32>,
}

impl Guarded {
    fn new() -> Arc<Self> {
        let (inside, wanted) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { inside, wanted, value: UnsafeCell::new(0) })
    }

    fn work(&self) {
        // SAFETY: loom checks that nobody else touches the value meanwhile.
        self.value.with_mut(|value| unsafe { *value += 1 });
    }

    /// One try on each side, no spinning: a loop would only repeat it.
    fn own(&self, fence: fn(), leaving: Ordering) -> u32 {
        let entered = enter(&self.inside, &self.wanted, fence);
        if entered {
            self.work();
            self.inside.put(false, leaving);
        }
        u32::from(entered)
    }

    fn seize(&self, fence: fn()) -> u32 {
        let mut done = 0;
        if want(&self.wanted) {
            fence();
            if is_out(&self.inside) {
                self.work();
                done = 1;
            }
            self.wanted.put(false, Release);
        }
        done
    }
}

fn model(fence: fn(), leaving: Ordering) -> impl Fn() + Send + Sync + 'static {
    move || {
        let guarded = Guarded::new();
        let other = guarded.clone();
        let seizer = thread::spawn(move || other.seize(fence));
        let owned = guarded.own(fence, leaving) + guarded.own(fence, leaving);
        let seized = seizer.join().unwrap();
        // SAFETY: the other thread has ended.
        guarded.value.with(|value| assert_eq!(unsafe { *value }, owned + seized));
    }
}

fn full() {
    fence(SeqCst);
}

fn finds_the_fault(model: impl Fn() + Send + Sync + 'static) {
    let found = catch_unwind(AssertUnwindSafe(|| loom::model(model))).is_err();
    assert!(found, "the model checker must find the fault");
}

#[test]
fn i1_i2_owner_and_seizer_are_never_inside_together() {
    loom::model(model(full, Release));
}

#[test]
fn two_seizers_come_one_after_the_other() {
    loom::model(|| {
        let guarded = Guarded::new();
        let other = guarded.clone();
        let seizer = thread::spawn(move || other.seize(full));
        let mine = guarded.seize(full);
        let theirs = seizer.join().unwrap();
        // SAFETY: the other thread has ended.
        guarded.value.with(|value| assert_eq!(unsafe { *value }, mine + theirs));
    });
}

#[test]
fn the_model_finds_a_lock_without_fences() {
    finds_the_fault(model(|| {}, Release));
}

#[test]
fn the_model_finds_an_owner_that_leaves_without_releasing() {
    finds_the_fault(model(full, Relaxed));
}
