//! LIP-109, Periodic Outgoing Buffer Sweep.

use mainstay_sds::{
    Config, Reason,
    wire::{Message, MessageView, Profile},
};

use crate::group::{L, START, Said, broadcasts, channel, drain, message, receive, send};

fn quiet() -> Config {
    let mut config = Config::lip();
    config.sync = false;
    config
}

#[test]
fn an_unacknowledged_message_is_sent_again_and_in_the_end_reported_as_failed() {
    let mut alice = channel("alice", quiet());
    let first = send(&mut alice, START, "m1");
    let mut now = START;
    let mut resent = 0;
    let mut failed = 0;
    while let Some(at) = alice.poll_timeout() {
        now = now.after(at - now.mono_ms);
        alice.handle_timeout(now);
        for said in drain(&mut alice) {
            match said {
                Said::Broadcast { reason: Reason::Resend, bytes, .. } => {
                    resent += 1;
                    let (again, first) = (
                        Message::decode(Profile::Lip, &bytes).unwrap(),
                        Message::decode(Profile::Lip, &first).unwrap(),
                    );
                    assert_eq!((again.id, again.lamport), (first.id, first.lamport));
                    assert_eq!((again.causal, again.content), (first.causal, first.content));
                }
                Said::Failed(id) => {
                    assert_eq!(id, "m1");
                    failed += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((resent, failed), (5, 1));
    assert_eq!(now.mono_ms, START.mono_ms + 6 * 60_000);
    assert_eq!(alice.counts().outgoing, 0);
}

#[test]
fn a_possibly_acknowledged_message_is_sent_again_later() {
    let mut alice = channel("alice", quiet());
    let first = send(&mut alice, START, "m1");
    assert_eq!(alice.poll_timeout(), Some(START.mono_ms + 60_000));
    // Bob's filter has it, and his causal history does not.
    let mut bob = channel("bob", quiet());
    bob.receive(START, &first).unwrap();
    let theirs = send(&mut bob, START, "b1");
    let theirs = Message { causal: vec![], ..Message::decode(Profile::Lip, &theirs).unwrap() };
    receive(&mut alice, START, &theirs);
    let said = drain(&mut alice);
    assert!(said.contains(&Said::Possibly("m1".into())), "{said:?}");
    assert_eq!(alice.poll_timeout(), Some(START.mono_ms + 240_000));
}

#[test]
fn an_acknowledged_message_is_not_sent_again_and_leaves_no_timer() {
    let mut alice = channel("alice", quiet());
    send(&mut alice, START, "m1");
    receive(&mut alice, START, &message("bob", "b1", L + 10, &["m1"]));
    drain(&mut alice);
    assert_eq!(alice.poll_timeout(), None);
}

#[test]
fn a_message_sent_again_carries_the_filter_and_the_requests_of_the_day() {
    let mut config = quiet();
    (config.t_min_ms, config.t_max_ms) = (1000, 2000);
    let mut alice = channel("alice", config);
    send(&mut alice, START, "m1");
    receive(&mut alice, START, &message("bob", "b2", L + 10, &["b1"]));
    drain(&mut alice);
    let later = START.after(60_000);
    alice.handle_timeout(later);
    let bytes = broadcasts(&drain(&mut alice));
    let again = MessageView::parse(Profile::Lip, &bytes[0]).unwrap();
    assert!(again.requests.iter().map(|entry| entry.id).eq([b"b1"]));
    assert!(again.filter.is_some());
}

#[test]
fn a_step_of_the_wall_clock_neither_fires_nor_freezes_anything() {
    let mut alice = channel("alice", quiet());
    send(&mut alice, START, "m1");
    let mut now = START.after(59_999);
    now.wall_ms += 1_000_000_000;
    alice.handle_timeout(now);
    assert!(drain(&mut alice).is_empty());
    now.mono_ms += 1;
    now.wall_ms = 0;
    alice.handle_timeout(now);
    assert_eq!(broadcasts(&drain(&mut alice)).len(), 1);
}

#[test]
fn one_who_sends_a_message_again_hears_that_it_arrived_however_silent_the_others_have_become() {
    let mut alice = channel("alice", Config::lip());
    let mut bob = channel("bob", Config::lip());
    let m1 = send(&mut alice, START, "m1");
    bob.receive(START, &m1).unwrap();
    let mut last = "m1".to_owned();
    for number in 0..60 {
        let id = format!("c{number:02}");
        receive(&mut bob, START, &message("carol", &id, L + 1 + number, &[&last]));
        last = id;
    }
    // Nothing that bob says arrives, until he says nothing any more.
    let mut now = START;
    while let Some(at) = bob.poll_timeout() {
        now = now.after(at - now.mono_ms);
        bob.handle_timeout(now);
        drain(&mut bob);
    }
    now = now.after(60_000);
    alice.handle_timeout(now);
    let said = drain(&mut alice);
    let again = said.iter().find_map(|said| match said {
        Said::Broadcast { reason: Reason::Resend, bytes, .. } => Some(bytes),
        _ => None,
    });
    bob.receive(now, again.unwrap()).unwrap();
    drain(&mut bob);
    let now = now.after(bob.poll_timeout().expect("he has something to say") - now.mono_ms);
    bob.handle_timeout(now);
    let sync = broadcasts(&drain(&mut bob)).remove(0);
    let sync = Message::decode(Profile::Lip, &sync).unwrap();
    assert!(sync.causal.iter().any(|entry| entry.id == b"m1"), "it stands before the log's tail");
    receive(&mut alice, now, &Message { filter: None, ..sync });
    assert!(drain(&mut alice).contains(&Said::Acknowledged("m1".into())));
}

#[test]
fn a_copy_for_one_who_asked_is_no_question_whether_it_arrived() {
    let mut bob = channel("bob", quiet());
    receive(&mut bob, START, &message("alice", "m1", L, &[]));
    let needed = bob.counts().needed;
    receive(&mut bob, START, &message("alice", "m1", L, &[]));
    assert_eq!(bob.counts().needed, needed);
}

#[test]
fn one_that_failed_and_is_acknowledged_late_is_told_to_be_so_once() {
    let mut config = quiet();
    config.resend_attempts = 0;
    let mut alice = channel("alice", config);
    send(&mut alice, START, "m1");
    alice.handle_timeout(START.after(60_000));
    assert_eq!(drain(&mut alice), [Said::Failed("m1".into())]);
    receive(&mut alice, START, &message("bob", "b1", L + 10, &["m1", "m1"]));
    receive(&mut alice, START, &message("bob", "b2", L + 11, &["m1"]));
    let told = drain(&mut alice);
    assert_eq!(told.iter().filter(|said| **said == Said::Acknowledged("m1".into())).count(), 1);
}
