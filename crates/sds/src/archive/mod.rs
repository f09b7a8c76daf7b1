//! Where a store node keeps its records.

#[cfg(feature = "pool")]
mod pool;
#[cfg(feature = "store")]
mod store;

#[cfg(feature = "pool")]
pub use pool::PoolArchive;
#[cfg(feature = "store")]
pub use store::StoreArchive;

use crate::error::{Error, Result};

/// Where a store node keeps its records: they are only added, and read again by the key that adding
/// them gave. One suite of tests runs over every one of them.
///
/// Example: see [`StoreNode`](crate::StoreNode).
pub trait Archive {
    /// Keeps a record, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Persistence`] if it is full or fails.
    fn append(&mut self, record: &[u8]) -> Result<u64>;

    /// The record of that key.
    ///
    /// # Errors
    /// [`Error::Persistence`] if there is none, or it cannot be read.
    fn read(&self, key: u64) -> Result<Vec<u8>>;

    /// All keys, in the order in which they were given.
    ///
    /// # Errors
    /// [`Error::Persistence`] if they cannot be read.
    fn keys(&self) -> Result<Vec<u64>>;
}

impl<A: Archive + ?Sized> Archive for Box<A> {
    fn append(&mut self, record: &[u8]) -> Result<u64> {
        (**self).append(record)
    }

    fn read(&self, key: u64) -> Result<Vec<u8>> {
        (**self).read(key)
    }

    fn keys(&self) -> Result<Vec<u64>> {
        (**self).keys()
    }
}

/// An archive in memory.
///
/// Example: see [`StoreNode`](crate::StoreNode).
#[derive(Clone, Debug, Default)]
pub struct MemoryArchive {
    records: Vec<Box<[u8]>>,
}

impl MemoryArchive {
    /// An empty one.
    ///
    /// Example: see [`StoreNode`](crate::StoreNode).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Archive for MemoryArchive {
    fn append(&mut self, record: &[u8]) -> Result<u64> {
        self.records.push(record.into());
        Ok(self.records.len() as u64 - 1)
    }

    fn read(&self, key: u64) -> Result<Vec<u8>> {
        let record = usize::try_from(key).ok().and_then(|key| self.records.get(key));
        let gone = || Error::Persistence { what: format!("no record {key}; restore the archive") };
        record.map(|record| record.to_vec()).ok_or_else(gone)
    }

    fn keys(&self) -> Result<Vec<u64>> {
        Ok((0..self.records.len() as u64).collect())
    }
}
