//! S1 to S3 and C1, C2: changes, their places, and what comes back.

use mainstay_sds::{
    Channel, Config, Error, Keep, NimSnapshot, Now, Start, limits,
    persist::{Change, Memory, Persistence},
    wire::{Message, Profile},
};
use serde_json::Value;

use crate::group::{L, START, Said, channel, delivered, drain, log, message, receive, send};

fn durable() -> Config {
    let mut config = Config::lip();
    (config.keep, config.confirm, config.sync) = (Keep::Durable, true, false);
    config
}

/// Polls everything, keeps every change, returns all of it.
fn keep_all(channel: &mut Channel, place: &mut impl Persistence) -> Vec<Said> {
    let name = channel.name().to_owned();
    let mut said = Vec::new();
    while let Some(output) = channel.poll_output() {
        let output = Said::from(output);
        if let Said::Persist { number, bytes, .. } = &output {
            place.save(&name, &Change::parse(&name, bytes).unwrap()).unwrap();
            channel.persisted(*number);
        }
        said.push(output);
    }
    said
}

/// The same without the changes.
fn keep(channel: &mut Channel, place: &mut impl Persistence) -> Vec<Said> {
    let mut said = keep_all(channel, place);
    said.retain(|said| !matches!(said, Said::Persist { .. }));
    said
}

fn again(config: Config, place: &mut impl Persistence) -> Channel {
    Channel::load("room", b"bob", config, START, &place.load("room").unwrap()).unwrap()
}

#[test]
fn what_nobody_cites_is_still_spoken_of_after_a_restart() {
    let mut config = durable();
    (config.causal, config.sync, config.sync_causal) = (2, true, 2);
    let mut place = Memory::default();
    let mut bob = channel("bob", config.clone());
    // The first one is what nobody cites.
    for (number, causal) in [(1, &[][..]), (2, &[]), (3, &["m2"]), (4, &["m3"])] {
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L + number, causal));
    }
    keep(&mut bob, &mut place);
    let mut bob = again(config, &mut place);
    keep(&mut bob, &mut place);
    let at = bob.poll_timeout().unwrap();
    bob.handle_timeout(START.after(at - START.mono_ms));
    let said = keep(&mut bob, &mut place);
    let sync = &crate::group::broadcasts(&said)[0];
    let sync = Message::decode(Profile::Lip, sync).unwrap();
    let cited: Vec<&[u8]> = sync.causal.iter().map(|entry| &entry.id[..]).collect();
    assert_eq!(cited, [&b"m1"[..], b"m3", b"m4"]);
}

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

#[test]
fn nothing_is_sent_or_delivered_before_it_is_kept() {
    let mut bob = channel("bob", durable());
    receive(&mut bob, START, &message("alice", "m1", L, &[]));
    let said = drain(&mut bob);
    let [Said::Persist { number, .. }] = said[..] else { panic!("{said:?}") };
    assert!(drain(&mut bob).is_empty(), "nothing until it is kept");
    receive(&mut bob, START, &message("alice", "m2", L + 1, &[]));
    assert!(drain(&mut bob).is_empty());
    bob.persisted(number);
    let said = drain(&mut bob);
    assert!(matches!(&said[0], Said::Persist { .. }));
    assert_eq!(delivered(&said), ["m1"], "the second one waits for its own change");
}

#[test]
fn what_is_not_to_be_kept_strictly_waits_for_nothing() {
    let mut config = durable();
    (config.keep, config.confirm) = (Keep::Relaxed, false);
    let mut bob = channel("bob", config);
    receive(&mut bob, START, &message("alice", "m1", L, &[]));
    let said = drain(&mut bob);
    assert!(matches!(said[0], Said::Persist { .. }));
    assert_eq!(delivered(&said), ["m1"]);
}

