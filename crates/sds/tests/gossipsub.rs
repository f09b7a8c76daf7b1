//! Real libp2p nodes on the loopback interface.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "driver/group.rs"]
#[allow(dead_code, reason = "the other tests of the driver use the rest")]
mod group;

use group::{Member, Told, quick, until};
use mainstay_sds::driver::{
    Error, Faults, Lossy,
    gossip::{Gossip, GossipOptions},
};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn options(dial: &[String]) -> GossipOptions {
    GossipOptions {
        topic: "room".to_owned(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
        dial: dial.to_vec(),
    }
}

/// Alice and carol know only bob, so what they say to each other goes through him.
#[tokio::test]
async fn three_nodes_in_a_line_end_with_the_same_log_although_each_loses_a_fifth() {
    let bob = Gossip::join(options(&[])).await.unwrap();
    let known = bob.addresses().to_vec();
    let alice = Gossip::join(options(&known)).await.unwrap();
    let carol = Gossip::join(options(&known)).await.unwrap();
    let mut members = Vec::new();
    for (seed, (name, gossip)) in
        [("alice", alice), ("bob", bob), ("carol", carol)].into_iter().enumerate()
    {
        let faults = Faults { loss: 0.2, ..Faults::none(seed as u64) };
        members.push(Member::in_room(name, Lossy::new(gossip, faults), quick()).await);
    }
    for round in 0..4 {
        for (number, member) in members.iter().enumerate() {
            member.say(&format!("{number}: {round}")).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    until("all have all, and know it", LIMIT, || {
        members.iter().all(|member| {
            member.look(|told| told.delivered.len() == 8 && told.acknowledged.len() == 4)
        })
    })
    .await;
    let first = members[0].log().await;
    assert_eq!(first.len(), 12);
    for member in &members {
        assert_eq!(member.log().await, first);
        assert_eq!(member.look(Told::contents), first);
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_and_says_how_to_write_one() {
    let refused = Gossip::join(options(&["127.0.0.1:80".to_owned()])).await.unwrap_err();
    assert!(matches!(refused, Error::Address { .. }));
    assert!(refused.to_string().contains("write it like /ip4/"), "{refused}");
}

#[tokio::test]
async fn a_port_in_use_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let options = GossipOptions { listen: vec![address], ..options(&[]) };
    let refused = tokio::time::timeout(LIMIT, Gossip::join(options)).await.unwrap();
    assert!(matches!(refused, Err(Error::Io { .. })));
}
