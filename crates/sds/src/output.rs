//! What a channel has to say.

use crate::persist::Change;

/// What to do next, or what has happened. Everything in it is borrowed from the channel until the
/// next call.
///
/// ```
/// use mainstay_sds::{Channel, Config, Now, Output};
/// let mut alice = Channel::new("room", b"alice", Config::lip())?;
/// let mut bob = Channel::new("room", b"bob", Config::lip())?;
/// alice.send(Now::zero(), b"m1", b"hello")?;
/// while let Some(output) = alice.poll_output() {
///     if let Output::Broadcast(broadcast) = output {
///         bob.receive(Now::zero(), broadcast.bytes)?;
///     }
/// }
/// let Some(Output::Deliver(delivery)) = bob.poll_output() else { panic!() };
/// assert_eq!((delivery.id, delivery.content), (&b"m1"[..], &b"hello"[..]));
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Output<'a> {
    /// Send these bytes to everybody in the channel.
    Broadcast(Broadcast<'a>),
    /// A message for the application, after everything it depends on.
    Deliver(Delivery<'a>),
    /// Somebody has this message of one's own.
    Acknowledged {
        /// Its id.
        id: &'a [u8],
    },
    /// Probably somebody has it.
    PossiblyAcknowledged {
        /// Its id.
        id: &'a [u8],
    },
    /// It was sent as often as configured and never acknowledged. It may have arrived all the same:
    /// if a later message cites it, that is told as an acknowledgement (until a restart).
    Failed {
        /// Its id.
        id: &'a [u8],
    },
    /// A message that others depend on is not here. It is being asked for.
    Missing(Missing<'a>),
    /// Fetch that message from elsewhere (a store node), and hand its bytes to
    /// [`receive`](crate::Channel::receive). Comes again until it is there, or given up.
    Fetch(Missing<'a>),
    /// A missing message was given up; what depended on it was delivered without it.
    Lost {
        /// Its id.
        id: &'a [u8],
    },
    /// A message that waited for others was dropped because too many do. It will be asked for
    /// again when others depend on it.
    Evicted {
        /// Its id.
        id: &'a [u8],
        /// Who sent it.
        sender: &'a [u8],
    },
    /// Keep this change, then call [`persisted`](crate::Channel::persisted) or
    /// [`persist_failed`](crate::Channel::persist_failed). There is no other until then.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Keep, Now, Output, persist::{Memory, Persistence}};
    /// let mut config = Config::lip();
    /// config.keep = Keep::Durable;
    /// let mut channel = Channel::new("room", b"alice", config)?;
    /// let mut memory = Memory::new();
    /// channel.send(Now::zero(), b"m1", b"hello")?;
    /// let Some(Output::Persist(change)) = channel.poll_output() else { panic!() };
    /// memory.save("room", &change)?;
    /// let number = change.number;
    /// channel.persisted(number);
    /// assert!(matches!(channel.poll_output(), Some(Output::Broadcast(_))));
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    Persist(Change<'a>),
}

/// Bytes to send to everybody.
///
/// Example: see [`Output`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broadcast<'a> {
    /// The message as it goes on the wire.
    pub bytes: &'a [u8],
    /// Its id.
    pub id: &'a [u8],
    /// Why it is sent.
    pub reason: Reason,
}

/// Why a message is sent.
///
/// Example: see [`Output`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The application sent it.
    Content,
    /// The application sent it, and nobody is to keep it.
    Ephemeral,
    /// Nobody acknowledged it.
    Resend,
    /// It tells the others what this participant has, and asks for what it has not.
    Sync,
    /// Another participant asked for it.
    Repair,
}

/// A message for the application.
///
/// Example: see [`Output`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery<'a> {
    /// Its id.
    pub id: &'a [u8],
    /// Who sent it first, by its own word.
    pub sender: &'a [u8],
    /// What the sender said.
    pub content: &'a [u8],
    /// Its Lamport time; `None` for an ephemeral message, which has no place in the order.
    pub lamport: Option<u64>,
    /// Deliveries are numbered from 1 on without a gap, also across restarts if they are kept; 0
    /// for an ephemeral message.
    pub number: u64,
    /// Where it stands in the order of the log.
    pub place: Place<'a>,
    /// It was delivered before the restart, and not confirmed.
    pub again: bool,
}

/// Where a message stands in the order that all participants share.
///
/// ```
/// use mainstay_sds::{Channel, Config, Now, Output, Place, wire::{Message, Profile}};
/// let mut bob = Channel::new("room", b"bob", Config::lip())?;
/// for (id, lamport) in [(b"m2", 2), (b"m1", 1)] {
///     let message = Message {
///         id: id.to_vec(),
///         sender: b"alice".to_vec(),
///         channel: b"room".to_vec(),
///         lamport: Some(lamport),
///         content: Some(b"hello".to_vec()),
///         ..Message::default()
///     };
///     bob.receive(Now::zero(), &message.encode(Profile::Lip))?;
/// }
/// let mut places = Vec::new();
/// while let Some(output) = bob.poll_output() {
///     let Output::Deliver(delivery) = output else { continue };
///     places.push(matches!(delivery.place, Place::Before { id: b"m2", later: 1 }));
/// }
/// assert_eq!(places, [false, true]);
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// After all others.
    Last,
    /// Right before the message `id`, which was delivered earlier but comes later.
    Before {
        /// The next message in the log.
        id: &'a [u8],
        /// How many messages come after.
        later: usize,
    },
    /// Nowhere: the message is ephemeral.
    None,
}

/// A message that is not here.
///
/// Example: see [`Output::Missing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing<'a> {
    /// Its id.
    pub id: &'a [u8],
    /// How to find it, by the word of who depends on it; empty if not said.
    pub hint: &'a [u8],
    /// Who sent it first, by the same word; empty if not said.
    pub sender: &'a [u8],
    /// It is from before this participant joined, and not waited for.
    pub before_joining: bool,
}

/// What became of a message that was received.
///
/// ```
/// use mainstay_sds::{Channel, Config, Now, Output, Received};
/// let mut alice = Channel::new("room", b"alice", Config::lip())?;
/// alice.send(Now::zero(), b"m1", b"hello")?;
/// let Some(Output::Broadcast(broadcast)) = alice.poll_output() else { panic!() };
/// let mut bob = Channel::new("room", b"bob", Config::lip())?;
/// assert_eq!(bob.receive(Now::zero(), broadcast.bytes)?, Received::Delivered { released: 0 });
/// assert_eq!(bob.receive(Now::zero(), broadcast.bytes)?, Received::Duplicate);
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received {
    /// Delivered for the first time, and with it others that waited for it.
    Delivered {
        /// How many others.
        released: usize,
    },
    /// Waits for messages that it depends on.
    Buffered {
        /// For how many.
        missing: usize,
    },
    /// Was here before.
    Duplicate,
    /// Is one of this participant's own.
    Own,
    /// Said what its sender has and misses, and had no content.
    Sync,
    /// Was delivered at once and is not kept.
    Ephemeral,
    /// Is so old that nobody can tell whether it was delivered before.
    TooOld,
}
