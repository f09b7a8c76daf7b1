//! What is in a store of typed keys and values, some at a time.

use std::vec::IntoIter;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    error::Result,
    fixed::FixedStore,
    options::{Durability, Token},
    shard::Change,
    store::Cursor,
};

/// Records that an iterator reads at a time.
const PAGE_RECORDS: usize = 256;

/// Some records, and where to go on.
type Page<K, V> = (Vec<(K, V)>, Option<Cursor>);

/// All records of a [`FixedStore`], in no order; it can be left and gone on with as any iterator.
///
/// Example: see [`FixedStore::iter`].
pub struct FixedIter<'a, K, V> {
    store: &'a FixedStore<K, V>,
    page: IntoIter<(K, V)>,
    next: Option<Cursor>,
}

impl<K, V> FixedStore<K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    /// Is the key there?
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
    /// assert!(store.is_empty());
    /// store.put(&1, &2, Memory)?;
    /// assert!(store.contains(&1)? && !store.contains(&2)?);
    /// assert_eq!(store.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`FixedStore::get`].
    pub fn contains(&self, key: &K) -> Result<bool> {
        self.raw().contains(key.as_bytes())
    }

    /// How many records there are.
    ///
    /// Example: see [`contains`](Self::contains).
    #[must_use]
    pub fn len(&self) -> u64 {
        self.raw().len()
    }

    /// Is there no record?
    ///
    /// Example: see [`contains`](Self::contains).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raw().is_empty()
    }

    /// At most so many records from a place on, and where to go on from, if there may be more; see
    /// [`RawStore::page`](crate::RawStore::page).
    ///
    /// ```
    /// use mainstay_store::{Cursor, Durability::Memory, FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u8, u64>::create(dir.path(), &Options::default())?;
    /// for number in 0..9 {
    ///     store.put(&number, &0, Memory)?;
    /// }
    /// let (some, next) = store.page(Cursor::default(), 4)?;
    /// let (rest, _) = store.page(next.unwrap(), 100)?;
    /// assert_eq!((some.len(), rest.len()), (4, 5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::page`](crate::RawStore::page).
    pub fn page(&self, from: Cursor, max: usize) -> Result<Page<K, V>> {
        let mut page = Vec::new();
        let next = self.raw().page(from, max, |key, value| {
            if let (Ok(key), Ok(value)) = (K::read_from_bytes(key), V::read_from_bytes(value)) {
                page.push((key, value));
            }
        })?;
        Ok((page, next))
    }

    /// All records, in no order. Writers go on: a record that is neither written nor deleted meanwhile is
    /// shown exactly once.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
    /// for number in 0..1_000 {
    ///     store.put(&number, &(number * 2), Memory)?;
    /// }
    /// let mut records = store.iter();
    /// let first = records.next().transpose()?;
    /// assert!(first.is_some_and(|(key, value)| value == key * 2));
    /// assert_eq!(records.count(), 999);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn iter(&self) -> FixedIter<'_, K, V> {
        FixedIter { store: self, page: Vec::new().into_iter(), next: Some(Cursor::default()) }
    }

    /// Makes several changes of one shard at once, `None` being no value: after a crash all of them are
    /// there, or none. See [`RawStore::batch`](crate::RawStore::batch), and for those of whatever shards
    /// [`batch_across`](Self::batch_across).
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let one = Options { shards: 1, ..Options::default() };
    /// let accounts = FixedStore::<u64, i64>::create(dir.path(), &one)?;
    /// accounts.batch(&[(7, Some(60)), (8, Some(40)), (9, None)], Memory)?;
    /// assert_eq!((accounts.get(&7)?, accounts.get(&8)?), (Some(60), Some(40)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::batch`](crate::RawStore::batch).
    pub fn batch(
        &self,
        changes: &[(K, Option<V>)],
        durability: Durability,
    ) -> Result<Option<Token>> {
        self.raw().batch(&changes_of(changes), durability)
    }
}

/// Changes of typed keys as bytes.
pub(crate) fn changes_of<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
    changes: &[(K, Option<V>)],
) -> Vec<Change<'_>> {
    let mut all = Vec::with_capacity(changes.len());
    for (key, value) in changes {
        all.push(Change::of(key.as_bytes(), value.as_ref().map(V::as_bytes)));
    }
    all
}

impl<'a, K, V> IntoIterator for &'a FixedStore<K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    type Item = Result<(K, V)>;
    type IntoIter = FixedIter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K, V> Iterator for FixedIter<'_, K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.page.next() {
                return Some(Ok(record));
            }
            // After an error there is no more.
            match self.store.page(self.next.take()?, PAGE_RECORDS) {
                Ok((page, next)) => (self.page, self.next) = (page.into_iter(), next),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