#[test]
fn a_failed_change_is_part_of_the_next_one_and_tried_again_without_any_other_event() {
    let mut bob = channel("bob", durable());
    let mut place = Memory::new();
    receive(&mut bob, START, &message("alice", "m1", L, &[]));
    keep(&mut bob, &mut place);
    bob.confirm(1).unwrap();
    keep(&mut bob, &mut place);
    receive(&mut bob, START, &message("alice", "m2", L + 1, &[]));
    let said = drain(&mut bob);
    let Said::Persist { number, .. } = said[0] else { panic!() };
    bob.persist_failed(START, number);
    receive(&mut bob, START, &message("alice", "m3", L + 2, &[]));
    assert!(drain(&mut bob).is_empty(), "not at once");
    let at = bob.poll_timeout().expect("it is tried again by itself");
    bob.handle_timeout(Now { mono_ms: at, ..START });
    assert_eq!(delivered(&keep(&mut bob, &mut place)), ["m2", "m3"]);
    assert_eq!(log(&again(durable(), &mut place)), ["m1", "m2", "m3"]);
}

#[test]
fn changes_do_not_grow_without_bound_nor_carry_filters() {
    let mut config = durable();
    config.history = 20;
    let mut bob = channel("bob", config.clone());
    let mut place = Memory::new();
    let (mut bases, mut largest) = (0, 0);
    for number in 0..3000_u64 {
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L + number, &[]));
        while let Some(output) = bob.poll_output() {
            if let Said::Persist { number, base, bytes } = Said::from(output) {
                bases += usize::from(base);
                largest = largest.max(if base { 0 } else { bytes.len() });
                place.save("room", &Change::parse("room", &bytes).unwrap()).unwrap();
                bob.persisted(number);
            }
        }
        bob.confirm(number + 1).unwrap();
    }
    let kept: usize = place.load("room").unwrap().iter().map(Vec::len).sum();
    assert!(kept < 400 << 10, "{kept} bytes");
    assert!((2..100).contains(&bases), "{bases} bases");
    assert!(largest < 1024, "{largest} bytes for one message");
    assert_eq!(log(&again(config, &mut place)), log(&bob));
}

#[test]
fn a_change_that_nobody_takes_does_not_pile_up() {
    let mut config = durable();
    (config.keep, config.confirm, config.history) = (Keep::Relaxed, false, 10);
    let mut bob = channel("bob", config.clone());
    for number in 0..20_000_u64 {
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L + number, &[]));
        // The first change is taken, and never answered.
        drain(&mut bob);
    }
    assert!(bob.counts().memory_bytes < 4 << 20, "{:?}", bob.counts());
    bob.persisted(1);
    let mut place = Memory::new();
    keep(&mut bob, &mut place);
    assert_eq!(log(&again(config, &mut place)), log(&bob));
}

#[test]
fn what_was_delivered_and_not_confirmed_comes_again_and_what_was_confirmed_does_not() {
    let mut place = Memory::new();
    let mut config = durable();
    config.history = 2;
    let mut bob = channel("bob", config.clone());
    for number in 1..=5_u64 {
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L + number, &[]));
    }
    assert_eq!(delivered(&keep(&mut bob, &mut place)).len(), 5);
    bob.confirm(2).unwrap();
    keep(&mut bob, &mut place);
    let mut bob = again(config.clone(), &mut place);
    let said = keep(&mut bob, &mut place);
    assert_eq!(delivered(&said), ["m3", "m4", "m5"], "also m3, which has left the log");
    assert!(said.iter().all(|said| matches!(said, Said::Delivered { again: true, .. })));
    bob.confirm(5).unwrap();
    keep(&mut bob, &mut place);
    let mut bob = again(config, &mut place);
    assert!(keep(&mut bob, &mut place).is_empty());
    receive(&mut bob, START, &message("alice", "m1", L + 1, &[]));
    assert!(keep(&mut bob, &mut place).is_empty(), "remembered, though it left the log");
}

