//! S1 to S7 under random schedules, with a process that dies at any load or store and whose lease
//! has a new tenant afterwards. Few slots, so that they are used again and again; one process maps
//! only two of the three states.

use super::scene::{Checker, Record, State, View, at_rest};
use crate::{
    limits::RECORDS_PER_LEASE,
    protocol::{
        Outcome, Part, Words as _, World as _, claim, commit, commit_many, current, end_records,
        finish_committed, logical, pin, scavenge, take_line,
    },
    word::{Id, Phase, Plain, Status, Word},
};
use mainstay_base::Rng;
use mainstay_shm::Atomic64;
use shuttle::{
    Config, Runner,
    scheduler::RandomScheduler,
    sync::{Arc, atomic::AtomicU64},
    thread,
};
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::Ordering::{self, SeqCst},
};

const PROCESSES: u32 = 3;
const STATES: usize = 3;
const SLOTS: usize = 5;
/// Operations of a process.
const WORK: u32 = 4;
/// What all balances are together, in every instant.
const SUM: u64 = 100 * STATES as u64;
/// A process that is to die does so at one of so many loads and stores.
const STEPS: u64 = 150;

shuttle::thread_local! {
    /// Loads and stores that this process has left; 0 means no end.
    static LIFE: Cell<u64> = Cell::new(0);
}

/// How a process leaves that was killed: nothing is cleaned up on the way, since the protocol has
/// no destructors.
struct Killed;

fn step() {
    LIFE.with(|life| match life.get() {
        0 => {}
        1 => {
            life.set(0);
            resume_unwind(Box::new(Killed));
        }
        left => life.set(left - 1),
    });
}

/// A shared word in shuttle, which knows sequential consistency only.
struct Shuttled(AtomicU64);

impl Atomic64 for Shuttled {
    fn load(&self, _: Ordering) -> u64 {
        step();
        self.0.load(SeqCst)
    }

    fn store(&self, value: u64, _: Ordering) {
        step();
        self.0.store(value, SeqCst);
    }

    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        _: Ordering,
        _: Ordering,
    ) -> Result<u64, u64> {
        step();
        self.0.compare_exchange(current, new, SeqCst, SeqCst)
    }

    fn fetch_or(&self, mask: u64, _: Ordering) -> u64 {
        step();
        self.0.fetch_or(mask, SeqCst)
    }

    fn fetch_and(&self, mask: u64, _: Ordering) -> u64 {
        step();
        self.0.fetch_and(mask, SeqCst)
    }
}

fn word(value: u64) -> Shuttled {
    Shuttled(AtomicU64::new(value))
}

struct Shuttle;

impl Checker for Shuttle {
    type Word = Shuttled;
    type Shared<T> = Arc<T>;

    fn fence(_: Ordering) {}

    fn pause() {
        thread::yield_now();
    }
}

/// What is broken on purpose.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    None,
    /// Claims do not look at pins.
    BlindClaims,
    /// A reader of several states does not look again.
    NoSecondLook,
    /// It does, but takes a record that has moved on for an aborted one.
    DerivesWithoutLookingAgain,
    /// A helper installs the rest elsewhere, and decides.
    DecidesWithoutInstall,
    /// A new tenant uses records without finishing what is committed in them.
    RecyclesCommitted,
}

/// What is in a slot: the version once more, and a balance.
type Data = [[Shuttled; 2]; SLOTS];

struct Shared {
    states: [Arc<State<Shuttle>>; STATES],
    data: [Data; STATES],
    records: Arc<Vec<Record<Shuttle>>>,
    /// The incarnation of each lease that is dead.
    dead: Arc<[AtomicU64; PROCESSES as usize]>,
    fault: Fault,
}

impl Shared {
    fn new(fault: Fault) -> Self {
        let ids: Vec<Id> = (0..PROCESSES).map(|lease| Id::new(1, lease)).collect();
        let states = std::array::from_fn(|index| {
            let mut state = State::new(index as u64 + 1, SLOTS, &ids, word);
            state.is_blind = fault == Fault::BlindClaims;
            Arc::new(state)
        });
        let slot = |slot: usize| if slot == 0 { [word(1), word(100)] } else { [word(0), word(0)] };
        Self {
            states,
            data: std::array::from_fn(|_| std::array::from_fn(slot)),
            records: Arc::new((0..PROCESSES).map(|_| Record::new(word)).collect()),
            dead: Arc::new(std::array::from_fn(|_| AtomicU64::new(0))),
            fault,
        }
    }

