//! What runs in a world: protocol cores without sockets, clocks or threads.

use crate::{Disk, Now, Time, digest};
use mainstay_base::Rng;
use std::{fmt, rc::Rc, sync::Arc};

/// A node of a world, numbered from 0.
///
/// ```
/// assert_eq!(mainstay_sim::NodeId(3).to_string(), "n3");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The number as an index.
    ///
    /// ```
    /// assert_eq!(mainstay_sim::NodeId(3).index(), 3);
    /// ```
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// One end of a stream, as its node knows it.
///
/// A node numbers the streams it opens itself, each time anew; those that others open to it are
/// numbered by the world. The two never meet.
///
/// ```
/// use mainstay_sim::StreamId;
/// let stream = StreamId::outgoing(5);
/// assert!(stream.is_outgoing());
/// assert_eq!(stream.to_string(), "stream out5");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(u64);

const INCOMING: u64 = 1 << 63;

impl StreamId {
    /// The name of a stream that this node opens.
    ///
    /// Example: see [`StreamId`].
    #[must_use]
    pub const fn outgoing(number: u32) -> Self {
        Self(number as u64)
    }

    pub(crate) const fn incoming(number: u64) -> Self {
        Self(number | INCOMING)
    }

    /// Was it opened by this node?
    ///
    /// Example: see [`StreamId`].
    #[must_use]
    pub const fn is_outgoing(self) -> bool {
        self.0 & INCOMING == 0
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.is_outgoing() { "out" } else { "in" };
        write!(f, "stream {way}{}", self.0 & !INCOMING)
    }
}

/// A protocol core, driven by the drain contract.
///
/// The world calls `handle` with one input, then `poll` until it returns `None`, then asks for the
/// `deadline`. When the node's clock has come to it, the input is [`Input::Tick`]. A core that was
/// just made is polled and asked for its deadline too. Nothing else reaches it: no clock, no
/// socket, no thread, no source of random numbers but the one it was made with.
///
/// ```
/// use mainstay_sim::{Input, Node, NodeId, Now, Output, Time};
///
/// /// Sends each message back.
/// struct Echo(Option<(NodeId, Vec<u8>)>);
///
/// impl Node for Echo {
///     type Message = Vec<u8>;
///     type Command = ();
///     type Report = ();
///
///     fn handle(&mut self, _: Now, input: Input<Vec<u8>, ()>) {
///         if let Input::Message { from, message } = input {
///             self.0 = Some((from, message));
///         }
///     }
///
///     fn poll(&mut self, _: Now) -> Option<Output<Vec<u8>, ()>> {
///         self.0.take().map(|(to, message)| Output::Send { to, message })
///     }
///
///     fn deadline(&self) -> Option<Time> {
///         None
///     }
/// }
/// ```
pub trait Node {
    /// What travels between nodes in one piece: bytes, or something typed.
    type Message: Payload;
    /// What the story tells a node to do.
    type Command;
    /// What a node tells the story.
    type Report;

    /// Takes in one input. `now` is what the node's own clocks show.
    ///
    /// Example: see [`Node`].
    fn handle(&mut self, now: Now, input: Input<Self::Message, Self::Command>);

    /// Gives out one output, or `None` when all is said.
    ///
    /// Example: see [`Node`].
    fn poll(&mut self, now: Now) -> Option<Output<Self::Message, Self::Report>>;

    /// When the node wants to be woken, on its monotonic clock.
    ///
    /// Example: see [`Node`].
    fn deadline(&self) -> Option<Time>;
}

/// What a node takes in.
///
/// Example: see [`Node`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<M, C> {
    /// The deadline has come.
    Tick,
    /// A message has arrived, sent to this node or broadcast.
    Message {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: M,
    },
    /// The story wants something.
    Command(C),
    /// Something happened to a stream.
    Stream {
        /// To which.
        stream: StreamId,
        /// What.
        event: StreamEvent,
    },
}

/// What happens to one end of a stream.
///
/// Example: see [`Output::Stream`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// The stream that this node opened is there; so many bytes may be written.
    Connected {
        /// Bytes that may be written before more room is announced.
        room: usize,
    },
    /// Another node has opened a stream to this one; so many bytes may be written.
    Accepted {
        /// Who opened it.
        from: NodeId,
        /// Bytes that may be written before more room is announced.
        room: usize,
    },
    /// Bytes have come, cut anywhere.
    Data(Vec<u8>),
    /// So many more bytes may be written: the peer has read as many.
    Writable(usize),
    /// The peer has written all it will.
    Finished,
    /// The stream is gone, in both directions. The last event of a stream.
    Broken(Broken),
}

