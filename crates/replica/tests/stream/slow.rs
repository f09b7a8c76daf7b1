//! Stores whose disk takes its time, by a clock of their own: what takes long must not silence the
//! end that does it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use mainstay_replica::{
    FollowSettings, Follower, LeadSettings, Leader, Sink,
    follower::{self, Told},
    leader,
    wire::{Hello, Message, Way, encode},
};
use mainstay_store::Position;

use crate::{
    both::{Kind, SHARDS, assert_equal, for_both, put, replica, store},
    slowed::Slow,
};

for_both! {
    o7_a_follower_that_is_long_at_looking_through_its_records_says_that_it_is_alive,
    o7_what_comes_for_another_shard_meanwhile_is_not_forgotten,
    o7_more_than_was_allowed_is_not_kept_while_a_follower_is_busy,
    e5_while_a_leader_looks_for_a_place_others_hear_of_it_and_get_its_writes,
}

/// Milliseconds.
#[derive(Clone, Default)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Relaxed))
    }

    fn goes_on(&self, millis: u64) {
        self.0.fetch_add(millis, Relaxed);
    }

    /// A store in which each look takes so long.
    fn slow<S: Clone>(&self, store: &S, millis: u64) -> Slow<S> {
        let clock = self.clone();
        Slow::new(store.clone(), move || clock.goes_on(millis))
    }
}

/// A leader and a slow follower, as their drivers have them: each acts when it hears something, and
/// when its time has come.
struct Slowly<S: Kind> {
    clock: Clock,
    leader: Leader<S>,
    follower: Follower<Slow<S>>,
    told: Vec<Told>,
    left: Vec<String>,
}

impl<S: Kind> Slowly<S> {
    fn new(ours: &S, copy: &S, scan_millis: u64) -> Self {
        let clock = Clock::default();
        let sink = clock.slow(copy, scan_millis);
        let now = clock.now();
        let lead = LeadSettings { replay_max: 1, ..LeadSettings::default() };
        let mut leader = Leader::new(ours.clone(), lead, now);
        let mut follower = Follower::new(sink, FollowSettings::default(), 7, now).unwrap();
        leader.handle(now, leader::Input::Connected { peer: 1 });
        follower.handle(now, follower::Input::Tick);
        follower.handle(now, follower::Input::Connected);
        Self { clock, leader, follower, told: Vec::new(), left: Vec::new() }
    }

    fn is_equal(&self) -> bool {
        (0..SHARDS).all(|shard| self.follower.status(shard).unwrap().is_caught_up)
    }

    /// One round of both; what the follower takes in, it takes in at once.
    fn round(&mut self) {
        if self.leader.deadline(self.clock.now()) <= self.clock.now() {
            self.leader.handle(self.clock.now(), leader::Input::Tick);
        }
        while let Some(output) = self.leader.poll(self.clock.now()) {
            match output {
                leader::Output::Send { bytes, .. } => {
                    self.follower.handle(self.clock.now(), follower::Input::Message(&bytes));
                }
                leader::Output::Told(leader::Told::Left { why, .. }) => self.left.push(why),
                _ => {}
            }
        }
        if self.follower.deadline(self.clock.now()).is_some_and(|due| due <= self.clock.now()) {
            self.follower.handle(self.clock.now(), follower::Input::Tick);
        }
        while let Some(output) = self.follower.poll(self.clock.now()) {
            // The leader has a thread of its own, whose time has gone on.
            self.leader.handle(self.clock.now(), leader::Input::Tick);
            match output {
                follower::Output::Send(bytes) => {
                    let input = leader::Input::Message { peer: 1, bytes: &bytes };
                    self.leader.handle(self.clock.now(), input);
                }
                follower::Output::Sync => {
                    let done = self.follower.sink().sync().is_ok();
                    self.follower.handle(self.clock.now(), follower::Input::Synced(done));
                }
                follower::Output::Told(told) => self.told.push(told),
                _ => {}
            }
        }
    }

    fn run(&mut self) {
        for _ in 0..100_000 {
            if self.is_equal() {
                return;
            }
            self.round();
            self.clock.goes_on(1);
        }
        panic!("it is not there after {:?}: {:?}, {:?}", self.clock.now(), self.told, self.left);
    }
}

const RECORDS: u32 = 6_000;

/// Two of which the follower has all that its leader had, and then some of both sides differ. The log
/// that tells it is cut.
fn apart<S: Kind>() -> (S, S) {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..RECORDS, 1);
    let (_, copy) = replica(&ours, 2);
    crate::pair::Pair::new(&ours, &copy).run();
    assert_equal(&ours, &copy);
    for number in 0..50 {
        ours.delete_one(number).unwrap();
    }
    put(&ours, 100..150, 2);
    for value in 3..8 {
        put(&ours, RECORDS..RECORDS + 500, value);
        ours.compact();
    }
    (ours, copy)
}

fn o7_a_follower_that_is_long_at_looking_through_its_records_says_that_it_is_alive<S: Kind>() {
    let (ours, copy) = apart::<S>();
    let mut slowly = Slowly::new(&ours, &copy, 1_000);
    slowly.run();
    assert!(
        slowly.clock.now() > Duration::from_secs(20),
        "it was too quick: {:?}",
        slowly.clock.now()
    );
    assert!(slowly.left.is_empty(), "{:?}", slowly.left);
    let is_compared = |told: &Told| matches!(told, Told::Way { way, .. } if *way != Way::Resume);
    assert!(slowly.told.iter().any(is_compared), "{:?}", slowly.told);
    assert!(!slowly.told.iter().any(|told| matches!(told, Told::Lost)));
    assert_equal(&ours, &copy);
}

