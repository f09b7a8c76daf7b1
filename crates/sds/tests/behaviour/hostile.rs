//! D4: every message is from a stranger until proven otherwise.

use mainstay_sds::{
    Channel, Config, Error, Now, Participant, limits,
    wire::{HistoryEntry, Message, Profile},
};
use proptest::prelude::*;

use crate::group::{L, START, Said, channel, drain, message, receive, send};

const BOTH: [Profile; 2] = [Profile::Lip, Profile::Nim];

fn config(profile: Profile) -> Config {
    match profile {
        Profile::Lip => Config::lip(),
        Profile::Nim => Config::nim(),
    }
}

#[test]
fn a_message_of_the_other_profile_is_told_from_noise() {
    for (ours, theirs) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
        let mut bob = channel("bob", config(ours));
        let bytes = message("alice", "m1", L / 1000, &[]).encode(theirs);
        let refused = bob.receive(START, &bytes);
        assert_eq!(refused, Err(Error::OtherProfile { expected: ours, found: theirs }));
        assert_eq!(bob.counts().known, 0);
    }
}

#[test]
fn strangers_cannot_create_channels() {
    let mut alice = Participant::new(b"alice").unwrap();
    alice.join("room", Config::nim()).unwrap();
    for number in 0..2000 {
        let channel = format!("c{number}").into_bytes();
        let message = Message { channel, ..message("mallory", "m1", L / 1000, &[]) };
        let refused = alice.receive(START, &message.encode(Profile::Nim));
        assert!(matches!(refused, Err(Error::UnknownChannel { .. })));
    }
    assert!(alice.names().eq(["room"]));
}

#[test]
fn memory_stays_bounded_however_much_a_stranger_sends() {
    let mut bob = channel("bob", Config::lip());
    let mut evicted = 0;
    for number in 0..20_000_u64 {
        let causal: Vec<String> = (0..40).map(|dep| format!("dep-{number}-{dep}")).collect();
        let causal: Vec<&str> = causal.iter().map(String::as_str).collect();
        let sender = format!("mallory-{}", number % 50);
        let message = message(&sender, &format!("x{number}"), L + number, &causal);
        receive(&mut bob, START, &message);
        evicted += drain(&mut bob).iter().filter(|said| matches!(said, Said::Evicted(_))).count();
    }
    let counts = bob.counts();
    assert!(counts.buffered <= limits::INCOMING_MAX, "{counts:?}");
    assert!(counts.missing <= limits::UNKNOWN_MAX, "{counts:?}");
    assert!(counts.wanted <= limits::WANTED_MAX, "{counts:?}");
    assert!(counts.known <= limits::INCOMING_MAX + limits::UNKNOWN_MAX, "{counts:?}");
    assert!(counts.memory_bytes < 40 << 20, "{counts:?}");
    assert_eq!(evicted + counts.buffered, 20_000, "every eviction is reported");
    // And it still works.
    receive(&mut bob, START, &message("alice", "m1", L, &[]));
    receive(&mut bob, START, &message("alice", "m3", L + 3, &["m2"]));
    receive(&mut bob, START, &message("alice", "m2", L + 2, &["m1"]));
    assert_eq!(crate::group::delivered(&drain(&mut bob)), ["m1", "m2", "m3"]);
}

#[test]
fn sync_messages_that_cite_nonsense_fill_no_memory() {
    let mut bob = channel("bob", Config::lip());
    for number in 0..2000_u64 {
        let causal: Vec<String> = (0..64).map(|dep| format!("dep-{number}-{dep}")).collect();
        let causal: Vec<&str> = causal.iter().map(String::as_str).collect();
        let sync = Message { content: None, ..message("mallory", "s", L, &causal) };
        receive(&mut bob, START, &sync);
        drain(&mut bob);
    }
    assert!(bob.counts().missing <= 1024, "{:?}", bob.counts());
    assert!(bob.counts().memory_bytes < 4 << 20, "{:?}", bob.counts());
}

/// A member that misses so many messages which do not exist, 60 cited at a time, and `m1`.
fn one_that_misses_m1_among(count: u64) -> Channel {
    let mut config = Config::lip();
    config.lost_after_ms = None;
    let mut bob = channel("bob", config);
    for number in 0..count / 60 {
        let causal: Vec<String> = (0..60).map(|dep| invented(60 * number + dep)).collect();
        let causal: Vec<&str> = causal.iter().map(String::as_str).collect();
        receive(&mut bob, START, &message("mallory", &format!("x{number}"), L, &causal));
    }
    receive(&mut bob, START, &message("alice", "m2", L + 2, &["m1"]));
    drain(&mut bob);
    let missing = count as usize + 1;
    assert_eq!((bob.counts().missing, bob.counts().wanted), (missing, limits::WANTED_MAX));
    bob
}

fn invented(number: u64) -> String {
    format!("none-{number}")
}

