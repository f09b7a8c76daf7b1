//! What followers acknowledge, and how many have to.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mainstay_channel::{Channel, memory};
use mainstay_replica::{
    Error, FollowSettings, LeadSettings, Leader, Level, drive,
    leader::Input,
    limits::FOLLOWERS_MAX,
    wire::{Acked, Hello, Message, encode},
};
use mainstay_sim::Disk;
use mainstay_store::{Durability::Memory, Options, RawStore};

type Store = Arc<RawStore<Disk>>;

fn store() -> Store {
    let one = Options { shards: 1, ..Options::default() };
    Arc::new(RawStore::create(Disk::new(1), 2, 3, &one).unwrap())
}

fn copy(of: &Store, seed: u64) -> Store {
    let options = Options::default();
    Arc::new(RawStore::create_replica(Disk::new(seed), &of.identity(), &options).unwrap())
}

fn follow(copy: Store, there: impl Channel + 'static) -> drive::Following {
    let there = Mutex::new(Some(there));
    let gone = || mainstay_channel::Error::ChannelClosed { why: mainstay_channel::Why::ClosedHere };
    let dial = move || {
        let there = there.lock().unwrap().take().ok_or_else(gone)?;
        Ok(Arc::new(there) as Arc<dyn Channel>)
    };
    drive::follow(copy, dial, FollowSettings::default(), |_| {}).unwrap()
}

#[test]
fn n3_a_write_waits_for_as_many_followers_as_are_asked_for_and_says_so_when_there_are_too_few() {
    let ours = store();
    let leader = drive::lead(Arc::clone(&ours), LeadSettings::default(), |_| {}).unwrap();
    ours.on_write(leader.waker());
    let (group, mut followers) = (memory::group(3), Vec::new());
    for node in 1..3 {
        leader.attach(Arc::new(group.channel(0, node)));
        followers.push(follow(copy(&ours, node as u64), group.channel(node, 0)));
    }
    let token = ours.put(b"de", b"049", Memory).unwrap();
    let sequence = ours.sequence_of(token).unwrap();
    let (long, short) = (Duration::from_secs(20), Duration::from_millis(200));
    for level in [Level::Received, Level::Applied, Level::Durable] {
        leader.wait(token.shard, sequence, level, 2, long).unwrap();
        let late = leader.wait(token.shard, sequence, level, 3, short);
        assert!(matches!(late, Err(Error::TooFew { want: 3, .. })), "{level:?}");
    }
    let late = leader.wait(token.shard, sequence + 1, Level::Received, 1, short);
    assert!(matches!(late, Err(Error::TooFew { .. })), "there is no such write yet");
    for follower in followers {
        assert_eq!(follower.stop()[0].durable, sequence);
    }
    // What is durable there is durable also when they have gone.
    leader.wait(token.shard, sequence, Level::Durable, 2, long).unwrap();
}

#[test]
fn n6_what_followers_had_that_are_gone_is_kept_of_so_many_only() {
    let mut leader = Leader::new(store(), LeadSettings::default(), Duration::ZERO);
    let identity = leader.source().identity();
    let hello = Hello { identity, write_bytes_max: 1 << 40, ..Hello::default() };
    let acked = Acked { shard: 0, received: 1, applied: 1, durable: 1 };
    let acks = Message::acks(&[acked]);
    for peer in 0..FOLLOWERS_MAX as u64 + 20 {
        leader.handle(Duration::ZERO, Input::Connected { peer });
        let ack = Message::Ack { allowance: 1, acks: &acks };
        for message in [Message::Hello(hello), ack] {
            let bytes = encode(0, &message);
            leader.handle(Duration::ZERO, Input::Message { peer, bytes: &bytes });
        }
        leader.handle(Duration::ZERO, Input::Lost { peer });
    }
    assert_eq!(leader.have(0, 1, Level::Durable), FOLLOWERS_MAX);
}
