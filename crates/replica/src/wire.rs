//! The messages between a leader and its followers, as bytes. The tables are in
//! `docs/format/stream.md`.
//!
//! * V1. What is decoded is within its limits, and exactly as long as it says; nothing is copied or
//!   allocated for it.

use bytes::{BufMut, Bytes, BytesMut};
use mainstay_store::{Identity, Position};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use crate::limits::{
    HASHES_MAX, MESSAGE_BYTES_MAX, PART_BITS_MAX, TEXT_BYTES_MAX, VERSION, WRITE_BYTES_MAX,
};

/// The front of every message.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    kind: u8,
    flags: u8,
    shard: U16,
    count: U32,
    epoch: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Place {
    epoch: U64,
    sequence: U64,
    sum: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HelloBody {
    magic: [u8; 4],
    version: U32,
    id: [u8; 16],
    shards: U32,
    key_len: U32,
    value_len: U32,
    reserved: U32,
    write_bytes_max: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct InfoBody {
    from: Place,
    records: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WantBody {
    first: U32,
    last: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WriteHead {
    place: Place,
    len: U32,
    changes: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct AckBody {
    shard: U32,
    reserved: U32,
    received: U64,
    applied: U64,
    durable: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RefusalBody {
    reason: U16,
    text: U16,
    reserved: U32,
    ours: U64,
    theirs: U64,
}

const HEAD: usize = size_of::<Head>();
const MAGIC: [u8; 4] = *b"MSST";

const _: () = {
    use std::mem::offset_of;
    assert!(HEAD == 16);
    assert!(offset_of!(Head, shard) == 2);
    assert!(offset_of!(Head, count) == 4);
    assert!(offset_of!(Head, epoch) == 8);
    assert!(size_of::<Place>() == 24);
    assert!(size_of::<HelloBody>() == 48);
    assert!(offset_of!(HelloBody, shards) == 24);
    assert!(offset_of!(HelloBody, write_bytes_max) == 40);
    assert!(size_of::<InfoBody>() == 32);
    assert!(size_of::<WantBody>() == 8);
    assert!(size_of::<WriteHead>() == 32);
    assert!(offset_of!(WriteHead, changes) == 28);
    assert!(size_of::<AckBody>() == 32);
    assert!(size_of::<RefusalBody>() == 24);
    assert!(offset_of!(RefusalBody, ours) == 8);
};

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
}

impl Default for Hello {
    fn default() -> Self {
        let identity = Identity { id: [0; 16], key_len: 0, value_len: 0, shards: 0 };
        Self { version: VERSION, is_blank: false, identity, write_bytes_max: 0 }
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
    fn of(flags: u8) -> Option<Self> {
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
}

impl Reason {
    const ALL: [Self; 10] = [
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
            _ => write!(f, ": {ours} and {theirs}"),
        }
    }
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
    /// From the leader: records that the follower lacks, keys and values one behind the other.
    Records {
        /// Which shard.
        shard: u32,
        /// How many.
        count: u32,
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
        /// See [`writes`].
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
        /// See [`acks`].
        acks: &'a [u8],
    },
    /// A sign of life; never an answer to one. From the leader with its last writes.
    Alive {
        /// For each shard from 0 on, eight bytes each.
        tips: &'a [u8],
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

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const SYNC: u8 = 3;
const INFO: u8 = 4;
const SUMMARY: u8 = 5;
const DIFFER: u8 = 6;
const WANT: u8 = 7;
const RECORDS: u8 = 8;
const STALE: u8 = 9;
const ROUND: u8 = 10;
const WRITES: u8 = 11;
const CAUGHT_UP: u8 = 12;
const ACK: u8 = 13;
const ALIVE: u8 = 14;
const REFUSED: u8 = 255;

impl Message<'_> {
    /// Hashes or sums as bytes.
    ///
    /// Example: see [`Message`].
    #[must_use]
    pub fn hashes(hashes: &[u64]) -> Vec<u8> {
        hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect()
    }

    /// Acknowledgements as bytes.
    ///
    /// Example: see [`Message`].
    #[must_use]
    pub fn acks(acks: &[Acked]) -> Vec<u8> {
        let bytes = acks.iter().flat_map(|ack| {
            let body = AckBody {
                shard: ack.shard.into(),
                reserved: 0.into(),
                received: ack.received.into(),
                applied: ack.applied.into(),
                durable: ack.durable.into(),
            };
            body.as_bytes().to_vec()
        });
        bytes.collect()
    }
}

fn place_of(position: Position) -> Place {
    Place {
        epoch: position.epoch.into(),
        sequence: position.sequence.into(),
        sum: position.sum.into(),
    }
}

fn position_of(place: &Place) -> Position {
    Position { epoch: place.epoch.get(), sequence: place.sequence.get(), sum: place.sum.get() }
}

/// The bytes of a message of this epoch.
///
/// Example: see [`Message`].
#[must_use]
pub fn encode(epoch: u64, message: &Message<'_>) -> Bytes {
    let mut out = BytesMut::new();
    let mut head =
        Head { kind: 0, flags: 0, shard: 0.into(), count: 0.into(), epoch: epoch.into() };
    let mut begin = |kind: u8, flags: u8, shard: u32, count: usize, body: &[u8], rest: &[u8]| {
        (head.kind, head.flags) = (kind, flags);
        // Stores have at most 1,024 shards.
        head.shard = (shard as u16).into();
        head.count = (count as u32).into();
        out.reserve(HEAD + body.len() + rest.len());
        out.put_slice(head.as_bytes());
        out.put_slice(body);
        out.put_slice(rest);
    };
    match message {
        Message::Hello(hello) => {
            begin(HELLO, u8::from(hello.is_blank), 0, 0, hello_body(hello).as_bytes(), &[]);
        }
        Message::Welcome(hello) => begin(WELCOME, 0, 0, 0, hello_body(hello).as_bytes(), &[]),
        Message::Sync { shard, at, is_empty } => {
            let flags = u8::from(at.is_some()) | u8::from(*is_empty) << 1;
            begin(SYNC, flags, *shard, 0, place_of(at.unwrap_or_default()).as_bytes(), &[]);
        }
        Message::Info { shard, way, from, records } => {
            let body = InfoBody { from: place_of(*from), records: (*records).into() };
            begin(INFO, *way as u8, *shard, 0, body.as_bytes(), &[]);
        }
        Message::Summary { shard, bits, sums } => {
            begin(SUMMARY, *bits, *shard, sums.len() / 8, &[], sums);
        }
        Message::Differ { shard, parts } => begin(DIFFER, 0, *shard, parts.len(), &[], parts),
        Message::Want { shard, first, last, ends, is_last, hashes } => {
            let body = WantBody { first: (*first).into(), last: (*last).into() };
            let flags = u8::from(*ends) | u8::from(*is_last) << 1;
            begin(WANT, flags, *shard, hashes.len() / 8, body.as_bytes(), hashes);
        }
        Message::Records { shard, count, bytes } => {
            begin(RECORDS, 0, *shard, *count as usize, &[], bytes);
        }
        Message::Stale { shard, hashes } => begin(STALE, 0, *shard, hashes.len() / 8, &[], hashes),
        Message::Round { shard } => begin(ROUND, 0, *shard, 0, &[], &[]),
        Message::Writes { shard, tip, count, bytes } => {
            begin(WRITES, 0, *shard, *count as usize, &tip.to_le_bytes(), bytes);
        }
        Message::CaughtUp { shard, at } => {
            begin(CAUGHT_UP, 0, *shard, 0, place_of(*at).as_bytes(), &[]);
        }
        Message::Ack { allowance, acks } => {
            let count = acks.len() / size_of::<AckBody>();
            begin(ACK, 0, 0, count, &allowance.to_le_bytes(), acks);
        }
        Message::Alive { tips } => begin(ALIVE, 0, 0, tips.len() / 8, &[], tips),
        Message::Refused(refusal) => {
            let text = cut(refusal.text);
            let body = RefusalBody {
                reason: (refusal.reason as u16).into(),
                text: (text.len() as u16).into(),
                reserved: 0.into(),
                ours: refusal.ours.into(),
                theirs: refusal.theirs.into(),
            };
            begin(REFUSED, 0, 0, 0, body.as_bytes(), text.as_bytes());
        }
    }
    out.freeze()
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn hello_body(hello: &Hello) -> HelloBody {
    HelloBody {
        magic: MAGIC,
        version: hello.version.into(),
        id: hello.identity.id,
        shards: hello.identity.shards.into(),
        key_len: (hello.identity.key_len as u32).into(),
        value_len: (hello.identity.value_len as u32).into(),
        reserved: 0.into(),
        write_bytes_max: hello.write_bytes_max.into(),
    }
}

fn wrong<T>(what: &'static str) -> Result<T, WireError> {
    Err(WireError::Wrong { what })
}

fn take<T: FromBytes>(bytes: &[u8]) -> Result<(T, &[u8]), WireError> {
    T::read_from_prefix(bytes).map_err(|_| WireError::TooShort)
}

/// The epoch and the message that these bytes are (V1).
///
/// Example: see [`Message`].
///
/// # Errors
/// What is wrong with them.
pub fn decode(bytes: &[u8]) -> Result<(u64, Message<'_>), WireError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLong { bytes: bytes.len() });
    }
    let (head, body) = take::<Head>(bytes)?;
    let message = Parser {
        flags: head.flags,
        shard: head.shard.get().into(),
        count: head.count.get() as usize,
        body,
    }
    .message(head.kind)?;
    Ok((head.epoch.get(), message))
}

struct Parser<'a> {
    flags: u8,
    shard: u32,
    count: usize,
    body: &'a [u8],
}

impl<'a> Parser<'a> {
    fn message(&self, kind: u8) -> Result<Message<'a>, WireError> {
        let (shard, body) = (self.shard, self.body);
        match kind {
            HELLO => Ok(Message::Hello(self.hello(1)?)),
            WELCOME => Ok(Message::Welcome(self.hello(0)?)),
            SYNC => {
                self.flags_within(3)?;
                let place = self.only::<Place>()?;
                let at = (self.flags & 1 == 1).then(|| position_of(&place));
                Ok(Message::Sync { shard, at, is_empty: self.flags & 2 == 2 })
            }
            INFO => {
                let info = self.only::<InfoBody>()?;
                let Some(way) = Way::of(self.flags) else { return wrong("an unknown way") };
                let from = position_of(&info.from);
                Ok(Message::Info { shard, way, from, records: info.records.get() })
            }
            SUMMARY => {
                if self.flags > PART_BITS_MAX {
                    return wrong("more parts than there may be");
                }
                if self.count != 0 && self.count != 1 << self.flags {
                    return wrong("not a sum for each part");
                }
                Ok(Message::Summary { shard, bits: self.flags, sums: self.list(8, body)? })
            }
            DIFFER => {
                self.flags_within(0)?;
                if self.count > 1 << (PART_BITS_MAX - 3) {
                    return wrong("more parts than there may be");
                }
                Ok(Message::Differ { shard, parts: self.list(1, body)? })
            }
            WANT => {
                self.flags_within(3)?;
                let (want, rest) = take::<WantBody>(body)?;
                let (first, last) = (want.first.get(), want.last.get());
                if first > last || last >= 1 << PART_BITS_MAX {
                    return wrong("parts that cannot be");
                }
                let hashes = self.hashes(rest)?;
                let (ends, is_last) = (self.flags & 1 == 1, self.flags & 2 == 2);
                Ok(Message::Want { shard, first, last, ends, is_last, hashes })
            }
            RECORDS => {
                self.flags_within(0)?;
                let count = self.count as u32;
                let fits = match count {
                    0 => body.is_empty(),
                    _ => body.len().is_multiple_of(self.count) && !body.is_empty(),
                };
                if !fits {
                    return wrong("records that do not fill it");
                }
                Ok(Message::Records { shard, count, bytes: body })
            }
            STALE => {
                self.flags_within(0)?;
                Ok(Message::Stale { shard, hashes: self.hashes(body)? })
            }
            ROUND => self.only::<[u8; 0]>().map(|_| Message::Round { shard }),
            WRITES => {
                self.flags_within(0)?;
                let (tip, rest) = take::<U64>(body)?;
                check_writes(rest, self.count)?;
                let count = self.count as u32;
                Ok(Message::Writes { shard, tip: tip.get(), count, bytes: rest })
            }
            CAUGHT_UP => {
                self.flags_within(0)?;
                let place = self.only::<Place>()?;
                Ok(Message::CaughtUp { shard, at: position_of(&place) })
            }
            ACK => {
                self.flags_within(0)?;
                let (allowance, rest) = take::<U64>(body)?;
                let acks = self.list(size_of::<AckBody>(), rest)?;
                Ok(Message::Ack { allowance: allowance.get(), acks })
            }
            ALIVE => {
                self.flags_within(0)?;
                Ok(Message::Alive { tips: self.list(8, body)? })
            }
            REFUSED => self.refusal(),
            kind => Err(WireError::Kind { kind }),
        }
    }

    fn flags_within(&self, known: u8) -> Result<(), WireError> {
        if self.flags & !known == 0 { Ok(()) } else { wrong("unknown flags") }
    }

    /// The body, if it is this and nothing else.
    fn only<T: FromBytes>(&self) -> Result<T, WireError> {
        let (body, rest) = take::<T>(self.body)?;
        if rest.is_empty() && self.count == 0 { Ok(body) } else { wrong("bytes behind its end") }
    }

    /// A list that fills the rest.
    fn list(&self, size: usize, rest: &'a [u8]) -> Result<&'a [u8], WireError> {
        if self.count.checked_mul(size) == Some(rest.len()) {
            return Ok(rest);
        }
        wrong("another number of entries than it says")
    }

    fn hashes(&self, rest: &'a [u8]) -> Result<&'a [u8], WireError> {
        if self.count > HASHES_MAX {
            return wrong("more hashes than there may be");
        }
        self.list(8, rest)
    }

    fn hello(&self, known: u8) -> Result<Hello, WireError> {
        self.flags_within(known)?;
        let body = self.only::<HelloBody>()?;
        if body.magic != MAGIC {
            return wrong("another beginning than replicas have");
        }
        Ok(Hello {
            version: body.version.get(),
            is_blank: self.flags & 1 == 1,
            identity: Identity {
                id: body.id,
                key_len: body.key_len.get() as usize,
                value_len: body.value_len.get() as usize,
                shards: body.shards.get(),
            },
            write_bytes_max: body.write_bytes_max.get(),
        })
    }

    fn refusal(&self) -> Result<Message<'a>, WireError> {
        let (body, rest) = take::<RefusalBody>(self.body)?;
        let reason = Reason::ALL.into_iter().find(|one| *one as u16 == body.reason.get());
        let Some(reason) = reason else { return wrong("an unknown reason") };
        if rest.len() > TEXT_BYTES_MAX || rest.len() != usize::from(body.text.get()) {
            return wrong("a text of another length than it says");
        }
        let Ok(text) = std::str::from_utf8(rest) else { return wrong("a text that is none") };
        let (ours, theirs) = (body.ours.get(), body.theirs.get());
        Ok(Message::Refused(Refusal { reason, ours, theirs, text }))
    }
}

/// A write on its way.
///
/// Example: see [`writes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// Where it leads.
    pub position: Position,
    /// How many changes it has.
    pub count: u32,
    /// Their bytes, as in a log.
    pub changes: &'a [u8],
}

/// Appends a write to those of a message.
///
/// Example: see [`writes`].
pub fn put_write(write: &Write<'_>, out: &mut Vec<u8>) {
    let head = WriteHead {
        place: place_of(write.position),
        len: (write.changes.len() as u32).into(),
        changes: write.count.into(),
    };
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(write.changes);
}

/// The writes of a message.
///
/// ```
/// use mainstay_replica::wire::{Message, Write, decode, encode, put_write, writes};
/// use mainstay_store::Position;
/// let write = Write { position: Position { epoch: 1, sequence: 5, sum: 9 }, count: 0, changes: b"" };
/// let mut bytes = Vec::new();
/// put_write(&write, &mut bytes);
/// let message = Message::Writes { shard: 0, tip: 5, count: 1, bytes: &bytes };
/// let encoded = encode(1, &message);
/// let Ok((1, Message::Writes { bytes, .. })) = decode(&encoded) else { panic!() };
/// assert_eq!(writes(bytes).collect::<Vec<_>>(), [write]);
/// ```
pub fn writes(mut bytes: &[u8]) -> impl Iterator<Item = Write<'_>> {
    std::iter::from_fn(move || {
        let (write, rest) = next_write(bytes)?;
        bytes = rest;
        Some(write)
    })
}

fn next_write(bytes: &[u8]) -> Option<(Write<'_>, &[u8])> {
    let (head, rest) = WriteHead::read_from_prefix(bytes).ok()?;
    let (changes, rest) = rest.split_at_checked(head.len.get() as usize)?;
    let write = Write { position: position_of(&head.place), count: head.changes.get(), changes };
    Some((write, rest))
}

fn check_writes(mut bytes: &[u8], count: usize) -> Result<(), WireError> {
    for _ in 0..count {
        let Some((write, rest)) = next_write(bytes) else { return Err(WireError::TooShort) };
        if write.changes.len() > WRITE_BYTES_MAX {
            return wrong("a write that is longer than any");
        }
        bytes = rest;
    }
    if bytes.is_empty() { Ok(()) } else { wrong("bytes behind its end") }
}

/// The entries of an acknowledgement.
///
/// ```
/// use mainstay_replica::wire::{Acked, Message, acks};
/// let ack = Acked { shard: 1, received: 4, applied: 3, durable: 2 };
/// assert_eq!(acks(&Message::acks(&[ack])).collect::<Vec<_>>(), [ack]);
/// ```
pub fn acks(bytes: &[u8]) -> impl Iterator<Item = Acked> + '_ {
    bytes.chunks_exact(size_of::<AckBody>()).filter_map(|entry| {
        let body = AckBody::read_from_bytes(entry).ok()?;
        Some(Acked {
            shard: body.shard.get(),
            received: body.received.get(),
            applied: body.applied.get(),
            durable: body.durable.get(),
        })
    })
}

/// The hashes, sums or tips of a message.
///
/// ```
/// use mainstay_replica::wire::{Message, hashes};
/// assert_eq!(hashes(&Message::hashes(&[7, 8])).collect::<Vec<_>>(), [7, 8]);
/// ```
pub fn hashes(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).filter_map(|eight| U64::read_from_bytes(eight).ok().map(U64::get))
}

#[cfg(test)]
mod tests;
