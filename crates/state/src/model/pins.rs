//! S1, S2: pins beside reuse, copies without a pin, and writers beside each other.

use super::{
    Loomed, Without, explore, finds_the_fault,
    scene::{Checker, Record, State, View, at_rest},
};
use crate::{
    protocol::{Outcome, Words as _, claim, commit, is_still, is_whole, pin, reopen},
    word::{Id, Plain},
};
use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicU64, fence},
    },
    thread,
};
use mainstay_shm::Atomic64;
use std::sync::atomic::Ordering::{self, Acquire, Relaxed};

/// loom; without fences it is broken on purpose.
pub(super) struct Loom<const FENCES: bool = true>;

impl<const FENCES: bool> Checker for Loom<FENCES> {
    type Word = Loomed;
    type Shared<T> = Arc<T>;

    fn fence(order: Ordering) {
        if FENCES {
            fence(order);
        }
    }

    fn pause() {
        thread::yield_now();
    }
}

const READER: Id = Id(0x1_01);
const WRITER: Id = Id(0x1_02);

pub(super) fn words(without: Without) -> impl Fn(u64) -> Loomed {
    move |value| Loomed::new(value, without)
}

/// A view of `states`, where nobody is dead and there are no records.
fn alone<const F: bool>(states: &[Arc<State<Loom<F>>>], without: Without) -> View<Loom<F>> {
    View {
        records: Arc::new(Vec::new()),
        states: states.to_vec(),
        deaths: Box::new(|_| false),
        unused: Record::new(words(without)),
        sees_no_records: false,
    }
}

/// The data of the slots: loom sees to it that nobody reads what another writes, and that who reads
/// has synchronised with who wrote.
type Data = Arc<Vec<UnsafeCell<u64>>>;

fn data(slots: usize) -> Data {
    Arc::new((0..slots).map(|slot| UnsafeCell::new(u64::from(slot == 0))).collect())
}

pub(super) fn read(data: &[UnsafeCell<u64>], slot: u32) -> u64 {
    // SAFETY: loom checks that nobody writes at the same time.
    data[slot as usize].with(|value| unsafe { *value })
}

pub(super) fn write(data: &[UnsafeCell<u64>], slot: u32, to: u64) {
    // SAFETY: loom checks that nobody else touches it at the same time.
    data[slot as usize].with_mut(|value| unsafe { *value = to });
}

/// A reader pins and reads while a writer commits twice, in two slots: for the second it wants the
/// slot that the reader may have.
fn pin_beside_reuse(without: Without, is_blind: bool) -> impl Fn() + Send + Sync + 'static {
    move || {
        let mut state = State::<Loom>::new(1, 2, &[READER], words(without));
        state.is_blind = is_blind;
        let (state, data) = (Arc::new(state), data(2));
        let (theirs, seen) = (state.clone(), data.clone());
        let reader = thread::spawn(move || {
            let view = alone(std::slice::from_ref(&theirs), without);
            let plain = pin(&view, &theirs, theirs.announced(0)).expect("there is a version");
            assert_eq!(read(&seen, plain.slot()), plain.version(), "S1: it is what it was");
            theirs.unpin(0);
        });
        let view = alone(std::slice::from_ref(&state), without);
        let mut base = Plain::new(1, 0);
        for _ in 0..2 {
            let Some(slot) = claim(&view, &*state, WRITER, base.slot() ^ 1) else { continue };
            write(&data, slot, base.version() + 1);
            state.seal(slot, base.version() + 1);
            assert_eq!(commit(&view, &*state, base, slot), Outcome::Committed);
            state.release(slot);
            base = Plain::new(base.version() + 1, slot);
        }
        reader.join().unwrap();
        assert!(base.version() >= 2, "S1: the other slot was free for the first commit");
    }
}

#[test]
fn s1_what_is_pinned_is_not_written() {
    explore(3, pin_beside_reuse(Without::Nothing, false));
}

#[test]
fn the_model_finds_a_claim_that_ignores_pins() {
    finds_the_fault(3, pin_beside_reuse(Without::Nothing, true));
}

#[test]
fn the_model_finds_pins_and_claims_that_are_not_in_one_order() {
    finds_the_fault(3, pin_beside_reuse(Without::Order, false));
}

#[test]
fn the_model_finds_a_commit_or_an_unpin_that_does_not_release() {
    finds_the_fault(3, pin_beside_reuse(Without::Releases, false));
}

#[test]
fn the_model_finds_a_pin_or_a_claim_that_does_not_acquire() {
    finds_the_fault(3, pin_beside_reuse(Without::Acquires, false));
}

/// A reader pins and reads while a writer that owns both slots commits twice, without claiming.
fn pin_beside_kept_slots(without: Without, is_blind: bool) -> impl Fn() + Send + Sync + 'static {
    move || {
        let mut state = State::<Loom>::new(1, 2, &[READER], words(without));
        state.is_blind = is_blind;
        for slot in 0..2 {
            state.keep(slot, WRITER);
        }
        let (state, data) = (Arc::new(state), data(2));
        let (theirs, seen) = (state.clone(), data.clone());
        let reader = thread::spawn(move || {
            let view = alone(std::slice::from_ref(&theirs), without);
            let plain = pin(&view, &theirs, theirs.announced(0)).expect("there is a version");
            assert_eq!(read(&seen, plain.slot()), plain.version(), "S1: it is what it was");
            theirs.unpin(0);
        });
        let view = alone(std::slice::from_ref(&state), without);
        let mut base = Plain::new(1, 0);
        for _ in 0..2 {
            let slot = base.slot() ^ 1;
            if !reopen(&*state, slot, base) {
                continue;
            }
            write(&data, slot, base.version() + 1);
            state.seal(slot, base.version() + 1);
            assert_eq!(commit(&view, &*state, base, slot), Outcome::Committed);
            base = Plain::new(base.version() + 1, slot);
        }
        reader.join().unwrap();
        assert!(base.version() >= 2, "S1: the other slot was free for the first commit");
    }
}

