//! The directory of a store for who only looks: nothing in it is made, changed or removed.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use mainstay_storage::Folder;

use crate::{
    error::{Error, Result},
    folder::{LOCK, Lock, boot_id},
    keyed::{FileOf, Files, Ring},
};

/// Shared by all who look, and refused while somebody writes (A5).
pub(crate) struct ReadOnly {
    files: Files<Bare>,
    _lock: Option<Lock>,
}

/// Its files as they are.
struct Bare(PathBuf);

impl ReadOnly {
    pub(crate) fn open(path: &Path, ring: Ring<'_>) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::NotAStore);
        }
        let failed = |error| Error::io(path.display().to_string())(error);
        // A copy of a store may have no such file, and a medium may take none.
        let lock = match File::open(path.join(LOCK)) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        match lock.map(|file| Lock::take(file, true)).transpose() {
            Ok(lock) => Ok(Self { files: ring.over(Bare(path.to_owned())), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

impl ReadOnly {
    /// The same beside somebody who has the store open, and goes on to change it.
    pub(crate) fn beside(path: &Path, ring: Ring<'_>) -> Result<Self> {
        Ok(Self { files: ring.over(Bare(path.to_owned())), _lock: None })
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the store was opened for looking only")
}

impl Folder for ReadOnly {
    type File = FileOf<File>;

    fn file(&self, name: &str) -> io::Result<FileOf<File>> {
        self.files.file(name)
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

impl Folder for Bare {
    type File = File;

    fn file(&self, name: &str) -> io::Result<File> {
        File::open(self.0.join(name))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(refused())
    }

    fn sync_names(&self) -> io::Result<()> {
        Err(refused())
    }

    fn mapped(&self, name: &str) -> io::Result<Option<File>> {
        match self.file(name) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn boot(&self) -> io::Result<[u8; 16]> {
        boot_id()
    }
}
