//! The limits of a pool, all in one place. Each has a test at the limit and one past it.

/// The largest block, in bytes of data.
pub const BLOCK_SIZE_MAX: usize = 1 << 30;

/// The most blocks one pool can have.
pub const BLOCKS_MAX: u64 = 1 << 32;

/// The most blocks one growth step adds.
pub const BLOCKS_PER_EXTENT_MAX: u32 = 1 << 16;

/// Address space reserved for a pool unless told otherwise, in bytes.
pub const RESERVE_DEFAULT: u64 = 64 << 30;

/// The largest reservation, in bytes: a process has 2^47 bytes of addresses.
pub const RESERVE_MAX: u64 = 1 << 46;

/// What a growth step aims at, in bytes of data, unless told otherwise.
pub(crate) const EXTENT_DATA_AIM: u64 = 1 << 20;

/// Blocks a growth step adds at most unless told otherwise.
pub(crate) const BLOCKS_PER_EXTENT_DEFAULT: u64 = 1 << 12;

/// Free blocks a thread keeps for itself at most. So a full pool may refuse up to this many blocks
/// a thread of *other* processes early; those of the own process are collected first.
pub const MAGAZINE_MAX: usize = 64;

/// Free blocks a thread fetches, or gives back, at once.
pub(crate) const MAGAZINE_BATCH: usize = 32;
