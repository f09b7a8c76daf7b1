//! A channel under any sequence of inputs, honest and hostile: each content once, parents first,
//! limits kept, and what is kept of it makes the same channel again.

#![no_main]

use std::collections::HashSet;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::world;
use mainstay_sds::{
    Channel, Config, FilterPolicy, Now, Output, Reason, Start,
    persist::{Memory, Persistence},
    wire::{HistoryEntry, Message, Profile},
};

#[derive(Arbitrary, Debug)]
struct Input {
    nim: bool,
    joining: bool,
    lost_after: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Send(u8),
    Ephemeral(u8),
    Known(u8),
    Hint(u8, u8),
    Confirm,
    FailToKeep,
    Announce,
    Wait(u16),
    Restart,
    Bytes(Vec<u8>),
    Message {
        id: u8,
        sender: u8,
        lamport: u16,
        kind: u8,
        causal: Vec<u8>,
        requests: Vec<u8>,
        filter: Option<u8>,
    },
}

struct Run {
    config: Config,
    channel: Channel,
    place: Memory,
    now: Now,
    /// Content that was delivered, by id, in this life or an earlier one, and not confirmed again.
    delivered: HashSet<Vec<u8>>,
    last_number: u64,
    fail: bool,
}

fuzz_target!(|input: Input| {
    world::plant();
    let mut config = if input.nim { Config::nim_own() } else { Config::lip() };
    (config.only_own_peers, config.filter_capacity) = (true, 8);
    (config.history, config.causal, config.sync_causal) = (6, 2, 4);
    (config.incoming_max, config.incoming_per_sender_max) = (5, 3);
    (config.outgoing_max, config.resend_attempts) = (4, 1);
    (config.keep, config.confirm) = (mainstay_sds::Keep::Durable, true);
    config.filter_policy = FilterPolicy::Sparse;
    config.fetch = true;
    config.start = if input.joining { Start::Joining } else { Start::Beginning };
    config.lost_after_ms = input.lost_after.then_some(200_000);
    let mut run = Run {
        channel: Channel::new("room", b"me", config.clone()).expect("a sane configuration"),
        config,
        place: Memory::new(),
        now: Now { mono_ms: 1000, wall_ms: 1_760_000_000_000 },
        delivered: HashSet::new(),
        last_number: 0,
        fail: false,
    };
    for step in input.steps.iter().take(200) {
        run.step(step);
        run.drain();
        run.check();
    }
});

fn name(id: u8) -> Vec<u8> {
    format!("m{id}").into_bytes()
}

impl Run {
    fn step(&mut self, step: &Step) {
        let Self { channel, now, .. } = self;
        match step {
            Step::Send(id) => drop(channel.send(*now, &name(*id), b"content")),
            Step::Ephemeral(id) => drop(channel.send_ephemeral(&name(*id), b"content")),
            Step::Known(id) => drop(channel.mark_known(*now, &name(*id))),
            Step::Hint(id, hint) => drop(channel.set_retrieval_hint(&name(*id), &[*hint])),
            Step::Confirm => drop(channel.confirm(self.last_number)),
            Step::FailToKeep => self.fail = true,
            Step::Announce => channel.announce(*now),
            Step::Wait(seconds) => {
                *now = now.after(u64::from(*seconds) * 100);
                channel.handle_timeout(*now);
            }
            Step::Restart => self.restart(),
            Step::Bytes(bytes) => drop(channel.receive(*now, bytes)),
            Step::Message { id, sender, lamport, kind, causal, requests, filter } => {
                let entries = |ids: &[u8]| {
                    ids.iter().take(20).map(|id| HistoryEntry::of(&name(*id))).collect()
                };
                let unit = if channel.config().profile == Profile::Nim { 1000 } else { 1 };
                let message = Message {
                    id: name(*id),
                    sender: vec![b'a' + sender % 4],
                    channel: b"room".to_vec(),
                    lamport: (kind % 4 != 3).then_some(now.wall_ms / unit + u64::from(*lamport)),
                    causal: entries(causal),
                    filter: filter.map(|byte| vec![byte; 24]),
                    requests: entries(requests),
                    content: (kind % 4 != 2).then(|| b"content".to_vec()),
                };
                let bytes = message.encode(channel.config().profile);
                let _taken = channel.receive(*now, &bytes);
            }
        }
    }

    /// The process dies and comes back with what was kept.
    fn restart(&mut self) {
        let saved = self.place.load("room").expect("memory does not fail");
        self.channel = Channel::load("room", b"me", self.config.clone(), self.now, &saved)
            .expect("what was kept can be read");
        // What the application knows: it goes on behind what it has processed.
        let _none_yet = self.channel.confirm(self.last_number);
    }

    fn drain(&mut self) {
        loop {
            let number = match self.channel.poll_output() {
                None => return,
                Some(Output::Persist(change)) => {
                    if !self.fail {
                        self.place.save("room", &change).expect("memory does not fail");
                    }
                    change.number
                }
                Some(Output::Deliver(delivery)) => {
                    if delivery.lamport.is_some() {
                        if delivery.number > self.last_number {
                            let new = self.delivered.insert(delivery.id.to_vec());
                            assert!(new, "D1: {:?} twice", delivery.id);
                            assert_eq!(delivery.number, self.last_number + 1, "a gap");
                            self.last_number = delivery.number;
                        } else {
                            assert!(delivery.again, "an old number for something new");
                        }
                    }
                    continue;
                }
                Some(Output::Broadcast(broadcast)) => {
                    let profile = self.config.profile;
                    let message = Message::decode(profile, broadcast.bytes).expect("W2");
                    assert!(broadcast.reason == Reason::Sync || message.content.is_some());
                    continue;
                }
                Some(_) => continue,
            };
            if std::mem::take(&mut self.fail) {
                self.channel.persist_failed(self.now, number);
            } else {
                self.channel.persisted(number);
            }
        }
    }

    fn check(&self) {
        let counts = self.channel.counts();
        assert!(counts.logged <= 6 && counts.buffered <= 5 && counts.outgoing <= 4, "{counts:?}");
        assert!(counts.remembered <= 12, "{counts:?}");
        let keys: Vec<(u64, &[u8])> =
            self.channel.log().map(|entry| (entry.lamport, entry.id)).collect();
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "D2: {keys:?}");
    }
}
