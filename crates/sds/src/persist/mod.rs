//! Keeping channels beyond the process.
//!
//! A channel hands out *changes* ([`Output::Persist`](crate::Output::Persist)): what happened since
//! the one before, as bytes that carry their own checksum. State and history change in one step, so
//! there is no moment at which a message has left the one and not yet reached the other. A
//! [`Persistence`] keeps them; loading gives them back in order, and [`Channel::load`] makes the
//! channel of them.
//!
//! Guarantees:
//!
//! * S1. A change is kept whole or not at all, and only behind those before it.
//! * S2. A failed change is not lost: the next one is a base, which has everything, and is tried by
//!   itself after a while, even if nothing else happens.
//! * S3. What is kept does not grow without bound: from time to time a change is a *base*, which
//!   has everything and replaces all before it.
//!
//! [`Channel::load`]: crate::Channel::load

#[cfg(feature = "pool")]
pub(crate) mod blocks;
pub(crate) mod codec;
mod memory;
#[cfg(feature = "pool")]
mod pool;
#[cfg(feature = "store")]
pub(crate) mod store;

#[cfg(feature = "store")]
pub use mainstay_store::Durability;
pub use memory::Memory;
#[cfg(feature = "pool")]
pub use pool::PoolPersistence;
#[cfg(feature = "store")]
pub use store::StorePersistence;

use codec::Tag;

use crate::{
    error::Result,
    wire::{Message, Profile},
};

/// What happened to a channel since the change before.
///
/// Example: see [`Output::Persist`](crate::Output::Persist).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change<'a> {
    /// Numbers grow, not always by one.
    pub number: u64,
    /// It has everything, and replaces all changes before it.
    pub base: bool,
    /// What to keep.
    pub bytes: &'a [u8],
}

impl<'a> Change<'a> {
    /// Reads the number and the kind of a change from its bytes, for those who keep only these.
    ///
    /// # Errors
    /// [`Error::Saved`](crate::Error::Saved) if the bytes are no change, or damaged.
    ///
    /// ```
    /// use mainstay_sds::persist::Change;
    /// assert!(Change::parse("room", b"noise").is_err());
    /// ```
    pub fn parse(channel: &str, bytes: &'a [u8]) -> Result<Self> {
        match codec::ReadChange::read(bytes) {
            Ok(read) => Ok(Self { number: read.number, base: read.base, bytes }),
            Err(what) => Err(crate::Error::Saved { channel: channel.to_owned(), what }),
        }
    }
}

/// What a change says of a message.
///
/// Example: see [`Change::notes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// It is in the log.
    Logged,
    /// It waits for others.
    Waiting,
    /// Only its id is remembered.
    Remembered,
    /// Nothing of it is known any more.
    Forgotten,
    /// It needs no acknowledgement any more.
    Settled,
}

/// One message of a change.
///
/// Example: see [`Change::notes`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Noted {
    /// What happened to it.
    pub what: Note,
    /// Its id.
    pub id: Vec<u8>,
    /// It is one's own, and nobody has acknowledged it.
    pub unacknowledged: bool,
    /// The message, if the change has it.
    pub message: Option<Message>,
}

impl Change<'_> {
    /// The profile of the channel.
    ///
    /// # Errors
    /// [`Error::Saved`](crate::Error::Saved) if the bytes are no change, or damaged.
    ///
    /// Example: see [`Change::notes`].
    pub fn profile(&self) -> Result<Profile> {
        self.read().map(|read| read.profile)
    }

    /// What it says of each message, for tools.
    ///
    /// # Errors
    /// As [`profile`](Self::profile).
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Keep, Now, Output, persist::Note, wire::Profile};
    /// let mut config = Config::lip();
    /// config.keep = Keep::Relaxed;
    /// let mut channel = Channel::new("room", b"alice", config)?;
    /// channel.send(Now::zero(), b"m1", b"hello")?;
    /// let Some(Output::Persist(change)) = channel.poll_output() else { panic!() };
    /// let notes = change.notes()?;
    /// assert_eq!((notes[0].what, notes[0].unacknowledged), (Note::Logged, true));
    /// assert_eq!(change.profile()?, Profile::Lip);
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn notes(&self) -> Result<Vec<Noted>> {
        let read = self.read()?;
        let noted = |entry: &codec::Entry<'_>| Noted {
            what: match entry.tag {
                Tag::Logged => Note::Logged,
                Tag::Buffered => Note::Waiting,
                Tag::Tombstone => Note::Remembered,
                Tag::Forgotten => Note::Forgotten,
                Tag::Settled => Note::Settled,
            },
            id: entry.id.to_vec(),
            unacknowledged: entry.flags & codec::UNACKNOWLEDGED != 0,
            message: Message::decode(read.profile, entry.body)
                .ok()
                .filter(|_| !entry.body.is_empty()),
        };
        Ok(read.entries.iter().map(noted).collect())
    }

    fn read(&self) -> Result<codec::ReadChange<'_>> {
        let failed = |what| crate::Error::Saved { channel: String::new(), what };
        codec::ReadChange::read(self.bytes).map_err(failed)
    }
}

/// A place that keeps the changes of channels. One suite of tests runs over every one of them.
///
/// ```
/// use mainstay_sds::{Channel, Config, Keep, Now, Output, persist::{Memory, Persistence}};
/// let mut config = Config::lip();
/// config.keep = Keep::Durable;
/// let mut memory = Memory::new();
///
/// let mut channel = Channel::new("room", b"alice", config.clone())?;
/// channel.send(Now::zero(), b"m1", b"hello")?;
/// let Some(Output::Persist(change)) = channel.poll_output() else { panic!() };
/// memory.save("room", &change)?;
/// drop(channel);
///
/// let saved = memory.load("room")?;
/// let again = Channel::load("room", b"alice", config, Now::zero(), &saved)?;
/// assert!(again.log().map(|entry| entry.id).eq([b"m1"]));
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
pub trait Persistence {
    /// Keeps a change, whole or not at all, behind those it has of the channel; a base replaces
    /// them (S1).
    ///
    /// # Errors
    /// [`Error::Persistence`](crate::Error::Persistence); what was kept before is still kept.
    fn save(&mut self, channel: &str, change: &Change<'_>) -> Result<()>;

    /// The changes of a channel in order, from its last base on; none if it is not known.
    ///
    /// They are kept as safely as those that were just saved: a place that finds what a process
    /// wrote that died before it was safe makes it so first, as deliveries go out that rest on it.
    ///
    /// # Errors
    /// [`Error::Persistence`](crate::Error::Persistence) if they cannot be read.
    fn load(&mut self, channel: &str) -> Result<Vec<Vec<u8>>>;

    /// Drops all of a channel.
    ///
    /// # Errors
    /// [`Error::Persistence`](crate::Error::Persistence) if that failed; it is still there then.
    fn forget(&mut self, channel: &str) -> Result<()>;

    /// The channels it has something of, in any order.
    ///
    /// # Errors
    /// [`Error::Persistence`](crate::Error::Persistence) if they cannot be read.
    fn channels(&mut self) -> Result<Vec<String>>;
}
