//! Beside the real `@waku/sds`: the program `peer.mjs` is one participant, Mainstay is another.
//!
//! `cargo xtask interop` installs the library from the npm registry and runs this with its folder in
//! `MAINSTAY_WAKU`; `cargo xtask test` does the same. Without the variable nothing is installed, and
//! each test says that it was skipped. Time is virtual on both sides.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod group;
mod peer;

use group::{Group, Said};
use mainstay_sds::{Config, Received, wire::Kind};
use serde_json::json;

/// The folder in which the library is installed.
fn folder() -> Option<String> {
    let folder = std::env::var("MAINSTAY_WAKU").ok();
    if folder.is_none() {
        eprintln!(
            "skipped: MAINSTAY_WAKU is not set; `cargo xtask interop` installs what it needs"
        );
    }
    folder
}

/// Ours, with times that suit a test.
fn ours() -> Config {
    let mut config = Config::lip();
    config.participants = 3;
    (config.t_min_ms, config.t_max_ms) = (1000, 3000);
    config.resend_ms = 60_000;
    config.response_groups = Some(1);
    config.seed = 7;
    config
}

/// Theirs, with the same ones.
fn theirs() -> serde_json::Value {
    json!({ "repairConfig": { "tMin": 1000, "tMax": 3000 } })
}

#[test]
fn content_is_delivered_in_both_directions_with_the_same_log() {
    let Some(folder) = folder() else { return };
    let mut group = Group::new(&folder, ours(), &[theirs()]);
    for round in 0..6 {
        let text = format!("number {round}");
        if round % 2 == 0 {
            let id = group.we_say(&text);
            assert!(group.theirs[0].was_told("delivered", &id), "{text}");
        } else {
            let said = group.they_say(0, &text);
            let delivered = group.delivered.last().unwrap();
            assert_eq!((&delivered.content, &*delivered.sender), (&text, "js0"));
            assert_eq!(delivered.id, said);
        }
        group.pass(10);
    }
    assert_eq!(group.our_log().len(), 6);
    assert_eq!(group.our_log(), group.theirs[0].log());
}

#[test]
fn content_of_a_kilobyte_and_of_unicode_arrives_unchanged() {
    let Some(folder) = folder() else { return };
    let mut group = Group::new(&folder, ours(), &[theirs()]);
    for text in ["ä€😀".to_owned(), "x".repeat(1024)] {
        group.we_say(&text);
        group.they_say(0, &format!("{text} too"));
        group.pass(10);
    }
    assert_eq!(group.our_log(), group.theirs[0].log());
    assert_eq!(group.our_log()[2].content, "x".repeat(1024));
}

#[test]
fn a_message_that_is_cited_is_acknowledged_on_both_sides() {
    let Some(folder) = folder() else { return };
    let mut group = Group::new(&folder, ours(), &[theirs()]);
    let mine = group.we_say("is anybody there?");
    assert!(group.acknowledged.is_empty());
    let yours = group.they_say(0, "yes");
    assert_eq!(group.acknowledged, std::slice::from_ref(&mine));
    group.we_say("good");
    assert!(group.theirs[0].was_told("acknowledged", &yours));
}

#[test]
fn a_message_that_is_only_in_the_filter_is_possibly_acknowledged_on_both_sides() {
    let Some(folder) = folder() else { return };
    // Both cite one message only: what came before it is in the filter alone.
    let mut config = ours();
    (config.causal, config.sync_causal) = (1, 1);
    let mut group = Group::new(&folder, config, &[with(theirs(), "causalHistorySize", json!(1))]);
    let first = group.we_say("first");
    group.pass(10);
    let second = group.we_say("second");
    group.they_say(0, "I have both");
    assert_eq!(group.acknowledged, [second]);
    assert!(
        group.possibly.contains(&first) || group.acknowledged.contains(&first),
        "our first message is in their filter"
    );

    group.pass(10);
    let first = group.they_say(0, "first of theirs");
    group.pass(10);
    let second = group.they_say(0, "second of theirs");
    group.we_say("we have both");
    assert!(group.theirs[0].was_told("acknowledged", &second));
    assert!(group.theirs[0].was_told("possibly", &first));
    // Two filters are what they take for certain.
    group.pass(10);
    group.we_say("we still have both");
    assert!(group.theirs[0].was_told("acknowledged", &first));
}

