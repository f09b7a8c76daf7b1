//! Further ways to see what is in an expiring store.

use std::{marker::PhantomData, ops::RangeBounds, time::Duration};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::ExpiringStore;
use crate::{
    error::Result,
    expiring::{ExpiringRange, ExpiringWatch},
    folder::Directory,
    span::Span,
};

/// Records of an [`ExpiringStore`] in the order of their keys, from either end.
///
/// Example: see [`ExpiringStore::range`].
pub struct FixedExpiringRange<'a, K, V> {
    raw: ExpiringRange<'a, Directory>,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> ExpiringStore<K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    /// Is the key there, and has not ended?
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, ExpiringStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = ExpiringStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// store.put(&1, &2, None, Memory)?;
    /// assert!(store.contains(&1)? && !store.contains(&2)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`ExpiringStore::get`].
    pub fn contains(&self, key: &K) -> Result<bool> {
        self.raw.contains(key.as_bytes())
    }

    /// How long a key will be there: `None` if it is not, and `Some(None)` if it does not end.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, ExpiringStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = ExpiringStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// store.put(&1, &2, None, Memory)?;
    /// assert_eq!((store.left(&1)?, store.left(&2)?), (Some(None), None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawExpiring::left`](crate::RawExpiring::left).
    pub fn left(&self, key: &K) -> Result<Option<Option<Duration>>> {
        self.raw.left(key.as_bytes())
    }

    /// When a key ends, in milliseconds since 1970: `None` if it is not there, and `Some(None)` if it does
    /// not end.
    ///
    /// Example: see [`put_until`](Self::put_until).
    ///
    /// # Errors
    /// As [`RawExpiring::end`](crate::RawExpiring::end).
    pub fn end(&self, key: &K) -> Result<Option<Option<u64>>> {
        self.raw.end(key.as_bytes())
    }

    /// Shows every record that has not ended to a closure, in no order; see
    /// [`RawStore::for_each`](crate::RawStore::for_each).
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, ExpiringStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let store = ExpiringStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// store.put(&1, &2, None, Memory)?;
    /// let mut found = Vec::new();
    /// store.for_each(|key, value| found.push((key, value)))?;
    /// assert_eq!(found, [(1, 2)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawExpiring::for_each`](crate::RawExpiring::for_each).
    pub fn for_each(&self, mut show: impl FnMut(K, V)) -> Result<()> {
        self.raw.for_each(|key, value| {
            if let (Ok(key), Ok(value)) = (K::read_from_bytes(key), V::read_from_bytes(value)) {
                show(key, value);
            }
        })
    }

    /// Records in the order of their keys, as [`FixedStore::range`](crate::FixedStore::range) shows them;
    /// none that has ended when this is called.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, ExpiringStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let options = Options { ordered: true, ..Options::default() };
    /// let store = ExpiringStore::<[u8; 2], u32>::create(dir.path(), &options)?;
    /// store.put(b"de", &49, None, Memory)?;
    /// store.put_until(b"dk", &45, Some(1), Memory)?;
    /// store.put(b"fr", &33, None, Memory)?;
    /// let found = store.range(*b"da"..)?.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(found, [(*b"de", 49), (*b"fr", 33)]);
    /// assert_eq!(store.prefix(b"d")?.next_back().transpose()?, Some((*b"de", 49)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotOrdered`](crate::Error::NotOrdered).
    pub fn range(&self, keys: impl RangeBounds<K>) -> Result<FixedExpiringRange<'_, K, V>> {
        self.span(&Span::between(&keys, |key| key.as_bytes().to_vec()))
    }

    /// The same for keys that begin with these bytes.
    ///
    /// Example: see [`range`](Self::range).
    ///
    /// # Errors
    /// As [`range`](Self::range).
    pub fn prefix(&self, prefix: &[u8]) -> Result<FixedExpiringRange<'_, K, V>> {
        self.span(&Span::ALL.prefix(prefix))
    }

    fn span(&self, span: &Span) -> Result<FixedExpiringRange<'_, K, V>> {
        Ok(FixedExpiringRange { raw: self.raw.range(span)?, types: PhantomData })
    }

    /// Sees all changes of some keys from now on; see [`RawExpiring::watch`](crate::RawExpiring::watch).
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, ExpiringStore, News, Options, Span};
    /// # let dir = tempfile::tempdir()?;
    /// let store = ExpiringStore::<[u8; 2], [u8; 3]>::create(dir.path(), &Options::default())?;
    /// let mut watch = store.watch(Span::ALL)?;
    /// store.put(b"de", b"049", None, Memory)?;
    /// assert!(matches!(watch.take()?, Some(News::Put { value, .. }) if value == b"049"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::watch`](crate::RawStore::watch).
    pub fn watch(&self, span: Span) -> Result<ExpiringWatch> {
        self.raw.watch(span)
    }
}

impl<K: FromBytes, V: FromBytes> FixedExpiringRange<'_, K, V> {
    fn typed(next: Option<Result<(Vec<u8>, Vec<u8>)>>) -> Option<Result<(K, V)>> {
        let (key, value) = match next? {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        // The sizes were compared when the store was opened.
        Some(Ok((K::read_from_bytes(&key).ok()?, V::read_from_bytes(&value).ok()?)))
    }
}

impl<K: FromBytes, V: FromBytes> Iterator for FixedExpiringRange<'_, K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        Self::typed(self.raw.next())
    }
}

impl<K: FromBytes, V: FromBytes> DoubleEndedIterator for FixedExpiringRange<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        Self::typed(self.raw.next_back())
    }
}
