//! What is there, some at a time.

use mainstay_storage::Folder;

use super::RawStore;
use crate::error::Result;

/// Where to go on with the records of a store, as long as it is open; the default is the beginning.
///
/// Example: see [`RawStore::page`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    shard: u32,
    slot: u32,
}

impl<F: Folder> RawStore<F> {
    /// Is the key there?
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// assert!(store.is_empty());
    /// store.put(b"de", b"049", Memory)?;
    /// assert!(store.contains(b"de")? && !store.contains(b"fr")?);
    /// assert_eq!(store.len(), 1);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        Ok(self.read(key, |_| ())?.is_some())
    }

    /// How many records there are.
    ///
    /// Example: see [`contains`](Self::contains).
    #[must_use]
    pub fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.table().len()).sum()
    }

    /// Is there no record?
    ///
    /// Example: see [`contains`](Self::contains).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shows at most so many records, and at least one if there are more, in no order, and returns where
    /// to go on from, if there may be more. Writers go on: a record that is neither written nor deleted
    /// from the first page to the last is shown exactly once.
    ///
    /// ```
    /// use mainstay_store::{Cursor, Durability::Memory, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 1, 1, &Options::default())?;
    /// for number in 0..100_u8 {
    ///     store.put(&[number], &[number], Memory)?;
    /// }
    /// let (mut seen, mut pages, mut next) = (0, 0, Some(Cursor::default()));
    /// while let Some(from) = next {
    ///     next = store.page(from, 30, |_, _| seen += 1)?;
    ///     pages += 1;
    /// }
    /// assert!(seen == 100 && pages >= 4);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`for_each`](Self::for_each).
    pub fn page(
        &self,
        from: Cursor,
        max: usize,
        mut show: impl FnMut(&[u8], &[u8]),
    ) -> Result<Option<Cursor>> {
        let (Cursor { mut shard, mut slot }, mut left) = (from, max.max(1));
        while (shard as usize) < self.shards.len() {
            let mut shown = 0;
            let next = self.scan(shard, slot, left, |key, value| {
                shown += 1;
                show(key, value);
            })?;
            left -= shown;
            match next {
                Some(next) => return Ok(Some(Cursor { shard, slot: next })),
                None => (shard, slot) = (shard + 1, 0),
            }
            if left == 0 {
                break;
            }
        }
        let is_more = (shard as usize) < self.shards.len();
        Ok(is_more.then_some(Cursor { shard, slot }))
    }
}
