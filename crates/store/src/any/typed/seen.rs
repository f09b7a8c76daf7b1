//! Further ways to see what is in a typed store of any sizes.

use std::collections::VecDeque;

use super::{Field, LogStore, bytes_of};
use crate::{
    any::{format::read_records, scan::LogScan},
    ends::has_ended,
    error::{Error, Result},
    folder::Directory,
    options::{Durability, Token},
    shard::Change,
};

/// Records, and bytes of them, that an iterator reads at a time.
const PAGE: (usize, u64) = (64, 1 << 20);

/// What has the bytes of a key of another type, so that a key can be looked for without making one.
///
/// ```
/// use mainstay_store::{Durability::Memory, LogOptions, LogStore};
/// # let dir = tempfile::tempdir()?;
/// let store = LogStore::<String, u64>::create(dir.path(), &LogOptions::default())?;
/// store.put(&"readme".to_owned(), &7, Memory)?;
/// assert_eq!(store.get_by("readme")?, Some(7));
/// assert!(store.contains("readme")?);
/// assert!(store.delete_by("readme", Memory)?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait AsKey<K> {
    /// Appends the bytes that the key has.
    ///
    /// Example: see [`AsKey`].
    fn encode_key(&self, out: &mut Vec<u8>);
}

impl<K: Field> AsKey<K> for K {
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }
}

impl AsKey<String> for str {
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl AsKey<Vec<u8>> for [u8] {
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

fn key_bytes<K>(key: &(impl AsKey<K> + ?Sized)) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode_key(&mut bytes);
    bytes
}

impl<K: Field, V: Field> LogStore<K, V> {
    /// The value of a key, by whatever has its bytes.
    ///
    /// Example: see [`AsKey`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_by(&self, key: &(impl AsKey<K> + ?Sized)) -> Result<Option<V>> {
        let value = self.raw.get(&key_bytes(key))?;
        value.map(|value| V::decode(&value).ok_or(Error::Undecodable { what: "value" })).transpose()
    }

    /// Removes a key, by whatever has its bytes; `None` if it is not there.
    ///
    /// Example: see [`AsKey`].
    ///
    /// # Errors
    /// As [`delete`](Self::delete).
    pub fn delete_by(
        &self,
        key: &(impl AsKey<K> + ?Sized),
        durability: Durability,
    ) -> Result<Option<Token>> {
        self.raw.delete(&key_bytes(key), durability)
    }

    /// Is the key there? Nothing is read from the disk.
    ///
    /// Example: see [`AsKey`].
    ///
    /// # Errors
    /// As [`RawLogStore::contains`](crate::RawLogStore::contains).
    pub fn contains(&self, key: &(impl AsKey<K> + ?Sized)) -> Result<bool> {
        self.raw.contains(&key_bytes(key))
    }

    /// How many records there are; those that have ended and were not yet removed are counted.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let store = LogStore::<u64, u64>::create(dir.path(), &LogOptions::default())?;
    /// assert!(store.is_empty());
    /// store.put(&1, &2, Memory)?;
    /// assert_eq!(store.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> u64 {
        self.raw.len()
    }

    /// Is there no record?
    ///
    /// Example: see [`len`](Self::len).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// When a key ends, in milliseconds since 1970: `None` if it is not there, and `Some(None)` if it
    /// does not end.
    ///
    /// Example: see [`put_until`](Self::put_until).
    ///
    /// # Errors
    /// As [`RawLogStore::end`](crate::RawLogStore::end).
    pub fn end(&self, key: &K) -> Result<Option<Option<u64>>> {
        self.raw.end(&bytes_of(key))
    }

    /// All records, shard by shard, in the order in which they are on the disk. Writers and compaction go
    /// on: what is shown of a shard is as it was when its first record was read. It takes some 40 bytes
    /// of memory for each record of a shard that is still to be shown.
    ///
    /// ```
    /// use mainstay_store::{Durability::Memory, LogOptions, LogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let store = LogStore::<u64, String>::create(dir.path(), &LogOptions::default())?;
    /// for number in 0..200 {
    ///     store.put(&number, &number.to_string(), Memory)?;
    /// }
    /// let mut records = store.iter();
    /// let first = records.next().transpose()?;
    /// assert!(first.is_some_and(|(key, value)| value == key.to_string()));
    /// assert_eq!(records.count(), 199);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn iter(&self) -> LogIter<'_, K, V> {
        LogIter { store: self, shard: 0, scan: LogScan::default(), ready: VecDeque::new() }
    }
}

/// All records of a [`LogStore`]; it can be left and gone on with as any iterator.
///
/// Example: see [`LogStore::iter`].
pub struct LogIter<'a, K, V> {
    store: &'a LogStore<K, V>,
    shard: u32,
    scan: LogScan<Directory>,
    ready: VecDeque<(K, V)>,
}

impl<K: Field, V: Field> LogIter<'_, K, V> {
    /// Reads some more records. False if there are none.
    fn read(&mut self) -> Result<bool> {
        let raw = &self.store.raw;
        if self.shard as usize >= raw.shards.len() {
            return Ok(false);
        }
        let (now, ready, mut wrong) = (raw.now(), &mut self.ready, None);
        let show = |_: &[u8], record: &[u8]| {
            let found = read_records(record, 1);
            let Some(&[(Change::Put(key, value), end)]) = found.as_deref() else {
                wrong = Some("key");
                return;
            };
            if has_ended(end, now) {
                return;
            }
            match (K::decode(key), V::decode(value)) {
                (Some(key), Some(value)) => ready.push_back((key, value)),
                (None, _) => wrong = Some("key"),
                (_, None) => wrong = Some("value"),
            }
        };
        if !raw.scan(self.shard, &mut self.scan, PAGE, |_| true, show)? {
            self.shard += 1;
            self.scan = LogScan::default();
        }
        wrong.map_or(Ok(true), |what| Err(Error::Undecodable { what }))
    }
}

impl<K: Field, V: Field> Iterator for LogIter<'_, K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(Ok(record));
            }
            match self.read() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    // There is no more after it.
                    self.shard = u32::MAX;
                    self.ready.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl<'a, K: Field, V: Field> IntoIterator for &'a LogStore<K, V> {
    type Item = Result<(K, V)>;
    type IntoIter = LogIter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
