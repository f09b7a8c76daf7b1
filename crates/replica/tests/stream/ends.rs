//! How channels end: in silence, with garbage, between stores that do not fit.

use std::time::Duration;

use mainstay_replica::{
    follower::{self, Told},
    leader,
};
use mainstay_sim::Disk;
use mainstay_store::Identity;

use crate::{
    both::{Kind, assert_equal, for_both, put, replica, store},
    pair::{NOW, Pair},
};

for_both! {
    stores_that_do_not_fit_are_told_both_values,
    signs_of_life_are_never_answered_and_silence_ends_the_channel,
    garbage_ends_the_channel_with_a_reason_and_harms_nobody,
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
