//! LIP-109, Receive Message; Deliver Message; Resolve Conflicts; D1, D2: exactly once, in causal order,
//! the same order everywhere.

use mainstay_sds::{Config, Received};

use crate::group::{L, START, Said, channel, delivered, drain, log, message, receive, send};

#[test]
fn messages_that_arrive_backwards_are_delivered_forwards() {
    let mut bob = channel("bob", Config::lip());
    let m = |id, lamport, causal: &[&str]| message("alice", id, L + lamport, causal);
    let received = receive(&mut bob, START, &m("m3", 3, &["m2"]));
    assert_eq!(received, Received::Buffered { missing: 1 });
    assert_eq!(receive(&mut bob, START, &m("m2", 2, &["m1"])), Received::Buffered { missing: 1 });
    assert!(delivered(&drain(&mut bob)).is_empty());
    assert_eq!(receive(&mut bob, START, &m("m1", 1, &[])), Received::Delivered { released: 2 });
    assert_eq!(delivered(&drain(&mut bob)), ["m1", "m2", "m3"]);
    assert_eq!(log(&bob), ["m1", "m2", "m3"]);
    assert_eq!(bob.counts().missing, 0);
}

#[test]
fn a_message_that_is_here_and_waits_is_not_asked_for() {
    let mut bob = channel("bob", Config::lip());
    receive(&mut bob, START, &message("alice", "m2", L + 2, &["m1"]));
    drain(&mut bob);
    receive(&mut bob, START, &message("alice", "m3", L + 3, &["m2"]));
    let said = drain(&mut bob);
    assert!(said.is_empty(), "m2 is here: {said:?}");
    assert_eq!(bob.counts().missing, 1);
}

#[test]
fn what_one_message_releases_comes_after_it_and_in_the_order_of_the_log() {
    let mut bob = channel("bob", Config::lip());
    for (id, lamport) in [("z", 4), ("x", 2), ("y", 3)] {
        receive(&mut bob, START, &message("alice", id, L + lamport, &["m1"]));
    }
    receive(&mut bob, START, &message("alice", "m1", L + 1, &[]));
    assert_eq!(delivered(&drain(&mut bob)), ["m1", "x", "y", "z"]);
}

#[test]
fn messages_of_the_same_time_stand_in_the_order_of_their_ids() {
    let mut bob = channel("bob", Config::lip());
    for id in ["b", "c", "a"] {
        receive(&mut bob, START, &message("alice", id, L, &[]));
    }
    assert_eq!(log(&bob), ["a", "b", "c"]);
}

#[test]
fn a_late_message_is_placed_and_the_application_is_told_where() {
    let mut bob = channel("bob", Config::lip());
    for (id, lamport) in [("m1", 1), ("m4", 4), ("m3", 3), ("m2", 2)] {
        receive(&mut bob, START, &message("alice", id, L + lamport, &[]));
    }
    let places: Vec<usize> = drain(&mut bob)
        .iter()
        .filter_map(|said| match said {
            Said::Delivered { later, .. } => Some(*later),
            _ => None,
        })
        .collect();
    assert_eq!(places, [0, 0, 1, 2]);
    assert_eq!(log(&bob), ["m1", "m2", "m3", "m4"]);
}

#[test]
fn a_duplicate_is_told_from_a_first_delivery_and_delivers_nothing() {
    let mut bob = channel("bob", Config::lip());
    let m1 = message("alice", "m1", L, &[]);
    assert_eq!(receive(&mut bob, START, &m1), Received::Delivered { released: 0 });
    drain(&mut bob);
    assert_eq!(receive(&mut bob, START, &m1), Received::Duplicate);
    assert!(drain(&mut bob).is_empty());
}

#[test]
fn a_duplicate_of_a_message_that_waits_leaves_it_waiting_and_does_not_strand_it() {
    let mut bob = channel("bob", Config::lip());
    let m2 = message("alice", "m2", L + 2, &["m0", "m1"]);
    receive(&mut bob, START, &m2);
    bob.mark_known(START, b"m1").unwrap();
    assert_eq!(receive(&mut bob, START, &m2), Received::Duplicate);
    receive(&mut bob, START, &message("alice", "m0", L, &[]));
    assert_eq!(delivered(&drain(&mut bob)), ["m0", "m2"]);
}

#[test]
fn what_the_application_marked_as_known_stays_known() {
    let mut bob = channel("bob", Config::lip());
    receive(&mut bob, START, &message("alice", "m2", L + 2, &["m1"]));
    assert!(bob.mark_known(START, b"m1").unwrap(), "m2 depended on it");
    receive(&mut bob, START, &message("alice", "m3", L + 3, &["m1", "m2"]));
    assert_eq!(delivered(&drain(&mut bob)), ["m2", "m3"]);
    let received = receive(&mut bob, START, &message("alice", "m1", L + 1, &[]));
    assert_eq!(received, Received::Duplicate);
}

