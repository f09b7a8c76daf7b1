//! All limits of a store.

use std::time::Duration;

/// The longest key, in bytes. The shortest is 1.
///
/// Example: see [`crate::RawStore::create`].
pub const KEY_BYTES_MAX: usize = 256;

/// The longest value, in bytes. The shortest is 0: a set of keys.
///
/// Example: see [`crate::RawStore::create`].
pub const VALUE_BYTES_MAX: usize = 4_096;

/// The longest key of a store of any sizes, in bytes. The shortest is 1.
///
/// Example: see [`crate::RawLogStore::put`].
pub const ANY_KEY_BYTES_MAX: usize = 4_096;

/// The longest value of a store of any sizes, in bytes, if its segments are long enough for it. The
/// shortest is 0.
///
/// Example: see [`crate::RawLogStore::record_bytes_max`].
pub const ANY_VALUE_BYTES_MAX: usize = 1 << 28;

/// The most shards. Their number is a power of two.
///
/// Example: see [`crate::Options::shards`].
pub const SHARDS_MAX: u32 = 1_024;

/// The most bits of a key that choose its shard, unless all of them do.
///
/// Example: see [`crate::Options::shard_bits`].
pub const SHARD_BITS_MAX: u32 = 8 * KEY_BYTES_MAX as u32;

/// The smallest segment of a log, in bytes.
///
/// Example: see [`crate::Options::segment_bytes`].
pub const SEGMENT_BYTES_MIN: u64 = 16 << 10;

/// The largest segment of a log, in bytes.
///
/// Example: see [`crate::Options::segment_bytes`].
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// The most records of a shard.
///
/// Example: see [`crate::Options::records_max`].
pub const RECORDS_MAX: u32 = u32::MAX - 1;

/// The shortest interval in which a store is looked after.
///
/// Example: see [`crate::Options::interval`].
pub const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Bytes of changes that wait for who watches a store: keys, values, and 64 for each of them. With one
/// more, all of them are given up, and [`News::Missed`](crate::News::Missed) is told.
///
/// Example: see [`crate::RawStore::watch`].
pub const WATCH_BYTES_MAX: usize = 16 << 20;

/// For how many records that are said to come there is room made at once; for more of them it is made
/// as they come.
///
/// Example: see [`crate::RawStore::expect`].
pub const EXPECTED_MAX: u64 = 1 << 20;

/// The longest time to live: a hundred years of 365.25 days.
///
/// Example: see [`crate::RawExpiring::put`].
pub const TTL_MAX: Duration = Duration::from_secs(3_155_760_000);

/// Addresses that a store reserves for its records, in bytes, in equal parts for its shards: so
/// many records it can have at most. As many at most are reserved for its index.
///
/// Example: see [`crate::Error::Full`].
pub const ADDRESS_BYTES: u64 = 1 << 40;
