//! One suite for every place that keeps changes, and what each of them does of its own.

use mainstay_sds::{
    Config, Error, limits,
    persist::{Change, Memory, Persistence},
    wire::Message,
};

use super::{again, durable, keep};
use crate::group::{L, START, Said, channel, drain, log, message, receive};

/// Whether a place has what it had when it is opened again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outlives {
    Nothing,
    ItsProcess,
}

/// The one suite that every place has to pass.
fn conformance(outlives: Outlives, mut open: impl FnMut() -> Box<dyn Persistence>) {
    let changes = {
        let mut bob = channel("bob", durable());
        let mut changes = Vec::new();
        for number in 0..3_u64 {
            receive(&mut bob, START, &message("alice", &format!("m{number}"), L + number, &[]));
            for said in drain(&mut bob) {
                if let Said::Persist { number, bytes, .. } = said {
                    bob.persisted(number);
                    changes.push(bytes);
                }
            }
        }
        changes
    };
    assert_eq!(changes.len(), 3);
    let change = |number: usize| Change::parse("room", &changes[number]).unwrap();
    assert!(change(0).base && !change(1).base);

    // What is saved comes back, in order.
    let mut place = open();
    assert!(place.channels().unwrap().is_empty() && place.load("room").unwrap().is_empty());
    for number in 0..3 {
        place.save("room", &change(number)).unwrap();
    }
    assert_eq!(place.load("room").unwrap(), changes);
    // Channels are apart.
    place.save("other", &change(0)).unwrap();
    assert_eq!(place.load("other").unwrap(), changes[..1]);
    let mut names = place.channels().unwrap();
    names.sort();
    assert_eq!(names, ["other", "room"]);
    // A base replaces what was before.
    place.save("other", &Change::parse("other", &changes[0]).unwrap()).unwrap();
    assert_eq!(place.load("other").unwrap(), changes[..1]);
    // One that is forgotten is gone.
    place.forget("other").unwrap();
    place.forget("other").unwrap();
    assert!(place.load("other").unwrap().is_empty());
    assert_eq!(place.channels().unwrap(), ["room"]);
    assert_eq!(place.load("room").unwrap(), changes);
    // Large changes are like small ones.
    let mut bob = channel("bob", durable());
    let content = Some(vec![7; 1 << 20]);
    receive(&mut bob, START, &Message { content, ..message("alice", "big", L, &[]) });
    let said = drain(&mut bob);
    let Said::Persist { bytes, .. } = &said[0] else { panic!() };
    place.save("room", &Change::parse("room", bytes).unwrap()).unwrap();
    assert_eq!(place.load("room").unwrap(), std::slice::from_ref(bytes));
    // Names are as long as channels may have them, and one that is longer changes nothing.
    let longest = "x".repeat(limits::ID_LEN_MAX);
    place.save(&longest, &change(0)).unwrap();
    assert_eq!(place.load(&longest).unwrap(), changes[..1]);
    assert!(place.save(&format!("{longest}x"), &change(0)).is_err());
    assert_eq!(place.channels().unwrap().len(), 2);
    // A place that outlives its process has all of it, and goes on.
    if outlives == Outlives::ItsProcess {
        drop(place);
        place = open();
        assert_eq!(place.load("room").unwrap(), std::slice::from_ref(bytes));
        assert_eq!(place.load(&longest).unwrap(), changes[..1]);
        place.save(&longest, &change(1)).unwrap();
        place.forget("room").unwrap();
        drop(place);
        place = open();
        assert_eq!(place.load(&longest).unwrap(), changes[..2]);
        assert_eq!(place.channels().unwrap(), [longest]);
    }
}

#[test]
fn memory_conforms() {
    conformance(Outlives::Nothing, || Box::new(Memory::new()));
}

mod in_a_store {
    use mainstay_sds::persist::{Durability, StorePersistence};

    use super::*;

    #[test]
    fn a_store_conforms() {
        let folder = tempfile::tempdir().unwrap();
        let open = || StorePersistence::open(folder.path(), Durability::Group).unwrap();
        conformance(Outlives::ItsProcess, || Box::new(open()));
    }

    /// A channel of a few messages, kept in the store of a folder.
    fn kept_in(folder: &std::path::Path) -> (Config, Vec<Vec<u8>>) {
        let mut place = StorePersistence::open(folder, Durability::Memory).unwrap();
        let mut bob = channel("bob", durable());
        for number in 0..3 {
            let message = message("alice", &format!("m{number}"), L + number, &[]);
            receive(&mut bob, START, &Message { content: Some(vec![7; 5000]), ..message });
            keep(&mut bob, &mut place);
        }
        (durable(), place.load("room").unwrap())
    }

