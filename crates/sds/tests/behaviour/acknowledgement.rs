//! LIP-109, Review ACK Status; A1, A2.

use mainstay_sds::{
    Channel, Config,
    bloom::{Params, RollingFilter},
    hash::FilterHashes,
    wire::{HistoryEntry, Message, Profile},
};

use crate::group::{L, START, Said, channel, drain, message, receive, send};

fn params() -> Params {
    Params::new(10_000, 0.001).unwrap()
}

/// A sync message of `sender` whose filter has these ids.
fn with_filter(sender: &str, ids: &[&str]) -> Message {
    let mut filter = RollingFilter::new(Profile::Lip, params());
    for id in ids {
        filter.add(FilterHashes::of(Profile::Lip, id.as_bytes()));
    }
    let content = None;
    let filter = Some(filter.to_bytes());
    Message { content, filter, ..message(sender, "sync", L + 10, &[]) }
}

fn alice_with_messages(count: usize) -> Channel {
    let mut alice = channel("alice", Config::lip());
    for number in 0..count {
        send(&mut alice, START, &format!("m{number}"));
    }
    alice
}

#[test]
fn a_causal_history_acknowledges_at_once() {
    let mut alice = alice_with_messages(2);
    receive(&mut alice, START, &message("bob", "b1", L + 100, &["m0", "m1"]));
    let said = drain(&mut alice);
    assert!(said.contains(&Said::Acknowledged("m0".into())));
    assert!(said.contains(&Said::Acknowledged("m1".into())));
    assert_eq!(alice.counts().outgoing, 0);
}

#[test]
fn one_filter_makes_possibly_acknowledged_and_another_sender_acknowledged() {
    let mut alice = alice_with_messages(1);
    receive(&mut alice, START, &with_filter("bob", &["m0"]));
    assert_eq!(drain(&mut alice), [Said::Possibly("m0".into())]);
    receive(&mut alice, START, &with_filter("bob", &["m0"]));
    assert!(drain(&mut alice).is_empty(), "the same sender once more is no news");
    receive(&mut alice, START, &with_filter("carol", &["m0"]));
    assert_eq!(drain(&mut alice), [Said::Acknowledged("m0".into())]);
}

#[test]
fn in_a_channel_of_two_one_filter_is_enough() {
    let mut config = Config::lip();
    config.participants = 2;
    let mut alice = channel("alice", config);
    send(&mut alice, START, "m0");
    receive(&mut alice, START, &with_filter("bob", &["m0"]));
    assert_eq!(drain(&mut alice), [Said::Acknowledged("m0".into())]);
}

#[test]
fn filters_do_not_acknowledge_a_message_whose_bits_ours_had_already() {
    // A small filter that is nearly full of other ids: the next id finds few bits clear.
    let mut config = Config::nim_own();
    (config.filter_capacity, config.filter_error_rate) = (64, 0.25);
    config.seed = 1;
    let mut alice = Channel::new("room", b"alice", config).unwrap();
    for number in 0..70_u64 {
        let other = message("dave", &format!("d{number}"), L / 1000 + number, &[]);
        alice.receive(START, &other.encode(Profile::Nim)).unwrap();
    }
    let mut sent = Vec::new();
    for number in 0..6 {
        let id = format!("m{number}");
        alice.send(START, id.as_bytes(), b"content").unwrap();
        sent.push(id);
    }
    drain(&mut alice);
    // Peers whose filters have all of them, and the same geometry, by chance or not.
    let params = alice.filter().params();
    for sender in ["bob", "carol", "erin", "frank"] {
        let mut filter = RollingFilter::new(Profile::Nim, params);
        for id in &sent {
            filter.add(FilterHashes::of(Profile::Nim, id.as_bytes()));
        }
        let sync = Message {
            content: None,
            filter: Some(filter.to_bytes()),
            ..message(sender, "sync", L / 1000 + 100, &[])
        };
        alice.receive(START, &sync.encode(Profile::Nim)).unwrap();
    }
    let said = drain(&mut alice);
    let acknowledged = said.iter().filter(|said| matches!(said, Said::Acknowledged(_))).count();
    assert_eq!(acknowledged, 0, "two bits a message are no proof: {said:?}");
    assert_eq!(alice.counts().outgoing, 6);
}

#[test]
fn a_filter_of_ones_acknowledges_nothing() {
    let mut alice = alice_with_messages(50);
    for sender in ["bob", "carol", "dave"] {
        let ones = Message { filter: Some(vec![0xff; 18_752]), ..with_filter(sender, &[]) };
        receive(&mut alice, START, &ones);
    }
    assert!(drain(&mut alice).is_empty());
    assert_eq!(alice.counts().outgoing, 50);
}

#[test]
fn a_filter_of_another_size_is_ignored_in_the_lip_profile() {
    let mut alice = alice_with_messages(1);
    let short = Message { filter: Some(vec![0; 16]), ..with_filter("bob", &[]) };
    receive(&mut alice, START, &short);
    assert!(drain(&mut alice).is_empty());
}

#[test]
fn every_own_message_is_looked_up_in_turns_when_there_are_many() {
    let mut alice = alice_with_messages(1000);
    let ids: Vec<String> = (0..1000).map(|number| format!("m{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    for sender in ["bob", "carol", "dave"] {
        for _ in 0..1000_usize.div_ceil(128) {
            receive(&mut alice, START, &with_filter(sender, &ids));
        }
    }
    assert!(alice.counts().outgoing < 10, "{} are left", alice.counts().outgoing);
}

#[test]
fn an_empty_filter_and_an_unknown_id_do_no_harm() {
    let mut alice = alice_with_messages(1);
    let mut sync = with_filter("bob", &[]);
    sync.causal = vec![HistoryEntry::of(b"")];
    receive(&mut alice, START, &sync);
    sync.filter = Some(Vec::new());
    receive(&mut alice, START, &sync);
    assert!(drain(&mut alice).is_empty());
}

#[test]
fn a_real_exchange_acknowledges_by_causal_history() {
    let mut alice = channel("alice", Config::lip());
    let mut bob = channel("bob", Config::lip());
    let m1 = send(&mut alice, START, "m1");
    bob.receive(START, &m1).unwrap();
    drain(&mut bob);
    let m2 = send(&mut bob, START, "m2");
    alice.receive(START, &m2).unwrap();
    assert_eq!(drain(&mut alice)[0], Said::Acknowledged("m1".into()));
}
