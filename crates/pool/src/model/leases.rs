//! R1 to R3: reapers, tenants and the deaths of both, over one process slot.
//!
//! The lock on the slot's byte is the kernel's: here it is a number behind a mutex. The words and
//! what is done to them are the pool's own; the order of the steps is that of `reap.rs` and
//! `Inner::move_in`.

use crate::{
    freelist, steps,
    word::{State, Word},
};
use mainstay_shm::{
    Atomic64,
    lease::{CLEAN, IN_USE},
};
use shuttle::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64},
    },
    thread,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering::{self, SeqCst},
};

const SLOT: u32 = 3;
const DEAD: u32 = 1 << SLOT;
const SCHEDULES: usize = 2_000;

/// A shared word in shuttle, which knows sequential consistency only.
struct Shuttled(AtomicU64);

impl Atomic64 for Shuttled {
    fn load(&self, _: Ordering) -> u64 {
        self.0.load(SeqCst)
    }

    fn store(&self, value: u64, _: Ordering) {
        self.0.store(value, SeqCst);
    }

    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        _: Ordering,
        _: Ordering,
    ) -> Result<u64, u64> {
        self.0.compare_exchange(current, new, SeqCst, SeqCst)
    }

    fn fetch_or(&self, mask: u64, _: Ordering) -> u64 {
        self.0.fetch_or(mask, SeqCst)
    }

    fn fetch_and(&self, mask: u64, _: Ordering) -> u64 {
        self.0.fetch_and(mask, SeqCst)
    }
}

/// Who has a lock on the slot's byte.
#[derive(Clone, Copy, PartialEq)]
enum Byte {
    Readers(u32),
    Writer,
}

/// How a reaper deviates from the rules.
#[derive(Clone, Copy, PartialEq)]
enum Reaper {
    Lawful,
    CleanFirst,
    WithoutPin,
}

struct Slot {
    byte: Mutex<Byte>,
    state: AtomicU32,
    hints: Shuttled,
    words: [Shuttled; 3],
}

impl Slot {
    /// As a dead tenant left it: one block held, one cached, and one that is free.
    fn of_the_dead() -> Arc<Self> {
        let cached = Word(0).cached(SLOT);
        let held = cached.published(crate::Kind::Recoverable, false, SLOT);
        Arc::new(Self {
            byte: Mutex::new(Byte::Readers(0)),
            state: AtomicU32::new(IN_USE),
            hints: Shuttled(AtomicU64::new(0b011)),
            words: [held.0, cached.0, 0].map(|word| Shuttled(AtomicU64::new(word))),
        })
    }

    fn pin(&self) -> bool {
        let mut byte = self.byte.lock().unwrap();
        if let Byte::Readers(count) = &mut *byte {
            *count += 1;
            return true;
        }
        false
    }

    fn unpin(&self) {
        if let Byte::Readers(count) = &mut *self.byte.lock().unwrap() {
            *count -= 1;
        }
    }

    fn lease(&self) -> bool {
        let mut byte = self.byte.lock().unwrap();
        let free = *byte == Byte::Readers(0);
        if free {
            *byte = Byte::Writer;
        }
        free
    }

    /// The kernel drops the lock of a tenant that dies; what it held stays as it is.
    fn die(&self) {
        *self.byte.lock().unwrap() = Byte::Readers(0);
    }

    /// Takes back what the slot has in the first `count` words.
    fn sweep(&self, count: usize) {
        for word in &self.words[..count] {
            steps::reap(word, Word(word.load(Ordering::Relaxed)), DEAD).unwrap();
        }
        freelist::repair_hints(&self.hints, &self.words);
    }

    /// A reaper, which may die after `count` words: the kernel then drops its pin.
    fn reap(&self, how: Reaper, count: usize) {
        if self.state.load(SeqCst) == CLEAN || (how != Reaper::WithoutPin && !self.pin()) {
            return;
        }
        if how == Reaper::CleanFirst {
            self.state.store(CLEAN, SeqCst);
        }
        self.sweep(count);
        if how != Reaper::CleanFirst && count == self.words.len() {
            self.state.store(CLEAN, SeqCst);
        }
        if how != Reaper::WithoutPin {
            self.unpin();
        }
    }

    /// A new tenant: moves in, claims a block, and finds it its own as long as it lives.
    fn live_and_die(&self) {
        if !self.lease() {
            return;
        }
        if self.state.load(SeqCst) != CLEAN {
            self.sweep(self.words.len());
        }
        self.state.store(IN_USE, SeqCst);
        let mut mine = Vec::new();
        freelist::claim(&self.hints, &self.words, SLOT, |place| mine.push(place));
        thread::yield_now();
        for place in mine {
            let word = Word(self.words[place].load(SeqCst));
            assert!(word.is_cached_by(SLOT), "R1: swept under its living owner: {word:?}");
        }
        self.die();
    }

    fn states(&self) -> [State; 3] {
        [0, 1, 2].map(|place| Word(self.words[place].load(SeqCst)).state())
    }
}

/// Two reapers, one of which dies half-way, and a tenant; then a survivor sweeps up.
fn model(how: Reaper) {
    let slot = Slot::of_the_dead();
    let spawn = |work: fn(&Slot, Reaper)| {
        let slot = slot.clone();
        thread::spawn(move || work(&slot, how))
    };
    let threads = [
        spawn(|slot, how| slot.reap(how, 3)),
        spawn(|slot, how| slot.reap(how, 1)),
        spawn(|slot, _| slot.live_and_die()),
    ];
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    slot.reap(how, 3);
    // R3: whatever was interrupted, the last sweep leaves nothing of the dead.
    assert_eq!(slot.states(), [State::Orphan, State::Free, State::Free]);
    assert_eq!(slot.state.load(SeqCst), CLEAN);
    assert_eq!(slot.hints.load(SeqCst) & 0b110, 0, "F2: a free block is hidden");
}

fn finds_the_fault(how: Reaper) {
    let run = || shuttle::check_random(move || model(how), SCHEDULES);
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "shuttle must find the fault");
}

#[test]
fn r1_to_r3_reapers_and_tenants_that_die_anywhere_leave_nothing_behind() {
    shuttle::check_random(|| model(Reaper::Lawful), SCHEDULES);
}

#[test]
fn the_model_finds_a_slot_marked_clean_before_it_is_swept() {
    finds_the_fault(Reaper::CleanFirst);
}

#[test]
fn the_model_finds_a_slot_that_is_swept_without_a_pin() {
    finds_the_fault(Reaper::WithoutPin);
}
