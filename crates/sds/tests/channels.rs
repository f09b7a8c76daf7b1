//! Members that talk over Mainstay channels: in memory, and over TCP, TLS and QUIC on the loopback
//! interface.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../../channel/tests/conformance/certificates.rs"]
#[allow(dead_code, reason = "the tests of channels use the rest")]
mod certificates;
#[path = "driver/group.rs"]
#[allow(dead_code, reason = "the other tests of the driver use the rest")]
mod group;

use certificates::Authority;
use group::{Member, Told, quick, until};
use mainstay_channel::{
    Bounds, Channel, ClusterId, Faults as ChannelFaults, Faulty, NodeId, Secret,
    dial::Backoff,
    handshake::{Local, Purpose},
    memory::{self, Group, MemoryChannel},
    net::{QuicEndpoint, Settings, Wire},
};
use mainstay_sds::driver::{
    Door, Faults, Heard, Lossy, Mesh, Node, Transport,
    channels::{ChannelLink, Channels, ChannelsOptions},
};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn options(node: u64, listen: &str, dial: &[String]) -> ChannelsOptions {
    let secret = Secret::new(*b"0123456789abcdef").unwrap();
    let local = Local::new(NodeId(node), ClusterId::default(), Purpose::new("room").unwrap());
    let mut options = ChannelsOptions::new(Wire::Tcp, Settings::new(local.with_secret(secret)));
    options.listen = Some(listen.to_owned());
    options.dial = dial.to_vec();
    options.backoff = Backoff::between(Duration::from_millis(20), Duration::from_millis(200));
    options
}

fn joined(node: u64, dial: &[String]) -> (Channels, String) {
    let channels = Channels::join(options(node, "127.0.0.1:0", dial)).unwrap();
    let address = channels.address().unwrap().to_string();
    (channels, address)
}

