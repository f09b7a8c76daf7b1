//! LIP-109, Participant state; Send Message; Deliver Message: Lamport times, and how far they are
//! believed.

use mainstay_sds::{
    Channel, Config, Error, Now, Received, Start, limits,
    wire::{Message, Profile},
};

use crate::group::{L, START, Said, channel, drain, message, receive, send};

#[test]
fn in_the_lip_profile_a_message_has_the_time_in_milliseconds_or_one_more_than_the_last() {
    let mut alice = channel("alice", Config::lip());
    assert_eq!(alice.send(START, b"m1", b"x").unwrap().lamport, L);
    assert_eq!(alice.send(START, b"m2", b"x").unwrap().lamport, L + 1);
    assert_eq!(alice.send(START.after(10), b"m3", b"x").unwrap().lamport, L + 10);
    let back = Now { wall_ms: 5, ..START };
    assert_eq!(alice.send(back, b"m4", b"x").unwrap().lamport, L + 11);
}

#[test]
fn in_the_nim_profile_it_is_seconds_and_one_more() {
    let mut alice = channel("alice", Config::nim());
    let now_s = L / 1000;
    assert_eq!(alice.send(START, b"m1", b"x").unwrap().lamport, now_s + 1);
    assert_eq!(alice.send(START, b"m2", b"x").unwrap().lamport, now_s + 2);
    let theirs = message("bob", "b2", now_s + 10, &["b1"]);
    alice.receive(START, &theirs.encode(Profile::Nim)).unwrap();
    assert_eq!(alice.counts().lamport, now_s + 2, "not by one that waits, unlike their own");
    let theirs = message("bob", "b1", now_s + 9, &[]);
    alice.receive(START, &theirs.encode(Profile::Nim)).unwrap();
    assert_eq!(alice.counts().lamport, now_s + 11);
}

#[test]
fn in_the_lip_profile_the_time_follows_deliveries_and_not_receptions() {
    let mut bob = channel("bob", Config::lip());
    receive(&mut bob, START, &message("alice", "m2", L + 50, &["m1"]));
    assert_eq!(bob.counts().lamport, 0);
    receive(&mut bob, START, &message("alice", "m1", L + 40, &[]));
    assert_eq!(bob.counts().lamport, L + 50);
    drain(&mut bob);
    assert_eq!(bob.send(START, b"b1", b"x").unwrap().lamport, L + 51);
}

fn joined() -> Channel {
    let mut bob = channel("bob", Config::lip());
    receive(&mut bob, START, &message("alice", "m1", L, &[]));
    drain(&mut bob);
    bob
}

#[test]
fn a_time_too_far_ahead_is_refused_and_changes_nothing() {
    let mut bob = joined();
    let hour = 3_600_000;
    let before = bob.counts();
    for lamport in [L + hour + 1, limits::LAMPORT_MAX - 1, limits::LAMPORT_MAX, (1 << 63) - 1] {
        let message = message("mallory", "x", lamport, &["y"]);
        let refused = bob.receive(START, &message.encode(Profile::Lip));
        assert!(matches!(refused, Err(Error::LamportAhead { .. })), "{lamport}: {refused:?}");
    }
    let mut bare = message("mallory", "x", u64::MAX, &[]);
    assert!(bob.receive(START, &bare.encode(Profile::Lip)).is_err());
    bare.content = None;
    bare.lamport = Some(limits::LAMPORT_MAX);
    assert!(bob.receive(START, &bare.encode(Profile::Lip)).is_err(), "sync messages too");
    assert_eq!(bob.counts(), before);
    assert_eq!(
        receive(&mut bob, START, &message("alice", "m2", L + hour, &[])),
        Received::Delivered { released: 0 },
        "at the limit"
    );
}

