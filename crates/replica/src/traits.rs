//! What the cores need of a store.

use mainstay_store::{History, Hook, Identity, Position, Reached, Result, Token, Written};

pub use mainstay_store::Found;

/// How far a write has come on a follower, weakest first.
///
/// Example: see [`crate::Leader::have`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It has arrived.
    Received,
    /// Readers see it.
    Applied,
    /// It survives a power cut.
    Durable,
}

/// What is shown of a record: its key, and what else there is of it. Of a store with fixed lengths
/// that is the value; of one with any lengths it is the record as it is in the log, key and the time
/// of its end included.
///
/// Example: see [`Source::scan`].
pub type Show<'a> = dyn FnMut(&[u8], &[u8]) + 'a;

/// How much of a shard is shown at a time.
///
/// Example: see [`Source::scan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// How many records, at most.
    pub records: usize,
    /// When so many bytes of them are shown, that is enough.
    pub bytes: u64,
}

/// A store that leads: its records, and the ordered writes of each shard. The functions are those
/// of [`mainstay_store::RawStore`] with the same names.
///
/// ```
/// use mainstay_replica::{Found, Source};
/// use mainstay_store::{Durability::Memory, Options, Position, RawStore};
/// use std::sync::Arc;
/// let one = Options { shards: 1, ..Options::default() };
/// let store = Arc::new(RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &one)?);
/// store.put(b"de", b"049", Memory)?;
/// let Found::Here(mut tail) = Source::tail(&store, 0, Position::START)? else { panic!() };
/// let mut writes = 0;
/// Source::read(&store, &mut tail, 1000, &mut |_| writes += 1)?;
/// assert_eq!(writes, 1);
/// # Ok::<(), mainstay_store::Error>(())
/// ```
pub trait Source {
    /// A place in the log of a shard.
    type Tail;
    /// One that is looked for.
    type Seek: Send;
    /// What is still to be shown of a shard's records.
    type Scan: Default;

    /// What it has in common with its replicas.
    ///
    /// Example: see [`Source`], as for all of these.
    fn identity(&self) -> Identity;
    /// The longest write there can be.
    fn write_bytes_max(&self) -> u64;
    /// The epoch of its writes.
    fn epoch(&self) -> u64;
    /// There is a leader of this epoch: if it is higher, no more writes are taken here.
    ///
    /// # Errors
    /// What the disk says.
    fn fence(&self, epoch: u64) -> Result<()>;
    /// Is it more than a part of what it is to be? See
    /// [`RawStore::is_whole`](mainstay_store::RawStore::is_whole).
    fn is_whole(&self) -> bool;
    /// Where a shard is; none if it is at no place.
    ///
    /// # Errors
    /// If there is no such shard.
    fn tip(&self, shard: u32) -> Result<Option<Position>>;
    /// How many records a shard has, about.
    ///
    /// # Errors
    /// If there is no such shard.
    fn records(&self, shard: u32) -> Result<u64>;
    /// The place behind the last write of a shard.
    ///
    /// # Errors
    /// If it is at no place, or what the disk says.
    fn tail_end(&self, shard: u32) -> Result<Self::Tail>;
    /// Begins to look for a place in the log.
    ///
    /// # Errors
    /// If the shard is at no place, or what the disk says.
    fn seek(&self, shard: u32, position: Position) -> Result<Self::Seek>;
    /// Looks for it in so many bytes of the log more; what was found, once.
    ///
    /// # Errors
    /// What the disk says.
    fn seek_on(&self, seek: &mut Self::Seek, bytes_max: u64) -> Result<Option<Found<Self::Tail>>>;
    /// Finds a place in the log in one go.
    ///
    /// # Errors
    /// What the disk says.
    fn tail(&self, shard: u32, position: Position) -> Result<Found<Self::Tail>> {
        let mut seek = self.seek(shard, position)?;
        loop {
            if let Some(found) = self.seek_on(&mut seek, u64::MAX)? {
                return Ok(found);
            }
        }
    }
    /// Where in the history, and at which frame of the log, a place is.
    fn place(&self, tail: &Self::Tail) -> (Position, u64);
    /// Shows writes behind a place, and moves the place.
    ///
    /// # Errors
    /// What the disk says.
    fn read(
        &self,
        tail: &mut Self::Tail,
        bytes_max: u64,
        each: &mut dyn FnMut(Written<'_>),
    ) -> Result<Reached>;
    /// How many bytes of log are behind a place, about.
    ///
    /// # Errors
    /// None that a place of this store can have.
    fn behind_bytes(&self, tail: &Self::Tail) -> Result<u64>;
    /// Shows some records of a shard whose keys are wanted, those that come next; says whether there
    /// are more.
    ///
    /// ```
    /// use mainstay_replica::{Chunk, Source};
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// use std::sync::Arc;
    /// let one = LogOptions { shards: 1, ..LogOptions::default() };
    /// let store = Arc::new(RawLogStore::create(mainstay_sim::Disk::new(7), &one)?);
    /// store.put(b"de", b"Deutschland", Memory)?;
    /// let (all, mut keys) = (Chunk { records: 10, bytes: 1000 }, Vec::new());
    /// let mut show = |key: &[u8], _: &[u8]| keys.push(key.to_vec());
    /// assert!(!Source::scan(&store, 0, &mut Default::default(), all, &|_| true, &mut show)?);
    /// assert_eq!(keys, [b"de"]);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such shard, or what the disk says.
    fn scan(
        &self,
        shard: u32,
        scan: &mut Self::Scan,
        chunk: Chunk,
        wanted: &dyn Fn(&[u8]) -> bool,
        show: &mut Show<'_>,
    ) -> Result<bool>;
    /// Keeps the log behind a frame.
    ///
    /// # Errors
    /// If there is no such shard.
    fn retain(&self, shard: u32, behind: Option<u64>) -> Result<()>;
    /// Has `notify` called after each local write, until what is returned is dropped. None: whoever
    /// writes calls [`crate::drive::Leading::waker`], or followers hear of it later.
    fn on_write(&self, notify: Box<dyn Fn() + Send + Sync>) -> Option<Hook> {
        drop(notify);
        None
    }
    /// Which write of the history of its shard the write of a token is.
    ///
    /// # Errors
    /// If the token is from before the store was opened.
    fn sequence_of(&self, token: Token) -> Result<u64>;
}

/// A change, and when what it puts ends, in milliseconds since 1970; 0: never, or the value says so
/// itself.
///
/// Example: see [`Sink`].
pub type Mended<'a> = (mainstay_store::Change<'a>, u64);

