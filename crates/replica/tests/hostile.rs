//! Leaders that do not keep to the protocol, as fuzzing makes them.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{sync::Arc, time::Duration};

use mainstay_replica::{
    FollowSettings, Follower,
    follower::{Input, Output},
    wire::{Hello, Message, Way, encode},
};
use mainstay_sim::Disk;
use mainstay_store::{Durability, Options, Position, RawStore};

type Store = Arc<RawStore<Disk>>;

/// A follower with two records of one shard, which its leader compares.
fn compared(now: Duration) -> (Follower<Store>, u64) {
    let options = Options { shards: 1, ..Options::default() };
    let store = RawStore::create(Disk::new(1), 2, 3, &options).unwrap();
    store.put(b"de", b"049", Durability::Memory).unwrap();
    store.put(b"at", b"043", Durability::Memory).unwrap();
    let store = Arc::new(store.demote().unwrap());
    let epoch = store.known_epoch().max(1);
    let mut follower =
        Follower::new(Arc::clone(&store), FollowSettings::default(), 7, Duration::ZERO).unwrap();
    follower.handle(now, Input::Tick);
    follower.handle(now, Input::Connected);
    let (identity, write_bytes_max) = (store.identity(), store.write_bytes_max());
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

fn hangs_up(follower: &mut Follower<Store>, now: Duration) -> bool {
    let mut hung_up = false;
    while let Some(output) = follower.poll(now) {
        hung_up |= matches!(output, Output::Disconnect);
    }
    hung_up
}

#[test]
fn as_many_hashes_may_come_back_as_were_sent_and_not_one_more() {
    let now = Duration::ZERO;
    for (times, is_too_many) in [(1, false), (2, true)] {
        let (mut follower, epoch) = compared(now);
        let hashes = Message::hashes(&[1, 2]);
        for _ in 0..times {
            let stale = Message::Stale { shard: 0, hashes: &hashes };
            follower.handle(now, Input::Message(&encode(epoch, &stale)));
        }
        assert_eq!(hangs_up(&mut follower, now), is_too_many, "{times} times two hashes");
    }
}
