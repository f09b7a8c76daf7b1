//! Each limit at the limit and one past it.

use mainstay_sds::{
    Channel, Config, Error, Participant, limits,
    wire::{HistoryEntry, Message, Profile},
};

use crate::group::{L, START, Said, channel, drain, message, receive};

fn is_limit<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Limit { .. }))
}

fn takes(message: &Message) -> Result<(), Error> {
    channel("bob", Config::lip()).receive(START, &message.encode(Profile::Lip)).map(drop)
}

#[test]
fn content() {
    let mut alice = channel("alice", Config::lip());
    assert!(alice.send(START, b"m1", &vec![1; limits::CONTENT_LEN_MAX]).is_ok());
    assert!(is_limit(alice.send(START, b"m2", &vec![1; limits::CONTENT_LEN_MAX + 1])));
    assert!(is_limit(alice.send(START, b"m2", b"")), "a message needs content");
    assert!(is_limit(alice.send_ephemeral(b"m2", &vec![1; limits::CONTENT_LEN_MAX + 1])));
    let of = |len| Message { content: Some(vec![1; len]), ..message("alice", "m1", L, &[]) };
    assert!(takes(&of(limits::CONTENT_LEN_MAX)).is_ok());
    assert!(is_limit(takes(&of(limits::CONTENT_LEN_MAX + 1))));
}

#[test]
fn the_whole_message() {
    let mut message = message("alice", "m1", L, &[]);
    message.content = Some(vec![1; limits::CONTENT_LEN_MAX]);
    message.filter = Some(Vec::new());
    let rest = limits::MESSAGE_LEN_MAX - message.encode(Profile::Lip).len();
    // The length of the filter takes two bytes more when it is long.
    message.filter = Some(vec![0; rest - 2]);
    assert_eq!(message.encode(Profile::Lip).len(), limits::MESSAGE_LEN_MAX);
    assert!(takes(&message).is_ok());
    message.filter = Some(vec![0; rest - 1]);
    assert!(is_limit(takes(&message)));
    assert_eq!(limits::MESSAGE_LEN_MAX, limits::CONTENT_LEN_MAX + limits::ENVELOPE_LEN_MAX);
}

#[test]
fn ids_and_hints() {
    let long = |len: usize| vec![b'x'; len];
    let (max, past) = (limits::ID_LEN_MAX, limits::ID_LEN_MAX + 1);
    let base = message("alice", "m1", L, &[]);
    let with_entry = |id: usize, hint: usize, sender: usize| Message {
        causal: vec![HistoryEntry { id: long(id), hint: long(hint), sender: long(sender) }],
        ..base.clone()
    };
    assert!(takes(&Message { id: long(max), ..base.clone() }).is_ok());
    assert!(is_limit(takes(&Message { id: long(past), ..base.clone() })));
    assert!(takes(&Message { sender: long(max), ..base.clone() }).is_ok());
    assert!(is_limit(takes(&Message { sender: long(past), ..base.clone() })));
    assert!(is_limit(takes(&Message { channel: long(past), ..base.clone() })));
    assert!(takes(&with_entry(max, limits::HINT_LEN_MAX, max)).is_ok());
    assert!(is_limit(takes(&with_entry(past, 1, 1))));
    assert!(is_limit(takes(&with_entry(1, limits::HINT_LEN_MAX + 1, 1))));
    assert!(is_limit(takes(&with_entry(1, 1, past))));
    let mut alice = channel("alice", Config::lip());
    assert!(alice.send(START, &long(max), b"x").is_ok());
    assert!(is_limit(alice.send(START, &long(past), b"x")));
    assert!(is_limit(alice.send(START, b"", b"x")));
    let id = long(max);
    assert!(alice.set_retrieval_hint(&id, &long(limits::HINT_LEN_MAX)).is_ok());
    assert!(is_limit(alice.set_retrieval_hint(&id, &long(limits::HINT_LEN_MAX + 1))));
    assert!(Channel::new(&"x".repeat(max), &long(max), Config::lip()).is_ok());
    assert!(is_limit(Channel::new(&"x".repeat(past), b"alice", Config::lip())));
    assert!(is_limit(Participant::new(&long(past))));
}

#[test]
fn entries_and_requests() {
    let entries = |count: usize| (0..count).map(|n| HistoryEntry::of(format!("{n}").as_bytes()));
    let base = message("alice", "m1", L, &[]);
    let of = |causal: usize, requests: usize| Message {
        causal: entries(causal).collect(),
        requests: entries(requests).collect(),
        ..base.clone()
    };
    assert!(takes(&of(limits::CAUSAL_MAX, 0)).is_ok());
    assert!(is_limit(takes(&of(limits::CAUSAL_MAX + 1, 0))));
    assert!(takes(&of(0, limits::REQUESTS_MAX)).is_ok());
    assert!(is_limit(takes(&of(0, limits::REQUESTS_MAX + 1))));
}

