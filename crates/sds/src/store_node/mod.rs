//! A store node: keeps all that was ever said in some channels, and finds it again.
//!
//! Source: LIP-109, Design Assumptions ("Store nodes ... maintain the full history of all messages
//! that have been broadcast"). How a query reaches it is the transport's business; here are the
//! keeping and the answers.
//!
//! * N1. A message is kept once, in the form in which others get it: without a filter and requests.
//! * N2. Strangers can fill only the channels that are served, and these only up to their limit.
//! * N3. A hint that the application gave counts, whatever strangers say; of theirs, the one that
//!   means a message that is here, and the latest ones when they are too many.

mod hints;

use std::collections::{BTreeMap, HashMap};

use hints::{Hint, Hints, Name, Word};

use crate::{
    archive::Archive,
    error::{Error, Result, shown, within},
    limits::{HINT_LEN_MAX, ID_LEN_MAX},
    planted,
    wire::{Body, Kind, MessageView, Profile},
};

/// Keeps the full history of the channels it serves, and answers by id, by hint and by order.
///
/// ```
/// use mainstay_sds::{Channel, Config, MemoryArchive, Now, Output, StoreNode, wire::Profile};
/// let mut node = StoreNode::new(MemoryArchive::new())?;
/// node.serve("room", Profile::Lip, 1_000_000)?;
///
/// let mut alice = Channel::new("room", b"alice", Config::lip())?;
/// alice.send(Now::zero(), b"m1", b"hello")?;
/// let Some(Output::Broadcast(broadcast)) = alice.poll_output() else { panic!() };
/// assert!(node.observe(broadcast.bytes)?);
/// node.set_hint("room", b"m1", b"hash of the envelope")?;
///
/// let mut bob = Channel::new("room", b"bob", Config::lip())?;
/// let found = node.by_hint("room", b"hash of the envelope")?.expect("it was kept");
/// bob.receive(Now::zero(), &found)?;
/// assert!(bob.log().map(|entry| entry.id).eq([b"m1"]));
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
#[derive(Debug)]
pub struct StoreNode<A> {
    archive: A,
    channels: HashMap<String, Kept>,
    /// Records of channels that are not served (yet).
    unserved: Vec<u64>,
}

/// The index of one channel.
#[derive(Debug)]
struct Kept {
    profile: Profile,
    messages_max: usize,
    ids: HashMap<Box<[u8]>, (u64, u64)>,
    order: BTreeMap<(u64, Box<[u8]>), u64>,
    hints: Hints,
}

/// The first byte of a record.
const LIP: u8 = 0;
const NIM: u8 = 1;
const HINT: u8 = 2;
const LEARNED: u8 = 3;

impl<A: Archive> StoreNode<A> {
    /// A node over an archive that may have records already.
    ///
    /// # Errors
    /// Those of the archive.
    ///
    /// Example: see [`StoreNode`].
    pub fn new(archive: A) -> Result<Self> {
        let unserved = archive.keys()?;
        Ok(Self { archive, channels: HashMap::new(), unserved })
    }

    /// Keeps, and answers for, a channel from now on: up to `messages_max` messages.
    ///
    /// # Errors
    /// [`Error::ChannelExists`], [`Error::Limit`], and those of the archive.
    ///
    /// Example: see [`StoreNode`].
    pub fn serve(&mut self, channel: &str, profile: Profile, messages_max: usize) -> Result<()> {
        within("length of the channel's name", channel.len() as u64, 0, ID_LEN_MAX as u64)?;
        if self.channels.contains_key(channel) {
            return Err(Error::ChannelExists { name: channel.to_owned() });
        }
        let kept = Kept {
            profile,
            messages_max,
            ids: HashMap::new(),
            order: BTreeMap::new(),
            hints: Hints::new(messages_max),
        };
        self.channels.insert(channel.to_owned(), kept);
        for key in std::mem::take(&mut self.unserved) {
            let record = self.archive.read(key)?;
            if !self.index(channel, key, &record) {
                self.unserved.push(key);
            }
        }
        Ok(())
    }

