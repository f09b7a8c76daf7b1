//! What a store of any sizes is asked for.

use std::time::Duration;

use crate::{
    error::{Error, Result},
    limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SHARD_BITS_MAX, SHARDS_MAX},
    options::check_interval,
};

/// How to make or open a [`LogStore`](crate::LogStore).
///
/// ```
/// use mainstay_store::LogOptions;
/// let options = LogOptions { cache_bytes: 256 << 20, ..LogOptions::default() };
/// assert_eq!(options.segment_bytes, 256 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// How many shards a new store has: a power of two, at most [`SHARDS_MAX`]. A store that
    /// exists keeps its number.
    ///
    /// Example: see [`LogOptions`].
    pub shards: u32,
    /// How many bits of a key, from the highest of its first byte on, choose its shard in a new
    /// store: at most [`SHARD_BITS_MAX`](crate::limits::SHARD_BITS_MAX), and those of a key; 0: all.
    /// Keys that begin alike are in one shard then: they have one order of writes, and a prefix of
    /// so many bits is looked for in one shard instead of all. A store that exists keeps it. Shards
    /// are only as even as these bits are.
    ///
    /// ```
    /// use mainstay_store::{LogOptions, RawLogStore};
    /// let options = LogOptions { shards: 16, shard_bits: 32, ..LogOptions::default() };
    /// let store = RawLogStore::create(mainstay_sim::Disk::new(7), &options)?;
    /// assert_eq!(store.shard(b"user\x01")?, store.shard(b"user\x02")?);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    pub shard_bits: u32,
    /// Bytes of a segment of a new store's log, at most: a multiple of 4,096. No write can be
    /// longer. Each segment takes a file descriptor.
    ///
    /// Example: see [`LogOptions`].
    pub segment_bytes: u64,
    /// How soon a write of [`Durability::Interval`](crate::Durability::Interval) is synced, at the
    /// latest: at least [`INTERVAL_MIN`](crate::limits::INTERVAL_MIN).
    ///
    /// Example: see [`Options::interval`](crate::Options::interval).
    pub interval: Duration,
    /// How many threads read the shards when the store is opened; 0: as many as there are
    /// processors.
    ///
    /// Example: see [`LogOptions`].
    pub threads: u32,
    /// How many bytes of values are kept in memory once they were read, about; 0: none.
    ///
    /// Example: see [`LogOptions`].
    pub cache_bytes: u64,
    /// How many bytes a second compaction reads, at most. What it writes is a part of that.
    ///
    /// Example: see [`LogOptions`].
    pub compact_bytes_per_second: u64,
    /// A segment is compacted when this many hundredths of it are dead: 1 to 100.
    ///
    /// Example: see [`LogOptions`].
    pub dead_percent: u32,
    /// Whether keys are kept in their order, for [`range`](crate::RawLogStore::range), as long as the
    /// store is open. It takes no memory besides; to find one of N keys takes log(N) comparisons
    /// instead of one.
    ///
    /// Example: see [`crate::RawLogStore::range`].
    pub ordered: bool,
    /// The most bytes that are kept for a [`LogSnapshot`](crate::LogSnapshot), a shard: the keys that
    /// were changed since, and 128 for each of them. One for which more would have to be kept is lost;
    /// writers go on.
    ///
    /// Example: see [`LogOptions`].
    pub snapshot_bytes_max: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            shards: 2,
            shard_bits: 0,
            segment_bytes: 256 << 20,
            interval: Duration::from_millis(50),
            threads: 0,
            cache_bytes: 64 << 20,
            compact_bytes_per_second: 64 << 20,
            dead_percent: 50,
            ordered: false,
            snapshot_bytes_max: 256 << 20,
        }
    }
}

impl LogOptions {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |what, value, must| Err(Error::OutOfLimits { what, value, must });
        let segments = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
        if !self.shards.is_power_of_two() || self.shards > SHARDS_MAX {
            return refuse("shards", self.shards.into(), "a power of two, at most 1024");
        }
        if self.shard_bits > SHARD_BITS_MAX {
            return refuse("shard_bits", self.shard_bits.into(), "at most 2048");
        }
        if !segments.contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(4096) {
            return refuse("segment_bytes", self.segment_bytes, "16384 to 2^30, in steps of 4096");
        }
        if !(1..=100).contains(&self.dead_percent) {
            return refuse("dead_percent", self.dead_percent.into(), "1 to 100");
        }
        check_interval(self.interval)
    }
}
