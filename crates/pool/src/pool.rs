//! The pool as its user sees it.

use crate::{
    Block, BlockId, Error, Kind, MonitorId, Offer, ReapReport, Record, Result,
    allocate::Life,
    checkpoint::PowerCut,
    hold::Wanted,
    inner::Inner,
    monitor::{self, Monitor},
    options::Joining,
    reap,
    recover::{Decision, Offered, Recovery, RecoveryReport},
    typed,
};
use mainstay_shm::{Access, Backing};
use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};
use uuid::Uuid;

/// Blocks of memory with an identity, shared with other processes.
///
/// A cheap handle: clone it, send it to threads. The pool stays mapped until the last handle and
/// the last guard are gone. A child made by fork must join anew: operations there are refused.
///
/// ```
/// use mainstay_pool::{Kind, PoolOptions};
/// let pool = PoolOptions::new("calls", 256).create_memfd()?;
/// let block = pool.allocate(Kind::Recoverable)?;
/// block.write(0, b"ringing")?;
/// let id = block.id();
/// drop(block); // parked: forgetting does not delete
///
/// let again = pool.attach(id)?;
/// let mut state = [0; 7];
/// again.read(0, &mut state)?;
/// assert_eq!(&state, b"ringing");
/// again.free()?;
/// assert!(pool.attach(id).is_err());
/// # Ok::<(), mainstay_pool::Error>(())
/// ```
#[derive(Clone)]
pub struct Pool {
    handle: Arc<Handle>,
}

/// The last of these ends the pool, or leaves that to the last guard.
struct Handle {
    inner: Arc<Inner>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.retire();
    }
}

impl Pool {
    /// Joins whatever pool is in the file, whatever its name and block size: for tools.
    ///
    /// ```
    /// use mainstay_pool::{Pool, PoolOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("calls.pool");
    /// let pool = PoolOptions::new("calls", 64).create(&path)?;
    /// let same = Pool::join_any(&path)?;
    /// assert_eq!((same.name(), same.block_size(), same.uuid()), ("calls", 64, pool.uuid()));
    /// assert_eq!(same.path(), Some(path.as_path()));
    /// assert_ne!(same.slot(), pool.slot());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`crate::PoolOptions::join`], but for the two mismatches.
    pub fn join_any(path: impl AsRef<Path>) -> Result<Self> {
        Joining::at(path.as_ref(), None, PowerCut::Restore)?.join(None, None)
    }

    /// Joins whatever pool is behind the descriptor.
    ///
    /// ```
    /// # use mainstay_pool::{Pool, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let fd = pool.as_fd().try_clone_to_owned()?;
    /// assert_eq!(Pool::join_any_fd(fd)?.uuid(), pool.uuid());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`crate::PoolOptions::join_fd`], but for the two mismatches.
    pub fn join_any_fd(fd: OwnedFd) -> Result<Self> {
        let joining = Joining::of(Backing::from_fd(fd, Access::ReadWrite)?)?;
        joining.of_this_boot(None)?.join(None, None)
    }

    pub(crate) fn started(inner: Arc<Inner>) -> Result<Self> {
        if let Err(e) = inner.move_in() {
            inner.move_out();
            return Err(e);
        }
        Ok(Self { handle: Arc::new(Handle { inner }) })
    }

    /// How many handles there are in this process besides this one.
    pub(crate) fn other_handles(&self) -> usize {
        Arc::strong_count(&self.handle) - 1
    }

    #[inline(always)]
    pub(crate) fn inner(&self) -> &Inner {
        &self.handle.inner
    }

