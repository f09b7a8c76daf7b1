//! The store node as a task.

use crate::group::{Member, quick, until};
use mainstay_sds::{
    MemoryArchive, StoreNode,
    driver::{Bus, Error, Event, Node, Store, StoreClient},
    wire::Profile,
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const LIMIT: Duration = Duration::from_secs(20);

fn kept() -> StoreNode<MemoryArchive> {
    let mut node = StoreNode::new(MemoryArchive::new()).unwrap();
    node.serve("room", Profile::Lip, 1000).unwrap();
    node
}

async fn over_tcp(store: Store) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { store.listen(listener).await });
    address
}

/// Alice has left before bob comes: only the store node remembers.
#[tokio::test]
async fn one_who_comes_late_gets_everything_from_a_store_node_although_its_writer_has_left() {
    let bus = Bus::new();
    let address = over_tcp(Store::spawn(kept(), bus.join())).await;
    let alice = Member::in_room("alice", bus.join(), quick()).await;
    for number in 0..50 {
        alice.say(&number.to_string()).await;
    }
    let mut client = StoreClient::connect(address).await.unwrap();
    let mut last = (0, Vec::new());
    let mut fetched = Vec::new();
    // Page by page, as a node does that was away.
    loop {
        let page = client.after("room", (last.0, &last.1), 20).await.unwrap();
        let Some(message) = page.last() else { break };
        let read = mainstay_sds::wire::Message::decode(Profile::Lip, message).unwrap();
        last = (read.lamport.unwrap(), read.id);
        fetched.extend(page);
    }
    assert_eq!(fetched.len(), 50);
    alice.handle.end().await.unwrap();

    let bob = Member::in_room("bob", bus.join(), quick()).await;
    for message in &fetched {
        bob.handle.receive(message).await.unwrap();
    }
    let all: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    until("bob was told all", LIMIT, || bob.look(|told| told.contents() == all)).await;
}

#[tokio::test]
async fn what_is_missing_is_fetched_over_tcp_when_the_node_says_so() {
    let bus = Bus::new();
    let address = over_tcp(Store::spawn(kept(), bus.join())).await;
    let alice = Member::in_room("alice", bus.join(), quick()).await;
    alice.say("before").await;
    let (bob, mut events) = Node::new(b"bob", bus.join()).unwrap().spawn();
    let mut config = quick();
    (config.fetch, config.repair, config.sync) = (true, false, false);
    bob.join("room", config).await.unwrap();
    alice.say("after").await;

    let mut client = StoreClient::connect(address).await.unwrap();
    let mut delivered = Vec::new();
    while delivered.len() < 2 {
        let event = tokio::time::timeout(LIMIT, events.next()).await.unwrap().unwrap();
        match event {
            Event::Fetch(lacking) => {
                if let Some(message) = client.find(&lacking).await.unwrap() {
                    bob.receive(&message).await.unwrap();
                }
            }
            Event::Delivered(message) => delivered.push(message.content),
            _ => {}
        }
    }
    assert_eq!(delivered, [b"before".to_vec(), b"after".to_vec()]);
}

#[tokio::test]
async fn a_channel_that_is_not_served_is_refused_and_the_connection_stays() {
    let address = over_tcp(Store::spawn(kept(), Bus::new().join())).await;
    let mut client = StoreClient::connect(address).await.unwrap();
    let refused = client.by_id("elsewhere", b"m1").await.unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
    assert_eq!(client.by_id("room", b"m1").await.unwrap(), None);
}

#[tokio::test]
async fn a_question_out_of_form_ends_its_connection_and_no_other() {
    let address = over_tcp(Store::spawn(kept(), Bus::new().join())).await;
    let mut client = StoreClient::connect(address).await.unwrap();
    for noise in [&b"\xff\xff\xff\xff"[..], b"\x03\0\0\0\x09\0\0", b"\x01\0\0\0\x01"] {
        let mut stranger = TcpStream::connect(address).await.unwrap();
        stranger.write_all(noise).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(LIMIT, stranger.read_to_end(&mut rest)).await;
        assert_eq!(ended.unwrap().unwrap_or(0), 0, "{noise:?}");
    }
    assert_eq!(client.by_id("room", b"m1").await.unwrap(), None);
}
