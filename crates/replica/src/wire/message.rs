//! What a leader and its followers say.

use mainstay_store::{Identity, Position};

use crate::limits::VERSION;

/// Who is there: what replicas of one store have in common.
///
/// ```
/// use mainstay_replica::{limits, wire::Hello};
/// let hello = Hello { is_blank: true, ..Hello::default() };
/// assert_eq!(hello.version, limits::VERSION);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of the protocol.
    pub version: u32,
    /// A follower that has no store yet, and asks what to make.
    pub is_blank: bool,
    /// What the store is.
    pub identity: Identity,
    /// The longest write it can take.
    pub write_bytes_max: u64,
    /// Whether long messages can come to it in parts.
    pub takes_parts: bool,
}

impl Default for Hello {
    fn default() -> Self {
        let identity = Identity {
            id: [0; 16],
            key_len: 0,
            value_len: 0,
            shards: 0,
            shard_bits: 0,
            has_ends: false,
        };
        Self { version: VERSION, is_blank: false, identity, write_bytes_max: 0, takes_parts: true }
    }
}

/// How a shard of a follower gets to where the leader's is.
///
/// Example: see [`Message::Info`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Way {
    /// The leader's log goes on from where the follower is.
    Resume = 0,
    /// By comparing: the follower was at no place, or never had anything.
    Unfinished = 1,
    /// By comparing: the leader's log begins later. Whether the follower's place was ever the
    /// leader's cannot be told any more.
    Older = 2,
    /// By comparing: the leader was never where the follower is.
    Diverged = 3,
    /// By comparing: the log was cut before the follower had taken it.
    Cut = 4,
}

impl Way {
    pub(super) fn of(flags: u8) -> Option<Self> {
        [Self::Resume, Self::Unfinished, Self::Older, Self::Diverged, Self::Cut]
            .into_iter()
            .find(|way| *way as u8 == flags)
    }
}

/// Why one end has nothing to do with the other.
///
/// ```
/// use mainstay_replica::wire::{Reason, Refusal};
/// let refusal = Refusal { reason: Reason::Shards, ours: 4, theirs: 2, text: "" };
/// assert_eq!(refusal.to_string(), "the stores differ in the number of shards: 4 and 2");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Reason {
    /// Other versions of the protocol.
    Version = 1,
    /// Replicas of different stores.
    OtherStore = 2,
    /// Another number of shards.
    Shards = 3,
    /// Keys of another length.
    KeyLen = 4,
    /// Values of another length.
    ValueLen = 5,
    /// The follower's store cannot take the leader's longest writes.
    WriteBytes = 6,
    /// There is a leader of a higher epoch.
    Replaced = 7,
    /// The other end does not keep to the protocol.
    Protocol = 8,
    /// A store refused something.
    Failed = 9,
    /// There are as many followers as there may be.
    Full = 10,
    /// Other bits of a key choose its shard.
    ShardBits = 11,
}

impl Reason {
    pub(super) const ALL: [Self; 11] = [
        Self::Version,
        Self::OtherStore,
        Self::Shards,
        Self::KeyLen,
        Self::ValueLen,
        Self::WriteBytes,
        Self::Replaced,
        Self::Protocol,
        Self::Failed,
        Self::Full,
        Self::ShardBits,
    ];
}

/// A refusal, with the values of both ends where they matter; whoever sends it ends the channel.
///
/// Example: see [`Reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// Why.
    pub reason: Reason,
    /// The value at the end that refuses.
    pub ours: u64,
    /// The value at the end that is refused.
    pub theirs: u64,
    /// More about it, for people.
    pub text: &'a str,
}

impl std::fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { reason, ours, theirs, text } = self;
        let what = match reason {
            Reason::Version => "the versions of the protocol differ",
            Reason::OtherStore => "these are replicas of different stores",
            Reason::Shards => "the stores differ in the number of shards",
            Reason::ShardBits => "the stores differ in how many bits of a key choose its shard",
            Reason::KeyLen => "the stores differ in the length of keys",
            Reason::ValueLen => "the stores differ in the length of values",
            Reason::WriteBytes => "the stores differ in the longest write they take",
            Reason::Replaced => "there is a leader of a higher epoch",
            Reason::Protocol => "the protocol was broken",
            Reason::Failed => "the store refused something",
            Reason::Full => "there are as many followers as there may be",
        };
        f.write_str(what)?;
        match reason {
            Reason::Protocol | Reason::Failed | Reason::OtherStore => write!(f, ": {text}"),
            Reason::KeyLen | Reason::ValueLen => {
                write!(f, ": {} and {}", length(*ours), length(*theirs))
            }
            _ => write!(f, ": {ours} and {theirs}"),
        }
    }
}

fn length(bytes: u64) -> String {
    if bytes == Identity::ANY as u64 { "any".to_owned() } else { bytes.to_string() }
}

/// How far a follower is with a shard: the last write that it has received, made, and made
/// durable; 0 while it is on its way to a place.
///
/// Example: see [`Message::Ack`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Acked {
    /// Which shard.
    pub shard: u32,
    /// The last write that has arrived.
    pub received: u64,
    /// The last write that readers see.
    pub applied: u64,
    /// The last write that survives a power cut.
    pub durable: u64,
}