#[test]
fn what_waited_goes_on_waiting_and_what_was_not_acknowledged_is_sent_again() {
    let mut place = Memory::new();
    let mut bob = channel("bob", durable());
    bob.send(START, b"b1", b"hello").unwrap();
    receive(&mut bob, START, &message("alice", "m2", L + 2, &["m1"]));
    keep(&mut bob, &mut place);
    let mut bob = again(durable(), &mut place);
    assert_eq!((bob.counts().outgoing, bob.counts().buffered, bob.counts().missing), (1, 1, 1));
    let said = keep(&mut bob, &mut place);
    assert!(said.iter().any(|said| matches!(said, Said::Missing { id, .. } if id == "m1")));
    bob.handle_timeout(START.after(60_000));
    let said = keep(&mut bob, &mut place);
    assert!(said.iter().any(|said| matches!(said, Said::Broadcast { id, .. } if id == "b1")));
    receive(&mut bob, START, &message("alice", "m1", L + 1, &["b1"]));
    let said = keep(&mut bob, &mut place);
    assert!(said.contains(&Said::Acknowledged("b1".into())));
    assert_eq!(delivered(&said), ["m1", "m2"]);
    assert_eq!(again(durable(), &mut place).counts().outgoing, 0);
}

/// Bob, who joined late, as he was kept while `m` waited for something that only a sync message
/// had spoken of. What is only spoken of is not kept; and what `m` cites before a message from
/// before Bob's time is from before his time as well. So `m` waits for nothing when it is loaded.
fn kept_while_waiting_for_what_is_forgotten(config: &Config) -> Memory {
    let mut place = Memory::new();
    let mut bob = channel("bob", config.clone());
    receive(&mut bob, START, &message("alice", "m0", L, &["before"]));
    assert_eq!(delivered(&keep(&mut bob, &mut place)), ["m0"]);
    let later = START.after(2 * config.t_min_ms);
    let sync = Message { content: None, ..message("carol", "s1", L + 1, &["spoken of"]) };
    receive(&mut bob, later, &sync);
    receive(&mut bob, later, &message("alice", "m", L + 2, &["spoken of", "before"]));
    assert!(delivered(&keep(&mut bob, &mut place)).is_empty());
    assert_eq!((bob.counts().buffered, bob.counts().missing), (1, 1));
    place
}

#[test]
fn what_is_delivered_while_a_channel_is_loaded_is_kept_first_and_delivered_once() {
    let mut config = durable();
    config.start = Start::Joining;
    let mut place = kept_while_waiting_for_what_is_forgotten(&config);
    let mut bob = again(config.clone(), &mut place);
    let said = keep_all(&mut bob, &mut place);
    let at = |what: &dyn Fn(&Said) -> bool| said.iter().position(what).unwrap();
    let kept = at(&|said| matches!(said, Said::Persist { base: true, .. }));
    let told = at(&|said| matches!(said, Said::Delivered { id, number: 2, .. } if id == "m"));
    assert!(kept < told, "{said:?}");
    assert_eq!(delivered(&said), ["m0", "m"], "behind what is delivered again");
    // The application is done with it, and more is said. After another restart the next number is
    // the next message's, and nothing comes again.
    bob.confirm(2).unwrap();
    receive(&mut bob, START, &message("alice", "n", L + 3, &["m"]));
    assert_eq!(delivered(&keep(&mut bob, &mut place)), ["n"]);
    bob.confirm(3).unwrap();
    keep(&mut bob, &mut place);
    let mut bob = again(config, &mut place);
    assert_eq!(log(&bob), ["m0", "m", "n"]);
    assert!(delivered(&keep(&mut bob, &mut place)).is_empty());
    receive(&mut bob, START, &message("alice", "o", L + 4, &["n"]));
    let said = keep(&mut bob, &mut place);
    assert!(matches!(&said[0], Said::Delivered { id, number: 4, .. } if id == "o"), "{said:?}");
}

#[test]
fn the_order_of_the_log_and_the_lamport_time_outlive_a_restart() {
    let mut place = Memory::new();
    let mut bob = channel("bob", durable());
    for (id, lamport) in [("c", 5), ("b", 5), ("z", 1), ("a", 9)] {
        receive(&mut bob, START, &message("alice", id, L + lamport, &[]));
    }
    keep(&mut bob, &mut place);
    let restarted = again(durable(), &mut place);
    assert_eq!(log(&restarted), ["z", "b", "c", "a"]);
    assert_eq!(restarted.counts().lamport, bob.counts().lamport);
    assert_eq!(restarted.filter().len(), 4);
}

