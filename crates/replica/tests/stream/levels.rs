//! What followers acknowledge, and how many have to.

use std::{
    collections::BTreeSet,
    ops::RangeInclusive,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use mainstay_channel::{Bounds, Channel, memory};
use mainstay_replica::{
    Error, FollowSettings, Follower, LeadSettings, Leader, Level, drive,
    follower::{self, Output},
    leader::{self, Input},
    limits::FOLLOWERS_MAX,
    wire::{Acked, Hello, Message, Way, encode},
};
use mainstay_sim::{Disk, DiskFaults};
use mainstay_store::Token;

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
    a_store_that_is_led_again_or_twice_wakes_each_of_its_leaders,
    who_waits_for_followers_is_told_at_once_that_another_leads,
    a_batch_is_waited_for_by_its_tokens,
    n6_a_follower_may_have_no_more_on_its_way_than_the_leader_grants_anybody,
    n6_a_follower_that_says_it_has_taken_more_than_it_was_sent_is_refused,
    n6_a_follower_that_takes_nothing_holds_up_neither_its_leader_nor_others,
    n6_a_follower_that_asks_without_end_and_takes_nothing_is_given_up,
}

/// What a follower says first that is where its leader is.
fn greetings<S: Kind>(ours: &S, allowance: u64) -> Vec<bytes::Bytes> {
    let identity = ours.who();
    let hello = Hello { identity, write_bytes_max: 1 << 30, ..Hello::default() };
    let mut all = vec![encode(ours.epoch(), &Message::Hello(hello))];
    for shard in 0..SHARDS {
        let at = ours.tip(shard).unwrap();
        all.push(encode(ours.epoch(), &Message::Sync { shard, at, is_empty: false }));
    }
    all.push(encode(ours.epoch(), &Message::Ack { allowance, acks: &[] }));
    all
}

fn n6_a_follower_may_have_no_more_on_its_way_than_the_leader_grants_anybody<S: Kind>() {
    const MOST: usize = 10_000;
    let (_, ours) = store::<S>(1);
    for allowance in [1 << 40, u64::MAX] {
        let settings = LeadSettings { window_max: MOST as u64, ..LeadSettings::default() };
        let mut leader = Leader::new(ours.clone(), settings, NOW);
        leader.handle(NOW, Input::Connected { peer: 1 });
        for bytes in greetings(&ours, allowance) {
            leader.handle(NOW, Input::Message { peer: 1, bytes: &bytes });
        }
        let mut sent = 0;
        for round in 0..100 {
            put(&ours, 0..100, round);
            while let Some(output) = leader.poll(NOW) {
                let leader::Output::Send { bytes, .. } = output else { continue };
                sent += bytes.len();
            }
        }
        // What is put meanwhile is a message.
        assert!((MOST..MOST + 100 * (S::RECORD_BYTES + 100)).contains(&sent), "{sent} bytes");
        assert_eq!(leader.followers().count(), 1);
    }
}

fn n6_a_follower_that_says_it_has_taken_more_than_it_was_sent_is_refused<S: Kind>() {
    let (_, ours) = store::<S>(1);
    let mut leader = Leader::new(ours.clone(), LeadSettings::default(), NOW);
    leader.handle(NOW, Input::Connected { peer: 1 });
    let mut said = greetings(&ours, 1);
    said.push(encode(ours.epoch(), &Message::Ack { allowance: 1 << 40, acks: &[] }));
    for bytes in said {
        leader.handle(NOW, Input::Message { peer: 1, bytes: &bytes });
    }
    let outputs = std::iter::from_fn(|| leader.poll(NOW)).collect::<Vec<_>>();
    let is_refused = |output: &leader::Output| matches!(output, leader::Output::Told(leader::Told::Left { why, .. }) if why.contains("more than"));
    assert!(outputs.iter().any(is_refused), "{outputs:?}");
}

