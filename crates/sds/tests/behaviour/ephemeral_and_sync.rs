//! LIP-109, Periodic Sync Message; Ephemeral Messages; D3, D5.

use mainstay_sds::{
    Config, Error, Reason, Received,
    wire::{Kind, Message, MessageView, Profile},
};

use crate::group::{
    Group, L, START, Said, broadcasts, channel, drain, log, message, receive, send,
};

#[test]
fn an_ephemeral_message_is_delivered_at_once_and_leaves_no_trace() {
    let mut alice = channel("alice", Config::lip());
    let mut bob = channel("bob", Config::lip());
    alice.send_ephemeral(b"t1", b"typing").unwrap();
    let bytes = broadcasts(&drain(&mut alice));
    let view = MessageView::parse(Profile::Lip, &bytes[0]).unwrap();
    assert_eq!((view.kind(), view.lamport, view.filter), (Kind::Ephemeral, None, None));
    assert!(view.causal.is_empty());
    assert_eq!(bob.receive(START, &bytes[0]), Ok(Received::Ephemeral));
    assert_eq!(drain(&mut bob), [Said::Ephemeral("t1".into())]);
    assert_eq!((alice.counts().known, bob.counts().known), (0, 0));
    assert!(bob.filter().is_empty() && bob.poll_timeout().is_none());
    assert_eq!((alice.counts().outgoing, alice.poll_timeout()), (0, None));
}

#[test]
fn the_nim_profile_has_no_ephemeral_messages_and_says_so() {
    let mut alice = channel("alice", Config::nim());
    let refused = alice.send_ephemeral(b"t1", b"typing");
    assert!(matches!(refused, Err(Error::NotInProfile { .. })));
}

fn sync_of(channel: &mut mainstay_sds::Channel) -> Vec<u8> {
    channel.announce(START);
    let at = channel.poll_timeout().unwrap();
    channel.handle_timeout(START.after(at - START.mono_ms));
    broadcasts(&drain(channel)).remove(0)
}

#[test]
fn a_sync_message_has_history_filter_and_time_and_is_kept_nowhere() {
    let mut alice = channel("alice", Config::lip());
    for number in 0..60 {
        send(&mut alice, START, &format!("m{number:02}"));
    }
    let lamport = alice.counts().lamport;
    let bytes = sync_of(&mut alice);
    let sync = MessageView::parse(Profile::Lip, &bytes).unwrap();
    assert_eq!(sync.kind(), Kind::Sync);
    assert!(sync.lamport.unwrap() > lamport);
    assert_eq!(sync.causal.len(), 50);
    assert_eq!(sync.causal.iter().last().unwrap().id, b"m59");
    assert_eq!(sync.filter.unwrap(), alice.filter().to_bytes());
    assert_eq!((alice.counts().logged, alice.counts().outgoing), (60, 60));
    assert!(!log(&alice).iter().any(|id| id.starts_with("sync")));

    let mut bob = channel("bob", Config::lip());
    assert_eq!(bob.receive(START, &bytes), Ok(Received::Sync));
    assert_eq!((bob.counts().logged, bob.counts().buffered), (0, 0));
    assert_eq!(bob.counts().missing, 50, "what it cites is asked for all the same");
    assert!(bob.filter().is_empty());
}

#[test]
fn a_sync_message_acknowledges_like_any_other() {
    let mut alice = channel("alice", Config::lip());
    let m1 = send(&mut alice, START, "m1");
    let mut bob = channel("bob", Config::lip());
    bob.receive(START, &m1).unwrap();
    drain(&mut bob);
    let sync = sync_of(&mut bob);
    alice.receive(START, &sync).unwrap();
    assert_eq!(drain(&mut alice), [Said::Acknowledged("m1".into())]);
}

#[test]
fn a_participant_that_only_reads_gets_its_repairs_by_sync_messages() {
    let mut config = Config::lip();
    config.resend_ms = 10_000_000;
    let mut group = Group::new(2, &config);
    group.send(0, "m1", |_| false);
    group.send(0, "m2", |_| true);
    assert!(group.delivered(1).is_empty());
    group.pass(300_000, &mut |_, _, _| true);
    assert_eq!(group.delivered(1), ["m1", "m2"]);
    assert!(group.sent.contains_key("Repair"));
}

#[test]
fn the_last_message_arrives_even_if_nobody_ever_cites_it() {
    let mut config = Config::lip();
    config.resend_attempts = 0;
    let mut group = Group::new(3, &config);
    group.send(0, "m1", |to| to == 1);
    group.pass(600_000, &mut |_, _, _| true);
    assert!(group.agrees());
    assert_eq!(group.delivered(2), ["m1"]);
}

#[test]
fn a_channel_without_news_has_no_timer() {
    let mut group = Group::new(10, &Config::lip());
    assert!(group.channels.iter().all(|channel| channel.poll_timeout().is_none()));
    for number in 0..5 {
        group.send(number, &format!("m{number}"), |_| true);
    }
    group.pass(3_600_000, &mut |_, _, _| true);
    for channel in &group.channels {
        assert_eq!(channel.poll_timeout(), None, "after an hour of silence");
    }
    assert!(group.sent["Sync"] <= 20, "{:?}", group.sent);
}

#[test]
fn one_that_comes_back_after_all_are_silent_gets_what_it_missed() {
    let mut group = Group::new(5, &Config::lip());
    group.send(0, "m1", |_| true);
    group.send(0, "m2", |to| to != 4);
    let mut alone = |from: usize, to: usize, _: Reason| from != 4 && to != 4;
    group.pass(3_600_000, &mut alone);
    assert!(!group.agrees());
    group.channels[4].announce(group.now);
    group.pass(600_000, &mut |_, _, _| true);
    assert!(group.agrees(), "{:?}", group.logs());
}

