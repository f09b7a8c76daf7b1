//! Reading a message where it lies: one pass that validates everything, then plain references.

use super::{
    Fields, Profile, entry,
    proto::{Reader, Value, Varints, malformed},
};
use crate::{
    error::{Error, Result, within},
    limits::{
        CAUSAL_MAX, CONTENT_LEN_MAX, HINT_LEN_MAX, ID_LEN_MAX, MESSAGE_LEN_MAX, REQUESTS_MAX,
    },
    planted,
};

/// What a message is for, told by which fields it has (LIP-109, Message; Periodic Sync Message;
/// Ephemeral Messages).
///
/// Example: see [`MessageView`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Has content and a place in the order.
    Content,
    /// Has a place in the order and no content: carries history, filter and requests.
    Sync,
    /// Has content and no place in the order.
    Ephemeral,
}

/// A message that was validated and is read where it lies.
///
/// ```
/// use mainstay_sds::wire::{Kind, MessageView, Profile};
/// let bytes = [0x0a, 2, b'm', b'1', 0x10, 5, 0x22, 1, b'c', 0x2a, 1, 9, 0x32, 0];
/// let message = MessageView::parse(Profile::Nim, &bytes)?;
/// assert_eq!((message.id, message.lamport, message.kind()), (&b"m1"[..], Some(5), Kind::Content));
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MessageView<'a> {
    /// The profile it was read with.
    pub profile: Profile,
    /// The message's id.
    pub id: &'a [u8],
    /// Who sent it first; empty if it does not say.
    pub sender: &'a [u8],
    /// The channel it is for.
    pub channel: &'a [u8],
    /// Its Lamport time, in the profile's unit.
    pub lamport: Option<u64>,
    /// Its content; an empty one counts as none (LIP-109, Periodic Sync Message).
    pub content: Option<&'a [u8]>,
    /// Its filter, as it stands there.
    pub filter: Option<&'a [u8]>,
    /// What it depends on.
    pub causal: Entries<'a>,
    /// What its sender misses (LIP-109, SDS-R message fields).
    pub requests: Entries<'a>,
}

impl<'a> MessageView<'a> {
    /// Validates the whole message.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no message of `profile`, [`Error::OtherProfile`] if it is one
    /// of the other, [`Error::Limit`] if it has more of something than is taken.
    ///
    /// Example: see [`MessageView`].
    pub fn parse(profile: Profile, bytes: &'a [u8]) -> Result<Self> {
        within("length of the message", bytes.len() as u64, 0, MESSAGE_LEN_MAX as u64)?;
        let parsed = Parsed::read(profile, bytes);
        match parsed {
            Ok(parsed) => parsed.checked(profile, bytes),
            // What the wrong profile reads as noise or as an absent field deserves a better word.
            Err(error) => Err(Self::other(profile, bytes).unwrap_or(error)),
        }
    }

    fn other(expected: Profile, bytes: &[u8]) -> Option<Error> {
        let found = Profile::sniff(bytes)?;
        (found != expected).then_some(Error::OtherProfile { expected, found })
    }

    /// What the message is for.
    ///
    /// Example: see [`MessageView`].
    #[must_use]
    pub fn kind(&self) -> Kind {
        match (self.lamport, self.content) {
            (Some(_), Some(_)) => Kind::Content,
            (Some(_), None) => Kind::Sync,
            (None, _) => Kind::Ephemeral,
        }
    }
}

/// The fields as they were found.
struct Parsed<'a> {
    id: Option<&'a [u8]>,
    sender: Option<&'a [u8]>,
    channel: Option<&'a [u8]>,
    lamport: Option<u64>,
    content: Option<&'a [u8]>,
    filter: Option<&'a [u8]>,
    causal: Entries<'a>,
    requests: Entries<'a>,
}

impl<'a> Parsed<'a> {
    fn read(profile: Profile, bytes: &'a [u8]) -> Result<Self> {
        let fields: &Fields = profile.fields();
        let varints = profile.varints();
        let entries = |number| Entries { bytes, at: 0, left: 0, number, varints };
        let mut parsed = Parsed {
            id: None,
            sender: None,
            channel: None,
            lamport: None,
            content: None,
            filter: None,
            causal: entries(fields.causal),
            requests: entries(fields.requests),
        };
        let mut reader = Reader::new(bytes, varints);
        loop {
            let at = reader.at();
            let Some((number, value)) = reader.field()? else { return Ok(parsed) };
            // Of a field that comes twice the last one counts; one of another wire type than it
            // should have counts as absent.
            match value {
                Value::Varint(value) if number == fields.lamport => parsed.lamport = Some(value),
                Value::Bytes(value) => {
                    if number == fields.causal {
                        parsed.causal.count("causal history", CAUSAL_MAX, at, value)?;
                    } else if number == fields.requests {
                        parsed.requests.count("repair requests", REQUESTS_MAX, at, value)?;
                    } else if number == fields.filter {
                        parsed.filter = Some(value);
                    } else if number == fields.content {
                        parsed.content = Some(value);
                    } else if number == fields.id {
                        parsed.id = Some(value);
                    } else if number == fields.sender {
                        parsed.sender = Some(value);
                    } else if number == fields.channel {
                        parsed.channel = Some(value);
                    }
                }
                Value::Varint(_) | Value::Fixed => {}
            }
        }
    }

