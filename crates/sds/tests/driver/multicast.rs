//! Real sockets, on the loopback interface.

use crate::group::{Member, quick, until};
use mainstay_sds::driver::{Error, Faults, Lossy, Multicast, MulticastOptions, Transport};
use std::{net::SocketAddrV4, time::Duration};

const LIMIT: Duration = Duration::from_secs(20);

/// A group of this test's own: tests of a machine run beside each other.
fn options(last: u8) -> MulticastOptions {
    let pid = std::process::id();
    let port = 20_000 + (pid % 20_000) as u16;
    let group = [239, 77, (pid >> 16) as u8, last];
    MulticastOptions::on_this_host(SocketAddrV4::new(group.into(), port))
}

#[tokio::test]
async fn a_datagram_of_the_greatest_length_arrives_and_one_byte_more_is_refused() {
    let mut alice = Multicast::join(options(1)).unwrap();
    let mut bob = Multicast::join(options(1)).unwrap();
    let longest = vec![7; alice.message_len_max()];
    alice.broadcast(&longest).await.unwrap();
    let mut message = Vec::new();
    tokio::time::timeout(LIMIT, bob.receive(&mut message)).await.unwrap().unwrap();
    assert!(message == longest);
    let refused = alice.broadcast(&vec![7; longest.len() + 1]).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "a message of 65508 bytes over a transport that carries 65507: send less content at once, \
         or make the channel's filter smaller"
    );
}

#[tokio::test]
async fn an_address_that_is_no_group_is_refused() {
    let mut options = options(2);
    options.group.set_ip([10, 0, 0, 1].into());
    assert!(matches!(Multicast::join(options), Err(Error::NotAGroup { .. })));
}

#[tokio::test]
async fn members_over_multicast_with_loss_end_with_the_same_log() {
    let mut members = Vec::new();
    for (seed, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
        let faults = Faults { loss: 0.3, ..Faults::none(seed as u64) };
        let transport = Lossy::new(Multicast::join(options(3)).unwrap(), faults);
        members.push(Member::in_room(name, transport, quick()).await);
    }
    for round in 0..5 {
        for (number, member) in members.iter().enumerate() {
            member.say(&format!("{number}: {round}")).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    until("all have all", LIMIT, || {
        members.iter().all(|member| member.look(|told| told.delivered.len() == 10))
    })
    .await;
    let first = members[0].log().await;
    for member in &members {
        assert_eq!(member.log().await, first);
    }
}

#[tokio::test]
async fn content_too_long_for_a_datagram_is_refused_when_it_is_sent() {
    let alice = Member::in_room("alice", Multicast::join(options(4)).unwrap(), quick()).await;
    alice.handle.send("room", &vec![1; 30_000]).await.unwrap();
    let refused = alice.handle.send("room", &vec![1; 64_000]).await;
    assert!(matches!(refused, Err(Error::TooLong { .. })));
    assert_eq!(alice.handle.counts("room").await.unwrap().outgoing, 1, "nothing was sent of it");
}
