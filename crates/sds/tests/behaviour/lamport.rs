//! LIP-109, Participant state; Send Message; Deliver Message: Lamport times, and how far they are
//! believed.

use mainstay_sds::{
    Channel, Config, Error, Now, Received, limits,
    wire::{Message, Profile},
};

use crate::group::{L, START, channel, drain, message, receive, send};

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
    let theirs = message("bob", "b1", now_s + 10, &["absent"]);
    alice.receive(START, &theirs.encode(Profile::Nim)).unwrap();
    assert_eq!(alice.counts().lamport, now_s + 11, "also for one that waits");
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
    bare.lamport = Some(L + hour + 1);
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
    let mut bob = channel("bob", Config::nim());
    let year_s = 365 * 24 * 3600;
    let far = message("alice", "m1", L / 1000 + year_s, &[]);
    assert!(bob.receive(START, &far.encode(Profile::Nim)).is_ok());
    let farther = message("alice", "m2", L / 1000 + 2 * year_s, &[]);
    assert!(bob.receive(START, &farther.encode(Profile::Nim)).is_err());
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
