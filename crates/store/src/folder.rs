//! Where a store keeps its files: a directory.

mod bare;

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use mainstay_shm::{fork::Epoch, hook};
use mainstay_storage::{Folder, Storage};
use rustix::{
    fs::{AtFlags, OFlags, statat, unlinkat},
    io::{Errno, retry_on_intr},
};

pub(crate) use self::bare::boot_id;
use self::bare::{Bare, BareFile, names_in, open_as, open_in};
use crate::{
    any::ANY_FILE,
    error::{Error, Result},
    format::STORE_FILE,
    keyed::{FileOf, Files, Ring},
    making::remove_ours,
    mark::UNFINISHED,
};

/// A directory of the file system, locked as long as it lives (A5). One that was made for it is removed
/// with it if nothing has come into it.
///
/// ```
/// use mainstay_store::{Directory, Error};
/// let dir = tempfile::tempdir()?;
/// let first = Directory::lock(dir.path())?;
/// assert!(matches!(Directory::lock(dir.path()), Err(Error::Locked)));
/// drop(first);
/// assert!(Directory::lock(dir.path()).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Directory {
    /// Without symbolic links, as it was when it was locked or moved.
    path: Mutex<PathBuf>,
    handle: File,
    /// It was replaced, and is removed when it is dropped.
    is_replaced: AtomicBool,
    files: Files<Bare>,
    lock: Lock,
    /// What was made for it, and goes again if nothing comes into it.
    made: Made,
}

/// What a [`Directory`] has made before there is anything in it: whoever is refused leaves nothing.
struct Made {
    /// Of its file `lock`: what there was with it then.
    lock: Option<BTreeSet<OsString>>,
    /// Itself, then the directories it is in, from the inside out.
    directories: Vec<PathBuf>,
}

pub(crate) const LOCK: &str = "lock";
/// Between the name of a directory and its number while it is being removed.
pub(crate) const GONE: &str = ".gone-";

/// The lock of a directory, by flock(2).
pub(crate) struct Lock {
    file: File,
    epoch: Epoch,
}

impl Lock {
    /// Alone, or together with others who share it.
    pub(crate) fn take(file: File, is_shared: bool) -> std::result::Result<Self, TryLockError> {
        if is_shared {
            file.try_lock_shared()?
        } else {
            file.try_lock()?
        }
        Ok(Self { file, epoch: Epoch::now() })
    }
}

/// Is the file of that name in the directory still this one? Whoever had it may have removed it.
fn is_in(lock: &File, directory: &File) -> io::Result<bool> {
    let lock = lock.metadata()?;
    match retry_on_intr(|| statat(directory, LOCK, AtFlags::SYMLINK_NOFOLLOW)) {
        Ok(found) => Ok((found.st_dev, found.st_ino) == (lock.dev(), lock.ino())),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file lets go of it only when no child that is about to become another program
        // has it any more. A child that goes on as it is has no say: the lock is its parent's.
        if self.epoch.is_current() {
            // The file is closed next, which does the same a little later.
            let _closed_soon = self.file.unlock();
        }
    }
}

impl Directory {
    /// Locks a directory; one that is not there is made.
    ///
    /// Example: see [`Directory`].
    ///
    /// # Errors
    /// [`Error::Locked`] if another store, of this process or another, has it.
    pub fn lock(path: &Path) -> Result<Self> {
        Self::lock_as(path, Ring::NONE)
    }

    /// Locks a directory whose files are encrypted, or are to be: nothing that a store writes to it
    /// can be read without its key. There is no memory in files then: nobody can read it in place
    /// ([`Reader`](crate::Reader)), and after the death of a process its log is read again.
    ///
    /// ```
    /// use mainstay_store::{Directory, Durability, Error, Key, Keys, Options, RawStore};
    /// let dir = tempfile::tempdir()?;
    /// let keys = Keys::new(Key::create(&dir.path().join("key"))?);
    /// let place = dir.path().join("store");
    /// let store = RawStore::create(Directory::lock_with(&place, &keys)?, 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Durability::Group)?;
    /// drop(store);
    /// let store = RawStore::open(Directory::lock_with(&place, &keys)?, &Options::default())?;
    /// assert_eq!(store.get(b"de")?, Some(b"049".to_vec()));
    /// drop(store);
    /// let without = RawStore::open(Directory::lock(&place)?, &Options::default());
    /// assert!(matches!(without, Err(Error::Encrypted { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`lock`](Self::lock). What is there already and is not encrypted, or is under a key that is
    /// not among these, is refused when it is opened: [`Error::NotEncrypted`], [`Error::OtherKey`].
    #[cfg(feature = "encryption")]
    pub fn lock_with(path: &Path, keys: &crate::Keys) -> Result<Self> {
        Self::lock_as(path, Ring::of(keys))
    }

