//! LIP-109, Design Assumptions (store nodes); N1 to N3: what a store node keeps and finds, and the
//! archives it keeps it in.

use mainstay_sds::{
    Archive, Config, Error, MemoryArchive, PoolArchive, StoreArchive, StoreNode,
    persist::{Durability, Persistence, StorePersistence},
    wire::{HistoryEntry, Message, Profile},
};

use crate::group::{L, START, channel, log, message, send};

/// The one suite that every archive has to pass; `open` opens it again if it outlives its process.
fn conformance(mut archive: Box<dyn Archive>, open: Option<&dyn Fn() -> Box<dyn Archive>>) {
    assert!(archive.keys().unwrap().is_empty());
    assert!(archive.read(0).is_err(), "there is none");
    let records = [b"a record".to_vec(), Vec::new(), vec![7; 5000], vec![8; 1 << 20]];
    let mut keys: Vec<u64> = records.iter().map(|record| archive.append(record).unwrap()).collect();
    let check = |archive: &dyn Archive, keys: &[u64], records: &[Vec<u8>]| {
        assert_eq!(archive.keys().unwrap(), keys, "in the order in which they were given");
        for (key, record) in keys.iter().zip(records) {
            assert_eq!(archive.read(*key).unwrap(), *record);
        }
        assert!(archive.read(keys.iter().max().unwrap() + 1).is_err());
    };
    check(&*archive, &keys, &records);
    let Some(open) = open else { return };
    drop(archive);
    let mut archive = open();
    check(&*archive, &keys, &records);
    keys.push(archive.append(b"a later one").unwrap());
    drop(archive);
    check(&*open(), &keys, &[&records[..], &[b"a later one".to_vec()]].concat());
}

#[test]
fn an_archive_in_memory_conforms() {
    conformance(Box::new(MemoryArchive::new()), None);
}

#[test]
fn an_archive_in_a_pool_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let open = || -> Box<dyn Archive> { Box::new(PoolArchive::open(folder.path(), "a").unwrap()) };
    conformance(open(), Some(&open));
}

#[test]
fn an_archive_in_a_store_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let open = || -> Box<dyn Archive> {
        Box::new(StoreArchive::open(folder.path(), Durability::Group).unwrap())
    };
    conformance(open(), Some(&open));
}

#[test]
fn an_archive_and_a_place_for_changes_do_not_take_each_others_store() {
    let folder = tempfile::tempdir().unwrap();
    StoreArchive::open(folder.path(), Durability::Group).unwrap().append(b"a record").unwrap();
    assert!(StorePersistence::open(folder.path(), Durability::Group).is_err());
    let archive = StoreArchive::open(folder.path(), Durability::Group).unwrap();
    assert_eq!(archive.read(0).unwrap(), b"a record", "it was left alone");

    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::lip();
    config.keep = mainstay_sds::Keep::Durable;
    let mut bob = channel("bob", config);
    bob.send(START, b"m1", b"hello").unwrap();
    let Some(mainstay_sds::Output::Persist(change)) = bob.poll_output() else { panic!() };
    let mut place = StorePersistence::open(folder.path(), Durability::Group).unwrap();
    place.save("room", &change).unwrap();
    drop(place);
    assert!(StoreArchive::open(folder.path(), Durability::Group).is_err());
    let mut place = StorePersistence::open(folder.path(), Durability::Group).unwrap();
    assert_eq!(place.load("room").unwrap().len(), 1, "it was left alone");
}

/// As a process leaves it that dies while it writes a record of several parts.
#[test]
fn a_record_without_its_first_part_does_not_count_and_is_removed() {
    type Store = mainstay_store::FixedStore<[u8; 28], [u8; 2048]>;
    let folder = tempfile::tempdir().unwrap();
    let open = || StoreArchive::open(folder.path(), Durability::Group).unwrap();
    let mut archive = open();
    archive.append(&[1; 5000]).unwrap();
    archive.append(&[2; 5000]).unwrap();
    drop(archive);
    let store = Store::open(folder.path(), &mainstay_store::Options::default()).unwrap();
    let mut first = None;
    store
        .for_each(|key, _| {
            if key[16] == 1 && key[24..] == [0; 4] {
                first = Some(key);
            }
        })
        .unwrap();
    store.delete(&first.unwrap(), Durability::Group).unwrap();
    drop(store);
    let archive = open();
    assert_eq!(archive.keys().unwrap(), [0]);
    assert_eq!(archive.read(0).unwrap(), [1; 5000]);
    drop(archive);
    let store = Store::open(folder.path(), &mainstay_store::Options::default()).unwrap();
    let mut count = 0;
    store.for_each(|_, _| count += 1).unwrap();
    assert_eq!(count, 3, "the parts of the first record");
}

