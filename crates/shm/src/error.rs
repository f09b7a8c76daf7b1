//! What can go wrong below the level of blocks.

use std::{io, path::PathBuf};

/// The result of everything in this crate.
///
/// Example: see [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Each variant says what was wrong, where, and what to do.
///
/// ```
/// use mainstay_shm::{Access, Backing, Error};
/// let missing = Backing::open("/nowhere/calls".as_ref(), Access::ReadOnly);
/// assert!(matches!(missing, Err(Error::NotFound { .. })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no file of this name.
    #[error("{path}: there is no such file; check the name, or create it first")]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// A file of this name is there already.
    #[error("{path}: exists already; join it, or choose another name")]
    AlreadyExists {
        /// The path as given.
        path: PathBuf,
    },
    /// The user may not open the file this way.
    #[error(
        "{path}: permission to {wanted} is refused ({source}); check owner and mode of the file \
         and of its folder, or open it read-only"
    )]
    PermissionDenied {
        /// The path, or a description of the descriptor.
        path: String,
        /// "read", "read and write", "create".
        wanted: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A folder, socket, device or pipe where a file is needed.
    #[error("{path}: is a {found}, and a regular file or a memfd is needed; name a file")]
    NotAFile {
        /// The path, or a description of the descriptor.
        path: String,
        /// What it is.
        found: &'static str,
    },
    /// The file system or a quota has no room.
    #[error(
        "{path}: no room for {bytes} more bytes ({source}); free space, raise the quota, or use \
         another file system; nothing was lost"
    )]
    NoSpace {
        /// The path, or a description of the descriptor.
        path: String,
        /// How many bytes were asked for.
        bytes: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address space has no range of this size.
    #[error(
        "cannot reserve {bytes} bytes of address space ({source}); ask for a smaller reservation, \
         or raise the limit (ulimit -v)"
    )]
    AddressSpace {
        /// How many bytes were asked for.
        bytes: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something in shared memory points outside of what the file covers.
    #[error(
        "bytes {offset} to {offset} + {len} are outside of the {limit} bytes that the file covers: \
         the file is damaged or was truncated; run `mainstay pool verify`"
    )]
    OutOfBounds {
        /// First byte, from the start of the file.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// How many bytes there are.
        limit: u64,
    },
    /// An offset that does not fit the alignment of what should be there.
    #[error("offset {offset} is not a multiple of {align}: the layout is damaged")]
    Misaligned {
        /// The offset, from the start of the file.
        offset: u64,
        /// The alignment it must have.
        align: usize,
    },
    /// All process slots are leased to living processes.
    #[error(
        "all {slots} process slots are taken by living processes; close one of them, or open \
         read-only, which needs no slot"
    )]
    SlotsTaken {
        /// How many slots there are.
        slots: usize,
    },
    /// The kept descriptor was closed behind the library's back, or replaced.
    #[error(
        "the descriptor of {path} was closed or replaced by other code in this process, so it \
         cannot be opened again; do not close descriptors you did not open (see close_range(2))"
    )]
    DescriptorLost {
        /// The path, or a description of the descriptor.
        path: String,
    },
    /// The kernel does not tell which pages are written.
    #[error(
        "cannot {step}: {source}; write tracking by the kernel needs Linux 6.7, /proc, and a \
         sandbox that allows userfaultfd (without it, contents are compared)"
    )]
    WatchRefused {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The pages of another process cannot be looked at.
    #[error("process {pid}: {why}; its writes are found by comparing contents instead")]
    RemoteRefused {
        /// Which process.
        pid: u32,
        /// What stands against it.
        why: String,
    },
    /// Something that was inherited by a child made by fork.
    #[error("{what} was made before this process was forked; make a new one in the child")]
    Forked {
        /// What it is.
        what: &'static str,
    },
    /// Any other refusal of the kernel.
    #[error("{path}: cannot {action}: {source}; {hint}")]
    System {
        /// The path, or a description of the descriptor.
        path: String,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// What to do next.
        hint: &'static str,
    },
}
