//! Records of typed keys and values in the order of their keys.

use std::{marker::PhantomData, ops::RangeBounds};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{error::Result, fixed::FixedStore, folder::Directory, range::Range, span::Span};

/// Records of a [`FixedStore`] in the order of their keys, from either end; see [`Range`].
///
/// Example: see [`FixedStore::range`].
pub struct FixedRange<'a, K, V> {
    raw: Range<'a, Directory>,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> FixedStore<K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    /// Records in the order of their keys, of a store that was opened with
    /// [`Options::ordered`](crate::Options::ordered). Keys are compared as their bytes, so numbers
    /// should have the highest byte first, as those of `zerocopy::big_endian` do.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, FixedStore, Options};
    /// use zerocopy::big_endian::U64;
    /// # let dir = tempfile::tempdir()?;
    /// let options = Options { ordered: true, ..Options::default() };
    /// let store = FixedStore::<U64, u32>::create(dir.path(), &options)?;
    /// for number in [700, 3, 256, 41] {
    ///     store.put(&U64::new(number), &1, Memory)?;
    /// }
    /// let found = store.range(U64::new(41)..U64::new(700))?.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(found, [(U64::new(41), 1), (U64::new(256), 1)]);
    /// let last = store.range(..)?.next_back().transpose()?;
    /// assert_eq!(last, Some((U64::new(700), 1)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotOrdered`](crate::Error::NotOrdered).
    pub fn range(&self, keys: impl RangeBounds<K>) -> Result<FixedRange<'_, K, V>> {
        self.span(&Span::between(&keys, |key| key.as_bytes().to_vec()))
    }

    /// The same for keys that begin with these bytes.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, FixedStore, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let options = Options { ordered: true, ..Options::default() };
    /// let store = FixedStore::<[u8; 4], u32>::create(dir.path(), &options)?;
    /// for key in [b"berg", b"berk", b"barn"] {
    ///     store.put(key, &1, Memory)?;
    /// }
    /// let found = store.prefix(b"ber")?.rev().collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(found, [(*b"berk", 1), (*b"berg", 1)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`range`](Self::range).
    pub fn prefix(&self, prefix: &[u8]) -> Result<FixedRange<'_, K, V>> {
        self.span(&Span::ALL.prefix(prefix))
    }

    fn span(&self, span: &Span) -> Result<FixedRange<'_, K, V>> {
        Ok(FixedRange { raw: self.raw().range(span)?, types: PhantomData })
    }
}

impl<K, V> FixedRange<'_, K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    fn record(&mut self, backward: bool) -> Option<Result<(K, V)>> {
        let (mut key, mut value) = (K::new_zeroed(), V::new_zeroed());
        let (key_bytes, value_bytes) = (key.as_mut_bytes(), value.as_mut_bytes());
        let found = if backward {
            self.raw.read_next_back(key_bytes, value_bytes)
        } else {
            self.raw.read_next(key_bytes, value_bytes)
        };
        match found {
            Ok(true) => Some(Ok((key, value))),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl<K, V> Iterator for FixedRange<'_, K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.record(false)
    }
}

impl<K, V> DoubleEndedIterator for FixedRange<'_, K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    fn next_back(&mut self) -> Option<Self::Item> {
        self.record(true)
    }
}
