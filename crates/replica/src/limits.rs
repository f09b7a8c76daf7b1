//! All limits of the protocol and of the cores.

/// The version of the protocol. Both ends need the same.
///
/// Example: see [`crate::wire::Hello`].
pub const VERSION: u32 = 1;

/// The longest write in one message, in bytes; longer ones are sent in parts.
///
/// Example: see [`crate::wire::decode`].
pub const WRITE_BYTES_MAX: usize = 32 << 20;

/// The longest message, in bytes: one such write, and what is said about it.
///
/// ```
/// use mainstay_replica::{limits::MESSAGE_BYTES_MAX, wire::{WireError, decode}};
/// let long = vec![0; MESSAGE_BYTES_MAX + 1];
/// assert_eq!(decode(&long), Err(WireError::TooLong { bytes: MESSAGE_BYTES_MAX + 1 }));
/// assert_ne!(decode(&long[1..]), Err(WireError::TooLong { bytes: MESSAGE_BYTES_MAX }));
/// ```
pub const MESSAGE_BYTES_MAX: usize = WRITE_BYTES_MAX + 4096;

/// How long a message of writes or records is at most, in bytes, unless told otherwise; of a longer
/// one parts are sent.
///
/// Example: see [`crate::LeadSettings`].
pub const PART_BYTES: usize = 256 << 10;

/// What a message has at most beside a write as long as they can be, or a record.
pub(crate) const BESIDE_BYTES: u64 = 2 * BATCH_BYTES as u64;

/// How long a message of many writes or records gets, about.
///
/// Example: see [`crate::Leader`].
pub const BATCH_BYTES: usize = 64 << 10;

/// The most bits that choose the part of a shard whose records are compared as one.
///
/// Example: see [`crate::wire::Message::Summary`].
pub const PART_BITS_MAX: u8 = 13;

/// The most hashes in one message.
///
/// Example: see [`crate::wire::Message::Want`].
pub const HASHES_MAX: usize = 8_192;

/// The most hashes that a follower may send for one round of comparing.
///
/// Example: see [`crate::Leader`].
pub const ROUND_HASHES_MAX: usize = 1 << 20;

/// How many records a follower puts into one round, about.
pub(crate) const ROUND_RECORDS: u64 = 1 << 16;

/// How many records share a part of a shard, about.
pub(crate) const PART_RECORDS: u64 = 256;

/// The longest text of a refusal, in bytes.
///
/// Example: see [`crate::wire::Refusal`].
pub const TEXT_BYTES_MAX: usize = 256;

/// The most followers of a leader.
///
/// Example: see [`crate::Leader`].
pub const FOLLOWERS_MAX: usize = 1_024;

/// With how many bytes on their way to a follower a message can be sent without waiting: any
/// transport has room for so many, whatever the other end does.
pub(crate) const AT_ONCE_BYTES: u64 = 8 << 10;