/// Lets time pass up to the next thing to do. Whether `m1` was asked for with it.
fn asks_for_m1(bob: &mut Channel, now: &mut Now) -> bool {
    let at = bob.poll_timeout().expect("it goes on asking");
    *now = now.after(at.saturating_sub(now.mono_ms));
    assert!(now.mono_ms < START.mono_ms + 3_600_000, "within the hour");
    bob.handle_timeout(*now);
    drain(bob).into_iter().any(|said| match said {
        Said::Broadcast { bytes, .. } => {
            let view = Message::decode(Profile::Lip, &bytes).unwrap();
            view.requests.iter().any(|entry| entry.id == b"m1")
        }
        _ => false,
    })
}

#[test]
fn a_message_that_exists_is_asked_for_among_thousands_that_do_not() {
    let mut bob = one_that_misses_m1_among(3600);
    let mut now = START;
    while !asks_for_m1(&mut bob, &mut now) {}
    receive(&mut bob, now, &message("alice", "m1", L + 1, &[]));
    assert_eq!(crate::group::delivered(&drain(&mut bob)), ["m1", "m2"]);
}

#[test]
fn a_message_that_exists_is_asked_for_while_others_ask_for_all_that_do_not() {
    let count = 1080;
    let mut bob = one_that_misses_m1_among(count);
    let mut now = START;
    // Each of them is asked for by somebody before its own time has come here.
    let mut others = 0;
    while !asks_for_m1(&mut bob, &mut now) {
        while others * 250 < now.mono_ms - START.mono_ms {
            let requests = (0..60).map(|dep| HistoryEntry {
                id: invented((60 * others + dep) % count).into_bytes(),
                ..HistoryEntry::default()
            });
            let sync = Message {
                content: None,
                requests: requests.collect(),
                ..message("carol", &format!("s{others}"), L, &[])
            };
            receive(&mut bob, now, &sync);
            drain(&mut bob);
            others += 1;
        }
    }
    assert!(others > 100, "{others}");
}

#[test]
fn one_that_holds_most_of_the_buffer_loses_first() {
    let mut config = Config::lip();
    config.incoming_max = 100;
    let mut bob = channel("bob", config);
    let waits = |sender: &str, number: u64| {
        message(sender, &format!("{sender}{number}"), L + number, &["never"])
    };
    for number in 0..5 {
        receive(&mut bob, START, &waits("alice", number));
    }
    for number in 0..500 {
        receive(&mut bob, START, &waits("mallory", number));
    }
    let said = drain(&mut bob);
    assert!(!said.iter().any(|said| matches!(said, Said::Evicted(id) if id.starts_with("alice"))));
    assert_eq!(bob.counts().buffered, 100);
}

#[test]
fn an_evicted_message_that_others_wait_for_is_missing_again() {
    let mut config = Config::lip();
    config.incoming_per_sender_max = 2;
    let mut bob = channel("bob", config);
    receive(&mut bob, START, &message("mallory", "x1", L + 1, &["x0"]));
    receive(&mut bob, START, &message("alice", "a1", L + 5, &["x1"]));
    receive(&mut bob, START, &message("mallory", "x2", L + 2, &["x0"]));
    drain(&mut bob);
    receive(&mut bob, START, &message("mallory", "x3", L + 3, &["x0"]));
    let said = drain(&mut bob);
    assert_eq!(said[0], Said::Evicted("x1".into()));
    assert!(said.iter().any(|said| matches!(said, Said::Missing { id, .. } if id == "x1")));
    for (id, lamport, causal) in [("x0", 0, None), ("x1", 1, Some("x0"))] {
        receive(&mut bob, START, &message("mallory", id, L + lamport, causal.as_slice()));
    }
    assert_eq!(crate::group::delivered(&drain(&mut bob)), ["x0", "x2", "x3", "x1", "a1"]);
}

#[test]
fn evicting_and_filling_again_under_one_dependency_leaves_no_debris() {
    let mut config = Config::lip();
    config.incoming_max = 8;
    let mut bob = channel("bob", config);
    for number in 0..5000_u64 {
        let message = message("mallory", &format!("x{number}"), L + number, &["never", "ever"]);
        receive(&mut bob, START, &message);
        drain(&mut bob);
    }
    assert_eq!((bob.counts().buffered, bob.counts().missing), (8, 2));
    assert!(bob.counts().memory_bytes < 256 << 10, "{:?}", bob.counts());
}

