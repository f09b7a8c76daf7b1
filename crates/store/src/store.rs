//! A store over bytes.

mod opening;
mod pages;
mod upkeep;

use std::sync::{Arc, Mutex};

use mainstay_storage::Folder;

pub(crate) use self::opening::{begin_fixed, check_header, clear_for, in_parallel, new_id};
pub use self::pages::Cursor;
pub(crate) use self::upkeep::IDLE_LOOKS;
use crate::{
    error::{Error, Result},
    format::StoreHeader,
    hooks::{Hooks, Wakes},
    limits::VALUE_BYTES_MAX,
    options::{Durability, Token},
    rank::Standing,
    shard::{Change, Entry, Guard, Shard},
    table::sequence_and_key,
};

/// Keys and values of fixed sizes as bytes, in a [`Folder`]. Nothing happens by itself here:
/// whoever has one calls [`tend`](Self::tend) from time to time, as [`crate::FixedStore`] does.
///
/// A write is visible to everybody as soon as it is in the log, before it is durable.
///
/// ```
/// use mainstay_store::{Durability, Options, RawStore};
/// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
/// store.put(b"de", b"049", Durability::Memory)?;
/// assert_eq!(store.get(b"de")?, Some(b"049".to_vec()));
/// # Ok::<(), mainstay_store::Error>(())
/// ```
pub struct RawStore<F: Folder> {
    pub(crate) folder: F,
    pub(crate) header: StoreHeader,
    pub(crate) shards: Vec<Shard<F>>,
    pub(crate) standing: Standing<StoreHeader>,
    pub(crate) snapshot_bytes_max: u64,
    /// Bytes of images that one call of `upkeep` may write.
    pub(crate) compact_bytes: u64,
    pub(crate) compaction: Mutex<Turn>,
    /// The shard and the slot of it that are checked next.
    pub(crate) checking: Mutex<(usize, u32)>,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) notify: Arc<Wakes>,
}

/// Whose turn it is to be compacted.
#[derive(Default)]
pub(crate) struct Turn {
    shard: usize,
    /// Bytes that were written beyond what was allowed: a chunk is written whole.
    debt: u64,
}

impl Turn {
    /// What is left of so many bytes.
    fn take(&mut self, bytes: u64) -> u64 {
        let paid = self.debt.min(bytes);
        self.debt -= paid;
        bytes - paid
    }
}

