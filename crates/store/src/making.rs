//! A directory in which something is made that gets its name when it is whole: who makes it says so by a
//! mark, which is locked as long as somebody is at it. What has no mark is somebody's, and is left alone.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use mainstay_shm::hook;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{
    error::{Error, Result},
    exchange::sync_parent,
    folder::{LOCK, Lock},
};

/// The mark of a store that is made for a place of its own. It is no part of the store, and is never
/// encrypted.
pub(crate) const MAKING: &str = "being-made";

/// A store that is made beside the place that it is to have, and gets there when it is whole.
///
/// Dropped before [`finish`](Self::finish) it leaves nothing. What one that was killed has left is
/// removed by the next one for the same place.
///
/// ```
/// use mainstay_store::{Directory, Making, Options, RawStore};
/// let dir = tempfile::tempdir()?;
/// let place = dir.path().join("countries");
/// let making = Making::begin(&place, "restoring")?;
/// RawStore::create(Directory::lock(making.path())?, 2, 3, &Options::default())?.close()?;
/// assert!(!place.exists());
/// making.finish()?;
/// RawStore::open(Directory::lock(&place)?, &Options::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Making {
    place: PathBuf,
    beside: PathBuf,
    /// Of the mark. Last, so that nobody else begins before all is removed.
    lock: Option<Lock>,
}

impl Making {
    /// Begins one, in `PLACE.ENDING`.
    ///
    /// Example: see [`Making`].
    ///
    /// # Errors
    /// [`Error::Exists`] if there is something in the place; [`Error::Locked`] if somebody else is at
    /// it; [`Error::InTheWay`] if what is beside it is not what an earlier one has left; what the disk
    /// says.
    pub fn begin(place: &Path, ending: &str) -> Result<Self> {
        let place = std::path::absolute(place).map_err(Error::io(place.display().to_string()))?;
        if is_there(&place)? {
            return Err(Error::Exists);
        }
        let beside = named(&place, ending);
        if let Some(parent) = beside.parent() {
            fs::create_dir_all(parent).map_err(Error::io(parent.display().to_string()))?;
        }
        let lock = Self::lock(&beside)?;
        let making = Self { place, beside, lock: Some(lock) };
        // Another one may just have been through.
        if is_there(&making.place)? {
            return Err(Error::Exists);
        }
        remove_files(&making.beside, MAKING)?;
        Ok(making)
    }

    /// Where it is made, by whoever locks that directory.
    ///
    /// Example: see [`Making`].
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.beside
    }

    fn lock(beside: &Path) -> Result<Lock> {
        let failed = |error| Error::io(beside.display().to_string())(error);
        if whose(beside, MAKING)? == Whose::Nothing {
            match fs::create_dir(beside) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed(error));
                }
                _ => hook::step(),
            }
        }
        // One that was there a moment ago is about to have its place.
        if !check_ours(beside, MAKING)? {
            return Err(Error::Locked);
        }
        let mark = beside.join(MAKING);
        let opened = File::options().write(true).create(true).truncate(false).open(&mark);
        let file = match opened {
            Ok(file) => file,
            // It got its place just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Locked),
            Err(error) => return Err(failed(error)),
        };
        let taken = file.metadata().map_err(failed)?.ino();
        let lock = match Lock::take(file, false) {
            Ok(lock) => lock,
            Err(TryLockError::WouldBlock) => return Err(Error::Locked),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        };
        // Who had it may have put all in its place since it was opened.
        let is_it = fs::metadata(&mark).is_ok_and(|found| found.ino() == taken);
        if is_it { Ok(lock) } else { Err(Error::Locked) }
    }

    /// Gives it its place, durably; what is made must be durable.
    ///
    /// Example: see [`Making`].
    ///
    /// # Errors
    /// [`Error::Exists`] if there is something in the place by now; what the disk says.
    pub fn finish(mut self) -> Result<()> {
        let failed = |error| Error::io(self.place.display().to_string())(error);
        hook::step();
        match renameat_with(CWD, &self.beside, CWD, &self.place, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => return Err(Error::Exists),
            renamed => renamed.map_err(|error| failed(error.into()))?,
        }
        // It is in its place, and is not removed any more.
        self.beside = PathBuf::new();
        sync_parent(&self.place)?;
        hook::step();
        fs::remove_file(self.place.join(MAKING)).map_err(failed)?;
        File::open(&self.place).and_then(|place| place.sync_all()).map_err(failed)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.beside.as_os_str().is_empty()
            && let Err(error) = remove_ours(&self.beside, MAKING)
        {
            tracing::warn!(%error, "what was begun beside a store stays");
        }
        drop(self.lock.take());
    }
}

/// Whose a directory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    /// It is not there.
    Nothing,
    /// It has the mark, or nothing that anybody could miss.
    Ours,
    Theirs,
}

fn whose(path: &Path, mark: &str) -> Result<Whose> {
    let failed = |error| Error::io(path.display().to_string())(error);
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Ok(Whose::Theirs),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Whose::Nothing),
        Err(error) => return Err(failed(error)),
    }
    let (mut is_marked, mut is_empty) = (false, true);
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Whose::Nothing),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // None of ours makes directories in its own.
        if entry.file_type().map_err(failed)?.is_dir() {
            return Ok(Whose::Theirs);
        }
        is_marked |= entry.file_name() == mark;
        is_empty &= entry.file_name() == LOCK;
    }
    Ok(if is_marked || is_empty { Whose::Ours } else { Whose::Theirs })
}

/// Refuses what is in the way and is none of ours; whether there is something.
pub(crate) fn check_ours(path: &Path, mark: &str) -> Result<bool> {
    match whose(path, mark)? {
        Whose::Nothing => Ok(false),
        Whose::Ours => Ok(true),
        Whose::Theirs => Err(Error::InTheWay { path: path.to_owned() }),
    }
}

/// Removes a directory that has the mark, the mark at the very end: whoever is killed meanwhile leaves
/// what the next one removes.
pub(crate) fn remove_ours(path: &Path, mark: &str) -> Result<()> {
    if !check_ours(path, mark)? {
        return Ok(());
    }
    remove_files(path, mark)?;
    hook::step();
    // Not whatever is in it: somebody else may just have begun anew.
    let removed = fs::remove_file(path.join(mark)).or_else(unless_gone);
    let removed = removed.and_then(|()| fs::remove_dir(path).or_else(unless_gone));
    removed.map_err(Error::io(path.display().to_string()))
}

fn unless_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Removes what was made, and keeps the mark.
fn remove_files(path: &Path, mark: &str) -> Result<()> {
    let failed = |error| Error::io(path.display().to_string())(error);
    let entries = match fs::read_dir(path) {
        // Somebody else removes it as well.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_name() != mark {
            hook::step();
            fs::remove_file(entry.path()).or_else(unless_gone).map_err(failed)?;
        }
    }
    Ok(())
}

fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(path.display().to_string())(error)),
    }
}

fn named(place: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = place.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    place.with_file_name(name)
}

#[cfg(test)]
mod tests;