/// Why a stream is gone, or did not come about.
///
/// Example: see [`StreamEvent::Broken`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Nobody listens there: the process is dead, its host is not.
    Refused,
    /// Nobody answered for too long.
    TimedOut,
    /// The peer, or something between, has thrown the stream away, and what was on its way.
    Reset,
}

/// What a node gives out.
///
/// Example: see [`Node`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<M, R> {
    /// Send a message to one node, which may be this one.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: M,
    },
    /// Send a message to all other nodes at once. Whether it arrives is decided for each of them.
    Broadcast(M),
    /// Do something with a stream.
    ///
    /// ```
    /// use mainstay_sim::{NodeId, Output, StreamAction, StreamId};
    /// let dial: Output<Vec<u8>, ()> = Output::Stream {
    ///     stream: StreamId::outgoing(1),
    ///     action: StreamAction::Connect { to: NodeId(0) },
    /// };
    /// ```
    Stream {
        /// Which.
        stream: StreamId,
        /// What.
        action: StreamAction,
    },
    /// Tell the story.
    Report(R),
    /// Say something in the trace.
    Note(String),
    /// The process ends itself, and says why. What it gives out after that is not heard.
    Exit(String),
}

/// What a node can do with a stream. On a stream that is gone, everything but `Connect` does
/// nothing: a node cannot know yet.
///
/// Example: see [`Output::Stream`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamAction {
    /// Open it, under a name that was not used since the node started.
    Connect {
        /// To whom.
        to: NodeId,
    },
    /// Write these bytes; no more than there is room for.
    Write(Vec<u8>),
    /// Read no more for now. What arrives waits, and fills the window.
    Pause,
    /// Read on.
    Resume,
    /// All is written; the other direction stays open. When both ends have said so and all has
    /// arrived, the stream is over without further events.
    Finish,
    /// Throw it away, with what is on its way. No further events.
    Abort,
}

/// What a node is made from, at first and after each crash.
///
/// Example: see [`World`](crate::World).
pub struct Boot {
    /// Which node.
    pub id: NodeId,
    /// How many times it has started before.
    pub restarts: u32,
    /// What its clocks show.
    pub now: Now,
    /// Its disk: all that an earlier life can have left.
    pub disk: Disk,
    /// Random numbers of its own.
    pub rng: Rng,
}

/// What can travel as a message.
///
/// ```
/// use mainstay_sim::Payload;
/// assert_eq!(vec![1_u8, 2, 3].size_bytes(), 3);
/// ```
pub trait Payload: Clone {
    /// How many bytes it has on the wire.
    ///
    /// Example: see [`Payload`].
    fn size_bytes(&self) -> usize;

    /// A number for its contents, for the trace: different for different contents.
    ///
    /// ```
    /// use mainstay_sim::Payload;
    /// assert_ne!(vec![1_u8].digest(), vec![2_u8].digest());
    /// ```
    fn digest(&self) -> u64;

    /// The message after damage on its way, or nothing if a damaged message is one that is lost.
    ///
    /// ```
    /// use mainstay_base::Rng;
    /// use mainstay_sim::Payload;
    /// let sent = vec![1_u8, 2, 3];
    /// assert_ne!(sent.damaged(&mut Rng::seeded(1)), Some(sent));
    /// ```
    fn damaged(&self, rng: &mut Rng) -> Option<Self>;

    /// What it says, for people who read a trace.
    ///
    /// ```
    /// use mainstay_sim::Payload;
    /// assert_eq!(b"hi\n".to_vec().show(), r#"3 bytes "hi\n""#);
    /// ```
    fn show(&self) -> String;
}

/// One wrong bit.
pub(crate) fn flip_a_bit(bytes: &mut [u8], rng: &mut Rng) {
    let bit = rng.below(bytes.len() as u64 * 8);
    if let Some(byte) = bytes.get_mut(bit as usize / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

/// Bytes as text, as far as they fit into a line.
pub(crate) fn show_bytes(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 48;
    let shown = bytes[..bytes.len().min(SHOWN_MAX)].escape_ascii();
    let more = if bytes.len() > SHOWN_MAX { "..." } else { "" };
    format!("{} bytes \"{shown}{more}\"", bytes.len())
}

macro_rules! bytes_are_payload {
    ($($bytes:ty),*) => {$(
        impl Payload for $bytes {
            fn size_bytes(&self) -> usize {
                self.len()
            }

            fn digest(&self) -> u64 {
                digest(self)
            }

            fn damaged(&self, rng: &mut Rng) -> Option<Self> {
                let mut bytes = self.to_vec();
                flip_a_bit(&mut bytes, rng);
                Some(bytes.into())
            }

            fn show(&self) -> String {
                show_bytes(self)
            }
        }
    )*};
}

bytes_are_payload!(Vec<u8>, Rc<[u8]>, Arc<[u8]>, Box<[u8]>);
