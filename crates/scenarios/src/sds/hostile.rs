//! One who says whatever does harm: noise, forged filters and histories, requests for everything,
//! dependencies that do not exist, times of the far future, old messages again and again. In the end
//! it only mutters.
//!
//! Its own messages of content have ids that begin with `x`; it does not take the ids of others'
//! messages. Nothing in the protocol says who wrote a message: against that only signatures help.

use super::member::{Packet, Wish, at};
use mainstay_base::Rng;
use mainstay_sds::wire::{HistoryEntry, Message, MessageView, Profile};
use mainstay_sim::{Boot, Chance, Input, Now, Time};
use std::{collections::VecDeque, time::Duration};

/// Messages that it remembers to say them again.
const HEARD_MAX: usize = 32;

pub(super) struct Hostile {
    /// Several do not take each other's ids either.
    number: u32,
    profile: Profile,
    participants: u64,
    rng: Rng,
    heard: VecDeque<Packet>,
    ids: VecDeque<Vec<u8>>,
    said: u64,
    pause: Duration,
    /// It only says that it has nothing to say, to the end.
    mutters: bool,
    pub(super) next: Option<Time>,
    pub(super) outputs: VecDeque<Packet>,
}

impl Hostile {
    /// It says something once in half of `pause`, about.
    pub(super) fn new(boot: Boot, profile: Profile, participants: u64, pause: Duration) -> Self {
        Self {
            number: boot.id.0,
            profile,
            participants,
            pause,
            mutters: false,
            rng: boot.rng,
            heard: VecDeque::new(),
            ids: VecDeque::new(),
            said: u64::from(boot.restarts) << 32,
            next: Some(boot.now.monotonic),
            outputs: VecDeque::new(),
        }
    }

    pub(super) fn handle(&mut self, now: Now, input: Input<Packet, Wish>) {
        match input {
            Input::Message { message, .. } => {
                if let Ok(view) = MessageView::parse(self.profile, &message) {
                    self.ids.push_back(view.id.to_vec());
                    self.ids.truncate(HEARD_MAX);
                }
                self.heard.push_front(message);
                self.heard.truncate(HEARD_MAX);
            }
            Input::Tick => {
                let bytes = if self.mutters { self.mutter(now) } else { self.forge(now) };
                self.outputs.push_back(bytes);
                self.next = Some(now.monotonic + self.rng.within(self.pause));
            }
            Input::Command(Wish::Behave) => self.mutters = true,
            _ => {}
        }
    }

    fn wall(&self, now: Now) -> u64 {
        let unit = if self.profile == Profile::Nim { 1000 } else { 1 };
        at(now).wall_ms / unit
    }

    /// A sync message that tells nobody anything: it must not silence those who would.
    fn mutter(&mut self, now: Now) -> Packet {
        self.said += 1;
        let invented = format!("x{}-none-{}", self.number, self.said).into_bytes();
        let causal = if self.rng.chance(500_000) { Vec::new() } else { vec![invented] };
        let message = Message {
            id: format!("x{}-sync-{}", self.number, self.said).into_bytes(),
            sender: b"mallory".to_vec(),
            channel: b"room".to_vec(),
            lamport: Some(self.wall(now)),
            causal: causal
                .into_iter()
                .map(|id| HistoryEntry { id, ..HistoryEntry::default() })
                .collect(),
            ..Message::default()
        };
        message.encode(self.profile).into()
    }

    fn forge(&mut self, now: Now) -> Packet {
        self.said += 1;
        let wall = self.wall(now);
        let known = |rng: &mut Rng, ids: &VecDeque<Vec<u8>>| match ids.len() {
            0 => b"h0-0".to_vec(),
            count => ids[rng.below(count as u64) as usize].clone(),
        };
        let entry = |id: Vec<u8>| HistoryEntry { id, ..HistoryEntry::default() };
        let somebody = format!("p{}", self.rng.below(self.participants)).into_bytes();
        let mut message = Message {
            id: format!("x{}-{}-{}", self.number, self.rng.below(4), self.said).into_bytes(),
            sender: if self.rng.chance(500_000) { somebody } else { b"mallory".to_vec() },
            channel: b"room".to_vec(),
            lamport: Some(wall + self.rng.below(1000)),
            content: Some(b"gossip".to_vec()),
            ..Message::default()
        };
        match self.rng.below(10) {
            0 => return (0..self.rng.below(300)).map(|_| self.rng.next_u64() as u8).collect(),
            1 => {
                // An old message again, or a bit of it gone wrong in a place that refuses it.
                return match self.heard.len() {
                    0 => b"nothing heard yet"[..].into(),
                    count => {
                        let old = &self.heard[self.rng.below(count as u64) as usize];
                        let end = if self.rng.chance(500_000) { old.len() } else { old.len() / 2 };
                        old[..end].into()
                    }
                };
            }
            2 => {
                message.content = None;
                message.filter = Some(vec![0xff; 1 << self.rng.below(15)]);
                message.causal = (0..8).map(|_| entry(known(&mut self.rng, &self.ids))).collect();
            }
            3 => {
                message.requests = (0..self.rng.below(65))
                    .map(|_| HistoryEntry {
                        id: known(&mut self.rng, &self.ids),
                        sender: b"p0".to_vec(),
                        hint: Vec::new(),
                    })
                    .collect();
            }
            4 => {
                let me = self.number;
                message.causal = (0..self.rng.below(300))
                    .map(|number| entry(format!("x{me}-none-{}-{number}", self.said).into_bytes()))
                    .collect();
            }
            5 => message.lamport = Some(wall + (1 << self.rng.below(62))),
            6 => message.channel = b"elsewhere".to_vec(),
            7 => message.causal = vec![entry(known(&mut self.rng, &self.ids))],
            8 => {
                // Whose a message is that others may lack, and where it is to be had: all of it false.
                let false_entry = |id| HistoryEntry {
                    id,
                    sender: b"mallory".to_vec(),
                    hint: b"nowhere".to_vec(),
                };
                message.causal =
                    (0..4).map(|_| false_entry(known(&mut self.rng, &self.ids))).collect();
            }
            _ => message.causal = vec![entry(message.id.clone())],
        }
        message.encode(self.profile).into()
    }
}
