//! Writes and records that are too long for one message (O5, E2, N6).

use std::time::Duration;

use mainstay_replica::{
    FollowSettings, LeadSettings,
    follower::{self, Told},
    leader,
    wire::{Hello, Message, decode, encode},
};

use crate::{
    both::{Kind, assert_equal, for_both, put, replica, store},
    pair::{NOW, Pair},
};

for_both! {
    o5_nothing_of_a_write_is_made_before_its_last_part_is_here,
    o5_a_channel_lost_behind_any_part_leaves_nothing_and_the_next_one_brings_it,
    o5_records_that_are_compared_come_in_parts_too,
    o5_parts_that_do_not_follow_each_other_end_the_channel,
    e2_no_more_than_the_allowance_and_a_part_are_on_their_way,
    n6_followers_that_are_sent_the_same_write_share_its_bytes,
    a_follower_that_takes_no_parts_is_sent_messages_as_they_are,
}

const PART: usize = 30;
const WINDOW: u64 = 70;

fn lead() -> LeadSettings {
    LeadSettings { part_bytes: PART, ..LeadSettings::default() }
}

fn follow() -> FollowSettings {
    FollowSettings { window_bytes: WINDOW, ..FollowSettings::default() }
}

/// A follower that has ten records, and no more.
fn caught_up<S: Kind>(follow: FollowSettings) -> (S, S, Pair<S>) {
    let (_, ours) = store::<S>(1);
    let (_, copy) = replica(&ours, 2);
    put(&ours, 0..10, 1);
    let mut pair = Pair::with(&ours, &copy, lead(), follow);
    pair.run();
    assert_equal(&ours, &copy);
    (ours, copy, pair)
}

fn is_part(bytes: &[u8]) -> bool {
    matches!(decode(bytes), Ok((_, Message::Part { .. })))
}

/// One message of the leader; those of the follower are handed over first.
fn next<S: Kind>(pair: &mut Pair<S>) -> Option<Vec<u8>> {
    for bytes in pair.follower_says() {
        pair.leader.handle(NOW, leader::Input::Message { peer: 1, bytes: &bytes });
    }
    loop {
        match pair.leader.poll(NOW) {
            Some(leader::Output::Send { bytes, .. }) => return Some(bytes.to_vec()),
            Some(_) => {}
            None if pair.leader.deadline(NOW) > NOW => return None,
            None => {}
        }
    }
}

fn o5_nothing_of_a_write_is_made_before_its_last_part_is_here<S: Kind>() {
    let (ours, copy, mut pair) = caught_up::<S>(follow());
    let before = copy.contents();
    put(&ours, 3..4, 9);
    let mut parts = 0;
    while let Some(bytes) = next(&mut pair) {
        assert!(is_part(&bytes) && bytes.len() <= PART + 32, "{} bytes", bytes.len());
        assert_eq!(copy.contents(), before, "behind {parts} parts");
        pair.follower.handle(NOW, follower::Input::Message(&bytes));
        parts += 1;
    }
    assert!(parts > 4, "{parts} parts");
    assert_equal(&ours, &copy);
}

fn o5_a_channel_lost_behind_any_part_leaves_nothing_and_the_next_one_brings_it<S: Kind>() {
    for lost_behind in 0.. {
        let (ours, copy, mut pair) = caught_up::<S>(follow());
        let before = copy.contents();
        put(&ours, 3..4, 9);
        for _ in 0..lost_behind {
            let Some(bytes) = next(&mut pair) else {
                assert!(lost_behind > 4, "that were no parts");
                assert_equal(&ours, &copy);
                return;
            };
            pair.follower.handle(NOW, follower::Input::Message(&bytes));
        }
        if ours.contents() != copy.contents() {
            assert_eq!(copy.contents(), before, "behind {lost_behind} parts");
        }
        pair.follower.handle(NOW, follower::Input::Lost);
        pair.leader.handle(NOW, leader::Input::Lost { peer: 1 });
        assert_eq!(pair.leader.held_bytes(), 0, "nobody is sent anything");
        pair.told.clear();
        pair.now += Duration::from_secs(31);
        pair.connect();
        pair.run();
        assert_equal(&ours, &copy);
        let broken = |told: &Told| matches!(told, Told::Refused(_) | Told::Failed(_));
        assert!(!pair.told.iter().any(broken), "{:?}", pair.told);
    }
}

