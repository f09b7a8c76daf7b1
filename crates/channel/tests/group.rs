//! The rules of a group in memory, one by one.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

use mainstay_channel::{Bounds, Channel, Error, NodeId, limits, memory};
use std::{
    panic::catch_unwind,
    thread,
    time::{Duration, Instant},
};

#[path = "conformance/turn.rs"]
#[allow(dead_code, reason = "each of these tests wants to be alone")]
mod turn;

const PATIENCE: Duration = Duration::from_secs(20);

fn is_closed<T>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::ChannelClosed { .. }))
}

/// Both ends of a channel of the group pass messages to each other.
fn works(group: &memory::Group, from: usize, to: usize) -> bool {
    let (there, back) = (group.channel(from, to), group.channel(to, from));
    there.send("there".into()).unwrap();
    back.send("back".into()).unwrap();
    back.receive(PATIENCE).unwrap().unwrap() == "there"
        && there.receive(PATIENCE).unwrap().unwrap() == "back"
}

#[test]
fn n1_every_two_nodes_have_a_channel_of_their_own() {
    let _turn = turn::take();
    let group = memory::group(5);
    for from in 0..5 {
        for to in (0..5).filter(|to| *to != from) {
            let message = format!("{from} to {to}");
            group.channel(from, to).send(message.into()).unwrap();
            assert_eq!(group.channel(from, to).peer().node, NodeId(to as u64));
        }
    }
    for from in 0..5 {
        for to in (0..5).filter(|to| *to != from) {
            let received = group.channel(to, from).receive(Duration::ZERO).unwrap().unwrap();
            assert_eq!(received, format!("{from} to {to}"));
        }
    }
}

#[test]
fn n1_asking_twice_gives_the_same_channel() {
    let _turn = turn::take();
    let group = memory::group(2);
    group.channel(0, 1).send("kept".into()).unwrap();
    assert_eq!(group.channel(1, 0).receive(PATIENCE).unwrap().unwrap(), "kept");
}

#[test]
fn n1_a_large_group_costs_nothing_until_it_is_used() {
    let _turn = turn::take();
    let start = Instant::now();
    let group = memory::group(limits::GROUP_SIZE_MAX);
    assert!(works(&group, 0, limits::GROUP_SIZE_MAX - 1));
    assert!(start.elapsed() < PATIENCE / 4, "{:?}", start.elapsed());
}

#[test]
fn n2_a_crash_ends_every_channel_of_the_node_for_every_handle_and_at_both_ends() {
    let _turn = turn::take();
    let group = memory::group(4);
    let handles: Vec<_> = [(0, 2), (2, 0), (1, 2), (2, 3)]
        .into_iter()
        .map(|(from, to)| (group.channel(from, to), group.channel(from, to).clone()))
        .collect();
    handles[0].0.send("on its way".into()).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| handles[2].0.receive(PATIENCE));
        thread::sleep(Duration::from_millis(20));
        group.simulate_crash(2);
        assert!(is_closed(waiting.join().unwrap()), "whoever waits is woken");
    });
    for (handle, clone) in &handles {
        for end in [handle, clone] {
            assert!(!end.is_open());
            assert!(is_closed(end.send("x".into())) && is_closed(end.receive(Duration::ZERO)));
        }
    }
    for (from, to) in [(2, 0), (0, 2), (2, 3), (1, 2)] {
        let refused = group.try_channel(from, to);
        assert!(matches!(refused, Err(Error::NodeDown { crashed: 2, .. })), "{refused:?}");
    }
    assert!(works(&group, 0, 1) && works(&group, 1, 3), "the others go on");
    // Again: nothing happens.
    group.simulate_crash(2);
    assert!(!group.is_node_live(2) && works(&group, 0, 3));
}

#[test]
fn n2_a_reconnected_node_gets_fresh_channels_and_old_handles_stay_closed() {
    let _turn = turn::take();
    let group = memory::group(3);
    let old = group.channel(0, 1);
    let untouched = group.channel(0, 2);
    untouched.send("from before".into()).unwrap();
    group.simulate_crash(1);
    group.reconnect(1);
    assert!(group.is_node_live(1) && works(&group, 0, 1) && works(&group, 2, 1));
    assert!(is_closed(old.send("x".into())));
    let received = group.channel(2, 0).receive(PATIENCE).unwrap().unwrap();
    assert_eq!(received, "from before", "channels between others are not touched");
    // Of a node that is up: nothing happens.
    let current = group.channel(0, 1);
    group.reconnect(1);
    assert!(current.is_open() && works(&group, 0, 1));
}