#[test]
fn a_sync_message_of_one_who_misses_nothing_causes_no_traffic() {
    let mut alice = channel("alice", Config::lip());
    let m1 = send(&mut alice, START, "m1");
    let mut bob = channel("bob", Config::lip());
    bob.receive(START, &m1).unwrap();
    drain(&mut bob);
    let sync = sync_of(&mut bob);
    for _ in 0..20 {
        alice.receive(START, &sync).unwrap();
    }
    drain(&mut alice);
    assert_eq!(alice.poll_timeout(), None, "acknowledged, and everybody has everything");
}

#[test]
fn an_empty_message_of_a_nim_peer_is_a_sync_message_and_what_cites_it_does_not_wait() {
    let mut bob = channel("bob", Config::nim());
    let empty = Message { content: None, ..message("alice", "empty", L / 1000, &[]) };
    assert_eq!(bob.receive(START, &empty.encode(Profile::Nim)), Ok(Received::Sync));
    assert!(drain(&mut bob).is_empty());
    assert_eq!(bob.counts().logged, 0);
    let next = message("alice", "m1", L / 1000 + 1, &["empty"]);
    let received = bob.receive(START, &next.encode(Profile::Nim));
    assert_eq!(received, Ok(Received::Delivered { released: 0 }));
}

#[test]
fn an_empty_message_that_was_missed_satisfies_those_that_wait_for_it() {
    let mut bob = channel("bob", Config::nim());
    let next = message("alice", "m1", L / 1000 + 1, &["empty"]);
    let received = bob.receive(START, &next.encode(Profile::Nim));
    assert_eq!(received, Ok(Received::Buffered { missing: 1 }));
    let empty = Message { content: None, ..message("alice", "empty", L / 1000, &[]) };
    bob.receive(START, &empty.encode(Profile::Nim)).unwrap();
    assert_eq!(log(&bob), ["m1"]);
}

#[test]
fn a_sync_message_of_ones_own_is_ignored() {
    let mut alice = channel("alice", Config::lip());
    send(&mut alice, START, "m1");
    let sync = sync_of(&mut alice);
    assert_eq!(alice.receive(START, &sync), Ok(Received::Own));
    assert_eq!(alice.counts().outgoing, 1);
}

#[test]
fn content_that_is_present_and_empty_is_no_content() {
    let mut bob = channel("bob", Config::lip());
    let empty = Message { content: Some(vec![]), ..message("alice", "m1", L, &[]) };
    assert_eq!(receive(&mut bob, START, &empty), Received::Sync);
}

/// Three, of whom one lacks the last message, which nobody sends again.
fn trailing() -> Group {
    let mut config = Config::lip();
    config.resend_attempts = 0;
    let mut group = Group::new(3, &config);
    group.send(0, "m1", |to| to == 1);
    group
}

#[test]
fn those_who_type_keep_nobody_from_hearing_of_the_last_message() {
    let mut group = trailing();
    for second in 0..3600 {
        if second % 5 == 0 {
            let id = format!("typing{second}");
            group.channels[1].send_ephemeral(id.as_bytes(), b"typing").unwrap();
            group.settle(&mut |_, _, _| true);
        }
        group.pass(1000, &mut |_, _, _| true);
    }
    assert_eq!(group.delivered(2), ["m1"]);
    for channel in &group.channels {
        assert_eq!(channel.poll_timeout(), None, "typing is no news");
    }
}

#[test]
fn a_sync_message_that_says_nothing_keeps_nobody_from_hearing_of_the_last_message() {
    let none = |_| Vec::new();
    let invented = |second: u64| (0..40).map(|number| format!("none{second}-{number}")).collect();
    let said: [&dyn Fn(u64) -> Vec<String>; 2] = [&none, &invented];
    for says in said {
        let mut group = trailing();
        for second in 0..600 {
            if second % 10 == 0 {
                let cited = says(second);
                let cited: Vec<&str> = cited.iter().map(String::as_str).collect();
                let id = format!("x{second}");
                let empty = Message { content: None, ..message("mallory", &id, L, &cited) };
                let now = group.now;
                for channel in &mut group.channels {
                    receive(channel, now, &empty);
                }
                group.settle(&mut |_, _, _| true);
            }
            // Nobody's own requests make him speak.
            let mut arrives = |_, _, _| true;
            group.pass(1000, &mut arrives);
        }
        assert_eq!(group.delivered(2), ["m1"]);
    }
}

#[test]
fn an_ephemeral_message_that_the_network_doubles_is_delivered_once_among_the_last_ones() {
    let mut alice = channel("alice", Config::lip());
    let mut bob = channel("bob", Config::lip());
    let mut say = |id: &str| {
        alice.send_ephemeral(id.as_bytes(), b"typing").unwrap();
        broadcasts(&drain(&mut alice)).remove(0)
    };
    let first = say("t1");
    for number in 0..63 {
        bob.receive(START, &if number == 0 { first.clone() } else { say(&format!("u{number}")) })
            .unwrap();
    }
    drain(&mut bob);
    assert_eq!(bob.receive(START, &first), Ok(Received::Duplicate));
    assert!(drain(&mut bob).is_empty());
    // What is remembered has an end.
    for number in 0..64 {
        bob.receive(START, &say(&format!("v{number}"))).unwrap();
    }
    drain(&mut bob);
    assert_eq!(bob.receive(START, &first), Ok(Received::Ephemeral));
    assert_eq!(bob.counts().known, 0);
}