impl<F: Folder> RawStore<F> {
    /// Bytes of a key, and of a value.
    ///
    /// ```
    /// # use mainstay_store::{Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// assert_eq!(store.lengths(), (2, 3));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn lengths(&self) -> (usize, usize) {
        (self.header.key_len.get() as usize, self.header.value_len.get() as usize)
    }

    /// Bytes of a segment of its log.
    ///
    /// ```
    /// # use mainstay_store::{Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// assert_eq!(store.segment_bytes(), Options::default().segment_bytes);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.header.segment_bytes.get()
    }

    /// Is it one of [`RawExpiring`](crate::RawExpiring), whose values begin with the time at which the
    /// record ends?
    ///
    /// ```
    /// use mainstay_sim::Disk;
    /// use mainstay_store::{Options, RawExpiring, RawStore};
    /// let options = Options::default();
    /// assert!(!RawStore::create(Disk::new(1), 2, 3, &options)?.has_ends());
    /// assert!(RawExpiring::create(Disk::new(2), 2, 3, &options, || 0)?.raw().has_ends());
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn has_ends(&self) -> bool {
        self.header.has_ends()
    }

    #[inline(always)]
    pub(crate) fn check_key(&self, key: &[u8]) -> Result<(u64, &Shard<F>)> {
        let (value, must) = (key.len() as u64, "that of the store's keys");
        if key.len() != self.lengths().0 {
            return Err(Error::OutOfLimits { what: "the length of the key", value, must });
        }
        let (hash, shard) = self.header.route().find(key);
        Ok((hash, &self.shards[shard]))
    }

    #[inline]
    pub(crate) fn check_value(&self, value: &[u8]) -> Result<()> {
        if value.len() == self.lengths().1 {
            return Ok(());
        }
        let (value, must) = (value.len() as u64, "that of the store's values");
        Err(Error::OutOfLimits { what: "the length of the value", value, must })
    }

    /// Shows a copy of the value of a key to a closure. No writer is held off, and none waited for.
    ///
    /// ```
    /// # use mainstay_store::{Durability, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Durability::Memory)?;
    /// assert_eq!(store.read(b"de", |value| value[1])?, Some(b'4'));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub fn read<R>(&self, key: &[u8], look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        match self.lengths().1 {
            0..=64 => self.read_by::<64, R>(key, look),
            65..=512 => self.read_by::<512, R>(key, look),
            _ => self.read_by::<VALUE_BYTES_MAX, R>(key, look),
        }
    }

    /// By a copy of at most `N` bytes on the stack.
    #[inline]
    fn read_by<const N: usize, R>(
        &self,
        key: &[u8],
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        let mut value = [0; N];
        let value = &mut value[..self.lengths().1.min(N)];
        Ok(if self.read_into(key, value)? { Some(look(value)) } else { None })
    }

    /// Copies the value of a key into `value`, which has its length. False if the key is not there.
    ///
    /// ```
    /// # use mainstay_store::{Durability, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Durability::Memory)?;
    /// let mut value = [0; 3];
    /// assert!(store.read_into(b"de", &mut value)?);
    /// assert_eq!(&value, b"049");
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if the key or `value` is of another length, [`Error::Damaged`] if
    /// somebody wrote into the memory of the store who must not.
    pub fn read_into(&self, key: &[u8], value: &mut [u8]) -> Result<bool> {
        let (hash, shard) = self.check_key(key)?;
        self.check_value(value)?;
        Ok(shard.table().copy(hash, key, value)?.is_some())
    }

    /// The same, if the record is found at once. False says nothing. No other function gets to see
    /// `value`, so that it needs not be in memory before it is where the caller wants it.
    #[inline(always)]
    pub(crate) fn copy_value_at_once(&self, key: &[u8], value: &mut [u8]) -> bool {
        if (key.len(), value.len()) != self.lengths() {
            return false;
        }
        let (hash, shard) = self.header.route().find(key);
        self.shards
            .get(shard)
            .is_some_and(|shard| shard.table().copy_at_once(hash, key, value).is_some())
    }

    /// The value of a key.
    ///
    /// Example: see [`RawStore`].
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.read(key, <[u8]>::to_vec)
    }

    /// Sets the value of a key.
    ///
    /// Example: see [`RawStore`].
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Full`], [`Error::OutOfLimits`], or [`Error::Io`] if there is
    /// no room for the log. After [`Error::Poisoned`] of a durable write the value is visible, and
    /// is there or not when the store is opened again; after the others nothing has changed.
    pub fn put(&self, key: &[u8], value: &[u8], durability: Durability) -> Result<Token> {
        self.check_value(value)?;
        let (hash, shard) = self.check_key(key)?;
        shard.table().ask_for(hash);
        self.commit(shard, shard.writer(), &[Change::Put(key, value)], durability)
    }

    /// Sets the value of a key that is not there yet; `None` if it is.
    ///
    /// Example: see [`crate::FixedStore::insert`].
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn insert(
        &self,
        key: &[u8],
        value: &[u8],
        durability: Durability,
    ) -> Result<Option<Token>> {
        self.change(key, durability, |old| old.is_none().then(|| Some(value.to_vec())))
    }

    /// Removes a key; `None` if it is not there.
    ///
    /// Example: see [`crate::FixedStore::delete`].
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete(&self, key: &[u8], durability: Durability) -> Result<Option<Token>> {
        self.change(key, durability, |old| old.is_some().then_some(None))
    }

    /// Makes the value of a key `new` (`None`: no value) if it is `old`; `None` if it is not.
    ///
    /// Example: see [`crate::FixedStore::compare_and_swap`].
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn compare_and_swap(
        &self,
        key: &[u8],
        old: Option<&[u8]>,
        new: Option<&[u8]>,
        durability: Durability,
    ) -> Result<Option<Token>> {
        self.change(key, durability, |now| (now == old).then(|| new.map(<[u8]>::to_vec)))
    }

    /// Makes of a key's value what a closure says of it, while no other writer of the shard gets
    /// in: `Some(value)`, or `None` for no value. The closure must not use the store.
    ///
    /// Example: see [`crate::FixedStore::update`].
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn update(
        &self,
        key: &[u8],
        durability: Durability,
        change: impl FnOnce(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Token> {
        let mut last = None;
        let changed = self.change(key, durability, |old| {
            let new = change(old);
            let nothing = old.is_none() && new.is_none();
            (!nothing).then_some(new)
        })?;
        // Nothing became nothing: that is as durable as the last write.
        let (_, shard) = self.check_key(key)?;
        let token = changed.unwrap_or_else(|| *last.insert(self.token(shard, shard.written())));
        if last.is_some() && matches!(durability, Durability::Group | Durability::Each) {
            shard.wait(token.sequence)?;
        }
        Ok(token)
    }

    /// `decide` says what the value becomes, or that it stays.
    pub(crate) fn change(
        &self,
        key: &[u8],
        durability: Durability,
        decide: impl FnOnce(Option<&[u8]>) -> Option<Option<Vec<u8>>>,
    ) -> Result<Option<Token>> {
        let (hash, shard) = self.check_key(key)?;
        let log = shard.writer();
        let old = shard.table().get(hash, key)?;
        let decision = decide(old.as_deref());
        let Some(new) = decision else { return Ok(None) };
        let change = match &new {
            Some(value) => {
                self.check_value(value)?;
                Change::Put(key, value)
            }
            None if old.is_none() => return Ok(None),
            None => Change::Delete(key),
        };
        self.commit(shard, log, &[change], durability).map(Some)
    }

    /// Makes several changes of one shard at once: after a crash all of them are there, or none. For
    /// those of several shards there is [`batch_across`](Self::batch_across). Readers may see them
    /// one after another only if they read key by key. `None` for no changes.
    ///
    /// ```
    /// # use mainstay_store::{Change, Durability, Options, RawStore};
    /// # let one = Options { shards: 1, ..Options::default() };
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &one)?;
    /// let changes = [Change::Put(b"de", b"049"), Change::Delete(b"dd")];
    /// store.batch(&changes, Durability::Group)?;
    /// assert_eq!(store.shard(b"de")?, store.shard(b"dd")?);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::AcrossShards`], [`Error::BatchTooLong`], and as [`put`](Self::put).
    pub fn batch(&self, changes: &[Change<'_>], durability: Durability) -> Result<Option<Token>> {
        let Some(first) = changes.first() else { return Ok(None) };
        let one = self.shard(first.key())?;
        for change in changes {
            let other = self.shard(change.key())?;
            if one != other {
                return Err(Error::AcrossShards { one, other });
            }
            if let Change::Put(_, value) = change {
                self.check_value(value)?;
            }
        }
        let shard = &self.shards[one as usize];
        self.commit(shard, shard.writer(), changes, durability).map(Some)
    }

    /// Which shard a key belongs to.
    ///
    /// Example: see [`RawStore::batch`].
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if the key is of another length.
    pub fn shard(&self, key: &[u8]) -> Result<u32> {
        Ok(self.check_key(key)?.1.number())
    }

    fn commit(
        &self,
        shard: &Shard<F>,
        mut log: Guard<'_, F>,
        changes: &[Change<'_>],
        durability: Durability,
    ) -> Result<Token> {
        self.standing.check_open()?;
        let entry = Entry { epoch: self.header.epoch.get(), note: None, parts: &[], changes };
        let sequence = shard.append(&self.folder, &self.header, &mut log, &entry)?;
        if durability == Durability::Each {
            self.tell();
            shard.sync_now(&mut log)?;
        } else {
            // Whoever is told reads the log.
            drop(log);
            self.tell();
            if durability == Durability::Group {
                shard.wait(sequence)?;
            }
        }
        Ok(self.token(shard, sequence))
    }

    /// Calls whoever is to hear of writes.
    pub(crate) fn tell(&self) {
        self.notify.wake();
    }

    pub(crate) fn token(&self, shard: &Shard<F>, sequence: u64) -> Token {
        Token { epoch: self.header.epoch.get(), shard: shard.number(), sequence }
    }

    pub(crate) fn shard_of_token(&self, token: Token) -> Result<&Shard<F>> {
        let now = self.header.epoch.get();
        match self.shards.get(token.shard as usize) {
            Some(shard) if token.epoch == now => Ok(shard),
            _ => Err(Error::OtherEpoch { token: token.epoch, now }),
        }
    }

    /// Returns when the write of a token is durable.
    ///
    /// Example: see [`Durability`].
    ///
    /// # Errors
    /// [`Error::OtherEpoch`] for a token from before the store was opened; [`Error::Poisoned`].
    pub fn wait(&self, token: Token) -> Result<()> {
        let shard = self.shard_of_token(token)?;
        shard.wait(token.sequence.min(shard.written()))
    }

    /// Is the write of a token durable?
    ///
    /// Example: see [`Durability`].
    ///
    /// # Errors
    /// [`Error::OtherEpoch`] for a token from before the store was opened.
    pub fn is_durable(&self, token: Token) -> Result<bool> {
        Ok(self.shard_of_token(token)?.is_durable(token.sequence))
    }

    /// Returns when everything written before, in all shards, is durable; with the last write of
    /// each shard.
    ///
    /// ```
    /// # use mainstay_store::{Durability, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let token = store.put(b"de", b"049", Durability::Memory)?;
    /// assert!(store.sync()?.contains(&token));
    /// assert!(store.is_durable(token)?);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`]; the other shards are synced nevertheless.
    pub fn sync(&self) -> Result<Vec<Token>> {
        let sync = |shard: &Shard<F>| {
            let sequence = shard.written();
            shard.wait(sequence).map(|()| self.token(shard, sequence))
        };
        let synced: Vec<Result<Token>> = self.shards.iter().map(sync).collect();
        synced.into_iter().collect()
    }

    /// Shows every record to a closure, in no order, some hundred at a time. Writers go on: a
    /// record that is neither written nor deleted meanwhile is shown exactly once.
    ///
    /// ```
    /// # use mainstay_store::{Durability, Options, RawStore};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Durability::Memory)?;
    /// store.for_each(|key, value| assert_eq!((key, value), (&b"de"[..], &b"049"[..])))?;
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Damaged`] if somebody wrote into the memory of the store who must not.
    pub fn for_each(&self, mut show: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.shards.iter().try_for_each(|shard| {
            shard.table().each(|record| {
                let (key, value) = sequence_and_key(record).1.split_at(self.lengths().0);
                show(key, value);
                Ok(())
            })
        })
    }
}