#[test]
fn hundreds_of_filters_of_foreign_sizes_do_no_harm() {
    let mut alice = channel("alice", Config::nim());
    for number in 0..300 {
        send(&mut alice, START, &format!("m{number}"));
    }
    let mut rng = mainstay_base::Rng::seeded(5);
    for number in 0..300_u64 {
        let mut filter = vec![0x0a, 0x80, 0x02];
        filter.extend((0..256).map(|_| rng.next_u64() as u8 & rng.next_u64() as u8));
        filter.extend([0x10, 1, 0x18, 1, 0x20, rng.below(80) as u8, 0x28]);
        let bits = rng.below(2100);
        filter.extend([bits as u8 | 0x80, (bits >> 7) as u8]);
        let theirs = Message {
            filter: Some(filter),
            ..message("mallory", &format!("x{number}"), L / 1000, &[])
        };
        let _refused_or_not = alice.receive(START, &theirs.encode(Profile::Nim));
        drain(&mut alice);
    }
    assert!(alice.counts().outgoing <= 300);
}

#[test]
fn output_that_nobody_polls_is_refused_at_some_point_and_not_before() {
    let mut alice = channel("alice", Config::lip());
    let mut sent = 0;
    let refused = loop {
        match alice.send(START, format!("m{sent}").as_bytes(), &vec![1; 1 << 20]) {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 100);
    };
    assert!(matches!(refused, Error::Undrained { .. }), "{refused:?}");
    assert!(sent >= 60);
    drain(&mut alice);
    assert!(alice.send(START, b"next", b"x").is_ok());
}

fn any_message() -> impl Strategy<Value = Message> {
    let name = prop::collection::vec(any::<u8>(), 0..12);
    let entry = (name.clone(), name.clone(), name.clone())
        .prop_map(|(id, hint, sender)| HistoryEntry { id, hint, sender });
    let entries = prop::collection::vec(entry, 0..6);
    let bytes = prop::collection::vec(any::<u8>(), 0..60);
    (
        (name.clone(), name.clone(), name),
        prop::option::of(0..1_u64 << 63),
        (entries.clone(), entries),
        prop::option::of(bytes.clone()),
        prop::option::of(bytes),
    )
        .prop_map(|((id, sender, channel), lamport, (causal, requests), filter, content)| {
            Message { id, sender, channel, lamport, causal, filter, requests, content }
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(message in any_message(), nim in any::<bool>()) {
        let profile = BOTH[usize::from(nim)];
        let bytes = message.encode(profile);
        if let Ok(read) = Message::decode(profile, &bytes) {
            // What a profile writes in one way only is read as that: content that is empty is none,
            // and one of them always has a time and a filter.
            let content = message.content.clone().filter(|content| !content.is_empty());
            let mut expected = Message { content, ..message };
            if profile == Profile::Nim {
                expected.lamport = expected.lamport.or(Some(0));
                expected.filter = expected.filter.or(Some(Vec::new()));
            }
            prop_assert_eq!(read, expected);
        } else {
            // Only what says nothing at all is refused.
            let says_nothing = message.id.is_empty()
                || (message.lamport.is_none() && message.content.is_none_or(|content| content.is_empty()));
            prop_assert!(profile == Profile::Lip && says_nothing);
        }
    }

    #[test]
    fn no_bytes_end_the_process(bytes in prop::collection::vec(any::<u8>(), 0..200), nim in any::<bool>()) {
        let profile = BOTH[usize::from(nim)];
        let mut channel = channel("bob", config(profile));
        send(&mut channel, START, "own");
        let _ = channel.receive(START, &bytes);
        drain(&mut channel);
    }

    #[test]
    fn no_change_of_a_good_message_ends_the_process(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        nim in any::<bool>(),
    ) {
        let profile = BOTH[usize::from(nim)];
        let mut bytes = {
            let mut alice = channel("alice", config(profile));
            send(&mut alice, START, "m1");
            send(&mut alice, START, "m2")
        };
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let mut bob = channel("bob", config(profile));
        send(&mut bob, START, "b1");
        let _ = bob.receive(START, &bytes);
        drain(&mut bob);
        if let Some(at) = bob.poll_timeout() {
            bob.handle_timeout(Now { mono_ms: at, ..START });
        }
        drain(&mut bob);
    }
}

#[test]
fn a_refused_message_changes_nothing() {
    let mut bob = channel("bob", Config::lip());
    receive(&mut bob, START, &message("alice", "m1", L, &["m0"]));
    drain(&mut bob);
    let before = (bob.counts(), bob.poll_timeout());
    let elsewhere = Message { channel: b"other".to_vec(), ..message("alice", "m2", L, &["m1"]) };
    assert!(matches!(
        bob.receive(START, &elsewhere.encode(Profile::Lip)),
        Err(Error::OtherChannel { .. })
    ));
    let nameless = message("alice", "", L, &["m1"]);
    assert!(bob.receive(START, &nameless.encode(Profile::Lip)).is_err());
    assert_eq!((bob.counts(), bob.poll_timeout()), before);
    assert!(!bob.has_output());
}

#[test]
fn a_channel_by_its_wrong_name_is_no_channel() {
    let long = "x".repeat(limits::ID_LEN_MAX + 1);
    assert!(Channel::new(&long, b"alice", Config::lip()).is_err());
    assert!(Channel::new("room", long.as_bytes(), Config::lip()).is_err());
}