/// Each says `each` lines, and in the end all have all of them in one order.
async fn talk_and_agree(members: &[Member], each: usize) {
    for round in 0..each {
        for (number, member) in members.iter().enumerate() {
            member.say(&format!("{number}: {round}")).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    agree(members, each * members.len()).await;
}

async fn agree(members: &[Member], lines: usize) {
    until("all have all", LIMIT, || {
        members.iter().all(|member| member.look(|told| told.log.len() == lines))
    })
    .await;
    let first = members[0].log().await;
    for member in members {
        assert_eq!(member.log().await, first);
        assert_eq!(member.look(Told::contents), first);
    }
}

/// Three members that lose a fifth of what they hear, each over the wire that it is given.
async fn three_members_over(wire: impl Fn(NodeId) -> Wire) {
    let mut addresses = Vec::new();
    let mut members = Vec::new();
    for (number, name) in (1..).zip(["alice", "bob", "carol"]) {
        let mut options = options(number, "127.0.0.1:0", &addresses);
        options.wire = wire(NodeId(number));
        let channels = Channels::join(options).unwrap();
        addresses.push(channels.address().unwrap().to_string());
        let faults = Faults { loss: 0.2, ..Faults::none(number) };
        members.push(Member::in_room(name, Lossy::new(channels, faults), quick()).await);
    }
    talk_and_agree(&members, 10).await;
}

#[tokio::test]
async fn members_over_tcp_that_lose_a_fifth_end_with_the_same_log() {
    three_members_over(|_| Wire::Tcp).await;
}

#[tokio::test]
async fn members_over_tls_that_lose_a_fifth_end_with_the_same_log() {
    let certified = |node| Authority::shared().credentials(ClusterId::default(), node);
    three_members_over(|node| Wire::Tls(certified(node))).await;
}

#[tokio::test]
async fn members_over_quic_that_lose_a_fifth_end_with_the_same_log() {
    let certified = |node| Authority::shared().credentials(ClusterId::default(), node);
    three_members_over(|node| Wire::Quic(QuicEndpoint::new(certified(node)).unwrap())).await;
}

#[tokio::test]
async fn a_member_that_went_away_is_dialled_again_and_told_what_was_said_meanwhile() {
    let (channels, address) = joined(1, &[]);
    let (alice, _, gone) = {
        let node = Node::new(b"alice", channels).unwrap();
        node.spawn_with_task()
    };
    alice.join("room", quick()).await.unwrap();
    let (channels, _) = joined(2, std::slice::from_ref(&address));
    let bob = Member::in_room("bob", channels, quick()).await;
    alice.send("room", b"before").await.unwrap();
    until("it arrived", LIMIT, || bob.look(|told| told.delivered.len() == 1)).await;

    alice.end().await.unwrap();
    gone.await.unwrap();
    bob.say("meanwhile").await;
    // The port may be in use for a moment, by what the end left behind.
    let mut channels = Channels::join(options(1, &address, &[]));
    for _ in 0..100 {
        if channels.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        channels = Channels::join(options(1, &address, &[]));
    }
    let alice = Member::in_room("alice", channels.unwrap(), quick()).await;
    until("she has all of it", LIMIT, || {
        alice.look(|told| told.log.values().any(|text| text == "meanwhile"))
    })
    .await;
    alice.say("after").await;
    agree(&[alice, bob], 3).await;
}

/// Both dial and both listen, so there are two channels; and a member that dials itself notices.
#[tokio::test]
async fn members_that_dial_each_other_and_themselves_say_everything_once() {
    let ports: Vec<std::net::TcpListener> =
        (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let all: Vec<String> =
        ports.iter().map(|port| port.local_addr().unwrap().to_string()).collect();
    drop(ports);
    let mut alice = Channels::join(options(1, &all[0], &all)).unwrap();
    let mut bob = Channels::join(options(2, &all[1], &all)).unwrap();
    let mut message = Vec::new();
    let meet = async {
        while alice.links() < 2 || bob.links() < 2 {
            let pause = Duration::from_millis(10);
            let _nothing = tokio::time::timeout(pause, alice.receive(&mut message)).await;
            let _nothing = tokio::time::timeout(pause, bob.receive(&mut message)).await;
        }
    };
    tokio::time::timeout(LIMIT, meet).await.unwrap();
    for number in 0..100_u8 {
        alice.broadcast(&[number]).await.unwrap();
    }
    for number in 0..100_u8 {
        while tokio::time::timeout(LIMIT, bob.receive(&mut message)).await.unwrap().unwrap()
            == Heard::Newcomer
        {}
        assert_eq!(message, [number]);
    }
    let more = tokio::time::timeout(Duration::from_millis(100), bob.receive(&mut message)).await;
    assert!(more.is_err(), "{message:?} came twice");
}

#[tokio::test]
async fn a_stranger_without_the_secret_is_not_let_in() {
    let (mut alice, address) = joined(1, &[]);
    let mut options = options(2, "127.0.0.1:0", &[address]);
    options.settings.local.secret = Some(Secret::new(*b"another secret !").unwrap());
    let mut eve = Channels::join(options).unwrap();
    let mut message = Vec::new();
    for _ in 0..20 {
        let pause = Duration::from_millis(10);
        assert!(tokio::time::timeout(pause, alice.receive(&mut message)).await.is_err());
        eve.broadcast(b"let me in").await.unwrap();
    }
    assert_eq!((alice.links(), eve.links()), (0, 0));
}

#[tokio::test]
async fn a_place_that_is_taken_is_told() {
    let (_alice, address) = joined(1, &[]);
    let refused = Channels::join(options(2, &address, &[])).unwrap_err();
    assert!(refused.to_string().starts_with(&address), "{refused}");
}

/// Both ends of the channel between two nodes in memory, as links. A mesh sends to each node once,
/// so the ends say whose they are.
fn pair(group: &Group, a: usize, b: usize) -> [ChannelLink<MemoryChannel>; 2] {
    [group.channel(a, b), group.channel(b, a)].map(ChannelLink::new)
}

#[tokio::test(start_paused = true)]
async fn a_member_that_does_not_read_holds_nobody_up() {
    let roomy = memory::group(3);
    let narrow = memory::group_with(3, Bounds { messages: 1, ..Bounds::default() }).unwrap();
    let ([ab, ba], [ac, _deaf]) = (pair(&roomy, 0, 1), pair(&narrow, 0, 2));
    let [bc, _too] = pair(&narrow, 1, 2);
    let alice = Member::in_room("alice", Mesh::new([ac, ab]), quick()).await;
    let bob = Member::in_room("bob", Mesh::new([bc, ba]), quick()).await;
    talk_and_agree(&[alice, bob], 50).await;
}

#[tokio::test]
async fn a_peer_that_takes_only_short_messages_loses_the_long_ones_and_stays() {
    let bounds = Bounds { message_len: 100, ..Bounds::default() };
    let (a, b) = memory::pair_with(bounds).unwrap();
    let mut mesh = Mesh::new([ChannelLink::new(a)]);
    mesh.broadcast(&[1; 101]).await.unwrap();
    mesh.broadcast(&[2; 100]).await.unwrap();
    assert_eq!(b.receive(Duration::ZERO).unwrap().unwrap()[..], [2; 100]);
    assert_eq!(mesh.links(), 1);
}

type Rough = ChannelLink<Faulty<MemoryChannel>>;

/// Between the members `a` and `b`: channels that are late and break, each followed by another one.
async fn rough_weather(a: usize, b: usize, at_a: Door<Rough>, at_b: Door<Rough>) {
    let seed = (3 * a + b) as u64;
    for life in 0.. {
        // Each channel is the first and only one of a group.
        let group = memory::group(3);
        let (a, b) = (group.channel(a, b), group.channel(b, a));
        let faults = ChannelFaults {
            jitter: Duration::from_millis(3),
            breaks_after: Some(25),
            ..ChannelFaults::seeded(seed * 1000 + life)
        };
        let inside = a.clone();
        let is_over = at_a.admit(ChannelLink::new(Faulty::new(a, faults))).await.is_err()
            || at_b
                .admit(ChannelLink::new(Faulty::new(b, ChannelFaults::seeded(seed))))
                .await
                .is_err();
        if is_over {
            return;
        }
        while inside.is_open() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn channels_that_are_late_and_break_again_and_again_lose_nothing() {
    let doors: Vec<(Mesh<Rough>, Door<Rough>)> = (0..3).map(|_| Mesh::with_door()).collect();
    let mut weather = tokio::task::JoinSet::new();
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        weather.spawn(rough_weather(a, b, doors[a].1.clone(), doors[b].1.clone()));
    }
    let mut members = Vec::new();
    for (name, (mesh, _)) in ["alice", "bob", "carol"].into_iter().zip(doors) {
        members.push(Member::in_room(name, mesh, quick()).await);
    }
    talk_and_agree(&members, 40).await;
    weather.shutdown().await;
}
