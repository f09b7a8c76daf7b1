//! A folder of states whose shared memory is scribbled on, at random, while it is used.
//!
//! What may come of it: an error, wrong data, a state that has to be made anew. What may not: a
//! panic, an endless loop, an access outside of the files; and what was not scribbled on stays
//! usable, and the folder can be used again afterwards.
//!
//! The scribbler has mappings of its own of the same files, as a process gone mad would. The
//! offsets are those of `docs/format/state.md`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use mainstay_base::Rng;
use mainstay_shm::{Access, Backing, Mapping};
use mainstay_state::{
    Domain, Error, MultiTransaction, Result, RetryPolicy, State, StateOptions, together,
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

const STATES: usize = 3;
const NAMES: [&str; STATES] = ["first", "second", "third"];
const SIZE: usize = 200;
const SLOTS: u32 = 4;
const SLOTS_MAX: u32 = 6;

/// In a state's file: the word and what is behind it, the slots' lines.
const WORDS: usize = 4_096;
const SLOT_LINES: usize = WORDS + 4_352;
/// In a pin table: two words, then the lines.
const PIN_WORDS: usize = 64;
const PIN_LINES: usize = 192;
/// In the leases: the entries.
const LEASES: usize = 64;
/// In the records: 320 bytes each, of which the first 64 are its head.
const RECORDS: usize = 64;
const RECORD_LEN: usize = 320;

fn options() -> StateOptions {
    StateOptions::new().size(SIZE).size_limit(16_384).slots(SLOTS).slots_max(SLOTS_MAX)
}

fn writers(domain: &Domain) -> Vec<State<[u8]>> {
    NAMES.iter().map(|name| options().writer(domain, name).unwrap()).collect()
}

// ---- the scribbler ----

struct Scribbler {
    states: Vec<Mapping>,
    pins: Vec<Mapping>,
    leases: Mapping,
    records: Mapping,
    rng: Rng,
}

fn map(path: &Path) -> Mapping {
    let backing = Backing::open(path, Access::ReadWrite).unwrap();
    let mapping = Mapping::new(&backing, backing.len().unwrap(), Access::ReadWrite).unwrap();
    mapping.refresh(&backing).unwrap();
    mapping
}

impl Scribbler {
    fn on(folder: &Path, seed: u64) -> Self {
        let paths: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let maps = |part: &str| -> Vec<Mapping> {
            let is_it = |path: &&std::path::PathBuf| path.to_str().unwrap().contains(part);
            paths.iter().filter(is_it).map(|path| map(path)).collect()
        };
        let (states, pins) = (maps(".state"), maps(".pins-"));
        assert_eq!((states.len(), pins.len()), (STATES, STATES));
        let (leases, records) = (map(&folder.join(".leases")), map(&folder.join(".records")));
        Self { states, pins, leases, records, rng: Rng::seeded(seed) }
    }

    /// One store somewhere it hurts.
    fn scribble(&mut self) {
        let which = self.rng.below(STATES as u64) as usize;
        match self.rng.below(10) {
            // The word is what everything is decided by.
            0..=2 => {
                let word = self.word();
                store(&self.states[which], WORDS, word);
            }
            3 => {
                // Also what says where it is kept: nothing is written there (D4).
                let at = [64, 128, 136, 144, 192, 200, 208, 256].map(|at| WORDS + at);
                let at = at[self.rng.below(8) as usize];
                let value = self.number();
                store(&self.states[which], at, value);
            }
            4 | 5 => {
                let slot = self.rng.below(SLOTS_MAX.into()) as usize;
                let at = SLOT_LINES + 64 * slot + 8 * self.rng.below(3) as usize;
                let value = self.owner_or_number();
                store(&self.states[which], at, value);
            }
            6 => {
                let line = self.rng.below(6) as usize;
                let at = PIN_LINES + 64 * line + 8 * self.rng.below(2) as usize;
                let value = self.owner_or_number();
                store(&self.pins[which], at, value);
            }
            7 => {
                let at = PIN_WORDS + 64 * self.rng.below(2) as usize;
                let value = self.number();
                store(&self.pins[which], at, value);
            }
            8 => {
                let at = RECORDS + RECORD_LEN * self.rng.below(10) as usize;
                let at =
                    at + if self.rng.below(2) == 0 { 0 } else { 8 * self.rng.below(16) as usize };
                let value = self.record_word();
                store(&self.records, at, value);
            }
            _ => {
                let at = LEASES + 8 * self.rng.below(3 * 8) as usize;
                let value = self.number();
                store(&self.leases, at, value);
            }
        }
    }

    fn number(&mut self) -> u64 {
        match self.rng.below(5) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.rng.below(64),
            3 => self.rng.below(10),
            _ => self.rng.next_u64(),
        }
    }

    /// A version and slot, a reference into a record, or garbage.
    fn word(&mut self) -> u64 {
        match self.rng.below(4) {
            0 => self.rng.below(20) << 8 | self.rng.below(u64::from(SLOTS_MAX) + 2),
            1 | 2 => {
                let slots = self.rng.below(8) << 57 | self.rng.below(8) << 51;
                1 << 63 | slots | self.rng.below(10) << 40 | self.rng.below(4)
            }
            _ => self.number(),
        }
    }

    /// Whose something is: this process's, another's, nobody's; or garbage.
    fn owner_or_number(&mut self) -> u64 {
        if self.rng.below(2) == 0 {
            return self.number();
        }
        self.rng.below(3) << 8 | self.rng.below(3)
    }

    /// A status, a count, a base word, or a state id with its slot.
    fn record_word(&mut self) -> u64 {
        match self.rng.below(3) {
            0 => self.rng.below(16),
            1 => self.word(),
            _ => self.number(),
        }
    }
}

