//! How channels end: in silence, with garbage, between stores that do not fit.

use std::time::Duration;

use bytes::Bytes;
use mainstay_replica::{
    follower::{self, Told},
    leader,
    limits::VERSION,
    wire::{Hello, Message, Reason, decode, encode},
};
use mainstay_sim::{Disk, Storage};
use mainstay_store::Identity;

use crate::{
    both::{Kind, assert_equal, for_both, put, replica, store},
    pair::{NOW, Pair},
};

for_both! {
    stores_that_do_not_fit_are_told_both_values,
    signs_of_life_are_never_answered_and_silence_ends_the_channel,
    garbage_ends_the_channel_with_a_reason_and_harms_nobody,
    another_version_of_the_protocol_is_refused_by_either_end_with_both_numbers,
    pauses_grow_until_a_channel_has_proved_useful,
    r6_a_damaged_write_is_never_sent_and_both_ends_are_told,
    two_followers_of_one_number_are_told_apart_in_what_is_said_of_them,
}

fn another_version_of_the_protocol_is_refused_by_either_end_with_both_numbers<S: Kind>() {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..10, 1);
    let (_, copy) = replica(&ours, 2);
    let hello = Hello { identity: ours.who(), write_bytes_max: 1 << 30, ..Hello::default() };
    let hello = Hello { version: VERSION + 1, ..hello };
    let epoch = ours.epoch();
    let mut pair = Pair::new(&ours, &copy);
    pair.follower_says();
    let bytes = encode(epoch, &Message::Hello(hello));
    pair.leader.handle(NOW, leader::Input::Message { peer: 1, bytes: &bytes });
    let sent = pair.leader_says();
    let is_refused = |sent: &[Bytes], ours, theirs| {
        let [only] = sent else { panic!("{sent:?}") };
        let (_, Message::Refused(refusal)) = decode(only).unwrap() else { panic!("{only:?}") };
        assert_eq!((refusal.reason, refusal.ours, refusal.theirs), (Reason::Version, ours, theirs));
        assert!(refusal.to_string().ends_with(": 1 and 2"), "{refusal}");
    };
    is_refused(&sent, VERSION.into(), u64::from(VERSION) + 1);
    assert!(pair.closed && pair.leader.followers().next().is_none());
    let mut pair = Pair::new(&ours, &copy);
    pair.follower_says();
    let bytes = encode(epoch, &Message::Welcome(hello));
    pair.follower.handle(NOW, follower::Input::Message(&bytes));
    is_refused(&pair.follower_says(), VERSION.into(), u64::from(VERSION) + 1);
    assert!(pair.closed && !pair.follower.is_joined() && copy.contents().is_empty());
    let is_told =
        |told: &Told| matches!(told, Told::Refused(error) if error.to_string().contains("1 and 2"));
    assert!(pair.told.iter().any(is_told), "{:?}", pair.told);
}