    /// The pool's name.
    ///
    /// Example: see [`Pool::join_any`].
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner().name.as_str()
    }

    /// The pool's UUID, made at its creation.
    ///
    /// Example: see [`Pool::join_any`].
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.inner().uuid
    }

    /// Bytes of data in a block.
    ///
    /// Example: see [`Pool::join_any`].
    #[must_use]
    pub fn block_size(&self) -> usize {
        self.inner().extents.geometry.block_size as usize
    }

    /// Whether the block is of this pool, as opened by this handle or a clone of it.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions};
    /// let one = PoolOptions::new("calls", 64).create_memfd()?;
    /// let two = PoolOptions::new("orders", 64).create_memfd()?;
    /// let block = one.allocate(Kind::Transient)?;
    /// assert!(one.owns(&block) && !two.owns(&block));
    /// assert_eq!(block.pool_name(), "calls");
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    #[must_use]
    pub fn owns<T: ?Sized>(&self, block: &Block<T>) -> bool {
        block.inner().id == self.inner().id
    }

    /// Which of the 32 process slots this process has.
    ///
    /// Example: see [`Pool::join_any`].
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.inner().slot
    }

    /// The path it was opened by, if it was.
    ///
    /// Example: see [`Pool::join_any`].
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.inner().extents.backing.path()
    }

    /// The descriptor to pass on: it carries no lease.
    ///
    /// Example: see [`Pool::join_any_fd`].
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner().extents.backing.as_fd()
    }

    /// Allocates a block of zeros. It appears to other processes complete or not at all.
    ///
    /// Example: see [`Pool`].
    ///
    /// # Errors
    /// `Full` when no block is free and the pool cannot grow; `NoSpace` when the machine has no
    /// room for growth.
    #[inline(always)]
    pub fn allocate(&self, kind: Kind) -> Result<Block> {
        let acquired = self.inner().allocate(self.bytes_of(kind))?;
        Ok(Block::new(self.inner(), acquired))
    }

    #[inline(always)]
    fn bytes_of(&self, kind: Kind) -> Life {
        let length = self.block_size() as u32;
        Life { kind: Some(kind), exclusive: false, fingerprint: 0, length }
    }

    /// As [`Pool::allocate`], but never grows the pool nor looks for dead processes: at most a few
    /// microseconds; none when no block is at hand.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = match pool.try_allocate(Kind::Transient)? {
    ///     Some(block) => block,
    ///     None => pool.allocate(Kind::Transient)?, // may take longer
    /// };
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Pool::allocate`], but not `Full`.
    pub fn try_allocate(&self, kind: Kind) -> Result<Option<Block>> {
        let acquired = self.inner().try_allocate(self.bytes_of(kind))?;
        Ok(acquired.map(|acquired| Block::new(self.inner(), acquired)))
    }

    /// Allocates a block for a `T`, all zeros.
    ///
    /// Example: see [`Record`].
    ///
    /// # Errors
    /// `TypeDoesNotFit`, and as [`Pool::allocate`].
    pub fn allocate_typed<T: Record>(&self, kind: Kind) -> Result<Block<T>> {
        typed::check_fit::<T>(self.inner())?;
        let fingerprint = typed::fingerprint::<T>().bits();
        let length = size_of::<T>() as u32;
        let life = Life { kind: Some(kind), exclusive: false, fingerprint, length };
        let acquired = self.inner().allocate(life)?;
        Ok(Block::new(self.inner(), acquired))
    }

    /// Makes a block that nobody holds, recoverable, under a UUID of the caller's choice: a place
    /// for something that arrives later.
    ///
    /// ```
    /// # use mainstay_pool::{PoolOptions, Uuid};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let id = pool.reserve(Uuid::from_u128(7))?;
    /// assert_eq!(pool.attach_uuid(Uuid::from_u128(7))?.id(), id);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Pool::allocate`].
    pub fn reserve(&self, uuid: Uuid) -> Result<BlockId> {
        self.inner().reserve(uuid, self.block_size() as u32)
    }

    /// Attaches exactly the block that `id` names: number and tag are compared in the step that
    /// takes the reference, the whole generation while holding it.
    ///
    /// Example: see [`Pool`].
    ///
    /// # Errors
    /// `NoSuchBlock` when that block is gone (or a holder has asked to free it); `Exclusive` when
    /// it belongs to a [`crate::PoolBox`].
    #[inline(always)]
    pub fn attach(&self, id: BlockId) -> Result<Block> {
        let wanted = Wanted { generation: Some(id.generation), exclusive: false };
        Ok(Block::new(self.inner(), self.inner().attach(id.number, wanted)?))
    }

    /// Attaches whatever block has this number now.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// assert_eq!(pool.attach_number(block.number())?.id(), block.id());
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Pool::attach`].
    #[inline(always)]
    pub fn attach_number(&self, number: u32) -> Result<Block> {
        let wanted = Wanted { generation: None, exclusive: false };
        Ok(Block::new(self.inner(), self.inner().attach(number, wanted)?))
    }

    /// Attaches the block of this UUID. One that was given by [`Pool::allocate`] is found at once;
    /// one that was given by [`Pool::reserve`] or [`Pool::restore`] by looking at all blocks, which
    /// takes milliseconds in a large pool: an [`crate::Index`] finds that in nanoseconds too.
    ///
    /// Example: see [`Pool::reserve`].
    ///
    /// # Errors
    /// As [`Pool::attach`].
    pub fn attach_uuid(&self, uuid: Uuid) -> Result<Block> {
        self.inner().check()?;
        let found = self.inner().extents.find_uuid(uuid)?;
        match found.map(|number| self.attach_number(number)).transpose()? {
            // Compared while holding it, so it is not another by now.
            Some(block) if block.uuid() == uuid => Ok(block),
            _ => Err(Error::NoSuchBlock {
                pool: self.inner().display(),
                id: uuid.to_string(),
                why: "no live block has this UUID",
            }),
        }
    }

    /// Attaches a block as a `T`.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions, Record};
    /// # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
    /// # #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Debug)]
    /// # #[repr(C)] struct Call { seconds: u64 }
    /// # impl Record for Call { const NAME: &'static str = "example.call/1"; }
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let id = pool.allocate_typed::<Call>(Kind::Recoverable)?.id();
    /// assert_eq!(pool.attach_typed::<Call>(id)?.get(), Call { seconds: 0 });
    /// let call: mainstay_pool::Block<Call> = pool.attach(id)?.typed()?; // the same
    /// assert_eq!(call.into_bytes().used_len(), 8);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `WrongType` when it holds another, and as [`Pool::attach`].
    pub fn attach_typed<T: Record>(&self, id: BlockId) -> Result<Block<T>> {
        self.attach(id)?.typed()
    }

    /// Takes back what dead processes held, then offers the blocks that nobody holds: only what
    /// died, or everything unheld. Any process may do it at any time, beside others.
    ///
    /// ```
    /// use mainstay_pool::{Kind, Offer, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// drop(pool.allocate(Kind::Recoverable)?);
    /// for offered in pool.recover(Offer::Unheld)? {
    ///     let block = offered.keep()?;
    ///     block.free()?;
    /// }
    /// assert_eq!(pool.recover(Offer::Unheld)?.count(), 0);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the system refuses.
    pub fn recover(&self, offer: Offer) -> Result<Recovery<'_>> {
        self.inner().check()?;
        let reaped = reap::reap(self.inner())?;
        // Others may have added extents that this process has not looked at yet.
        self.inner().extents.refresh()?;
        Ok(Recovery::new(self, offer, reaped))
    }

    /// As [`Pool::recover`], with a callback that decides. Whatever it does meanwhile (attach,
    /// free, allocate) cannot harm the pool.
    ///
    /// ```
    /// # use mainstay_pool::{Decision, Kind, Offer, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// drop(pool.allocate(Kind::Recoverable)?);
    /// let report = pool.recover_with(Offer::Unheld, |offered| {
    ///     if offered.is_orphan() { Decision::Keep } else { Decision::Free }
    /// })?;
    /// assert_eq!((report.offered, report.freed), (1, 1));
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the system refuses.
    pub fn recover_with(
        &self,
        offer: Offer,
        mut decide: impl FnMut(&Offered<'_>) -> Decision,
    ) -> Result<RecoveryReport> {
        let recovery = self.recover(offer)?;
        let mut report = RecoveryReport { reaped: recovery.reaped(), ..Default::default() };
        for offered in recovery {
            report.offered += 1;
            let decision = decide(&offered);
            report.carry_out(offered, decision)?;
        }
        Ok(report)
    }

    /// Takes back what dead processes held, and offers nothing.
    ///
    /// ```
    /// # use mainstay_pool::PoolOptions;
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let report = pool.reap()?;
    /// assert_eq!((report.slots, report.orphaned), (0, 0), "nobody died");
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the system refuses.
    pub fn reap(&self) -> Result<ReapReport> {
        self.inner().check()?;
        reap::reap(self.inner())
    }

    /// Adds a monitor at the end of the chain; it is told `PoolCreate` first.
    ///
    /// Example: see [`Monitor`].
    ///
    /// # Errors
    /// `InsideMonitor` when called by one.
    pub fn add_monitor(&self, monitor: Arc<dyn Monitor>) -> Result<MonitorId> {
        self.inner().check()?;
        Ok(monitor::add(self.inner(), monitor))
    }

    /// Takes a monitor out of the chain. A call that runs in another thread may still end after.
    ///
    /// Example: see [`Monitor`].
    ///
    /// # Errors
    /// `NoSuchMonitor`, `InsideMonitor`.
    pub fn remove_monitor(&self, id: MonitorId) -> Result<()> {
        self.inner().check()?;
        if self.inner().monitors.remove(id) {
            return Ok(());
        }
        Err(Error::NoSuchMonitor { pool: self.inner().display(), id: id.0 })
    }

    /// Gives the free blocks that this process's threads keep at hand back to everybody. Done by
    /// itself when a pool is full, a thread ends or the pool is closed.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// drop(pool.allocate(Kind::Transient)?);
    /// assert_ne!(pool.info()?.counts.cached, 0);
    /// pool.flush();
    /// assert_eq!(pool.info()?.counts.cached, 0);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    pub fn flush(&self) {
        if !self.inner().is_forked() {
            self.inner().collect_idle();
        }
    }

    /// Closes the pool in this process: what is held ends being held, the slot is free at once.
    /// Dropping the last handle does the same but tells nobody.
    ///
    /// ```
    /// # use mainstay_pool::{Error, Kind, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// assert!(matches!(pool.clone().close(), Err(Error::StillShared { .. })));
    /// drop(block);
    /// pool.close()?;
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `StillShared` when there are other handles (nothing is closed); `StillHeld` when guards
    /// exist (the pool ends when the last is dropped).
    pub fn close(self) -> Result<()> {
        let pool = self.inner().display();
        let handles = self.other_handles();
        if handles > 0 {
            return Err(Error::StillShared { pool, handles });
        }
        let guards = if self.inner().is_forked() { 0 } else { self.inner().guards() };
        drop(self);
        if guards > 0 {
            return Err(Error::StillHeld { pool, guards });
        }
        Ok(())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name())
            .field("slot", &self.slot())
            .field("blocks", &self.inner().extents.blocks())
            .finish_non_exhaustive()
    }
}
