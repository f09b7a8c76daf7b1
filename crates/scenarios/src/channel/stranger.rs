//! Somebody who does not belong: it opens streams and speaks nonsense, or nothing, or very slowly.

use super::member::{CalmDown, Outputs};
use mainstay_base::Rng;
use mainstay_channel::{
    ClusterId, NodeId as Name,
    handshake::{Handshake, Local, Purpose},
};
use mainstay_sim::{
    Boot, Chance, Input, NodeId, Output, StreamAction, StreamEvent, StreamId, Time,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// How often it comes, at most.
const EVERY: Duration = Duration::from_millis(1_500);

pub(super) struct Stranger {
    pub(super) outputs: Outputs,
    rng: Rng,
    members: u32,
    comes_at: Time,
    opened: u32,
    /// What is still to be said on each stream.
    says: BTreeMap<StreamId, Words>,
    goes: bool,
}

struct Words {
    left: VecDeque<u8>,
    at_a_time: usize,
    /// What may be written.
    room: usize,
}

impl Stranger {
    pub(super) fn new(boot: Boot, members: u32) -> Self {
        Self {
            outputs: VecDeque::new(),
            rng: boot.rng,
            members,
            comes_at: boot.now.monotonic,
            opened: 0,
            says: BTreeMap::new(),
            goes: false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        (!self.goes).then_some(self.comes_at)
    }

    pub(super) fn handle(&mut self, now: Time, input: Input<Vec<u8>, CalmDown>) {
        match input {
            Input::Tick => {
                self.go_on_speaking();
                self.come();
                self.comes_at = now + EVERY / 10 + self.rng.within(EVERY);
            }
            Input::Command(CalmDown) => self.goes = true,
            Input::Stream { stream, event } => match event {
                StreamEvent::Connected { room } | StreamEvent::Writable(room) => {
                    if let Some(words) = self.says.get_mut(&stream) {
                        words.room += room;
                    }
                    self.speak(stream);
                }
                // Somebody dialled a stranger: it has nothing to say.
                StreamEvent::Broken(_) | StreamEvent::Finished => {
                    self.says.remove(&stream);
                    self.does(stream, StreamAction::Abort);
                }
                _ => {}
            },
            Input::Message { .. } => {}
        }
    }

    fn come(&mut self) {
        let to = NodeId(self.rng.below(u64::from(self.members)) as u32);
        self.opened += 1;
        let stream = StreamId::outgoing(self.opened);
        let left = self.words().into();
        let at_a_time = *self.rng.pick(&[1, 20, 1_000]);
        self.says.insert(stream, Words { left, at_a_time, room: 0 });
        self.does(stream, StreamAction::Connect { to });
    }

    fn words(&mut self) -> Vec<u8> {
        let garbage = |rng: &mut Rng, most: u64| {
            let len = rng.below(most);
            (0..len).map(|_| rng.below(256) as u8).collect::<Vec<_>>()
        };
        let rng = &mut self.rng;
        match rng.below(6) {
            0 => Vec::new(),
            1 => garbage(rng, 600),
            2 => b"GET / HTTP/1.1\r\nHost: calls\r\n\r\n".to_vec(),
            // It knows the protocol, and the cluster, and not the secret.
            kind => {
                let purpose = Purpose::new("calls").expect("\"calls\" is a purpose");
                let local = Local::new(Name(99), ClusterId::default(), purpose);
                let (_, hello) = Handshake::dial(local, None, [kind as u8; 32]);
                let mut hello = hello.to_vec();
                match kind {
                    3 => hello.truncate(rng.below(hello.len() as u64) as usize),
                    4 => hello.extend(garbage(rng, 600)),
                    _ => {}
                }
                hello
            }
        }
    }

    fn go_on_speaking(&mut self) {
        let streams: Vec<_> = self.says.keys().copied().collect();
        streams.into_iter().for_each(|stream| self.speak(stream));
    }

    fn speak(&mut self, stream: StreamId) {
        let Some(words) = self.says.get_mut(&stream) else { return };
        let now = words.left.len().min(words.at_a_time).min(words.room);
        words.room -= now;
        let bytes: Vec<u8> = words.left.drain(..now).collect();
        if !bytes.is_empty() {
            self.does(stream, StreamAction::Write(bytes));
        }
    }

    fn does(&mut self, stream: StreamId, action: StreamAction) {
        self.outputs.push_back(Output::Stream { stream, action });
    }
}
