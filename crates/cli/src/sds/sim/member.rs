//! One member of a simulated group.

use mainstay::sds::{
    Channel, Config, Now as SdsNow, Output as SdsOutput, Reason,
    persist::{Memory, Persistence},
};
use mainstay_sim::{Boot, Input, Node, Now, Output, Time};
use std::{cell::RefCell, collections::HashMap, rc::Rc};

const CHANNEL: &str = "sim";

/// What all members keep, by member.
pub(super) type Kept = Rc<RefCell<HashMap<u32, Memory>>>;

/// What a member tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Said {
        number: u32,
    },
    Delivered {
        number: u32,
    },
    Sent {
        reason: Reason,
        bytes: usize,
    },
    /// Something went wrong that must not.
    Wrong(&'static str),
}

pub(super) struct Member {
    channel: Channel,
    own: u32,
    content: usize,
    kept: Kept,
    /// What was told and not polled yet.
    told: Vec<Told>,
}

impl Member {
    pub(super) fn new(boot: &Boot, mut config: Config, content: usize, kept: Kept) -> Self {
        let own = boot.id.0;
        let mut rng = boot.rng.clone();
        config.seed = rng.next_u64();
        let now = sds_now(boot.now);
        let saved = kept.borrow_mut().entry(own).or_default().load(CHANNEL).unwrap_or_default();
        let name = format!("member-{own}");
        let mut channel = Channel::load(CHANNEL, name.as_bytes(), config, now, &saved)
            .expect("the configuration was checked, and what was kept is read as it was written");
        if boot.restarts > 0 {
            channel.announce(now);
        }
        Self { channel, own, content, kept, told: Vec::new() }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }
}

fn sds_now(now: Now) -> SdsNow {
    const MS: u64 = 1_000_000;
    SdsNow { mono_ms: now.monotonic.as_nanos() / MS, wall_ms: now.wall_unix_ns / MS }
}

/// Content tells its number, and is as long as was asked for.
fn content_of(number: u32, len: usize) -> Vec<u8> {
    let mut content = number.to_le_bytes().to_vec();
    content.resize(len.max(4), b'.');
    content
}

fn number_of(content: &[u8]) -> Option<u32> {
    content.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

impl Node for Member {
    type Message = Rc<[u8]>;
    /// Say the message of that number.
    type Command = u32;
    type Report = Told;

    fn handle(&mut self, now: Now, input: Input<Rc<[u8]>, u32>) {
        let now = sds_now(now);
        match input {
            Input::Tick => self.channel.handle_timeout(now),
            Input::Message { message, .. } => {
                if self.channel.receive(now, &message).is_err() {
                    self.told.push(Told::Wrong("a message of another member was refused"));
                }
            }
            Input::Command(number) => {
                let id = format!("{:08x}-{number:08x}", self.own);
                let content = content_of(number, self.content);
                self.told.push(match self.channel.send(now, id.as_bytes(), &content) {
                    Ok(_) => Told::Said { number },
                    Err(_) => Told::Wrong("a message could not be sent"),
                });
            }
            Input::Stream { .. } => {}
        }
    }

    fn poll(&mut self, now: Now) -> Option<Output<Rc<[u8]>, Told>> {
        loop {
            if let Some(told) = self.told.pop() {
                return Some(Output::Report(told));
            }
            match self.channel.poll_output()? {
                SdsOutput::Broadcast(broadcast) => {
                    let (reason, bytes) = (broadcast.reason, broadcast.bytes.len());
                    self.told.push(Told::Sent { reason, bytes });
                    return Some(Output::Broadcast(broadcast.bytes.into()));
                }
                SdsOutput::Deliver(delivery) => {
                    let told = match number_of(delivery.content) {
                        Some(number) => Told::Delivered { number },
                        None => Told::Wrong("content was altered on its way"),
                    };
                    return Some(Output::Report(told));
                }
                SdsOutput::Persist(change) => {
                    let number = change.number;
                    let mut kept = self.kept.borrow_mut();
                    let saved = kept.entry(self.own).or_default().save(CHANNEL, &change);
                    match saved {
                        Ok(()) => self.channel.persisted(number),
                        Err(_) => self.channel.persist_failed(sds_now(now), number),
                    }
                }
                _ => {}
            }
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.channel.poll_timeout().map(|ms| Time::from_nanos(ms.saturating_mul(1_000_000)))
    }
}
