//! What can go wrong with a pool.

use crate::limits;
use mainstay_base::NameError;

/// The result of everything in this crate.
///
/// Example: see [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Each variant says what was wrong, where, and what to do. No error changes or loses anything.
///
/// ```
/// use mainstay_pool::{Error, PoolOptions};
/// let refused = PoolOptions::new("calls", 0).create_memfd();
/// assert!(matches!(refused, Err(Error::Limit { value: 0, .. })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// File, mapping or lease: see the inner error.
    #[error(transparent)]
    Shm(#[from] mainstay_shm::Error),

    /// The name asked for breaks a rule.
    #[error("pool name {name:?}: {source}")]
    Name {
        /// The name as given.
        name: String,
        /// Which rule.
        source: NameError,
    },
    /// A number is outside of its limits.
    #[error("the {what} is {value}, and must be {min} to {max}: choose another")]
    Limit {
        /// Which number.
        what: &'static str,
        /// What was asked for.
        value: u64,
        /// The smallest possible.
        min: u64,
        /// The largest possible.
        max: u64,
    },

    /// A file without a single byte.
    #[error("{pool}: is an empty file, not a pool; remove it and create the pool")]
    Empty {
        /// Which pool.
        pool: String,
    },
    /// A file of something else.
    #[error("{pool}: is not a pool ({reason}); check the path; the file was not changed")]
    NotAPool {
        /// Which pool.
        pool: String,
        /// What was seen.
        reason: &'static str,
    },
    /// A pool of another version of the format.
    #[error(
        "{pool}: has format version {found}, this build knows {known}; use the build that wrote \
         it, or export it there and import it here; the file was not changed"
    )]
    FormatVersion {
        /// Which pool.
        pool: String,
        /// What the file says.
        found: u32,
        /// What this build reads and writes.
        known: u32,
    },
    /// A pool that uses features of a later build.
    #[error("{pool}: uses features this build does not know (flags {flags:#x}); use a newer build")]
    UnknownFeatures {
        /// Which pool.
        pool: String,
        /// The unknown flags.
        flags: u32,
    },
    /// The pool has another name than the one asked for.
    #[error(
        "{pool}: holds the pool {found:?}, not {wanted:?}; check the path, or ask for {found:?}; \
         the file was not changed"
    )]
    WrongName {
        /// Which pool.
        pool: String,
        /// The name in the file.
        found: String,
        /// The name asked for.
        wanted: String,
    },
    /// The pool has blocks of another size than asked for.
    #[error(
        "{pool}: has blocks of {found} bytes, not {wanted}; open it with {found}, or export it \
         and import it into a new pool; the file was not changed"
    )]
    WrongBlockSize {
        /// Which pool.
        pool: String,
        /// The size in the file, in bytes.
        found: u64,
        /// The size asked for, in bytes.
        wanted: u64,
    },
    /// Something in the file cannot be.
    #[error("{pool}: damaged: {what}; nothing was changed; {}", what.hint())]
    Corrupt {
        /// Which pool.
        pool: String,
        /// What cannot be.
        what: Corruption,
    },

    /// No free block, and no way to get one.
    #[error(
        "{pool}: full: {blocks} blocks, the limit is {blocks_max}; free some, or create it with a \
         higher limit or reservation (other processes may keep up to {} free blocks a thread)",
        limits::MAGAZINE_MAX
    )]
    Full {
        /// Which pool.
        pool: String,
        /// How many blocks there are.
        blocks: u64,
        /// How many there can be.
        blocks_max: u64,
    },
    /// The block is not there: never allocated, freed since, or about to be.
    #[error("{pool}: no block {id}: {why}")]
    NoSuchBlock {
        /// Which pool.
        pool: String,
        /// What was asked for.
        id: String,
        /// What was found instead.
        why: &'static str,
    },
    /// The block holds data of another type.
    #[error(
        "{pool}: block {number} has type fingerprint {found:#x}, not the {wanted:#x} of \
         {type_name:?}; attach it as what it is, or as bytes"
    )]
    WrongType {
        /// Which pool.
        pool: String,
        /// Which block.
        number: u32,
        /// The fingerprint in the header.
        found: u64,
        /// The fingerprint of the type asked for.
        wanted: u64,
        /// The name of the type asked for.
        type_name: &'static str,
    },
    /// The type does not fit into the blocks of this pool.
    #[error(
        "{pool}: {type_name:?} has {size} bytes and alignment {align}; blocks have {block_size} \
         bytes and alignment 64: use a pool with larger blocks"
    )]
    TypeDoesNotFit {
        /// Which pool.
        pool: String,
        /// The name of the type.
        type_name: &'static str,
        /// Its size in bytes.
        size: usize,
        /// Its alignment in bytes.
        align: usize,
        /// The size of the pool's blocks in bytes.
        block_size: usize,
    },
    /// An exclusive block asked for as a shared one, or the other way round.
    #[error("{pool}: block {number} {why}")]
    Exclusive {
        /// Which pool.
        pool: String,
        /// Which block.
        number: u32,
        /// What stands against it.
        why: &'static str,
    },
    /// Bytes outside of a block.
    #[error(
        "bytes {offset} to {offset} + {len} are outside of the block's {block_size} bytes: check \
         the offset"
    )]
    OutOfBlock {
        /// First byte.
        offset: usize,
        /// How many.
        len: usize,
        /// How many there are.
        block_size: usize,
    },
    /// A handle that was inherited by a child made by fork.
    #[error(
        "{pool}: was opened before this process was forked; join it anew in the child (its \
         memory is not mapped here)"
    )]
    Forked {
        /// Which pool.
        pool: String,
    },
    /// A change was tried from inside of a monitor's callback.
    #[error(
        "{pool}: a monitor may look but not change while it is called; hand the work to another \
         thread, or do it after the call"
    )]
    InsideMonitor {
        /// Which pool.
        pool: String,
    },
    /// There is no monitor of this id.
    #[error("{pool}: has no monitor {id}: it was removed already")]
    NoSuchMonitor {
        /// Which pool.
        pool: String,
        /// The id asked for.
        id: u64,
    },
    /// The pool cannot be closed yet.
    #[error(
        "{pool}: closed for new work, but {guards} guards are still held; it ends when the last of \
         them is dropped"
    )]
    StillHeld {
        /// Which pool.
        pool: String,
        /// How many guards.
        guards: u64,
    },
    /// Other handles to the pool exist.
    #[error("{pool}: {handles} other handles in this process are open; close them first")]
    StillShared {
        /// Which pool.
        pool: String,
        /// How many.
        handles: usize,
    },
    /// Somebody else has the pool open, and the work needs to be alone.
    #[error("{pool}: process {pid} ({name}) has it open; end it first, and try again")]
    NotAlone {
        /// Which pool.
        pool: String,
        /// The other's process id, as it said.
        pid: u32,
        /// The other's name, as it said.
        name: String,
    },
    /// A checkpoint could not be made, or a checkpoint file could not be used.
    #[error("{file}: checkpoint: {why}")]
    Checkpoint {
        /// Which file.
        file: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The machine was cut off since the pool was last open, and it is not to be made anew.
    #[error(
        "{pool}: was open when the machine went down, so its memory means nothing; open it by its \
         path, and allow it to be restored from its checkpoint (PowerCut::Restore)"
    )]
    PowerCut {
        /// Which pool.
        pool: String,
    },
    /// This thread is inside of a batch, and asked for what waits until no batch is open.
    #[error("{pool}: this thread is inside of a batch; end the batch first")]
    InsideBatch {
        /// Which pool.
        pool: String,
    },
    /// A batch has been open for too long for a cut to wait.
    #[error(
        "{pool}: a batch of process {pid} ({name}) was still open after {waited_ms} ms; end it, or \
         wait longer; nothing was changed"
    )]
    BatchOpen {
        /// Which pool.
        pool: String,
        /// The process that is inside, as it said.
        pid: u32,
        /// Its name, as it said.
        name: String,
        /// How long was waited, in ms.
        waited_ms: u64,
    },
    /// A cut, or another checkpoint, has been going on for too long for this one to wait.
    #[error(
        "{pool}: process {pid} ({name}) was still making a cut after {waited_ms} ms; if it is \
         stopped, continue or end it"
    )]
    CutOpen {
        /// Which pool.
        pool: String,
        /// The process that makes the cut, as it said.
        pid: u32,
        /// Its name, as it said.
        name: String,
        /// How long was waited, in ms.
        waited_ms: u64,
    },
    /// A hand-over through the descriptor store or a socket failed.
    #[error("hand-over: {0}")]
    Handover(#[from] crate::handover::HandoverError),
    /// No pool of the set has blocks that are large enough.
    #[error("{len} bytes are more than the largest size class of {largest} bytes: add a class")]
    NoSizeClass {
        /// How many bytes were asked for.
        len: usize,
        /// What the largest class has.
        largest: usize,
    },
    /// An index has a pool of this name already.
    #[error("the index has a pool {name:?} already: detach that one first")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A set of pools needs size classes.
    #[error("a set needs at least one size class: name the block sizes, as in [64, 1024]")]
    NoClasses,
}