#[test]
fn a_channel_that_has_run_ahead_of_the_clock_is_followed() {
    let mut config = Config::nim();
    config.lamport_gap = 10;
    let mut bob = channel("bob", config);
    let (now_s, hour_s) = (L / 1000, 3600);
    let mut lamport = now_s;
    while lamport < now_s + 3 * hour_s {
        let message = message("alice", &format!("m{lamport}"), lamport, &[]);
        bob.receive(START, &message.encode(Profile::Nim)).unwrap();
        drain(&mut bob);
        lamport += 10;
    }
    let leap = message("alice", "leap", lamport + 100, &[]);
    assert!(bob.receive(START, &leap.encode(Profile::Nim)).is_err());
}

#[test]
fn a_newcomer_believes_a_channel_that_is_far_ahead_and_then_nobody_else() {
    let mut config = Config::nim();
    config.start = Start::Joining;
    let mut bob = channel("bob", config);
    let year_s = 365 * 24 * 3600;
    let far = message("alice", "m1", L / 1000 + year_s, &[]);
    assert!(bob.receive(START, &far.encode(Profile::Nim)).is_ok());
    let farther = message("alice", "m2", L / 1000 + 2 * year_s, &[]);
    assert!(bob.receive(START, &farther.encode(Profile::Nim)).is_err());
    let mut first = channel("first", Config::nim());
    assert!(first.receive(START, &far.encode(Profile::Nim)).is_err(), "no newcomer");
}

#[test]
fn at_the_end_of_all_times_sending_is_an_error_and_not_an_overflow() {
    let mut config = Config::lip();
    config.lamport_join_ahead_ms = 1 << 48;
    let mut bob = channel("bob", config);
    let wall_ms = limits::LAMPORT_MAX - 2;
    let now = Now { wall_ms, ..START };
    let last = Message { lamport: Some(wall_ms), ..message("alice", "m1", 0, &[]) };
    receive(&mut bob, now, &last);
    drain(&mut bob);
    send(&mut bob, now, "m2");
    assert!(matches!(bob.send(now, b"m3", b"x"), Err(Error::Limit { .. })));
    bob.announce(now);
    let at = bob.poll_timeout().unwrap();
    bob.handle_timeout(now.after(at - now.mono_ms));
    assert!(drain(&mut bob).is_empty(), "and there is no sync message either");
}

#[test]
fn a_sync_message_of_the_far_future_moves_no_clock_and_its_history_is_heard() {
    let mut bob = joined();
    let lamport = bob.counts().lamport;
    let sync = Message { content: None, ..message("alice", "s", L + (1 << 40), &["m1", "m2"]) };
    assert_eq!(receive(&mut bob, START, &sync), Received::Sync);
    assert_eq!((bob.counts().lamport, bob.counts().missing), (lamport, 1));
}

#[test]
fn one_who_missed_how_the_others_got_ahead_gets_there_step_by_step() {
    // Each message is an hour after the one before, as a stranger can have it.
    let hour = 3_600_000;
    let chain: Vec<Message> = (1..=9)
        .map(|step| {
            let before = format!("m{step}");
            message("alice", &format!("m{}", step + 1), L + step * hour, &[before.as_str()])
        })
        .collect();
    let mut bob = joined();
    let last = chain.last().unwrap();
    assert!(bob.receive(START, &last.encode(Profile::Lip)).is_err(), "nine hours ahead");
    let sync = Message { content: None, ..message("alice", "s", L + 10 * hour, &["m10"]) };
    receive(&mut bob, START, &sync);
    // What he asks for comes, and again: first he finds his way back, then forth.
    for round in 0..2 * chain.len() {
        let said = drain(&mut bob);
        let asked = |id: &str| {
            said.iter()
                .any(|said| matches!(said, Said::Missing { id: missing, .. } if missing == id))
        };
        assert!(round >= chain.len() || asked(&format!("m{}", 10 - round)), "{round}: {said:?}");
        let from = if round < chain.len() { chain.len() - 1 - round } else { 0 };
        for late in &chain[from..] {
            let _refused_or_not = bob.receive(START, &late.encode(Profile::Lip));
        }
        if bob.counts().missing == 0 {
            break;
        }
    }
    assert_eq!((bob.counts().logged, bob.counts().missing), (10, 0));
}
