//! Whose epoch counts: that of one who has shown the same store.

use mainstay_replica::{
    FollowSettings, Follower, LeadSettings, Leader, Sink,
    follower::{self, Told},
    leader,
    wire::{Hello, Message, Reason, decode, encode},
};
use mainstay_sim::Disk;
use mainstay_store::{Identity, Role};

use crate::{
    both::{Kind, for_both, put, replica, store},
    pair::{NOW, Pair},
};

for_both! {
    n4_a_follower_of_another_store_ends_no_leader_whatever_epoch_it_knows,
    n4_a_follower_learns_no_epoch_of_the_leader_of_another_store,
    n4_nobody_is_fenced_by_a_message_before_a_hello,
    n4_a_follower_learns_nothing_before_a_welcome,
    n4_one_of_the_same_store_that_does_not_fit_tells_of_its_epoch,
    n4_an_epoch_that_no_leader_can_have_is_refused_and_nobody_knows_of_it,
}

const HIGHER: u64 = 1 << 48;

fn n4_a_follower_of_another_store_ends_no_leader_whatever_epoch_it_knows<S: Kind>() {
    let (disk, ours) = store::<S>(1);
    let (epoch, header) = (ours.epoch(), ours.known_epoch());
    let other = Identity { id: [9; 16], ..ours.who() };
    let copy = S::make_replica(Disk::new(2), &other);
    copy.fenced(epoch + HIGHER);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    assert!(pair.closed);
    let said = |told: &Told| matches!(told, Told::Refused(error) if error.to_string().contains("different stores"));
    assert!(pair.told.iter().any(said), "{:?}", pair.told);
    assert_eq!(pair.leader.replaced_by(), None);
    put(&ours, 0..3, 1);
    assert_eq!(ours.known_epoch(), header);
    // It goes on with followers of its own.
    let (_, copy) = replica(&ours, 3);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    assert_eq!(ours.contents(), copy.contents());
    drop((pair, copy, ours));
    assert_eq!(S::reopen(&disk).role(), Role::Leader);
}

fn n4_a_follower_learns_no_epoch_of_the_leader_of_another_store<S: Kind>() {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..5, 1);
    let (_, copy) = replica(&ours, 2);
    let (_, other) = store::<S>(3);
    let other = other.demoted().promoted(7);
    assert!(other.epoch() > ours.epoch());
    let mut wrong = Pair::new(&other, &copy);
    wrong.run();
    assert!(wrong.closed);
    assert!(copy.known_epoch() < other.epoch());
    // Back where it belongs, it follows and harms nobody.
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    assert_eq!((pair.leader.replaced_by(), ours.contents()), (None, copy.contents()));
}

fn n4_nobody_is_fenced_by_a_message_before_a_hello<S: Kind>() {
    let acks = Message::acks(&[]);
    for message in [
        Message::Alive { tips: &[] },
        Message::Ack { allowance: 1, acks: &acks },
        Message::Sync { shard: 0, at: None, is_empty: true },
        // One that asks what there is has nothing, and knows of nobody.
        Message::Hello(Hello { is_blank: true, ..Hello::default() }),
    ] {
        let (_, ours) = store::<S>(1);
        let mut leader = Leader::new(ours.clone(), LeadSettings::default(), NOW);
        leader.handle(NOW, leader::Input::Connected { peer: 1 });
        let bytes = encode(ours.epoch() + HIGHER, &message);
        leader.handle(NOW, leader::Input::Message { peer: 1, bytes: &bytes });
        assert_eq!(leader.replaced_by(), None, "{message:?}");
        put(&ours, 0..1, 1);
        let mut answers = Vec::new();
        while let Some(output) = leader.poll(NOW) {
            let leader::Output::Send { bytes, .. } = output else { continue };
            answers.push(bytes);
        }
        let is_asked = matches!(message, Message::Hello(_));
        let (_, answer) = decode(&answers[0]).unwrap();
        match answer {
            Message::Welcome(_) => assert!(is_asked),
            Message::Refused(refusal) => {
                assert!(!is_asked && refusal.reason == Reason::Protocol, "{refusal}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(leader.followers().count(), usize::from(is_asked));
    }
}

fn n4_a_follower_learns_nothing_before_a_welcome<S: Kind>() {
    let (_, ours) = store::<S>(1);
    for (message, ends) in [
        (Message::Alive { tips: &[] }, false),
        (Message::Round { shard: 0 }, true),
        (Message::CaughtUp { shard: 0, at: Default::default() }, true),
    ] {
        let (_, copy) = replica(&ours, 2);
        let settings = FollowSettings::default();
        let mut follower = Follower::new(copy.clone(), settings, 7, NOW).unwrap();
        follower.handle(NOW, follower::Input::Tick);
        follower.handle(NOW, follower::Input::Connected);
        let known = copy.known_epoch();
        follower.handle(NOW, follower::Input::Message(&encode(known + HIGHER, &message)));
        assert_eq!(copy.known_epoch(), known, "{message:?}");
        let mut ended = false;
        while let Some(output) = follower.poll(NOW) {
            ended |= matches!(output, follower::Output::Disconnect);
        }
        assert_eq!(ended, ends, "{message:?}");
    }
}

/// Its store is this one, and has been led by another: that nothing can be taken from here is no
/// reason not to believe it.
fn n4_one_of_the_same_store_that_does_not_fit_tells_of_its_epoch<S: Kind>() {
    let (_, ours) = store::<S>(1);
    let copy = S::make_replica(Disk::new(2), &Identity { shards: 4, ..ours.who() });
    let by = ours.epoch() + HIGHER;
    copy.fenced(by);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    assert_eq!(pair.leader.replaced_by(), Some(by));
    assert_eq!(Sink::known_epoch(&ours), by);
}

fn n4_an_epoch_that_no_leader_can_have_is_refused_and_nobody_knows_of_it<S: Kind>() {
    let (_, ours) = store::<S>(1);
    let (_, copy) = replica(&ours, 2);
    let (known, ours_known) = (copy.known_epoch(), ours.known_epoch());
    let hello = Hello { identity: ours.who(), write_bytes_max: 1 << 30, ..Hello::default() };
    let mut leader = Leader::new(ours.clone(), LeadSettings::default(), NOW);
    leader.handle(NOW, leader::Input::Connected { peer: 1 });
    let bytes = encode(u64::MAX, &Message::Hello(hello));
    leader.handle(NOW, leader::Input::Message { peer: 1, bytes: &bytes });
    assert_eq!((leader.replaced_by(), leader.followers().count()), (None, 0));
    put(&ours, 0..1, 1);
    let mut follower = Follower::new(copy.clone(), FollowSettings::default(), 7, NOW).unwrap();
    follower.handle(NOW, follower::Input::Tick);
    follower.handle(NOW, follower::Input::Connected);
    let bytes = encode(u64::MAX, &Message::Welcome(hello));
    follower.handle(NOW, follower::Input::Message(&bytes));
    assert!(!follower.is_joined());
    assert_eq!((copy.known_epoch(), ours.known_epoch()), (known, ours_known));
}