    fn checked(self, profile: Profile, bytes: &[u8]) -> Result<MessageView<'a>> {
        let absent = |what| {
            MessageView::other(profile, bytes).unwrap_or_else(|| malformed(what, bytes.len()))
        };
        // The peers of the nim profile refuse a message without one of these four.
        let (id, channel) = match profile {
            Profile::Nim => {
                if self.lamport.is_none() {
                    return Err(absent("an end without a Lamport time"));
                }
                if self.content.is_none() {
                    return Err(absent("an end without a content field"));
                }
                (
                    self.id.ok_or_else(|| absent("an end without an id"))?,
                    self.channel.ok_or_else(|| absent("an end without a channel"))?,
                )
            }
            // Of proto3 an absent string is an empty one; a message without an id is useless.
            Profile::Lip => (
                self.id.ok_or_else(|| absent("an end without an id"))?,
                self.channel.unwrap_or_default(),
            ),
        };
        let content = self.content.filter(|content| !content.is_empty());
        if self.lamport.is_none() && content.is_none() {
            return Err(absent("an end without a Lamport time and without content"));
        }
        if let Some(lamport) = self.lamport
            && lamport >= 1 << 63
        {
            // These crash the nim peers.
            return Err(malformed("a Lamport time past all limits", 0));
        }
        let sender = self.sender.unwrap_or_default();
        for (what, len) in [
            ("length of the message's id", id.len()),
            ("length of the sender's id", sender.len()),
            ("length of the channel's name", channel.len()),
        ] {
            let max = if planted("message-id-unchecked") { MESSAGE_LEN_MAX } else { ID_LEN_MAX };
            within(what, len as u64, 0, max as u64)?;
        }
        let len = content.map_or(0, <[u8]>::len);
        within("length of the content", len as u64, 0, CONTENT_LEN_MAX as u64)?;
        Ok(MessageView {
            profile,
            id,
            sender,
            channel,
            lamport: self.lamport,
            content,
            filter: self.filter,
            causal: self.causal,
            requests: self.requests,
        })
    }
}

/// The entries of a causal history or of the repair requests, read lazily.
///
/// Example: see [`Entries::iter`].
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    /// Where the first one stands.
    at: usize,
    left: usize,
    number: u64,
    varints: Varints,
}

impl<'a> Entries<'a> {
    /// How many there are.
    ///
    /// Example: see [`Entries::iter`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.left
    }

    /// Whether there are none.
    ///
    /// Example: see [`Entries::iter`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// One after the other, in the order of the message.
    ///
    /// ```
    /// use mainstay_sds::wire::{HistoryEntry, Message, MessageView, Profile};
    /// let causal = vec![HistoryEntry::of(b"m1"), HistoryEntry::of(b"m2")];
    /// let message = Message { id: b"m3".to_vec(), lamport: Some(3), causal, ..Message::default() };
    /// let bytes = message.encode(Profile::Lip);
    /// let view = MessageView::parse(Profile::Lip, &bytes)?;
    /// assert_eq!((view.causal.len(), view.causal.is_empty()), (2, false));
    /// assert!(view.causal.iter().map(|entry| entry.id).eq([b"m1", b"m2"]));
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = EntryView<'a>> + use<'a> {
        let Self { bytes, at, mut left, number, varints } = *self;
        let mut reader = Reader::starting_at(bytes, at, varints);
        std::iter::from_fn(move || {
            // W1: the whole message was validated, so nothing here ends early.
            while left > 0 {
                let (found, value) = reader.field().ok()??;
                if let Value::Bytes(bytes) = value
                    && found == number
                {
                    left -= 1;
                    return EntryView::parse(bytes, varints).ok();
                }
            }
            None
        })
    }

    /// Notes one more entry, which begins at `at`. The count is checked before the entry is read,
    /// so that a list over the limit costs nothing.
    fn count(&mut self, what: &'static str, max: usize, at: usize, bytes: &[u8]) -> Result<()> {
        within(what, self.left as u64 + 1, 0, max as u64)?;
        if self.left == 0 {
            self.at = at;
        }
        self.left += 1;
        EntryView::parse(bytes, self.varints).map(drop)
    }
}

/// One entry of a causal history or of the repair requests (LIP-109, Message: `HistoryEntry`).
///
/// Example: see [`Entries::iter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryView<'a> {
    /// The id of the message meant.
    pub id: &'a [u8],
    /// How to find it, in words of the application; empty if not said.
    pub hint: &'a [u8],
    /// Who sent it first; empty if not said.
    pub sender: &'a [u8],
}

impl<'a> EntryView<'a> {
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8], varints: Varints) -> Result<Self> {
        let mut id = None;
        let mut entry = Self { id: &[], hint: &[], sender: &[] };
        let mut reader = Reader::new(bytes, varints);
        while let Some((number, value)) = reader.field()? {
            let Value::Bytes(value) = value else { continue };
            match number {
                entry::ID => id = Some(value),
                entry::HINT => entry.hint = value,
                entry::SENDER => entry.sender = value,
                _ => {}
            }
        }
        // Field 1 is written by all peers, and the nim ones refuse an entry without it. Those of
        // the other profile leave an empty string out.
        entry.id = match (id, varints) {
            (Some(id), _) => id,
            (None, Varints::Any) => &[],
            (None, Varints::Minimal) => return Err(malformed("a history entry without an id", 0)),
        };
        within("length of an id in the history", entry.id.len() as u64, 0, ID_LEN_MAX as u64)?;
        within(
            "length of a sender in the history",
            entry.sender.len() as u64,
            0,
            ID_LEN_MAX as u64,
        )?;
        within("length of a retrieval hint", entry.hint.len() as u64, 0, HINT_LEN_MAX as u64)?;
        Ok(entry)
    }
}
