//! Changing a typed block in a way that its tracker knows of.

use crate::{Result, Tracker};
use mainstay_pool::{Block, Record};
use std::ops::{Deref, DerefMut};

/// A copy of a block's value, which is written back and marked when this ends.
///
/// Others may write to the block meanwhile: the last to write back wins.
///
/// ```
/// # use mainstay_pool::{Kind, PoolOptions, Record};
/// # use mainstay_track::TrackerOptions;
/// # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
/// # #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
/// # #[repr(C)] struct Call { seconds: u64 }
/// # impl Record for Call { const NAME: &'static str = "example.call/1"; }
/// let pool = PoolOptions::new("calls", 64).create_memfd()?;
/// let call = pool.allocate_typed::<Call>(Kind::Recoverable)?;
/// let tracker = TrackerOptions::default().marks_only().track(&pool)?;
/// tracker.flush()?;
/// let mut edit = tracker.edit(&call)?;
/// edit.seconds = 7;
/// edit.commit();
/// assert_eq!(call.get().seconds, 7);
/// assert_eq!(tracker.flush()?.changes.len(), 1);
/// # Ok::<(), mainstay_track::Error>(())
/// ```
#[must_use = "it is written back when it ends"]
pub struct Edit<'t, T: Record> {
    tracker: &'t Tracker,
    block: &'t Block<T>,
    value: T,
    changed: bool,
}

impl<'t, T: Record> Edit<'t, T> {
    pub(crate) fn new(tracker: &'t Tracker, block: &'t Block<T>) -> Result<Self> {
        tracker.check_own(block)?;
        Ok(Self { tracker, block, value: block.get(), changed: false })
    }

    /// Writes the value back, as dropping it does.
    ///
    /// Example: see [`Edit`].
    pub fn commit(self) {}

    /// Ends it without writing.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions, Record};
    /// # use mainstay_track::Tracker;
    /// # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
    /// # #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
    /// # #[repr(C)] struct Call { seconds: u64 }
    /// # impl Record for Call { const NAME: &'static str = "example.call/1"; }
    /// # let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// # let call = pool.allocate_typed::<Call>(Kind::Recoverable)?;
    /// # let tracker = Tracker::new(&pool)?;
    /// let mut edit = tracker.edit(&call)?;
    /// edit.seconds = 7;
    /// edit.cancel();
    /// assert_eq!(call.get().seconds, 0);
    /// # Ok::<(), mainstay_track::Error>(())
    /// ```
    pub fn cancel(mut self) {
        self.changed = false;
    }
}

impl<T: Record> Deref for Edit<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Record> DerefMut for Edit<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.changed = true;
        &mut self.value
    }
}

impl<T: Record> Drop for Edit<'_, T> {
    fn drop(&mut self) {
        if self.changed {
            self.block.set(&self.value);
            // After the write: a flush that takes the mark sees the value (U1).
            self.tracker.mark(self.block.number());
        }
    }
}
