//! The guard of a block: who has one, holds the block.

use crate::{
    BlockId, Error, Kind, Record, Result,
    hold::InChild,
    inner::{Acquired, Inner},
    monitor::EventKind,
    typed,
    word::{Ask, Left, Word},
};
use mainstay_shm::copy;
use std::{
    fmt,
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};
use uuid::Uuid;

/// Holds one block: as bytes, or as a `T`.
///
/// Its address stays the same as long as the guard lives. Dropping it *parks* a recoverable block
/// (it is kept, and found again by id, number, UUID or recovery) and frees a transient one if it
/// was the last guard of it anywhere.
///
/// Other processes may hold the same block and write to it at any time. So there is no plain
/// reference to its data: reads and writes copy, atomics share, and a [`crate::PoolBox`] is the
/// only holder.
///
/// ```
/// # use mainstay_pool::{Kind, PoolOptions};
/// let pool = PoolOptions::new("calls", 64).create_memfd()?;
/// let block = pool.allocate(Kind::Recoverable)?;
/// block.write(0, b"ringing")?;
/// block.set_used_len(7)?;
/// assert_eq!(block.to_vec()?, b"ringing");
/// assert_eq!((block.len(), block.used_len(), block.kind()), (64, 7, Kind::Recoverable));
/// # Ok::<(), mainstay_pool::Error>(())
/// ```
pub struct Block<T: ?Sized = [u8]> {
    inner: NonNull<Inner>,
    /// The number below; above it what is remembered of the owner word, to guess it at release.
    /// One field, so that a guard travels in two registers.
    packed: u64,
    of: PhantomData<fn() -> Box<T>>,
}
const _: () = assert!(size_of::<Block>() == 16 && size_of::<Option<Block>>() == 16);

// SAFETY: everything a guard does goes through `Inner`, which is Sync; it has no thread of its own.
unsafe impl<T: ?Sized> Send for Block<T> {}
// SAFETY: as above; data is only reached by copies, atomics and raw pointers.
unsafe impl<T: ?Sized> Sync for Block<T> {}

impl<T: ?Sized> Block<T> {
    #[inline(always)]
    pub(crate) fn new(inner: &Inner, acquired: Acquired) -> Self {
        Self {
            inner: NonNull::from(inner),
            packed: u64::from(acquired.word.remember()) << 32 | u64::from(acquired.number),
            of: PhantomData,
        }
    }

    #[inline(always)]
    pub(crate) fn inner(&self) -> &Inner {
        // SAFETY: a pool counts its guards and stays until the last is dropped (magazine.rs, M3).
        unsafe { self.inner.as_ref() }
    }

    /// Which block it is.
    ///
    /// Example: see [`Block::id`].
    #[inline(always)]
    #[must_use]
    pub fn number(&self) -> u32 {
        self.packed as u32
    }

    /// The name of its pool.
    ///
    /// Example: see [`crate::Pool::owns`].
    #[must_use]
    pub fn pool_name(&self) -> &str {
        self.inner().name.as_str()
    }

    #[inline(always)]
    fn guess(&self, slot: u32) -> Word {
        Word::guess((self.packed >> 32) as u32, slot)
    }