#[test]
fn s1_what_is_pinned_is_not_written_by_who_keeps_its_slots() {
    explore(3, pin_beside_kept_slots(Without::Nothing, false));
}

#[test]
fn the_model_finds_kept_slots_that_are_written_in_spite_of_pins() {
    finds_the_fault(3, pin_beside_kept_slots(Without::Nothing, true));
}

#[test]
fn the_model_finds_pins_and_kept_slots_that_are_not_in_one_order() {
    finds_the_fault(3, pin_beside_kept_slots(Without::Order, false));
}

/// A reader copies without a pin while a writer commits twice, in two slots; then it looks at the
/// word, or at what the slot says. The data are words that are read and written without any order, as
/// by copies.
fn copy_beside_reuse<const FENCES: bool, const KEPT: bool, const BY_WORD: bool>() {
    let without = Without::Nothing;
    let state = State::<Loom<FENCES>>::new(1, 2, &[], words(without));
    if KEPT {
        for slot in 0..2 {
            state.keep(slot, WRITER);
        }
    }
    let state = Arc::new(state);
    let data: Arc<Vec<AtomicU64>> =
        Arc::new((0..2).map(|slot| AtomicU64::new(u64::from(slot == 0))).collect());
    let (theirs, seen) = (state.clone(), data.clone());
    let reader = thread::spawn(move || {
        let plain = Plain::of(theirs.current().load(Acquire)).expect("no records here");
        let value = seen[plain.slot() as usize].load(Relaxed);
        let is_good = if BY_WORD {
            is_still::<State<Loom<FENCES>>>(theirs.current(), plain)
        } else {
            is_whole(&*theirs, plain)
        };
        assert!(!is_good || value == plain.version(), "S1: nobody has written there");
    });
    let view = alone(std::slice::from_ref(&state), without);
    for version in 1..=2 {
        let base = Plain::new(version, (version + 1) as u32 % 2);
        let other = base.slot() ^ 1;
        let slot = if KEPT {
            assert!(reopen(&*state, other, base), "nobody pins");
            other
        } else {
            claim(&view, &*state, WRITER, other).expect("nobody pins")
        };
        data[slot as usize].store(version + 1, Relaxed);
        state.seal(slot, version + 1);
        assert_eq!(commit(&view, &*state, base, slot), Outcome::Committed);
        if !KEPT {
            state.release(slot);
        }
    }
    reader.join().unwrap();
}

#[test]
fn s1_a_copy_of_what_is_still_current_afterwards_is_whole() {
    explore(3, copy_beside_reuse::<true, false, true>);
    explore(3, copy_beside_reuse::<true, true, true>);
}

#[test]
fn c2_a_copy_of_what_its_slot_still_says_to_have_is_whole() {
    explore(3, copy_beside_reuse::<true, false, false>);
    explore(3, copy_beside_reuse::<true, true, false>);
}

#[test]
fn the_model_finds_a_copy_without_fences() {
    finds_the_fault(3, copy_beside_reuse::<false, false, true>);
    finds_the_fault(3, copy_beside_reuse::<false, true, true>);
    finds_the_fault(3, copy_beside_reuse::<false, false, false>);
    finds_the_fault(3, copy_beside_reuse::<false, true, false>);
}

/// Two writers add one, each to what it has pinned, in three slots.
fn two_writers(current: Without) -> impl Fn() + Send + Sync + 'static {
    move || {
        let mut state = State::<Loom>::new(1, 3, &[READER, WRITER], words(Without::Nothing));
        state.set_current(Loomed::new(Plain::new(1, 0).bits(), current));
        let (state, data) = (Arc::new(state), data(3));
        let add = |state: Arc<State<Loom>>, data: Data, me: Id, line: u32| {
            let view = alone(std::slice::from_ref(&state), Without::Nothing);
            let base = pin(&view, &*state, state.announced(line)).expect("there is a version");
            let slot = claim(&view, &*state, me, 1).expect("two writers, three slots");
            write(&data, slot, read(&data, base.slot()) + 1);
            state.unpin(line);
            state.seal(slot, base.version() + 1);
            let outcome = commit(&view, &*state, base, slot);
            state.release(slot);
            u64::from(outcome == Outcome::Committed)
        };
        let (theirs, seen) = (state.clone(), data.clone());
        let other = thread::spawn(move || add(theirs, seen, READER, 0));
        let done = add(state.clone(), data.clone(), WRITER, 1) + other.join().unwrap();
        let end = at_rest(&state);
        assert!(done >= 1, "S2: of two commits on one version one succeeds");
        assert_eq!(end.version(), 1 + done, "S2: as many versions as commits");
        assert_eq!(read(&data, end.slot()), 1 + done, "S2: nothing is lost");
    }
}

#[test]
fn s2_of_two_commits_on_one_version_one_succeeds_and_nothing_is_lost() {
    explore(2, two_writers(Without::Nothing));
}

#[test]
fn the_model_finds_a_commit_that_does_not_compare() {
    finds_the_fault(2, two_writers(Without::Comparison));
}
