//! An archive in the blocks of a pool.

use std::{collections::BTreeMap, path::Path};

use super::Archive;
use crate::{
    error::Result,
    persist::blocks::{Record, Records, Use, failed},
};

/// An archive in the blocks of a pool: it outlives the process.
///
/// ```
/// use mainstay_sds::{Archive, PoolArchive};
/// let folder = tempfile::tempdir()?;
/// let key = PoolArchive::open(folder.path(), "history")?.append(b"a record")?;
/// assert_eq!(PoolArchive::open(folder.path(), "history")?.read(key)?, b"a record");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PoolArchive {
    // Let go of before the lock is.
    kept: BTreeMap<u64, Record>,
    records: Records,
}

impl PoolArchive {
    /// Opens or creates the pools `NAME.SIZE.pool` in `folder`, and takes over what nobody
    /// holds.
    ///
    /// # Errors
    /// [`Error::Persistence`](crate::Error::Persistence) if they cannot be opened or read, or
    /// another one has them open.
    ///
    /// Example: see [`PoolArchive`].
    pub fn open(folder: impl AsRef<Path>, name: &str) -> Result<Self> {
        let (records, found) = Records::open(folder.as_ref(), name, Use::Archive)?;
        let kept = found.into_iter().map(|((_, _, number), record)| (number, record)).collect();
        Ok(Self { kept, records })
    }
}

impl Archive for PoolArchive {
    fn append(&mut self, record: &[u8]) -> Result<u64> {
        let number = self.kept.last_key_value().map_or(0, |(number, _)| number + 1);
        let record = self.records.write(&(Use::Archive, Vec::new(), number), record)?;
        self.kept.insert(number, record);
        Ok(number)
    }

    fn read(&self, key: u64) -> Result<Vec<u8>> {
        let gone = || failed(format!("no record {key}; restore the archive"));
        self.kept.get(&key).ok_or_else(gone)?.read()
    }

    fn keys(&self) -> Result<Vec<u64>> {
        Ok(self.kept.keys().copied().collect())
    }
}