#[test]
fn unknown_dependencies_of_a_message() {
    for (count, waits) in [(64, 64), (65, 64), (256, 64)] {
        let mut bob = channel("bob", Config::lip());
        let causal: Vec<String> = (0..count).map(|number| format!("d{number}")).collect();
        let causal: Vec<&str> = causal.iter().map(String::as_str).collect();
        receive(&mut bob, START, &message("alice", "m1", L, &causal));
        assert_eq!(bob.counts().missing, waits);
        let said = drain(&mut bob);
        let last = format!("d{}", count - 1);
        assert!(said.iter().any(|said| matches!(said, Said::Missing { id, .. } if *id == last)));
    }
    assert_eq!(limits::UNKNOWN_PER_MESSAGE_MAX, 64);
}

#[test]
fn messages_of_ones_own() {
    let mut config = Config::lip();
    config.outgoing_max = 3;
    let mut alice = channel("alice", config.clone());
    for id in [b"m1", b"m2", b"m3"] {
        assert!(alice.send(START, id, b"x").is_ok());
    }
    let refused = alice.send(START, b"m4", b"x");
    assert_eq!(refused, Err(Error::OutgoingFull { count: 3, limit: 3 }));
    receive(&mut alice, START, &message("bob", "b1", L, &["m1"]));
    assert!(alice.send(START, b"m4", b"x").is_ok());
    config.outgoing_max = limits::OUTGOING_MAX;
    assert!(Channel::new("room", b"alice", config.clone()).is_ok());
    config.outgoing_max = limits::OUTGOING_MAX + 1;
    assert!(is_limit(Channel::new("room", b"alice", config)));
}

#[test]
fn numbers_of_a_configuration() {
    type Set = fn(&mut Config, usize);
    let cases: [(Set, usize, usize); 11] = [
        (|config, value| config.history = value, 1, limits::HISTORY_MAX),
        (|config, value| config.incoming_max = value, 1, limits::INCOMING_MAX),
        (|config, value| config.incoming_bytes_max = value, 1, limits::INCOMING_BYTES_MAX),
        (|config, value| config.incoming_per_sender_max = value, 1, limits::INCOMING_MAX),
        (
            |config, value| config.incoming_per_sender_bytes_max = value,
            1,
            limits::INCOMING_BYTES_MAX,
        ),
        (|config, value| config.causal = value, 1, limits::CAUSAL_MAX / 2),
        (|config, value| config.sync_causal = value, 1, limits::CAUSAL_MAX / 2),
        (|config, value| config.requests = value, 0, limits::REQUESTS_MAX),
        (|config, value| config.sync_requests = value, 0, limits::REQUESTS_MAX),
        (
            |config, value| config.filter_capacity = value as u32,
            1,
            limits::FILTER_CAPACITY_MAX as usize,
        ),
        (|config, value| config.participants = value as u32, 1, u32::MAX as usize),
    ];
    for (number, (set, min, max)) in cases.into_iter().enumerate() {
        let with = |value: usize| {
            let mut config = Config::nim_own();
            set(&mut config, value);
            Channel::new("room", b"alice", config)
        };
        assert!(with(min).is_ok(), "case {number}");
        assert!(with(max).is_ok(), "case {number}");
        if min > 0 {
            assert!(is_limit(with(min - 1)), "case {number}");
        }
        if max < u32::MAX as usize {
            assert!(is_limit(with(max + 1)), "case {number}");
        }
    }
}

#[test]
fn a_filter_that_the_peers_cannot_read_is_refused_where_there_are_some() {
    let mut config = Config::lip();
    config.filter_capacity = 1000;
    assert!(matches!(Channel::new("room", b"alice", config.clone()), Err(Error::Config { .. })));
    config.only_own_peers = true;
    assert!(Channel::new("room", b"alice", config).is_ok());
    let mut config = Config::nim();
    config.filter_capacity = 1000;
    assert!(Channel::new("room", b"alice", config.clone()).is_ok());
    config.filter_error_rate = 0.9;
    assert!(matches!(Channel::new("room", b"alice", config), Err(Error::Config { .. })));
}

#[test]
fn messages_that_wait_and_what_they_wait_for() {
    let mut config = Config::lip();
    config.incoming_per_sender_max = limits::INCOMING_MAX;
    config.incoming_per_sender_bytes_max = limits::INCOMING_BYTES_MAX;
    let mut bob = channel("bob", config);
    for number in 0..limits::INCOMING_MAX as u64 {
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L, &["never"]));
    }
    assert!(!drain(&mut bob).iter().any(|said| matches!(said, Said::Evicted(_))));
    receive(&mut bob, START, &message("alice", "one more", L, &["never"]));
    assert_eq!(drain(&mut bob), [Said::Evicted("m0".into())]);
    assert_eq!(bob.counts().buffered, limits::INCOMING_MAX);
}

