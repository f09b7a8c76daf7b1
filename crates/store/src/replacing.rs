//! Another store in the place of a damaged one, whose files are kept.
//!
//! The new one is made in `NAME.repairing` beside it, with a mark as long as it is not in its place.
//! When all of it is durable the two names are exchanged in one step, and what was damaged gets the
//! name `NAME.damaged-1`. A directory without a mark is never removed: it is in its place, or it is what
//! was damaged.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use mainstay_shm::hook;
use mainstay_storage::Folder;

use crate::{
    error::{Error, Result},
    exchange::{check_place, exchange, sync_parent},
    folder::Directory,
    making::remove_ours,
    mark::{Maker, UNFINISHED, begun_by, mark, unmark},
};

/// A store that is to be replaced by another one, and kept.
///
/// ```
/// use mainstay_store::{Directory, LogOptions, RawLogStore, Replacing};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("names");
/// let make = |path| RawLogStore::create(Directory::lock(path)?, &LogOptions::default());
/// make(&path)?.close()?;
///
/// let replacing = Replacing::begin(Directory::lock(&path)?)?;
/// let new = make(replacing.path())?;
/// let id = new.id();
/// new.close()?;
/// assert!(replacing.finish()?.ends_with("names.damaged-1"));
/// let store = RawLogStore::open(Directory::lock(&path)?, &LogOptions::default())?;
/// assert_eq!(store.id(), id);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Replacing {
    old: Directory,
    beside: PathBuf,
    kept: PathBuf,
}

impl Replacing {
    /// Makes a place for the other store. What an attempt that was killed left there is removed.
    ///
    /// Example: see [`Replacing`].
    ///
    /// # Errors
    /// [`Error::MountPoint`], as that cannot be replaced; [`Error::Locked`] if the directory beside is in
    /// use; what the disk says.
    pub fn begin(old: Directory) -> Result<Self> {
        let path = old.path();
        check_place(&path)?;
        clear_marks(&old)?;
        let (beside, kept) = (named(&path, ".repairing"), free_name(&path)?);
        mark(&old.lock_alike(&beside)?, Maker::Replacing)?;
        Ok(Self { old, beside, kept })
    }

    /// Where the other store is to be made, by whoever locks that directory.
    ///
    /// Example: see [`Replacing`].
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.beside
    }

    /// Gives the other store, which must be durable and closed, the name of this one. Where the files
    /// of this one are now.
    ///
    /// Example: see [`Replacing`].
    ///
    /// # Errors
    /// [`Error::NotAStore`] if there is none; [`Error::Locked`]; what the disk says. Unless it says so
    /// of the last step, this one is where it was.
    pub fn finish(self) -> Result<PathBuf> {
        let Self { old, beside, kept } = self;
        let new = old.lock_alike(&beside)?;
        let names = new.names().map_err(Error::io("the directory"))?;
        if !names
            .iter()
            .any(|name| [crate::any::ANY_FILE, crate::format::STORE_FILE].contains(&&**name))
        {
            return Err(Error::NotAStore);
        }
        let path = old.path();
        exchange(&path, &beside)?;
        sync_parent(&path)?;
        new.moved(path);
        unmark(&new)?;
        rename(&beside, &kept)?;
        old.moved(kept.clone());
        Ok(kept)
    }
}

/// Has a store made anew beside a damaged one, durable and closed in the end, and puts it in its place.
/// What was said of it, and where the damaged files are now.
pub(crate) fn made_anew<T>(
    folder: Directory,
    make: impl FnOnce(&Directory, Directory) -> Result<T>,
) -> Result<(T, PathBuf)> {
    let replacing = Replacing::begin(folder)?;
    let other = replacing.old.lock_alike(&replacing.beside)?;
    let told = make(&replacing.old, other)?;
    Ok((told, replacing.finish()?))
}

/// Ends what an attempt that was killed has begun. Of a store that got its place only the mark is
/// left. Beside it is a new one that did not, and is removed; or what was damaged, which is kept.
pub(crate) fn clear_marks(folder: &Directory) -> Result<()> {
    // What a salvage has not finished stays that.
    if begun_by(folder)? == Some(Maker::Replacing) {
        unmark(folder)?;
    }
    let path = folder.path();
    let beside = named(&path, ".repairing");
    if !beside.is_dir() {
        return Ok(());
    }
    drop(Directory::lock(&beside)?);
    match remove_ours(&beside, UNFINISHED) {
        Err(Error::InTheWay { .. }) => rename(&beside, &free_name(&path)?),
        removed => removed,
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    hook::step();
    fs::rename(from, to).map_err(Error::io(to.display().to_string()))?;
    sync_parent(to)
}

fn named(path: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// A name for the damaged files that nothing has.
fn free_name(path: &Path) -> Result<PathBuf> {
    for number in 1_u32.. {
        let kept = named(path, &format!(".damaged-{number}"));
        match fs::symlink_metadata(&kept) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(kept),
            Err(error) => return Err(Error::io(kept.display().to_string())(error)),
        }
    }
    Err(Error::Exists)
}