fn store(mapping: &Mapping, at: usize, value: u64) {
    mapping.write(at, &value.to_le_bytes()).unwrap();
}

// ---- the work ----

/// Whatever an operation says is right here, if it says it in words.
#[track_caller]
fn told<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(error.to_string().len() > 20, "{error}");
            None
        }
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

/// One operation, whichever.
fn work(domain: &Domain, states: &[State<[u8]>], rng: &mut Rng) {
    let state = &states[rng.below(STATES as u64) as usize];
    let policy = RetryPolicy::default().tries(3);
    match rng.below(16) {
        0 | 1 => {
            let snapshot = told(state.read());
            assert!(snapshot.is_none_or(|snapshot| sum(&snapshot) < 1 << 30));
        }
        2 => {
            let _ = told(state.copy_to(&mut [0; 64]));
        }
        3 => {
            let _ = told(state.replace(&[rng.below(256) as u8; SIZE]));
        }
        4 | 5 => {
            told(state.transact(policy, |transaction| {
                let bytes = transaction.bytes_mut()?;
                bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
                Ok(())
            }));
        }
        6..=8 => {
            let transacted = MultiTransaction::transact(policy, |transaction| {
                transaction.bytes_mut(&states[0])?.fill(3);
                sum(transaction.get(&states[1])?);
                transaction.bytes_mut(&states[2])?.fill(4);
                Ok(())
            });
            told(transacted);
        }
        9 => {
            if let Some((one, two)) = told(together((&states[0], &states[1]))) {
                assert!(sum(&one) + sum(&two) < 1 << 30);
            }
        }
        10 => drop(told(state.try_clone())),
        11 => {
            let _ = told(state.scavenge());
        }
        12 => drop(told(state.info())),
        13 => drop(told(domain.info(NAMES[0]))),
        14 => {
            if let Some(mut watch) = told(state.watch()) {
                let _ = told(watch.news());
                let _ = told(watch.wait(Duration::from_micros(10)));
            }
        }
        _ => {
            let _ = told(state.size());
            let _ = told(state.version());
            let _ = told(state.set_size(SIZE + rng.below(4_000) as usize));
        }
    }
}

