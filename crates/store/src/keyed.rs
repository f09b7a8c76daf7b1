//! Files as they are, or encrypted.

use std::{fs::File, io, marker::PhantomData, path::Path};

#[cfg(feature = "encryption")]
use mainstay_storage::{Encrypted, EncryptedFile, KeyError, Keys};
use mainstay_storage::{Folder, Storage};

use crate::{
    any::ANY_FILE,
    error::{Error, Result},
    format::STORE_FILE,
};

/// The keys of a folder, if its files are encrypted.
#[derive(Clone, Copy)]
pub(crate) struct Ring<'a> {
    #[cfg(feature = "encryption")]
    keys: Option<&'a Keys>,
    lives: PhantomData<&'a ()>,
}

impl<'a> Ring<'a> {
    /// They are not.
    pub(crate) const NONE: Self = Self {
        #[cfg(feature = "encryption")]
        keys: None,
        lives: PhantomData,
    };

    #[cfg(feature = "encryption")]
    pub(crate) fn of(keys: &'a Keys) -> Self {
        Self { keys: Some(keys), lives: PhantomData }
    }

    pub(crate) fn over<F: Folder>(self, folder: F) -> Files<F> {
        #[cfg(feature = "encryption")]
        if let Some(keys) = self.keys {
            return Files::Encrypted(Encrypted::new(folder, keys.clone()));
        }
        Files::Plain(folder)
    }
}

/// A folder of either kind.
#[derive(Clone)]
pub(crate) enum Files<F> {
    Plain(F),
    #[cfg(feature = "encryption")]
    Encrypted(Encrypted<F>),
}

impl<F> Files<F> {
    /// The keys of another folder that is to be as this one is.
    pub(crate) fn ring(&self) -> Ring<'_> {
        match self {
            Self::Plain(_) => Ring::NONE,
            #[cfg(feature = "encryption")]
            Self::Encrypted(files) => Ring::of(files.keys()),
        }
    }
}

/// A file of it.
pub(crate) enum FileOf<S> {
    Plain(S),
    #[cfg(feature = "encryption")]
    Encrypted(EncryptedFile<S>),
}

/// The same call of either.
macro_rules! either {
    ($of:expr, $it:ident => $call:expr) => {
        match $of {
            Self::Plain($it) => $call,
            #[cfg(feature = "encryption")]
            Self::Encrypted($it) => $call,
        }
    };
}

impl<F: Folder> Folder for Files<F> {
    type File = FileOf<F::File>;

    fn file(&self, name: &str) -> io::Result<Self::File> {
        match self {
            Self::Plain(files) => files.file(name).map(FileOf::Plain),
            #[cfg(feature = "encryption")]
            Self::Encrypted(files) => files.file(name).map(FileOf::Encrypted),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        either!(self, files => files.names())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        either!(self, files => files.remove(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        either!(self, files => files.sync_names())
    }

    fn mapped(&self, name: &str) -> io::Result<Option<File>> {
        either!(self, files => files.mapped(name))
    }

    fn boot(&self) -> io::Result<[u8; 16]> {
        either!(self, files => files.boot())
    }
}

impl<S: Storage> Storage for FileOf<S> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        either!(self, file => file.read_at(offset, bytes))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        either!(self, file => file.write_at(offset, bytes))
    }

    fn write_synced_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        either!(self, file => file.write_synced_at(offset, bytes))
    }

    fn len(&self) -> io::Result<u64> {
        either!(self, file => file.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        either!(self, file => file.set_len(len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        either!(self, file => file.allocate(len))
    }

    fn forget(&self) {
        either!(self, file => file.forget());
    }

    fn sync(&self) -> io::Result<()> {
        either!(self, file => file.sync())
    }
}

/// What an encrypted file refuses, as an error of a store.
#[cfg(feature = "encryption")]
pub(crate) fn refused(error: &io::Error) -> Option<Error> {
    match error.get_ref()?.downcast_ref()? {
        KeyError::Missing { file, wanted } => {
            Some(Error::OtherKey { file: file.clone(), wanted: wanted.to_string() })
        }
        KeyError::NotEncrypted { file } => Some(Error::NotEncrypted { file: file.clone() }),
        KeyError::Damaged { file } => {
            Some(Error::damaged(file, 0, "neither copy of its encryption header is sound"))
        }
        KeyError::Version { file, version } => {
            Some(Error::Version { file: file.clone(), version: *version })
        }
        _ => None,
    }
}

#[cfg(not(feature = "encryption"))]
pub(crate) fn refused(_: &io::Error) -> Option<Error> {
    None
}

/// Where in the header of an encrypted file the name of its key is.
const KEY_AT: usize = 16;
const KEY_LEN: usize = 8;
/// Where its copies are.
const COPIES: [u64; 2] = [0, 512];

/// What the key is called that the file beneath is encrypted under, if it is.
fn key_of(file: &impl Storage) -> Option<String> {
    COPIES.iter().find_map(|at| {
        let mut front = [0; KEY_AT + KEY_LEN];
        file.read_at(*at, &mut front).ok()?;
        let key = || front[KEY_AT..].iter().map(|byte| format!("{byte:02x}")).collect();
        front.starts_with(b"MAINSENC").then(key)
    })
}

/// What the key is called that the store of a directory is encrypted under; none if it is not
/// encrypted. No key is needed to know that, and nothing is locked. While a
/// rotation of keys is interrupted, other files can be under another key.
///
/// ```
/// use mainstay_store::{FixedStore, Options, encrypted_under};
/// let dir = tempfile::tempdir()?;
/// FixedStore::<u64, u64>::create(dir.path(), &Options::default())?.close()?;
/// assert_eq!(encrypted_under(dir.path())?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::NotAStore`], or what the operating system says.
pub fn encrypted_under(path: &Path) -> Result<Option<String>> {
    for name in [STORE_FILE, ANY_FILE] {
        match File::open(path.join(name)) {
            Ok(file) => return Ok(key_of(&file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(name)(error)),
        }
    }
    Err(Error::NotAStore)
}

/// What is said of a store's file without a sound header, which may be encrypted, and was opened as if
/// it were not. The table is in `docs/format/encryption.md`.
pub(crate) fn not_sound(file: &impl Storage, name: &str) -> Error {
    if let Some(key) = key_of(file) {
        return Error::Encrypted { key };
    }
    Error::damaged(name, 0, "neither copy of the header is sound")
}
