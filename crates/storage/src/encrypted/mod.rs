//! Files that are encrypted at rest: AES-256-GCM, a sector at a time. The bytes are in
//! `docs/format/encryption.md`.
//!
//! * E1. Nothing of what is written, and nothing that is computed of it without a key, is in any
//!   file: only names, lengths, and which sectors were ever written.
//! * E2. A file behaves as one that is not encrypted: also with many threads, after errors, after a
//!   kill, and after a power cut as long as a disk writes a sector of 512 bytes as one.
//! * E3. A sector that is not as it was written, or is in another place or another file, reads as
//!   bytes that are none of the format of whoever wrote it (each is 0xfd), and never as content.
//! * E4. No number is used twice for one data key, and a key for no more numbers than
//!   [`SECTOR_WRITES_MAX`](crate::limits::SECTOR_WRITES_MAX) an opening.
//! * E5. A key that is missing is told by name. A file is never taken for empty because of a key.
//! * E6. Killed anywhere, [`rekey`] leaves every file readable with the old and the new key
//!   together; run again to its end, with the new one alone.

mod error;
mod file;
mod header;
mod keys;
#[cfg_attr(
    not(any(test, feature = "hook")),
    expect(unreachable_pub, reason = "it is public for tests only")
)]
pub mod planted;
mod rekey;
mod sector;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use self::file::Shared;
pub use self::{
    error::KeyError,
    file::EncryptedFile,
    keys::{Key, KeyId, Keys},
    rekey::{Rekeyed, rekey},
};
use crate::Folder;

/// A folder whose files are encrypted in another one, each under a random key of its own, which is
/// encrypted under a [`Key`] of the user's. Its names are those of the other one.
///
/// No file of it can be mapped: memory of the process is where content is, and nowhere else.
///
/// While it is used nobody else writes to its files. Its clones are the same folder.
///
/// ```
/// use mainstay_storage::{Encrypted, Folder, Key, Keys, Storage};
/// # use std::{fs::{self, File, OpenOptions}, io::Result, path::PathBuf};
/// # struct Directory(PathBuf);
/// # impl Folder for Directory {
/// #     type File = File;
/// #     fn file(&self, name: &str) -> Result<File> {
/// #         let mut options = OpenOptions::new();
/// #         options.read(true).write(true).create(true).truncate(false).open(self.0.join(name))
/// #     }
/// #     fn names(&self) -> Result<Vec<String>> { Ok(vec!["notes".into()]) }
/// #     fn remove(&self, name: &str) -> Result<()> { fs::remove_file(self.0.join(name)) }
/// #     fn sync_names(&self) -> Result<()> { Ok(()) }
/// # }
/// # let dir = tempfile::tempdir()?;
/// # let beneath = Directory(dir.path().into());
/// let keys = Keys::new(Key::create(&dir.path().join("key"))?);
/// let folder = Encrypted::new(beneath, keys);
/// folder.file("notes")?.write_at(0, b"in private")?;
/// let mut found = [0; 10];
/// folder.file("notes")?.read_at(0, &mut found)?;
/// assert_eq!(&found, b"in private");
///
/// let stored = fs::read(dir.path().join("notes"))?;
/// assert!(!stored.windows(10).any(|bytes| bytes == b"in private"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Encrypted<F> {
    folder: F,
    keys: Arc<Keys>,
    /// Files that are open: all who have one open see the same.
    open: Arc<Mutex<HashMap<String, Weak<Shared>>>>,
}

impl<F: Clone> Clone for Encrypted<F> {
    fn clone(&self) -> Self {
        let (keys, open) = (Arc::clone(&self.keys), Arc::clone(&self.open));
        Self { folder: self.folder.clone(), keys, open }
    }
}

impl<F> Encrypted<F> {
    /// Over a folder that has such files only, or none.
    ///
    /// Example: see [`Encrypted`].
    #[must_use]
    pub fn new(folder: F, keys: Keys) -> Self {
        Self { folder, keys: Arc::new(keys), open: Arc::default() }
    }

    /// Its keys.
    ///
    /// Example: see [`Keys`].
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, Weak<Shared>>) -> T) -> T {
        act(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Folder> Folder for Encrypted<F> {
    type File = EncryptedFile<F::File>;

    /// A file that is empty is an encrypted one, too.
    ///
    /// # Errors
    /// A [`KeyError`] if it cannot be read with these keys; what the folder beneath says.
    fn file(&self, name: &str) -> io::Result<Self::File> {
        let inner = self.folder.file(name)?;
        let shared = self.with(|open| {
            if let Some(shared) = open.get(name).and_then(Weak::upgrade) {
                return Ok(shared);
            }
            let shared = Arc::new(Shared::read(&inner, name, &self.keys)?);
            open.retain(|_, file| file.strong_count() > 0);
            open.insert(name.to_owned(), Arc::downgrade(&shared));
            io::Result::Ok(shared)
        })?;
        Ok(EncryptedFile::new(inner, shared, Arc::clone(&self.keys)))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.folder.names()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        // Whoever has it open still has the one that was removed.
        self.with(|open| drop(open.remove(name)));
        self.folder.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.folder.sync_names()
    }

    fn boot(&self) -> io::Result<[u8; 16]> {
        self.folder.boot()
    }
}
