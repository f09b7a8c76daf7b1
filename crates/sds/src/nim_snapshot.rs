//! What `nim-sds` keeps, read: so that its users can change over and lose nothing.
//!
//! The bytes are in `docs/format/sds.md`. The peers' decoder refuses a snapshot of which any part
//! makes no sense, and so does this one.

use crate::{
    channel::Channel,
    config::Config,
    error::{Error, Result},
    persist::codec::{Item, Loaded, Scalars, Tag, UNACKNOWLEDGED},
    time::Now,
    wire::{
        EntryView, HistoryEntry, Message, Profile,
        proto::{Reader, Value, Varints, malformed},
    },
};

/// The version of the snapshots that is read.
const SCHEMA_VERSION: u64 = 1;

/// A channel as `nim-sds` keeps it.
///
/// ```
/// use mainstay_sds::{Channel, Config, NimSnapshot, Now};
/// // ChannelData with an empty ChannelMeta of version 1.
/// let snapshot = NimSnapshot::parse(&[0x0a, 0x04, 0x08, 0x01, 0x10, 0x2a])?;
/// let channel = Channel::import_nim("room", b"alice", Config::nim(), Now::zero(), &snapshot)?;
/// assert_eq!(channel.counts().lamport, 42);
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NimSnapshot {
    /// The channel's Lamport time, in seconds.
    pub lamport: u64,
    /// Messages that were not acknowledged: when they were sent (milliseconds since 1970), and how
    /// often the sweep saw them.
    pub outgoing: Vec<(Message, u64, u32)>,
    /// Messages that wait, and for which.
    pub incoming: Vec<(Message, Vec<Vec<u8>>)>,
    /// Missing messages, and when they were to be asked for.
    pub requests: Vec<(HistoryEntry, u64)>,
    /// Messages that were to be sent again for others, the bytes, and when.
    pub answers: Vec<(HistoryEntry, Vec<u8>, u64)>,
    /// The history, oldest first.
    pub history: Vec<Message>,
}

impl NimSnapshot {
    /// Reads `ChannelData`: all that is kept of a channel.
    ///
    /// # Errors
    /// [`Error::Malformed`] if any of it makes no sense, or is of another version.
    ///
    /// Example: see [`NimSnapshot`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut meta = None;
        let mut history = Vec::new();
        for field in fields(bytes) {
            match field? {
                (1, Value::Bytes(bytes)) => meta = Some(Self::parse_meta(bytes)?),
                (2, Value::Bytes(bytes)) => history.push(message(bytes)?),
                _ => {}
            }
        }
        let meta = meta.ok_or(malformed("a snapshot without ChannelMeta", bytes.len()))?;
        Ok(Self { history, ..meta })
    }

    /// Reads `ChannelMeta`: all but the history.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    ///
    /// ```
    /// use mainstay_sds::NimSnapshot;
    /// assert!(NimSnapshot::parse_meta(&[0x08, 0x01, 0x10, 0x00]).is_ok());
    /// assert!(NimSnapshot::parse_meta(&[0x08, 0x02, 0x10, 0x00]).is_err(), "another version");
    /// ```
    pub fn parse_meta(bytes: &[u8]) -> Result<Self> {
        let mut snapshot = Self::default();
        let (mut version, mut lamport) = (None, None);
        for field in fields(bytes) {
            match field? {
                (1, Value::Varint(value)) => version = Some(value),
                (2, Value::Varint(value)) => lamport = Some(value),
                (3, Value::Bytes(bytes)) => snapshot.outgoing.push(outgoing(bytes)?),
                (4, Value::Bytes(bytes)) => snapshot.incoming.push(incoming(bytes)?),
                (5, Value::Bytes(bytes)) => snapshot.requests.push(request(bytes)?),
                (6, Value::Bytes(bytes)) => snapshot.answers.push(answer(bytes)?),
                _ => {}
            }
        }
        if version != Some(SCHEMA_VERSION) {
            return Err(malformed("a snapshot of another version than 1", 0));
        }
        let lamport = lamport.ok_or(malformed("a snapshot without a Lamport time", bytes.len()))?;
        Ok(Self { lamport, ..snapshot })
    }

    /// Applies `HistoryUpdate`: messages that came behind the history, and ids that left it.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); the snapshot is unchanged then.
    ///
    /// ```
    /// use mainstay_sds::NimSnapshot;
    /// let mut snapshot = NimSnapshot::parse_meta(&[0x08, 0x01, 0x10, 0x00])?;
    /// snapshot.apply_history_update(&[0x12, 0x02, b'm', b'1'])?;
    /// assert!(snapshot.history.is_empty());
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn apply_history_update(&mut self, bytes: &[u8]) -> Result<()> {
        let (mut append, mut evict) = (Vec::new(), Vec::new());
        for field in fields(bytes) {
            match field? {
                (1, Value::Bytes(bytes)) => append.push(message(bytes)?),
                (2, Value::Bytes(id)) => evict.push(id),
                _ => {}
            }
        }
        self.history.retain(|message| !evict.contains(&message.id.as_slice()));
        self.history.extend(append);
        Ok(())
    }
}

