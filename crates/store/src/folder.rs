//! Where a store keeps its files: a directory.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use mainstay_shm::{fork::Epoch, hook};
use mainstay_storage::{Folder, Storage};

use crate::error::{Error, Result};

/// A directory of the file system, locked as long as it lives (A5).
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
    path: PathBuf,
    handle: File,
    _lock: Lock,
}

pub(crate) const LOCK: &str = "lock";

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
        let failed = |error| Error::io(path.display().to_string())(error);
        fs::create_dir_all(path).map_err(failed)?;
        let lock = open(&path.join(LOCK)).map_err(failed)?;
        let lock = match Lock::take(lock, false) {
            Ok(lock) => lock,
            Err(TryLockError::WouldBlock) => return Err(Error::Locked),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        };
        let handle = File::open(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), handle, _lock: lock })
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

impl Folder for Directory {
    type File = DirectoryFile;

    fn file(&self, name: &str) -> io::Result<DirectoryFile> {
        hook::step();
        open(&self.path.join(name)).map(DirectoryFile)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is no text is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        hook::step();
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_names(&self) -> io::Result<()> {
        hook::step();
        self.handle.sync_all()
    }

    fn mapped(&self, name: &str) -> io::Result<Option<File>> {
        self.file(name).map(|file| Some(file.0))
    }

    fn boot(&self) -> io::Result<[u8; 16]> {
        boot_id()
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
pub struct DirectoryFile(File);

impl Storage for DirectoryFile {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        hook::step();
        self.0.write_at(offset, bytes)
    }

    fn write_synced_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        hook::step();
        self.0.write_synced_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Storage::len(&self.0)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        hook::step();
        Storage::set_len(&self.0, len)
    }

    fn sync(&self) -> io::Result<()> {
        hook::step();
        self.0.sync()
    }
}

/// The kernel's name for this running of the machine.
pub(crate) fn boot_id() -> io::Result<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits = text.chars().filter(char::is_ascii_hexdigit).collect::<String>();
    let id = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?;
    Ok(id.to_le_bytes())
}
