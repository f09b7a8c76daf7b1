//! What a store is asked for.

use std::time::Duration;

use crate::{
    error::{Error, Result},
    limits::{INTERVAL_MIN, RECORDS_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SHARDS_MAX},
};

/// How to make or open a store.
///
/// ```
/// use mainstay_store::Options;
/// let options = Options { shards: 4, ..Options::default() };
/// assert_eq!(options.segment_bytes, 8 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// How many shards a new store has: a power of two, at most [`SHARDS_MAX`]. A store that
    /// exists keeps its number.
    ///
    /// ```
    /// use mainstay_store::{Error, FixedStore, Options, limits::SHARDS_MAX};
    /// let dir = tempfile::tempdir()?;
    /// let options = Options { shards: 2 * SHARDS_MAX, ..Options::default() };
    /// let refused = FixedStore::<u64, u64>::create(dir.path(), &options);
    /// assert!(matches!(refused, Err(Error::OutOfLimits { .. })));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub shards: u32,
    /// How many bits of a key, from the highest of its first byte on, choose its shard in a new
    /// store: at most [`SHARD_BITS_MAX`](crate::limits::SHARD_BITS_MAX), and those of a key; 0: all.
    /// Keys that begin alike are in one shard then: they have one order of writes, and a prefix of
    /// so many bits is looked for in one shard instead of all. A store that exists keeps it. Shards
    /// are only as even as these bits are.
    ///
    /// ```
    /// use mainstay_store::{Options, RawStore};
    /// let options = Options { shards: 16, shard_bits: 32, ..Options::default() };
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 5, 8, &options)?;
    /// assert_eq!(store.shard(b"user\x01")?, store.shard(b"user\x02")?);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    pub shard_bits: u32,
    /// Bytes of a segment of a new store's log: a multiple of 4,096.
    ///
    /// Example: see [`Options`].
    pub segment_bytes: u64,
    /// The most records of a shard, for as long as the store is open.
    ///
    /// Example: see [`Options`].
    pub records_max: u32,
    /// How soon a write of [`Durability::Interval`] is synced, at the latest: at least
    /// [`INTERVAL_MIN`], as threads look that often whether there is something to do. What is to be
    /// durable at once is written with [`Durability::Group`].
    ///
    /// ```
    /// use mainstay_store::{Error, FixedStore, Options};
    /// let dir = tempfile::tempdir()?;
    /// let options = Options { interval: std::time::Duration::ZERO, ..Options::default() };
    /// let refused = FixedStore::<u64, u64>::create(dir.path(), &options);
    /// assert!(matches!(refused, Err(Error::OutOfLimits { what: "interval", .. })));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub interval: Duration,
    /// How many threads read the shards when the store is opened; 0: as many as there are
    /// processors. With one, the same calls on the same disk come in the same order.
    ///
    /// Example: see [`Options`].
    pub threads: u32,
    /// Whether keys are also kept in their order, for [`range`](crate::RawStore::range), as long as
    /// the store is open. It is made when the store is opened, and takes some 64 bytes of memory a
    /// record (those of a key beyond the sixteenth are added) and a search for each key that comes
    /// or goes; writing to a key that is there costs nothing more.
    ///
    /// Example: see [`crate::RawStore::range`].
    pub ordered: bool,
    /// How many bytes a second compaction writes, at most; 0: it is left to
    /// [`compact`](crate::RawStore::compact). The log grows meanwhile: with writers that are as fast as
    /// this, by as much as there are records.
    ///
    /// Example: see [`Options`].
    pub compact_bytes_per_second: u64,
    /// The most bytes of records that are kept for a [`Snapshot`](crate::Snapshot), a shard. One for
    /// which more would have to be kept is lost; writers go on.
    ///
    /// Example: see [`Options`].
    pub snapshot_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 2,
            shard_bits: 0,
            segment_bytes: 8 << 20,
            records_max: RECORDS_MAX,
            interval: Duration::from_millis(50),
            threads: 0,
            ordered: false,
            compact_bytes_per_second: 256 << 20,
            snapshot_bytes_max: 256 << 20,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |what, value, must| Err(Error::OutOfLimits { what, value, must });
        let segments = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
        if !self.shards.is_power_of_two() || self.shards > SHARDS_MAX {
            return refuse("shards", self.shards.into(), "a power of two, at most 1024");
        }
        if !segments.contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(4096) {
            return refuse("segment_bytes", self.segment_bytes, "16384 to 2^30, in steps of 4096");
        }
        self.check_running()
    }

    /// What compaction may write in one interval: at least a chunk, unless it is to write nothing.
    pub(crate) fn compact_bytes(&self) -> u64 {
        bytes_in(self.compact_bytes_per_second, self.interval)
    }

    pub(crate) fn check_running(&self) -> Result<()> {
        if self.records_max > RECORDS_MAX {
            let must = "at most 2^32 - 2";
            let value = self.records_max.into();
            return Err(Error::OutOfLimits { what: "records_max", value, must });
        }
        check_interval(self.interval)
    }
}

/// With less, those who look after a store would do nothing else.
pub(crate) fn check_interval(interval: Duration) -> Result<()> {
    if interval >= INTERVAL_MIN {
        return Ok(());
    }
    let must = "at least 1000 us; `Durability::Group` is for writes that are durable at once";
    let value = interval.as_micros() as u64;
    Err(Error::OutOfLimits { what: "interval", value, must })
}

/// How many bytes a rate of so many a second allows in some time. Some, if the rate is not 0.
pub(crate) fn bytes_in(bytes_per_second: u64, time: Duration) -> u64 {
    let bytes = u128::from(bytes_per_second) * time.as_micros() / 1_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX).max(bytes_per_second.min(1))
}

/// When a write returns, and so what it survives from then on.
///
/// ```
/// use mainstay_store::{Durability, FixedStore, Options};
/// let dir = tempfile::tempdir()?;
/// let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
/// let token = store.put(&1, &2, Durability::Memory)?;
/// store.wait(token)?;
/// assert!(store.is_durable(token)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The operating system has it: it survives the process, and is synced with the next sync.
    Memory,
    /// The same, and a timer syncs it within [`Options::interval`].
    Interval,
    /// It is on the disk. Writers that wait at the same time share a sync.
    Group,
    /// It is on the disk, by a sync of its own, before any later write of its shard.
    Each,
}

/// Which write of a store: the epoch began when the store was opened, the sequence counts the
/// writes of a shard through all epochs.
///
/// Example: see [`Durability`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// Which life of the store.
    pub epoch: u64,
    /// Which shard.
    pub shard: u32,
    /// Which write of the shard.
    pub sequence: u64,
}