#[test]
fn bytes_that_wait() {
    let mut config = Config::lip();
    config.incoming_per_sender_bytes_max = limits::INCOMING_BYTES_MAX;
    let mut bob = channel("bob", config);
    let mut number = 0;
    let evicted = loop {
        let content = Some(vec![1; 1 << 20]);
        let big = Message { content, ..message("alice", &format!("m{number}"), L, &["never"]) };
        receive(&mut bob, START, &big);
        number += 1;
        if let Some(Said::Evicted(id)) =
            drain(&mut bob).into_iter().find(|said| matches!(said, Said::Evicted(_)))
        {
            break id;
        }
        assert!(bob.counts().buffered_bytes <= limits::INCOMING_BYTES_MAX);
    };
    assert_eq!((evicted.as_str(), number), ("m0", 16), "15 MiB and a little each");
    assert!(bob.counts().buffered_bytes <= limits::INCOMING_BYTES_MAX);
}

#[test]
fn missing_messages_and_requests() {
    let mut config = Config::lip();
    config.incoming_per_sender_max = limits::INCOMING_MAX;
    let mut bob = channel("bob", config);
    let full = limits::UNKNOWN_MAX / 64;
    for number in 0..full {
        let causal: Vec<String> = (0..64).map(|dep| format!("d{number}-{dep}")).collect();
        let causal: Vec<&str> = causal.iter().map(String::as_str).collect();
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L, &causal));
    }
    assert_eq!(
        (bob.counts().missing, bob.counts().wanted),
        (limits::UNKNOWN_MAX, limits::WANTED_MAX)
    );
    drain(&mut bob);
    receive(&mut bob, START, &message("alice", "one more", L, &["another"]));
    assert_eq!(drain(&mut bob)[0], Said::Evicted("m0".into()));
    assert!(bob.counts().missing <= limits::UNKNOWN_MAX);
    assert_eq!(bob.counts().wanted, limits::WANTED_MAX, "others have taken the free places");
}

#[test]
fn answers() {
    let mut config = Config::lip();
    (config.sync, config.response_groups) = (false, Some(1));
    (config.history, config.outgoing_max) = (2000, 8192);
    let mut bob = channel("bob", config);
    for number in 0..limits::ANSWERS_MAX + 10 {
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L, &[]));
    }
    drain(&mut bob);
    for chunk in 0..=(limits::ANSWERS_MAX + 10) / 64 {
        let requests = (chunk * 64..(chunk + 1) * 64)
            .map(|number| HistoryEntry::of(format!("m{number}").as_bytes()))
            .collect();
        let asking = Message { requests, content: None, ..message("carol", "s", L, &[]) };
        receive(&mut bob, START, &asking);
    }
    assert_eq!(bob.counts().answers, limits::ANSWERS_MAX);
    let late = START.after(200_000);
    for (ms, answers) in
        [(0, 1), (limits::ANSWER_INTERVAL_MS - 1, 0), (limits::ANSWER_INTERVAL_MS, 1)]
    {
        bob.handle_timeout(late.after(ms));
        assert_eq!(drain(&mut bob).len(), answers, "{ms}");
    }
}

#[test]
fn channels() {
    let mut alice = Participant::new(b"alice").unwrap();
    for number in 1..limits::CHANNELS_MAX {
        alice.join(&number.to_string(), Config::lip()).unwrap();
        if number % 4096 == 0 {
            alice.hibernate(START, 0);
        }
    }
    assert!(alice.join("the last one", Config::lip()).is_ok());
    assert!(is_limit(alice.join("one too many", Config::lip())));
    alice.leave("1").unwrap();
    assert!(alice.join("another", Config::lip()).is_ok());

    let mut alice = Participant::new(b"alice").unwrap();
    alice.join("room", Config::lip()).unwrap();
    assert!(matches!(alice.join("room", Config::lip()), Err(Error::ChannelExists { .. })));
}

