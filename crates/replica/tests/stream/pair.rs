//! A leader and its follower without a network: every message arrives, unless a test says no.

use std::time::Duration;

use bytes::Bytes;
use mainstay_replica::{
    FollowSettings, Follower, LeadSettings, Leader, Sink, Source,
    follower::{self, Told},
    leader,
    wire::Way,
};

pub(crate) const NOW: Duration = Duration::ZERO;

/// A leader and a follower with a channel between them.
pub(crate) struct Pair<S: Source + Sink> {
    pub(crate) leader: Leader<S>,
    pub(crate) follower: Follower<S>,
    pub(crate) told: Vec<Told>,
    pub(crate) leader_told: Vec<leader::Told>,
    /// Bytes to the follower.
    pub(crate) bytes: usize,
    pub(crate) closed: bool,
    pub(crate) now: Duration,
}

impl<S: Source + Sink + Clone> Pair<S> {
    pub(crate) fn new(ours: &S, copy: &S) -> Self {
        Self::with(ours, copy, LeadSettings::default(), FollowSettings::default())
    }

    pub(crate) fn with(ours: &S, copy: &S, lead: LeadSettings, follow: FollowSettings) -> Self {
        let mut pair = Self {
            leader: Leader::new(ours.clone(), lead, NOW),
            follower: Follower::new(copy.clone(), follow, 7, NOW).unwrap(),
            told: Vec::new(),
            leader_told: Vec::new(),
            bytes: 0,
            closed: false,
            now: NOW,
        };
        pair.connect();
        pair
    }

    pub(crate) fn connect(&mut self) {
        self.follower.handle(self.now, follower::Input::Tick);
        self.leader.handle(self.now, leader::Input::Tick);
        self.leader.handle(self.now, leader::Input::Connected { peer: 1 });
        self.follower.handle(self.now, follower::Input::Connected);
        self.closed = false;
    }

    pub(crate) fn follower_says(&mut self) -> Vec<Bytes> {
        let mut sent = Vec::new();
        for _ in 0..100_000 {
            let Some(output) = self.follower.poll(self.now) else {
                if self.follower.deadline(self.now).is_none_or(|due| due > self.now) {
                    return sent;
                }
                continue;
            };
            match output {
                follower::Output::Send(bytes) => sent.push(bytes),
                follower::Output::Sync => {
                    let done = self.follower.sink().sync().is_ok();
                    self.follower.handle(self.now, follower::Input::Synced(done));
                }
                follower::Output::Told(told) => self.told.push(told),
                follower::Output::Disconnect => self.closed = true,
                follower::Output::Connect => {}
            }
        }
        panic!("the follower talks without end");
    }

    pub(crate) fn leader_says(&mut self) -> Vec<Bytes> {
        let mut sent = Vec::new();
        for _ in 0..100_000 {
            match self.leader.poll(self.now) {
                Some(leader::Output::Send { bytes, .. }) => {
                    self.bytes += bytes.len();
                    sent.push(bytes);
                }
                Some(leader::Output::Told(told)) => self.leader_told.push(told),
                Some(leader::Output::Close { .. }) => self.closed = true,
                None if self.leader.deadline(self.now) > self.now => return sent,
                None => {}
            }
        }
        panic!("the leader talks without end");
    }

    /// Until nobody has anything to say.
    pub(crate) fn run(&mut self) {
        for _ in 0..10_000 {
            let up = self.follower_says();
            for bytes in &up {
                self.leader.handle(self.now, leader::Input::Message { peer: 1, bytes });
            }
            let down = self.leader_says();
            for bytes in &down {
                self.follower.handle(self.now, follower::Input::Message(bytes));
            }
            if up.is_empty() && down.is_empty() {
                return;
            }
        }
        panic!("they talk without end");
    }

    /// Time passes.
    pub(crate) fn later(&mut self, time: Duration) {
        self.now += time;
        self.leader.handle(self.now, leader::Input::Tick);
        self.follower.handle(self.now, follower::Input::Tick);
        self.run();
    }

    pub(crate) fn ways(&self) -> Vec<Way> {
        let way = |told: &Told| match told {
            Told::Way { way, .. } => Some(*way),
            _ => None,
        };
        self.told.iter().filter_map(way).collect()
    }
}