#[test]
fn sync_messages_are_understood_on_both_sides_and_are_in_no_log() {
    let Some(folder) = folder() else { return };
    let mut group = Group::new(&folder, ours(), &[theirs()]);
    let mine = group.we_say("mine");
    group.they_say(0, "theirs");
    let log = group.our_log();

    group.they_sync(0);
    assert_eq!(group.received.last(), Some(&Ok(Received::Sync)));
    group.we_sync();
    assert_eq!(group.theirs[0].told("sync").len(), 1);
    assert_eq!((group.our_log(), group.theirs[0].log()), (log.clone(), log));
    assert!(group.acknowledged.contains(&mine));
}

#[test]
fn a_lost_message_of_theirs_is_asked_for_and_repaired_by_them() {
    let Some(folder) = folder() else { return };
    let mut group = Group::new(&folder, ours(), &[theirs()]);
    group.we_say("hello");
    group.pass(10);
    let lost = group.they_say_and_it_is_lost(0, "lost on the way to us");
    group.pass(10);
    let next = group.they_say(0, "depends on it");
    assert_eq!(group.received.last(), Some(&Ok(Received::Buffered { missing: 1 })));
    assert_eq!(group.missing, std::slice::from_ref(&lost));
    // T_req at most, a sync message of ours, T_resp at most, and their sweep.
    group.until(60_000, |group| group.delivered.len() == 2);
    let ids: Vec<&String> = group.delivered.iter().map(|delivered| &delivered.id).collect();
    assert_eq!(ids, [&lost, &next], "parents before children");
    assert_eq!(group.our_log(), group.theirs[0].log());
}

#[test]
fn a_lost_message_of_ours_is_asked_for_and_repaired_by_us() {
    let Some(folder) = folder() else { return };
    let mut config = ours();
    // Not by sending again: that would be too easy.
    config.resend_ms = 10_000_000;
    let mut group = Group::new(&folder, config, &[theirs()]);
    group.they_say(0, "hello");
    group.pass(10);
    let lost = group.we_say_and_it_is_lost("lost on the way to them");
    group.pass(10);
    group.we_say("depends on it");
    assert!(group.theirs[0].was_told_in_a_list("missing", &lost));
    group.until(60_000, |group| group.theirs[0].log().len() == 3);
    assert_eq!(group.repairs, [lost]);
    assert_eq!(group.our_log(), group.theirs[0].log());
}

#[test]
fn what_nobody_acknowledges_is_sent_again_and_taken_once() {
    let Some(folder) = folder() else { return };
    let mut group = Group::new(&folder, ours(), &[theirs()]);
    let lost = group.we_say_and_it_is_lost("nobody heard this");
    group.until(120_000, |group| group.theirs[0].was_told("delivered", &lost));
    // And the other way round: what their library hands out for it.
    let lost = group.they_say_and_it_is_lost(0, "nor this");
    group.they_send_again(0);
    group.they_send_again(0);
    assert_eq!(group.delivered.last().map(|delivered| &delivered.id), Some(&lost));
    assert_eq!(group.delivered.len(), 1);
    assert_eq!(group.our_log(), group.theirs[0].log());
}

#[test]
fn ephemeral_messages_are_understood_on_both_sides_and_are_in_no_log() {
    let Some(folder) = folder() else { return };
    let mut group = Group::new(&folder, ours(), &[theirs()]);
    group.they_whisper(0, "is typing");
    assert_eq!(group.received.last(), Some(&Ok(Received::Ephemeral)));
    let delivered = group.delivered.last().unwrap();
    assert_eq!((&*delivered.content, delivered.lamport), ("is typing", None));
    // Their library reads it and, as of this version, tells nobody.
    let id = group.we_whisper("is typing too");
    assert_eq!(group.theirs[0].kind_of(&id).as_deref(), Some("EphemeralMessage"));
    assert!(group.our_log().is_empty() && group.theirs[0].log().is_empty());
}

#[test]
fn a_hint_of_theirs_reaches_us_with_the_message_that_is_missing() {
    let Some(folder) = folder() else { return };
    let mut group = Group::new(&folder, ours(), &[theirs()]);
    group.they_say_and_it_is_lost(0, "lost");
    group.pass(10);
    group.they_say(0, "depends on it");
    // `peer.mjs` takes the first four bytes of the content for a hint.
    assert_eq!(group.hints, [b"lost".to_vec()]);
}