    pub(crate) fn lock_as(path: &Path, ring: Ring<'_>) -> Result<Self> {
        let failed = |error| Error::io(path.display().to_string())(error);
        // One that was there a moment ago was somebody's, who takes it away.
        let failed_since = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Error::Locked,
            _ => failed(error),
        };
        let directories = missing(path);
        match make_durably(path, &directories) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A file, or a link that leads nowhere, was not taken away.
                let is_other = fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir());
                return Err(if is_other { failed(error) } else { Error::Locked });
            }
            made => made.map_err(failed)?,
        }
        let handle = File::open(path).map_err(failed_since)?;
        let (lock, is_made) = lock_in(&handle).map_err(failed_since)?;
        let lock = match Lock::take(lock, false) {
            Ok(lock) => lock,
            Err(TryLockError::WouldBlock) => return Err(Error::Locked),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        };
        if !is_in(&lock.file, &handle).map_err(failed)? {
            return Err(Error::Locked);
        }
        let path = fs::canonicalize(path).map_err(failed_since)?;
        // Another one may have got this name meanwhile, and be somebody's.
        if !is_same(&handle, &path).map_err(failed_since)? {
            return Err(Error::Locked);
        }
        let (path, is_replaced) = (Mutex::new(path), AtomicBool::new(false));
        let files = ring.over(Bare(handle.try_clone().map_err(failed)?));
        let found = || names_in(&handle).map_err(failed);
        let made = Made { lock: is_made.then(found).transpose()?, directories };
        Ok(Self { path, handle, is_replaced, files, lock, made })
    }

    /// Locks another one, encrypted as this one is.
    pub(crate) fn lock_alike(&self, path: &Path) -> Result<Self> {
        Self::lock_as(path, self.files.ring())
    }

    fn path_mut(&self) -> MutexGuard<'_, PathBuf> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path_mut().clone()
    }

    /// It has another name now.
    pub(crate) fn moved(&self, path: PathBuf) {
        *self.path_mut() = path;
    }

    /// The name under which it is removed.
    fn gone(&self) -> OsString {
        let mut name = self.path().file_name().unwrap_or_default().to_owned();
        let number = self.handle.metadata().map_or(0, |found| found.ino());
        name.push(format!("{GONE}{number}"));
        name
    }

    /// Removes what was made for it, unless something has come into it.
    fn leave(&self) -> io::Result<()> {
        let Some(found) = &self.made.lock else { return Ok(()) };
        // A store that came without its lock keeps it.
        let is_store = [ANY_FILE, STORE_FILE].iter().any(|name| found.contains(OsStr::new(name)));
        // A child made by fork has no say.
        if is_store || !self.lock.epoch.is_current() || names_in(&self.handle)? != *found {
            return Ok(());
        }
        unlinkat(&self.handle, LOCK, AtFlags::empty())?;
        for (level, directory) in self.made.directories.iter().enumerate() {
            if level > 0 || is_same(&self.handle, directory)? {
                fs::remove_dir(directory)?;
            }
        }
        Ok(())
    }

    /// Another one has its place: it is removed when nobody uses it any more.
    pub(crate) fn remove_in_the_end(&self) {
        self.is_replaced.store(true, Relaxed);
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let path = self.path();
        if !self.is_replaced.load(Relaxed) || !is_same(&self.handle, &path).unwrap_or(false) {
            // What somebody else has put there, or is taking, stays.
            let _stays = self.leave();
            return;
        }
        // Under a name of its own: the one it has may be taken by the next as soon as it is free.
        let gone = path.with_file_name(self.gone());
        let renamed = fs::rename(&path, &gone).map_err(Error::io("the directory"));
        if let Err(error) = renamed.and_then(|()| remove_ours(&gone, UNFINISHED)) {
            tracing::warn!(%error, path = %path.display(), "a store that was replaced stays");
        }
    }
}