#[test]
fn a_message_that_cites_itself_does_not_wait_for_itself() {
    let mut bob = channel("bob", Config::lip());
    let received = receive(&mut bob, START, &message("alice", "m1", L, &["m1"]));
    assert_eq!(received, Received::Delivered { released: 0 });
}

#[test]
fn messages_that_wait_for_each_other_wait_without_harm() {
    let mut bob = channel("bob", Config::lip());
    receive(&mut bob, START, &message("mallory", "x", L, &["y"]));
    receive(&mut bob, START, &message("mallory", "y", L, &["x"]));
    assert_eq!(bob.counts().buffered, 2);
    receive(&mut bob, START, &message("alice", "m1", L, &[]));
    assert_eq!(log(&bob), ["m1"]);
}

#[test]
fn a_message_that_left_the_log_is_not_delivered_again() {
    let mut config = Config::lip();
    config.history = 3;
    let mut bob = channel("bob", config);
    for lamport in 1..=5 {
        receive(&mut bob, START, &message("alice", &format!("m{lamport}"), L + lamport, &[]));
    }
    drain(&mut bob);
    let received = receive(&mut bob, START, &message("alice", "m1", L + 1, &[]));
    assert_eq!(received, Received::Duplicate);
    assert_eq!(log(&bob), ["m3", "m4", "m5"], "and it has evicted nothing");
}

#[test]
fn a_message_so_old_that_its_id_is_forgotten_is_not_delivered_again() {
    let mut config = Config::lip();
    config.history = 3;
    let mut bob = channel("bob", config);
    for lamport in 1..=100 {
        receive(&mut bob, START, &message("alice", &format!("m{lamport}"), L + lamport, &[]));
    }
    assert_eq!(bob.counts().remembered, 6);
    drain(&mut bob);
    for lamport in 1..=100 {
        let id = format!("m{lamport}");
        let received = receive(&mut bob, START, &message("alice", &id, L + lamport, &[]));
        assert!(matches!(received, Received::Duplicate | Received::TooOld), "{id}: {received:?}");
    }
    assert!(delivered(&drain(&mut bob)).is_empty());
}

#[test]
fn an_old_message_that_others_wait_for_does_not_strand_them() {
    let mut config = Config::lip();
    config.history = 3;
    let mut bob = channel("bob", config);
    for lamport in 10..=100 {
        receive(&mut bob, START, &message("alice", &format!("m{lamport}"), L + lamport, &[]));
    }
    receive(&mut bob, START, &message("alice", "late", L + 200, &["ancient"]));
    drain(&mut bob);
    let received = receive(&mut bob, START, &message("alice", "ancient", L + 1, &[]));
    assert_eq!(received, Received::TooOld);
    let said = drain(&mut bob);
    assert!(said.contains(&Said::Lost("ancient".into())));
    assert_eq!(delivered(&said), ["late"]);
}

#[test]
fn ones_own_messages_are_ignored_when_they_come_back() {
    let mut alice = channel("alice", Config::lip());
    let bytes = send(&mut alice, START, "m1");
    assert_eq!(alice.receive(START, &bytes), Ok(Received::Own));
    assert_eq!(alice.counts().outgoing, 1, "its own filter acknowledges nothing");
    assert!(drain(&mut alice).is_empty());
}

#[test]
fn ones_own_messages_come_back_to_one_who_has_lost_everything() {
    let mut before = channel("alice", Config::lip());
    let m1 = send(&mut before, START, "m1");
    let mut after = channel("alice", Config::lip());
    assert_eq!(after.receive(START, &m1), Ok(Received::Delivered { released: 0 }));
    assert_eq!(log(&after), ["m1"]);
}

#[test]
fn a_repeated_id_is_refused_and_changes_nothing() {
    let mut alice = channel("alice", Config::lip());
    send(&mut alice, START, "m1");
    let before = alice.counts();
    assert!(alice.send(START, b"m1", b"other").is_err());
    assert_eq!(alice.counts(), before);
}

#[test]
fn deliveries_are_numbered_without_a_gap() {
    let mut bob = channel("bob", Config::lip());
    for (id, lamport, causal) in [("m1", 1, None), ("m3", 3, Some("m2")), ("m2", 2, Some("m1"))] {
        receive(&mut bob, START, &message("alice", id, L + lamport, causal.as_slice()));
    }
    let numbers: Vec<u64> = drain(&mut bob)
        .iter()
        .filter_map(|said| match said {
            Said::Delivered { number, .. } => Some(*number),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, [1, 2, 3]);
}