#[test]
fn a_hint_of_ours_reaches_them_with_the_message_that_is_missing() {
    let Some(folder) = folder() else { return };
    let mut group = Group::new(&folder, ours(), &[theirs()]);
    let lost = group.we_say_and_it_is_lost("lost on the way to them");
    group.we_hint(&lost, b"at the store");
    group.pass(10);
    group.we_say("depends on it");
    let told = group.theirs[0].told("missing");
    let told = told.iter().find(|told| told["ids"] == json!([lost])).expect("it is told");
    assert_eq!(told["hints"], json!([peer::to_hex(b"at the store")]));
}

/// As both are when nobody configures anything, apart from the secret seed.
#[test]
fn with_the_default_configuration_of_both_what_is_lost_is_repaired_in_both_directions() {
    let Some(folder) = folder() else { return };
    let mut config = Config::lip();
    config.seed = 7;
    let mut group = Group::new(&folder, config, &[json!({})]);
    group.we_say("hello");
    group.pass(10);
    group.they_say(0, "hello to you");
    group.pass(10);
    let ours = group.we_say_and_it_is_lost("lost on the way to them");
    group.pass(10);
    group.we_say("depends on it");
    let theirs = group.they_say_and_it_is_lost(0, "lost on the way to us");
    group.pass(10);
    group.they_say(0, "depends on it");
    group.until(900_000, |group| {
        let log = group.our_log();
        log.len() == 6 && group.theirs[0].log() == log
    });
    assert!(group.theirs[0].was_told("delivered", &ours));
    assert!(group.delivered.iter().any(|delivered| delivered.id == theirs));
}

#[test]
fn every_message_of_theirs_is_written_again_by_us_byte_for_byte() {
    use mainstay_sds::wire::{Message, Profile};
    let Some(folder) = folder() else { return };
    let mut group = Group::new(&folder, ours(), &[theirs()]);
    for text in ["one", "two", "three"] {
        group.they_say(0, text);
        group.we_say(&format!("{text} of ours"));
        group.pass(10);
    }
    group.they_whisper(0, "psst");
    group.they_sync(0);
    let mut kinds = Vec::new();
    for bytes in &group.wire_of_theirs {
        let message = Message::decode(Profile::Lip, bytes).unwrap();
        assert_eq!(&message.encode(Profile::Lip), bytes);
        kinds.push(mainstay_sds::wire::MessageView::parse(Profile::Lip, bytes).unwrap().kind());
    }
    assert_eq!(kinds.len(), 5);
    assert!(kinds.contains(&Kind::Sync) && kinds.contains(&Kind::Ephemeral));
}

/// Two of theirs and one of ours, a fifth of everything lost, for a few seeds: in the end all three
/// have the same log.
#[test]
fn a_group_with_loss_ends_with_the_same_log_on_all_sides() {
    let Some(folder) = folder() else { return };
    let mut answers_lost = 0;
    for seed in 1..=4 {
        let mut group = Group::new(&folder, ours(), &[theirs(), theirs()]);
        group.lose(seed, 20);
        for round in 0..8 {
            group.we_say(&format!("ours {round}"));
            group.pass(700);
            group.they_say(round % 2, &format!("theirs {round}"));
            group.pass(700);
        }
        group.until(600_000, |group| {
            let log = group.our_log();
            log.len() == 16 && group.theirs.iter_mut().all(|peer| peer.log() == log)
        });
        let mut delivered: Vec<&String> = group.delivered.iter().map(|said| &said.id).collect();
        delivered.sort();
        delivered.dedup();
        assert_eq!((delivered.len(), group.delivered.len()), (8, 8), "once each, seed {seed}");
        let said: Vec<Said> = group.our_log();
        assert!(said.is_sorted_by_key(|said| (said.lamport, said.id.clone())));
        answers_lost += group.answers_lost;
    }
    assert!(answers_lost > 0, "answers to us were lost as well, and asked for again");
}

fn with(mut options: serde_json::Value, key: &str, value: serde_json::Value) -> serde_json::Value {
    options[key] = value;
    options
}
