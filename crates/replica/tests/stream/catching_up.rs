//! Followers come to where their leader is (N1, N2).

use std::time::Duration;

use mainstay_replica::{FollowSettings, LeadSettings, follower, leader, wire::Way};

use crate::{
    both::{Kind, assert_equal, for_both, put, replica, store},
    pair::{NOW, Pair},
};

for_both! {
    n2_an_empty_follower_gets_everything_then_every_write_and_its_deletes,
    n2_a_follower_with_nothing_gets_records_instead_of_a_long_log,
    n2_reconnecting_sends_what_changed_and_nothing_else,
    n2_a_follower_away_while_the_log_was_cut_has_no_ghosts_and_gets_only_what_differs,
    n2_overflow_of_the_log_under_a_slow_follower_leads_to_comparing_and_not_to_silence,
    n1_a_follower_that_died_while_comparing_goes_on_and_is_at_no_place_until_then,
}

fn n2_an_empty_follower_gets_everything_then_every_write_and_its_deletes<S: Kind>() {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..300, 1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    assert_equal(&ours, &copy);
    put(&ours, 250..350, 2);
    assert!(ours.delete_one(7).unwrap());
    pair.run();
    assert_equal(&ours, &copy);
    assert_eq!(pair.ways(), [Way::Resume, Way::Resume]);
}

fn n2_a_follower_with_nothing_gets_records_instead_of_a_long_log<S: Kind>() {
    let (_, ours) = store::<S>(1);
    for round in 0..20 {
        put(&ours, 0..100, round);
    }
    let (_, copy) = replica(&ours, 2);
    let lead = LeadSettings { replay_max: 100, ..LeadSettings::default() };
    let mut pair = Pair::with(&ours, &copy, lead, FollowSettings::default());
    pair.run();
    assert_equal(&ours, &copy);
    assert_eq!(pair.ways(), [Way::Unfinished, Way::Unfinished]);
    assert!(pair.bytes < 100 * S::RECORD_BYTES + 2_000, "{} bytes", pair.bytes);
}

fn n2_reconnecting_sends_what_changed_and_nothing_else<S: Kind>() {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..2_000, 1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    let whole = pair.bytes;
    pair.follower.handle(NOW, follower::Input::Lost);
    pair.leader.handle(NOW, leader::Input::Lost { peer: 1 });
    pair.now += Duration::from_secs(2);
    pair.bytes = 0;
    pair.connect();
    pair.run();
    assert!(pair.bytes * 100 < whole, "{} of {whole} bytes for nothing", pair.bytes);
    put(&ours, 5..6, 9);
    pair.run();
    assert!(pair.bytes * 100 < whole, "{} of {whole} bytes for one write", pair.bytes);
    assert_equal(&ours, &copy);
}

fn n2_a_follower_away_while_the_log_was_cut_has_no_ghosts_and_gets_only_what_differs<S: Kind>() {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..3_000, 1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    drop(pair);
    for number in 0..10 {
        assert!(ours.delete_one(number).unwrap());
    }
    for round in 0..200 {
        put(&ours, 3_000..3_010, round);
    }
    ours.compact();
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    assert_equal(&ours, &copy);
    assert_eq!(pair.ways(), [Way::Older, Way::Older]);
    assert!(pair.bytes < 10_000, "{} bytes for twenty records", pair.bytes);
}

fn n2_overflow_of_the_log_under_a_slow_follower_leads_to_comparing_and_not_to_silence<S: Kind>() {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..100, 1);
    let (_, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    for round in 0..40 {
        put(&ours, 0..100, round);
    }
    assert!(ours.delete_one(3).unwrap());
    ours.compact();
    pair.run();
    assert_equal(&ours, &copy);
    assert_eq!(pair.ways()[2..], [Way::Cut, Way::Cut]);
}

fn n1_a_follower_that_died_while_comparing_goes_on_and_is_at_no_place_until_then<S: Kind>() {
    let (_, ours) = store::<S>(1);
    for round in 0..10 {
        put(&ours, 0..200, round);
    }
    let (disk, copy) = replica(&ours, 2);
    let lead = LeadSettings { replay_max: 1, ..LeadSettings::default() };
    let mut pair = Pair::with(&ours, &copy, lead, FollowSettings::default());
    // Some messages, and not the last ones.
    for _ in 0..4 {
        for bytes in pair.follower_says() {
            pair.leader.handle(NOW, leader::Input::Message { peer: 1, bytes: &bytes });
        }
        for bytes in pair.leader_says().into_iter().take(3) {
            pair.follower.handle(NOW, follower::Input::Message(&bytes));
        }
    }
    assert!((0..2).any(|shard| copy.history(shard).unwrap().position().is_none()));
    copy.sync().unwrap();
    drop((pair, copy));
    disk.power_cut();
    let copy = S::reopen(&disk);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    assert_equal(&ours, &copy);
}
