//! A message that owns its parts: for tools, tests and those who build messages by hand.

use super::{
    EntryView, MessageView, Profile, body,
    proto::{put_bytes_field, put_varint_field},
};
use crate::error::Result;

/// A message with all its parts. The channel itself reads messages where they lie
/// ([`MessageView`]) and never makes one of these.
///
/// ```
/// use mainstay_sds::wire::{Message, Profile};
/// let message = Message {
///     id: b"m1".to_vec(),
///     channel: b"room".to_vec(),
///     lamport: Some(1),
///     content: Some(b"hello".to_vec()),
///     ..Message::default()
/// };
/// let bytes = message.encode(Profile::Lip);
/// assert_eq!(Message::decode(Profile::Lip, &bytes)?, message);
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Message {
    /// The message's id.
    pub id: Vec<u8>,
    /// Who sent it first.
    pub sender: Vec<u8>,
    /// The channel it is for.
    pub channel: Vec<u8>,
    /// Its Lamport time, in the profile's unit; none in an ephemeral message.
    pub lamport: Option<u64>,
    /// What it depends on, in the order of the log.
    pub causal: Vec<HistoryEntry>,
    /// The bytes of its filter.
    pub filter: Option<Vec<u8>>,
    /// What its sender misses.
    pub requests: Vec<HistoryEntry>,
    /// Its content; none in a sync message.
    pub content: Option<Vec<u8>>,
}

/// One entry of a causal history or of the repair requests.
///
/// Example: see [`Entries::iter`](super::Entries::iter).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HistoryEntry {
    /// The id of the message meant.
    pub id: Vec<u8>,
    /// How to find it, in words of the application.
    pub hint: Vec<u8>,
    /// Who sent it first.
    pub sender: Vec<u8>,
}

impl HistoryEntry {
    /// An entry that says the id only.
    ///
    /// Example: see [`Entries::iter`](super::Entries::iter).
    #[must_use]
    pub fn of(id: &[u8]) -> Self {
        Self { id: id.to_vec(), ..Self::default() }
    }

    /// The same, borrowed.
    ///
    /// ```
    /// use mainstay_sds::wire::HistoryEntry;
    /// assert_eq!(HistoryEntry::of(b"m1").view().id, b"m1");
    /// ```
    #[must_use]
    pub fn view(&self) -> EntryView<'_> {
        EntryView { id: &self.id, hint: &self.hint, sender: &self.sender }
    }
}

impl From<EntryView<'_>> for HistoryEntry {
    fn from(view: EntryView<'_>) -> Self {
        Self { id: view.id.to_vec(), hint: view.hint.to_vec(), sender: view.sender.to_vec() }
    }
}

impl From<&MessageView<'_>> for Message {
    fn from(view: &MessageView<'_>) -> Self {
        Self {
            id: view.id.to_vec(),
            sender: view.sender.to_vec(),
            channel: view.channel.to_vec(),
            lamport: view.lamport,
            causal: view.causal.iter().map(HistoryEntry::from).collect(),
            filter: view.filter.map(<[u8]>::to_vec),
            requests: view.requests.iter().map(HistoryEntry::from).collect(),
            content: view.content.map(<[u8]>::to_vec),
        }
    }
}

impl Message {
    /// Reads a message of `profile`.
    ///
    /// # Errors
    /// As [`MessageView::parse`].
    ///
    /// Example: see [`Message`].
    pub fn decode(profile: Profile, bytes: &[u8]) -> Result<Self> {
        MessageView::parse(profile, bytes).map(|view| Self::from(&view))
    }

    /// The message in the one form that `profile` writes it in: fields in ascending order. In the
    /// nim profile most fields are always written; in the other, what is empty is left out, apart
    /// from a filter, which is written when there is one.
    ///
    /// Example: see [`Message`].
    #[must_use]
    pub fn encode(&self, profile: Profile) -> Vec<u8> {
        let mut out = Vec::new();
        let fields = profile.fields();
        let requests = |out: &mut Vec<u8>| {
            for request in &self.requests {
                body::put_entry(out, fields.requests, &request.view());
            }
        };
        let causal = |out: &mut Vec<u8>| {
            for entry in &self.causal {
                body::put_entry(out, fields.causal, &entry.view());
            }
        };
        match profile {
            Profile::Nim => {
                put_bytes_field(&mut out, fields.id, &self.id);
                put_varint_field(&mut out, fields.lamport, self.lamport.unwrap_or_default());
                causal(&mut out);
                put_bytes_field(&mut out, fields.channel, &self.channel);
                put_bytes_field(&mut out, fields.content, self.content.as_deref().unwrap_or(&[]));
                put_bytes_field(&mut out, fields.filter, self.filter.as_deref().unwrap_or(&[]));
                if !self.sender.is_empty() {
                    put_bytes_field(&mut out, fields.sender, &self.sender);
                }
                requests(&mut out);
            }
            Profile::Lip => {
                for (number, text) in [
                    (fields.sender, &self.sender),
                    (fields.id, &self.id),
                    (fields.channel, &self.channel),
                ] {
                    if !text.is_empty() {
                        put_bytes_field(&mut out, number, text);
                    }
                }
                if let Some(lamport) = self.lamport {
                    put_varint_field(&mut out, fields.lamport, lamport);
                }
                causal(&mut out);
                if let Some(filter) = &self.filter {
                    put_bytes_field(&mut out, fields.filter, filter);
                }
                requests(&mut out);
                if let Some(content) = &self.content {
                    put_bytes_field(&mut out, fields.content, content);
                }
            }
        }
        out
    }
}
