//! F1 to F3: claiming, giving back and repairing hints.

use super::{Loomed, Without, explore, finds_the_fault};
use crate::{
    freelist::{claim, give_back, repair_hints},
    word::{State, Word},
};
use loom::{sync::Arc, thread};
use mainstay_shm::Atomic64;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};

/// Two blocks of one group.
struct Group {
    hints: Loomed,
    words: [Loomed; 2],
}

impl Group {
    fn new(hints: u64, words: [Word; 2], without: Without) -> Arc<Self> {
        let words = words.map(|word| Loomed::new(word.0, without));
        Arc::new(Self { hints: Loomed::new(hints, without), words })
    }

    fn claim(&self, slot: u32) -> u64 {
        let mut won = 0;
        claim(&self.hints, &self.words, slot, |place| won |= 1 << place);
        won
    }

    fn states(&self) -> [State; 2] {
        [0, 1].map(|place| Word(self.words[place].load(Relaxed)).state())
    }

    /// At rest, among the living: a free block can be found.
    fn assert_nothing_is_hidden(&self) {
        let taken = self.hints.load(Relaxed);
        for (place, state) in self.states().into_iter().enumerate() {
            let hidden = state == State::Free && taken & 1 << place != 0;
            assert!(!hidden, "F2: block {place} is free, and its hint says taken");
        }
    }
}

const FREE: Word = Word(0);

fn two_claimers(first: u32, second: u32) {
    explore(move || {
        let group = Group::new(0, [FREE; 2], Without::Nothing);
        let other = group.clone();
        let thread = thread::spawn(move || other.claim(second));
        let mine = group.claim(first);
        let theirs = thread.join().unwrap();
        assert_eq!(mine & theirs, 0, "F1: handed out twice");
        assert_eq!(mine | theirs, 0b11, "F2: lost");
        for (place, word) in group.words.iter().enumerate() {
            let owner = if mine & 1 << place != 0 { first } else { second };
            assert!(Word(word.load(Relaxed)).is_cached_by(owner));
        }
    });
}

#[test]
fn two_processes_that_claim_at_once_get_disjoint_blocks_and_all_of_them() {
    two_claimers(0, 1);
}

#[test]
fn two_threads_of_one_process_that_claim_at_once_get_disjoint_blocks() {
    two_claimers(0, 0);
}

/// One gives both blocks back, another claims at the same time. `hints` may be wrong about them.
fn giver_and_claimer(
    hints: u64,
    without: Without,
    give: fn(&Loomed, &[Loomed], u64),
) -> impl Fn() + Send + Sync + 'static {
    move || {
        let group = Group::new(hints, [FREE.cached(0); 2], without);
        let other = group.clone();
        let thread = thread::spawn(move || other.claim(1));
        give(&group.hints, &group.words, 0b11);
        let won = thread.join().unwrap();
        for (place, state) in group.states().into_iter().enumerate() {
            let expected = if won & 1 << place != 0 { State::Cached } else { State::Free };
            assert_eq!(state, expected, "F1: block {place}");
        }
        group.assert_nothing_is_hidden();
    }
}

#[test]
fn a_block_given_back_while_another_claims_is_claimed_or_can_be_found() {
    for hints in [0b11, 0b10, 0b00] {
        explore(giver_and_claimer(hints, Without::Nothing, give_back));
    }
}

#[test]
fn the_model_finds_a_hint_that_is_cleared_before_the_word_is_free() {
    fn hint_first(hints: &Loomed, words: &[Loomed], places: u64) {
        hints.fetch_and(!places, AcqRel);
        for word in words {
            word.store(Word(word.load(Relaxed)).freed_same_tag().0, Release);
        }
    }
    finds_the_fault(giver_and_claimer(0b11, Without::Nothing, hint_first));
}

#[test]
fn the_model_finds_a_give_back_that_does_not_release() {
    finds_the_fault(giver_and_claimer(0b11, Without::Releases, give_back));
}

#[test]
fn the_model_finds_a_claim_that_does_not_acquire() {
    finds_the_fault(giver_and_claimer(0b11, Without::Acquires, give_back));
}

#[test]
fn repairing_hints_beside_a_giver_and_a_claimer_hides_and_doubles_nothing() {
    explore(|| {
        // Block 0 is hidden since a death; block 1 is being given back.
        let group = Group::new(0b11, [FREE, FREE.cached(0)], Without::Nothing);
        let (claimer, reaper) = (group.clone(), group.clone());
        let claimer = thread::spawn(move || claimer.claim(1));
        let reaper = thread::spawn(move || repair_hints(&reaper.hints, &reaper.words));
        give_back(&group.hints, &group.words, 0b10);
        let won = claimer.join().unwrap();
        let repaired = reaper.join().unwrap();
        assert!((1..=2).contains(&repaired), "block 0, and maybe 1 in the middle of its way");
        for (place, state) in group.states().into_iter().enumerate() {
            let expected = if won & 1 << place != 0 { State::Cached } else { State::Free };
            assert_eq!(state, expected, "F1: block {place}");
        }
        group.assert_nothing_is_hidden();
    });
}

#[test]
fn two_claimers_beside_a_repair_never_get_the_same_block() {
    explore(|| {
        let group = Group::new(0b10, [FREE, FREE.cached(0)], Without::Nothing);
        let (claimer, reaper) = (group.clone(), group.clone());
        let claimer = thread::spawn(move || claimer.claim(1));
        let reaper = thread::spawn(move || repair_hints(&reaper.hints, &reaper.words));
        let mine = group.claim(2);
        let theirs = claimer.join().unwrap();
        reaper.join().unwrap();
        assert_eq!((mine & theirs, mine | theirs), (0, 1), "F1: exactly one gets block 0");
        assert!(Word(group.words[1].load(Relaxed)).is_cached_by(0), "W2: only its owner's");
    });
}
