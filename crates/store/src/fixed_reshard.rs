//! Another number of shards for a store of typed keys and values.

use std::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{error::Result, exchange::DirectoryResharding, fixed::FixedStore, options::Options};

/// A [`FixedStore`] that is being given another number of shards; see [`DirectoryResharding`].
///
/// Example: see [`FixedStore::reshard`].
pub struct FixedResharding<'a, K, V> {
    raw: DirectoryResharding<'a>,
    options: Options,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> FixedStore<K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    /// Begins to give the store the shards and segments that `options` say, while it is used; see
    /// [`RawStore::reshard`](crate::RawStore::reshard). Whoever writes with the old one afterwards is
    /// told [`Error::Resharded`](crate::Error::Resharded), and goes on with the new one.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, Error, FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("counters");
    /// let old = FixedStore::<u64, u64>::create(&path, &Options::default())?;
    /// old.put(&1, &10, Memory)?;
    /// let mut resharding = old.reshard(&Options { shards: 8, ..Options::default() })?;
    /// while !resharding.advance(10_000)? {}
    /// old.put(&2, &20, Memory)?;
    /// let new = resharding.finish()?;
    /// assert!(matches!(old.put(&3, &30, Memory), Err(Error::Resharded)));
    /// new.put(&3, &30, Memory)?;
    /// assert_eq!((new.get(&1)?, new.get(&2)?, old.get(&3)?), (Some(10), Some(20), None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn reshard(&self, options: &Options) -> Result<FixedResharding<'_, K, V>> {
        let raw = self.raw().reshard(options)?;
        Ok(FixedResharding { raw, options: options.clone(), types: PhantomData })
    }
}

impl<K, V> FixedResharding<'_, K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    /// Copies some more records, at least `records` if there are so many. True if all are copied.
    ///
    /// Example: see [`FixedStore::reshard`].
    ///
    /// # Errors
    /// As [`Resharding::advance`](crate::Resharding::advance).
    pub fn advance(&mut self, records: u64) -> Result<bool> {
        self.raw.advance(records)
    }

    /// Copies the rest, gives the new store the name of the old one, and returns it.
    ///
    /// Example: see [`FixedStore::reshard`].
    ///
    /// # Errors
    /// As [`DirectoryResharding::finish`].
    pub fn finish(self) -> Result<FixedStore<K, V>> {
        FixedStore::over(self.raw.finish()?, &self.options)
    }
}
