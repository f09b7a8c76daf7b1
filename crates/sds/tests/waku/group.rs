//! One participant of ours and some of theirs, the network between them, and the time.

use crate::peer::{Peer, to_hex};
use mainstay_base::Rng;
use mainstay_sds::{
    Channel, Config, Error, Now, Output, Reason, Received,
    wire::{Message, Profile},
};
use serde_json::json;
use std::collections::BTreeSet;

/// When all clocks start: some day in 2025.
pub(crate) const START_MS: u64 = 1_750_000_000_000;

/// A message of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) id: String,
    pub(crate) lamport: u64,
    pub(crate) content: String,
}

/// A message that was delivered to us.
pub(crate) struct Told {
    pub(crate) id: String,
    pub(crate) sender: String,
    pub(crate) content: String,
    pub(crate) lamport: Option<u64>,
}

pub(crate) struct Group {
    ours: Channel,
    pub(crate) theirs: Vec<Peer>,
    now: Now,
    /// Of a hundred messages so many are lost, to each receiver by itself.
    loss: Option<(Rng, u64)>,
    said: u32,

    pub(crate) received: Vec<Result<Received, Error>>,
    pub(crate) delivered: Vec<Told>,
    pub(crate) acknowledged: Vec<String>,
    pub(crate) possibly: Vec<String>,
    pub(crate) missing: Vec<String>,
    pub(crate) hints: Vec<Vec<u8>>,
    /// Ids of what we sent again for others.
    pub(crate) repairs: Vec<String>,
    pub(crate) wire_of_theirs: Vec<Vec<u8>>,
    said_by_them: BTreeSet<Vec<u8>>,
    /// How many answers of theirs were lost on the way to us.
    pub(crate) answers_lost: usize,
}

impl Group {
    pub(crate) fn new(folder: &str, config: Config, options: &[serde_json::Value]) -> Self {
        let peer = |(number, options)| Peer::start(folder, &format!("js{number}"), options);
        Self {
            ours: Channel::new("room", b"mainstay", config).unwrap(),
            theirs: options.iter().enumerate().map(peer).collect(),
            now: Now { mono_ms: 0, wall_ms: START_MS },
            loss: None,
            said: 0,
            received: Vec::new(),
            delivered: Vec::new(),
            acknowledged: Vec::new(),
            possibly: Vec::new(),
            missing: Vec::new(),
            hints: Vec::new(),
            repairs: Vec::new(),
            wire_of_theirs: Vec::new(),
            said_by_them: BTreeSet::new(),
            answers_lost: 0,
        }
    }

    pub(crate) fn lose(&mut self, seed: u64, of_a_hundred: u64) {
        self.loss = Some((Rng::seeded(seed), of_a_hundred));
    }

    fn arrives(&mut self) -> bool {
        match &mut self.loss {
            Some((rng, of_a_hundred)) => rng.below(100) >= *of_a_hundred,
            None => true,
        }
    }

    /// Says something under an id like theirs; returns the id.
    pub(crate) fn we_say(&mut self, text: &str) -> String {
        let id = self.we_say_and_it_is_lost_unless(text, true);
        self.settle();
        id
    }

    pub(crate) fn we_say_and_it_is_lost(&mut self, text: &str) -> String {
        self.we_say_and_it_is_lost_unless(text, false)
    }

    fn we_say_and_it_is_lost_unless(&mut self, text: &str, arrives: bool) -> String {
        self.said += 1;
        let id = format!("ours-{}", self.said);
        self.ours.send(self.now, id.as_bytes(), text.as_bytes()).unwrap();
        self.take_outputs(arrives);
        id
    }

    pub(crate) fn we_whisper(&mut self, text: &str) -> String {
        self.said += 1;
        let id = format!("ours-{}", self.said);
        self.ours.send_ephemeral(id.as_bytes(), text.as_bytes()).unwrap();
        self.settle();
        id
    }

    pub(crate) fn we_hint(&mut self, id: &str, hint: &[u8]) {
        assert!(self.ours.set_retrieval_hint(id.as_bytes(), hint).unwrap());
    }

    pub(crate) fn we_sync(&mut self) {
        self.ours.announce(self.now);
        // Within two seconds, so that a group does not speak all at once.
        self.pass(2001);
    }

    /// Returns the id that their library gave it.
    pub(crate) fn they_say(&mut self, peer: usize, text: &str) -> String {
        let id = self.they_do(peer, "send", text, true);
        self.settle();
        id
    }

    pub(crate) fn they_say_and_it_is_lost(&mut self, peer: usize, text: &str) -> String {
        self.they_do(peer, "send", text, false)
    }

    pub(crate) fn they_whisper(&mut self, peer: usize, text: &str) {
        self.they_do(peer, "ephemeral", text, true);
        self.settle();
    }

