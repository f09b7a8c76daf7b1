//! The store node as a task.

use crate::group::{Member, quick, until};
use mainstay_sds::{
    Channel, Config, MemoryArchive, Now, StoreNode,
    driver::{Bus, Error, Event, Node, Store, StoreClient, Transport},
    wire::{HistoryEntry, Message, Profile},
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

/// Answers each question with its key, the first one late.
async fn slow_at_first() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let is_first = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let is_first = std::sync::Arc::clone(&is_first);
            tokio::spawn(async move {
                while let Ok(len) = stream.read_u32_le().await {
                    let mut question = vec![0; len as usize];
                    stream.read_exact(&mut question).await.unwrap();
                    if is_first.swap(false, std::sync::atomic::Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(300)).await;
                    }
                    let id = &question[question.len() - 2..];
                    let len = (id.len() as u32).to_le_bytes();
                    let answer = [&1_u32.to_le_bytes()[..], &len, id].concat();
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn the_answer_to_a_question_that_nobody_waited_for_is_not_the_next_ones() {
    let mut client = StoreClient::connect(slow_at_first().await).await.unwrap();
    let first = tokio::time::timeout(Duration::from_millis(50), client.by_id("room", b"m1")).await;
    assert!(first.is_err(), "it is late");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(client.by_id("room", b"m2").await.unwrap().as_deref(), Some(&b"m2"[..]));
    assert_eq!(client.by_id("room", b"m3").await.unwrap().as_deref(), Some(&b"m3"[..]));
}

#[tokio::test]
async fn a_message_that_a_false_hint_means_is_not_taken_for_the_one_that_is_lacking() {
    let bus = Bus::new();
    let mut node = kept();
    let mut alice = Channel::new("room", b"alice", Config::lip()).unwrap();
    for id in [b"m1", b"m2"] {
        alice.send(Now::zero(), id, b"hello").unwrap();
        node.observe(&alice.copy_of(id).unwrap()).unwrap();
    }
    node.set_hint("room", b"m2", b"here").unwrap();
    let store = Store::spawn(node, bus.join());
    let address = over_tcp(store.clone()).await;
    let (bob, mut events) = Node::new(b"bob", bus.join()).unwrap().spawn();
    let mut config = quick();
    (config.fetch, config.repair, config.sync) = (true, false, false);
    bob.join("room", config).await.unwrap();
    let mut third = Message::decode(Profile::Lip, &alice.copy_of(b"m2").unwrap()).unwrap();
    third.id = b"m3".to_vec();
    let entry = HistoryEntry { id: b"m1".to_vec(), hint: b"here".to_vec(), sender: Vec::new() };
    third.causal = vec![entry];
    bob.receive(&third.encode(Profile::Lip)).await.unwrap();
    let lacking = loop {
        match tokio::time::timeout(LIMIT, events.next()).await.unwrap().unwrap() {
            Event::Fetch(lacking) => break lacking,
            _ => continue,
        }
    };
    let mut client = StoreClient::connect(address).await.unwrap();
    let expected = alice.copy_of(b"m1");
    assert_eq!(store.find(&lacking).await.unwrap(), expected);
    assert_eq!(client.find(&lacking).await.unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn what_a_store_node_cannot_keep_is_counted_and_told() {
    let bus = Bus::new();
    let mut node = StoreNode::new(MemoryArchive::new()).unwrap();
    node.serve("room", Profile::Lip, 2).unwrap();
    let store = Store::spawn(node, bus.join());
    let mut stranger = bus.join();
    let mut alice = Channel::new("room", b"alice", Config::lip()).unwrap();
    for id in [b"m1", b"m2", b"m3"] {
        alice.send(Now::zero(), id, b"hello").unwrap();
        let copy = alice.copy_of(id).unwrap();
        for _ in 0..2 {
            stranger.broadcast(&copy).await.unwrap();
        }
    }
    stranger.broadcast(b"noise").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let statistics = store.statistics().await.unwrap();
    let counts = (statistics.kept, statistics.known, statistics.not_kept, statistics.refused);
    assert_eq!(counts, (2, 2, 2, 1));
    let failure = statistics.failure.unwrap();
    assert!(failure.contains("number of messages kept of the channel"), "{failure}");
}
