//! Records that are there for a certain time.
//!
//! The time at which a record ends is the beginning of its value, so it is in the log, in images, in
//! memory and at replicas as the rest of the value is, and survives what the record survives. Whoever
//! reads compares it with the clock; whoever sweeps removes what has ended, by deletes as any other,
//! which replicas get in the history.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mainstay_storage::Folder;

use crate::{
    ends::{self, Clock, end_in},
    error::{Error, Result},
    options::{Durability, Options, Token},
    store::RawStore,
};

mod batch;
mod seen;
mod sweep;

pub use seen::{ExpiringRange, ExpiringWatch};

/// Bytes of the time in a value: milliseconds since 1970, little-endian; 0: it never ends.
const STAMP: usize = size_of::<u64>();

/// Keys and values of fixed sizes as bytes, each for a certain time or for good. Nothing happens by
/// itself here: whoever has one calls [`sweep`](Self::sweep) from time to time, as
/// [`crate::ExpiringStore`] does. Until then a record that has ended takes room, and is shown to
/// nobody.
///
/// Time is that of a clock on the wall, since a record has to end while nobody runs: if the clock is
/// set, records end earlier or later by as much. A replica compares with its own clock, and removes
/// what its leader removes.
///
/// ```
/// use mainstay_store::{Durability::Memory, Options, RawExpiring};
/// use std::{sync::{Arc, atomic::{AtomicU64, Ordering::Relaxed}}, time::Duration};
/// let time = Arc::new(AtomicU64::new(1_000_000));
/// let clock = Arc::clone(&time);
/// let disk = mainstay_sim::Disk::new(7);
/// let sessions = RawExpiring::create(disk, 2, 3, &Options::default(), move || clock.load(Relaxed))?;
/// sessions.put(b"de", b"049", Some(Duration::from_secs(60)), Memory)?;
/// time.fetch_add(59_999, Relaxed);
/// assert_eq!(sessions.get(b"de")?, Some(b"049".to_vec()));
/// time.fetch_add(1, Relaxed);
/// assert_eq!(sessions.get(b"de")?, None);
/// # Ok::<(), mainstay_store::Error>(())
/// ```
pub struct RawExpiring<F: Folder> {
    raw: Arc<RawStore<F>>,
    clock: Clock,
    /// The shard and the slot to sweep next.
    next: Mutex<(u32, u32)>,
}

/// When a stamped value ends; 0: never.
fn end_of(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |stamp| u64::from_le_bytes(*stamp))
}

fn has_ended(value: &[u8], now: u64) -> bool {
    ends::has_ended(end_of(value), now)
}

impl<F: Folder> RawExpiring<F> {
    /// Makes a store for keys of `key_len` bytes and values of `value_len`, which is 8 less than for
    /// other stores at most.
    ///
    /// Example: see [`RawExpiring`].
    ///
    /// # Errors
    /// As [`RawStore::create`].
    pub fn create(
        folder: F,
        key_len: usize,
        value_len: usize,
        options: &Options,
        clock: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<Self> {
        let lengths = (key_len, STAMP.saturating_add(value_len));
        Self::over(RawStore::create_anew(folder, lengths, true, options)?, clock)
    }

    /// Takes a store that was made by [`create`](Self::create), or is a replica of one:
    /// [`RawStore::has_ends`] says so, but of stores that were made before it was written down.
    ///
    /// ```
    /// use mainstay_store::{Options, RawExpiring, RawStore};
    /// let disk = mainstay_sim::Disk::new(7);
    /// drop(RawExpiring::create(disk.clone(), 2, 3, &Options::default(), || 0)?);
    /// let store = RawExpiring::over(RawStore::open(disk, &Options::default())?, || 0)?;
    /// assert_eq!(store.lengths(), (2, 3));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if its values have less than 8 bytes.
    pub fn over(
        store: RawStore<F>,
        clock: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<Self> {
        let (_, value_len) = store.lengths();
        if value_len < STAMP {
            let (what, must) = ("the length of the store's values", "8 bytes for a time, or more");
            return Err(Error::OutOfLimits { what, value: value_len as u64, must });
        }
        Ok(Self { raw: Arc::new(store), clock: Box::new(clock), next: Mutex::new((0, 0)) })
    }

    /// The store beneath, whose values begin with 8 bytes for the time.
    ///
    /// ```
    /// # use mainstay_store::{Options, RawExpiring};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), || 0)?;
    /// assert_eq!(store.raw().lengths(), (2, 8 + 3));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn raw(&self) -> &RawStore<F> {
        &self.raw
    }

    /// The same, for who keeps it in order, or lets it be followed.
    ///
    /// ```
    /// # use mainstay_store::{Options, RawExpiring};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), || 0)?;
    /// assert!(store.shared().has_ends());
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn shared(&self) -> &Arc<RawStore<F>> {
        &self.raw
    }

    /// The store beneath, if nobody else has it.
    pub(crate) fn own(&mut self) -> Option<&mut RawStore<F>> {
        Arc::get_mut(&mut self.raw)
    }

    /// Bytes of a key, and of a value.
    ///
    /// Example: see [`RawExpiring::over`].
    #[must_use]
    pub fn lengths(&self) -> (usize, usize) {
        let (key, value) = self.raw.lengths();
        (key, value - STAMP)
    }

    /// The stamp of what ends so long from now.
    fn end_in(&self, ttl: Option<Duration>) -> Result<u64> {
        end_in(ttl, (self.clock)())
    }

    fn stamped(&self, end: u64, value: &[u8]) -> Result<Vec<u8>> {
        let len = self.lengths().1;
        if value.len() != len {
            let (what, must) = ("the length of the value", "that of the store's values");
            return Err(Error::OutOfLimits { what, value: value.len() as u64, must });
        }
        Ok([&end.to_le_bytes()[..], value].concat())
    }

    /// Sets the value of a key, for so long or for good.
    ///
    /// Example: see [`RawExpiring`].
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] for less than a millisecond or more than
    /// [`TTL_MAX`](crate::limits::TTL_MAX), and as [`RawStore::put`].
    pub fn put(
        &self,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
        durability: Durability,
    ) -> Result<Token> {
        let stamped = self.stamped(self.end_in(ttl)?, value)?;
        self.raw.put(key, &stamped, durability)
    }

