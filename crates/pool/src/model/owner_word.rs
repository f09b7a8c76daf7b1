//! P3, W1, S1, S2: who gets in, who leaves, what the dead lose.

use super::{Loomed, Without, explore, finds_the_fault};
use crate::{
    steps::{self, Entered, Gone},
    word::{Ask, Kind, Left, Reaped, State, Word},
};
use loom::{
    cell::UnsafeCell,
    sync::{Arc, Mutex},
    thread,
};
use mainstay_shm::Atomic64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

const FREE: Word = Word(0);

fn held_by(slots: &[u32], kind: Kind) -> Word {
    let first = FREE.cached(slots[0]).published(kind, false, slots[0]);
    slots[1..].iter().fold(first, |word, slot| word.attached(*slot))
}

/// What the pool asks of a word before it takes a reference to the block of tag 0.
fn of_tag_0(seen: Word) -> Result<(), ()> {
    if seen.is_live() && !seen.is_doomed() && seen.tag() == 0 { Ok(()) } else { Err(()) }
}

fn attach(word: &Loomed, slot: u32) -> bool {
    matches!(steps::attach(word, slot, of_tag_0), Ok(Entered::First(_)))
}

fn leave(word: &Loomed, guess: Word, slot: u32, ask: Ask) -> Left {
    match steps::leave(word, guess, slot, ask) {
        Gone::Left(left) => left,
        Gone::Multi | Gone::Garbage => panic!("one guard, and nobody writes garbage"),
    }
}

fn now(word: &Loomed) -> Word {
    Word(word.load(Relaxed))
}

#[test]
fn p3_of_an_attach_and_a_last_release_that_frees_never_both_win() {
    for (kind, ask) in [(Kind::Recoverable, Ask::Free), (Kind::Transient, Ask::Park)] {
        explore(move || {
            let start = held_by(&[0], kind);
            let word = Arc::new(Loomed::new(start.0, Without::Nothing));
            let other = word.clone();
            let attacher = thread::spawn(move || attach(&other, 1));
            let left = leave(&word, start, 0, ask);
            let attached = attacher.join().unwrap();
            assert_eq!(left == Left::Freed, !attached, "P3: exactly one of the two wins");
            let end = now(&word);
            if attached {
                assert_eq!((end.state(), end.owners(), end.tag()), (State::Held, 0b10, 0));
                let last = leave(&word, Word::guess(end.remember(), 1), 1, Ask::Park);
                assert_eq!(last, Left::Freed, "the free that was asked for is not forgotten");
            } else {
                assert!(end.is_cached_by(0) && end.tag() == 1, "W3: the tag has changed");
            }
        });
    }
}

#[test]
fn p3_an_attach_beside_a_park_always_finds_the_block() {
    explore(|| {
        let start = held_by(&[0], Kind::Recoverable);
        let word = Arc::new(Loomed::new(start.0, Without::Nothing));
        let other = word.clone();
        let attacher = thread::spawn(move || attach(&other, 1));
        leave(&word, start, 0, Ask::Park);
        assert!(attacher.join().unwrap());
        assert_eq!((now(&word).state(), now(&word).owners()), (State::Held, 0b10));
    });
}

/// A tag that is checked in a step of its own, as an earlier system did.
#[test]
fn the_model_finds_a_tag_that_is_checked_before_and_not_with_the_reference() {
    finds_the_fault(|| {
        let start = held_by(&[0], Kind::Recoverable);
        let word = Arc::new(Loomed::new(start.0, Without::Nothing));
        let other = word.clone();
        let attacher = thread::spawn(move || {
            let checked = of_tag_0(Word(other.load(Acquire))).is_ok();
            checked && {
                other.fetch_or(1 << 1, AcqRel);
                true
            }
        });
        let left = leave(&word, start, 0, Ask::Free);
        let attached = attacher.join().unwrap();
        assert_eq!(left == Left::Freed, !attached, "P3: exactly one of the two wins");
    });
}

/// One writes and publishes, the other reads what it attached.
fn publisher_and_attacher(without: Without) -> impl Fn() + Send + Sync + 'static {
    move || {
        let word = Arc::new(Loomed::new(FREE.cached(0).0, without));
        let data = Arc::new(UnsafeCell::new(0));
        let (other, seen) = (word.clone(), data.clone());
        let attacher = thread::spawn(move || {
            if attach(&other, 1) {
                // SAFETY: loom checks that nobody writes at the same time.
                assert_eq!(seen.with(|data| unsafe { *data }), 7, "P2: complete or not at all");
            }
        });
        // SAFETY: loom checks that nobody reads at the same time.
        data.with_mut(|data| unsafe { *data = 7 });
        steps::publish(&*word, now(&word).published(Kind::Recoverable, false, 0));
        attacher.join().unwrap();
    }
}

