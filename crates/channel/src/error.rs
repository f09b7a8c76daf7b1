//! What can go wrong with a channel.

use crate::{
    frame::FrameError,
    handshake::{HandshakeError, Reason},
};
use std::{io, time::Duration};

/// The result of everything in this crate.
///
/// Example: see [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a channel is closed. Both ends are told, each from its side.
///
/// ```
/// use mainstay_channel::{Channel, Error, Why, memory};
/// let (a, b) = memory::pair();
/// a.close();
/// assert!(matches!(a.send("x".into()), Err(Error::ChannelClosed { why: Why::ClosedHere })));
/// assert!(matches!(b.send("x".into()), Err(Error::ChannelClosed { why: Why::ClosedByPeer })));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// `close` was called at this end, or its last handle was dropped.
    #[error("it was closed at this end")]
    ClosedHere,
    /// The peer closed it; all it had sent before was received.
    #[error("the peer closed it")]
    ClosedByPeer,
    /// `abort` was called at this end.
    #[error("it was aborted at this end")]
    AbortedHere,
    /// The peer aborted it.
    #[error("the peer aborted it")]
    AbortedByPeer,
    /// The connection or the peer's process is gone.
    #[error("the connection was lost ({what})")]
    Lost {
        /// What was seen of it.
        what: String,
    },
    /// Nothing was heard from the peer, not even a sign of life.
    #[error("the peer has been silent for {silence:?}")]
    Silent {
        /// For how long.
        silence: Duration,
    },
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(FrameError),
}

/// Each variant says what was wrong, where, and what to do.
///
/// ```
/// use mainstay_channel::{Bounds, Channel, Error, memory};
/// let (a, _b) = memory::pair_with(Bounds { message_len: 4, ..Bounds::default() }).unwrap();
/// assert!(matches!(a.send("hello".into()), Err(Error::TooLong { len: 5, limit: 4 })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The channel is closed, and there is nothing left to receive.
    #[error("the channel is closed: {why}; make a new one")]
    ChannelClosed {
        /// Why it is closed.
        why: Why,
    },
    /// The message is longer than the channel takes.
    #[error("the message has {len} bytes, and this channel takes {limit}; send it in pieces")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The most this channel takes.
        limit: usize,
    },
    /// The message has more parts than a vectored send takes.
    #[error("the message has {parts} parts, and a vectored send takes {limit}; join some of them")]
    TooManyParts {
        /// How many it has.
        parts: usize,
        /// The most there may be.
        limit: usize,
    },
    /// A bound that no channel can have.
    #[error("a channel cannot have {field} = {value}; choose {range}")]
    Bounds {
        /// Which field of `Bounds`.
        field: &'static str,
        /// What it was.
        value: usize,
        /// What it may be.
        range: &'static str,
    },
    /// A secret that is too short to be one, or too long.
    #[error(
        "the secret has {len} bytes; give it {min} to {max}, as from `head -c 32 /dev/urandom`"
    )]
    Secret {
        /// Its length in bytes.
        len: usize,
        /// The least there must be.
        min: usize,
        /// The most there may be.
        max: usize,
    },
    /// A text that is no cluster id.
    #[error("{text:?} is no cluster id; give a UUID, as from `uuidgen`")]
    ClusterId {
        /// The text.
        text: String,
    },

    /// A group must have nodes, and not more than the limit.
    #[error("a group cannot have {size} nodes; give it 1 to {max}")]
    GroupSize {
        /// How many were asked for.
        size: usize,
        /// The most there may be.
        max: usize,
    },
    /// The group has no such node.
    #[error("the group has no node {node}; its nodes are 0 to {size} - 1")]
    NoSuchNode {
        /// The number given.
        node: usize,
        /// How many nodes there are.
        size: usize,
    },
    /// A node has no channel to itself.
    #[error("node {node} has no channel to itself; name two different nodes")]
    SelfLoop {
        /// The node.
        node: usize,
    },
    /// One of the two nodes has crashed and was not reconnected.
    #[error(
        "there is no channel from node {from} to node {to}: node {crashed} is down; reconnect it"
    )]
    NodeDown {
        /// From where.
        from: usize,
        /// To where.
        to: usize,
        /// Which of them is down.
        crashed: usize,
    },

    /// The handshake was refused, by us or by the peer.
    #[error("{address}: the handshake was refused {by}: {reason}")]
    Refused {
        /// The peer's address.
        address: String,
        /// "by the peer" or "here".
        by: &'static str,
        /// Why, and what to do.
        reason: Reason,
    },
    /// The peer does not speak this protocol.
    #[error("{address}: {source}; check that a mainstay node listens there")]
    Handshake {
        /// The peer's address.
        address: String,
        /// What it did.
        source: HandshakeError,
    },
    /// There was nothing within the time.
    #[error(
        "{address}: could not {action} within {time:?}; check that the peer runs and that the network lets it through"
    )]
    Late {
        /// The peer's address.
        address: String,
        /// What was tried.
        action: &'static str,
        /// How long.
        time: Duration,
    },
    /// The network refused.
    #[error("{address}: cannot {action}: {source}; {hint}")]
    Network {
        /// Our address, or the peer's.
        address: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
        /// What to do next.
        hint: &'static str,
    },
    /// Keys and certificates that cannot be used.
    #[cfg(feature = "tls")]
    #[error("cannot use the {what}: {problem}; `mainstay channel cert` makes a set that works")]
    Credentials {
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The shared memory cannot be used.
    #[cfg(feature = "shm")]
    #[error(transparent)]
    Memory(#[from] mainstay_shm::Error),
    /// The file is no channel, or a damaged one.
    #[cfg(feature = "shm")]
    #[error(
        "{path}: {field} is {found}, not {expected}: this is no channel, or it is damaged; make a new one"
    )]
    NotAChannel {
        /// The path, or a description of the descriptor.
        path: String,
        /// Which field of the header.
        field: &'static str,
        /// What it is.
        found: u64,
        /// What it must be.
        expected: u64,
    },
    /// Both ends of a channel in shared memory are taken, or were.
    #[cfg(feature = "shm")]
    #[error(
        "{path}: the channel's other end is taken already; make a channel for each pair of processes"
    )]
    EndTaken {
        /// The path, or a description of the descriptor.
        path: String,
    },
}

impl Error {
    pub(crate) fn closed(why: Why) -> Self {
        Self::ChannelClosed { why }
    }
}
