//! What can go wrong with keys, and with the files that are encrypted under them.

use std::{io, path::PathBuf};

use super::KeyId;

/// Each variant says what was wrong, where, and what to do. What the files of an
/// [`Encrypted`](super::Encrypted) folder refuse is an [`io::Error`] with such an error inside.
///
/// ```
/// use mainstay_storage::{Key, KeyError};
/// let refused = Key::read("/nowhere/key".as_ref());
/// assert!(matches!(refused, Err(KeyError::Io { .. })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key of a file was not given.
    #[error(
        "{file} is encrypted under key {wanted}, which was not given; give the file with that key, \
         also beside a newer one"
    )]
    Missing {
        /// The file.
        file: String,
        /// The key it is encrypted under.
        wanted: KeyId,
    },
    /// A file is not encrypted.
    #[error(
        "{file} is not encrypted, or what says so is lost; open it without a key if it never was, \
         or restore it from a backup"
    )]
    NotEncrypted {
        /// The file.
        file: String,
    },
    /// Neither copy of the header of a file is as it was written.
    #[error(
        "{file}: neither copy of its encryption header is as it was written under this name; \
         restore it from a backup"
    )]
    Damaged {
        /// The file.
        file: String,
    },
    /// A file was encrypted by a version this one does not know.
    #[error("{file}: version {version} of encryption is not known here; use a newer release")]
    Version {
        /// The file.
        file: String,
        /// Its version.
        version: u32,
    },
    /// A data key has been used as often as it may be.
    #[error(
        "{file}: its data key has been used for {max} writes, the most it may be; open it again"
    )]
    Used {
        /// The file.
        file: String,
        /// The most writes.
        max: u64,
    },
    /// Others can read the file of a key.
    #[error(
        "{path}: others than its owner have access to this key (mode {mode:o}); take it from them \
         by `chmod 600`, and make another key if they may have read it"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file has no key in it.
    #[error("{path}: is no key; it must have 32 bytes, or 64 hexadecimal digits")]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused something.
    #[error("{path}: {source}; check the path and the rights, then try again")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl From<KeyError> for io::Error {
    fn from(error: KeyError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}