#[test]
fn who_attaches_a_published_block_sees_what_was_written_before() {
    explore(publisher_and_attacher(Without::Nothing));
}

#[test]
fn the_model_finds_a_publication_that_does_not_release() {
    finds_the_fault(publisher_and_attacher(Without::Releases));
}

#[test]
fn the_model_finds_an_attach_that_does_not_acquire() {
    finds_the_fault(publisher_and_attacher(Without::Acquires));
}

/// Two holders write, each its own part, and leave; the last may clear both parts.
fn two_leavers(without: Without) -> impl Fn() + Send + Sync + 'static {
    move || {
        let start = held_by(&[0, 1], Kind::Transient);
        let word = Arc::new(Loomed::new(start.0, without));
        let parts = Arc::new([UnsafeCell::new(0), UnsafeCell::new(0)]);
        let work = move |word: &Loomed, parts: &[UnsafeCell<u32>; 2], slot: u32| {
            // SAFETY: loom checks that nobody else touches this part meanwhile.
            parts[slot as usize].with_mut(|part| unsafe { *part = 7 });
            if leave(word, Word::guess(start.remember(), slot), slot, Ask::Park) == Left::Freed {
                // SAFETY: as above.
                parts.iter().for_each(|part| part.with_mut(|part| unsafe { *part = 0 }));
                return 1;
            }
            0
        };
        let (other, others) = (word.clone(), parts.clone());
        let thread = thread::spawn(move || work(&other, &others, 1));
        let frees = work(&word, &parts, 0) + thread.join().unwrap();
        assert_eq!(frees, 1, "W1: one of them is the last");
    }
}

#[test]
fn the_last_to_leave_sees_the_writes_of_all_who_left_before() {
    explore(two_leavers(Without::Nothing));
}

#[test]
fn the_model_finds_a_release_that_does_not_release() {
    finds_the_fault(two_leavers(Without::Releases));
}

#[test]
fn the_model_finds_a_release_that_does_not_acquire() {
    finds_the_fault(two_leavers(Without::Acquires));
}

/// A process with a private table of further guards, as `Inner` has.
struct Process {
    word: Loomed,
    extra: Mutex<u64>,
}

impl Process {
    const SLOT: u32 = 0;

    fn attach(&self, note: fn(&Loomed) -> (Word, bool)) {
        if let Ok(Entered::First(_)) = steps::attach(&self.word, Self::SLOT, of_tag_0) {
            return;
        }
        let mut extra = self.extra.lock().unwrap();
        let (_, again) = note(&self.word);
        *extra += u64::from(again);
    }

    fn release(&self, guess: Word) -> Left {
        match steps::leave(&self.word, guess, Self::SLOT, Ask::Park) {
            Gone::Left(left) => left,
            Gone::Multi => {
                let mut extra = self.extra.lock().unwrap();
                let more = *extra > 0;
                *extra -= u64::from(more);
                let left = steps::leave_multi(&self.word, Self::SLOT, Ask::Park, more);
                left.expect("nobody writes garbage")
            }
            Gone::Garbage => panic!("nobody writes garbage"),
        }
    }
}

/// One thread drops its guard while another takes one more and later drops it.
fn second_guard_beside_a_release(
    note: fn(&Loomed) -> (Word, bool),
) -> impl Fn() + Send + Sync + 'static {
    move || {
        let start = held_by(&[0], Kind::Recoverable);
        let word = Loomed::new(start.0, Without::Nothing);
        let process = Arc::new(Process { word, extra: Mutex::new(0) });
        let other = process.clone();
        let thread = thread::spawn(move || {
            other.attach(note);
            assert!(now(&other.word).is_owned_by(Process::SLOT), "P1: it has a guard");
            other.release(start)
        });
        let mine = process.release(start);
        let theirs = thread.join().unwrap();
        let parked = [mine, theirs].into_iter().filter(|left| *left == Left::Parked).count();
        assert!((1..=2).contains(&parked), "{parked}");
        assert_eq!(
            now(&process.word),
            FREE.parked(false),
            "nobody holds it, nothing is left behind"
        );
        assert_eq!(*process.extra.lock().unwrap(), 0);
    }
}