#[test]
fn damaged_incomplete_or_foreign_changes_are_refused() {
    let mut place = Memory::new();
    let mut bob = channel("bob", durable());
    for number in 0..3 {
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L + number, &[]));
        keep(&mut bob, &mut place);
    }
    let saved = place.load("room").unwrap();
    let load = |changes: &[Vec<u8>]| Channel::load("room", b"bob", durable(), START, changes);
    assert!(load(&saved).is_ok());
    for change in 0..saved.len() {
        for at in 0..saved[change].len() {
            let mut damaged = saved.clone();
            damaged[change][at] ^= 4;
            assert!(matches!(load(&damaged), Err(Error::Saved { .. })), "byte {at} of {change}");
        }
        let mut cut = saved.clone();
        cut[change].pop();
        assert!(load(&cut).is_err());
    }
    assert!(load(&saved[1..]).is_err(), "without the base");
    let swapped = [saved[0].clone(), saved[2].clone(), saved[1].clone()];
    assert!(load(&swapped).is_err());
    let mut nim = Config::nim();
    nim.keep = Keep::Durable;
    assert!(Channel::load("room", b"bob", nim, START, &saved).is_err());
}

#[test]
fn confirming_needs_that_deliveries_are_kept() {
    let mut config = durable();
    config.keep = Keep::Relaxed;
    assert!(matches!(Channel::new("room", b"bob", config), Err(Error::Config { .. })));
}

#[test]
fn a_channel_that_slept_is_as_it_was() {
    let mut config = Config::lip();
    (config.history, config.start) = (30, Start::Joining);
    let mut bob = channel("bob", config);
    for number in 0..50_u64 {
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L + number, &[]));
    }
    let bob = bob.hibernate().unwrap_err();
    let mut bob = bob;
    drain(&mut bob);
    assert!(bob.poll_timeout().is_some(), "there is news");
    let mut bob = bob.hibernate().unwrap_err();
    let mut now = START;
    while let Some(at) = bob.poll_timeout() {
        now = now.after(at - now.mono_ms);
        bob.handle_timeout(now);
        drain(&mut bob);
    }
    let (before, awake_bytes) = (log(&bob), bob.counts().memory_bytes);
    let asleep = bob.hibernate().unwrap();
    assert!(asleep.memory_bytes() < awake_bytes / 2);
    let mut bob = asleep.wake(now).unwrap();
    assert_eq!((log(&bob), bob.poll_timeout()), (before, None));
    drain(&mut bob);
    receive(&mut bob, now, &message("alice", "m3", L + 3, &[]));
    assert!(delivered(&drain(&mut bob)).is_empty(), "remembered");
    send(&mut bob, now, "b1");
}

#[test]
fn a_channel_that_is_kept_elsewhere_goes_on_behind_its_changes_when_it_wakes_up() {
    let mut place = Memory::new();
    let mut config = durable();
    config.confirm = false;
    let mut bob = channel("bob", config.clone());
    receive(&mut bob, START, &message("alice", "m1", L, &[]));
    keep(&mut bob, &mut place);
    let mut bob = bob.hibernate().unwrap().wake(START).unwrap();
    receive(&mut bob, START, &message("alice", "m2", L + 1, &[]));
    keep(&mut bob, &mut place);
    assert_eq!(log(&again(config, &mut place)), ["m1", "m2"]);
}

fn nim_snapshots() -> Vec<(String, Vec<u8>, Value)> {
    let all: Value = serde_json::from_str(include_str!("../vectors/sds-vectors.json")).unwrap();
    let unhex = |hex: &str| {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    };
    let snapshot = |case: &Value| {
        (
            case["name"].as_str().unwrap().to_owned(),
            unhex(case["hex"].as_str().unwrap()),
            case.clone(),
        )
    };
    all["nim"]["snapshots"].as_array().unwrap().iter().map(snapshot).collect()
}