    #[test]
    fn what_is_in_a_store_is_there_when_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let (config, kept) = kept_in(folder.path());
        assert_eq!(kept.len(), 3);
        let mut place = StorePersistence::open(folder.path(), Durability::Group).unwrap();
        assert_eq!(place.load("room").unwrap(), kept);
        assert_eq!(log(&again(config, &mut place)), ["m0", "m1", "m2"]);
        place.forget("room").unwrap();
        drop(place);
        let mut place = StorePersistence::open(folder.path(), Durability::Group).unwrap();
        assert!(place.channels().unwrap().is_empty());
    }

    /// As a process leaves it that dies while it writes a change, or removes what one replaced.
    #[test]
    fn what_is_unfinished_in_a_store_does_not_count_and_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (_, kept) = kept_in(folder.path());
        let records = || {
            let options = mainstay_store::Options::default();
            let store =
                mainstay_store::FixedStore::<[u8; 28], [u8; 2048]>::open(folder.path(), &options)
                    .unwrap();
            let mut keys = Vec::new();
            store.for_each(|key, _| keys.push(key)).unwrap();
            (store, keys)
        };
        let (store, keys) = records();
        assert_eq!(keys.len(), 9, "three changes of three parts");
        // The first part of the last change, which is the one that is written last.
        let number = |key: &[u8; 28]| u64::from_le_bytes(key[16..24].try_into().unwrap());
        let last = keys.iter().map(number).max().unwrap();
        let first = keys.iter().find(|key| number(key) == last && key[24..] == [0; 4]).unwrap();
        store.delete(first, Durability::Group).unwrap();
        drop(store);
        let mut place = StorePersistence::open(folder.path(), Durability::Group).unwrap();
        assert_eq!(place.load("room").unwrap(), kept[..2]);
        drop(place);
        let (store, keys) = records();
        assert_eq!(keys.len(), 6, "what was left of the third is gone");
        // Without its base, what came after means nothing.
        let base = keys.iter().map(number).min().unwrap();
        let first = keys.iter().find(|key| number(key) == base && key[24..] == [0; 4]).unwrap();
        store.delete(first, Durability::Group).unwrap();
        drop(store);
        let mut place = StorePersistence::open(folder.path(), Durability::Group).unwrap();
        assert!(place.channels().unwrap().is_empty());
        drop(place);
        assert!(records().1.is_empty());
    }

    #[test]
    fn a_store_of_something_else_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let options = mainstay_store::Options { shards: 1, ..Default::default() };
        let open =
            || mainstay_store::FixedStore::<[u8; 28], [u8; 2048]>::open(folder.path(), &options);
        let store =
            mainstay_store::FixedStore::<[u8; 28], [u8; 2048]>::create(folder.path(), &options);
        store.unwrap().put(&[1; 28], &[2; 2048], Durability::Group).unwrap();
        let refused = StorePersistence::open(folder.path(), Durability::Group);
        assert!(matches!(refused, Err(Error::Persistence { .. })));
        assert_eq!(open().unwrap().get(&[1; 28]).unwrap(), Some([2; 2048]));
    }

    #[test]
    fn a_name_longer_than_a_channel_can_have_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut place = StorePersistence::open(folder.path(), Durability::Memory).unwrap();
        let mut bob = channel("bob", durable());
        receive(&mut bob, START, &message("alice", "m1", L, &[]));
        let said = drain(&mut bob);
        let Said::Persist { bytes, .. } = &said[0] else { panic!() };
        let change = Change::parse("room", bytes).unwrap();
        place.save(&"x".repeat(256), &change).unwrap();
        assert!(matches!(place.save(&"x".repeat(257), &change), Err(Error::Limit { .. })));
        assert_eq!(place.load(&"x".repeat(256)).unwrap(), std::slice::from_ref(bytes));
    }
}

#[cfg(feature = "pool")]
mod in_a_pool {
    use mainstay_sds::persist::PoolPersistence;

    use super::*;

    #[test]
    fn a_pool_in_memory_conforms() {
        let open = || PoolPersistence::in_memory("sds").unwrap();
        conformance(Outlives::Nothing, || Box::new(open()));
    }

    #[test]
    fn a_pool_in_files_conforms() {
        let folder = tempfile::tempdir().unwrap();
        let open = || PoolPersistence::open(folder.path(), "sds").unwrap();
        conformance(Outlives::ItsProcess, || Box::new(open()));
    }

    #[test]
    fn k3_a_second_one_is_refused_and_what_the_first_one_has_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let open = || PoolPersistence::open(folder.path(), "sds");
        let mut place = open().unwrap();
        let mut bob = channel("bob", durable());
        receive(&mut bob, START, &message("alice", "m1", L, &[]));
        keep(&mut bob, &mut place);
        let error = open().unwrap_err().to_string();
        assert!(error.contains("sds.changes.lock is locked"), "{error}");
        // Those of another name, and an archive, are nobody's yet.
        assert!(PoolPersistence::open(folder.path(), "other").is_ok());
        assert!(mainstay_sds::PoolArchive::open(folder.path(), "sds").is_ok());
        drop(place);
        assert_eq!(log(&again(durable(), &mut open().unwrap())), ["m1"]);
    }

    #[test]
    fn what_is_in_files_is_there_when_they_are_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let open = || PoolPersistence::open(folder.path(), "sds").unwrap();
        let mut config = durable();
        config.history = 50;
        let mut expected = Vec::new();
        for round in 0..5_u64 {
            let mut place = open();
            let mut bob = again(config.clone(), &mut place);
            assert_eq!(log(&bob), expected, "round {round}");
            for number in 0..40 {
                let lamport = round * 100 + number;
                receive(
                    &mut bob,
                    START,
                    &message("alice", &format!("m{lamport}"), L + lamport, &[]),
                );
                keep(&mut bob, &mut place);
            }
            bob.confirm((round + 1) * 40).unwrap();
            keep(&mut bob, &mut place);
            expected = log(&bob);
            assert_eq!(expected.len(), 50.min(40 * (round as usize + 1)));
        }
    }
}