    /// As a process sees it that maps the first `mapped` states.
    fn view(&self, mapped: usize) -> View<Shuttle> {
        let mut states = self.states[..mapped].to_vec();
        if self.fault == Fault::DecidesWithoutInstall {
            states[1..].iter_mut().for_each(|state| *state = decoy(state));
        }
        let dead = self.dead.clone();
        View {
            records: self.records.clone(),
            states,
            deaths: Box::new(move |id| id.incarnation() <= dead[id.lease() as usize].load(SeqCst)),
            unused: Record::new(word),
            sees_no_records: false,
        }
    }
}

/// A state of the same id and version that nobody else looks at.
fn decoy(state: &State<Shuttle>) -> Arc<State<Shuttle>> {
    let mut decoy = State::new(state.id(), SLOTS, &[], word);
    decoy.set_current(word(state.current().0.load(SeqCst)));
    Arc::new(decoy)
}

/// What a process has done for certain, and what it was at when it died.
#[derive(Clone, Copy, Default, Debug)]
struct Done {
    commits: [u64; STATES],
    doing: [bool; STATES],
}

struct Process<'a> {
    shared: &'a Shared,
    view: View<Shuttle>,
    me: Id,
    lines: [u32; STATES],
    mapped: usize,
    rng: Rng,
    done: &'a mut Done,
}

impl<'a> Process<'a> {
    fn new(shared: &'a Shared, me: Id, mapped: usize, seed: u64, done: &'a mut Done) -> Self {
        let rng = Rng::seeded(seed);
        Self { view: shared.view(mapped), shared, me, lines: [me.lease(); 3], mapped, rng, done }
    }

    /// What a new tenant of a lease does before anything else.
    fn take_over(&mut self) {
        let record = self.me.lease() * RECORDS_PER_LEASE;
        if Status(self.view.status(record).load(SeqCst)).phase() == Phase::Undecided {
            end_records(&self.view, self.me.lease());
        }
        if self.shared.fault != Fault::RecyclesCommitted {
            // Somebody who maps all states finishes what is committed.
            let all = self.shared.view(STATES);
            assert!(finish_committed(&all, record), "S6: all of its states are mapped");
        }
        for (index, state) in self.shared.states.iter().enumerate() {
            let line = take_line(&self.view, &**state, self.me, PROCESSES, |_| {});
            self.lines[index] = line.expect("S3: the line of the tenant before is free");
        }
    }

    fn work(&mut self) {
        for _ in 0..WORK {
            let kind = match self.shared.fault {
                // Needs a reader at one exact place of a commit: so they do nothing else.
                Fault::DerivesWithoutLookingAgain => 1 + u64::from(self.me.lease() != 1),
                _ => self.rng.below(4),
            };
            match kind {
                0 => self.touch_one(),
                1 => self.look_at_all(),
                _ => self.transfer(),
            }
        }
    }

    /// What a process does that ends in good order.
    fn leave(self) {
        for (state, line) in self.shared.states.iter().zip(self.lines) {
            state.unpin(line);
            state.keeper(line).store(0, SeqCst);
        }
    }

