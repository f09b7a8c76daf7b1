//! Letting a tracker of another process see what this one writes.

use crate::{Error, Result};
use mainstay_pool::Pool;
use mainstay_shm::Watch;
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// Mappings of this process that are watched, by address.
static WATCHED: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// One mapping is watched once in a process.
#[derive(Debug)]
pub(crate) struct Registration {
    base: usize,
}

impl Registration {
    pub(crate) fn new(pool: &Pool) -> Result<Self> {
        let base = pool.ground()?.mapping().base().addr().get();
        if WATCHED.lock().unwrap_or_else(PoisonError::into_inner).insert(base) {
            return Ok(Self { base });
        }
        Err(Error::AlreadyTracked { pool: pool.name().to_owned() })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        WATCHED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.base);
    }
}

/// As long as it lives, a tracker in another process of the same user finds this process's writes
/// by its page map, and need not compare everything.
///
/// ```
/// use mainstay_pool::{Kind, Pool, PoolOptions};
/// use mainstay_track::{Tracker, Watched};
/// let pool = PoolOptions::new("calls", 64).create_memfd()?;
/// let tracker = Tracker::new(&pool)?;
/// // As in another process:
/// let same = Pool::join_any_fd(pool.as_fd().try_clone_to_owned()?)?;
/// let watched = Watched::new(&same);
/// let call = same.allocate(Kind::Recoverable)?;
/// tracker.flush()?;
/// call.write(0, b"ringing")?;
/// let flush = tracker.flush()?;
/// assert_eq!(flush.changes[0].id, call.id());
/// # drop(watched);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "the watch ends when it is dropped"]
pub struct Watched {
    pool: Pool,
    _watch: Watch,
    _registration: Registration,
}

impl Watched {
    /// Has the kernel watch this process's mapping of the pool, and says so in the pool.
    ///
    /// Example: see [`Watched`].
    ///
    /// # Errors
    /// `AlreadyTracked`; `Shm` where the kernel refuses: trackers then compare.
    pub fn new(pool: &Pool) -> Result<Self> {
        let registration = Registration::new(pool)?;
        let ground = pool.ground()?;
        let watch = Watch::new(ground.mapping())?;
        ground.offer_watch(None)?;
        Ok(Self { pool: pool.clone(), _watch: watch, _registration: registration })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // In a child made by fork the offer is the parent's.
        if let Ok(ground) = self.pool.ground() {
            // At worst a tracker finds the watch gone, and compares.
            let _ = ground.withdraw_watch();
        }
    }
}
