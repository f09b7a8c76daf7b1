//! S5 to S7: several states at once, helpers, records used again, and the dead.

use super::{
    Without, explore, finds_the_fault,
    pins::{Loom, read, words, write},
    scene::{Record, State, View},
};
use crate::{
    limits::RECORDS_PER_LEASE,
    protocol::{Outcome, Part, Words as _, begin_many, claim, commit, commit_many, logical, pin},
    word::{Id, Plain, Word},
};
use loom::{cell::UnsafeCell, sync::Arc, thread};
use mainstay_shm::Atomic64;
use std::sync::atomic::Ordering::SeqCst;

const SLOTS: usize = 3;
/// Lease 0 and lease 1, each in its first incarnation.
const FIRST: Id = Id(0x1_00);
const SECOND: Id = Id(0x1_01);

/// What a state of the models begins with.
fn first_version() -> Plain {
    Plain::new(1, 0)
}

/// Two states with data in their slots, and a record for each of two leases.
#[derive(Clone)]
struct Two {
    states: [Arc<State<Loom>>; 2],
    data: [Arc<Vec<UnsafeCell<u64>>>; 2],
    records: Arc<Vec<Record<Loom>>>,
    without: Without,
}

impl Two {
    fn new(without: Without) -> Self {
        let state = |id| Arc::new(State::new(id, SLOTS, &[FIRST, SECOND], words(without)));
        let data =
            || Arc::new((0..SLOTS).map(|slot| UnsafeCell::new(u64::from(slot == 0))).collect());
        Self {
            states: [state(1), state(2)],
            data: [data(), data()],
            records: Arc::new((0..2).map(|_| Record::new(words(without))).collect()),
            without,
        }
    }

    /// As a process sees it that maps the first `mapped` states.
    fn view(&self, mapped: usize) -> View<Loom> {
        View {
            records: self.records.clone(),
            states: self.states[..mapped].to_vec(),
            deaths: Box::new(|_| false),
            unused: Record::new(words(self.without)),
            sees_no_records: false,
        }
    }

    /// A slot of state `index` with version 2 in it, for `me`.
    fn draft(&self, view: &View<Loom>, index: usize, me: Id, base: Plain) -> u32 {
        let state = &self.states[index];
        let slot = claim(view, &**state, me, 1 + me.lease()).expect("two writers, three slots");
        write(&self.data[index], slot, base.version() + 1);
        state.seal(slot, base.version() + 1);
        slot
    }

    /// Commits the next version of both states; returns how many that made of each.
    fn commit_both(&self, view: &View<Loom>, me: Id, bases: [Plain; 2]) -> u64 {
        let slots = [0, 1].map(|index| self.draft(view, index, me, bases[index]));
        let parts = [0, 1].map(|index| Part {
            state: &*self.states[index],
            base: bases[index],
            slot: slots[index],
        });
        let outcome = commit_many(view, me.lease() * RECORDS_PER_LEASE, &parts);
        for (state, slot) in self.states.iter().zip(slots) {
            state.release(slot);
        }
        u64::from(outcome == Outcome::Committed)
    }

    /// Commits the next version of the first state.
    fn commit_first(&self, view: &View<Loom>, me: Id, base: Plain) -> u64 {
        let slot = self.draft(view, 0, me, base);
        let outcome = commit(view, &*self.states[0], base, slot);
        self.states[0].release(slot);
        u64::from(outcome == Outcome::Committed)
    }

    /// Version and content of both states, when nobody is at work any more.
    fn end(&self) -> [u64; 2] {
        [0, 1].map(|index| {
            let state = &self.states[index];
            // A reference that came too late may be left: it means what it is installed over.
            let word = Word(state.current().load(SeqCst));
            let view = self.view(2);
            let plain = logical(&view, &**state, word).expect("there is a version");
            let version = plain.version();
            assert_eq!(read(&self.data[index], plain.slot()), version, "data of the version");
            version
        })
    }
}

/// One commits both, another reads both.
fn reader_of_both(looks_again: bool) -> impl Fn() + Send + Sync + 'static {
    move || {
        let two = Two::new(Without::Nothing);
        let theirs = two.clone();
        let reader = thread::spawn(move || {
            let view = theirs.view(0);
            let pinned = [0, 1].map(|index| {
                let state = &theirs.states[index];
                pin(&view, &**state, state.announced(0)).expect("there is a version")
            });
            let is_current = |index: usize| {
                let state = &theirs.states[index];
                let word = Word(state.current().load(SeqCst));
                logical(&view, &**state, word) == Ok(pinned[index])
            };
            // What `together` does before it gives out what it has pinned.
            if !looks_again || (is_current(0) && is_current(1)) {
                let seen = [0, 1].map(|index| read(&theirs.data[index], pinned[index].slot()));
                assert_eq!(seen[0], seen[1], "S5: both of one instant");
            }
        });
        assert_eq!(two.commit_both(&two.view(2), SECOND, [first_version(); 2]), 1);
        reader.join().unwrap();
        assert_eq!(two.end(), [2, 2]);
    }
}

#[test]
fn s5_a_reader_of_two_states_sees_both_change_at_once() {
    explore(2, reader_of_both(true));
}