    fn state(&self, index: usize) -> &'a State<Shuttle> {
        &self.shared.states[index]
    }

    fn pin(&self, index: usize) -> Plain {
        let state = self.state(index);
        let line = state.announced(self.lines[index]);
        pin(&self.view, state, line).expect("there is a version")
    }

    /// The balance in a version that is pinned.
    fn balance(&self, index: usize, plain: Plain) -> u64 {
        let [version, balance] = &self.shared.data[index][plain.slot() as usize];
        let (version, balance) = (version.load(SeqCst), balance.load(SeqCst));
        assert_eq!(version, plain.version(), "S1: a pinned version is whole");
        balance
    }

    /// A draft of the next version; none when all slots are in use.
    fn draft(&self, index: usize, base: Plain, balance: u64) -> Option<u32> {
        let state = self.state(index);
        let slot = claim(&self.view, state, self.me, base.slot() + 1)?;
        let [version, place] = &self.shared.data[index][slot as usize];
        version.store(base.version() + 1, SeqCst);
        place.store(balance, SeqCst);
        state.seal(slot, base.version() + 1);
        Some(slot)
    }

    /// A new version of one state with the same balance.
    fn touch_one(&mut self) {
        let index = self.rng.below(self.mapped as u64) as usize;
        let base = self.pin(index);
        let balance = self.balance(index, base);
        let slot = self.draft(index, base, balance);
        self.state(index).unpin(self.lines[index]);
        let Some(slot) = slot else { return };
        self.done.doing[index] = true;
        let outcome = commit(&self.view, self.state(index), base, slot);
        self.settle(&[index], outcome);
        self.state(index).release(slot);
    }

    /// Moves one from a state to another; a third is only to be unchanged.
    fn transfer(&mut self) {
        let from = self.rng.below(self.mapped as u64) as usize;
        let to = (from + 1 + self.rng.below(self.mapped as u64 - 1) as usize) % self.mapped;
        let third = (0..self.mapped).find(|index| ![from, to].contains(index));
        let third = third.filter(|_| self.rng.below(2) == 0);
        let mut parts = Vec::new();
        for (index, change) in
            [(from, Some(-1)), (to, Some(1))].into_iter().chain(third.map(|i| (i, None)))
        {
            let base = self.pin(index);
            let balance = self.balance(index, base);
            let slot = match change {
                Some(change) => self.draft(index, base, balance.wrapping_add_signed(change)),
                None => Some(base.slot()),
            };
            self.state(index).unpin(self.lines[index]);
            match slot {
                Some(slot) => parts.push((index, base, slot)),
                None => break,
            }
        }
        let is_complete = parts.len() == 2 + usize::from(third.is_some());
        parts.sort_unstable_by_key(|(index, ..)| *index);
        if is_complete {
            let record = self.me.lease() * RECORDS_PER_LEASE;
            let list: Vec<Part<'_, State<Shuttle>>> = parts
                .iter()
                .map(|(index, base, slot)| Part {
                    state: self.state(*index),
                    base: *base,
                    slot: *slot,
                })
                .collect();
            self.done.doing[from] = true;
            self.done.doing[to] = true;
            let outcome = commit_many(&self.view, record, &list);
            self.settle(&[from, to], outcome);
        }
        for (index, base, slot) in parts {
            if slot != base.slot() {
                self.state(index).release(slot);
            }
        }
    }

    fn settle(&mut self, changed: &[usize], outcome: Outcome) {
        assert!(matches!(outcome, Outcome::Committed | Outcome::Conflict), "{outcome:?}");
        for index in changed {
            self.done.doing[*index] = false;
            self.done.commits[*index] += u64::from(outcome == Outcome::Committed);
        }
    }

    /// Reads all states of one instant, as `together` does.
    fn look_at_all(&mut self) {
        if self.mapped < STATES {
            return;
        }
        let mut pinned: [Plain; STATES] = std::array::from_fn(|index| self.pin(index));
        loop {
            let mut settled = true;
            for (index, plain) in pinned.iter_mut().enumerate() {
                if !self.is_current(index, *plain) {
                    *plain = self.pin(index);
                    settled = false;
                }
            }
            if settled || self.shared.fault == Fault::NoSecondLook {
                break;
            }
        }
        let balances = pinned.iter().enumerate().map(|(index, plain)| self.balance(index, *plain));
        assert_eq!(balances.sum::<u64>(), SUM, "S5: all of one instant");
        for index in 0..STATES {
            self.state(index).unpin(self.lines[index]);
        }
    }

    fn is_current(&self, index: usize, plain: Plain) -> bool {
        let (view, state) = (&self.view, self.state(index));
        if self.shared.fault == Fault::DerivesWithoutLookingAgain {
            let word = Word(state.current().load(SeqCst));
            return logical(view, state, word) == Ok(plain);
        }
        current(view, state) == Ok(plain)
    }
}

