//! What a node promises: see the head of `driver`.

use crate::group::{Member, quick, until};
use mainstay_sds::{
    Config, Error as SdsError, Keep, NimSnapshot, Reason,
    driver::{Bus, Error, Event, Heard, Node, Result, Transport},
    persist::{Change, Memory, Persistence},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn v1_a_node_whose_events_nobody_takes_stops_receiving_and_loses_none() {
    let bus = Bus::new();
    let alice = Member::in_room("alice", bus.join(), quick()).await;
    let (bob, mut events) = Node::new(b"bob", bus.join()).unwrap().spawn();
    bob.join("room", quick()).await.unwrap();
    for number in 0..1500 {
        alice.say(&number.to_string()).await;
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    // More than may wait: the node stands still, and still answers.
    assert!(bob.counts("room").await.unwrap().logged < 1500);
    let mut contents = Vec::new();
    while contents.len() < 1500 {
        let next = tokio::time::timeout(LIMIT, events.next()).await.expect("the rest comes");
        if let Some(Event::Delivered(delivered)) = next {
            contents.push(String::from_utf8(delivered.content).unwrap());
        }
    }
    contents.sort_by_key(|content| content.parse::<u32>().unwrap());
    assert!(contents.into_iter().eq((0..1500).map(|number| number.to_string())));
}

/// Memory that outlives its node, and can be made to fail.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<(Memory, bool)>>);

impl Persistence for Shelf {
    fn save(&mut self, channel: &str, change: &Change<'_>) -> mainstay_sds::Result<()> {
        let (memory, fails) = &mut *self.0.lock().unwrap();
        if *fails {
            return Err(SdsError::Persistence { what: "the shelf is full".to_owned() });
        }
        memory.save(channel, change)
    }

    fn load(&mut self, channel: &str) -> mainstay_sds::Result<Vec<Vec<u8>>> {
        self.0.lock().unwrap().0.load(channel)
    }

    fn forget(&mut self, channel: &str) -> mainstay_sds::Result<()> {
        self.0.lock().unwrap().0.forget(channel)
    }

    fn channels(&mut self) -> mainstay_sds::Result<Vec<String>> {
        self.0.lock().unwrap().0.channels()
    }
}

fn durable() -> Config {
    let mut config = quick();
    config.keep = Keep::Durable;
    config
}

#[tokio::test(start_paused = true)]
async fn v2_a_node_that_ends_and_comes_back_goes_on_where_it_was() {
    let bus = Bus::new();
    let alice = Member::in_room("alice", bus.join(), quick()).await;
    let shelf = Shelf::default();
    let node = || Node::new(b"bob", bus.join()).unwrap().keep(shelf.clone());
    let bob = Member::of(node().spawn());
    bob.handle.join("room", durable()).await.unwrap();
    alice.say("before").await;
    until("bob has it", LIMIT, || bob.look(|told| told.contents() == ["before"])).await;
    bob.handle.end().await.unwrap();

    alice.say("while he was away").await;
    let bob = Member::of(node().spawn());
    bob.handle.join("room", durable()).await.unwrap();
    until("bob has the rest", LIMIT, || bob.look(|told| told.contents() == ["while he was away"]))
        .await;
    assert_eq!(bob.log().await, ["before", "while he was away"]);
}

#[tokio::test(start_paused = true)]
async fn v2_what_cannot_be_kept_is_not_sent_before_it_can() {
    let bus = Bus::new();
    let bob = Member::in_room("bob", bus.join(), quick()).await;
    let shelf = Shelf::default();
    shelf.0.lock().unwrap().1 = true;
    let alice = Member::of(Node::new(b"alice", bus.join()).unwrap().keep(shelf.clone()).spawn());
    alice.handle.join("room", durable()).await.unwrap();
    alice.say("kept first").await;
    until("the failure is told", LIMIT, || alice.look(|told| told.not_kept > 0)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(bob.look(|told| told.log.is_empty()));
    shelf.0.lock().unwrap().1 = false;
    until("it is tried again", LIMIT, || bob.look(|told| told.contents() == ["kept first"])).await;
}

#[tokio::test(start_paused = true)]
async fn v3_noise_and_messages_for_others_are_refused_and_the_node_goes_on() {
    let bus = Bus::new();
    let mut stranger = bus.join();
    let bob = Member::in_room("bob", bus.join(), quick()).await;
    for noise in [&b""[..], b"noise", &[0xff; 100], &[0x12, 1, b'm', 0x1a, 1, b'x']] {
        stranger.broadcast(noise).await.unwrap();
    }
    until("all were told", LIMIT, || bob.look(|told| told.refused == 4)).await;
    let statistics = bob.handle.statistics().await.unwrap();
    assert_eq!((statistics.received, statistics.refused), (4, 4));
    assert!(bob.handle.run(|participant, _| participant.names().eq(["room"])).await.unwrap());
}

/// Fails to receive a few times, then is what it wraps; and never sends.
struct Shaky<T> {
    inner: T,
    failures: u32,
}

impl<T: Transport> Transport for Shaky<T> {
    fn message_len_max(&self) -> usize {
        self.inner.message_len_max()
    }

    async fn broadcast(&mut self, message: &[u8]) -> Result<()> {
        Err(Error::TooLong { len: message.len(), max: 0 })
    }

    async fn receive(&mut self, message: &mut Vec<u8>) -> Result<Heard> {
        if self.failures > 0 {
            self.failures -= 1;
            return Err(Error::TooLong { len: 0, max: 0 });
        }
        self.inner.receive(message).await
    }
}

#[tokio::test(start_paused = true)]
async fn v3_a_transport_that_fails_is_told_and_tried_again() {
    let bus = Bus::new();
    let alice = Member::in_room("alice", bus.join(), quick()).await;
    let bob = Shaky { inner: bus.join(), failures: 5 };
    let bob = Member::in_room("bob", bob, quick()).await;
    alice.say("hello").await;
    until("bob hears again", LIMIT, || bob.look(|told| told.contents() == ["hello"])).await;
    bob.say("hello to you").await;
    until("it is told", LIMIT, || bob.look(|told| told.not_sent > 0)).await;
}

#[tokio::test(start_paused = true)]
async fn v4_a_node_without_news_does_not_wake_up() {
    let bus = Bus::new();
    let alice = Member::in_room("alice", bus.join(), quick()).await;
    let bob = Member::in_room("bob", bus.join(), quick()).await;
    alice.say("hello").await;
    until("all is settled", LIMIT, || {
        bob.look(|told| told.log.len() == 1) && alice.look(|told| told.acknowledged.len() == 1)
    })
    .await;
    // An hour for the sync messages to end.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    for member in [&alice, &bob] {
        let planned = member.handle.run(|participant, _| participant.poll_timeout()).await.unwrap();
        assert_eq!(planned, None);
    }
    assert!(bob.look(|told| told.sent.iter().all(|&reason| reason == Reason::Sync)));
}

#[tokio::test(start_paused = true)]
async fn a_node_ends_when_nobody_has_a_handle_or_takes_events() {
    let bus = Bus::new();
    let (handle, events, task) = Node::new(b"alice", bus.join()).unwrap().spawn_with_task();
    drop(handle);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!task.is_finished(), "somebody takes events");
    drop(events);
    tokio::time::timeout(LIMIT, task).await.unwrap().unwrap();
}

/// Carries no more than so many bytes at once.
struct Narrow<T> {
    inner: T,
    max: usize,
}

impl<T: Transport> Transport for Narrow<T> {
    fn message_len_max(&self) -> usize {
        self.max
    }

    async fn broadcast(&mut self, message: &[u8]) -> Result<()> {
        if message.len() > self.max {
            return Err(Error::TooLong { len: message.len(), max: self.max });
        }
        self.inner.broadcast(message).await
    }

    async fn receive(&mut self, message: &mut Vec<u8>) -> Result<Heard> {
        self.inner.receive(message).await
    }
}

/// Messages whose hints alone are longer than what is carried at once.
#[tokio::test(start_paused = true)]
async fn whatever_is_sent_fits_into_what_the_transport_carries() {
    for max in [2500, 6000, 20_000] {
        let bus = Bus::new();
        let mut config = quick();
        (config.only_own_peers, config.filter_capacity) = (true, 500);
        let narrow = || Narrow { inner: bus.join(), max };
        let alice = Member::in_room("alice", narrow(), config.clone()).await;
        let bob = Member::in_room("bob", narrow(), config.clone()).await;
        for number in 0..60 {
            let id = alice.say(&number.to_string()).await;
            let hinted = alice.handle.with("room", move |channel, _| {
                channel.set_retrieval_hint(&id, &[b'h'; mainstay_sds::limits::HINT_LEN_MAX])
            });
            assert!(hinted.await.unwrap().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let all: Vec<String> = (0..60).map(|number| number.to_string()).collect();
        until("bob has all", LIMIT, || bob.look(|told| told.contents() == all)).await;
        until("alice knows", LIMIT, || alice.look(|told| told.acknowledged.len() == 60)).await;
        // One who comes later is told by sync messages alone.
        let carol = Member::in_room("carol", narrow(), config).await;
        alice.handle.with("room", |channel, now| channel.announce(now)).await.unwrap();
        until("carol has all", LIMIT, || carol.look(|told| told.contents() == all)).await;
        assert!(alice.look(|told| told.sent.contains(&Reason::Sync)));
        for member in [&alice, &bob, &carol] {
            assert_eq!(member.look(|told| told.not_sent), 0, "{max}");
        }
        let refused = alice.handle.send("room", &vec![b'x'; max]).await;
        assert!(matches!(refused, Err(Error::TooLong { .. })), "{refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_ancestor_kept_is_taken_over_kept_and_not_taken_over_twice() {
    let shelf = Shelf::default();
    let snapshot = || NimSnapshot::parse(&[0x0a, 0x04, 0x08, 0x01, 0x10, 0x2a]).unwrap();
    let mut config = Config::nim();
    config.keep = Keep::Durable;
    let node = || Node::new(b"bob", Bus::new().join()).unwrap().keep(shelf.clone()).spawn();
    let (bob, _events) = node();
    bob.import_nim("room", config.clone(), snapshot()).await.unwrap();
    assert!(bob.import_nim("room", config.clone(), snapshot()).await.is_err());
    assert_eq!(bob.counts("room").await.unwrap().lamport, 42);
    bob.end().await.unwrap();
    let (bob, _events) = node();
    let refused = bob.import_nim("room", config.clone(), snapshot()).await;
    assert!(matches!(refused, Err(Error::Sds(SdsError::ChannelExists { .. }))), "{refused:?}");
    bob.join("room", config).await.unwrap();
    assert_eq!(bob.counts("room").await.unwrap().lamport, 42);
}

/// Takes half a second for each change.
struct Slow(Shelf);

impl Persistence for Slow {
    fn save(&mut self, channel: &str, change: &Change<'_>) -> mainstay_sds::Result<()> {
        std::thread::sleep(Duration::from_millis(500));
        self.0.save(channel, change)
    }

    fn load(&mut self, channel: &str) -> mainstay_sds::Result<Vec<Vec<u8>>> {
        self.0.load(channel)
    }

    fn forget(&mut self, channel: &str) -> mainstay_sds::Result<()> {
        self.0.forget(channel)
    }

    fn channels(&mut self) -> mainstay_sds::Result<Vec<String>> {
        self.0.channels()
    }
}

#[tokio::test]
async fn a_place_that_takes_its_time_keeps_only_its_node_waiting() {
    let bus = Bus::new();
    let bob = Member::in_room("bob", bus.join(), quick()).await;
    let place = Slow(Shelf::default());
    let node = Node::new(b"alice", bus.join()).unwrap().keep_aside(place).tell_sent();
    let alice = Member::of(node.spawn());
    alice.handle.join("room", durable()).await.unwrap();
    // Somebody else on the runtime's one thread.
    let ticks = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&ticks);
    let ticking = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            *counter.lock().unwrap() += 1;
        }
    });
    alice.say("kept first").await;
    until("bob has it", LIMIT, || bob.look(|told| told.contents() == ["kept first"])).await;
    ticking.abort();
    let ticks = *ticks.lock().unwrap();
    assert!(ticks >= 20, "{ticks} times in half a second");
}