/// Runs `part` in a thread of its own; panics when it does, or does not end in time.
fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    part: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (told, ended) = mpsc::channel();
    let thread = thread::spawn(move || told.send(part()).expect("somebody waits"));
    match ended.recv_timeout(limit) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: does not end"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it has told"),
        },
    }
}

/// Nobody scribbles any more: new states in the same folder are as new, also beside what the
/// records and leases still say.
fn starts_again(domain: &Domain) {
    let [one, two] =
        ["fresh", "fresher"].map(|name| options().writer::<[u8]>(domain, name).unwrap());
    for round in 1..=20 {
        one.replace(&[round; SIZE]).unwrap();
        two.transact(RetryPolicy::default(), |transaction| {
            transaction.bytes_mut()?.fill(round);
            Ok(())
        })
        .unwrap();
        let (one, two) = together((&one, &two)).unwrap();
        assert_eq!((one[0], two[0]), (round, round));
    }
}

// ---- the tests ----

#[test]
fn scribbles_between_operations_end_in_errors_and_new_states_are_as_new() {
    for seed in 0..40 {
        within(Duration::from_secs(60), &format!("seed {seed}"), move || {
            let folder = tempfile::tempdir().unwrap();
            let domain = Domain::open(folder.path()).unwrap();
            let states = writers(&domain);
            // Others make the first use of the records.
            MultiTransaction::transact(RetryPolicy::default(), |transaction| {
                states.iter().try_for_each(|state| transaction.bytes_mut(state).map(drop))
            })
            .unwrap();
            let mut scribbler = Scribbler::on(domain.folder(), seed);
            let mut rng = Rng::seeded(!seed);
            for _ in 0..400 {
                if rng.below(4) == 0 {
                    scribbler.scribble();
                }
                work(&domain, &states, &mut rng);
            }
            starts_again(&domain);
        });
    }
}

#[test]
fn scribbles_during_operations_end_in_errors_and_new_states_are_as_new() {
    for seed in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let domain = Domain::open(folder.path()).unwrap();
        let states = writers(&domain);
        MultiTransaction::transact(RetryPolicy::default(), |transaction| {
            states.iter().try_for_each(|state| transaction.bytes_mut(state).map(drop))
        })
        .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let mut scribbler = Scribbler::on(domain.folder(), seed);
        let stopped = stop.clone();
        let scribbling = thread::spawn(move || {
            while !stopped.load(Relaxed) {
                scribbler.scribble();
                thread::yield_now();
            }
        });
        let workers = [0, 1].map(|side| {
            let domain = domain.clone();
            let states: Vec<_> =
                states.iter().filter_map(|state| told(state.try_clone())).collect();
            move || {
                let mut rng = Rng::seeded(seed << 1 | side);
                for _ in 0..3_000 {
                    if states.len() == STATES {
                        work(&domain, &states, &mut rng);
                    }
                }
            }
        });
        let [one, two] = workers;
        let both = move || {
            thread::scope(|scope| {
                scope.spawn(one);
                scope.spawn(two);
            });
        };
        within(Duration::from_secs(120), &format!("seed {seed}"), both);
        stop.store(true, Relaxed);
        scribbling.join().unwrap();
        drop(states);
        within(Duration::from_secs(60), &format!("seed {seed}"), move || starts_again(&domain));
    }
}

/// Two states, and the number of the records that this process's lease has.
fn two(folder: &Path) -> (Domain, [State<[u8]>; 2]) {
    let domain = Domain::open(folder).unwrap();
    let states = ["first", "second"].map(|name| options().writer(&domain, name).unwrap());
    (domain, states)
}

fn fill_both(states: &[State<[u8]>; 2], with: u8) -> Result<()> {
    let mut transaction = MultiTransaction::new();
    transaction.bytes_mut(&states[0])?.fill(with);
    transaction.bytes_mut(&states[1])?.fill(with);
    transaction.commit()
}

