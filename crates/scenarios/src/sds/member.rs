//! One participant in the world: a channel, its place on the disk, and what it tells.

use super::{hostile::Hostile, place::Place};
use mainstay_sds::{
    Channel, Config, Keep, Output as Said, Reason,
    wire::{MessageView, Profile},
};
use mainstay_sim::{Boot, Input, Node, Now, Output, Time};
use std::{collections::VecDeque, rc::Rc};

/// What the story wants of a participant.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Send(String),
    /// The application has processed all deliveries up to this one.
    Confirm(u64),
    /// Somebody is typing.
    Type(u64),
    /// The network is there again.
    Announce,
    /// It goes, and never comes back.
    Leave,
    /// It makes no more trouble.
    Behave,
}

/// What a participant tells the story.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// Its message is kept and on its way; what it depends on.
    Sent {
        id: String,
        causal: Vec<String>,
    },
    Delivered {
        number: u64,
        id: String,
        content: Vec<u8>,
    },
    /// It sent something again: for others, or because nobody acknowledged it.
    Copy,
    Sync,
}

/// What is wrong with a participant on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It says that changes are kept, and they are not.
    KeepsNothing,
    /// Its changes are written, and not synced.
    NeverSyncs,
    /// Messages are delivered before they are kept.
    DeliversFirst,
    /// Deliveries count as processed when they are handed out.
    ConfirmsFirst,
    /// It asks nobody for what it misses.
    NeverAsks,
    /// It is silent when it has nothing to say.
    NeverSyncsWithOthers,
    /// Its ids are those of another participant's messages.
    RepeatsIds,
}

impl Flaw {
    pub(super) const ALL: [(Self, &'static str, &'static str); 7] = [
        (Self::KeepsNothing, "keeps-nothing", "a change that is not kept counts as kept"),
        (Self::NeverSyncs, "never-syncs", "what is kept is gone after a power cut"),
        (Self::DeliversFirst, "delivers-first", "a message is delivered before it is kept"),
        (Self::ConfirmsFirst, "confirms-first", "a delivery counts as processed too early"),
        (Self::NeverAsks, "never-asks", "nobody asks for what is missing"),
        (Self::NeverSyncsWithOthers, "silent", "the last message is never mentioned again"),
        (Self::RepeatsIds, "repeats-ids", "two messages have one id"),
    ];
}

pub(super) type Packet = Rc<[u8]>;

/// See the head of the module.
pub(super) struct Member {
    pub(super) channel: Channel,
    place: Option<Place>,
    profile: Profile,
    flaw: Option<Flaw>,
    outputs: VecDeque<Output<Packet, Told>>,
    now: Now,
}

impl Member {
    /// With `keeps`, the channel is kept on the disk.
    pub(super) fn new(boot: Boot, config: &Config, flaw: Option<Flaw>) -> Self {
        let mut boot = boot;
        let own = format!("p{}", boot.id.0);
        let mut config = config.clone();
        config.seed = boot.rng.next_u64();
        match flaw {
            Some(Flaw::DeliversFirst) => (config.keep, config.confirm) = (Keep::Relaxed, false),
            Some(Flaw::NeverAsks) => (config.repair, config.resend_attempts) = (false, 0),
            Some(Flaw::NeverSyncsWithOthers) => {
                (config.sync, config.resend_attempts) = (false, 0);
            }
            _ => {}
        }
        let (place, saved) = if config.keep == Keep::Nothing {
            (None, Vec::new())
        } else {
            let (mut place, saved) = Place::open(boot.disk);
            place.never_syncs = flaw == Some(Flaw::NeverSyncs);
            (Some(place), saved)
        };
        let profile = config.profile;
        let channel = Channel::load("room", own.as_bytes(), config, at(boot.now), &saved)
            .expect("what the disk has is what was kept");
        let mut member =
            Self { channel, place, profile, flaw, outputs: VecDeque::new(), now: boot.now };
        member.drain();
        member
    }

    fn wish(&mut self, wish: Wish) {
        let now = at(self.now);
        match wish {
            Wish::Send(id) => {
                let id = if self.flaw == Some(Flaw::RepeatsIds) {
                    // The second participant's messages have the first one's ids.
                    id.replace("h1-", "h0-")
                } else {
                    id
                };
                let content = super::content_of(&id, self.channel.own_id());
                // One that has too much outstanding does not get it sent; the story is not told.
                let _refused = self.channel.send(now, id.as_bytes(), &content);
            }
            Wish::Confirm(number) => {
                let _late = self.channel.confirm(number);
            }
            Wish::Type(number) => {
                // Not in every profile.
                let id = format!("t{number}");
                let _refused = self.channel.send_ephemeral(id.as_bytes(), b"is typing");
            }
            Wish::Announce => self.channel.announce(now),
            Wish::Leave | Wish::Behave => {}
        }
    }