#[test]
fn n3_reconnecting_one_of_two_crashed_nodes_leaves_the_other_down() {
    let _turn = turn::take();
    let group = memory::group(4);
    group.simulate_crash(1);
    group.simulate_crash(2);
    let live = |group: &memory::Group| [0, 1, 2, 3].map(|node| group.is_node_live(node));
    assert_eq!(live(&group), [true, false, false, true]);
    group.reconnect(2);
    assert_eq!(live(&group), [true, false, true, true]);
    assert!(works(&group, 2, 0) && works(&group, 2, 3));
    assert!(matches!(group.try_channel(2, 1), Err(Error::NodeDown { crashed: 1, .. })));
    group.reconnect(1);
    assert!(works(&group, 1, 2));
}

#[test]
fn n3_closing_a_handle_takes_no_node_down() {
    let _turn = turn::take();
    let group = memory::group(2);
    group.channel(0, 1).close();
    assert!(group.is_node_live(0) && group.is_node_live(1));
    assert!(is_closed(group.channel(1, 0).send("x".into())), "but that channel is closed");
    group.simulate_crash(1);
    group.reconnect(1);
    assert!(works(&group, 0, 1));
}

#[test]
fn a_group_of_one_has_a_node_and_no_channels() {
    let _turn = turn::take();
    let group = memory::group(1);
    assert_eq!((group.size(), group.is_node_live(0)), (1, true));
    assert!(matches!(group.try_channel(0, 0), Err(Error::SelfLoop { node: 0 })));
    group.simulate_crash(0);
    assert!(!group.is_node_live(0));
    group.reconnect(0);
    assert!(group.is_node_live(0));
}

#[test]
fn a_bug_of_the_caller_panics_and_its_try_form_returns_an_error() {
    let _turn = turn::take();
    let group = memory::group(3);
    let panics = |work: &dyn Fn()| catch_unwind(std::panic::AssertUnwindSafe(work)).is_err();
    assert!(panics(&|| _ = memory::group(0)));
    assert!(panics(&|| _ = memory::group(limits::GROUP_SIZE_MAX + 1)));
    assert!(panics(&|| _ = group.channel(1, 1)));
    assert!(panics(&|| _ = group.channel(0, 3)));
    assert!(panics(&|| _ = group.channel(3, 0)));
    assert!(panics(&|| group.simulate_crash(3)));
    assert!(panics(&|| group.reconnect(3)));
    assert!(!group.is_node_live(3), "asking is no bug");
    group.simulate_crash(2);
    assert!(panics(&|| _ = group.channel(0, 2)));
    assert!(matches!(memory::try_group(0), Err(Error::GroupSize { size: 0, .. })));
    assert!(matches!(group.try_channel(0, 3), Err(Error::NoSuchNode { node: 3, size: 3 })));
    assert!(matches!(group.try_simulate_crash(3), Err(Error::NoSuchNode { .. })));
    assert!(matches!(group.try_reconnect(9), Err(Error::NoSuchNode { .. })));
    assert!(works(&group, 0, 1), "and nothing was harmed");
}

#[test]
fn a_handle_outlives_the_group_and_then_reports_that_it_is_closed() {
    let _turn = turn::take();
    let group = memory::group(2);
    let (a, b) = (group.channel(0, 1), group.channel(1, 0));
    a.send("last words".into()).unwrap();
    drop(group);
    assert!(!a.is_open() && !b.is_open());
    assert!(is_closed(a.send("x".into())) && is_closed(b.receive(Duration::ZERO)));
}

#[test]
fn the_bounds_of_a_group_are_those_of_its_channels() {
    let _turn = turn::take();
    let group = memory::group_with(2, Bounds { messages: 1, ..Bounds::default() }).unwrap();
    assert_eq!(group.channel(0, 1).try_send("1".into()).unwrap(), None);
    assert!(group.channel(0, 1).try_send("2".into()).unwrap().is_some());
    assert!(memory::group_with(2, Bounds { messages: 0, ..Bounds::default() }).is_err());
}

#[test]
fn crashes_and_reconnects_beside_traffic_never_hang_or_mix_channels() {
    let _turn = turn::take();
    let group = memory::group(6);
    thread::scope(|scope| {
        for from in 0..6_usize {
            let group = &group;
            scope.spawn(move || {
                for round in 0..2_000_usize {
                    let to = (from + 1 + round % 5) % 6;
                    let Ok(channel) = group.try_channel(from, to) else { continue };
                    let _ = channel.try_send(vec![from as u8, to as u8].into());
                    if let Ok(Some(message)) = channel.receive(Duration::ZERO) {
                        assert_eq!(message[..], [to as u8, from as u8]);
                    }
                }
            });
        }
        scope.spawn(|| {
            for round in 0..500 {
                group.simulate_crash(round % 6);
                thread::yield_now();
                group.reconnect(round % 6);
            }
        });
    });
    assert!((0..6).all(|node| group.is_node_live(node)));
    group.simulate_crash(0);
    group.reconnect(0);
    assert!(works(&group, 0, 5), "a fresh channel has nothing left over in it");
}
