//! Getting back, after a crash, what the dead held.
//!
//! V1. A block is offered to whoever asks, and kept by the one whose compare-and-swap wins: two
//!     recoverers get disjoint sets.
//! V2. An offer is a look, not a hold: whatever happens between (the callback frees it, another
//!     process takes it) makes `keep` fail, and harms nothing.

use crate::{
    Block, BlockId, Error, Pool, PoolBox, ReapReport, Record, Result,
    inner::{Acquired, Inner},
    monitor::EventKind,
    word::{State, Word},
};
use mainstay_shm::Atomic64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use uuid::Uuid;

/// Which blocks are offered.
///
/// Example: see [`Pool::recover`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// Those whose last holder died.
    Orphans,
    /// Those, and the parked ones: every recoverable block that nobody holds.
    Unheld,
}

/// What to do with an offered block.
///
/// Example: see [`Pool::recover_with`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Hold it: it is among `kept` of the report. A [`PoolBox`] is left as it is: keep it by
    /// [`Offered::keep_box`].
    Keep,
    /// Delete it.
    Free,
    /// Keep it for later, as parked by choice.
    Park,
    /// Leave it as it is: an orphan will be offered again.
    Leave,
}

/// The blocks on offer, one after the other.
///
/// Example: see [`Pool::recover`].
#[derive(Debug)]
pub struct Recovery<'p> {
    pool: &'p Pool,
    offer: Offer,
    reaped: ReapReport,
    extent: u64,
    place: usize,
}

/// One block on offer.
///
/// ```
/// # use mainstay_pool::{Kind, Offer, PoolOptions};
/// # let pool = PoolOptions::new("calls", 64).create_memfd()?;
/// let id = pool.allocate(Kind::Recoverable)?.id(); // parked at once
/// let offered = pool.recover(Offer::Unheld)?.next().expect("one is parked");
/// assert_eq!((offered.id(), offered.number()), (id, id.number));
/// assert!(!offered.is_orphan() && !offered.is_box());
/// assert_eq!(offered.to_vec(), [0; 64]);
/// offered.free()?; // or `keep`, or `park`
/// # Ok::<(), mainstay_pool::Error>(())
/// ```
#[derive(Debug)]
pub struct Offered<'p> {
    // Borrowed: a counted handle for each of a million offers would double their cost.
    pool: &'p Pool,
    number: u32,
    seen: Word,
}

/// What [`Pool::recover_with`] has done.
///
/// Example: see [`Pool::recover_with`].
#[derive(Default, Debug)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// What was taken back from the dead first.
    pub reaped: ReapReport,
    /// How many blocks were offered.
    pub offered: u64,
    /// The blocks decided to keep.
    pub kept: Vec<Block>,
    /// How many were freed.
    pub freed: u64,
    /// How many were parked or left.
    pub left: u64,
    /// How many somebody else took, or freed, between offer and decision.
    pub gone: u64,
}

impl<'p> Recovery<'p> {
    pub(crate) fn new(pool: &'p Pool, offer: Offer, reaped: ReapReport) -> Self {
        Self { pool, offer, reaped, extent: 0, place: 0 }
    }

    /// What was taken back from the dead before the first offer.
    ///
    /// ```
    /// # use mainstay_pool::{Offer, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// assert_eq!(pool.recover(Offer::Orphans)?.reaped().slots, 0, "nobody died");
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    #[must_use]
    pub fn reaped(&self) -> ReapReport {
        self.reaped
    }
}

impl<'p> Iterator for Recovery<'p> {
    type Item = Offered<'p>;

    #[inline]
    fn next(&mut self) -> Option<Offered<'p>> {
        let inner = self.pool.inner();
        let extents = &inner.extents;
        if inner.is_forked() {
            return None;
        }
        while self.extent < extents.known() {
            let words = extents.words(self.extent);
            while let Some(word) = words.get(self.place) {
                let number = (self.extent << extents.geometry.shift) as u32 + self.place as u32;
                self.place += 1;
                let seen = Word(word.load(Acquire));
                let offered = match seen.state() {
                    State::Orphan => true,
                    State::Parked => self.offer == Offer::Unheld,
                    _ => false,
                };
                if offered {
                    return Some(Offered { pool: self.pool, number, seen });
                }
            }
            (self.extent, self.place) = (self.extent + 1, 0);
        }
        None
    }
}

