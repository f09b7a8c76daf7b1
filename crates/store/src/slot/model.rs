//! A reader beside a writer in loom: every interleaving, up to a bound on preemptions, and every value
//! that the memory model allows. The steps are those that run in memory; how records are copied is not.
//!
//! Beside each story stands one that is broken on purpose, and loom has to find that.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering::{self, Acquire, Relaxed, Release},
};

use loom::{
    sync::{
        Arc,
        atomic::{AtomicU64, fence},
    },
    thread,
};
use mainstay_shm::Atomic64;

use super::{begin, clear, close, is_same, open};

/// A shared word in loom.
struct Loomed(AtomicU64);

impl Atomic64 for Loomed {
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }

    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.0.compare_exchange(current, new, success, failure)
    }

    fn fetch_or(&self, mask: u64, order: Ordering) -> u64 {
        self.0.fetch_or(mask, order)
    }

    fn fetch_and(&self, mask: u64, order: Ordering) -> u64 {
        self.0.fetch_and(mask, order)
    }
}

/// What is done wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Nothing,
    /// Neither side has a fence.
    NoFences,
    /// The sequence is not looked at again.
    NoSecondLook,
    /// Nor is the entry.
    EntryForgotten,
    /// A slot is filled again while an entry names it.
    FilledTooSoon,
}

const KEY: u64 = 10;
const OTHER_KEY: u64 = 20;

/// What the write of a sequence puts as the value of a key.
fn value_of(key: u64, sequence: u64) -> u64 {
    key * 100 + sequence
}

fn sum_of(sequence: u64, key: u64, value: u64) -> u64 {
    (sequence << 40) ^ (key << 20) ^ value
}

struct Slot {
    sequence: Loomed,
    sum: Loomed,
    key: Loomed,
    value: Loomed,
}

/// Two slots, and the entries of two keys: the slot and one more; 0: none.
struct Scene {
    slots: [Slot; 2],
    entries: [Loomed; 2],
    broken: Broken,
}

/// What a look for the key gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    Record(u64),
    Nothing,
    Changed,
    Bad,
}

impl Scene {
    /// The key is in the first slot, by the write 1.
    fn new(broken: Broken) -> Arc<Self> {
        let word = |value| Loomed(AtomicU64::new(value));
        let value = value_of(KEY, 1);
        let full = Slot {
            sequence: word(1),
            sum: word(sum_of(1, KEY, value)),
            key: word(KEY),
            value: word(value),
        };
        let empty = Slot { sequence: word(0), sum: word(0), key: word(0), value: word(0) };
        Arc::new(Self { slots: [full, empty], entries: [word(1), word(0)], broken })
    }

    fn fence(&self, order: Ordering) {
        if self.broken != Broken::NoFences {
            fence(order);
        }
    }

    fn fill(&self, slot: usize, sequence: u64, key: u64) {
        let it = &self.slots[slot];
        let value = value_of(key, sequence);
        open(&it.sequence, |order| self.fence(order));
        it.key.store(key, Relaxed);
        it.value.store(value, Relaxed);
        it.sum.store(sum_of(sequence, key, value), Relaxed);
        close(&it.sequence, sequence);
    }

    fn turn(&self, entry: usize, slot: usize) {
        self.entries[entry].store(slot as u64 + 1, Release);
    }

    /// Puts the key anew, and then one of two keys into the slot that it had.
    fn write(&self, next: u64) {
        if self.broken == Broken::FilledTooSoon {
            self.fill(0, 3, next);
        }
        self.fill(1, 2, KEY);
        self.turn(0, 1);
        clear(&self.slots[0].sequence);
        self.fill(0, 3, next);
        self.turn(usize::from(next == OTHER_KEY), 0);
        if next == KEY {
            clear(&self.slots[1].sequence);
        }
    }

    /// As [`crate::view::View`] looks for a key.
    fn look(&self) -> Seen {
        let entry = &self.entries[0];
        let named = entry.load(Acquire);
        let Some(slot) = (named as usize).checked_sub(1) else { return Seen::Nothing };
        let it = &self.slots[slot];
        let before = begin(&it.sequence);
        if before == 0 {
            return Seen::Changed;
        }
        let key = it.key.load(Relaxed);
        let value = it.value.load(Relaxed);
        let is_sound = it.sum.load(Relaxed) == sum_of(before, key, value);
        let is_same = is_same(&it.sequence, before, |order| self.fence(order))
            || self.broken == Broken::NoSecondLook;
        let is_current = entry.load(Acquire) == named || self.broken == Broken::EntryForgotten;
        match (is_same && is_current, is_sound) {
            (false, _) => Seen::Changed,
            (true, false) => Seen::Bad,
            (true, true) if key != KEY => Seen::Nothing,
            (true, true) => {
                assert_eq!(value, value_of(KEY, before), "a value that no write has put");
                Seen::Record(before)
            }
        }
    }
}

/// A reader looks for a key that is always there, twice, while a writer puts it anew and uses its slot again.
fn read_beside(next: u64, broken: Broken) -> impl Fn() + Send + Sync + 'static {
    move || {
        let scene = Scene::new(broken);
        let theirs = Arc::clone(&scene);
        let reader = thread::spawn(move || {
            let mut newest = 0;
            for _ in 0..2 {
                match theirs.look() {
                    Seen::Record(sequence) => {
                        assert!(sequence >= newest, "an older value after a newer one");
                        newest = sequence;
                    }
                    Seen::Changed => {}
                    seen => panic!("{seen:?} of a key that is there, and sound"),
                }
            }
        });
        scene.write(next);
        reader.join().unwrap();
        let last = if next == KEY { 3 } else { 2 };
        assert_eq!(scene.look(), Seen::Record(last));
    }
}

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 10_000;
    builder.check(model);
}

fn finds(next: u64, broken: Broken) {
    let found = catch_unwind(AssertUnwindSafe(|| explore(read_beside(next, broken)))).is_err();
    assert!(found, "{broken:?} is not found");
}

#[test]
fn a_reader_beside_a_writer_is_shown_no_mix_and_no_value_of_another_key() {
    explore(read_beside(OTHER_KEY, Broken::Nothing));
}

#[test]
fn a_reader_beside_a_writer_that_uses_a_slot_again_for_the_same_key_is_shown_no_mix() {
    explore(read_beside(KEY, Broken::Nothing));
}

#[test]
fn the_model_finds_slots_that_are_filled_and_read_without_fences() {
    finds(OTHER_KEY, Broken::NoFences);
}

#[test]
fn the_model_finds_a_reader_that_does_not_look_at_the_sequence_again() {
    // The entry names the slot again by then.
    finds(KEY, Broken::NoSecondLook);
}

#[test]
fn the_model_finds_a_reader_that_does_not_look_at_the_entry_again() {
    finds(OTHER_KEY, Broken::EntryForgotten);
}

#[test]
fn the_model_finds_a_slot_that_is_filled_again_while_it_is_named() {
    finds(OTHER_KEY, Broken::FilledTooSoon);
}