fn n6_a_follower_that_takes_nothing_holds_up_neither_its_leader_nor_others<S: Kind>() {
    let (done, is_done) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let (_, ours) = store::<S>(1);
        let leader = drive::lead(ours.clone(), LeadSettings::default(), |_| {}).unwrap();
        // The channel is just full when it has been told where it is.
        let messages = 1 + 2 * SHARDS as usize;
        let bounds = Bounds { messages, ..Bounds::default() };
        let (here, there) = memory::pair_with(bounds).unwrap();
        leader.attach(Arc::new(here));
        for bytes in greetings(&ours, 1 << 20) {
            there.send(bytes).unwrap();
        }
        while leader.followers().is_empty() {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(100));
        let tokens: Vec<_> = (0..20).map(|number| ours.put_one(number, 1).unwrap()).collect();
        // The other way round, it is another node.
        let (other, here) = memory::pair();
        leader.attach(Arc::new(here));
        let follower = follow(replica(&ours, 2).1, other);
        leader.wait_for(&tokens, Level::Durable, 1, LONG).unwrap();
        assert_eq!(leader.followers().len(), 2);
        drop((leader, follower));
        done.send(()).unwrap();
        drop(there);
    });
    is_done.recv_timeout(LONG).unwrap();
}

fn n6_a_follower_that_asks_without_end_and_takes_nothing_is_given_up<S: Kind>() {
    let (_, ours) = store::<S>(1);
    let leader = drive::lead(ours.clone(), LeadSettings::default(), |_| {}).unwrap();
    let (here, there) = memory::pair();
    leader.attach(Arc::new(here));
    let hello = greetings(&ours, 1).remove(0);
    let mut count = 0;
    while there.send(hello.clone()).is_ok() {
        count += 1;
        assert!(count < 1_000_000, "all that it asks is answered, and is here");
    }
    assert!(leader.followers().is_empty());
}

fn follow(copy: impl Kind, there: impl Channel + 'static) -> drive::Following {
    follow_as(copy, there, FollowSettings::default())
}

fn follow_as(
    copy: impl Kind,
    there: impl Channel + 'static,
    settings: FollowSettings,
) -> drive::Following {
    let there = Mutex::new(Some(there));
    let gone = || mainstay_channel::Error::ChannelClosed { why: mainstay_channel::Why::ClosedHere };
    let dial = move || {
        let there = there.lock().unwrap().take().ok_or_else(gone)?;
        Ok(Arc::new(there) as Arc<dyn Channel>)
    };
    drive::follow(copy, dial, settings, |_| {}).unwrap()
}

/// In a test nobody is silent for long enough to be told something by a clock.
const NEVER: Duration = Duration::from_secs(100_000);
const LONG: Duration = Duration::from_secs(30);