/// What was found damaged.
///
/// ```
/// use mainstay_pool::Corruption;
/// let found = Corruption::HeaderField { field: "block_size", value: 0 };
/// assert_eq!(found.to_string(), "header field `block_size` has the impossible value 0");
/// ```
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Corruption {
    /// The header does not match its checksum.
    #[error("the header's checksum is {stored:#010x}, its bytes give {computed:#010x}")]
    HeaderChecksum {
        /// What the header says.
        stored: u32,
        /// What it should say.
        computed: u32,
    },
    /// A field of the header has an impossible value.
    #[error("header field `{field}` has the impossible value {value}")]
    HeaderField {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: u64,
    },
    /// The file ends before what its header says.
    #[error("the file has {file_len} bytes, and needs {needed}: it was truncated")]
    Truncated {
        /// How long it is, in bytes.
        file_len: u64,
        /// How long it should be, in bytes.
        needed: u64,
    },
    /// More extents than there can be.
    #[error("{found} extents, and there can be {max}")]
    Extents {
        /// What the file says.
        found: u64,
        /// What is possible.
        max: u64,
    },
    /// Fewer extents than there were: the count only grows.
    #[error("{found} extents, and there were {known}")]
    ExtentsGone {
        /// What the file says.
        found: u64,
        /// How many this process has seen.
        known: u64,
    },
    /// An owner word that no sequence of steps leads to.
    #[error("block {number} has the impossible owner word {word:#018x}")]
    OwnerWord {
        /// Which block.
        number: u32,
        /// Its word.
        word: u64,
    },
}

impl Error {
    pub(crate) fn checkpoint(file: &str, why: &str) -> Self {
        Self::Checkpoint { file: file.into(), why: why.into() }
    }

    pub(crate) fn corrupt(pool: &str, what: Corruption) -> Self {
        Self::Corrupt { pool: pool.into(), what }
    }
}

impl Corruption {
    /// What to do next.
    fn hint(&self) -> &'static str {
        match self {
            Self::OwnerWord { .. } | Self::ExtentsGone { .. } => {
                "run `mainstay pool verify` to see how much, and `mainstay pool repair` when \
                 nobody else has it open"
            }
            _ => "restore a copy of the file, or import an export: this one cannot be opened",
        }
    }
}