    /// Names this block for ever: store it, send it, attach by it.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// assert_eq!(block.number(), block.id().number);
    /// assert_eq!(pool.attach(block.id())?.uuid(), block.uuid());
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Panics
    /// In a child made by fork, where the block is not mapped.
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.assert_mapped();
        self.inner().id_of(self.number())
    }

    /// The block's UUID, given at allocation.
    ///
    /// Example: see [`Block::id`].
    ///
    /// # Panics
    /// In a child made by fork, where the block is not mapped.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.assert_mapped();
        self.inner().uuid_of(self.number())
    }

    /// What becomes of the block when its last holder is gone.
    ///
    /// Example: see [`Block`].
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.guess(0).kind().expect("a guard is of a live block")
    }

    /// The first byte of the data, aligned to 64. Valid as long as the guard lives; other
    /// processes may write there at any time.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Transient)?;
    /// // SAFETY: the first byte of a block of zeros; nobody else has the block.
    /// assert_eq!(unsafe { block.as_ptr().read_volatile() }, 0);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.inner().extents.data(self.number())
    }

    /// One more guard of the same block.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Transient)?;
    /// let second = block.try_clone()?;
    /// drop(block);
    /// second.write(0, b"still held")?;
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Corrupt` when somebody has written garbage into the owner word; `Forked`.
    pub fn try_clone(&self) -> Result<Self> {
        let word = self.inner().clone_guard(self.number())?;
        Ok(Self::new(self.inner(), Acquired { number: self.number(), word }))
    }

    /// Asks for the block to be freed: at once if this is its last guard anywhere, otherwise when
    /// the last holder leaves, whatever that one asks. Nobody can attach it any more.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// let id = block.id();
    /// block.free()?;
    /// assert!(pool.attach(id).is_err());
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`, `InsideMonitor`: then the guard is dropped as if nothing was asked.
    #[inline(always)]
    pub fn free(self) -> Result<()> {
        self.inner().check_monitor()?;
        ManuallyDrop::new(self).leave_or_refuse(Ask::Free)
    }

    /// Gives up the guard and keeps the block, if it is recoverable: as dropping it does.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// let id = block.id();
    /// block.park()?;
    /// assert!(pool.attach(id).is_ok());
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`, `InsideMonitor`: then the guard is dropped.
    #[inline(always)]
    pub fn park(self) -> Result<()> {
        self.inner().check_monitor()?;
        ManuallyDrop::new(self).leave_or_refuse(Ask::Park)
    }

    #[inline(always)]
    fn leave_or_refuse(&self, ask: Ask) -> Result<()> {
        match self.leave(ask) {
            // The pool may have ended with this guard: it must not be looked at again.
            Ok(_) => Ok(()),
            Err(InChild) => self.inner().check_fork(),
        }
    }

    #[inline(always)]
    fn leave(&self, ask: Ask) -> Result<Option<Left>, InChild> {
        let inner = self.inner();
        inner.release(self.number(), self.guess(inner.slot), ask)
    }

    fn assert_mapped(&self) {
        assert!(!self.inner().is_forked(), "a child made by fork has no block of its parent");
    }

    /// The same guard for another type of data.
    pub(crate) fn cast<U: ?Sized>(self) -> Block<U> {
        let this = ManuallyDrop::new(self);
        Block { inner: this.inner, packed: this.packed, of: PhantomData }
    }
}

impl Block<[u8]> {
    /// Bytes of data in the block.
    ///
    /// Example: see [`Block`].
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a block has at least one byte")]
    pub fn len(&self) -> usize {
        self.inner().extents.geometry.block_size as usize
    }

    /// How many of the bytes are in use, as the last holder said: never more than `len`.
    ///
    /// Example: see [`Block`].
    #[must_use]
    pub fn used_len(&self) -> usize {
        self.assert_mapped();
        let length = self.inner().extents.cold(self.number()).length.load(Relaxed);
        (length as usize).min(self.len())
    }

    /// Notes how many of the bytes are in use.
    ///
    /// Example: see [`Block`].
    ///
    /// # Errors
    /// `OutOfBlock` when there are not that many.
    pub fn set_used_len(&self, used: usize) -> Result<()> {
        self.check(0, used)?;
        self.inner().extents.cold(self.number()).length.store(used as u32, Relaxed);
        self.inner().emit(EventKind::BlockResize, self.number());
        Ok(())
    }

    /// Copies data out, from byte `offset` on. If somebody writes at the same time, it is a mix.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// block.write(10, b"ringing")?;
    /// let mut state = [0; 7];
    /// block.read(10, &mut state)?;
    /// assert_eq!(&state, b"ringing");
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `OutOfBlock`, `Forked`.
    #[inline]
    pub fn read(&self, offset: usize, target: &mut [u8]) -> Result<()> {
        self.check(offset, target.len())?;
        // SAFETY: the range was checked to be inside of the block, which is mapped.
        unsafe { copy::load(self.as_ptr().add(offset), target.as_mut_ptr(), target.len()) };
        Ok(())
    }

    /// Copies data in, from byte `offset` on.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// block.write(57, b"ringing")?;
    /// assert!(block.write(58, b"ringing").is_err(), "one byte too far");
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `OutOfBlock`, `Forked`.
    #[inline]
    pub fn write(&self, offset: usize, source: &[u8]) -> Result<()> {
        self.check(offset, source.len())?;
        mainstay_shm::hook::step();
        // SAFETY: the range was checked to be inside of the block, which is mapped for writing.
        unsafe { copy::store(source.as_ptr(), self.as_ptr().add(offset), source.len()) };
        Ok(())
    }

    /// A copy of the bytes in use.
    ///
    /// Example: see [`Block`].
    ///
    /// # Errors
    /// `Forked`.
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        self.check(0, 0)?;
        let mut bytes = vec![0; self.used_len()];
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }

    /// The data as atomics, to share with other holders without copying.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions};
    /// # use std::sync::atomic::Ordering::Relaxed;
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// block.as_atomics()[0].store(7, Relaxed);
    /// assert_eq!(block.to_vec()?[0], 7);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Panics
    /// In a child made by fork, where the block is not mapped.
    #[must_use]
    pub fn as_atomics(&self) -> &[AtomicU8] {
        self.assert_mapped();
        // SAFETY: the bytes are mapped as long as the guard lives, any value is one, and atomics
        // may be changed by anybody.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), self.len()) }
    }

    /// The same block as a `T`.
    ///
    /// Example: see [`crate::Pool::attach_typed`].
    ///
    /// # Errors
    /// `WrongType` when it was not allocated as one; the block is then parked (or freed, if
    /// transient and unheld by others).
    pub fn typed<T: Record>(self) -> Result<Block<T>> {
        typed::check_type::<T>(self.inner(), self.number())?;
        Ok(self.cast())
    }

    #[inline(always)]
    fn check(&self, offset: usize, len: usize) -> Result<()> {
        let block_size = self.len();
        if offset.checked_add(len).is_none_or(|end| end > block_size) {
            return Err(Error::OutOfBlock { offset, len, block_size });
        }
        self.inner().check_fork()
    }
}

impl<T: ?Sized> Drop for Block<T> {
    #[inline(always)]
    fn drop(&mut self) {
        let _ = self.leave(Ask::Park);
    }
}

impl<T: ?Sized> fmt::Debug for Block<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pool = self.inner().name.as_str();
        f.debug_struct("Block").field("pool", &pool).field("number", &self.number()).finish()
    }
}
