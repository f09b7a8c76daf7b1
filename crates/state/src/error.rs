//! What can go wrong with states.

use mainstay_base::NameError;
use std::{path::PathBuf, time::Duration};

/// The result of everything in this crate.
///
/// Example: see [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Each variant says what was wrong, where, and what to do.
///
/// ```
/// use mainstay_state::{Domain, Error};
/// let dir = tempfile::tempdir()?;
/// let missing = Domain::open(dir.path())?.reader::<[u8]>("speed");
/// assert!(matches!(missing, Err(Error::NotFound { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name breaks a rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is no state of this name, and a reader does not make one.
    #[error("{state}: there is no such state; check the name, or start the process that writes it")]
    NotFound {
        /// Its name.
        state: String,
    },
    /// Somebody else has committed since the transaction began.
    #[error("{state}: another commit came first; begin again with what is there now")]
    Conflict {
        /// The state, or the first of several, that has changed.
        state: String,
    },
    /// The subscription is for reading only.
    #[error("{state}: this subscription may only read; subscribe for writing")]
    NotPermitted {
        /// Its name.
        state: String,
    },
    /// The state was deleted.
    #[error("{state}: was deleted; subscribe again to make a new one")]
    Deleted {
        /// Its name.
        state: String,
    },
    /// Other living processes are subscribed, so the state cannot be deleted.
    #[error("{state}: process {pid} is subscribed; stop it first, then delete the state")]
    InUse {
        /// Its name.
        state: String,
        /// One of the subscribers, for display.
        pid: u32,
    },
    /// A process has been joining or leaving this state for too long.
    #[error(
        "{state}: another process has been joining or leaving for {waited:?}; continue or kill it \
         if it is stopped, then try again"
    )]
    Busy {
        /// Its name.
        state: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// All version slots are in use by the living.
    #[error(
        "{state}: all {slots} version slots are claimed or pinned ({holders}); let go of some, or \
         make the state with more slots"
    )]
    NoFreeSlot {
        /// Its name.
        state: String,
        /// How many there are.
        slots: u32,
        /// Who holds them.
        holders: String,
    },
    /// All lines of the pin table are kept by the living.
    #[error("{state}: all {lines} pin lines are kept by handles of living processes; drop some")]
    NoFreeLine {
        /// Its name.
        state: String,
        /// How many there are.
        lines: u32,
    },
    /// The type of the state is another one.
    #[error("{state}: holds {found}, not {wanted}; use the type it was made with")]
    OtherType {
        /// Its name.
        state: String,
        /// What it was made with.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// An option does not fit the state that exists.
    #[error(
        "{state}: its {what} is {found}, not {wanted}; leave the option away to take it as it is"
    )]
    OtherOption {
        /// Its name.
        state: String,
        /// Which option.
        what: &'static str,
        /// What the state has.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// An option is outside of its limits.
    #[error("{what} must be from {min} to {max}, not {found}")]
    OptionRange {
        /// Which option.
        what: &'static str,
        /// What was asked for.
        found: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// The permissions that a new state is to be made with cannot be.
    #[error("{state}: cannot have the permissions {mode:#o}: {why}; 0o600 and 0o640 are examples")]
    Permissions {
        /// Its name.
        state: String,
        /// What was asked for.
        mode: u32,
        /// Which rule was broken.
        why: &'static str,
    },
    /// The size would shrink, or grow past its limit.
    #[error("{state}: a size of {wanted} bytes is refused: {why}")]
    Size {
        /// Its name.
        state: String,
        /// What was asked for.
        wanted: usize,
        /// Which rule says no.
        why: String,
    },
    /// The state has a file already, and it is another one.
    #[error("{state}: is kept in {}, which cannot be changed; use that path", found.display())]
    OtherPath {
        /// Its name.
        state: String,
        /// Where it is kept.
        found: PathBuf,
    },
    /// The path is too long, not absolute, or not text.
    #[error("{}: {why}; choose another path", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Which rule was broken.
        why: &'static str,
    },
    /// A transaction over several states has too many.
    #[error("a transaction takes {max} states, not more; split it")]
    TooManyStates {
        /// The limit.
        max: usize,
    },
    /// States of two folders in one transaction.
    #[error(
        "{state}: is of another folder than the first state of the transaction; use one folder"
    )]
    OtherDomain {
        /// Its name.
        state: String,
    },
    /// A transaction was given up after the tries or the time that its policy allows.
    #[error(
        "{state}: gave up after {tries} conflicts in {elapsed:?}; allow more, or write less often"
    )]
    RetriesExhausted {
        /// The state of the last conflict.
        state: String,
        /// How often it was tried.
        tries: u32,
        /// How long it took.
        elapsed: Duration,
    },
    /// The handle belongs to the process that this one was forked from.
    #[error("{state}: this process was forked; open the folder and subscribe in the child itself")]
    Forked {
        /// Its name.
        state: String,
    },
    /// Something in shared memory or a file cannot be.
    #[error(
        "{place}: damaged: {field} is {found}; remove the state with `mainstay state rm`, or restore its file"
    )]
    Corrupt {
        /// The file.
        place: String,
        /// What is wrong.
        field: &'static str,
        /// What was found.
        found: String,
    },
    /// A file of another format version.
    #[error(
        "{place}: has format version {found}, this program knows {known}; use a newer program, or remove the file"
    )]
    Version {
        /// The file.
        place: String,
        /// What the file says.
        found: u32,
        /// What this program knows.
        known: u32,
    },
    /// The durable copy of a persistent state could not be written or read.
    #[error("{}: cannot {action} ({source}); the state in memory is as it was", path.display())]
    Durable {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The kernel refuses what a watch needs.
    #[error("cannot {action} ({source}); {hint}")]
    Watch {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// D-Bus does not do what was asked.
    #[cfg(feature = "dbus")]
    #[error("cannot {action} ({source}); check that the bus runs, and that its policy allows it")]
    Bus {
        /// What was tried.
        action: &'static str,
        /// What the bus said.
        source: Box<zbus::Error>,
    },
    /// The layer below: files, mappings, locks.
    #[error(transparent)]
    Memory(#[from] mainstay_shm::Error),
}
