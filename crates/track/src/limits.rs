//! The limits of tracking. Each has a test at the limit and one past it.
//!
//! ```
//! use mainstay_track::{Error, Tracker, limits};
//! use std::time::Duration;
//! let pool = mainstay_pool::PoolOptions::new("calls", 64).create_memfd()?;
//! let tracker = Tracker::new(&pool)?;
//! assert!(tracker.waiter(limits::LATENCY_MIN).is_ok());
//! let finer = limits::LATENCY_MIN - Duration::from_nanos(1);
//! assert!(matches!(tracker.waiter(finer), Err(Error::Limit { .. })));
//! # Ok::<(), Error>(())
//! ```

use std::time::Duration;

/// The shortest latency a waiter can promise.
///
/// Example: see the [module](self).
pub const LATENCY_MIN: Duration = Duration::from_micros(100);

/// The longest latency a waiter can be asked for.
///
/// ```
/// # use mainstay_track::{Tracker, limits::LATENCY_MAX};
/// # use std::time::Duration;
/// # let pool = mainstay_pool::PoolOptions::new("calls", 64).create_memfd()?;
/// # let tracker = Tracker::new(&pool)?;
/// assert!(tracker.waiter(LATENCY_MAX).is_ok());
/// assert!(tracker.waiter(LATENCY_MAX + Duration::from_nanos(1)).is_err());
/// # Ok::<(), mainstay_track::Error>(())
/// ```
pub const LATENCY_MAX: Duration = Duration::from_secs(3_600);

/// How many nodes a clock vector can name.
///
/// ```
/// use mainstay_base::hlc::{NodeId, Stamp, Version};
/// use mainstay_track::{ClockVector, limits::NODES_MAX};
/// let of = |node| Version { stamp: Stamp::from_bits(1), node: NodeId::new(node) };
/// let mut vector = ClockVector::default();
/// assert!((1..=NODES_MAX as u64).all(|node| vector.include(of(node)).is_ok()));
/// assert!(vector.include(of(NODES_MAX as u64 + 1)).is_err());
/// ```
pub const NODES_MAX: usize = 1_024;

/// How long a flush waits for open batches, unless told otherwise.
///
/// ```
/// # use mainstay_track::{TrackerOptions, limits::BATCH_WAIT};
/// let options = TrackerOptions::default().batch_wait(BATCH_WAIT); // as it is anyway
/// # let _ = options;
/// ```
pub const BATCH_WAIT: Duration = Duration::from_secs(10);

/// After how many flushes a write by a system call that coincided with growth is looked for at the
/// latest: both look the same from outside, and growth alone needs no comparison.
pub(crate) const DEBT_FLUSHES_MAX: u32 = 16;