    fn they_do(&mut self, peer: usize, what: &str, text: &str, arrives: bool) -> String {
        let command = json!({ "do": what, "content": to_hex(text.as_bytes()) });
        let out = self.theirs[peer].ask(command);
        let [message] = &out[..] else { panic!("{} messages for one", out.len()) };
        let read = Message::decode(Profile::Lip, message).unwrap();
        if arrives {
            self.they_sent(peer, &out);
        }
        String::from_utf8(read.id).unwrap()
    }

    pub(crate) fn they_sync(&mut self, peer: usize) {
        let out = self.theirs[peer].ask(json!({ "do": "sync" }));
        self.they_sent(peer, &out);
        self.settle();
    }

    pub(crate) fn they_send_again(&mut self, peer: usize) {
        let out = self.theirs[peer].ask(json!({ "do": "resend" }));
        self.they_sent(peer, &out);
        self.settle();
    }

    /// Carries what one of theirs sent to everybody else.
    fn they_sent(&mut self, from: usize, messages: &[Vec<u8>]) {
        for message in messages {
            self.wire_of_theirs.push(message.clone());
            // Their library asks for a message once, and not at all if somebody else does: with the
            // request, or the answer to it, the message would be lost for them for ever. We ask
            // again: an answer to us may be lost.
            let read = Message::decode(Profile::Lip, message).unwrap();
            let is_repair = !self.said_by_them.insert(read.id);
            let has_requests = !read.requests.is_empty();
            let loss = if has_requests { self.loss.take() } else { None };
            if self.arrives() {
                let received = self.ours.receive(self.now, message);
                self.received.push(received);
            } else {
                self.answers_lost += usize::from(is_repair);
            }
            let loss = loss.or_else(|| if is_repair { self.loss.take() } else { None });
            for peer in (0..self.theirs.len()).filter(|&peer| peer != from) {
                self.arrives_at(peer, message);
            }
            self.loss = loss.or(self.loss.take());
        }
    }

    fn arrives_at(&mut self, peer: usize, message: &[u8]) {
        if self.arrives() {
            let command = json!({ "do": "receive", "message": to_hex(message) });
            let out = self.theirs[peer].ask(command);
            assert!(out.is_empty(), "they never answer at once");
        }
    }

    fn settle(&mut self) {
        self.take_outputs(true);
    }

    fn take_outputs(&mut self, arrives: bool) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut out = Vec::new();
        while let Some(output) = self.ours.poll_output() {
            match output {
                Output::Broadcast(broadcast) => {
                    if broadcast.reason == Reason::Repair {
                        self.repairs.push(text(broadcast.id));
                    }
                    out.push((broadcast.reason, broadcast.bytes.to_vec()));
                }
                Output::Deliver(delivery) => self.delivered.push(Told {
                    id: text(delivery.id),
                    sender: text(delivery.sender),
                    content: text(delivery.content),
                    lamport: delivery.lamport,
                }),
                Output::Acknowledged { id } => self.acknowledged.push(text(id)),
                Output::PossiblyAcknowledged { id } => self.possibly.push(text(id)),
                Output::Missing(missing) => {
                    self.missing.push(text(missing.id));
                    self.hints.push(missing.hint.to_vec());
                }
                other => panic!("not expected here: {other:?}"),
            }
        }
        if arrives {
            for (reason, message) in out {
                let loss = if reason == Reason::Repair { self.loss.take() } else { None };
                for peer in 0..self.theirs.len() {
                    self.arrives_at(peer, &message);
                }
                self.loss = loss.or(self.loss.take());
            }
        }
    }

    /// Lets time go by: our timers fire, and theirs are swept, as a program around them would.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = self.now.after(ms);
        for peer in 0..self.theirs.len() {
            self.theirs[peer].ask(json!({ "do": "clock", "ms": self.now.wall_ms }));
            let out = self.theirs[peer].ask(json!({ "do": "sweep" }));
            self.they_sent(peer, &out);
        }
        self.ours.handle_timeout(self.now);
        self.settle();
    }

    /// Lets time go by, with a sync message of theirs now and then, until it is so.
    pub(crate) fn until(&mut self, limit_ms: u64, mut is_so: impl FnMut(&mut Self) -> bool) {
        let end = self.now.mono_ms + limit_ms;
        let mut step = 0;
        while !is_so(self) {
            assert!(self.now.mono_ms < end, "still not so after {limit_ms} ms: {}", self.lengths());
            self.pass(500);
            step += 1;
            if step % 10 == 0 {
                self.they_sync(step / 10 % self.theirs.len());
            }
        }
    }

    /// How long all logs are, ours first.
    fn lengths(&mut self) -> String {
        let theirs: Vec<usize> = self.theirs.iter_mut().map(|peer| peer.log().len()).collect();
        format!("ours {} and {:?}, theirs {theirs:?}", self.our_log().len(), self.ours.counts())
    }

    pub(crate) fn our_log(&self) -> Vec<Said> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let said = |entry: mainstay_sds::LogEntry<'_>| Said {
            id: text(entry.id),
            lamport: entry.lamport,
            content: text(entry.content),
        };
        self.ours.log().map(said).collect()
    }
}
