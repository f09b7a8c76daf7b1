//! S1 to S3 and C1, C2: changes, their places, and what comes back.
//! LIP-109, Participant state.

mod nim;
mod places;

use mainstay_sds::{
    Channel, Config, Error, Keep, Now, Start,
    persist::{Change, Memory, Persistence},
    wire::{Message, Profile},
};

use crate::group::{L, START, Said, channel, delivered, drain, log, message, receive, send};

fn durable() -> Config {
    let mut config = Config::lip();
    (config.keep, config.confirm, config.sync) = (Keep::Durable, true, false);
    config
}

/// Polls everything, keeps every change, returns all of it.
fn keep_all(channel: &mut Channel, place: &mut impl Persistence) -> Vec<Said> {
    let name = channel.name().to_owned();
    let mut said = Vec::new();
    while let Some(output) = channel.poll_output() {
        let output = Said::from(output);
        if let Said::Persist { number, bytes, .. } = &output {
            place.save(&name, &Change::parse(&name, bytes).unwrap()).unwrap();
            channel.persisted(*number);
        }
        said.push(output);
    }
    said
}

/// The same without the changes.
fn keep(channel: &mut Channel, place: &mut impl Persistence) -> Vec<Said> {
    let mut said = keep_all(channel, place);
    said.retain(|said| !matches!(said, Said::Persist { .. }));
    said
}

fn again(config: Config, place: &mut impl Persistence) -> Channel {
    Channel::load("room", b"bob", config, START, &place.load("room").unwrap()).unwrap()
}

#[test]
fn what_nobody_cites_is_still_spoken_of_after_a_restart() {
    let mut config = durable();
    (config.causal, config.sync, config.sync_causal) = (2, true, 2);
    let mut place = Memory::default();
    let mut bob = channel("bob", config.clone());
    // The first one is what nobody cites.
    for (number, causal) in [(1, &[][..]), (2, &[]), (3, &["m2"]), (4, &["m3"])] {
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L + number, causal));
    }
    keep(&mut bob, &mut place);
    let mut bob = again(config, &mut place);
    keep(&mut bob, &mut place);
    let at = bob.poll_timeout().unwrap();
    bob.handle_timeout(START.after(at - START.mono_ms));
    let said = keep(&mut bob, &mut place);
    let sync = &crate::group::broadcasts(&said)[0];
    let sync = Message::decode(Profile::Lip, sync).unwrap();
    let cited: Vec<&[u8]> = sync.causal.iter().map(|entry| &entry.id[..]).collect();
    assert_eq!(cited, [&b"m1"[..], b"m3", b"m4"]);
}

#[test]
fn nothing_is_sent_or_delivered_before_it_is_kept() {
    let mut bob = channel("bob", durable());
    receive(&mut bob, START, &message("alice", "m1", L, &[]));
    let said = drain(&mut bob);
    let [Said::Persist { number, .. }] = said[..] else { panic!("{said:?}") };
    assert!(drain(&mut bob).is_empty(), "nothing until it is kept");
    receive(&mut bob, START, &message("alice", "m2", L + 1, &[]));
    assert!(drain(&mut bob).is_empty());
    bob.persisted(number);
    let said = drain(&mut bob);
    assert!(matches!(&said[0], Said::Persist { .. }));
    assert_eq!(delivered(&said), ["m1"], "the second one waits for its own change");
}

#[test]
fn what_is_not_to_be_kept_strictly_waits_for_nothing() {
    let mut config = durable();
    (config.keep, config.confirm) = (Keep::Relaxed, false);
    let mut bob = channel("bob", config);
    receive(&mut bob, START, &message("alice", "m1", L, &[]));
    let said = drain(&mut bob);
    assert!(matches!(said[0], Said::Persist { .. }));
    assert_eq!(delivered(&said), ["m1"]);
}