/// Runs `body` as a process that is killed after `life` loads and stores; whether it was.
fn lives(life: u64, body: impl FnOnce()) -> bool {
    LIFE.with(|left| left.set(life));
    let ended = catch_unwind(AssertUnwindSafe(body));
    LIFE.with(|left| left.set(0));
    match ended {
        Ok(()) => true,
        Err(why) if why.is::<Killed>() => false,
        Err(panic) => resume_unwind(panic),
    }
}

fn storm(fault: Fault) {
    let shared = Arc::new(Shared::new(fault));
    let seed = shuttle::rand::Rng::r#gen::<u64>(&mut shuttle::rand::thread_rng());
    let mut rng = Rng::seeded(seed);
    let victim = rng.below(u64::from(PROCESSES)) as u32;
    let threads: Vec<_> = (0..PROCESSES)
        .map(|lease| {
            let shared = shared.clone();
            let (seed, life) = (rng.next_u64(), 1 + rng.below(STEPS));
            let mapped = if lease == 2 { 2 } else { STATES };
            thread::spawn(move || {
                let mut done = Done::default();
                let life = if lease == victim { life } else { 0 };
                let alive = lives(life, || {
                    let me = Id::new(1, lease);
                    let mut process = Process::new(&shared, me, mapped, seed, &mut done);
                    process.work();
                    process.leave();
                });
                let mut heirs = Done::default();
                if !alive {
                    shared.dead[lease as usize].store(1, SeqCst);
                    let me = Id::new(2, lease);
                    let mut heir = Process::new(&shared, me, mapped, seed ^ 1, &mut heirs);
                    heir.take_over();
                    heir.work();
                    heir.leave();
                }
                [done, heirs]
            })
        })
        .collect();
    let done: Vec<Done> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    check(&shared, &done);
}

/// What must hold when all is over.
fn check(shared: &Shared, done: &[Done]) {
    let view = shared.view(STATES);
    let mut touched = Done::default();
    let mut last = Process::new(shared, Id::new(3, 0), STATES, 0, &mut touched);
    for (index, state) in shared.states.iter().enumerate() {
        scavenge(&view, &**state);
        assert!(
            (0..SLOTS as u32).all(|slot| state.owner(slot).load(SeqCst) == 0),
            "S3: no claim left"
        );
        let line = take_line(&view, &**state, last.me, PROCESSES, |_| {});
        last.lines[index] = line.expect("S3: lines of the dead are free");
    }
    // Nobody is stuck: whoever comes next reads, and commits at the first try.
    last.look_at_all();
    for index in 0..STATES {
        let base = last.pin(index);
        let balance = last.balance(index, base);
        let slot = last.draft(index, base, balance).expect("nobody else is there");
        let outcome = commit(&view, last.state(index), base, slot);
        assert_eq!(outcome, Outcome::Committed, "what the dead have begun blocks nobody");
        last.state(index).unpin(last.lines[index]);
    }
    let versions: [u64; STATES] =
        std::array::from_fn(|index| at_rest(&shared.states[index]).version() - 2);
    let certain: [u64; STATES] =
        std::array::from_fn(|index| done.iter().map(|done| done.commits[index]).sum());
    let missing: [u64; STATES] =
        std::array::from_fn(|index| versions[index].wrapping_sub(certain[index]));
    let doing = done.iter().map(|done| done.doing).find(|doing| doing.contains(&true));
    let all = doing.unwrap_or_default().map(u64::from);
    assert!(missing == [0; STATES] || missing == all, "S2, S5: {missing:?} of {all:?}, {done:?}");
}

fn run(fault: Fault, schedules: usize) {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    Runner::new(RandomScheduler::new(schedules), config).run(move || storm(fault));
}

#[test]
fn s3_a_death_at_any_step_of_three_processes_loses_tears_and_blocks_nothing() {
    run(Fault::None, 3_000);
}

#[test]
fn the_model_finds_each_fault_under_random_schedules() {
    let faults = [
        Fault::BlindClaims,
        Fault::NoSecondLook,
        Fault::DerivesWithoutLookingAgain,
        Fault::DecidesWithoutInstall,
        Fault::RecyclesCommitted,
    ];
    for fault in faults {
        let found = catch_unwind(AssertUnwindSafe(|| run(fault, 100_000))).is_err();
        assert!(found, "{fault:?} must be found");
    }
}