    /// Takes everything over that the channel has to say.
    fn drain(&mut self) {
        loop {
            let Self { channel, place, flaw, outputs, .. } = self;
            let (number, kept) = match channel.poll_output() {
                None => return,
                Some(Said::Persist(change)) => {
                    let kept = match place {
                        Some(_) if *flaw == Some(Flaw::KeepsNothing) => true,
                        Some(place) => place.save(&change).is_ok(),
                        None => true,
                    };
                    (change.number, kept)
                }
                Some(said) => {
                    tell(self.profile, &said, outputs);
                    if let (Said::Deliver(delivery), Some(Flaw::ConfirmsFirst)) = (&said, &*flaw) {
                        let number = delivery.number;
                        let _kept_or_not = channel.confirm(number);
                    }
                    continue;
                }
            };
            if kept {
                channel.persisted(number);
            } else {
                channel.persist_failed(at(self.now), number);
            }
        }
    }
}

/// What is sent and told for one output.
fn tell(profile: Profile, said: &Said<'_>, outputs: &mut VecDeque<Output<Packet, Told>>) {
    match said {
        Said::Broadcast(broadcast) => {
            let told = match broadcast.reason {
                Reason::Content => Some(sent(profile, broadcast.bytes)),
                Reason::Resend | Reason::Repair => Some(Told::Copy),
                Reason::Sync => Some(Told::Sync),
                _ => None,
            };
            // What it says is heard by the application before it is heard by the others.
            outputs.extend(told.map(Output::Report));
            outputs.push_back(Output::Broadcast(broadcast.bytes.into()));
        }
        Said::Deliver(delivery) if delivery.lamport.is_some() => {
            outputs.push_back(Output::Report(Told::Delivered {
                number: delivery.number,
                id: text(delivery.id),
                content: delivery.content.to_vec(),
            }));
        }
        Said::Failed { id } => outputs.push_back(Output::Note(format!("{} failed", text(id)))),
        Said::Lost { id } => outputs.push_back(Output::Note(format!("{} is lost", text(id)))),
        _ => {}
    }
}

fn sent(profile: Profile, bytes: &[u8]) -> Told {
    let message = MessageView::parse(profile, bytes).expect("the channel's own messages are sane");
    let causal = message.causal.iter().map(|entry| text(entry.id)).collect();
    Told::Sent { id: text(message.id), causal }
}

fn text(id: &[u8]) -> String {
    String::from_utf8_lossy(id).into_owned()
}

/// The world's clocks as the channel takes them.
pub(super) fn at(now: Now) -> mainstay_sds::Now {
    mainstay_sds::Now {
        mono_ms: now.monotonic.as_nanos() / 1_000_000,
        wall_ms: now.wall_unix_ns / 1_000_000,
    }
}

/// One who is there, in whatever role.
pub(super) enum Someone {
    Member(Box<Member>),
    Hostile(Hostile),
    /// It has left.
    Gone,
}

impl Node for Someone {
    type Message = Packet;
    type Command = Wish;
    type Report = Told;

    fn handle(&mut self, now: Now, input: Input<Packet, Wish>) {
        if matches!(input, Input::Command(Wish::Leave)) {
            *self = Self::Gone;
        }
        match self {
            Self::Member(member) => {
                member.now = now;
                match input {
                    Input::Tick => member.channel.handle_timeout(at(now)),
                    // Whatever is wrong with it has changed nothing.
                    Input::Message { message, .. } => {
                        let _refused = member.channel.receive(at(now), &message);
                    }
                    Input::Command(wish) => member.wish(wish),
                    Input::Stream { .. } => {}
                }
                member.drain();
            }
            Self::Hostile(hostile) => hostile.handle(now, input),
            Self::Gone => {}
        }
    }

    fn poll(&mut self, _: Now) -> Option<Output<Packet, Told>> {
        match self {
            Self::Member(member) => member.outputs.pop_front(),
            Self::Hostile(hostile) => hostile.outputs.pop_front().map(Output::Broadcast),
            Self::Gone => None,
        }
    }

    fn deadline(&self) -> Option<Time> {
        let ms = match self {
            Self::Member(member) => member.channel.poll_timeout()?,
            Self::Hostile(hostile) => return hostile.next,
            Self::Gone => return None,
        };
        Some(Time::from_nanos(ms.saturating_mul(1_000_000)))
    }
}
