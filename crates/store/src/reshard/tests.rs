//! Another number of shards, beside a model and beside writers.

use std::collections::BTreeMap;

use mainstay_base::Rng;
use mainstay_sim::{Disk, DiskFaults};
use proptest::prelude::*;

use super::*;
use crate::{
    Durability::Memory, Error, limits::SEGMENT_BYTES_MIN, mirror::tests::beside, planted::plant,
};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

fn options(shards: u32) -> Options {
    Options { shards, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

fn key(number: u64) -> [u8; 2] {
    (number as u16).to_be_bytes()
}

fn all<F: Folder>(store: &RawStore<F>) -> Records {
    let mut records = Records::new();
    let mut show = |key: &[u8], value: &[u8]| {
        assert!(records.insert(key.to_vec(), value.to_vec()).is_none(), "{key:?} twice");
    };
    store.for_each(&mut show).unwrap();
    records
}

#[derive(Clone, Debug)]
enum Step {
    Put(u64, u8),
    Delete(u64),
    Batch(Vec<(u64, Option<u8>)>),
    Copy(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..700_u64;
    let change = (key.clone(), any::<Option<u8>>());
    prop_oneof![
        6 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        6 => key.prop_map(Step::Delete),
        2 => prop::collection::vec(change, 1..9).prop_map(Step::Batch),
        2 => (1..400_u64).prop_map(Step::Copy),
    ]
}

/// How the new store differs from the model.
fn run(steps: &[Step], before: u32, after: u32) -> Option<String> {
    let store = RawStore::create(Disk::new(1), 2, 1, &options(before)).unwrap();
    let mut records = Records::new();
    for number in 0..600 {
        store.put(&key(number), &[0], Memory).unwrap();
        records.insert(key(number).to_vec(), vec![0]);
    }
    let mut resharding = store.reshard_into(Disk::new(2), &options(after)).unwrap();
    for step in steps {
        match step {
            Step::Put(number, value) => {
                store.put(&key(*number), &[*value], Memory).unwrap();
                records.insert(key(*number).to_vec(), vec![*value]);
            }
            Step::Delete(number) => {
                store.delete(&key(*number), Memory).unwrap();
                records.remove(&key(*number)[..]);
            }
            Step::Batch(changes) => {
                let made: Vec<_> = changes
                    .iter()
                    .map(|(key_of, value)| (key(*key_of), value.map(|v| [v])))
                    .collect();
                let changes: Vec<Change<'_>> = made
                    .iter()
                    .map(|(key, value)| Change::of(key, value.as_ref().map(|value| &value[..])))
                    .collect();
                store.batch_across(&changes).unwrap();
                for (key, value) in &made {
                    match value {
                        Some(value) => records.insert(key.to_vec(), value.to_vec()),
                        None => records.remove(&key[..]),
                    };
                }
            }
            Step::Copy(count) => drop(resharding.advance(*count).unwrap()),
        }
    }
    let new = resharding.finish().unwrap();
    assert_eq!(new.identity().shards, after);
    assert!(new.identity().id != store.identity().id);
    assert!(matches!(store.put(&key(0), &[1], Memory), Err(Error::Resharded)));
    assert_eq!(all(&store), records, "the old one shows what it had");
    let found = all(&new);
    let wrong = records.iter().find(|(key, value)| found.get(*key) != Some(*value));
    let ghost = found.keys().find(|key| !records.contains_key(*key));
    wrong
        .map(|wrong| format!("{wrong:?} is missing"))
        .or(ghost.map(|key| format!("{key:?} is back")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a17_the_new_store_has_what_the_old_one_had_whenever_it_was_written(
        steps in prop::collection::vec(step(), 0..120),
        before in 0..4_u32,
        after in 0..4_u32,
    ) {
        prop_assert_eq!(run(&steps, 1 << before, 1 << after), None);
    }
}

#[test]
fn a_mirror_that_forgets_deletes_is_found() {
    let steps = [Step::Copy(u64::MAX), Step::Delete(7)];
    assert_eq!(run(&steps, 2, 4), None);
    plant(Some(Fault::MirrorWithoutDeletes));
    let found = run(&steps, 2, 4);
    plant(None);
    assert!(found.is_some(), "the fault was not found");
}

/// Two writers beside the copy; what is different in the end.
fn beside_writers(copies_unlocked: bool) -> bool {
    let store = RawStore::create(Disk::new(3), 2, 8, &options(2)).unwrap();
    for number in 0..3_000 {
        store.put(&key(number), &[0; 8], Memory).unwrap();
    }
    let write = |rng: &mut Rng| {
        let key = key(rng.below(3_000));
        match rng.below(2) {
            0 => store.put(&key, &rng.next_u64().to_le_bytes(), Memory).map(drop),
            _ => store.delete(&key, Memory).map(drop),
        }
    };
    let new = beside(write, |wait_for| {
        wait_for(500);
        let mut resharding = store.reshard_into(Disk::new(4), &options(8)).unwrap();
        plant(copies_unlocked.then_some(Fault::CopiedUnlocked));
        while !resharding.advance(200).unwrap() {
            wait_for(50);
        }
        plant(None);
        resharding.finish().unwrap()
    });
    all(&new) != all(&store)
}

#[test]
fn a17_writers_go_on_while_records_are_copied_and_nothing_is_lost_or_returns() {
    for _ in 0..4 {
        assert!(!beside_writers(false));
    }
}

#[test]
fn a_copy_beside_writers_without_their_lock_is_found() {
    assert!((0..200).any(|_| beside_writers(true)), "the fault was not found");
}

#[test]
fn an_error_of_the_other_disk_leaves_the_store_as_it_was() {
    let store = RawStore::create(Disk::new(5), 2, 1, &options(2)).unwrap();
    store.put(&key(1), &[1], Memory).unwrap();
    let disk = Disk::new(6);
    let resharding = store.reshard_into(disk.clone(), &options(4)).unwrap();
    disk.set_faults(DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::NONE });
    let refused = resharding.finish().err();
    assert!(matches!(refused, Some(Error::Poisoned { .. })), "{refused:?}");
    store.put(&key(1), &[2], Memory).unwrap();
    // Dropped half way: nothing is written to both any more.
    let mut begun = store.reshard_into(Disk::new(7), &options(4)).unwrap();
    begun.advance(1).unwrap();
    drop(begun);
    store.put(&key(2), &[2], Memory).unwrap();
    assert_eq!(all(&store).len(), 2);
}

#[test]
fn a_write_that_the_other_store_refuses_ends_the_attempt_and_not_the_store() {
    let store = RawStore::create(Disk::new(8), 2, 1, &options(1)).unwrap();
    let few = Options { records_max: 3, ..options(1) };
    let mut resharding = store.reshard_into(Disk::new(9), &few).unwrap();
    for number in 0..4 {
        store.put(&key(number), &[1], Memory).unwrap();
    }
    let refused = resharding.advance(1).err();
    assert!(matches!(refused, Some(Error::Full { max: 3, .. })), "{refused:?}");
    drop(resharding);
    store.put(&key(9), &[1], Memory).unwrap();
}

#[test]
fn a_follower_has_the_shards_of_its_leader() {
    let leader = RawStore::create(Disk::new(10), 2, 1, &options(1)).unwrap();
    let replica = RawStore::create_replica(Disk::new(11), &leader.identity(), &options(1)).unwrap();
    let refused = replica.reshard_into(Disk::new(12), &options(2)).err();
    assert!(matches!(refused, Some(Error::Follows)), "{refused:?}");
}