/// A store that follows. The functions are those of [`mainstay_store::RawStore`] with the same
/// names.
///
/// ```
/// use mainstay_replica::Sink;
/// use mainstay_store::{History, Options, Position, RawStore};
/// use std::sync::Arc;
/// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
/// let store = Arc::new(store.demote()?);
/// Sink::apply(&store, 0, 1, 0, b"")?;
/// assert_eq!(Sink::history(&store, 0)?, History::At(Position::START.after(1, b"")));
/// # Ok::<(), mainstay_store::Error>(())
/// ```
pub trait Sink {
    /// What is still to be shown of a shard's records.
    type Scan: Default + Send;

    /// What it has in common with its leader.
    ///
    /// Example: see [`Sink`], as for all of these.
    fn identity(&self) -> Identity;
    /// The longest write it takes.
    fn write_bytes_max(&self) -> u64;
    /// Does it take the writes of a leader?
    fn follows(&self) -> bool;
    /// The highest epoch of a leader that it knows of.
    fn known_epoch(&self) -> u64;
    /// Learns of an epoch, durably.
    ///
    /// # Errors
    /// What the disk says.
    fn know(&self, epoch: u64) -> Result<()>;
    /// Has it had all that its leader had, and is it not on its way to something else?
    fn is_whole(&self) -> bool;
    /// Notes that durably, when what was written before is durable.
    ///
    /// # Errors
    /// If a shard is at no place, or what the disk says.
    fn set_whole(&self, is_whole: bool) -> Result<()>;
    /// Where a shard is.
    ///
    /// # Errors
    /// If there is no such shard.
    fn history(&self, shard: u32) -> Result<History>;
    /// How many records a shard has.
    ///
    /// # Errors
    /// If there is no such shard.
    fn records(&self, shard: u32) -> Result<u64>;
    /// So many records of a shard are about to come.
    ///
    /// # Errors
    /// If there is no such shard, or what the disk says.
    fn expect(&self, shard: u32, records: u64) -> Result<()> {
        let _nothing_to_prepare = (shard, records);
        Ok(())
    }
    /// Has a piece of the memory ready that expected records will be in, while another thread
    /// writes; says whether there are further ones. Pieces begin with 0.
    ///
    /// # Errors
    /// If there is no such shard.
    fn make_ready(&self, shard: u32, piece: usize) -> Result<bool> {
        let _nothing_to_prepare = (shard, piece);
        Ok(false)
    }
    /// What there is of a key's record beside the key; see [`Show`].
    ///
    /// # Errors
    /// If the key can be none, or what the disk says.
    fn record(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Shows some records of a shard whose keys are wanted, those that come next; says whether there
    /// are more.
    ///
    /// # Errors
    /// If there is no such shard, or what the disk says.
    fn scan(
        &self,
        shard: u32,
        scan: &mut Self::Scan,
        chunk: Chunk,
        wanted: &dyn Fn(&[u8]) -> bool,
        show: &mut Show<'_>,
    ) -> Result<bool>;
    /// Makes a leader's write the next one here.
    ///
    /// # Errors
    /// If it does not fit, or what the disk says.
    fn apply(&self, shard: u32, epoch: u64, count: u32, changes: &[u8]) -> Result<Position>;
    /// Makes changes that are no write of their own, all of them or the first ones, and says where
    /// the shard is when all are made.
    ///
    /// # Errors
    /// If they do not fit, or what the disk says.
    fn mend(&self, shard: u32, changes: &[Mended<'_>], then: History) -> Result<()>;
    /// Keeps records that are about to be lost here: keys, and what else there is of them.
    ///
    /// # Errors
    /// What the disk says.
    fn set_aside(&self, shard: u32, from: Position, records: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;
    /// Makes all that was written before durable.
    ///
    /// # Errors
    /// What the disk says.
    fn sync(&self) -> Result<()>;
    /// The same, and notes that all is durable where the store has a place for such a note.
    ///
    /// # Errors
    /// What the disk says.
    fn vouch(&self) -> Result<()> {
        self.sync()
    }
}
