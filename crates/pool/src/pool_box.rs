//! A typed block with one holder at a time: the only one that gives plain references.

use crate::{Block, BlockId, Kind, Pool, Record, Result, allocate::Life, hold::Wanted, typed};
use mainstay_shm::hook;
use std::{
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};
use uuid::Uuid;

/// A value in a pool that belongs to one holder at a time, in all processes: so it can be used as
/// any other value, through plain references.
///
/// Nobody else can attach it while it is held, as a box or as a block. Dropping it parks it; so
/// does the death of the process, except that it then counts as an orphan. What stood in it at
/// that moment may be half of an update: the one who recovers it decides (as with any memory).
///
/// ```
/// use mainstay_pool::{PoolBox, PoolOptions, Record};
/// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Default)]
/// #[repr(C)]
/// struct Total { calls: u64 }
/// impl Record for Total { const NAME: &'static str = "example.total/1"; }
///
/// let pool = PoolOptions::new("totals", 64).create_memfd()?;
/// let mut total = PoolBox::new(&pool, &Total::default())?;
/// total.calls += 1;
/// let id = total.id();
/// assert!(PoolBox::<Total>::attach(&pool, id).is_err(), "it has a holder");
/// drop(total);
/// assert_eq!(PoolBox::<Total>::attach(&pool, id)?.calls, 1);
/// # Ok::<(), mainstay_pool::Error>(())
/// ```
pub struct PoolBox<T: Record> {
    block: Block<T>,
    // It gives references to a `T`: so it goes to other threads only if those may.
    of: PhantomData<T>,
}

impl<T: Record> PoolBox<T> {
    /// Puts `value` into a new block.
    ///
    /// Example: see [`PoolBox`].
    ///
    /// # Errors
    /// `TypeDoesNotFit`, and as [`Pool::allocate`].
    pub fn new(pool: &Pool, value: &T) -> Result<Self> {
        let inner = pool.inner();
        typed::check_fit::<T>(inner)?;
        let fingerprint = typed::fingerprint::<T>().bits();
        let (kind, length) = (Some(Kind::Recoverable), size_of::<T>() as u32);
        let acquired = inner.allocate(Life { kind, exclusive: true, fingerprint, length })?;
        let block = Block::<T>::new(inner, acquired);
        block.set(value);
        Ok(Self { block, of: PhantomData })
    }

    /// Takes hold of a parked or orphaned box.
    ///
    /// Example: see [`PoolBox`].
    ///
    /// # Errors
    /// `Exclusive` when somebody holds it or it is no box; `WrongType`; `NoSuchBlock`.
    pub fn attach(pool: &Pool, id: BlockId) -> Result<Self> {
        let wanted = Wanted { generation: Some(id.generation), exclusive: true };
        let acquired = pool.inner().attach(id.number, wanted)?;
        Self::from_block(Block::new(pool.inner(), acquired))
    }

    /// `block` is an exclusive one, and the only guard of it.
    pub(crate) fn from_block(block: Block<T>) -> Result<Self> {
        typed::check_type::<T>(block.inner(), block.number())?;
        Ok(Self { block, of: PhantomData })
    }

    /// Names this block for ever.
    ///
    /// Example: see [`PoolBox`].
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.block.id()
    }

    /// The block's UUID, given at allocation.
    ///
    /// ```
    /// # use mainstay_pool::{PoolBox, PoolOptions, Record};
    /// # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
    /// # #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Debug)]
    /// # #[repr(C)] struct Call { seconds: u64 }
    /// # impl Record for Call { const NAME: &'static str = "example.call/1"; }
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let call = PoolBox::new(&pool, &Call { seconds: 7 })?;
    /// assert_eq!(pool.block_info(call.id().number)?.uuid, call.uuid());
    /// call.free()?;
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.block.uuid()
    }

    /// Frees the block; returns what stood in it.
    ///
    /// ```
    /// # use mainstay_pool::{PoolBox, PoolOptions, Record};
    /// # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
    /// # #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Debug)]
    /// # #[repr(C)] struct Call { seconds: u64 }
    /// # impl Record for Call { const NAME: &'static str = "example.call/1"; }
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let mut call = PoolBox::new(&pool, &Call { seconds: 7 })?;
    /// call.seconds += 1;
    /// assert_eq!(call.into_inner()?, Call { seconds: 8 });
    /// assert_eq!(pool.info()?.counts.held, 0);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`, `InsideMonitor`: then the block is parked.
    pub fn into_inner(self) -> Result<T> {
        self.block.inner().check_fork()?;
        let value = self.block.get();
        self.block.free()?;
        Ok(value)
    }

    /// Frees the block.
    ///
    /// Example: see [`PoolBox::uuid`].
    ///
    /// # Errors
    /// `Forked`, `InsideMonitor`: then the block is parked.
    pub fn free(self) -> Result<()> {
        self.block.free()
    }
}

impl<T: Record> Deref for PoolBox<T> {
    type Target = T;

    /// # Panics
    /// In a child made by fork, where the block is not mapped.
    fn deref(&self) -> &T {
        assert!(!self.block.inner().is_forked(), "a child made by fork has no block of its parent");
        // SAFETY: the block is mapped, aligned to 64 and large enough (checked); any bytes are a
        // `T`. No other guard of it exists in any process that uses this library (inner.rs:
        // attach refuses), so nobody writes while the reference lives but through `self`.
        unsafe { &*self.block.as_ptr().cast() }
    }
}

impl<T: Record> DerefMut for PoolBox<T> {
    /// # Panics
    /// In a child made by fork, where the block is not mapped.
    fn deref_mut(&mut self) -> &mut T {
        assert!(!self.block.inner().is_forked(), "a child made by fork has no block of its parent");
        hook::step();
        // SAFETY: as in `deref`; `self` is borrowed mutably, so this is the only reference.
        unsafe { &mut *self.block.as_ptr().cast() }
    }
}

impl<T: Record + fmt::Debug> fmt::Debug for PoolBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PoolBox").field(&**self).finish()
    }
}