/// A message. Lists are left as bytes, and are read by iterators.
///
/// ```
/// use mainstay_replica::wire::{Message, Way, decode, encode};
/// use mainstay_store::Position;
/// let from = Position { epoch: 7, sequence: 12, sum: 3 };
/// let info = Message::Info { shard: 1, way: Way::Resume, from, records: 10 };
/// assert_eq!(decode(&encode(7, &info)), Ok((7, info)));
/// let hashes = Message::hashes(&[1, 2, 3]);
/// let want = Message::Want { shard: 1, first: 0, last: 5, ends: true, is_last: false, hashes: &hashes };
/// assert_eq!(decode(&encode(7, &want)), Ok((7, want)));
/// let summary = Message::Summary { shard: 1, bits: 1, sums: &Message::hashes(&[1, 2]) };
/// assert_eq!(decode(&encode(7, &summary)), Ok((7, summary)));
/// let ack = Message::Ack { allowance: 9, acks: &Message::acks(&[Default::default()]) };
/// assert_eq!(decode(&encode(7, &ack)), Ok((7, ack)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// From the follower, first.
    Hello(Hello),
    /// The leader's answer.
    Welcome(Hello),
    /// From the follower: this is where a shard is.
    Sync {
        /// Which shard.
        shard: u32,
        /// Where it is; none: on its way from one place to another.
        at: Option<Position>,
        /// It has no records.
        is_empty: bool,
    },
    /// From the leader: this is how it gets on.
    Info {
        /// Which shard.
        shard: u32,
        /// How.
        way: Way,
        /// What the leader sends of its log begins behind this place.
        from: Position,
        /// How many records the leader has, about.
        records: u64,
    },
    /// From the follower: sums of its records, part by part; none if it has no records.
    Summary {
        /// Which shard.
        shard: u32,
        /// How many bits of a key's hash choose its part.
        bits: u8,
        /// Eight bytes each.
        sums: &'a [u8],
    },
    /// From the leader: a bit for each part, set where the sums differ.
    Differ {
        /// Which shard.
        shard: u32,
        /// The lowest bit of the first byte is for part 0.
        parts: &'a [u8],
    },
    /// From the follower: the hashes of the records it has in some of the parts that differ.
    Want {
        /// Which shard.
        shard: u32,
        /// The first part.
        first: u32,
        /// The last part.
        last: u32,
        /// All hashes of the round have been sent.
        ends: bool,
        /// There will be no further round.
        is_last: bool,
        /// Eight bytes each.
        hashes: &'a [u8],
    },
    /// From the leader: records that the follower lacks, one behind the other: keys with their
    /// values, or records that say how long they are themselves.
    Records {
        /// Which shard.
        shard: u32,
        /// How many.
        count: u32,
        /// Each says how long it is; see [`mainstay_store::read_records`].
        are_any: bool,
        /// Their bytes.
        bytes: &'a [u8],
    },
    /// From the leader: the hashes of records that it does not have.
    Stale {
        /// Which shard.
        shard: u32,
        /// Eight bytes each.
        hashes: &'a [u8],
    },
    /// From the leader: the round is over.
    Round {
        /// Which shard.
        shard: u32,
    },
    /// From the leader: writes, one after the other.
    Writes {
        /// Which shard.
        shard: u32,
        /// The leader's last write.
        tip: u64,
        /// How many.
        count: u32,
        /// See [`writes`](super::writes).
        bytes: &'a [u8],
    },
    /// From the leader: the follower is at this place now, and has all that there was when it came.
    CaughtUp {
        /// Which shard.
        shard: u32,
        /// Where it is.
        at: Position,
    },
    /// From the follower: how far it is.
    Ack {
        /// How many bytes of records, hashes and writes the leader may have sent on this channel.
        allowance: u64,
        /// See [`acks`](super::acks).
        acks: &'a [u8],
    },
    /// A sign of life; never an answer to one. From the leader with its last writes.
    Alive {
        /// For each shard from 0 on, eight bytes each.
        tips: &'a [u8],
    },
    /// From the leader: a part of a message of writes or records that is too long to be sent as one.
    /// Its parts come one after the other.
    Part {
        /// Of which shard.
        shard: u32,
        /// How many bytes the whole message has.
        whole: u64,
        /// Where in it the part begins.
        at: u64,
        /// The bytes there.
        bytes: &'a [u8],
    },
    /// It is over.
    Refused(Refusal<'a>),
}

/// What is wrong with a message.
///
/// ```
/// use mainstay_replica::wire::{WireError, decode};
/// assert_eq!(decode(b""), Err(WireError::TooShort));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// It ends too early.
    #[error("a message ends too early")]
    TooShort,
    /// It is longer than any message.
    #[error("a message of {bytes} bytes is longer than any")]
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Its kind is not known.
    #[error("there is no message of kind {kind}")]
    Kind {
        /// Which.
        kind: u8,
    },
    /// Something in it is not as it has to be.
    #[error("a message has {what}")]
    Wrong {
        /// What.
        what: &'static str,
    },
}
