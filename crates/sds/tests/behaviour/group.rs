//! Some channels, one clock, and a network in between that does what a test says.

use std::collections::BTreeMap;

use mainstay_sds::{
    Channel, Config, Now, Output, Place, Reason, Received,
    wire::{HistoryEntry, Message, Profile},
};

/// 2025-10-09: a wall clock like any other.
pub(crate) const START: Now = Now { mono_ms: 1_000_000, wall_ms: 1_760_000_000_000 };

/// What a channel said, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Broadcast { id: String, reason: Reason, bytes: Vec<u8> },
    Delivered { id: String, later: usize, number: u64, again: bool, content: Vec<u8> },
    Ephemeral(String),
    Acknowledged(String),
    Possibly(String),
    Failed(String),
    Missing { id: String, hint: String, sender: String, before_joining: bool },
    Fetch(String),
    Lost(String),
    Evicted(String),
    Persist { number: u64, base: bool, bytes: Vec<u8> },
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl From<Output<'_>> for Said {
    fn from(output: Output<'_>) -> Self {
        match output {
            Output::Broadcast(it) => {
                Self::Broadcast { id: text(it.id), reason: it.reason, bytes: it.bytes.to_vec() }
            }
            Output::Deliver(it) => {
                let later = match it.place {
                    Place::None => return Self::Ephemeral(text(it.id)),
                    Place::Last => 0,
                    Place::Before { later, .. } => later,
                };
                let (number, again, content) = (it.number, it.again, it.content.to_vec());
                Self::Delivered { id: text(it.id), later, number, again, content }
            }
            Output::Acknowledged { id } => Self::Acknowledged(text(id)),
            Output::PossiblyAcknowledged { id } => Self::Possibly(text(id)),
            Output::Failed { id } => Self::Failed(text(id)),
            Output::Missing(it) => Self::Missing {
                id: text(it.id),
                hint: text(it.hint),
                sender: text(it.sender),
                before_joining: it.before_joining,
            },
            Output::Fetch(it) => Self::Fetch(text(it.id)),
            Output::Lost { id } => Self::Lost(text(id)),
            Output::Evicted { id, .. } => Self::Evicted(text(id)),
            Output::Persist(it) => {
                Self::Persist { number: it.number, base: it.base, bytes: it.bytes.to_vec() }
            }
            other => panic!("an output no test knows: {other:?}"),
        }
    }
}

/// All outputs of a channel.
pub(crate) fn drain(channel: &mut Channel) -> Vec<Said> {
    let mut said = Vec::new();
    while let Some(output) = channel.poll_output() {
        said.push(Said::from(output));
    }
    said
}

/// The bytes among what was said.
pub(crate) fn broadcasts(said: &[Said]) -> Vec<Vec<u8>> {
    let bytes = |said: &Said| match said {
        Said::Broadcast { bytes, .. } => Some(bytes.clone()),
        _ => None,
    };
    said.iter().filter_map(bytes).collect()
}

/// The ids delivered, in order.
pub(crate) fn delivered(said: &[Said]) -> Vec<&str> {
    said.iter()
        .filter_map(|said| match said {
            Said::Delivered { id, .. } => Some(id.as_str()),
            _ => None,
        })
        .collect()
}

/// A channel of `room` with a seed of its own.
pub(crate) fn channel(own: &str, mut config: Config) -> Channel {
    config.seed = own.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte));
    Channel::new("room", own.as_bytes(), config).unwrap()
}

/// Sends and returns the bytes.
pub(crate) fn send(channel: &mut Channel, now: Now, id: &str) -> Vec<u8> {
    channel.send(now, id.as_bytes(), format!("content of {id}").as_bytes()).unwrap();
    let said = drain(channel);
    let mut all = broadcasts(&said);
    assert_eq!(all.len(), 1, "{said:?}");
    all.remove(0)
}

