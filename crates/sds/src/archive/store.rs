//! An archive in a store.

use std::{collections::BTreeMap, path::Path};

use mainstay_store::Durability;

use super::Archive;
use crate::{
    error::Result,
    persist::store::{Contents, Kind, failed},
};

/// An archive in a store in a directory: it outlives a loss of power.
///
/// By default a record is on the disk when [`append`](Archive::append) returns; with
/// [`Durability::Memory`] it survives the death of the process.
///
/// ```
/// use mainstay_sds::{Archive, StoreArchive, persist::Durability};
/// let folder = tempfile::tempdir()?;
/// let key = StoreArchive::open(folder.path(), Durability::Group)?.append(b"a record")?;
/// assert_eq!(StoreArchive::open(folder.path(), Durability::Group)?.read(key)?, b"a record");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct StoreArchive {
    contents: Contents,
    /// How many parts each record has.
    records: BTreeMap<u64, u32>,
}

impl StoreArchive {
    /// Opens the store in `folder`, or creates one that is for this alone.
    ///
    /// # Errors
    /// [`Error::Persistence`](crate::Error::Persistence) if it cannot be opened or read, or is a
    /// store of something else.
    ///
    /// Example: see [`StoreArchive`].
    pub fn open(folder: impl AsRef<Path>, durability: Durability) -> Result<Self> {
        let (contents, found) = Contents::open(folder.as_ref(), durability)?;
        if found.kinds().any(|kind| kind != Kind::Record) {
            return Err(failed("the store keeps channels; give the archive one of its own"));
        }
        let records: BTreeMap<u64, u32> =
            found.firsts.into_iter().map(|(_, kept)| (kept.number, kept.parts)).collect();
        // What a process left unfinished that died.
        let whole = |number: u64, part: u32| records.get(&number).is_some_and(|all| part < *all);
        contents.remove_others(found.others, whole)?;
        contents.sync()?;
        Ok(Self { contents, records })
    }
}

impl Archive for StoreArchive {
    fn append(&mut self, record: &[u8]) -> Result<u64> {
        let number = self.records.last_key_value().map_or(0, |(number, _)| number + 1);
        let parts = self.contents.write("", number, Kind::Record, record)?;
        self.records.insert(number, parts);
        Ok(number)
    }

    fn read(&self, key: u64) -> Result<Vec<u8>> {
        let gone = || failed(format!("no record {key}; restore the archive"));
        self.contents.read("", key, *self.records.get(&key).ok_or_else(gone)?)
    }

    fn keys(&self) -> Result<Vec<u64>> {
        Ok(self.records.keys().copied().collect())
    }
}
