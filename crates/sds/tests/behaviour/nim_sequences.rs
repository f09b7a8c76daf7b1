//! The scripted sequences of the nim peers: the same bytes in, and the same messages end up in the
//! history and among those that wait, apart from what is a fault of theirs.

use mainstay_sds::{Channel, Config, Received};
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