impl Offered<'_> {
    /// Which block it is.
    ///
    /// Example: see [`Offered`].
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Names it for ever.
    ///
    /// Example: see [`Offered`].
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.pool.inner().id_of(self.number)
    }

    /// Its UUID.
    ///
    /// Example: see [`Offered::keep`].
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.pool.inner().uuid_of(self.number)
    }

    /// Whether its last holder died, rather than parked it.
    ///
    /// Example: see [`Offered`].
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        self.seen.is_orphan()
    }

    /// Whether it belongs to a [`PoolBox`].
    ///
    /// Example: see [`Offered`].
    #[must_use]
    pub fn is_box(&self) -> bool {
        self.seen.is_exclusive()
    }

    /// A copy of its data. Nobody holds it, so it is whole unless somebody takes it meanwhile.
    ///
    /// Example: see [`Offered`].
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let extents = &self.pool.inner().extents;
        let mut bytes = vec![0; extents.geometry.block_size as usize];
        extents.copy_data(self.number, &mut bytes);
        bytes
    }

    /// Holds it, as bytes.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, Offer, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// drop(pool.allocate(Kind::Recoverable)?);
    /// for offered in pool.recover(Offer::Unheld)? {
    ///     let uuid = offered.uuid();
    ///     assert_eq!(offered.keep()?.uuid(), uuid);
    /// }
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NoSuchBlock` when somebody was faster; `Exclusive` when it is a box; `Forked`.
    #[inline]
    pub fn keep(self) -> Result<Block> {
        if self.is_box() {
            let why = "is exclusive: keep it as a PoolBox of its type";
            let pool = self.pool.inner().display();
            return Err(Error::Exclusive { pool, number: self.number, why });
        }
        self.take()
    }

    /// Holds it, as a box.
    ///
    /// ```
    /// # use mainstay_pool::{Offer, PoolBox, PoolOptions, Record};
    /// # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
    /// # #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Debug)]
    /// # #[repr(C)] struct Call { seconds: u64 }
    /// # impl Record for Call { const NAME: &'static str = "example.call/1"; }
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// drop(PoolBox::new(&pool, &Call { seconds: 7 })?);
    /// for offered in pool.recover(Offer::Unheld)?.filter(|offered| offered.is_box()) {
    ///     assert_eq!(offered.keep_box::<Call>()?.seconds, 7);
    /// }
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `WrongType`, `Exclusive` when it is no box; otherwise as [`Offered::keep`].
    pub fn keep_box<T: Record>(self) -> Result<PoolBox<T>> {
        if !self.is_box() {
            let why = "is shared: keep it as a Block";
            let pool = self.pool.inner().display();
            return Err(Error::Exclusive { pool, number: self.number, why });
        }
        PoolBox::from_block(self.take()?.cast())
    }

    /// Deletes it.
    ///
    /// Example: see [`Offered`].
    ///
    /// # Errors
    /// As [`Offered::keep`].
    pub fn free(self) -> Result<()> {
        self.take()?.free()
    }

    /// Keeps it for later, no longer as an orphan.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, Offer, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// drop(pool.allocate(Kind::Recoverable)?);
    /// for offered in pool.recover(Offer::Unheld)? {
    ///     offered.park()?;
    /// }
    /// assert_eq!(pool.info()?.counts.parked, 1);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Offered::keep`].
    pub fn park(self) -> Result<()> {
        self.take()?.park()
    }

    #[inline(always)]
    fn take(self) -> Result<Block> {
        let inner = self.pool.inner();
        inner.check_monitor()?;
        // Counted first: that also refuses a child made by fork.
        inner.guard_taken()?;
        let next = self.seen.attached(inner.slot);
        let word = inner.extents.word(self.number);
        // Nobody held it when it was seen, so an equal word means that nobody has since.
        if word.compare_exchange(self.seen.0, next.0, AcqRel, Relaxed).is_err() {
            inner.guard_dropped(None);
            return Err(gone(inner, self.number));
        }
        inner.emit(EventKind::BlockRecover, self.number);
        Ok(Block::new(inner, Acquired { number: self.number, word: next }))
    }
}

#[cold]
fn gone(inner: &Inner, number: u32) -> Error {
    let why = "somebody took or freed it after it was offered";
    Error::NoSuchBlock { pool: inner.display(), id: number.to_string(), why }
}

impl RecoveryReport {
    pub(crate) fn carry_out(&mut self, offered: Offered<'_>, decision: Decision) -> Result<()> {
        let done = match decision {
            Decision::Keep => offered.keep().map(|block| self.kept.push(block)),
            Decision::Free => offered.free().map(|()| self.freed += 1),
            Decision::Park => offered.park().map(|()| self.left += 1),
            Decision::Leave => {
                self.left += 1;
                Ok(())
            }
        };
        match done {
            Err(Error::NoSuchBlock { .. }) => {
                self.gone += 1;
                Ok(())
            }
            // A box is kept by its type only: it stays as it was.
            Err(Error::Exclusive { .. }) => {
                self.left += 1;
                Ok(())
            }
            done => done,
        }
    }
}