fn store_node_answers(mut node: StoreNode<impl Archive>) {
    node.serve("room", Profile::Lip, 3).unwrap();
    let mut alice = channel("alice", Config::lip());
    for id in ["m1", "m2", "m3"] {
        let bytes = send(&mut alice, START, id);
        assert!(node.observe(&bytes).unwrap());
        assert!(!node.observe(&bytes).unwrap(), "kept once");
        alice.set_retrieval_hint(id.as_bytes(), format!("envelope of {id}").as_bytes()).unwrap();
    }
    let past = send(&mut alice, START, "m4");
    assert!(matches!(node.observe(&past), Err(Error::Limit { .. })), "the limit is three");
    let elsewhere = Message { channel: b"other".to_vec(), ..message("alice", "m9", L, &[]) };
    let refused = node.observe(&elsewhere.encode(Profile::Lip));
    assert!(matches!(refused, Err(Error::UnknownChannel { .. })));

    // What it gives out can be received.
    let mut bob = channel("bob", Config::lip());
    for found in [
        node.by_id("room", b"m1").unwrap().unwrap(),
        node.by_hint("room", b"envelope of m2").unwrap().unwrap(),
    ] {
        bob.receive(START, &found).unwrap();
    }
    assert_eq!(log(&bob), ["m1", "m2"]);
    let rest = node.after("room", (L, b"m1"), 10).unwrap();
    let ids: Vec<Vec<u8>> =
        rest.iter().map(|bytes| Message::decode(Profile::Lip, bytes).unwrap().id).collect();
    assert_eq!(ids, [b"m2", b"m3"]);
    assert_eq!(node.by_id("room", b"m9").unwrap(), None);
    assert_eq!(node.by_hint("room", b"no such").unwrap(), None);
    node.set_hint("room", b"m3", b"by hand").unwrap();
    assert!(node.by_hint("room", b"by hand").unwrap().is_some());
}

#[test]
fn a_store_node_keeps_each_message_once_and_finds_it_by_id_hint_and_order() {
    store_node_answers(StoreNode::new(MemoryArchive::new()).unwrap());
}

#[test]
fn what_a_store_node_kept_is_there_when_its_archive_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let open = |kind: bool| -> Box<dyn Archive> {
        if kind {
            Box::new(PoolArchive::open(folder.path(), "history").unwrap())
        } else {
            let folder = folder.path().join("store");
            Box::new(StoreArchive::open(folder, Durability::Group).unwrap())
        }
    };
    std::fs::create_dir(folder.path().join("store")).unwrap();
    for kind in [true, false] {
        store_node_answers(StoreNode::new(open(kind)).unwrap());
        let mut node = StoreNode::new(open(kind)).unwrap();
        node.serve("room", Profile::Lip, 1000).unwrap();
        assert_eq!(node.count("room").unwrap(), 3);
        assert!(node.by_hint("room", b"envelope of m1").unwrap().is_some());
        assert!(node.by_hint("room", b"by hand").unwrap().is_some());
    }
}

/// A message that says of each of these, an id and a hint, how it is found.
fn citing(id: &str, hints: &[(&str, &str)]) -> Message {
    let entry = |(id, hint): &(&str, &str)| HistoryEntry {
        id: id.as_bytes().to_vec(),
        hint: hint.as_bytes().to_vec(),
        sender: Vec::new(),
    };
    Message { causal: hints.iter().map(entry).collect(), ..message("mallory", id, L, &[]) }
}

fn observe(node: &mut StoreNode<impl Archive>, message: &Message) -> bool {
    node.observe(&message.encode(Profile::Lip)).unwrap()
}

fn found(node: &StoreNode<impl Archive>, hint: &str) -> Option<String> {
    let found = node.by_hint("room", hint.as_bytes()).unwrap()?;
    Some(String::from_utf8(Message::decode(Profile::Lip, &found).unwrap().id).unwrap())
}

