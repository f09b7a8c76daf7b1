//! D5: a channel in steady work allocates nothing, and an idle one costs nothing.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use mainstay_sds::{
    Config, Now, Participant,
    wire::{HistoryEntry, Message, Profile},
};

use crate::group::{START, channel};

/// Counts the allocations of the thread that asks.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _thread_may_be_ending = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

fn sends(config: Config) -> u64 {
    let mut alice = channel("alice", config);
    let mut ids: Vec<Vec<u8>> = Vec::new();
    let mut acks = Vec::new();
    for round in 0..40_u64 {
        let names: Vec<Vec<u8>> =
            (0..250).map(|number| format!("{:064x}", round * 1000 + number).into_bytes()).collect();
        let ack = Message {
            sender: b"bob".to_vec(),
            id: b"ack".to_vec(),
            channel: b"room".to_vec(),
            lamport: Some(START.wall_ms),
            causal: names.iter().map(|id| HistoryEntry::of(id)).collect(),
            ..Message::default()
        };
        acks.push(ack.encode(Profile::Lip));
        ids.extend(names);
    }
    let content = [7; 100];
    let mut now = START;
    let mut round = |round: usize| {
        for id in &ids[round * 250..(round + 1) * 250] {
            now = now.after(1);
            alice.send(now, id, &content).unwrap();
            while alice.poll_output().is_some() {}
        }
        alice.receive(now, &acks[round]).unwrap();
        while alice.poll_output().is_some() {}
    };
    (0..30).for_each(&mut round);
    allocations(|| (30..40).for_each(&mut round))
}

#[test]
fn sending_allocates_nothing_once_the_history_is_full() {
    let mut config = Config::lip();
    (config.sync, config.history) = (false, 1000);
    let count = sends(config);
    assert!(count <= 25, "{count} allocations for 2,500 messages");
}

#[test]
fn receiving_in_order_allocates_nothing_once_the_history_is_full() {
    let mut bob = channel("bob", Config::lip());
    let mut causal: Vec<HistoryEntry> = Vec::new();
    let messages: Vec<Vec<u8>> = (0..6000_u64)
        .map(|number| {
            let id = format!("{number:064x}").into_bytes();
            let message = Message {
                sender: format!("s{}", number % 8).into_bytes(),
                channel: b"room".to_vec(),
                lamport: Some(START.wall_ms + number),
                causal: causal.clone(),
                content: Some(vec![7; 100]),
                id: id.clone(),
                ..Message::default()
            };
            causal.push(HistoryEntry::of(&id));
            if causal.len() > 10 {
                causal.remove(0);
            }
            message.encode(Profile::Lip)
        })
        .collect();
    let mut take = |message: &Vec<u8>| {
        bob.receive(START, message).unwrap();
        while bob.poll_output().is_some() {}
    };
    messages[..5000].iter().for_each(&mut take);
    let count = allocations(|| messages[5000..].iter().for_each(&mut take));
    assert!(count <= 10, "{count} allocations for 1,000 messages");
}

#[test]
fn a_hundred_thousand_idle_channels_take_little_and_wake_nobody() {
    let mut alice = Participant::new(b"alice").unwrap();
    let before = COUNT.get();
    for number in 0..2000 {
        alice.join(&format!("channel {number}"), Config::lip()).unwrap();
    }
    assert_eq!(alice.poll_timeout(), None);
    let each = (COUNT.get() - before) / 2000;
    assert!(each <= 8, "{each} allocations a channel");
    let memory = alice.channel(START, "channel 7").unwrap().counts().memory_bytes;
    assert!(memory < 2048, "{memory} bytes a channel that was never used");
    let later = START.after(3_600_000);
    assert_eq!(alice.hibernate(later, 1000), 2000);
    alice.handle_timeout(Now { mono_ms: u64::MAX / 2, ..later });
    assert!(alice.poll_output().is_none());
}