#[test]
fn a_failed_change_is_part_of_the_next_one_and_tried_again_without_any_other_event() {
    let mut bob = channel("bob", durable());
    let mut place = Memory::new();
    receive(&mut bob, START, &message("alice", "m1", L, &[]));
    keep(&mut bob, &mut place);
    bob.confirm(1).unwrap();
    keep(&mut bob, &mut place);
    receive(&mut bob, START, &message("alice", "m2", L + 1, &[]));
    let said = drain(&mut bob);
    let Said::Persist { number, .. } = said[0] else { panic!() };
    bob.persist_failed(START, number);
    receive(&mut bob, START, &message("alice", "m3", L + 2, &[]));
    assert!(drain(&mut bob).is_empty(), "not at once");
    let at = bob.poll_timeout().expect("it is tried again by itself");
    bob.handle_timeout(Now { mono_ms: at, ..START });
    assert_eq!(delivered(&keep(&mut bob, &mut place)), ["m2", "m3"]);
    assert_eq!(log(&again(durable(), &mut place)), ["m1", "m2", "m3"]);
}

#[test]
fn changes_do_not_grow_without_bound_nor_carry_filters() {
    let mut config = durable();
    config.history = 20;
    let mut bob = channel("bob", config.clone());
    let mut place = Memory::new();
    let (mut bases, mut largest) = (0, 0);
    for number in 0..3000_u64 {
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L + number, &[]));
        while let Some(output) = bob.poll_output() {
            if let Said::Persist { number, base, bytes } = Said::from(output) {
                bases += usize::from(base);
                largest = largest.max(if base { 0 } else { bytes.len() });
                place.save("room", &Change::parse("room", &bytes).unwrap()).unwrap();
                bob.persisted(number);
            }
        }
        bob.confirm(number + 1).unwrap();
    }
    let kept: usize = place.load("room").unwrap().iter().map(Vec::len).sum();
    assert!(kept < 400 << 10, "{kept} bytes");
    assert!((2..100).contains(&bases), "{bases} bases");
    assert!(largest < 1024, "{largest} bytes for one message");
    assert_eq!(log(&again(config, &mut place)), log(&bob));
}

#[test]
fn a_change_that_nobody_takes_does_not_pile_up() {
    let mut config = durable();
    (config.keep, config.confirm, config.history) = (Keep::Relaxed, false, 10);
    let mut bob = channel("bob", config.clone());
    for number in 0..20_000_u64 {
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L + number, &[]));
        // The first change is taken, and never answered.
        drain(&mut bob);
    }
    assert!(bob.counts().memory_bytes < 4 << 20, "{:?}", bob.counts());
    bob.persisted(1);
    let mut place = Memory::new();
    keep(&mut bob, &mut place);
    assert_eq!(log(&again(config, &mut place)), log(&bob));
}

#[test]
fn what_was_delivered_and_not_confirmed_comes_again_and_what_was_confirmed_does_not() {
    let mut place = Memory::new();
    let mut config = durable();
    config.history = 2;
    let mut bob = channel("bob", config.clone());
    for number in 1..=5_u64 {
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L + number, &[]));
    }
    assert_eq!(delivered(&keep(&mut bob, &mut place)).len(), 5);
    bob.confirm(2).unwrap();
    keep(&mut bob, &mut place);
    let mut bob = again(config.clone(), &mut place);
    let said = keep(&mut bob, &mut place);
    assert_eq!(delivered(&said), ["m3", "m4", "m5"], "also m3, which has left the log");
    assert!(said.iter().all(|said| matches!(said, Said::Delivered { again: true, .. })));
    bob.confirm(5).unwrap();
    keep(&mut bob, &mut place);
    let mut bob = again(config, &mut place);
    assert!(keep(&mut bob, &mut place).is_empty());
    receive(&mut bob, START, &message("alice", "m1", L + 1, &[]));
    assert!(keep(&mut bob, &mut place).is_empty(), "remembered, though it left the log");
}