fn o7_what_comes_for_another_shard_meanwhile_is_not_forgotten<S: Kind>() {
    let (ours, copy) = apart::<S>();
    let mut slowly = Slowly::new(&ours, &copy, 500);
    for number in 0..400 {
        // Writers go on.
        ours.put_one(number * 7, 9).unwrap();
        slowly.round();
    }
    slowly.run();
    assert!(slowly.left.is_empty(), "{:?}", slowly.left);
    assert_equal(&ours, &copy);
}

fn o7_more_than_was_allowed_is_not_kept_while_a_follower_is_busy<S: Kind>() {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..RECORDS, 1);
    let copy = ours.demoted();
    let epoch = copy.known_epoch();
    let now = Duration::ZERO;
    let settings = FollowSettings { window_bytes: 1_000, ..FollowSettings::default() };
    let mut follower = Follower::new(copy.clone(), settings, 7, now).unwrap();
    follower.handle(now, follower::Input::Tick);
    follower.handle(now, follower::Input::Connected);
    let write_bytes_max = Sink::write_bytes_max(&copy);
    let hello = Hello { identity: copy.who(), write_bytes_max, ..Hello::default() };
    follower.handle(now, follower::Input::Message(&encode(epoch, &Message::Welcome(hello))));
    let from = Position { epoch, sequence: 9, sum: 3 };
    let info = Message::Info { shard: 0, way: Way::Diverged, from, records: 1 };
    follower.handle(now, follower::Input::Message(&encode(epoch, &info)));
    // A part of a write that is never whole, again and again.
    let part = Message::Part { shard: 1, whole: 1 << 30, at: 0, bytes: &[7; 1 << 20] };
    let part = encode(epoch, &part);
    for _ in 0..60 {
        follower.handle(now, follower::Input::Message(&part));
    }
    assert!(follower.is_joined(), "two messages more than it allowed are none of its business");
    for _ in 0..10 {
        follower.handle(now, follower::Input::Message(&part));
    }
    assert!(!follower.is_joined());
}

fn e5_while_a_leader_looks_for_a_place_others_hear_of_it_and_get_its_writes<S: Kind>() {
    let (_, ours) = store::<S>(1);
    let copies = [replica(&ours, 2).1, replica(&ours, 3).1];
    // Each shard has less than a segment, and the second one is somewhere in the middle of it.
    put(&ours, 0..90, 1);
    crate::pair::Pair::new(&ours, &copies[1]).run();
    put(&ours, 90..100, 1);
    let clock = Clock::default();
    let mut source = clock.slow(&ours, 200);
    source.vain_looks = 50;
    let mut leader = Leader::new(source, LeadSettings::default(), clock.now());
    let follower =
        |copy: &S| Follower::new(copy.clone(), FollowSettings::default(), 7, clock.now()).unwrap();
    let mut followers = [follower(&copies[0]), follower(&copies[1])];
    let (mut told, mut left) = ([Vec::new(), Vec::new()], Vec::new());
    let mut longest = Duration::ZERO;
    for round in 0..3_000 {
        // The second one comes when the first one has everything.
        let begins = if round == 0 { Some(0) } else { (round == 500).then_some(1) };
        if let Some(index) = begins {
            let peer = index as u64;
            leader.handle(clock.now(), leader::Input::Connected { peer });
            followers[index].handle(clock.now(), follower::Input::Tick);
            followers[index].handle(clock.now(), follower::Input::Connected);
        }
        if round > 500 && round % 3 == 0 {
            ours.put_one(round, 1).unwrap();
        }
        let began = clock.now();
        if leader.deadline(clock.now()) <= clock.now() {
            leader.handle(clock.now(), leader::Input::Tick);
        }
        while let Some(output) = leader.poll(clock.now()) {
            match output {
                leader::Output::Send { peer, bytes, .. } => {
                    let follower = &mut followers[peer as usize];
                    // It has a thread of its own, whose time has gone on.
                    follower.handle(clock.now(), follower::Input::Tick);
                    follower.handle(clock.now(), follower::Input::Message(&bytes));
                }
                leader::Output::Told(leader::Told::Left { why, .. }) => left.push(why),
                _ => {}
            }
        }
        longest = longest.max(clock.now() - began);
        for (peer, follower) in followers.iter_mut().enumerate() {
            if round >= 500 || peer == 0 {
                follower.handle(clock.now(), follower::Input::Tick);
            }
            while let Some(output) = follower.poll(clock.now()) {
                match output {
                    follower::Output::Send(bytes) => {
                        let input = leader::Input::Message { peer: peer as u64, bytes: &bytes };
                        leader.handle(clock.now(), input);
                    }
                    follower::Output::Sync => {
                        let done = Sink::sync(follower.sink()).is_ok();
                        follower.handle(clock.now(), follower::Input::Synced(done));
                    }
                    follower::Output::Told(news) => told[peer].push(news),
                    _ => {}
                }
            }
        }
        clock.goes_on(10);
    }
    assert!(clock.now() > Duration::from_secs(30 + 10), "it was too quick: {:?}", clock.now());
    assert!(longest < Duration::from_secs(4), "the leader was away for {longest:?}");
    assert!(left.is_empty(), "{left:?}");
    for (told, copy) in told.iter().zip(&copies) {
        assert!(!told.iter().any(|told| matches!(told, Told::Lost)), "{told:?}");
        assert_equal(&ours, copy);
    }
    let is_resumed = |told: &Told| matches!(told, Told::Way { way: Way::Resume, .. });
    assert_eq!(told[1].iter().filter(|told| is_resumed(told)).count(), SHARDS as usize);
}
