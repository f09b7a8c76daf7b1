//! What a node tells the application.

use tokio::sync::mpsc;

use super::error::Error;
use crate::output::{Delivery, Missing, Output, Place, Reason};

/// Events that may wait for the application; with more the node stops receiving (V1).
pub(super) const WAITING_MAX: usize = 1024;

/// What has happened, with the channel in which it did.
///
/// Example: see [`driver`](super).
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message for the application, after everything it depends on.
    Delivered(Delivered),
    /// Somebody has this message of one's own.
    Acknowledged {
        /// The channel.
        channel: String,
        /// The message.
        id: Vec<u8>,
    },
    /// Probably somebody has it.
    PossiblyAcknowledged {
        /// The channel.
        channel: String,
        /// The message.
        id: Vec<u8>,
    },
    /// It was sent as often as configured and never acknowledged. It may have arrived all the same.
    Failed {
        /// The channel.
        channel: String,
        /// The message.
        id: Vec<u8>,
    },
    /// A message that others depend on is not here. It is being asked for.
    Missing(Lacking),
    /// Fetch that message from elsewhere and give it to [`Handle::receive`](super::Handle::receive).
    Fetch(Lacking),
    /// A missing message was given up; what depended on it was delivered without it.
    Lost {
        /// The channel.
        channel: String,
        /// The message.
        id: Vec<u8>,
    },
    /// A message that waited for others was dropped because too many do.
    Evicted {
        /// The channel.
        channel: String,
        /// The message.
        id: Vec<u8>,
        /// Who sent it.
        sender: Vec<u8>,
    },
    /// Something was sent to all; only if asked for ([`Node::tell_sent`](super::Node::tell_sent)).
    Sent {
        /// The channel.
        channel: String,
        /// The message.
        id: Vec<u8>,
        /// Why.
        reason: Reason,
        /// How long it was on the wire.
        len: usize,
    },
    /// Something could not be sent. It counts as lost on the way.
    NotSent {
        /// The channel.
        channel: String,
        /// The message.
        id: Vec<u8>,
        /// Why not.
        error: Error,
    },
    /// Something arrived that is not taken. Such events are dropped when many events wait.
    Refused {
        /// Why not.
        error: crate::Error,
    },
    /// A member has come, or has come back, and may lack what was said: [`Channel::announce`] in
    /// those channels that it is in tells it. Dropped when many events wait.
    ///
    /// [`Channel::announce`]: crate::Channel::announce
    Newcomer,
    /// Nothing could be received for now.
    Deaf {
        /// Why not.
        error: Error,
    },
    /// A change could not be kept. It is part of the next one, which is tried by itself.
    NotKept {
        /// The channel.
        channel: String,
        /// Why not.
        error: crate::Error,
    },
}

/// A message for the application.
///
/// Example: see [`driver`](super).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivered {
    /// The channel.
    pub channel: String,
    /// Its id.
    pub id: Vec<u8>,
    /// Who sent it first, by its own word.
    pub sender: Vec<u8>,
    /// What the sender said.
    pub content: Vec<u8>,
    /// Its Lamport time; `None` for an ephemeral message.
    pub lamport: Option<u64>,
    /// Counts deliveries; 0 for an ephemeral message.
    pub number: u64,
    /// Where it stands in the order that all share.
    pub place: Placed,
    /// It was delivered before the restart, and not confirmed.
    pub again: bool,
}

/// [`Place`], owned.
///
/// ```
/// use mainstay_sds::driver::Placed;
/// let late = Placed::Before { id: b"m2".to_vec(), later: 1 };
/// assert_ne!(late, Placed::Last);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// After all others.
    Last,
    /// Right before the message `id`, which was delivered earlier but comes later.
    Before {
        /// The next message in the log.
        id: Vec<u8>,
        /// How many messages come after.
        later: usize,
    },
    /// Nowhere: the message is ephemeral.
    None,
}

/// A message that is not here.
///
/// Example: see [`Event::Missing`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lacking {
    /// The channel.
    pub channel: String,
    /// Its id.
    pub id: Vec<u8>,
    /// How to find it, by the word of who depends on it; empty if not said.
    pub hint: Vec<u8>,
    /// Who sent it first, by the same word; empty if not said.
    pub sender: Vec<u8>,
    /// It is from before this participant joined, and not waited for.
    pub before_joining: bool,
}

impl Lacking {
    fn of(channel: &str, missing: Missing<'_>) -> Self {
        Self {
            channel: channel.to_owned(),
            id: missing.id.to_vec(),
            hint: missing.hint.to_vec(),
            sender: missing.sender.to_vec(),
            before_joining: missing.before_joining,
        }
    }
}

impl Delivered {
    fn of(channel: &str, delivery: Delivery<'_>) -> Self {
        Self {
            channel: channel.to_owned(),
            id: delivery.id.to_vec(),
            sender: delivery.sender.to_vec(),
            content: delivery.content.to_vec(),
            lamport: delivery.lamport,
            number: delivery.number,
            place: match delivery.place {
                Place::Last => Placed::Last,
                Place::Before { id, later } => Placed::Before { id: id.to_vec(), later },
                Place::None => Placed::None,
            },
            again: delivery.again,
        }
    }
}

impl Event {
    /// The event that an output is; none for what the node does itself.
    pub(super) fn of(channel: &str, output: &Output<'_>) -> Option<Self> {
        let name = || channel.to_owned();
        Some(match *output {
            Output::Deliver(delivery) => Self::Delivered(Delivered::of(channel, delivery)),
            Output::Acknowledged { id } => Self::Acknowledged { channel: name(), id: id.to_vec() },
            Output::PossiblyAcknowledged { id } => {
                Self::PossiblyAcknowledged { channel: name(), id: id.to_vec() }
            }
            Output::Failed { id } => Self::Failed { channel: name(), id: id.to_vec() },
            Output::Missing(missing) => Self::Missing(Lacking::of(channel, missing)),
            Output::Fetch(missing) => Self::Fetch(Lacking::of(channel, missing)),
            Output::Lost { id } => Self::Lost { channel: name(), id: id.to_vec() },
            Output::Evicted { id, sender } => {
                Self::Evicted { channel: name(), id: id.to_vec(), sender: sender.to_vec() }
            }
            Output::Broadcast(_) | Output::Persist(_) => return None,
        })
    }
}

/// The events of a node, to be taken one after the other. Dropped, it means that nobody wants any.
///
/// Example: see [`driver`](super).
#[derive(Debug)]
pub struct Events(pub(super) mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` when the node has ended and all were taken. Cancel safe.
    ///
    /// Example: see [`driver`](super).
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}
