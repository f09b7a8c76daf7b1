//! A participant that comes later than the channel's first message: an addition to LIP-109, Receive
//! Message.

use mainstay_sds::{Config, Received, Start};

use crate::group::{L, START, Said, channel, delivered, drain, message, receive};

fn joining() -> Config {
    let mut config = Config::lip();
    config.start = Start::Joining;
    config
}

#[test]
fn what_the_first_message_depends_on_is_reported_once_and_not_waited_for() {
    let mut bob = channel("bob", joining());
    let first = message("alice", "m9", L + 9, &["m7", "m8"]);
    assert_eq!(receive(&mut bob, START, &first), Received::Delivered { released: 0 });
    let said = drain(&mut bob);
    let reported = said
        .iter()
        .filter(|said| matches!(said, Said::Missing { before_joining: true, .. }))
        .count();
    assert_eq!((reported, delivered(&said)), (2, vec!["m9"]));
    assert_eq!((bob.counts().missing, bob.counts().wanted), (0, 0));
    receive(&mut bob, START, &message("alice", "m10", L + 10, &["m7", "m8", "m9"]));
    assert_eq!(delivered(&drain(&mut bob)), ["m10"], "they count as known");
}

#[test]
fn what_precedes_something_from_before_joining_is_from_before_too() {
    let mut bob = channel("bob", joining());
    receive(&mut bob, START, &message("alice", "m9", L + 9, &["m8"]));
    drain(&mut bob);
    // Long after the first message, from one who cites more.
    let later = START.after(600_000);
    let m10 = message("carol", "m10", L + 10, &["m6", "m7", "m8", "m9"]);
    assert_eq!(receive(&mut bob, later, &m10), Received::Delivered { released: 0 });
}

#[test]
fn after_a_while_what_is_missing_is_waited_for() {
    let mut bob = channel("bob", joining());
    receive(&mut bob, START, &message("alice", "m9", L + 9, &["m8"]));
    let soon = START.after(29_999);
    let received = receive(&mut bob, soon, &message("alice", "m11", L + 11, &["m10"]));
    assert_eq!(received, Received::Delivered { released: 0 }, "it is new for T_min");
    let later = START.after(30_000);
    let received = receive(&mut bob, later, &message("alice", "m13", L + 13, &["m12"]));
    assert_eq!(received, Received::Buffered { missing: 1 });
}

#[test]
fn a_message_from_before_joining_that_comes_all_the_same_is_delivered_in_its_place() {
    let mut bob = channel("bob", joining());
    receive(&mut bob, START, &message("alice", "m9", L + 9, &["m8"]));
    drain(&mut bob);
    let later = START.after(600_000);
    let received = receive(&mut bob, later, &message("alice", "m8", L + 8, &["m7"]));
    assert_eq!(received, Received::Delivered { released: 0 });
    assert!(bob.log().map(|entry| entry.id).eq([b"m8", b"m9"]));
    assert_eq!(
        receive(&mut bob, later, &message("alice", "m8", L + 8, &["m7"])),
        Received::Duplicate
    );
}

#[test]
fn one_that_is_there_from_the_beginning_waits_for_the_first_message_too() {
    let mut bob = channel("bob", Config::lip());
    let received = receive(&mut bob, START, &message("alice", "m2", L + 2, &["m1"]));
    assert_eq!(received, Received::Buffered { missing: 1 });
}