#[test]
fn what_waited_goes_on_waiting_and_what_was_not_acknowledged_is_sent_again() {
    let mut place = Memory::new();
    let mut bob = channel("bob", durable());
    bob.send(START, b"b1", b"hello").unwrap();
    receive(&mut bob, START, &message("alice", "m2", L + 2, &["m1"]));
    keep(&mut bob, &mut place);
    let mut bob = again(durable(), &mut place);
    assert_eq!((bob.counts().outgoing, bob.counts().buffered, bob.counts().missing), (1, 1, 1));
    let said = keep(&mut bob, &mut place);
    assert!(said.iter().any(|said| matches!(said, Said::Missing { id, .. } if id == "m1")));
    bob.handle_timeout(START.after(60_000));
    let said = keep(&mut bob, &mut place);
    assert!(said.iter().any(|said| matches!(said, Said::Broadcast { id, .. } if id == "b1")));
    receive(&mut bob, START, &message("alice", "m1", L + 1, &["b1"]));
    let said = keep(&mut bob, &mut place);
    assert!(said.contains(&Said::Acknowledged("b1".into())));
    assert_eq!(delivered(&said), ["m1", "m2"]);
    assert_eq!(again(durable(), &mut place).counts().outgoing, 0);
}

/// Bob, who joined late, as he was kept while `m` waited for something that only a sync message
/// had spoken of. What is only spoken of is not kept; and what `m` cites before a message from
/// before Bob's time is from before his time as well. So `m` waits for nothing when it is loaded.
fn kept_while_waiting_for_what_is_forgotten(config: &Config) -> Memory {
    let mut place = Memory::new();
    let mut bob = channel("bob", config.clone());
    receive(&mut bob, START, &message("alice", "m0", L, &["before"]));
    assert_eq!(delivered(&keep(&mut bob, &mut place)), ["m0"]);
    let later = START.after(2 * config.t_min_ms);
    let sync = Message { content: None, ..message("carol", "s1", L + 1, &["spoken of"]) };
    receive(&mut bob, later, &sync);
    receive(&mut bob, later, &message("alice", "m", L + 2, &["spoken of", "before"]));
    assert!(delivered(&keep(&mut bob, &mut place)).is_empty());
    assert_eq!((bob.counts().buffered, bob.counts().missing), (1, 1));
    place
}

#[test]
fn what_is_delivered_while_a_channel_is_loaded_is_kept_first_and_delivered_once() {
    let mut config = durable();
    config.start = Start::Joining;
    let mut place = kept_while_waiting_for_what_is_forgotten(&config);
    let mut bob = again(config.clone(), &mut place);
    let said = keep_all(&mut bob, &mut place);
    let at = |what: &dyn Fn(&Said) -> bool| said.iter().position(what).unwrap();
    let kept = at(&|said| matches!(said, Said::Persist { base: true, .. }));
    let told = at(&|said| matches!(said, Said::Delivered { id, number: 2, .. } if id == "m"));
    assert!(kept < told, "{said:?}");
    assert_eq!(delivered(&said), ["m0", "m"], "behind what is delivered again");
    // The application is done with it, and more is said. After another restart the next number is
    // the next message's, and nothing comes again.
    bob.confirm(2).unwrap();
    receive(&mut bob, START, &message("alice", "n", L + 3, &["m"]));
    assert_eq!(delivered(&keep(&mut bob, &mut place)), ["n"]);
    bob.confirm(3).unwrap();
    keep(&mut bob, &mut place);
    let mut bob = again(config, &mut place);
    assert_eq!(log(&bob), ["m0", "m", "n"]);
    assert!(delivered(&keep(&mut bob, &mut place)).is_empty());
    receive(&mut bob, START, &message("alice", "o", L + 4, &["n"]));
    let said = keep(&mut bob, &mut place);
    assert!(matches!(&said[0], Said::Delivered { id, number: 4, .. } if id == "o"), "{said:?}");
}

#[test]
fn the_order_of_the_log_and_the_lamport_time_outlive_a_restart() {
    let mut place = Memory::new();
    let mut bob = channel("bob", durable());
    for (id, lamport) in [("c", 5), ("b", 5), ("z", 1), ("a", 9)] {
        receive(&mut bob, START, &message("alice", id, L + lamport, &[]));
    }
    keep(&mut bob, &mut place);
    let restarted = again(durable(), &mut place);
    assert_eq!(log(&restarted), ["z", "b", "c", "a"]);
    assert_eq!(restarted.counts().lamport, bob.counts().lamport);
    assert_eq!(restarted.filter().len(), 4);
}

