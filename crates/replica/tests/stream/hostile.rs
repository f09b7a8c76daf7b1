//! Leaders that do not keep to the protocol, as fuzzing makes them.

use std::time::Duration;

use mainstay_replica::{
    FollowSettings, Follower, Sink,
    follower::{Input, Output},
    wire::{Hello, Message, Way, encode},
};
use mainstay_store::Position;

use crate::both::{Kind, for_both, store};

for_both! { as_many_hashes_may_come_back_as_were_sent_and_not_one_more }

/// A follower with two records of one shard, which its leader compares.
fn compared<S: Kind>(now: Duration) -> (Follower<S>, u64) {
    let (_, store) = store::<S>(1);
    let mut records = 0;
    for number in 0.. {
        // All shards have some, and this one two.
        let shard = store.put_one(number, 1).unwrap().shard;
        records += u32::from(shard == 0);
        if records == 2 {
            break;
        }
    }
    let store = store.demoted();
    let epoch = store.known_epoch().max(1);
    let mut follower =
        Follower::new(store.clone(), FollowSettings::default(), 7, Duration::ZERO).unwrap();
    follower.handle(now, Input::Tick);
    follower.handle(now, Input::Connected);
    let (identity, write_bytes_max) = (store.who(), Sink::write_bytes_max(&store));
    let hello = Hello { identity, write_bytes_max, ..Hello::default() };
    let from = Position { epoch, sequence: 9, sum: 3 };
    for message in [
        Message::Welcome(hello),
        Message::Info { shard: 0, way: Way::Diverged, from, records: 1 },
        Message::Differ { shard: 0, parts: &[1] },
    ] {
        follower.handle(now, Input::Message(&encode(epoch, &message)));
    }
    assert!(follower.is_joined() && !hangs_up(&mut follower, now));
    (follower, epoch)
}

fn hangs_up(follower: &mut Follower<impl Kind>, now: Duration) -> bool {
    let mut hung_up = false;
    while let Some(output) = follower.poll(now) {
        hung_up |= matches!(output, Output::Disconnect);
    }
    hung_up
}

fn as_many_hashes_may_come_back_as_were_sent_and_not_one_more<S: Kind>() {
    let now = Duration::ZERO;
    for (times, is_too_many) in [(1, false), (2, true)] {
        let (mut follower, epoch) = compared::<S>(now);
        let hashes = Message::hashes(&[1, 2]);
        for _ in 0..times {
            let stale = Message::Stale { shard: 0, hashes: &hashes };
            follower.handle(now, Input::Message(&encode(epoch, &stale)));
        }
        assert_eq!(hangs_up(&mut follower, now), is_too_many, "{times} times two hashes");
    }
}
