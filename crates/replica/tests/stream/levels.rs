//! What followers acknowledge, and how many have to.

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

use crate::both::{Kind, for_both, replica, store};

for_both! {
    n3_a_write_waits_for_as_many_followers_as_are_asked_for_and_says_so_when_there_are_too_few,
    n6_what_followers_had_that_are_gone_is_kept_of_so_many_only,
}

fn follow(copy: impl Kind, there: impl Channel + 'static) -> drive::Following {
    let there = Mutex::new(Some(there));
    let gone = || mainstay_channel::Error::ChannelClosed { why: mainstay_channel::Why::ClosedHere };
    let dial = move || {
        let there = there.lock().unwrap().take().ok_or_else(gone)?;
        Ok(Arc::new(there) as Arc<dyn Channel>)
    };
    drive::follow(copy, dial, FollowSettings::default(), |_| {}).unwrap()
}

fn n3_a_write_waits_for_as_many_followers_as_are_asked_for_and_says_so_when_there_are_too_few<
    S: Kind,
>() {
    let (_, ours) = store::<S>(1);
    let leader = drive::lead(ours.clone(), LeadSettings::default(), |_| {}).unwrap();
    ours.on_write(leader.waker());
    let (group, mut followers) = (memory::group(3), Vec::new());
    for node in 1..3 {
        leader.attach(Arc::new(group.channel(0, node)));
        followers.push(follow(replica(&ours, 1 + node as u64).1, group.channel(node, 0)));
    }
    let token = ours.put_one(1, 1).unwrap();
    let sequence = ours.sequence_of(token);
    let (long, short) = (Duration::from_secs(20), Duration::from_millis(200));
    for level in [Level::Received, Level::Applied, Level::Durable] {
        leader.wait(token.shard, sequence, level, 2, long).unwrap();
        let late = leader.wait(token.shard, sequence, level, 3, short);
        assert!(matches!(late, Err(Error::TooFew { want: 3, .. })), "{level:?}");
    }
    let late = leader.wait(token.shard, sequence + 1, Level::Received, 1, short);
    assert!(matches!(late, Err(Error::TooFew { .. })), "there is no such write yet");
    for follower in followers {
        assert_eq!(follower.stop()[token.shard as usize].durable, sequence);
    }
    // What is durable there is durable also when they have gone.
    leader.wait(token.shard, sequence, Level::Durable, 2, long).unwrap();
}

fn n6_what_followers_had_that_are_gone_is_kept_of_so_many_only<S: Kind>() {
    let mut leader = Leader::new(store::<S>(1).1, LeadSettings::default(), Duration::ZERO);
    let identity = leader.source().who();
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