impl Channel {
    /// Goes on with a channel that `nim-sds` kept. Its history is taken as delivered; what waited
    /// goes on waiting, what was not acknowledged is sent again, and what was missing is asked for
    /// anew.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is of the other profile, [`Error::Saved`] if the
    /// messages contradict each other, and those of [`Channel::new`].
    ///
    /// Example: see [`NimSnapshot`].
    pub fn import_nim(
        name: &str,
        own_id: &[u8],
        config: Config,
        now: Now,
        snapshot: &NimSnapshot,
    ) -> Result<Self> {
        if config.profile != Profile::Nim {
            return Err(Error::Config {
                what: "a nim snapshot needs a configuration of the nim profile",
            });
        }
        let mut channel = Self::new(name, own_id, config)?;
        let mut loaded = Loaded::default();
        loaded.scalars = Scalars {
            lamport: snapshot.lamport,
            joined: !snapshot.history.is_empty() || !snapshot.incoming.is_empty(),
            ..Scalars::default()
        };
        let delivered = Loaded::DELIVERED;
        for message in &snapshot.history {
            loaded.put(&message.id, item(message, Tag::Logged, delivered, 0));
        }
        for (message, _sent_at, attempts) in &snapshot.outgoing {
            let attempts = u8::try_from(*attempts).unwrap_or(u8::MAX);
            let flags = delivered | UNACKNOWLEDGED;
            loaded.put(&message.id, item(message, Tag::Logged, flags, attempts));
        }
        for (message, _missing) in &snapshot.incoming {
            if !loaded.items.contains_key(&message.id) {
                loaded.put(&message.id, item(message, Tag::Buffered, 0, 0));
            }
        }
        let saved = |what| Error::Saved { channel: name.to_owned(), what };
        channel.restore(now, loaded).map_err(saved)?;
        channel.mark_imported();
        Ok(channel)
    }
}

fn item(message: &Message, tag: Tag, flags: u8, attempts: u8) -> Item {
    let bare = Message { filter: None, requests: Vec::new(), ..message.clone() };
    Item {
        tag,
        flags,
        attempts,
        lamport: message.lamport.unwrap_or_default(),
        number: 0,
        hint: Vec::new(),
        body: bare.encode(Profile::Nim),
        since: 0,
    }
}

/// The fields of a nested message, up to the first that makes no sense.
fn fields(bytes: &[u8]) -> impl Iterator<Item = Result<(u64, Value<'_>)>> {
    let mut reader = Reader::new(bytes, Varints::Minimal);
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let field = reader.field().transpose();
        failed = matches!(field, Some(Err(_)));
        field
    })
}

fn message(bytes: &[u8]) -> Result<Message> {
    Message::decode(Profile::Nim, bytes)
}

fn outgoing(bytes: &[u8]) -> Result<(Message, u64, u32)> {
    let (mut found, mut sent_at, mut attempts) = (None, None, 0);
    for field in fields(bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => found = Some(message(bytes)?),
            (2, Value::Varint(value)) => sent_at = Some(value),
            (3, Value::Varint(value)) => attempts = u32::try_from(value).unwrap_or(u32::MAX),
            _ => {}
        }
    }
    match (found, sent_at) {
        (Some(message), Some(sent_at)) => Ok((message, sent_at, attempts)),
        _ => Err(malformed("an unacknowledged message without a part", bytes.len())),
    }
}

fn incoming(bytes: &[u8]) -> Result<(Message, Vec<Vec<u8>>)> {
    let (mut found, mut missing) = (None, Vec::new());
    for field in fields(bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => found = Some(message(bytes)?),
            (2, Value::Bytes(id)) => missing.push(id.to_vec()),
            _ => {}
        }
    }
    let message = found.ok_or(malformed("a waiting entry without a message", bytes.len()))?;
    Ok((message, missing))
}

/// A key and a value of a map, as the two repair buffers are written.
fn pair(bytes: &[u8]) -> Result<&[u8]> {
    let (mut key, mut value) = (None, None);
    for field in fields(bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => key = Some(bytes),
            (2, Value::Bytes(bytes)) => value = Some(bytes),
            _ => {}
        }
    }
    key.and(value).ok_or(malformed("a repair entry without key or value", bytes.len()))
}

fn history_entry(bytes: &[u8]) -> Result<HistoryEntry> {
    EntryView::parse(bytes, Varints::Minimal).map(HistoryEntry::from)
}

fn request(bytes: &[u8]) -> Result<(HistoryEntry, u64)> {
    let value = pair(bytes)?;
    let (mut entry, mut at) = (None, None);
    for field in fields(value) {
        match field? {
            (1, Value::Bytes(bytes)) => entry = Some(history_entry(bytes)?),
            (2, Value::Varint(value)) => at = Some(value),
            _ => {}
        }
    }
    entry.zip(at).ok_or(malformed("a request without a part", bytes.len()))
}

fn answer(bytes: &[u8]) -> Result<(HistoryEntry, Vec<u8>, u64)> {
    let value = pair(bytes)?;
    let (mut entry, mut copy, mut at) = (None, None, None);
    for field in fields(value) {
        match field? {
            (1, Value::Bytes(bytes)) => entry = Some(history_entry(bytes)?),
            (2, Value::Bytes(bytes)) => copy = Some(bytes.to_vec()),
            (3, Value::Varint(value)) => at = Some(value),
            _ => {}
        }
    }
    match (entry, copy, at) {
        (Some(entry), Some(copy), Some(at)) => Ok((entry, copy, at)),
        _ => Err(malformed("an answer without a part", bytes.len())),
    }
}
