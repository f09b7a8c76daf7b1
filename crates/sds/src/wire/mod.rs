//! Messages as bytes, in two profiles.
//!
//! The specification and the two implementations in the field do not understand each other: other
//! field numbers, other clocks, other hashes. A [`Profile`] decides all of that; the rest of the
//! crate is written once. The bytes, field by field, are in `docs/format/sds.md`.
//!
//! Guarantees:
//!
//! * W1. Whatever is accepted was validated as a whole before anything is used of it: lengths,
//!   counts, wire types. Reading on cannot fail.
//! * W2. What is accepted and refused is what the peers of that profile accept and refuse, apart
//!   from the limits, and from what would crash them.
//! * W3. A message that was read is written again in one canonical form; what the profile does not
//!   know is dropped.

mod body;
mod message;
pub(crate) mod proto;
mod view;

pub(crate) use body::{Body, FIELDS_LEN, entry_len, put_entry, write_head};
pub use message::{HistoryEntry, Message};
pub use view::{Entries, EntryView, Kind, MessageView};

use std::fmt;

use proto::{Reader, Value, Varints};

/// Which dialect a channel speaks: bytes, clock unit and hashes.
///
/// ```
/// use mainstay_sds::wire::Profile;
/// let nim = [0x0a, 0x02, b'm', b'1', 0x10, 0x01];
/// assert_eq!(Profile::sniff(&nim), Some(Profile::Nim));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The layout of the specification (LIP-109, Message), with the filter and the repair hash of
    /// `@waku/sds`, which the specification leaves open. Lamport times are milliseconds.
    Lip,
    /// That of `nim-sds` and what is built on it. Lamport times are seconds.
    Nim,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lip => "lip",
            Self::Nim => "nim",
        })
    }
}

impl Profile {
    /// Which profile a message is of, by the wire type of its field 2: a number in one, a string
    /// in the other. `None` if it has no such field, or is no message at all.
    ///
    /// Example: see [`Profile`].
    #[must_use]
    pub fn sniff(message: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(message, Varints::Any);
        while let Ok(Some((number, value))) = reader.field() {
            match (number, value) {
                (2, Value::Varint(_)) => return Some(Self::Nim),
                (2, Value::Bytes(_)) => return Some(Self::Lip),
                _ => {}
            }
        }
        None
    }

    /// The channel a message names, if it is of this profile, without reading all of it.
    ///
    /// ```
    /// use mainstay_sds::wire::{Message, Profile};
    /// let message = Message { channel: b"room".to_vec(), ..Message::default() };
    /// let bytes = message.encode(Profile::Lip);
    /// assert_eq!(Profile::Lip.channel_of(&bytes), Some(&b"room"[..]));
    /// ```
    #[must_use]
    pub fn channel_of(self, message: &[u8]) -> Option<&[u8]> {
        let fields = self.fields();
        let mut reader = Reader::new(message, self.varints());
        let mut channel = None;
        while let Ok(Some((number, value))) = reader.field() {
            if let Value::Bytes(bytes) = value
                && number == fields.channel
            {
                channel = Some(bytes);
            }
        }
        channel
    }

    /// How long a Lamport unit is, in milliseconds.
    pub(crate) fn unit_ms(self) -> u64 {
        match self {
            Self::Lip => 1,
            Self::Nim => 1000,
        }
    }

    pub(crate) fn varints(self) -> Varints {
        match self {
            Self::Lip => Varints::Any,
            Self::Nim => Varints::Minimal,
        }
    }

    pub(crate) fn fields(self) -> &'static Fields {
        match self {
            Self::Lip => &LIP,
            Self::Nim => &NIM,
        }
    }
}

/// The numbers of a message's fields.
pub(crate) struct Fields {
    pub(crate) sender: u64,
    pub(crate) id: u64,
    pub(crate) channel: u64,
    pub(crate) lamport: u64,
    pub(crate) causal: u64,
    pub(crate) filter: u64,
    pub(crate) requests: u64,
    pub(crate) content: u64,
}

/// LIP-109, Message.
const LIP: Fields = Fields {
    sender: 1,
    id: 2,
    channel: 3,
    lamport: 10,
    causal: 11,
    filter: 12,
    requests: 13,
    content: 20,
};

/// The numbers of `nim-sds`.
const NIM: Fields = Fields {
    id: 1,
    lamport: 2,
    causal: 3,
    channel: 4,
    content: 5,
    filter: 6,
    sender: 7,
    requests: 13,
};

/// The numbers of a history entry's fields, the same in both profiles (LIP-109, Message).
pub(crate) mod entry {
    pub(crate) const ID: u64 = 1;
    pub(crate) const HINT: u64 = 2;
    pub(crate) const SENDER: u64 = 3;
}