#[test]
fn a_second_guard_taken_while_the_first_is_dropped_holds_the_block() {
    explore(second_guard_beside_a_release(|word| {
        steps::attach_again(word, Process::SLOT, of_tag_0).expect("recoverable, so it stays")
    }));
}

#[test]
fn the_model_finds_a_second_guard_that_is_not_noted_in_the_word() {
    finds_the_fault(second_guard_beside_a_release(|word| (now(word), true)));
}

#[test]
fn cloning_beside_the_release_of_another_guard_loses_neither() {
    explore(|| {
        // Two guards already: the word says so, and the table has one.
        let start = held_by(&[0], Kind::Recoverable).with_multi();
        let word = Loomed::new(start.0, Without::Nothing);
        let process = Arc::new(Process { word, extra: Mutex::new(1) });
        let other = process.clone();
        let guess = held_by(&[0], Kind::Recoverable);
        let thread = thread::spawn(move || other.release(guess));
        {
            let mut extra = process.extra.lock().unwrap();
            steps::note_multi(&process.word, Process::SLOT).expect("held by the cloner");
            *extra += 1;
        }
        assert_eq!(thread.join().unwrap(), Left::Held);
        assert_eq!(process.release(guess), Left::Held);
        assert_eq!(process.release(guess), Left::Parked);
        assert_eq!(now(&process.word), FREE.parked(false));
    });
}

#[test]
fn p2_an_attach_beside_the_reaper_takes_the_block_of_the_dead_or_finds_it_freed() {
    for kind in [Kind::Recoverable, Kind::Transient] {
        explore(move || {
            let word = Arc::new(Loomed::new(held_by(&[2], kind).0, Without::Nothing));
            let other = word.clone();
            let attacher = thread::spawn(move || attach(&other, 1));
            let reaped = steps::reap(&*word, Word(word.load(Relaxed)), 1 << 2).unwrap();
            let attached = attacher.join().unwrap();
            let end = now(&word);
            match (kind, attached) {
                (Kind::Recoverable, true) => assert_eq!(end, held_by(&[1], kind)),
                (Kind::Recoverable, false) => panic!("a recoverable block is never gone"),
                (Kind::Transient, true) => {
                    assert_eq!((reaped, end), (Some(Reaped::Held), held_by(&[1], kind)));
                }
                (Kind::Transient, false) => {
                    assert_eq!((reaped, end.state()), (Some(Reaped::Freed), State::Free));
                }
            }
        });
    }
}

#[test]
fn p2_a_release_beside_the_reaper_leaves_the_block_to_nobody_and_keeps_it() {
    explore(|| {
        let start = held_by(&[1, 2], Kind::Recoverable);
        let word = Arc::new(Loomed::new(start.0, Without::Nothing));
        let other = word.clone();
        let guess = Word::guess(start.remember(), 1);
        let thread = thread::spawn(move || leave(&other, guess, 1, Ask::Park));
        let reaped = steps::reap(&*word, Word(word.load(Relaxed)), 1 << 2).unwrap();
        let expected = match thread.join().unwrap() {
            Left::Held => (Some(Reaped::Orphaned), State::Orphan),
            Left::Parked => (Some(Reaped::Held), State::Parked),
            Left::Freed => panic!("nobody asked for that"),
        };
        assert_eq!((reaped, now(&word).state()), expected);
    });
}

#[test]
fn r2_of_two_reapers_one_takes_each_block_back() {
    let of_the_dead =
        [FREE.cached(2), held_by(&[2], Kind::Recoverable), held_by(&[2], Kind::Transient)];
    for start in of_the_dead {
        explore(move || {
            let word = Arc::new(Loomed::new(start.0, Without::Nothing));
            let other = word.clone();
            let thread = thread::spawn(move || {
                steps::reap(&*other, Word(other.load(Relaxed)), 1 << 2).unwrap()
            });
            let mine = steps::reap(&*word, Word(word.load(Relaxed)), 1 << 2).unwrap();
            let theirs = thread.join().unwrap();
            assert!(mine.is_none() != theirs.is_none(), "R2: {mine:?} and {theirs:?}");
            assert_eq!(now(&word).owners(), 0);
        });
    }
}