    /// Takes a record into the index of `channel`, if it belongs there.
    fn index(&mut self, channel: &str, key: u64, record: &[u8]) -> bool {
        let Some(kept) = self.channels.get_mut(channel) else { return false };
        match record.split_first() {
            Some((&kind @ (LIP | NIM), bytes)) => {
                let profile = if kind == LIP { Profile::Lip } else { Profile::Nim };
                let Ok(message) = MessageView::parse(profile, bytes) else { return false };
                let is_its = message.channel == channel.as_bytes();
                let ours =
                    (is_its || planted("archive-channel-unchecked")) && profile == kept.profile;
                if ours {
                    kept.insert(&message, key);
                }
                ours
            }
            Some((&kind @ (HINT | LEARNED), rest)) => match Hint::read(rest) {
                Some(hint) if hint.channel == channel.as_bytes() => {
                    let word = if kind == HINT { Word::Own } else { Word::Kept };
                    kept.note(hint.hint, hint.id, word);
                    true
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// Takes a message that was broadcast. Whether it is new and was kept.
    ///
    /// # Errors
    /// What is wrong with the message, [`Error::UnknownChannel`], [`Error::Limit`] when the channel
    /// is full, and those of the archive.
    ///
    /// Example: see [`StoreNode`].
    pub fn observe(&mut self, bytes: &[u8]) -> Result<bool> {
        let profile = Profile::sniff(bytes)
            .ok_or(Error::Malformed { what: "no field 2, which all messages have", at: 0 })?;
        let name = profile.channel_of(bytes).unwrap_or_default();
        let unknown = || Error::UnknownChannel { name: shown(name) };
        let kept = std::str::from_utf8(name).ok().and_then(|name| self.channels.get_mut(name));
        let kept = kept.ok_or_else(unknown)?;
        let message = MessageView::parse(kept.profile, bytes)?;
        if message.kind() != Kind::Content
            || message.id.is_empty()
            || kept.ids.contains_key(message.id)
        {
            // The message is not kept (again), so what it says of others is.
            let learned = kept.learn_hints(&message);
            for (id, hint) in learned {
                let noted = Hint { channel: name, id: &id, hint: &hint };
                self.archive.append(&noted.encode(LEARNED))?;
            }
            return Ok(false);
        }
        let (count, max) = (kept.ids.len() as u64 + 1, kept.messages_max as u64);
        let max = if planted("node-full-unchecked") { u64::MAX } else { max };
        within("number of messages kept of the channel", count, 0, max)?;
        let (mut body, mut record) = (Vec::new(), Vec::new());
        let parts = Body::of(&mut body, &message);
        record.push(if profile == Profile::Lip { LIP } else { NIM });
        parts.copy(&mut record, profile, &body);
        let key = self.archive.append(&record)?;
        kept.insert(&message, key);
        Ok(true)
    }

    /// Notes how a message can be found. Hints in causal histories are noted by themselves.
    ///
    /// # Errors
    /// [`Error::UnknownChannel`], [`Error::Limit`], and those of the archive.
    ///
    /// Example: see [`StoreNode`].
    pub fn set_hint(&mut self, channel: &str, id: &[u8], hint: &[u8]) -> Result<()> {
        within("length of the message's id", id.len() as u64, 1, ID_LEN_MAX as u64)?;
        within("length of a retrieval hint", hint.len() as u64, 1, HINT_LEN_MAX as u64)?;
        let unknown = || Error::UnknownChannel { name: channel.to_owned() };
        let kept = self.channels.get_mut(channel).ok_or_else(unknown)?;
        let noted = Hint { channel: channel.as_bytes(), id, hint };
        self.archive.append(&noted.encode(HINT))?;
        kept.note(hint, id, Word::Own);
        Ok(())
    }

    /// The message of that id.
    ///
    /// # Errors
    /// [`Error::UnknownChannel`], and those of the archive.
    ///
    /// ```
    /// use mainstay_sds::{MemoryArchive, StoreNode, wire::Profile};
    /// let mut node = StoreNode::new(MemoryArchive::new())?;
    /// node.serve("room", Profile::Lip, 10)?;
    /// assert_eq!(node.by_id("room", b"m1")?, None);
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn by_id(&self, channel: &str, id: &[u8]) -> Result<Option<Vec<u8>>> {
        let kept = self.kept(channel)?;
        kept.ids.get(id).map(|(_, key)| self.message(*key)).transpose()
    }

    /// The message that the hint means.
    ///
    /// # Errors
    /// [`Error::UnknownChannel`], and those of the archive.
    ///
    /// Example: see [`StoreNode`].
    pub fn by_hint(&self, channel: &str, hint: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.kept(channel)?.hints.get(hint) {
            Some(id) => self.by_id(channel, id),
            None => Ok(None),
        }
    }

    /// Up to `max` messages in the order of the log, after the one of that Lamport time and id.
    ///
    /// # Errors
    /// [`Error::UnknownChannel`], and those of the archive.
    ///
    /// ```
    /// use mainstay_sds::{MemoryArchive, StoreNode, wire::Profile};
    /// let mut node = StoreNode::new(MemoryArchive::new())?;
    /// node.serve("room", Profile::Lip, 10)?;
    /// assert!(node.after("room", (0, b""), 100)?.is_empty());
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn after(&self, channel: &str, last: (u64, &[u8]), max: usize) -> Result<Vec<Vec<u8>>> {
        use std::ops::Bound;
        let start = Bound::Excluded((last.0, last.1.into()));
        let kept = self.kept(channel)?;
        let keys = kept.order.range((start, Bound::Unbounded)).take(max);
        keys.map(|(_, key)| self.message(*key)).collect()
    }

    /// How many messages are kept of a channel.
    ///
    /// # Errors
    /// [`Error::UnknownChannel`].
    ///
    /// ```
    /// use mainstay_sds::{MemoryArchive, StoreNode};
    /// let node = StoreNode::new(MemoryArchive::new())?;
    /// assert!(node.count("room").is_err(), "it is not served");
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn count(&self, channel: &str) -> Result<usize> {
        self.kept(channel).map(|kept| kept.ids.len())
    }

    fn kept(&self, channel: &str) -> Result<&Kept> {
        let unknown = || Error::UnknownChannel { name: channel.to_owned() };
        self.channels.get(channel).ok_or_else(unknown)
    }

    fn message(&self, key: u64) -> Result<Vec<u8>> {
        let mut record = self.archive.read(key)?;
        if !record.is_empty() {
            record.remove(0);
        }
        Ok(record)
    }
}

impl Kept {
    fn insert(&mut self, message: &MessageView<'_>, key: u64) {
        let lamport = message.lamport.unwrap_or_default();
        let _in_the_message = self.learn_hints(message);
        self.ids.insert(message.id.into(), (lamport, key));
        self.order.insert((lamport, message.id.into()), key);
    }

    /// Takes over what a message says of others. What is new of it and worth a record: ids of
    /// messages that are here, with their hints.
    fn learn_hints(&mut self, message: &MessageView<'_>) -> Vec<(Name, Name)> {
        let entries = message.causal.iter().filter(|entry| !entry.hint.is_empty());
        let news: Vec<_> = entries
            .filter(|entry| self.note(entry.hint, entry.id, Word::Learned))
            .map(|entry| (entry.id.into(), entry.hint.into()))
            .collect();
        news.into_iter().filter(|(id, _)| self.hints.may_keep(self.ids.contains_key(id))).collect()
    }

    /// Whether that is news.
    fn note(&mut self, hint: &[u8], id: &[u8], word: Word) -> bool {
        let ids = &self.ids;
        self.hints.note(hint, id, word, |id| ids.contains_key(id))
    }
}
