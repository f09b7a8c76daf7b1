//! An error at each call of the file layer, one at a time: whatever the disk refuses, and when,
//! nothing that was acknowledged is lost, nobody is told of more, and the store goes on or says that
//! it does not.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{collections::BTreeMap, sync::atomic::Ordering::SeqCst};

use mainstay_sim::Disk;
use mainstay_store::{
    Change, Durability, Error, Folder, Options, RawStore, limits::SEGMENT_BYTES_MIN,
};

#[path = "support/refusing.rs"]
mod refusing;
use refusing::{Plan, Refusal, Refusing};

const VALUE: usize = 1_000;

fn options() -> Options {
    Options { shards: 1, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// All states that the one shard went through, also by writes that failed; and the last durable one.
struct History {
    states: Vec<Records>,
    durable: usize,
}

fn contents<F: Folder>(store: &RawStore<F>) -> Records {
    let mut records = Records::new();
    let seen = store.for_each(|key, value| {
        records.insert(key.to_vec(), value.to_vec());
    });
    seen.unwrap();
    records
}

/// The same work each time: puts, deletes and batches over several segments, compaction, upkeep.
/// Returns how often something was refused.
fn work(store: &RawStore<Refusing>, history: &mut History) -> usize {
    let mut refused = 0;
    for round in 0..36_u8 {
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
        let poisoned = store.stats()[0].poisoned.is_some();
        match store.batch(&changes, durability) {
            Ok(_) => {
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
                assert_eq!(&contents(store), history.states.last().unwrap());
            }
            Err(other) => panic!("{other}"),
        }
        if round % 9 == 8 {
            refused += usize::from(store.tend().is_err());
        }
        if round % 13 == 12 {
            refused += usize::from(store.compact().is_err());
        }
    }
    refused
}

/// Refuses call `number` from the opening on; none if the work has fewer calls.
fn refuse(refusal: Refusal, number: u64) -> Option<&'static str> {
    let disk = Disk::new(number);
    drop(RawStore::create(disk.clone(), 1, VALUE, &options()).unwrap());
    let plan = Plan::new(refusal);
    plan.refused.store(number, SeqCst);
    let folder = Refusing { disk: disk.clone(), plan: plan.clone() };
    let mut history = History { states: vec![Records::new()], durable: 0 };
    let outcome = match RawStore::open(folder.clone(), &options()) {
        Err(Error::Io { .. } | Error::Poisoned { .. }) => "the opening",
        Err(other) => panic!("{refusal:?} at call {number}: {other}"),
        Ok(store) => {
            let refused = work(&store, &mut history);
            if plan.calls.load(SeqCst) < number {
                return None;
            }
            let poisoned = store.stats()[0].poisoned.is_some();
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
            let store = RawStore::open(folder, &options())
                .unwrap_or_else(|error| panic!("{refusal:?} at call {number}, cut {cut}: {error}"));
            let found = contents(&store);
            let state = history.states.iter().rposition(|state| *state == found);
            let what = format!("{refusal:?} at call {number}, cut {cut}: {state:?}");
            assert!(state.is_some_and(|state| state >= history.durable), "{what}");
            store.put(b"y", &[1; VALUE], Durability::Each).unwrap();
        }
    }
    Some(outcome)
}

fn refuse_each(refusal: Refusal) -> BTreeMap<&'static str, u64> {
    let mut outcomes = BTreeMap::new();
    for number in 1..5_000 {
        let Some(outcome) = refuse(refusal, number) else { return outcomes };
        *outcomes.entry(outcome).or_default() += 1;
    }
    panic!("the work has no end");
}

#[test]
fn a3_an_error_of_the_device_at_any_call_loses_nothing_that_was_acknowledged() {
    let outcomes = refuse_each(Refusal::Device);
    println!("EIO at each call: {outcomes:?}");
    for outcome in ["the opening", "the shard", "the call"] {
        assert!(outcomes.get(outcome).is_some_and(|count| *count > 5), "{outcomes:?}");
    }
}

#[test]
fn a_full_disk_at_any_write_loses_nothing_that_was_acknowledged() {
    let outcomes = refuse_each(Refusal::NoSpace);
    println!("ENOSPC at each write: {outcomes:?}");
    assert!(outcomes.values().sum::<u64>() > 50, "{outcomes:?}");
}