#[test]
fn n3_a_hint_that_a_stranger_gave_first_is_the_applications_once_it_says_the_same() {
    let mut node = StoreNode::new(MemoryArchive::new()).unwrap();
    node.serve("room", Profile::Lip, 10).unwrap();
    let cites = |id: &str, cited: &str| {
        let mut entry = HistoryEntry::of(cited.as_bytes());
        entry.hint = b"where".to_vec();
        Message { causal: vec![entry], ..message("mallory", id, L, &[]) }.encode(Profile::Lip)
    };
    assert!(node.observe(&cites("s1", "m1")).unwrap());
    node.set_hint("room", b"m1", b"where").unwrap();
    assert!(node.observe(&cites("s2", "s1")).unwrap());
    let m1 = message("alice", "m1", L, &[]).encode(Profile::Lip);
    assert!(node.observe(&m1).unwrap());
    assert_eq!(node.by_hint("room", b"where").unwrap(), node.by_id("room", b"m1").unwrap());
}

#[test]
fn n3_strangers_hints_neither_bend_nor_crowd_out_those_that_mean_something() {
    let mut node = StoreNode::new(MemoryArchive::new()).unwrap();
    node.serve("room", Profile::Lip, 20).unwrap();
    // Before the message is here, somebody says that its hint means another one.
    assert!(observe(&mut node, &citing("x1", &[("no such", "envelope of m1")])));
    assert!(observe(&mut node, &message("alice", "m1", L + 1, &[])));
    assert!(observe(&mut node, &citing("m2", &[("m1", "envelope of m1")])));
    assert_eq!(found(&node, "envelope of m1").as_deref(), Some("m1"));
    // Then it stays, and invented ones make room for each other.
    observe(&mut node, &citing("x2", &[("m2", "envelope of m1")]));
    for number in 0..200 {
        let (id, hint) = (format!("none{number}"), format!("nowhere{number}"));
        let sync = Message { content: None, ..citing(&format!("x{number}"), &[(&id, &hint)]) };
        assert!(!observe(&mut node, &sync));
    }
    assert_eq!(found(&node, "envelope of m1").as_deref(), Some("m1"));
    // One that comes after them is taken all the same.
    observe(&mut node, &Message { content: None, ..citing("x", &[("m2", "envelope of m2")]) });
    assert_eq!(found(&node, "envelope of m2").as_deref(), Some("m2"));
    // What the application says counts, whatever was said before and will be.
    node.set_hint("room", b"m2", b"envelope of m1").unwrap();
    observe(&mut node, &Message { content: None, ..citing("x", &[("m1", "envelope of m1")]) });
    assert_eq!(found(&node, "envelope of m1").as_deref(), Some("m2"));
}

#[test]
fn hints_of_messages_that_are_not_kept_themselves_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let archive = PoolArchive::open(folder.path(), "history").unwrap();
        let mut node = StoreNode::new(archive).unwrap();
        node.serve("room", Profile::Lip, 3).unwrap();
        node
    };
    let mut node = open();
    let m1 = message("alice", "m1", L + 1, &[]);
    assert!(observe(&mut node, &m1) && observe(&mut node, &message("alice", "m2", L + 2, &[])));
    observe(
        &mut node,
        &Message { content: None, ..citing("sync", &[("m1", "by a sync message")]) },
    );
    let hints = citing("m2", &[("m1", "by a duplicate"), ("none", "of nothing")]);
    assert!(!observe(&mut node, &Message { lamport: m1.lamport, ..hints }));
    drop(node);
    let node = open();
    assert_eq!(found(&node, "by a sync message").as_deref(), Some("m1"));
    assert_eq!(found(&node, "by a duplicate").as_deref(), Some("m1"));
    // Records are never removed: there are as many of these as there may be messages.
    drop(node);
    let before = records(&folder);
    let mut node = open();
    for number in 0..50 {
        let hint = format!("again {number}");
        observe(&mut node, &Message { content: None, ..citing("sync", &[("m1", &hint)]) });
    }
    drop(node);
    assert_eq!(records(&folder) - before, 1);
}

fn records(folder: &tempfile::TempDir) -> usize {
    PoolArchive::open(folder.path(), "history").unwrap().keys().unwrap().len()
}