fn a_store_that_is_led_again_or_twice_wakes_each_of_its_leaders<S: Kind>() {
    let lead = LeadSettings { heartbeat: NEVER, silence: 2 * NEVER, ..LeadSettings::default() };
    let settings =
        FollowSettings { heartbeat: NEVER, silence: 2 * NEVER, ..FollowSettings::default() };
    let (_, ours) = store::<S>(1);
    drop(drive::lead(ours.clone(), lead, |_| {}).unwrap());
    let mut all = Vec::new();
    for number in 0..2 {
        let leader = drive::lead(ours.clone(), lead, |_| {}).unwrap();
        let (here, there) = memory::pair();
        leader.attach(Arc::new(here));
        let (_, copy) = replica(&ours, 2 + number);
        let follower = follow_as(copy.clone(), there, settings);
        // When it has told that this is durable, nobody has anything more to say.
        let token = ours.put_one(1, 1 + number as u8).unwrap();
        leader.wait_for(&[token], Level::Durable, 1, LONG).unwrap();
        all.push((leader, copy, follower));
    }
    // Nothing but the write itself makes the leaders look.
    ours.put_one(2, 7).unwrap();
    let end = Instant::now() + LONG;
    for (_, copy, _) in &all {
        while copy.get_one(2) != ours.get_one(2) {
            assert!(Instant::now() < end, "a leader was not woken");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn who_waits_for_followers_is_told_at_once_that_another_leads<S: Kind>() {
    let (_, ours) = store::<S>(1);
    let lead = LeadSettings { heartbeat: NEVER, silence: 2 * NEVER, ..LeadSettings::default() };
    let leader = drive::lead(ours.clone(), lead, |_| {}).unwrap();
    let (here, there) = memory::pair();
    leader.attach(Arc::new(here));
    let token = ours.put_one(1, 1).unwrap();
    let by = ours.epoch() + 1;
    let is_told = |told: Result<(), Error>| {
        let store = match told {
            Err(Error::Store(error)) => error,
            other => panic!("{other:?}"),
        };
        matches!(store, mainstay_store::Error::Replaced { by: found, .. } if found == by)
    };
    thread::scope(|scope| {
        let waits = scope.spawn(|| leader.wait_for(&[token], Level::Durable, 1, NEVER));
        // One that has heard of another leader.
        let hello = Hello { identity: ours.who(), ..Hello::default() };
        there.send(encode(by, &Message::Hello(hello))).unwrap();
        assert!(is_told(waits.join().unwrap()));
    });
    let sequence = ours.sequence_of(token).unwrap();
    assert!(is_told(leader.wait(token.shard, sequence, Level::Durable, 1, NEVER)));
}

fn a_batch_is_waited_for_by_its_tokens<S: Kind>() {
    let (_, ours) = store::<S>(1);
    let leader = drive::lead(ours.clone(), LeadSettings::default(), |_| {}).unwrap();
    let tokens: Vec<_> = (0..20).map(|number| ours.put_one(number, 1).unwrap()).collect();
    let shards = tokens.iter().map(|token| token.shard).collect::<BTreeSet<_>>();
    assert_eq!(shards.len(), SHARDS as usize);
    leader.wait_for(&[], Level::Durable, 1, LONG).unwrap();
    let late = leader.wait_for(&tokens, Level::Received, 1, Duration::from_millis(1));
    assert!(matches!(late, Err(Error::TooFew { want: 1, .. })), "{late:?}");
    let (here, there) = memory::pair();
    leader.attach(Arc::new(here));
    let follower = follow(replica(&ours, 2).1, there);
    leader.wait_for(&tokens, Level::Durable, 1, LONG).unwrap();
    for token in &tokens {
        let sequence = ours.sequence_of(*token).unwrap();
        assert!(follower.status()[token.shard as usize].durable >= sequence);
    }
    let other = Token { epoch: tokens[0].epoch + 1, ..tokens[0] };
    let refused = leader.wait_for(&[other], Level::Durable, 1, NEVER);
    let is_told = matches!(refused, Err(Error::Store(mainstay_store::Error::OtherEpoch { .. })));
    assert!(is_told, "{refused:?}");
}

fn n3_a_write_waits_for_as_many_followers_as_are_asked_for_and_says_so_when_there_are_too_few<
    S: Kind,
>() {
    let (_, ours) = store::<S>(1);
    let leader = drive::lead(ours.clone(), LeadSettings::default(), |_| {}).unwrap();
    let (group, mut followers) = (memory::group(3), Vec::new());
    for node in 1..3 {
        leader.attach(Arc::new(group.channel(0, node)));
        followers.push(follow(replica(&ours, 1 + node as u64).1, group.channel(node, 0)));
    }
    let token = ours.put_one(1, 1).unwrap();
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
        assert_eq!(follower.stop()[token.shard as usize].durable, sequence);
    }
    // What is durable there is durable also when they have gone.
    leader.wait(token.shard, sequence, Level::Durable, 2, long).unwrap();
}

/// Of disks: what a power cut takes is up to them.
const SEEDS: RangeInclusive<u64> = 2..=9;

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
    for (seed, is_demoted) in SEEDS.flat_map(|seed| [(seed, true), (seed, false)]) {
        let (disk, old) = store::<S>(seed);
        put(&old, 0..40, 1);
        let (_, new) = replica(&old, 99);
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
    for seed in SEEDS {
        let (disk, copy) = replica(&ours, seed);
        // Its follower goes before it has asked for a sync.
        Pair::new(&ours, &copy).run();
        assert_durable_when_it_follows(&ours, copy, &disk);
    }
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
    // What has caught up for the first time is synced at once.
    Pair::new(&old, &copy).run();
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
    for shard in 0..SHARDS {
        let status = pair.follower.status(shard).unwrap();
        assert_eq!(status.durable, 0, "it saved what was there when it was begun");
        assert_eq!(durable(&pair, shard), 0);
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
