//! The limits of SDS, all in one place. Each has a test at the limit and one past it.
//!
//! A stranger can send anything, so whatever grows with what is received ends here: with a typed
//! error, or with an eviction that is reported.
//!
//! ```
//! use mainstay_sds::{Channel, Config, Now, limits};
//! let mut channel = Channel::new("room", b"alice", Config::lip())?;
//! let id = vec![b'x'; limits::ID_LEN_MAX];
//! assert!(channel.send(Now::zero(), &id, b"hello").is_ok());
//! let id = vec![b'x'; limits::ID_LEN_MAX + 1];
//! assert!(channel.send(Now::zero(), &id, b"hello").is_err());
//! # Ok::<(), mainstay_sds::Error>(())
//! ```

/// The longest content, in bytes: that of the ancestor.
///
/// Example: see the [module](self).
pub const CONTENT_LEN_MAX: usize = 1 << 20;

/// What a message may have beside its content, in bytes: filter, history, requests, names.
///
/// Example: see the [module](self).
pub const ENVELOPE_LEN_MAX: usize = 256 << 10;

/// The longest message, in bytes.
///
/// Example: see the [module](self).
pub const MESSAGE_LEN_MAX: usize = CONTENT_LEN_MAX + ENVELOPE_LEN_MAX;

/// The least that a channel may be told to be the longest message, in bytes: there is room for the
/// longest ids and names, and for an entry that is cited.
///
/// Example: see the [module](self).
pub const MESSAGE_LEN_MAX_MIN: usize = 2048;

/// The longest id of a message, participant or channel, in bytes.
///
/// Example: see the [module](self).
pub const ID_LEN_MAX: usize = 256;

/// The longest retrieval hint, in bytes.
///
/// Example: see the [module](self).
pub const HINT_LEN_MAX: usize = 1024;

/// The most entries of a causal history. Peers in the field send up to 200.
///
/// Example: see the [module](self).
pub const CAUSAL_MAX: usize = 256;

/// The most repair requests in a message. Peers in the field send 3.
///
/// Example: see the [module](self).
pub const REQUESTS_MAX: usize = 64;

/// The most dependencies a message waits for; of more that are unknown, the latest ones count.
///
/// Example: see the [module](self).
pub const UNKNOWN_PER_MESSAGE_MAX: usize = 64;

/// The most messages of a channel's log.
///
/// Example: see the [module](self).
pub const HISTORY_MAX: usize = 1 << 16;

/// The most ids a filter can be asked to hold.
///
/// Example: see the [module](self).
pub const FILTER_CAPACITY_MAX: u32 = 1 << 15;

/// The most bits of a filter that a peer's message may have.
///
/// Example: see the [module](self).
pub const FILTER_BITS_MAX: u64 = 1 << 24;

/// The most hashes of a filter.
///
/// Example: see the [module](self).
pub const FILTER_HASHES_MAX: u64 = 64;

/// The most messages of one's own that may wait for an acknowledgement.
///
/// Example: see the [module](self).
pub const OUTGOING_MAX: usize = 1 << 16;

/// The most messages that wait for what they depend on.
///
/// Example: see the [module](self).
pub const INCOMING_MAX: usize = 4096;

/// The most bytes of messages that wait for what they depend on.
///
/// Example: see the [module](self).
pub const INCOMING_BYTES_MAX: usize = 16 << 20;

/// The most missing messages a channel remembers.
///
/// Example: see the [module](self).
pub const UNKNOWN_MAX: usize = 16_384;

/// The most missing messages that a channel asks its peers for at a time.
///
/// Example: see the [module](self).
pub const WANTED_MAX: usize = 1000;

/// The most messages that a channel is about to send again for others.
///
/// Example: see the [module](self).
pub const ANSWERS_MAX: usize = 1000;

/// The shortest time between two messages that a channel sends again for others, in milliseconds.
///
/// Example: see the [module](self).
pub const ANSWER_INTERVAL_MS: u64 = 100;

/// The most deliveries that may wait for the application's confirmation.
///
/// Example: see the [module](self).
pub const UNCONFIRMED_MAX: usize = 1 << 16;

/// The most bytes of output that may wait to be polled.
///
/// Example: see the [module](self).
pub const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// The largest Lamport time, exclusive: far from where any peer's arithmetic ends.
///
/// Example: see the [module](self).
pub const LAMPORT_MAX: u64 = 1 << 62;

/// The most channels of a participant.
///
/// Example: see the [module](self).
pub const CHANNELS_MAX: usize = 1 << 17;

/// The most connections of a mesh.
///
/// Example: see the [module](self).
pub const LINKS_MAX: usize = 1024;

/// The most connections of a mesh to one member.
///
/// Example: see the [module](self).
pub const LINKS_PER_MEMBER_MAX: usize = 4;

/// The most messages in an answer of a store node.
///
/// Example: see the [module](self).
pub const ANSWER_MESSAGES_MAX: usize = 256;

/// The most bytes of messages in an answer that has several.
///
/// Example: see the [module](self).
pub const ANSWER_BYTES_MAX: usize = 8 << 20;

/// The longest question to a store node, in bytes behind its length: head, name, numbers, and the
/// longest key.
///
/// Example: see the [module](self).
pub const QUESTION_LEN_MAX: usize = 3 + ID_LEN_MAX + 10 + HINT_LEN_MAX;
