//! What can go wrong with tracking.

use mainstay_base::hlc::ClockAhead;

/// The result of everything in this crate.
///
/// Example: see [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Each variant says what was wrong, where, and what to do. No error loses a change (T4).
///
/// ```
/// use mainstay_track::{Error, Tracker};
/// let pool = mainstay_pool::PoolOptions::new("calls", 64).create_memfd()?;
/// let tracker = Tracker::new(&pool)?;
/// let batch = pool.batch()?;
/// let refused = tracker.flush();
/// assert!(matches!(refused, Err(Error::Pool(mainstay_pool::Error::InsideBatch { .. }))));
/// # drop(batch);
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pool refuses: see the inner error.
    #[error(transparent)]
    Pool(#[from] mainstay_pool::Error),
    /// Memory, files or the kernel's watch: see the inner error.
    #[error(transparent)]
    Shm(#[from] mainstay_shm::Error),
    /// A remote clock runs too far ahead.
    #[error(transparent)]
    Clock(#[from] ClockAhead),
    /// The pool has a tracker in this process already: two would take the bits from one another.
    #[error("pool {pool:?}: has a tracker in this process already; use that, or drop it first")]
    AlreadyTracked {
        /// The pool's name.
        pool: String,
    },
    /// A number is outside of its limits.
    #[error("the {what} is {value}, and must be {min} to {max}: choose another")]
    Limit {
        /// Which number, and its unit.
        what: &'static str,
        /// What was asked for.
        value: u64,
        /// The smallest possible.
        min: u64,
        /// The largest possible.
        max: u64,
    },
    /// A block of another pool.
    #[error("block {number} is of pool {found:?}, and this tracker is of {wanted:?}; use its own")]
    OtherPool {
        /// Which block.
        number: u32,
        /// Its pool.
        found: String,
        /// The tracker's pool.
        wanted: String,
    },
    /// The system refuses what a waiter or worker needs.
    #[error("cannot {action}: {source}; raise the limit on threads or open files")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}
