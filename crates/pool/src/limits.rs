//! The limits of a pool, all in one place. Each has a test at the limit and one past it.
//!
//! ```
//! use mainstay_pool::{PoolOptions, limits};
//! let options = PoolOptions::new("calls", 64);
//! assert!(options.clone().reserve(limits::RESERVE_MAX + 1).create_memfd().is_err());
//! assert!(options.clone().max_blocks(limits::BLOCKS_MAX + 1).create_memfd().is_err());
//! assert!(options.growth_step(limits::BLOCKS_PER_EXTENT_MAX + 1).create_memfd().is_err());
//! ```

/// The largest block, in bytes of data.
///
/// ```
/// use mainstay_pool::{PoolOptions, limits::BLOCK_SIZE_MAX};
/// assert!(PoolOptions::new("large", BLOCK_SIZE_MAX).create_memfd().is_ok());
/// assert!(PoolOptions::new("large", BLOCK_SIZE_MAX + 1).create_memfd().is_err());
/// ```
pub const BLOCK_SIZE_MAX: usize = 1 << 30;

/// The most blocks one pool can have.
///
/// Example: see the [module](self).
pub const BLOCKS_MAX: u64 = 1 << 32;

/// The most blocks one growth step adds.
///
/// Example: see the [module](self).
pub const BLOCKS_PER_EXTENT_MAX: u32 = 1 << 16;

/// Address space reserved for a pool unless told otherwise, in bytes.
///
/// ```
/// use mainstay_pool::{PoolOptions, limits::RESERVE_DEFAULT};
/// let pool = PoolOptions::new("calls", 64).create_memfd()?;
/// assert!(pool.info()?.reserved <= RESERVE_DEFAULT);
/// # Ok::<(), mainstay_pool::Error>(())
/// ```
pub const RESERVE_DEFAULT: u64 = 64 << 30;

/// The largest reservation, in bytes: a process has 2^47 bytes of addresses.
///
/// Example: see the [module](self).
pub const RESERVE_MAX: u64 = 1 << 46;

/// What a growth step aims at, in bytes of data, unless told otherwise.
pub(crate) const EXTENT_DATA_AIM: u64 = 1 << 20;

/// Blocks a growth step adds at most unless told otherwise.
pub(crate) const BLOCKS_PER_EXTENT_DEFAULT: u64 = 1 << 12;

/// Free blocks a thread keeps for itself at most. So a full pool may refuse up to this many blocks
/// a thread of *other* processes early; those of the own process are collected first.
///
/// ```
/// use mainstay_pool::{Kind, PoolOptions, limits::MAGAZINE_MAX};
/// let pool = PoolOptions::new("calls", 64).create_memfd()?;
/// let block = pool.allocate(Kind::Transient)?;
/// assert!(pool.info()?.counts.cached <= MAGAZINE_MAX as u64);
/// # Ok::<(), mainstay_pool::Error>(())
/// ```
pub const MAGAZINE_MAX: usize = 64;

/// Free blocks a thread fetches, or gives back, at once.
pub(crate) const MAGAZINE_BATCH: usize = 32;

/// How long a batch waits for a cut to end, unless told otherwise.
///
/// ```
/// use mainstay_pool::limits::BATCH_WAIT;
/// let pool = mainstay_pool::PoolOptions::new("calls", 64).create_memfd()?;
/// let batch = pool.batch_within(BATCH_WAIT)?; // as `pool.batch()` does
/// # drop(batch);
/// # Ok::<(), mainstay_pool::Error>(())
/// ```
pub const BATCH_WAIT: std::time::Duration = std::time::Duration::from_secs(10);
