//! An error at each call of the file layer, one at a time: whatever the disk refuses, and when,
//! nothing that was acknowledged is lost, nobody is told of more, and a store, of either kind, goes
//! on or says that it does not.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{collections::BTreeMap, sync::atomic::Ordering::SeqCst};

use mainstay_sim::Disk;
use mainstay_store::{
    Change, Durability, Error, LogOptions, Options, RawLogStore, RawStore,
    limits::SEGMENT_BYTES_MIN,
};

#[path = "support/refusing.rs"]
mod refusing;
use refusing::{Plan, Refusal, Refusing};

const VALUE: usize = 1_000;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// All states that the one shard went through, also by writes that failed; and the last durable one.
struct History {
    states: Vec<Records>,
    durable: usize,
}

/// A store of one shard.
trait Tested: Sized {
    /// Rounds of work, which fill some segments.
    const ROUNDS: u8;

    fn create(disk: Disk);
    fn open(folder: Refusing) -> Result<Self, Error>;
    fn contents(&self) -> Records;
    fn write(&self, changes: &[Change<'_>], durability: Durability) -> Result<(), Error>;
    fn is_poisoned(&self) -> bool;
    fn look_after(&self) -> Result<(), Error>;
    fn make_shorter(&self) -> Result<(), Error>;
}

/// What both kinds do by methods of the same names.
macro_rules! by_the_same_names {
    () => {
        fn contents(&self) -> Records {
            let mut records = Records::new();
            let seen = self.for_each(|key, value| {
                records.insert(key.to_vec(), value.to_vec());
            });
            seen.unwrap();
            records
        }

        fn write(&self, changes: &[Change<'_>], durability: Durability) -> Result<(), Error> {
            self.batch(changes, durability).map(drop)
        }

        fn is_poisoned(&self) -> bool {
            self.stats()[0].poisoned.is_some()
        }

        fn look_after(&self) -> Result<(), Error> {
            self.tend()
        }

        fn make_shorter(&self) -> Result<(), Error> {
            self.compact()
        }
    };
}

fn options() -> Options {
    Options { shards: 1, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

impl Tested for RawStore<Refusing> {
    const ROUNDS: u8 = 36;

    fn create(disk: Disk) {
        drop(RawStore::create(disk, 1, VALUE, &options()).unwrap());
    }

    fn open(folder: Refusing) -> Result<Self, Error> {
        RawStore::open(folder, &options())
    }

    by_the_same_names!();
}

fn log_options() -> LogOptions {
    let dead_percent = 30;
    LogOptions { shards: 1, segment_bytes: SEGMENT_BYTES_MIN, dead_percent, ..Default::default() }
}

impl Tested for RawLogStore<Refusing> {
    const ROUNDS: u8 = 60;

    fn create(disk: Disk) {
        drop(RawLogStore::create(disk, &log_options()).unwrap());
    }

    fn open(folder: Refusing) -> Result<Self, Error> {
        RawLogStore::open(folder, &log_options())
    }

    by_the_same_names!();
}

/// The same work each time: puts, deletes and batches over several segments, compaction, upkeep.
/// Returns how often something was refused.
fn work<T: Tested>(store: &T, history: &mut History) -> usize {
    let mut refused = 0;
    for round in 0..T::ROUNDS {
        let key = [round % 7];
        let (value, other) = ([round; VALUE], [round.wrapping_mul(3); VALUE]);
        let changes = match round % 6 {
            5 => vec![Change::Delete(&key)],
            4 => vec![Change::Put(&key, &value), Change::Put(b"z", &other)],
            _ => vec![Change::Put(&key, &value)],
        };
        let durability =
            [Durability::Memory, Durability::Group, Durability::Each][round as usize % 3];
        let mut next = history.states.last().unwrap().clone();
        for change in &changes {
            match change {
                Change::Put(key, value) => next.insert(key.to_vec(), value.to_vec()),
                Change::Delete(key) => next.remove(*key),
            };
        }
        let poisoned = store.is_poisoned();
        match store.write(&changes, durability) {
            Ok(()) => {
                assert!(!poisoned, "a poisoned shard took a write");
                history.states.push(next);
                if durability != Durability::Memory {
                    history.durable = history.states.len() - 1;
                }
            }
            // In doubt: it may be there when the store is opened again.
            Err(Error::Poisoned { .. }) => {
                refused += 1;
                if !poisoned {
                    history.states.push(next);
                }
            }
            // For want of room, or before anything was begun: it is nowhere.
            Err(Error::Io { .. }) => {
                refused += 1;
                assert_eq!(&store.contents(), history.states.last().unwrap());
            }
            Err(other) => panic!("{other}"),
        }
        if round % 9 == 8 {
            refused += usize::from(store.look_after().is_err());
        }
        if round % 13 == 12 {
            refused += usize::from(store.make_shorter().is_err());
        }
    }
    refused
}

/// Refuses call `number` from the opening on; none if the work has fewer calls.
fn refuse<T: Tested>(refusal: Refusal, number: u64) -> Option<&'static str> {
    let disk = Disk::new(number);
    T::create(disk.clone());
    let plan = Plan::new(refusal);
    plan.refused.store(number, SeqCst);
    let folder = Refusing { disk: disk.clone(), plan: plan.clone() };
    let mut history = History { states: vec![Records::new()], durable: 0 };
    let outcome = match T::open(folder) {
        Err(Error::Io { .. } | Error::Poisoned { .. }) => "the opening",
        Err(other) => panic!("{refusal:?} at call {number}: {other}"),
        Ok(store) => {
            let refused = work(&store, &mut history);
            if plan.calls.load(SeqCst) < number {
                return None;
            }
            let poisoned = store.is_poisoned();
            assert!(refused > 0 || !poisoned);
            if poisoned { "the shard" } else { "the call" }
        }
    };
    // After a power cut, and without one, the next opening finds a state that is not too old.
    for cut in [true, false] {
        let copies: Vec<Disk> =
            if cut { disk.crash_images(4).collect() } else { vec![disk.clone()] };
        for copy in copies {
            let folder = Refusing { disk: copy, plan: Plan::new(refusal) };
            let store = T::open(folder)
                .unwrap_or_else(|error| panic!("{refusal:?} at call {number}, cut {cut}: {error}"));
            let found = store.contents();
            let state = history.states.iter().rposition(|state| *state == found);
            let what = format!("{refusal:?} at call {number}, cut {cut}: {state:?}");
            assert!(state.is_some_and(|state| state >= history.durable), "{what}");
            store.write(&[Change::Put(b"y", &[1; VALUE])], Durability::Each).unwrap();
        }
    }
    Some(outcome)
}

fn refuse_each<T: Tested>(refusal: Refusal) -> BTreeMap<&'static str, u64> {
    let mut outcomes = BTreeMap::new();
    for number in 1..5_000 {
        let Some(outcome) = refuse::<T>(refusal, number) else { return outcomes };
        *outcomes.entry(outcome).or_default() += 1;
    }
    panic!("the work has no end");
}

fn refuse_by_the_device<T: Tested>() {
    let outcomes = refuse_each::<T>(Refusal::Device);
    println!("EIO at each call: {outcomes:?}");
    for outcome in ["the opening", "the shard", "the call"] {
        assert!(outcomes.get(outcome).is_some_and(|count| *count > 5), "{outcomes:?}");
    }
}

fn refuse_for_want_of_room<T: Tested>() -> BTreeMap<&'static str, u64> {
    let outcomes = refuse_each::<T>(Refusal::NoSpace);
    println!("ENOSPC at each write: {outcomes:?}");
    assert!(outcomes.values().sum::<u64>() > 50, "{outcomes:?}");
    outcomes
}

#[test]
fn a3_an_error_of_the_device_at_any_call_loses_nothing_that_was_acknowledged() {
    refuse_by_the_device::<RawStore<Refusing>>();
}

#[test]
fn a_full_disk_at_any_write_loses_nothing_that_was_acknowledged() {
    let _outcomes = refuse_for_want_of_room::<RawStore<Refusing>>();
}

#[test]
fn v2_an_error_of_the_device_at_any_call_loses_nothing_that_was_acknowledged() {
    refuse_by_the_device::<RawLogStore<Refusing>>();
}

#[test]
fn a_full_disk_at_any_write_of_a_log_store_loses_nothing_that_was_acknowledged() {
    let outcomes = refuse_for_want_of_room::<RawLogStore<Refusing>>();
    // Only a sync that fails ends a shard.
    assert!(!outcomes.contains_key("the shard"), "{outcomes:?}");
}
