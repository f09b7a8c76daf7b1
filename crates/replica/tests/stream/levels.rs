//! What followers acknowledge, and how many have to.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mainstay_channel::{Channel, memory};
use mainstay_replica::{
    Error, FollowSettings, Follower, LeadSettings, Leader, Level, drive,
    follower::{self, Output},
    leader::Input,
    limits::FOLLOWERS_MAX,
    wire::{Acked, Hello, Message, Way, encode},
};
use mainstay_sim::{Disk, DiskFaults};

use crate::{
    both::{Kind, SHARDS, assert_equal, for_both, put, replica, store},
    pair::{NOW, Pair},
};

for_both! {
    n3_what_a_leader_had_in_memory_only_is_durable_before_it_follows,
    n3_what_a_follower_had_in_memory_only_is_durable_before_it_follows_another_one,
    n3_a_store_that_cannot_be_synced_does_not_begin_to_follow,
    n3_a_sync_says_nothing_of_a_place_that_was_come_to_while_it_went_on,
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

/// What it has when it begins to follow `leader` counts as durable there, and survives a power cut.
fn assert_durable_when_it_follows<S: Kind>(leader: &S, copy: S, disk: &Disk) {
    let place = |store: &S, shard| store.history(shard).unwrap().position().unwrap();
    let had = copy.contents();
    let places: Vec<_> = (0..SHARDS).map(|shard| place(&copy, shard)).collect();
    let mut pair = Pair::new(leader, &copy);
    pair.run();
    for shard in 0..SHARDS {
        let sequence = places[shard as usize].sequence;
        assert!(sequence > 0, "each shard has something");
        assert_eq!(pair.leader.have(shard, sequence, Level::Durable), 1, "shard {shard}");
    }
    drop((pair, copy));
    disk.power_cut();
    let copy = S::reopen(disk);
    assert_eq!(copy.contents(), had);
    assert_eq!((0..SHARDS).map(|shard| place(&copy, shard)).collect::<Vec<_>>(), places);
}

fn n3_what_a_leader_had_in_memory_only_is_durable_before_it_follows<S: Kind>() {
    for is_demoted in [true, false] {
        let (disk, old) = store::<S>(1);
        put(&old, 0..40, 1);
        let (_, new) = replica(&old, 2);
        Pair::new(&old, &new).run();
        let new = new.promoted(5);
        // One that only hears of the other is a follower as well.
        old.fenced(new.epoch());
        let old = if is_demoted { old.demoted() } else { old };
        assert_durable_when_it_follows(&new, old, &disk);
    }
}

fn n3_what_a_follower_had_in_memory_only_is_durable_before_it_follows_another_one<S: Kind>() {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..40, 1);
    let (disk, copy) = replica(&ours, 2);
    // Its follower goes before it has asked for a sync.
    Pair::new(&ours, &copy).run();
    assert_durable_when_it_follows(&ours, copy, &disk);
}

fn n3_a_store_that_cannot_be_synced_does_not_begin_to_follow<S: Kind>() {
    let (disk, ours) = store::<S>(1);
    put(&ours, 0..40, 1);
    let ours = ours.demoted();
    disk.set_faults(DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::NONE });
    for _ in 0..2 {
        let refused = Follower::new(ours.clone(), FollowSettings::default(), 7, NOW).err();
        let is_told = matches!(refused, Some(Error::Store(mainstay_store::Error::Poisoned { .. })));
        assert!(is_told, "{refused:?}");
        // A second sync that succeeds would prove nothing.
        disk.set_faults(DiskFaults::NONE);
    }
}

fn n3_a_sync_says_nothing_of_a_place_that_was_come_to_while_it_went_on<S: Kind>() {
    let (_, old) = store::<S>(1);
    put(&old, 0..10, 1);
    let (disk, copy) = replica(&old, 2);
    let (_, new) = replica(&old, 3);
    Pair::new(&old, &new).run();
    put(&old, 10..60, 2);
    let mut pair = Pair::new(&old, &copy);
    pair.run();
    let new = new.promoted(5);
    put(&new, 60..160, 3);
    // A sync begins, and takes its time.
    pair.now += Duration::from_millis(50);
    let begun = std::iter::from_fn(|| pair.follower.poll(pair.now));
    assert!(begun.into_iter().any(|output| matches!(output, Output::Sync)));
    pair.follower.handle(pair.now, follower::Input::Lost);
    pair.now += Duration::from_secs(60);
    pair.leader = Leader::new(new.clone(), LeadSettings::default(), pair.now);
    pair.connect();
    pair.run();
    assert_equal(&new, &copy);
    assert_eq!(pair.ways().iter().filter(|way| **way == Way::Diverged).count(), SHARDS as usize);
    let durable = |pair: &Pair<S>, shard| pair.leader.have(shard, 1, Level::Durable);
    pair.follower.handle(pair.now, follower::Input::Synced(true));
    pair.run();
    for shard in 0..SHARDS {
        assert_eq!(durable(&pair, shard), 0, "it saved what was there when it was begun");
    }
    pair.later(Duration::from_millis(50));
    for shard in 0..SHARDS {
        assert_eq!(durable(&pair, shard), 1);
    }
    drop((pair, copy));
    disk.power_cut();
    assert_equal(&new, &S::reopen(&disk));
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
