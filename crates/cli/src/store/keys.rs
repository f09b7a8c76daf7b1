//! Under which keys this run of the command opens stores, and makes them.
//!
//! They come from files, never from the command line itself, which others can see. All stores of one
//! run are under them, the strict way: what is not encrypted is refused, since somebody could have put
//! it there instead.

use crate::error::{CliError, Result};
use mainstay::store::{
    Aside, Directory, Error, Key, KeyError, Keys, LogOnDisk, LogSurvey, OnDisk, Reader,
    ScrubOptions, Scrubbed, Survey, check_log_copy, check_log_copy_with, encrypted_under,
    is_log_copy, restore_with,
};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// What was given; set once, before anything is opened.
static GIVEN: OnceLock<Keys> = OnceLock::new();

#[derive(clap::Args)]
pub(super) struct KeyFiles {
    /// The file with the key that the store is encrypted under, as `store key new` makes it; `create`
    /// and `follow` make an encrypted one with it. Of several the first is for what is made, and each
    /// for what is read
    #[arg(long = "key-file", value_name = "FILE", global = true, env = "MAINSTAY_KEY_FILE",
          hide_env_values = true, value_hint = clap::ValueHint::FilePath)]
    files: Vec<PathBuf>,
}

impl KeyFiles {
    /// Reads them, for all that is opened from now on.
    pub(super) fn take(&self) -> Result<()> {
        let mut files = self.files.iter();
        let Some(first) = files.next() else { return Ok(()) };
        let mut keys = Keys::new(Key::read(first)?);
        for file in files {
            keys = keys.with_older(Key::read(file)?);
        }
        // A process runs one command.
        GIVEN.get_or_init(|| keys);
        Ok(())
    }
}

/// The keys of this run, if there are some.
pub(super) fn given() -> Option<&'static Keys> {
    GIVEN.get()
}

/// Makes a key where there is none.
pub(super) fn make(path: &Path) -> Result<Key> {
    Key::create(path).map_err(|error| match error {
        KeyError::Io { path, source } if source.kind() == ErrorKind::AlreadyExists => {
            CliError::KeyExists(path)
        }
        other => other.into(),
    })
}

/// The directory of a store, locked; made if it is not there.
pub(super) fn lock(path: &Path) -> mainstay::store::Result<Directory> {
    match given() {
        Some(keys) => Directory::lock_with(path, keys),
        None => Directory::lock(path),
    }
}

/// To look only.
pub(super) fn view(path: &Path) -> mainstay::store::Result<OnDisk> {
    match given() {
        Some(keys) => OnDisk::open_with(path, keys),
        None => OnDisk::open(path),
    }
}

/// A store of any sizes, to be looked at.
pub(super) fn view_any(path: &Path) -> mainstay::store::Result<LogOnDisk> {
    match given() {
        Some(keys) => LogOnDisk::open_with(path, keys),
        None => LogOnDisk::open(path),
    }
}

/// The same where one that is not encrypted will do as well.
pub(super) fn view_any_either(path: &Path) -> mainstay::store::Result<LogOnDisk> {
    if encrypted_under(path)?.is_some() { view_any(path) } else { LogOnDisk::open(path) }
}

/// Checks a copy of a store of any sizes.
pub(super) fn check_copy(path: &Path, told: impl FnMut(u64, u64)) -> mainstay::store::Result<()> {
    match given() {
        Some(keys) => check_log_copy_with(path, keys, told),
        None => check_log_copy(path, told),
    }
}

/// The same, without keeping anybody from opening it.
pub(super) fn beside_any(path: &Path) -> mainstay::store::Result<LogOnDisk> {
    match given() {
        Some(keys) => LogOnDisk::beside_with(path, keys),
        None => LogOnDisk::beside(path),
    }
}

/// What a store has set aside.
pub(super) fn aside(path: &Path) -> mainstay::store::Result<Aside> {
    match given() {
        Some(keys) => Aside::of_with(path, keys),
        None => Aside::of(path),
    }
}

/// A store of fixed sizes that somebody has open, in their memory. Nobody says what it is encrypted
/// under, so whoever gives a key is refused.
pub(super) fn live(path: &Path) -> mainstay::store::Result<Reader> {
    if given().is_some() {
        return Err(Error::Locked);
    }
    match Reader::open(path) {
        Err(Error::NotInMemory { .. }) => Err(Error::Locked),
        reader => reader,
    }
}

/// To look only, where a store that is not encrypted will do as well.
pub(super) fn view_either(path: &Path) -> mainstay::store::Result<OnDisk> {
    if encrypted_under(path)?.is_some() { view(path) } else { OnDisk::open(path) }
}

pub(super) fn scrub(
    path: &Path,
    options: &ScrubOptions,
    told: impl FnMut(u64, u64) -> bool + Send,
) -> mainstay::store::Result<Scrubbed> {
    match given() {
        Some(keys) => mainstay::store::scrub_with(path, keys, options, told),
        None => mainstay::store::scrub(path, options, told),
    }
}

pub(super) fn survey(path: &Path, told: impl FnMut(u64, u64)) -> mainstay::store::Result<Survey> {
    match given() {
        Some(keys) => Survey::of_with(path, keys, told),
        None => Survey::of(path, told),
    }
}

pub(super) fn survey_any(
    path: &Path,
    told: impl FnMut(u64, u64),
) -> mainstay::store::Result<LogSurvey> {
    match given() {
        Some(keys) => LogSurvey::of_with(path, keys, told),
        None => LogSurvey::of(path, told),
    }
}

/// Makes a store of a copy, encrypted as the copy is.
pub(super) fn restore(
    from: &Path,
    to: &Path,
    told: impl FnMut(u64, u64),
) -> mainstay::store::Result<u64> {
    match given() {
        Some(keys) => restore_with(from, to, keys, told),
        None => mainstay::store::restore(from, to, told),
    }
}

/// What a store refuses because of keys, in the words of the command.
pub(super) fn refused(path: &Path, error: Error) -> CliError {
    let path = path.to_path_buf();
    match error {
        Error::Encrypted { key } => CliError::NeedsKey { path, key },
        Error::OtherKey { file, wanted } => CliError::OtherKey { path, file, wanted },
        Error::NotEncrypted { file } => CliError::NotEncrypted { path, file },
        Error::NotWhole => CliError::Unfinished(path),
        Error::NotAStore if is_log_copy(&path).unwrap_or(false) => CliError::IsCopy(path),
        source => CliError::Store { path, source },
    }
}