#[test]
fn records_that_all_say_committed_and_make_no_sense_are_an_error_and_not_a_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (domain, states) = two(folder.path());
    fill_both(&states, 1).unwrap();
    let records = map(&domain.folder().join(".records"));
    for record in 0..8 {
        // Sequence 9, committed; more entries than there can be.
        store(&records, RECORDS + RECORD_LEN * record, 9 << 2 | 2);
        store(&records, RECORDS + RECORD_LEN * record + 8, 17);
    }
    let refused = within(Duration::from_secs(30), "commit", move || {
        let refused = fill_both(&states, 2).unwrap_err();
        assert_eq!(states[0].read().unwrap()[0], 1, "nothing of it was done");
        assert_eq!(states[0].replace(&[3; SIZE]).unwrap(), 2, "one state needs no record");
        refused
    });
    assert!(matches!(refused, Error::Corrupt { field: "status", .. }), "{refused}");
}

#[test]
fn a_reference_to_an_undecided_record_of_garbage_is_ended_by_who_meets_it() {
    // Entries of no state, of this state only, in descending order, too many, none.
    let records: [(u64, [u64; 4]); 5] = [
        (2, [0, 7 << 6, 0, 9 << 6]),
        (1, [0, 0, 0, 0]),
        (2, [0, 9 << 6, 0, 7 << 6]),
        (17, [0, 0, 0, 0]),
        (0, [0, 0, 0, 0]),
    ];
    for (count, entries) in records {
        let folder = tempfile::tempdir().unwrap();
        let (domain, states) = two(folder.path());
        fill_both(&states, 1).unwrap();
        let table = map(&domain.folder().join(".records"));
        // A record of another lease.
        let at = RECORDS + RECORD_LEN * 100;
        store(&table, at + 8, count);
        for (index, value) in entries.into_iter().enumerate() {
            store(&table, at + 64 + 8 * index, value);
        }
        store(&table, at, 5 << 2 | 1);
        let file = map(&domain.folder().join("first.state"));
        let mut bytes = [0; 8];
        file.read(WORDS, &mut bytes).unwrap();
        let slot = u64::from_le_bytes(bytes) & 63;
        store(&file, WORDS, 1 << 63 | slot << 57 | 3 << 51 | 100 << 40 | 5);
        within(Duration::from_secs(30), "use", move || {
            assert_eq!(states[0].read().unwrap()[0], 1, "S6: undecided is the base");
            assert_eq!(states[0].replace(&[2; SIZE]).unwrap(), 2, "and is in nobody's way");
            fill_both(&states, 3).unwrap();
            assert_eq!(states[0].version().unwrap(), 3);
        });
    }
}

#[test]
fn lines_and_slots_owned_by_garbage_are_left_alone_and_the_rest_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let (domain, states) = two(folder.path());
    let file = map(&domain.folder().join("first.state"));
    let entries = std::fs::read_dir(domain.folder()).unwrap();
    let tables: Vec<Mapping> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains(".pins-"))
        .map(|path| map(&path))
        .collect();
    for table in &tables {
        // As many lines as there cannot be; one that claims a slot for nobody known.
        store(table, PIN_WORDS, u64::MAX);
        store(table, PIN_LINES + 64 * 9, 1 << 8 | 1);
        store(table, PIN_LINES + 64 * 9 + 8, u64::MAX);
    }
    store(&file, SLOT_LINES + 64 * 2, u64::MAX);
    within(Duration::from_secs(30), "use", move || {
        for round in 1..=50 {
            assert_eq!(states[0].replace(&[7; SIZE]).unwrap(), round);
            let (one, two) = together((&states[0], &states[1])).unwrap();
            assert_eq!((one[0], two[0]), (7, 0));
        }
        told(states[0].scavenge()).unwrap();
    });
}