fn pauses_grow_until_a_channel_has_proved_useful<S: Kind>() {
    let (_, ours) = store::<S>(1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    // What it has is durable, and nothing else is due.
    pair.later(Duration::from_millis(100));
    // A channel that brings nothing is lost, again and again.
    let pause = |pair: &mut Pair<S>| {
        pair.follower.handle(pair.now, follower::Input::Lost);
        pair.follower_says();
        let due = pair.follower.deadline(pair.now).unwrap();
        let pause = due - pair.now;
        pair.now = due;
        pair.connect();
        pair.run();
        assert!(pair.follower.is_joined());
        pause
    };
    let pauses: Vec<_> = (0..9).map(|_| pause(&mut pair)).collect();
    let (first, last) = (pauses[0], pauses[8]);
    let (least, most) = (Duration::from_millis(500), Duration::from_secs(30));
    assert!(pauses.iter().all(|pause| (least..=most).contains(pause)), "{pauses:?}");
    assert!(first < Duration::from_secs(3) && last > Duration::from_secs(8), "{pauses:?}");
    put(&ours, 0..5, 1);
    pair.run();
    assert_equal(&ours, &copy);
    pair.later(Duration::from_millis(100));
    let after = pause(&mut pair);
    assert!(after < Duration::from_secs(3), "{after:?} after {pauses:?}");
}

fn r6_a_damaged_write_is_never_sent_and_both_ends_are_told<S: Kind>() {
    let (disk, ours) = store::<S>(1);
    let (_, copy) = replica(&ours, 2);
    put(&ours, 0..50, 1);
    ours.sync().unwrap();
    let whole = ours.contents();
    // Of each shard a byte in the middle of what its log has.
    for name in disk.names().into_iter().filter(|name| name.ends_with(".log")) {
        let file = disk.file(&name);
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        let Some(end) = bytes.iter().rposition(|byte| *byte != 0).filter(|end| *end > 5_000) else {
            continue;
        };
        let at = (4_096 + end) / 2;
        file.write_at(at as u64, &[bytes[at] ^ 4]).unwrap();
    }
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    assert!(pair.closed);
    let is_failed = |told: &leader::Told| matches!(told, leader::Told::Failed(_));
    assert!(pair.leader_told.iter().any(is_failed), "{:?}", pair.leader_told);
    let is_told = |told: &Told| matches!(told, Told::Refused(_));
    assert!(pair.told.iter().any(is_told), "{:?}", pair.told);
    // What it has is the leader's, as far as it goes.
    let part = copy.contents();
    assert!(part.len() < whole.len());
    assert!(part.iter().all(|(key, value)| whole.get(key) == Some(value)));
}

fn two_followers_of_one_number_are_told_apart_in_what_is_said_of_them<S: Kind>() {
    let (_, ours) = store::<S>(1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    pair.leader.handle(NOW, leader::Input::Connected { peer: 1 });
    pair.leader_says();
    let says = |told: &leader::Told| matches!(told, leader::Told::Left { peer: 1, why } if why.contains("same number"));
    assert!(pair.leader_told.iter().any(says), "{:?}", pair.leader_told);
}

fn stores_that_do_not_fit_are_told_both_values<S: Kind>() {
    let (_, ours) = store::<S>(1);
    let id = ours.who();
    let mut others = vec![
        (Identity { shards: 4, ..id }, "number of shards: 2 and 4"),
        (Identity { shard_bits: 9, ..id }, "choose its shard: 0 and 9"),
        (Identity { id: [9; 16], ..id }, "different stores"),
    ];
    others.extend(S::misfits(id));
    for (other, text) in others {
        let mut pair = Pair::new(&ours, &S::make_replica(Disk::new(2), &other));
        pair.run();
        let Some(Told::Refused(error)) =
            pair.told.iter().find(|told| matches!(told, Told::Refused(_)))
        else {
            panic!("{:?}", pair.told)
        };
        assert!(error.to_string().contains(text), "{error}");
        assert!(pair.closed);
    }
}

fn signs_of_life_are_never_answered_and_silence_ends_the_channel<S: Kind>() {
    let (_, ours) = store::<S>(1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    pair.later(Duration::from_millis(100));
    pair.bytes = 0;
    for _ in 0..30 {
        pair.later(Duration::from_secs(1));
    }
    assert!(pair.follower.is_joined());
    assert!(pair.bytes < 30 * 40, "{} bytes in half a minute of silence", pair.bytes);
    // The leader says nothing any more.
    pair.follower.handle(pair.now + Duration::from_secs(8), follower::Input::Tick);
    assert!(!pair.follower.is_joined());
    pair.follower_says();
    assert!(pair.closed);
}

fn garbage_ends_the_channel_with_a_reason_and_harms_nobody<S: Kind>() {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..10, 1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    pair.leader.handle(NOW, leader::Input::Message { peer: 1, bytes: b"hello?" });
    pair.run();
    assert!(pair.closed);
    assert!(pair.leader.followers().next().is_none());
    let refused = |told: &Told| matches!(told, Told::Refused(_));
    assert!(pair.told.iter().any(refused));
    assert_equal(&ours, &copy);
}