#[test]
fn the_model_finds_a_reader_that_does_not_look_again() {
    finds_the_fault(2, reader_of_both(false));
}

/// One commits both states, another only the first, and meets the record of the other.
fn single_beside_both(
    mapped: usize,
    spoil: fn(&mut View<Loom>),
) -> impl Fn() + Send + Sync + 'static {
    move || {
        let two = Two::new(Without::Nothing);
        let theirs = two.clone();
        let other = thread::spawn(move || {
            let mut view = theirs.view(mapped);
            spoil(&mut view);
            theirs.commit_first(&view, FIRST, first_version())
        });
        let both = two.commit_both(&two.view(2), SECOND, [first_version(); 2]);
        let first = other.join().unwrap();
        assert_eq!(both + first, 1, "S2: of two commits on one version one succeeds");
        assert_eq!(two.end(), [2, 1 + both], "S5: all of it or nothing");
    }
}

#[test]
fn s5_who_meets_a_record_and_maps_its_states_completes_it() {
    explore(2, single_beside_both(2, |_| {}));
}

#[test]
fn s5_who_meets_a_record_and_does_not_map_its_states_ends_it_without_harm() {
    explore(2, single_beside_both(1, |_| {}));
}

#[test]
fn the_model_finds_a_committer_that_takes_every_record_for_stale() {
    finds_the_fault(2, single_beside_both(2, |view| view.sees_no_records = true));
}

#[test]
fn s5_of_two_commits_of_the_same_two_states_exactly_one_succeeds() {
    explore(2, || {
        let two = Two::new(Without::Nothing);
        let theirs = two.clone();
        let other =
            thread::spawn(move || theirs.commit_both(&theirs.view(2), FIRST, [first_version(); 2]));
        let mine = two.commit_both(&two.view(2), SECOND, [first_version(); 2]);
        assert_eq!(mine + other.join().unwrap(), 1);
        assert_eq!(two.end(), [2, 2]);
    });
}

#[test]
fn s6_a_record_that_is_used_again_does_not_revive_what_it_was_used_for() {
    explore(2, || {
        let two = Two::new(Without::Nothing);
        let theirs = two.clone();
        // May hold the first use in its hands while the owner is in the second.
        let other =
            thread::spawn(move || theirs.commit_first(&theirs.view(2), FIRST, first_version()));
        let view = two.view(2);
        let mut both = 0;
        for _ in 0..2 {
            let bases = [0, 1].map(|index: usize| {
                let state = &two.states[index];
                loop {
                    let word = Word(state.current().load(SeqCst));
                    let plain = logical(&view, &**state, word).expect("there is a version");
                    if state.current().load(SeqCst) == word.0 {
                        return plain;
                    }
                }
            });
            both += two.commit_both(&view, SECOND, bases);
        }
        let first = other.join().unwrap();
        assert_eq!(two.end(), [1 + both + first, 1 + both]);
    });
}

/// A tenant died when its record was undecided and installed in the first state. One process takes
/// its slot in the second state, and writes there; another meets the record in the first.
fn heir_beside_helper(ends_records: bool) -> impl Fn() + Send + Sync + 'static {
    move || {
        let two = Two::new(Without::Nothing);
        let dying = Id(0x1_01);
        let slots = [0, 1].map(|index| two.draft(&two.view(2), index, dying, first_version()));
        let parts = [0, 1].map(|index| Part {
            state: &*two.states[index],
            base: first_version(),
            slot: slots[index],
        });
        begin_many(&two.view(2), dying.lease() * RECORDS_PER_LEASE, &parts, 1);
        let theirs = two.clone();
        let helper = thread::spawn(move || {
            let mut view = theirs.view(2);
            view.deaths = Box::new(move |id| id == dying);
            let base = first_version();
            // Its own slot in the first state is the last that is left.
            let slot = claim(&view, &*theirs.states[0], FIRST, 0)?;
            write(&theirs.data[0], slot, base.version() + 1);
            theirs.states[0].seal(slot, base.version() + 1);
            let outcome = commit(&view, &*theirs.states[0], base, slot);
            theirs.states[0].release(slot);
            Some(outcome)
        });
        // All slots of the second state but that of the dead are in use.
        let mut view = two.view(2);
        view.deaths = Box::new(move |id| id == dying);
        view.sees_no_records = !ends_records;
        let third = claim(&view, &*two.states[1], FIRST, 0);
        let heir = claim(&view, &*two.states[1], FIRST, 0);
        for slot in third.into_iter().chain(heir) {
            // Half of something, never committed.
            write(&two.data[1], slot, 77);
        }
        let _ = helper.join().unwrap();
        let [first, second] = two.end();
        assert!(first <= 2 && second <= 2, "{first} {second}");
    }
}

#[test]
fn s3_a_slot_of_the_dead_is_not_published_by_a_helper_after_it_was_taken() {
    explore(2, heir_beside_helper(true));
}

#[test]
fn the_model_finds_slots_of_the_dead_taken_before_their_records_are_ended() {
    finds_the_fault(2, heir_beside_helper(false));
}