#[test]
fn what_a_peers_filter_may_be() {
    use mainstay_sds::bloom::{Params, PeerFilter};
    let own = Params::new(10_000, 0.001).unwrap();
    let blob = |hashes: u64, bits: u64, len: usize| {
        let varint = |mut value: u64| {
            let mut out = Vec::new();
            while value >= 0x80 {
                out.push(value as u8 | 0x80);
                value >>= 7;
            }
            out.push(value as u8);
            out
        };
        let mut out = vec![0x0a];
        out.extend(varint(len as u64));
        out.extend(vec![0; len]);
        for (tag, value) in [(0x10, 1), (0x18, 1), (0x20, hashes), (0x28, bits)] {
            out.push(tag);
            out.extend(varint(value));
        }
        out
    };
    let reads = |hashes, bits, len| {
        PeerFilter::parse(Profile::Nim, &blob(hashes, bits, len), own).is_some()
    };
    assert!(reads(limits::FILTER_HASHES_MAX, 64, 8));
    assert!(!reads(limits::FILTER_HASHES_MAX + 1, 64, 8));
    assert!(!reads(0, 64, 8));
    assert!(reads(1, 64, 8) && !reads(1, 65, 8) && !reads(1, 0, 8) && !reads(1, 1, 7));
    let bytes = (limits::FILTER_BITS_MAX / 8) as usize + 8;
    assert!(reads(1, limits::FILTER_BITS_MAX, bytes));
    assert!(!reads(1, limits::FILTER_BITS_MAX + 1, bytes));
}

#[test]
fn deliveries_that_are_not_confirmed() {
    let mut config = Config::lip();
    (config.keep, config.confirm, config.sync) = (mainstay_sds::Keep::Durable, true, false);
    (config.only_own_peers, config.filter_capacity, config.history) = (true, 100, 10);
    let mut bob = channel("bob", config);
    let next = |number: usize| message("alice", &format!("m{number}"), L + number as u64, &[]);
    let take = |bob: &mut Channel, number: usize| {
        let taken = bob.receive(START, &next(number).encode(Profile::Lip));
        while let Some(output) = bob.poll_output() {
            if let mainstay_sds::Output::Persist(change) = output {
                let number = change.number;
                bob.persisted(number);
            }
        }
        taken
    };
    for number in 0..limits::UNCONFIRMED_MAX {
        assert!(take(&mut bob, number).is_ok(), "{number}");
    }
    let count = limits::UNCONFIRMED_MAX;
    let past = take(&mut bob, count);
    assert_eq!(past, Err(Error::Unconfirmed { count }));
    assert_eq!(bob.counts().unconfirmed, count);
    bob.confirm(1).unwrap();
    assert!(take(&mut bob, count).is_ok());
}

#[test]
fn output_that_waits_to_be_polled() {
    let mut alice = channel("alice", Config::lip());
    // Ephemeral messages leave nothing but their output.
    let send = |alice: &mut Channel, len: usize| alice.send_ephemeral(b"t", &vec![1; len]);
    let one = |len: usize| {
        let mut other = channel("alice", Config::lip());
        other.send_ephemeral(b"t", &vec![1; len]).unwrap();
        let Some(mainstay_sds::Output::Broadcast(broadcast)) = other.poll_output() else {
            panic!()
        };
        // The id is told beside the bytes.
        broadcast.bytes.len() + broadcast.id.len()
    };
    let large = limits::CONTENT_LEN_MAX;
    let mut rest = limits::OUTPUT_BYTES_MAX;
    while rest > 2 * one(large) {
        send(&mut alice, large).unwrap();
        rest -= one(large);
    }
    // Two that fill it to the last byte.
    send(&mut alice, large / 2).unwrap();
    rest -= one(large / 2);
    while rest > one(large) {
        send(&mut alice, large).unwrap();
        rest -= one(large);
    }
    let guess = rest - (one(large) - large);
    let len = (guess..).take_while(|len| one(*len) <= rest).last().unwrap();
    assert_eq!(one(len), rest, "to the last byte");
    send(&mut alice, len).unwrap();
    // At the limit another one is taken, past it none.
    send(&mut alice, 1).unwrap();
    let bytes = limits::OUTPUT_BYTES_MAX + one(1);
    assert_eq!(send(&mut alice, 1), Err(Error::Undrained { bytes }));
    while alice.poll_output().is_some() {}
    send(&mut alice, 1).unwrap();
}

#[test]
fn the_longest_message_that_is_sent() {
    let with = |max: usize| {
        let mut config = Config::lip();
        (config.only_own_peers, config.filter_capacity) = (true, 50);
        config.message_len_max = max;
        Channel::new("room", b"alice", config)
    };
    assert!(is_limit(with(limits::MESSAGE_LEN_MAX_MIN - 1)));
    assert!(is_limit(with(limits::MESSAGE_LEN_MAX + 1)));
    assert!(with(limits::MESSAGE_LEN_MAX).is_ok());
    let mut alice = with(limits::MESSAGE_LEN_MAX_MIN).unwrap();
    let len = limits::MESSAGE_LEN_MAX_MIN - alice.wire_len(b"m1", b"");
    assert!(is_limit(alice.send(START, b"m1", &vec![1; len + 1])));
    assert!(alice.send(START, b"m1", &vec![1; len]).is_ok());
}
