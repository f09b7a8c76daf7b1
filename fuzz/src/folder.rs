//! A folder of files that are bytes in memory: fast to copy, and open to any change.

use mainstay_storage::{Folder, Storage};
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

/// Names and contents.
pub type Contents = BTreeMap<String, Vec<u8>>;

type Shared = Arc<Mutex<Vec<u8>>>;

/// No file grows beyond this, in bytes, as in [`crate::world::FILE_LEN_MAX`].
const LEN_MAX: usize = 8 << 20;

/// The folder; clones are the same one.
#[derive(Clone, Default)]
pub struct Files(Arc<Mutex<BTreeMap<String, Shared>>>);

/// A file of it.
pub struct MemoryFile(Shared);

fn with<T, R>(mutex: &Mutex<T>, act: impl FnOnce(&mut T) -> R) -> R {
    act(&mut mutex.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Files {
    /// A folder with these files.
    #[must_use]
    pub fn of(contents: &Contents) -> Self {
        let file = |(name, bytes): (&String, &Vec<u8>)| {
            (name.clone(), Shared::new(Mutex::new(bytes.clone())))
        };
        Self(Arc::new(Mutex::new(contents.iter().map(file).collect())))
    }

    /// What it has.
    #[must_use]
    pub fn contents(&self) -> Contents {
        let copy =
            |(name, file): (&String, &Shared)| (name.clone(), with(file, |bytes| bytes.clone()));
        with(&self.0, |files| files.iter().map(copy).collect())
    }
}

impl Folder for Files {
    type File = MemoryFile;

    fn file(&self, name: &str) -> io::Result<MemoryFile> {
        Ok(MemoryFile(with(&self.0, |files| Arc::clone(files.entry(name.to_owned()).or_default()))))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(with(&self.0, |files| files.keys().cloned().collect()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        with(&self.0, |files| files.remove(name));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for MemoryFile {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        with(&self.0, |file| {
            let rest = usize::try_from(offset).ok().and_then(|at| file.get(at..));
            let rest = rest.and_then(|rest| rest.get(..bytes.len()));
            bytes.copy_from_slice(rest.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        with(&self.0, |file| {
            let at = usize::try_from(offset).map_err(io::Error::other)?;
            let end = at.checked_add(bytes.len()).filter(|end| *end <= LEN_MAX);
            let end = end.ok_or(io::ErrorKind::FileTooLarge)?;
            // As with any file, a write of nothing makes it no longer.
            if bytes.is_empty() {
                return Ok(());
            }
            if file.len() < end {
                file.resize(end, 0);
            }
            file[at..end].copy_from_slice(bytes);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(with(&self.0, |file| file.len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).ok().filter(|len| *len <= LEN_MAX);
        let len = len.ok_or(io::ErrorKind::FileTooLarge)?;
        with(&self.0, |file| file.resize(len, 0));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