fn o5_records_that_are_compared_come_in_parts_too<S: Kind>() {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..300, 1);
    let (_, copy) = replica(&ours, 2);
    put(&ours, 0..300, 2);
    let lead = LeadSettings { replay_max: 10, ..lead() };
    let mut pair = Pair::with(&ours, &copy, lead, follow());
    let mut parts = 0;
    while let Some(bytes) = next(&mut pair) {
        parts += usize::from(is_part(&bytes));
        pair.follower.handle(NOW, follower::Input::Message(&bytes));
    }
    assert!(parts > 300 * S::RECORD_BYTES / 2 / PART, "{parts} parts");
    assert!(pair.ways().iter().all(|way| *way != mainstay_replica::wire::Way::Resume));
    assert_equal(&ours, &copy);
}

fn o5_parts_that_do_not_follow_each_other_end_the_channel<S: Kind>() {
    type Change = fn(u64, &mut Vec<Vec<u8>>);
    /// The same part, with something else in it.
    fn other(part: &[u8], change: impl Fn(&mut Message<'_>)) -> Vec<u8> {
        let (epoch, mut message) = decode(part).unwrap();
        change(&mut message);
        encode(epoch, &message).to_vec()
    }
    let changes: [(&str, Change); 7] = [
        ("the first is lost", |_, parts| drop(parts.remove(0))),
        ("one in the middle is lost", |_, parts| drop(parts.remove(2))),
        ("one comes twice", |_, parts| parts.insert(2, parts[2].clone())),
        ("two change places", |_, parts| parts.swap(1, 2)),
        ("one is of another shard", |_, parts| {
            parts[1] = other(&parts[1], |part| {
                if let Message::Part { shard, .. } = part {
                    *shard = 1 - *shard;
                }
            });
        }),
        ("one is of a longer whole", |_, parts| {
            parts[1] = other(&parts[1], |part| {
                if let Message::Part { whole, .. } = part {
                    *whole += 1;
                }
            });
        }),
        ("something else is between", |epoch, parts| {
            parts.insert(2, encode(epoch, &Message::Round { shard: 0 }).to_vec());
        }),
    ];
    for (what, change) in changes {
        // All parts are on their way before the first one is taken.
        let (ours, copy, mut pair) = caught_up::<S>(FollowSettings::default());
        let before = copy.contents();
        put(&ours, 3..4, 9);
        let mut parts: Vec<_> = pair.leader_says().iter().map(|bytes| bytes.to_vec()).collect();
        assert!(parts.len() > 4 && parts.iter().all(|part| is_part(part)));
        change(ours.epoch(), &mut parts);
        for part in &parts {
            pair.follower.handle(NOW, follower::Input::Message(part));
        }
        pair.follower_says();
        assert!(pair.closed && !pair.follower.is_joined(), "{what}");
        assert_eq!(copy.contents(), before, "{what}");
    }
    // A sign of life says nothing of a shard.
    let (ours, copy, mut pair) = caught_up::<S>(FollowSettings::default());
    put(&ours, 3..4, 9);
    let parts = pair.leader_says();
    let alive = encode(ours.epoch(), &Message::Alive { tips: &[] });
    for part in &parts {
        pair.follower.handle(NOW, follower::Input::Message(&alive));
        pair.follower.handle(NOW, follower::Input::Message(part));
    }
    assert_equal(&ours, &copy);
    // What is longer than any write is refused before there is memory for it, and what comes in
    // parts is writes or records.
    let round = encode(ours.epoch(), &Message::Round { shard: 0 });
    for (whole, bytes) in [(u64::MAX, &[7; 9][..]), (round.len() as u64, &round)] {
        let (_, _, mut pair) = caught_up::<S>(FollowSettings::default());
        let part = encode(ours.epoch(), &Message::Part { shard: 0, whole, at: 0, bytes });
        pair.follower.handle(NOW, follower::Input::Message(&part));
        pair.follower_says();
        assert!(pair.closed, "{whole} bytes");
    }
}

fn e2_no_more_than_the_allowance_and_a_part_are_on_their_way<S: Kind>() {
    let (ours, _, mut pair) = caught_up::<S>(follow());
    put(&ours, 3..4, 9);
    // Nobody takes anything.
    let sent = pair.leader_says();
    let flying = sent.iter().map(|bytes| bytes.len()).sum::<usize>();
    assert!((WINDOW as usize..WINDOW as usize + PART + 32).contains(&flying), "{flying} bytes");
    let (held, record) = (pair.leader.held_bytes(), S::RECORD_BYTES);
    assert!(held > 0 && held < 3 * record + 100, "{held} bytes held for {record}");
    let lag = (0..2).map(|shard| pair.leader.lag(1, shard, NOW).unwrap().events).sum::<u64>();
    assert_eq!(lag, 1);
}

fn n6_followers_that_are_sent_the_same_write_share_its_bytes<S: Kind>() {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..10, 1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::with(&ours, &copy, lead(), follow());
    pair.run();
    // It says what the first one says, and so is where it is.
    for peer in 2..5 {
        pair.leader.handle(NOW, leader::Input::Connected { peer });
        let identity = ours.who();
        let hello = Hello { identity, write_bytes_max: 1 << 30, ..Hello::default() };
        let mut say = |message: &Message<'_>| {
            let bytes = encode(ours.epoch(), message);
            pair.leader.handle(NOW, leader::Input::Message { peer, bytes: &bytes });
        };
        say(&Message::Hello(hello));
        for shard in 0..identity.shards {
            let at = ours.tip(shard).unwrap();
            say(&Message::Sync { shard, at, is_empty: false });
        }
        say(&Message::Ack { allowance: 10, acks: &[] });
    }
    pair.leader_says();
    assert_eq!(pair.leader.held_bytes(), 0);
    put(&ours, 3..4, 9);
    let mut others = 0;
    while let Some(output) = pair.leader.poll(NOW) {
        match output {
            leader::Output::Send { peer: 1, bytes, .. } => {
                pair.follower.handle(NOW, follower::Input::Message(&bytes));
            }
            leader::Output::Send { .. } => others += 1,
            _ => {}
        }
    }
    assert_eq!(others, 3, "a part each");
    let held = pair.leader.held_bytes();
    assert!(held > 0 && held < 2 * S::RECORD_BYTES, "{held} bytes for four followers");
    pair.run();
    assert_equal(&ours, &copy);
}

fn a_follower_that_takes_no_parts_is_sent_messages_as_they_are<S: Kind>() {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..10, 1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::with(&ours, &copy, lead(), FollowSettings::default());
    for bytes in pair.follower_says() {
        let (epoch, Message::Hello(hello)) = decode(&bytes).unwrap() else { panic!("it greets") };
        assert!(hello.takes_parts);
        let older = Message::Hello(Hello { takes_parts: false, ..hello });
        let bytes = encode(epoch, &older);
        // Bits that an older peer does not know mean nothing to it.
        assert_eq!(decode(&bytes).unwrap().1, older);
        pair.leader.handle(NOW, leader::Input::Message { peer: 1, bytes: &bytes });
    }
    while let Some(bytes) = next(&mut pair) {
        assert!(!is_part(&bytes));
        pair.follower.handle(NOW, follower::Input::Message(&bytes));
    }
    assert_equal(&ours, &copy);
}
