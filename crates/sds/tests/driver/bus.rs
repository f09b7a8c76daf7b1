//! Groups on the in-process bus.

use crate::group::{Member, Told, quick, until};
use mainstay_sds::driver::{Bus, Faults};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(600);

/// Three members, each of which says so many things over a bad network. Returns the seed's logs.
async fn talk(seed: u64, each: usize, faults: Faults) {
    let bus = Bus::new();
    let mut members = Vec::new();
    for (number, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
        let seed = seed * 100 + number as u64;
        let mut config = quick();
        config.seed = seed + 1;
        members
            .push(Member::in_room(name, bus.join_lossy(Faults { seed, ..faults }), config).await);
    }
    for round in 0..each {
        for (member, name) in members.iter().zip(["a", "b", "c"]) {
            member.say(&format!("{name}{round}")).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    let expected = 3 * each;
    until(&format!("all have all, seed {seed}"), LIMIT, || {
        members.iter().all(|member| {
            member.look(|told| {
                told.delivered.len() == expected - each && told.acknowledged.len() == each
            })
        })
    })
    .await;
    let first = members[0].log().await;
    assert_eq!(first.len(), expected, "seed {seed}");
    for member in &members {
        assert_eq!(member.log().await, first, "seed {seed}");
        assert_eq!(member.look(Told::contents), first, "seed {seed}");
        let mut ids: Vec<_> = member
            .look(|told| told.delivered.iter().map(|delivered| delivered.id.clone()).collect());
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), expected - each, "each was delivered once, seed {seed}");
        assert!(member.look(|told| told.failed.is_empty()), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn members_of_a_perfect_bus_have_the_same_log() {
    talk(1, 10, Faults::none(0)).await;
}

#[tokio::test(start_paused = true)]
async fn members_of_a_bus_that_loses_doubles_and_delays_end_with_the_same_log() {
    let faults = Faults {
        loss: 0.3,
        duplicate: 0.1,
        delay_max: Duration::from_millis(300),
        ..Faults::none(0)
    };
    for seed in 1..=8 {
        talk(seed, 10, faults).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_only_listens_gets_the_last_message_although_nobody_cites_it() {
    let bus = Bus::new();
    let alice = Member::in_room("alice", bus.join(), quick()).await;
    // The first thing that comes is lost: seed found by trying.
    let seed = (0..100).find(|&seed| loses_first(seed)).expect("one of a hundred does");
    let faults = Faults { seed, loss: 0.5, ..Faults::none(0) };
    let bob = Member::in_room("bob", bus.join_lossy(faults), quick()).await;
    alice.say("the only message").await;
    until("bob has it", LIMIT, || bob.look(|told| told.contents() == ["the only message"])).await;
    until("alice knows", LIMIT, || alice.look(|told| told.acknowledged.len() == 1)).await;
}

/// Resending must not silence the one who would acknowledge.
#[tokio::test(start_paused = true)]
async fn one_who_only_listens_acknowledges_although_the_sender_sends_again_and_again() {
    let bus = Bus::new();
    let mut config = quick();
    (config.resend_ms, config.sync_interval_ms) = (100, 2000);
    config.resend_attempts = 200;
    let alice = Member::in_room("alice", bus.join(), config.clone()).await;
    let _bob = Member::in_room("bob", bus.join(), config).await;
    alice.say("do you hear me?").await;
    let soon = Duration::from_secs(10);
    until("alice knows", soon, || alice.look(|told| told.acknowledged.len() == 1)).await;
}

fn loses_first(seed: u64) -> bool {
    (mainstay_base::Rng::seeded(seed).next_u64() >> 63) == 0
}

#[tokio::test(start_paused = true)]
async fn what_nobody_ever_hears_ends_as_failed_and_not_as_acknowledged() {
    let bus = Bus::new();
    let alice = Member::in_room("alice", bus.join(), quick()).await;
    let id = alice.say("is anybody there?").await;
    until("it is given up", LIMIT, || alice.look(|told| told.failed.contains(&id))).await;
    assert!(alice.look(|told| told.acknowledged.is_empty()));
}
