//! Channels in steady work, and the messages that keep them at it.

use mainstay_sds::{
    Channel, Config, Now,
    bloom::{Params, RollingFilter},
    hash::FilterHashes,
    wire::{HistoryEntry, Message, Profile},
};

use crate::Outcome;
use crate::clock::{Span, wall_ns};

pub(super) const CONTENT: [u8; 100] = [7; 100];
pub(super) const NOW: Now = Now { mono_ms: 1_000_000, wall_ms: 1_760_000_000_000 };

pub(super) fn id(number: u64) -> Vec<u8> {
    format!("{number:064x}").into_bytes()
}

/// Eight senders who hear everything; each message cites the ten before it. The filter on all of
/// them is as full as it gets in use, and has no id of the receiver's own.
pub(super) struct Senders {
    made: u64,
    filter: Vec<u8>,
}

impl Senders {
    pub(super) fn new() -> Outcome<Senders> {
        let mut filter = RollingFilter::new(Profile::Lip, Params::new(10_000, 0.001)?);
        for number in 0..8000 {
            filter.add(FilterHashes::of(Profile::Lip, format!("other {number}").as_bytes()));
        }
        Ok(Senders { made: 0, filter: filter.to_bytes() })
    }

    pub(super) fn messages(&mut self, count: u64) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.message()).collect()
    }

    fn message(&mut self) -> Vec<u8> {
        let number = self.made;
        self.made += 1;
        let sender = |number: u64| format!("sender {}", number % 8).into_bytes();
        let causal = (number.saturating_sub(10)..number).map(|number| HistoryEntry {
            id: id(number),
            hint: Vec::new(),
            sender: sender(number),
        });
        let message = Message {
            id: id(number),
            sender: sender(number),
            channel: b"benchmark".to_vec(),
            lamport: Some(NOW.wall_ms + number),
            causal: causal.collect(),
            filter: Some(self.filter.clone()),
            requests: Vec::new(),
            content: Some(CONTENT.to_vec()),
        };
        message.encode(Profile::Lip)
    }
}

/// A channel that receives.
pub(super) fn receiver() -> Outcome<Channel> {
    let mut config = Config::lip();
    config.seed = 1;
    Ok(Channel::new("benchmark", b"me", config)?)
}

pub(super) fn receive(channel: &mut Channel, messages: &[Vec<u8>]) -> Outcome<()> {
    messages.iter().try_for_each(|bytes| receive_one(channel, bytes))
}

fn receive_one(channel: &mut Channel, bytes: &[u8]) -> Outcome<()> {
    channel.receive(NOW, bytes)?;
    while let Some(output) = channel.poll_output() {
        std::hint::black_box(&output);
    }
    Ok(())
}

/// The time of receiving alone. Each message lies in the one buffer that it was just copied to, as
/// a datagram does that a socket has handed over.
pub(super) fn time_receiving(channel: &mut Channel, messages: &[Vec<u8>]) -> Outcome<Span> {
    let mut buffer = Vec::new();
    let mut ns = 0;
    for bytes in messages {
        buffer.clear();
        buffer.extend_from_slice(bytes);
        let start = wall_ns();
        receive_one(channel, &buffer)?;
        ns += wall_ns() - start;
    }
    // CPU time costs a system call to ask for, more than receiving takes.
    Ok(Span { wall_ns: ns as f64, cpu_ns: ns as f64 })
}

/// A channel that sends, and is acknowledged.
pub(super) struct Sender {
    pub(super) channel: Channel,
    profile: Profile,
    sent: u64,
    acknowledged: u64,
    pub(super) bytes: usize,
}

impl Sender {
    pub(super) fn new(mut config: Config) -> Outcome<Sender> {
        // Sync messages are sent by a timer, which nobody runs here.
        config.seed = 1;
        let profile = config.profile;
        let channel = Channel::new("benchmark", b"me", config)?;
        Ok(Sender { channel, profile, sent: 0, acknowledged: 0, bytes: 0 })
    }

    /// Ids are made before, so that making them is not measured.
    pub(super) fn ids(&mut self, count: u64) -> Vec<Vec<u8>> {
        let start = self.sent;
        self.sent += count;
        (start..self.sent).map(id).collect()
    }

    pub(super) fn send(&mut self, ids: &[Vec<u8>]) -> Outcome<()> {
        for id in ids {
            self.channel.send(NOW, id, &CONTENT)?;
            while let Some(output) = self.channel.poll_output() {
                if let mainstay_sds::Output::Broadcast(broadcast) = output {
                    self.bytes = broadcast.bytes.len();
                }
            }
        }
        Ok(())
    }

    /// Others cite all that was sent so far.
    pub(super) fn acknowledge(&mut self) -> Outcome<()> {
        while self.acknowledged < self.sent {
            let end = self.sent.min(self.acknowledged + 250);
            let causal = (self.acknowledged..end).map(|number| HistoryEntry::of(&id(number)));
            let lamport = match self.profile {
                Profile::Lip => NOW.wall_ms,
                Profile::Nim => NOW.wall_ms / 1000,
            };
            let sync = Message {
                id: b"sync".to_vec(),
                sender: b"other".to_vec(),
                channel: b"benchmark".to_vec(),
                lamport: Some(lamport),
                causal: causal.collect(),
                ..Message::default()
            };
            self.channel.receive(NOW, &sync.encode(self.profile))?;
            while self.channel.poll_output().is_some() {}
            self.acknowledged = end;
        }
        Ok(())
    }
}