#[test]
fn damaged_incomplete_or_foreign_changes_are_refused() {
    let mut place = Memory::new();
    let mut bob = channel("bob", durable());
    for number in 0..3 {
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L + number, &[]));
        keep(&mut bob, &mut place);
    }
    let saved = place.load("room").unwrap();
    let load = |changes: &[Vec<u8>]| Channel::load("room", b"bob", durable(), START, changes);
    assert!(load(&saved).is_ok());
    for change in 0..saved.len() {
        for at in 0..saved[change].len() {
            let mut damaged = saved.clone();
            damaged[change][at] ^= 4;
            assert!(matches!(load(&damaged), Err(Error::Saved { .. })), "byte {at} of {change}");
        }
        let mut cut = saved.clone();
        cut[change].pop();
        assert!(load(&cut).is_err());
    }
    assert!(load(&saved[1..]).is_err(), "without the base");
    let swapped = [saved[0].clone(), saved[2].clone(), saved[1].clone()];
    assert!(load(&swapped).is_err());
    let mut nim = Config::nim();
    nim.keep = Keep::Durable;
    assert!(Channel::load("room", b"bob", nim, START, &saved).is_err());
}

#[test]
fn confirming_needs_that_deliveries_are_kept() {
    let mut config = durable();
    config.keep = Keep::Relaxed;
    assert!(matches!(Channel::new("room", b"bob", config), Err(Error::Config { .. })));
}

#[test]
fn a_channel_that_slept_is_as_it_was() {
    let mut config = Config::lip();
    (config.history, config.start) = (30, Start::Joining);
    let mut bob = channel("bob", config);
    for number in 0..50_u64 {
        receive(&mut bob, START, &message("alice", &format!("m{number}"), L + number, &[]));
    }
    let bob = bob.hibernate().unwrap_err();
    let mut bob = bob;
    drain(&mut bob);
    assert!(bob.poll_timeout().is_some(), "there is news");
    let mut bob = bob.hibernate().unwrap_err();
    let mut now = START;
    while let Some(at) = bob.poll_timeout() {
        now = now.after(at - now.mono_ms);
        bob.handle_timeout(now);
        drain(&mut bob);
    }
    let (before, awake_bytes) = (log(&bob), bob.counts().memory_bytes);
    let asleep = bob.hibernate().unwrap();
    assert!(asleep.memory_bytes() < awake_bytes / 2);
    let mut bob = asleep.wake(now).unwrap();
    assert_eq!((log(&bob), bob.poll_timeout()), (before, None));
    drain(&mut bob);
    receive(&mut bob, now, &message("alice", "m3", L + 3, &[]));
    assert!(delivered(&drain(&mut bob)).is_empty(), "remembered");
    send(&mut bob, now, "b1");
}

#[test]
fn a_channel_that_is_kept_elsewhere_goes_on_behind_its_changes_when_it_wakes_up() {
    let mut place = Memory::new();
    let mut config = durable();
    config.confirm = false;
    let mut bob = channel("bob", config.clone());
    receive(&mut bob, START, &message("alice", "m1", L, &[]));
    keep(&mut bob, &mut place);
    let mut bob = bob.hibernate().unwrap().wake(START).unwrap();
    receive(&mut bob, START, &message("alice", "m2", L + 1, &[]));
    keep(&mut bob, &mut place);
    assert_eq!(log(&again(config, &mut place)), ["m1", "m2"]);
}

#[test]
fn numbers_that_would_overflow_are_refused_when_they_are_read() {
    let bare = |number: u64, lamport: u64, delivered: u64| {
        let mut bytes = b"MSDC\x01\x00\x01\x00".to_vec();
        for value in [number, lamport, 0, delivered, 0] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        let crc = mainstay_base::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        Channel::load("room", b"bob", durable(), START, &[bytes])
    };
    assert!(bare(1, 1, 1).is_ok());
    for (number, lamport, delivered) in [(u64::MAX, 1, 1), (1, 1 << 62, 1), (1, 1, u64::MAX)] {
        assert!(matches!(bare(number, lamport, delivered), Err(Error::Saved { .. })));
    }
}
