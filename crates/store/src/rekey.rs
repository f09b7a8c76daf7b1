//! Rotation of the key that a store is encrypted under.

use std::path::Path;

use mainstay_storage::{Keys, Rekeyed};

use crate::{
    any::{ANY_FILE, any_header},
    error::{Error, Result},
    folder::Directory,
    format::STORE_FILE,
    recover::store_header,
};

/// Puts a store, which nobody has open, under the newest of the keys; see
/// [`rekey`](mainstay_storage::rekey) of a folder. What is written anew is two headers a file: the keys
/// that its content is encrypted under stay, until compaction replaces the file. Interrupted at any
/// point, it is done again with the same keys, and until then the store is opened with all of them.
///
/// ```
/// use mainstay_store::{Directory, FixedStore, Key, Keys, Options, encrypted_under, rekey};
/// let dir = tempfile::tempdir()?;
/// let (old, new) = (Key::new(&[1; 32]), Key::new(&[2; 32]));
/// let folder = Directory::lock_with(dir.path(), &Keys::new(old.clone()))?;
/// FixedStore::<u64, u64>::create_in(folder, &Options::default())?.close()?;
/// rekey(dir.path(), &Keys::new(new.clone()).with_older(old), |_done, _all| {})?;
/// assert_eq!(encrypted_under(dir.path())?, Some(new.id().to_string()));
/// let folder = Directory::lock_with(dir.path(), &Keys::new(new))?;
/// FixedStore::<u64, u64>::open_in(folder, &Options::default())?.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::NotAStore`]; [`Error::Locked`]; [`Error::NotEncrypted`]; [`Error::OtherKey`] if a file is
/// under a key that is not among these; [`Error::Damaged`]; what the disk says.
pub fn rekey(path: &Path, keys: &Keys, told: impl FnMut(u64, u64)) -> Result<Rekeyed> {
    if !path.is_dir() {
        return Err(Error::NotAStore);
    }
    let folder = Directory::lock(path)?;
    let (file, found) = match store_header(&folder) {
        Err(Error::OtherKind { .. }) => (ANY_FILE, any_header(&folder).map(drop)),
        found => (STORE_FILE, found.map(drop)),
    };
    match found {
        Err(Error::Encrypted { .. }) => {}
        Ok(()) => return Err(Error::NotEncrypted { file: file.to_owned() }),
        Err(error) => return Err(error),
    }
    mainstay_storage::rekey(&folder, keys, told).map_err(Error::io("a header of encryption"))
}
