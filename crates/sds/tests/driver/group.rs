//! Nodes that count what they are told.

use mainstay_sds::{
    Config,
    driver::{Delivered, Event, Events, Handle, Node, Placed, Transport},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

/// What one participant was told so far.
#[derive(Default)]
pub(crate) struct Told {
    /// What was delivered and said, in the order that all share.
    pub(crate) log: BTreeMap<(u64, Vec<u8>), String>,
    pub(crate) delivered: Vec<Delivered>,
    pub(crate) acknowledged: BTreeSet<Vec<u8>>,
    pub(crate) failed: BTreeSet<Vec<u8>>,
    pub(crate) refused: usize,
    pub(crate) sent: Vec<mainstay_sds::Reason>,
    pub(crate) not_sent: usize,
    pub(crate) not_kept: usize,
    pub(crate) newcomers: usize,
}

impl Told {
    fn take(&mut self, event: Event) {
        match event {
            Event::Delivered(delivered) => {
                let content = String::from_utf8(delivered.content.clone()).unwrap();
                if let Some(lamport) = delivered.lamport {
                    let key = (lamport, delivered.id.clone());
                    if let Placed::Before { id, .. } = &delivered.place {
                        let next = self.log.keys().find(|(_, other)| other == id);
                        assert!(next.is_none_or(|next| *next > key), "the place is right");
                    }
                    assert!(self.log.insert(key, content).is_none(), "delivered once");
                }
                self.delivered.push(delivered);
            }
            Event::Acknowledged { id, .. } => {
                self.acknowledged.insert(id);
            }
            Event::Failed { id, .. } => {
                self.failed.insert(id);
            }
            Event::Refused { .. } => self.refused += 1,
            Event::Sent { reason, .. } => self.sent.push(reason),
            Event::NotSent { .. } => self.not_sent += 1,
            Event::NotKept { .. } => self.not_kept += 1,
            Event::Newcomer => self.newcomers += 1,
            _ => {}
        }
    }

    pub(crate) fn contents(&self) -> Vec<String> {
        self.log.values().cloned().collect()
    }
}

/// A running node, and a task that takes its events.
pub(crate) struct Member {
    pub(crate) handle: Handle,
    pub(crate) told: Arc<Mutex<Told>>,
}

impl Member {
    pub(crate) fn of((handle, mut events): (Handle, Events)) -> Self {
        let told = Arc::<Mutex<Told>>::default();
        let teller = Arc::clone(&told);
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                teller.lock().unwrap().take(event);
            }
        });
        Self { handle, told }
    }

    /// One that has joined `room`.
    pub(crate) async fn in_room(
        name: &str,
        transport: impl Transport + 'static,
        c: Config,
    ) -> Self {
        let member = Self::of(Node::new(name.as_bytes(), transport).unwrap().tell_sent().spawn());
        member.handle.join("room", c).await.unwrap();
        member
    }

    pub(crate) async fn say(&self, text: &str) -> Vec<u8> {
        let posted = self.handle.send("room", text.as_bytes()).await.unwrap();
        let id = posted.id.as_bytes().to_vec();
        self.told.lock().unwrap().log.insert((posted.lamport, id.clone()), text.to_owned());
        id
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        look(&self.told.lock().unwrap())
    }

    /// The room's log, as the core has it.
    pub(crate) async fn log(&self) -> Vec<String> {
        let log = self.handle.with("room", |channel, _| {
            channel.log().map(|entry| String::from_utf8(entry.content.to_vec()).unwrap()).collect()
        });
        log.await.unwrap()
    }
}

/// Looks every now and then until it is so; panics after `limit`.
pub(crate) async fn until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(limit, wait).await;
    assert!(waited.is_ok(), "still not so after {limit:?}: {what}");
}

/// A configuration that repairs within seconds.
pub(crate) fn quick() -> Config {
    let mut config = Config::lip();
    config.participants = 3;
    (config.t_min_ms, config.t_max_ms) = (200, 800);
    (config.resend_ms, config.resend_possibly_ms) = (500, 2000);
    config.resend_attempts = 20;
    config.sync_interval_ms = 400;
    config
}
