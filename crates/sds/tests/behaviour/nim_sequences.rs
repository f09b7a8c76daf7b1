//! The scripted sequences of the nim peers: the same bytes in, and the same messages end up in the
//! history and among those that wait, apart from what is a fault of theirs.

use mainstay_sds::{
    Channel, Config, Error, Received,
    wire::{Message, Profile},
};
use serde_json::Value;

use crate::group::{START, Said, delivered, drain, text};

fn sequences() -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../vectors/sds-vectors.json")).unwrap();
    all["nim"]["sequences"].as_array().unwrap().clone()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn ids(value: &Value) -> Vec<String> {
    let mut ids: Vec<String> =
        value.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// Sequences of receptions only, and without one of their faults in the history.
const ALIKE: [&str; 5] =
    ["in-order", "reverse-order-cascade", "fan-out-lifo", "duplicate", "duplicate-while-buffered"];

#[test]
fn the_same_messages_are_delivered_and_wait_as_with_the_nim_peers() {
    let mut steps = 0;
    for sequence in sequences() {
        if !ALIKE.contains(&sequence["name"].as_str().unwrap()) {
            continue;
        }
        let name = sequence["channel"].as_str().unwrap();
        let own = sequence["participant"].as_str().unwrap();
        let mut channel = Channel::new(name, own.as_bytes(), Config::nim()).unwrap();
        for step in sequence["steps"].as_array().unwrap() {
            channel.receive(START, &unhex(step["hex"].as_str().unwrap())).unwrap();
            let mut log: Vec<String> = channel.log().map(|entry| text(entry.id)).collect();
            log.sort();
            assert_eq!(log, ids(&step["state"]["history"]), "{}: {step}", sequence["name"]);
            let waiting = step["state"]["incoming"].as_object().unwrap().len();
            assert_eq!(channel.counts().buffered, waiting, "{step}");
            steps += 1;
        }
    }
    assert!(steps >= 13, "{steps}");
}

fn sequence(name: &str) -> Vec<Value> {
    let found = sequences().into_iter().find(|sequence| sequence["name"] == name).unwrap();
    found["steps"].as_array().unwrap().clone()
}

#[test]
fn where_they_deliver_children_before_their_parent_we_do_not() {
    let mut bob = Channel::new("ch1", b"bob", Config::nim()).unwrap();
    for step in sequence("reverse-order-cascade") {
        bob.receive(START, &unhex(step["hex"].as_str().unwrap())).unwrap();
    }
    assert_eq!(delivered(&drain(&mut bob)), ["m1", "m2", "m3"]);
}

#[test]
fn where_they_forget_what_was_marked_as_known_we_do_not() {
    let mut bob = Channel::new("ch1", b"bob", Config::nim()).unwrap();
    for step in sequence("mark-met") {
        match step["op"].as_str().unwrap() {
            "unwrap" => drop(bob.receive(START, &unhex(step["hex"].as_str().unwrap())).unwrap()),
            _ => drop(bob.mark_known(START, b"m1").unwrap()),
        }
    }
    assert_eq!(delivered(&drain(&mut bob)), ["m2", "m3"]);
}

#[test]
fn where_they_deliver_a_sync_message_we_do_not() {
    let mut bob = Channel::new("ch1", b"bob", Config::nim()).unwrap();
    let step = &sequence("sync-message-received")[0];
    let received = bob.receive(START, &unhex(step["hex"].as_str().unwrap())).unwrap();
    assert_eq!((received, bob.counts().logged), (Received::Sync, 0));
}

#[test]
fn an_own_message_that_is_asked_for_is_sent_again_byte_for_byte_as_by_them() {
    let steps = sequence("repair-request-response");
    // There the owner has its own message from elsewhere, as after a restart.
    let mut alice = Channel::new("ch1", b"alice", Config::nim()).unwrap();
    for step in &steps[..2] {
        alice.receive(START, &unhex(step["hex"].as_str().unwrap())).unwrap();
    }
    drain(&mut alice);
    alice.handle_timeout(START);
    let said = drain(&mut alice);
    let Some(Said::Broadcast { bytes, .. }) = said.first() else { panic!("{said:?}") };
    assert_eq!(*bytes, unhex(steps[2]["events"][0]["hex"].as_str().unwrap()));
}

#[test]
fn a_causal_history_acknowledges_as_with_them() {
    let mut alice = Channel::new("ch1", b"alice", Config::nim()).unwrap();
    let steps = sequence("wrap-ack-causal");
    let now = mainstay_sds::Now { wall_ms: 4_000_000_000_000, ..START };
    for id in [&b"a1"[..], b"a2"] {
        alice.send(now, id, b"\x01").unwrap();
    }
    assert_eq!(alice.counts().lamport.to_string(), "4000000002");
    drain(&mut alice);
    alice.receive(now, &unhex(steps[2]["hex"].as_str().unwrap())).unwrap();
    assert_eq!(drain(&mut alice)[0], Said::Acknowledged("a1".into()));
    assert_eq!(alice.counts().lamport, steps[2]["state"]["lamport"].as_u64().unwrap());
    assert_eq!(alice.counts().outgoing, 1);
}

/// There one hit of a filter is an acknowledgement, here it is a probable one; of two participants
/// it is enough if the filter can hardly be wrong.
#[test]
fn what_acknowledges_by_a_filter_with_them_acknowledges_probably_or_between_two_here() {
    let steps = sequence("wrap-ack-bloom");
    let now = mainstay_sds::Now { wall_ms: 4_000_000_000_000, ..START };
    for participants in [2, 100] {
        let mut config = Config::nim();
        config.participants = participants;
        let mut alice = Channel::new("ch1", b"alice", config).unwrap();
        for step in &steps[..2] {
            let (id, expected) = (step["id"].as_str().unwrap(), &step["decoded"]);
            let content = unhex(step["content_hex"].as_str().unwrap());
            alice.send(now, id.as_bytes(), &content).unwrap();
            let said = drain(&mut alice);
            let Said::Broadcast { bytes, .. } = &said[0] else { panic!("{said:?}") };
            assert_eq!(bytes.len() as u64, step["wire_len"].as_u64().unwrap());
            let sent = Message::decode(Profile::Nim, bytes).unwrap();
            assert_eq!(sent.lamport.unwrap().to_string(), expected["lamport"].as_str().unwrap());
            let cited: Vec<String> = sent.causal.iter().map(|entry| text(&entry.id)).collect();
            let theirs = expected["causal_history"].as_array().unwrap();
            let theirs: Vec<&str> =
                theirs.iter().map(|entry| entry["message_id"].as_str().unwrap()).collect();
            assert_eq!(cited, theirs);
            let filter = sent.filter.unwrap();
            assert_eq!(filter.len() as u64, expected["bloom_len"].as_u64().unwrap());
            // Behind tag and length of the bits.
            let bits: Vec<u64> = (0..150_000)
                .filter(|bit| filter[4 + bit / 8] & (1 << (bit % 8)) != 0)
                .map(|bit| bit as u64)
                .collect();
            let theirs = expected["bloom_set_bits"].as_array().unwrap();
            assert!(theirs.iter().map(|bit| bit.as_u64().unwrap()).eq(bits), "{step}");
        }
        // The message of the vector: its filter holds both.
        let own = mainstay_sds::bloom::Params::new(10_000, 0.001).unwrap();
        let mut filter = mainstay_sds::bloom::RollingFilter::new(Profile::Nim, own);
        for id in [b"a1", b"a2"] {
            filter.add(mainstay_sds::hash::FilterHashes::of(Profile::Nim, id));
        }
        let theirs = Message {
            id: b"b1".to_vec(),
            sender: b"bob".to_vec(),
            channel: b"ch1".to_vec(),
            lamport: Some(4_000_000_005),
            filter: Some(filter.to_bytes()),
            content: Some(vec![1]),
            ..Message::default()
        };
        alice.receive(now, &theirs.encode(Profile::Nim)).unwrap();
        let said = drain(&mut alice);
        let of = |id: &str| {
            let id = id.to_owned();
            if participants == 2 { Said::Acknowledged(id) } else { Said::Possibly(id) }
        };
        assert!(said.contains(&of("a1")) && said.contains(&of("a2")), "{said:?}");
        assert_eq!(alice.counts().lamport, steps[2]["state"]["lamport"].as_u64().unwrap());
    }
}

#[test]
fn content_that_is_empty_cannot_be_sent_here_either() {
    let mut bob = Channel::new("ch1", b"bob", Config::nim()).unwrap();
    let steps = sequence("sync-message-received");
    assert_eq!(steps[1]["op"], "wrap-empty");
    bob.receive(START, &unhex(steps[0]["hex"].as_str().unwrap())).unwrap();
    let lamport = bob.counts().lamport;
    assert!(matches!(bob.send(START, b"m1", b""), Err(Error::Limit { .. })));
    assert_eq!((bob.counts().lamport, bob.counts().outgoing), (lamport, 0));
}
