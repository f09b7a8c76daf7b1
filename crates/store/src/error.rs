//! What can go wrong with a store.

use std::io;

use crate::{keyed, open_files};

/// The result of everything in this crate.
///
/// Example: see [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Each variant says what was wrong, where, and what to do.
///
/// ```
/// use mainstay_store::{Error, FixedStore, Options};
/// let dir = tempfile::tempdir()?;
/// let missing = FixedStore::<u64, u64>::open(dir.path(), &Options::default());
/// assert!(matches!(missing, Err(Error::NotAStore)));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option or an argument is outside of its limits.
    #[error("{what} is {value}, and must be {must}; choose another")]
    OutOfLimits {
        /// Which one.
        what: &'static str,
        /// What it is.
        value: u64,
        /// What it has to be.
        must: &'static str,
    },
    /// There is no store here.
    #[error("there is no store in this directory; check the path, or create one")]
    NotAStore,
    /// The files of a store are here, with what was written to it, but for its header.
    #[error(
        "the header of this store is gone, and {file} has writes of it; repair the store, or \
         restore it from a backup"
    )]
    HeaderGone {
        /// One of these files.
        file: String,
    },
    /// There is a store of another kind here.
    #[error("the store in this directory has {is}; open it as such a store")]
    OtherKind {
        /// What it has.
        is: &'static str,
    },
    /// What is stored is no key, or no value, of the type that was asked for.
    #[error("a {what} in the store is none of the type that was asked for; open it as bytes")]
    Undecodable {
        /// A key or a value.
        what: &'static str,
    },
    /// A value that a type does not let be encoded.
    #[error("the value cannot be encoded: {why}; look at what its type refuses")]
    Unencodable {
        /// What the type says.
        why: String,
    },
    /// There is a store here already.
    #[error("there is a store in this directory already; open it, or choose another directory")]
    Exists,
    /// A store was being made of a damaged one, and not all of it is here.
    #[error(
        "what is here is being made of a damaged store, and is not all of it; if nobody is making it, \
         run `salvage` again, from the same store into this directory, or repair the damaged one \
         (`mainstay store repair`)"
    )]
    Unfinished,
    /// A store was being copied to here, and not all of it is here.
    #[error(
        "what is here is a copy that was not finished, and is not all of the store; if nobody is making \
         it, run the same backup or restore again: it begins anew"
    )]
    NotCopied,
    /// Another process, or this one, has the directory open.
    #[error("the directory is open already; close the store that has it open, then try again")]
    Locked,
    /// The store was made with keys or values of other sizes.
    #[error(
        "the store has keys of {key} bytes and values of {value}, and was opened for {asked_key} \
         and {asked_value}; open it with the types it was created with"
    )]
    OtherSizes {
        /// Bytes of a key in the store.
        key: usize,
        /// Bytes of a value in the store.
        value: usize,
        /// Bytes of a key as asked for.
        asked_key: usize,
        /// Bytes of a value as asked for.
        asked_value: usize,
    },
    /// A file was written by a version this one does not know.
    #[error("{file}: format version {version} is not known here; open it with a newer release")]
    Version {
        /// The file.
        file: String,
        /// Its version.
        version: u32,
    },
    /// Files are to be read from one on that is behind all of them.
    #[error(
        "no file of the store is called {file}, and none comes after it; begin with the file that the \
         last run has told, or with the first"
    )]
    NoSuchFile {
        /// What was asked for.
        file: String,
    },
    /// The store was opened without a key, and is encrypted.
    #[error("the store is encrypted under key {key}; open it with that key")]
    Encrypted {
        /// What its key is called.
        key: String,
    },
    /// A file is encrypted under a key that was not given.
    #[error(
        "{file} is encrypted under key {wanted}, which was not given; give that key, also beside a \
         newer one"
    )]
    OtherKey {
        /// The file.
        file: String,
        /// What its key is called.
        wanted: String,
    },
    /// A file is not encrypted, and was opened with a key.
    #[error(
        "{file} is not encrypted, or what says so is lost; open the store without a key if it never \
         was, or restore it from a backup"
    )]
    NotEncrypted {
        /// The file.
        file: String,
    },
    /// Something that was durable is not as it was written.
    #[error("{file} at byte {offset}: {what}; restore the store from a backup")]
    Damaged {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Another store is to take the place of one whose directory is a mount point.
    #[error(
        "{path} is a mount point, and another store cannot take its place: move the files of the store \
         into a directory on that file system while nobody has it open, and name that one"
    )]
    MountPoint {
        /// The directory.
        path: String,
    },
    /// A key is in a file of a shard to which it does not belong.
    #[error(
        "{file} at byte {offset}: the key of this write belongs to shard {belongs}, and the file is of \
         shard {shard}; if files were moved or put together by hand put them back, otherwise restore \
         the store from a backup"
    )]
    Misplaced {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// The shard that the file is of.
        shard: u32,
        /// The shard of the key.
        belongs: u32,
    },
    /// A record in memory is not as it was written.
    #[error(
        "{file} at byte {offset}: the record in slot {slot} of shard {shard} is not as it was written; \
         open the store again: then it is read from the files of the shard, which have it"
    )]
    BadSlot {
        /// The file with the memory.
        file: String,
        /// Which shard.
        shard: u32,
        /// Which slot.
        slot: u32,
        /// Where it is in the file.
        offset: u64,
    },
    /// The operating system refused something.
    #[error("{what}: {source}; make sure there is room and the disk is sound, then try again")]
    Io {
        /// What was tried.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// The process may not have as many files open as it needs.
    #[error(
        "{what}: this process may have {limit} files open, and needs {needed} or more; allow it as \
         many (`ulimit -n {needed}`, or `LimitNOFILE={needed}` of its service), or make a store with \
         fewer shards"
    )]
    OpenFiles {
        /// What was to be opened.
        what: String,
        /// How many it may have open.
        limit: u64,
        /// How many it should be allowed.
        needed: u64,
    },
    /// A write or a sync of a shard's log failed: nobody knows what is on the disk.
    #[error(
        "shard {shard} takes no more writes since its log failed ({what}); check the disk, then \
         open the store again: what was acknowledged as durable is there"
    )]
    Poisoned {
        /// Which shard.
        shard: u32,
        /// What failed.
        what: String,
    },
    /// The keys of one batch belong to different shards.
    #[error(
        "the batch has keys of shards {one} and {other}; make a batch for each shard, or \
        one across shards"
    )]
    AcrossShards {
        /// A shard.
        one: u32,
        /// Another one.
        other: u32,
    },
    /// A write is longer than a segment of the log, or than what a store that leads can send to its
    /// followers.
    #[error(
        "the write takes {bytes} bytes of the log, {max} are the most; make smaller batches, or \
         shorter values"
    )]
    BatchTooLong {
        /// What it takes.
        bytes: u64,
        /// The most it can take.
        max: u64,
    },
    /// A shard has as many records as it may have.
    #[error("shard {shard} has {max} records, the most it may have; delete some, or allow more")]
    Full {
        /// Which shard.
        shard: u32,
        /// The most records.
        max: u32,
    },
    /// The token is of another life of the store, and says nothing about this one.
    #[error("the token is of epoch {token}, and this is epoch {now}; read the record instead")]
    OtherEpoch {
        /// The token's epoch.
        token: u64,
        /// The store's.
        now: u64,
    },
    /// The store is a replica.
    #[error(
        "the store follows a leader, and takes writes from it alone; write to the leader, or \
         promote this store if the leader is gone"
    )]
    Follows,
    /// The store has another number of shards by now.
    #[error(
        "the store was given another number of shards, and this is the old one; use the one that \
         `finish` returned, or open the directory again"
    )]
    Resharded,
    /// The store is no replica.
    #[error("the store takes writes itself; make it a follower before it follows a leader")]
    Leads,
    /// Somebody else has the store, too.
    #[error(
        "somebody else has the store, too: stop who leads or follows with it, and drop what they \
         have of it, then try again; nothing was changed"
    )]
    InUse,
    /// Another store was made leader.
    #[error(
        "a leader of epoch {by} has taken the place of this one, of epoch {epoch}; write to that \
         one, and let this store follow it"
    )]
    Replaced {
        /// Of this store.
        epoch: u64,
        /// Of the other one.
        by: u64,
    },
    /// A replica is on its way from one state to another.
    #[error(
        "shard {shard} was catching up, and is not as any write left it; let it catch up first"
    )]
    Mending {
        /// Which shard.
        shard: u32,
    },
    /// A copy was interrupted before it had everything, or before it was brought up to date.
    #[error(
        "the copy is not finished: it was interrupted, and has only a part of what is to be in it; run \
         the same backup again, or let it follow its leader, until that is done"
    )]
    NotWhole,
    /// What a leader wrote is nothing this store could have.
    #[error("a write for shard {shard} does not fit ({what}); check who the leader is")]
    Foreign {
        /// Which shard.
        shard: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The records are not in memory, so nobody but an owner of the store can read them.
    #[error(
        "the records of shard {shard} are not in memory: nobody has opened the store since the \
         machine was started, or somebody is just opening it; open it, then try again"
    )]
    NotInMemory {
        /// Which shard.
        shard: u32,
    },
    /// The owner of the store has begun anew with other memory.
    #[error("the store was opened anew with other memory; open the reader again")]
    OtherMemory,
    /// More was changed since a snapshot was taken than may be kept for it.
    #[error(
        "the snapshot of shard {shard} is lost: more than {max} bytes were to be kept for it; take \
         another one, or allow more by the option `snapshot_bytes_max`"
    )]
    SnapshotLost {
        /// Which shard.
        shard: u32,
        /// The most that may be kept.
        max: u64,
    },
    /// The store that was watched is closed.
    #[error("the store was closed, and all of its changes are taken; open it again to see more")]
    Ended,
    /// The last writes of a store are in no file.
    #[error(
        "the store was not closed, and its last writes are in memory only; open and close it, then \
         try again"
    )]
    NotClosed,
    /// A directory is where one is to be made, and was not left there by one that was interrupted.
    #[error(
        "{} is in the way, and has no mark of something that was left unfinished; move it away, or \
         remove it, then try again", path.display()
    )]
    InTheWay {
        /// The directory.
        path: std::path::PathBuf,
    },
    /// A copy of something else is where a copy is to be.
    #[error("the directory has a copy of {what}; choose another directory")]
    OtherCopy {
        /// Of what.
        what: &'static str,
    },
    /// There is no copy of a store, or one that did not come to its end.
    #[error(
        "there is no copy of a store in the directory, or one that is not whole; make it again"
    )]
    NotACopy,
    /// Keys are not kept in their order.
    #[error("the store does not keep its keys in order; open it with the option `ordered`")]
    NotOrdered,
    /// Memory and disk disagree.
    #[error("shard {shard}: {records} records differ between memory and disk; open it again")]
    Differs {
        /// Which shard.
        shard: u32,
        /// How many records.
        records: u64,
    },
}

/// What is said of a key in a file of another shard.
pub(crate) const MISPLACED: &str = "a key is in a file of a shard to which it does not belong";

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| {
            let refused = keyed::refused(&source).or_else(|| open_files::refused(&what, &source));
            refused.unwrap_or(Self::Io { what, source })
        }
    }

    /// What a survey says of a file of which this is an error: where, and what is wrong.
    ///
    /// # Errors
    /// If it is none of those that say that something is not as it was written.
    pub(crate) fn into_damage(self) -> Result<(String, u64, &'static str)> {
        match self {
            Self::Damaged { file, offset, what } => Ok((file, offset, what)),
            Self::Misplaced { file, offset, .. } => Ok((file, offset, MISPLACED)),
            error => Err(error),
        }
    }

    /// Is there no room on the disk?
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if has_no_room(source))
    }

    pub(crate) fn damaged(file: &str, offset: u64, what: &'static str) -> Self {
        Self::Damaged { file: file.to_owned(), offset, what }
    }
}

/// Is this what a disk says that has no room?
pub(crate) fn has_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