/// Makes a directory, durably in the one above it, whose sync of names its own says nothing about:
/// without it a power cut may take all of a store, however well its files are synced.
fn make_durably(path: &Path, missing: &[PathBuf]) -> io::Result<()> {
    // Whoever has made the lock has done this before.
    if fs::symlink_metadata(path.join(LOCK)).is_ok() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    // One that was there may be of a process that has died before it came to this.
    let present = [path.to_path_buf()];
    for made in if missing.is_empty() { &present } else { missing } {
        let place = match fs::canonicalize(made) {
            // Somebody has taken it away, as is noticed next.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            place => place?,
        };
        let Some(above) = place.parent() else { continue };
        hook::step();
        match File::open(above).and_then(|above| above.sync_all()) {
            // Who may make a file there need not be allowed to open it for this.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(path = %above.display(), "cannot be synced: a power cut may take a new directory out of it");
            }
            synced => synced?,
        }
    }
    Ok(())
}

/// Is this the directory of that name?
fn is_same(handle: &File, path: &Path) -> io::Result<bool> {
    let (one, other) = (handle.metadata()?, fs::metadata(path)?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Those of it and of the directories it is in that are not there, from the inside out.
fn missing(path: &Path) -> Vec<PathBuf> {
    let path = std::path::absolute(path).unwrap_or_default();
    let is_missing = |path: &&Path| fs::symlink_metadata(path).is_err();
    path.ancestors().take_while(is_missing).map(Path::to_path_buf).collect()
}

/// The file `lock` of a directory, and whether it was made for that.
fn lock_in(directory: &File) -> io::Result<(File, bool)> {
    match open_as(directory, LOCK, OFlags::EXCL) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok((open_in(directory, LOCK)?, false))
        }
        made => Ok((made?, true)),
    }
}

impl Folder for Directory {
    type File = DirectoryFile;

    fn file(&self, name: &str) -> io::Result<DirectoryFile> {
        self.files.file(name).map(DirectoryFile)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.files.names()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.files.sync_names()
    }

    fn mapped(&self, name: &str) -> io::Result<Option<File>> {
        self.files.mapped(name)
    }

    fn boot(&self) -> io::Result<[u8; 16]> {
        self.files.boot()
    }
}

/// A file of a [`Directory`]. A crash test may stop the process before each call that changes it.
///
/// ```
/// use mainstay_storage::{Folder, Storage};
/// use mainstay_store::Directory;
/// let dir = tempfile::tempdir()?;
/// let file = Directory::lock(dir.path())?.file("notes")?;
/// file.write_at(0, b"kept")?;
/// assert_eq!(file.len()?, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DirectoryFile(FileOf<BareFile>);

impl Storage for DirectoryFile {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn write_synced_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_synced_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }

    fn forget(&self) {
        self.0.forget();
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        thread,
    };

    use super::*;

    #[test]
    fn a_directory_that_nothing_came_into_is_as_it_was_before() {
        let all = tempfile::tempdir().unwrap();
        let names = || fs::read_dir(all.path()).unwrap().count();
        let within = all.path().join("a/b");
        drop(Directory::lock(&within).unwrap());
        assert_eq!(names(), 0);
        // What has come into it stays, with all that it is in.
        let directory = Directory::lock(&within).unwrap();
        directory.file("notes").unwrap();
        drop(directory);
        assert!(within.join("notes").is_file() && within.join(LOCK).is_file());
        drop(Directory::lock(&within).unwrap());
        assert!(within.join(LOCK).is_file(), "it was there before");
        // Of one that was there, only the lock goes.
        fs::create_dir(all.path().join("mine")).unwrap();
        fs::write(all.path().join("mine/note"), "precious").unwrap();
        drop(Directory::lock(&all.path().join("mine")).unwrap());
        assert_eq!(fs::read_dir(all.path().join("mine")).unwrap().count(), 1);
    }

    #[test]
    fn of_many_who_come_and_leave_nothing_no_two_have_it_at_once() {
        let all = tempfile::tempdir().unwrap();
        let place = all.path().join("place");
        let (inside, locked) = (AtomicBool::new(false), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while locked.load(Relaxed) < 2_000 {
                        match Directory::lock(&place) {
                            Ok(directory) => {
                                assert!(!inside.swap(true, Ordering::SeqCst));
                                thread::yield_now();
                                inside.store(false, Ordering::SeqCst);
                                locked.fetch_add(1, Relaxed);
                                drop(directory);
                            }
                            Err(Error::Locked) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
        });
    }
}