#[test]
fn every_snapshot_of_the_nim_peers_is_read_or_refused_as_by_them() {
    let mut seen = 0;
    for (name, bytes, case) in nim_snapshots() {
        seen += 1;
        if name.starts_with("ChannelMeta") {
            let read = NimSnapshot::parse_meta(&bytes);
            let refused = case.get("decode_ok") == Some(&Value::Bool(false));
            assert_eq!(read.is_err(), refused, "{name}: {read:?}");
            let Ok(read) = read else { continue };
            let fields = &case["fields"];
            assert_eq!(read.lamport, fields["lamport"].as_u64().unwrap());
            let count =
                |key: &str| fields.get(key).map_or(0, |list| list.as_array().unwrap().len());
            let counts =
                [count("outgoing"), count("incoming"), count("out_repair"), count("in_repair")];
            let read =
                [read.outgoing.len(), read.incoming.len(), read.requests.len(), read.answers.len()];
            assert_eq!(read, counts, "{name}");
        } else if name.starts_with("ChannelData") {
            assert!(NimSnapshot::parse(&bytes).is_ok(), "{name}");
        } else if name == "HistoryUpdate" {
            let mut snapshot = NimSnapshot::default();
            for id in ["old1", "kept", "old2"] {
                snapshot.history.push(message("alice", id, 1, &[]));
            }
            snapshot.apply_history_update(&bytes).unwrap();
            let ids: Vec<&[u8]> =
                snapshot.history.iter().map(|message| message.id.as_slice()).collect();
            assert_eq!(ids, [&b"kept"[..], b"new"]);
        }
    }
    assert!(seen >= 6);
}

#[test]
fn a_channel_of_the_nim_peers_goes_on_here() {
    let mut snapshot = NimSnapshot::default();
    let lamport = L / 1000;
    snapshot.lamport = lamport + 5;
    let own = Message { sender: b"bob".to_vec(), ..message("bob", "b1", lamport + 2, &["m1"]) };
    snapshot.history = vec![message("alice", "m1", lamport + 1, &[]), own.clone()];
    snapshot.outgoing = vec![(own, 1_760_000_000_000, 2)];
    let waits = message("alice", "m4", lamport + 4, &["m3"]);
    snapshot.incoming = vec![(waits, vec![b"m3".to_vec()])];
    let mut config = Config::nim();
    (config.keep, config.confirm) = (Keep::Durable, true);
    let mut bob = Channel::import_nim("room", b"bob", config.clone(), START, &snapshot).unwrap();
    assert_eq!(log(&bob), ["m1", "b1"]);
    let counts = bob.counts();
    assert_eq!((counts.outgoing, counts.buffered, counts.missing), (1, 1, 1));
    let mut place = Memory::new();
    assert!(delivered(&keep(&mut bob, &mut place)).is_empty(), "all was delivered there");
    let m3 = message("alice", "m3", lamport + 3, &["b1"]).encode(Profile::Nim);
    bob.receive(START, &m3).unwrap();
    let said = keep(&mut bob, &mut place);
    assert!(said.contains(&Said::Acknowledged("b1".into())));
    assert_eq!(delivered(&said), ["m3", "m4"]);
    assert_eq!(log(&again(config, &mut place)), ["m1", "b1", "m3", "m4"]);
    assert!(Channel::import_nim("room", b"bob", Config::lip(), START, &snapshot).is_err());
}

#[test]
fn numbers_that_would_overflow_are_refused_when_they_are_read() {
    let bare = |number: u64, lamport: u64, delivered: u64| {
        let mut bytes = b"MSDC\x01\x00\x01\x00".to_vec();
        for value in [number, lamport, 0, delivered, 0] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        let crc = mainstay_base::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        Channel::load("room", b"bob", durable(), START, &[bytes])
    };
    assert!(bare(1, 1, 1).is_ok());
    for (number, lamport, delivered) in [(u64::MAX, 1, 1), (1, 1 << 62, 1), (1, 1, u64::MAX)] {
        assert!(matches!(bare(number, lamport, delivered), Err(Error::Saved { .. })));
    }
}