    /// Sets the value of a key up to a certain time, in milliseconds since 1970, or for good: as it
    /// was in another store.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, Options, RawExpiring};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), || 1_000)?;
    /// store.put_until(b"de", b"049", Some(5_000), Memory)?;
    /// assert_eq!(store.end(b"de")?, Some(Some(5_000)));
    /// store.put_until(b"fr", b"033", Some(1_000), Memory)?;
    /// assert_eq!(store.get(b"fr")?, None);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::put`].
    pub fn put_until(
        &self,
        key: &[u8],
        value: &[u8],
        end: Option<u64>,
        durability: Durability,
    ) -> Result<Token> {
        let stamped = self.stamped(ends::end_at(end), value)?;
        self.raw.put(key, &stamped, durability)
    }

    /// Makes the value of a key `new` (`None`: no value) if it is `old`, and lets it end when the old
    /// one would have; `None` if it is not.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, Options, RawExpiring};
    /// # use std::time::Duration;
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 1, &Options::default(), || 0)?;
    /// store.put(b"de", &[1], Some(Duration::from_secs(9)), Memory)?;
    /// assert!(store.compare_and_swap(b"de", Some(&[7]), Some(&[2]), Memory)?.is_none());
    /// assert!(store.compare_and_swap(b"de", Some(&[1]), Some(&[2]), Memory)?.is_some());
    /// assert_eq!(store.end(b"de")?, Some(Some(9_000)));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
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
        let now = (self.clock)();
        self.raw.change(key, durability, |found| {
            let live = found.filter(|found| !has_ended(found, now));
            if live.map(|live| &live[STAMP..]) != old {
                return None;
            }
            let end = live.map_or(0, end_of);
            Some(new.map(|new| [&end.to_le_bytes()[..], new].concat()))
        })
    }

    /// Sets the value of a key that is not there yet, or not any more; `None` if it is.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, Options, RawExpiring};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), || 0)?;
    /// assert!(store.insert(b"de", b"049", None, Memory)?.is_some());
    /// assert!(store.insert(b"de", b"+49", None, Memory)?.is_none());
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn insert(
        &self,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
        durability: Durability,
    ) -> Result<Option<Token>> {
        let (stamped, now) = (self.stamped(self.end_in(ttl)?, value)?, (self.clock)());
        self.raw.change(key, durability, |old| {
            old.is_none_or(|old| has_ended(old, now)).then_some(Some(stamped))
        })
    }

    /// Makes of a key's value what a closure says of it, with the time it has left: `None` for no
    /// value. No other writer of the shard gets in meanwhile; the closure must not use the store. The
    /// new value ends when the old one would have, and never if there was none; `None` if nothing
    /// became nothing.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, Options, RawExpiring};
    /// # use std::time::Duration;
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 1, &Options::default(), || 0)?;
    /// store.put(b"de", &[1], Some(Duration::from_secs(9)), Memory)?;
    /// store.update(b"de", Memory, |old| old.map(|old| vec![old[0] + 1]))?;
    /// assert_eq!(store.get(b"de")?, Some(vec![2]));
    /// assert_eq!(store.left(b"de")?, Some(Some(Duration::from_secs(9))));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn update(
        &self,
        key: &[u8],
        durability: Durability,
        change: impl FnOnce(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Token>> {
        let now = (self.clock)();
        self.raw.change(key, durability, |old| {
            let live = old.filter(|old| !has_ended(old, now));
            let end = live.map_or(0, end_of);
            match change(live.map(|live| &live[STAMP..])) {
                Some(new) => Some(Some([&end.to_le_bytes()[..], &new].concat())),
                // What has ended goes as well.
                None => old.is_some().then_some(None),
            }
        })
    }

    /// Lets a record end so long from now, or never; `None` if it is not there.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, Options, RawExpiring};
    /// # use std::time::Duration;
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), || 0)?;
    /// store.put(b"de", b"049", Some(Duration::from_secs(60)), Memory)?;
    /// store.touch(b"de", Some(Duration::from_secs(90)), Memory)?;
    /// assert_eq!(store.left(b"de")?, Some(Some(Duration::from_secs(90))));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn touch(
        &self,
        key: &[u8],
        ttl: Option<Duration>,
        durability: Durability,
    ) -> Result<Option<Token>> {
        let (end, now) = (self.end_in(ttl)?, (self.clock)());
        self.raw.change(key, durability, |old| {
            let live = old.filter(|old| !has_ended(old, now))?;
            Some(Some([&end.to_le_bytes()[..], &live[STAMP..]].concat()))
        })
    }

    /// Removes a key; `None` if it is not there, or has ended and is there no more.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, Options, RawExpiring};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), || 0)?;
    /// store.put(b"de", b"049", None, Memory)?;
    /// assert!(store.delete(b"de", Memory)?.is_some());
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete(&self, key: &[u8], durability: Durability) -> Result<Option<Token>> {
        let now = (self.clock)();
        self.raw.change(key, durability, |old| {
            old.is_some_and(|old| !has_ended(old, now)).then_some(None)
        })
    }

    fn live<R>(&self, key: &[u8], look: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let now = (self.clock)();
        let seen = self.raw.read(key, |value| (!has_ended(value, now)).then(|| look(value)))?;
        Ok(seen.flatten())
    }

    /// The value of a key, if it has one that has not ended.
    ///
    /// Example: see [`RawExpiring`].
    ///
    /// # Errors
    /// As [`RawStore::get`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.live(key, |value| value[STAMP..].to_vec())
    }

    /// Copies the value of a key into `value`, which has its length. False if the key is not there.
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, Options, RawExpiring};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), || 0)?;
    /// store.put(b"de", b"049", None, Memory)?;
    /// let mut value = [0; 3];
    /// assert!(store.read_into(b"de", &mut value)?);
    /// assert_eq!(&value, b"049");
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::read_into`].
    pub fn read_into(&self, key: &[u8], value: &mut [u8]) -> Result<bool> {
        if value.len() != self.lengths().1 {
            let (what, must) = ("the length of the value", "that of the store's values");
            return Err(Error::OutOfLimits { what, value: value.len() as u64, must });
        }
        let copied = self.live(key, |stamped| value.copy_from_slice(&stamped[STAMP..]))?;
        Ok(copied.is_some())
    }

    /// How long a key will be there: `None` if it is not, and `Some(None)` if it does not end.
    ///
    /// Example: see [`RawExpiring::touch`].
    ///
    /// # Errors
    /// As [`RawStore::get`].
    pub fn left(&self, key: &[u8]) -> Result<Option<Option<Duration>>> {
        let now = (self.clock)();
        self.live(key, |value| ends::left(end_of(value), now))
    }

    /// When a key ends, in milliseconds since 1970: `None` if it is not there, and `Some(None)` if it
    /// does not end.
    ///
    /// Example: see [`put_until`](Self::put_until).
    ///
    /// # Errors
    /// As [`RawStore::get`].
    pub fn end(&self, key: &[u8]) -> Result<Option<Option<u64>>> {
        self.live(key, |value| Some(end_of(value)).filter(|end| *end != 0))
    }

    /// Shows every record that has not ended to a closure; see [`RawStore::for_each`].
    ///
    /// ```
    /// # use mainstay_store::{Durability::Memory, Options, RawExpiring};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// let store = RawExpiring::create(disk, 2, 3, &Options::default(), || 0)?;
    /// store.put(b"de", b"049", None, Memory)?;
    /// store.for_each(|key, value| assert_eq!((key, value), (&b"de"[..], &b"049"[..])))?;
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::for_each`].
    pub fn for_each(&self, mut show: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let now = (self.clock)();
        self.raw.for_each(|key, value| {
            if !has_ended(value, now) {
                show(key, &value[STAMP..]);
            }
        })
    }

    /// Makes everything durable; see [`RawStore::close`].
    ///
    /// ```
    /// # use mainstay_store::{Options, RawExpiring};
    /// # let disk = mainstay_sim::Disk::new(7);
    /// RawExpiring::create(disk, 2, 3, &Options::default(), || 0)?.close()?;
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`RawStore::close`].
    pub fn close(self) -> Result<()> {
        self.raw.note_durable()
    }
}

/// The time at which a record of an expiring store ends, in milliseconds since 1970 (`None`: never),
/// and the value behind it, as they are in the files of the store and in its memory; see
/// [`OnDisk::has_ends`](crate::OnDisk::has_ends).
///
/// ```
/// use mainstay_store::split_end;
/// let stored = [&5_000_u64.to_le_bytes()[..], b"049"].concat();
/// assert_eq!(split_end(&stored), (Some(5_000), &b"049"[..]));
/// assert_eq!(split_end(&[&[0; 8][..], b"049"].concat()).0, None);
/// ```
#[must_use]
pub fn split_end(stored: &[u8]) -> (Option<u64>, &[u8]) {
    let value = stored.get(STAMP..).unwrap_or_default();
    (Some(end_of(stored)).filter(|end| *end != 0), value)
}

#[cfg(test)]
mod tests;