/// A message made by hand, as a peer would send it.
pub(crate) fn message(sender: &str, id: &str, lamport: u64, causal: &[&str]) -> Message {
    Message {
        id: id.into(),
        sender: sender.into(),
        channel: b"room".to_vec(),
        lamport: Some(lamport),
        causal: causal.iter().map(|id| HistoryEntry::of(id.as_bytes())).collect(),
        content: Some(format!("content of {id}").into_bytes()),
        ..Message::default()
    }
}

/// A Lamport time of the wall clock's neighbourhood.
pub(crate) const L: u64 = START.wall_ms;

pub(crate) fn receive(channel: &mut Channel, now: Now, message: &Message) -> Received {
    channel.receive(now, &message.encode(Profile::Lip)).unwrap()
}

pub(crate) fn log(channel: &Channel) -> Vec<String> {
    channel.log().map(|entry| text(entry.id)).collect()
}

/// A group on one broadcast medium without delay.
pub(crate) struct Group {
    pub(crate) now: Now,
    pub(crate) channels: Vec<Channel>,
    /// All that each has said, apart from bytes.
    pub(crate) said: Vec<Vec<Said>>,
    /// How often each reason was given for sending something.
    pub(crate) sent: BTreeMap<String, usize>,
}

impl Group {
    pub(crate) fn new(size: usize, config: &Config) -> Self {
        let channels = (0..size).map(|number| channel(&format!("p{number}"), config.clone()));
        Self {
            now: START,
            channels: channels.collect(),
            said: vec![Vec::new(); size],
            sent: BTreeMap::new(),
        }
    }

    pub(crate) fn send(&mut self, who: usize, id: &str, reaches: impl Fn(usize) -> bool) {
        let content = format!("content of {id}");
        self.channels[who].send(self.now, id.as_bytes(), content.as_bytes()).unwrap();
        self.settle(&mut |_, to, _| reaches(to));
    }

    /// Carries everything until nobody has anything to say; `arrives(from, to, reason)`.
    pub(crate) fn settle(&mut self, arrives: &mut impl FnMut(usize, usize, Reason) -> bool) {
        loop {
            let mut any = false;
            for from in 0..self.channels.len() {
                for said in drain(&mut self.channels[from]) {
                    any = true;
                    let Said::Broadcast { reason, bytes, .. } = said else {
                        self.said[from].push(said);
                        continue;
                    };
                    *self.sent.entry(format!("{reason:?}")).or_default() += 1;
                    for to in (0..self.channels.len()).filter(|to| *to != from) {
                        if arrives(from, to, reason) {
                            self.channels[to].receive(self.now, &bytes).unwrap();
                        }
                    }
                }
            }
            if !any {
                return;
            }
        }
    }

    /// Lets time pass up to `ms` from now, waking whoever is due.
    pub(crate) fn pass(&mut self, ms: u64, arrives: &mut impl FnMut(usize, usize, Reason) -> bool) {
        let end = self.now.after(ms);
        loop {
            let next = self.channels.iter().filter_map(Channel::poll_timeout).min();
            let Some(next) = next.filter(|next| *next <= end.mono_ms) else { break };
            self.now = self.now.after(next.saturating_sub(self.now.mono_ms));
            for channel in &mut self.channels {
                if channel.poll_timeout().is_some_and(|at| at <= self.now.mono_ms) {
                    channel.handle_timeout(self.now);
                }
            }
            self.settle(arrives);
        }
        self.now = self.now.after(end.mono_ms - self.now.mono_ms);
    }

    pub(crate) fn logs(&self) -> Vec<Vec<String>> {
        self.channels.iter().map(log).collect()
    }

    /// Whether all have the same log.
    pub(crate) fn agrees(&self) -> bool {
        let logs = self.logs();
        logs.windows(2).all(|pair| pair[0] == pair[1])
    }

    /// What a participant delivered, in order, and asserts that nothing came twice.
    pub(crate) fn delivered(&self, who: usize) -> Vec<&str> {
        let ids = delivered(&self.said[who]);
        let mut unique = ids.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), ids.len(), "p{who} got something twice: {ids:?}");
        ids
    }
}
