//! The guard of a block: who has one, holds the block.

use crate::{
    BlockId, Error, Kind, Record, Result,
    inner::{Acquired, Inner},
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
    #[inline(always)]
    #[must_use]
    pub fn number(&self) -> u32 {
        self.packed as u32
    }

    #[inline(always)]
    fn guess(&self, slot: u32) -> Word {
        Word::guess((self.packed >> 32) as u32, slot)
    }

    /// Names this block for ever: store it, send it, attach by it.
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
    /// # Panics
    /// In a child made by fork, where the block is not mapped.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.assert_mapped();
        self.inner().uuid_of(self.number())
    }

    /// What becomes of the block when its last holder is gone.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.guess(0).kind().expect("a guard is of a live block")
    }

    /// The first byte of the data, aligned to 64. Valid as long as the guard lives; other
    /// processes may write there at any time.
    #[inline]
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.inner().extents.data(self.number())
    }

    /// One more guard of the same block.
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
    /// # Errors
    /// `Forked`, `InsideMonitor`: then the guard is dropped as if nothing was asked.
    #[inline(always)]
    pub fn free(self) -> Result<()> {
        self.inner().check_monitor()?;
        ManuallyDrop::new(self).leave_or_refuse(Ask::Free)
    }

    /// Gives up the guard and keeps the block, if it is recoverable: as dropping it does.
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
            Some(_) => Ok(()),
            None => self.inner().check_fork(),
        }
    }

    #[inline(always)]
    fn leave(&self, ask: Ask) -> Option<Left> {
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
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a block has at least one byte")]
    pub fn len(&self) -> usize {
        self.inner().extents.geometry.block_size as usize
    }

    /// How many of the bytes are in use, as the last holder said: never more than `len`.
    #[must_use]
    pub fn used_len(&self) -> usize {
        self.assert_mapped();
        let length = self.inner().extents.cold(self.number()).length.load(Relaxed);
        (length as usize).min(self.len())
    }

    /// Notes how many of the bytes are in use.
    ///
    /// # Errors
    /// `OutOfBlock` when there are not that many.
    pub fn set_used_len(&self, used: usize) -> Result<()> {
        self.check(0, used)?;
        self.inner().extents.cold(self.number()).length.store(used as u32, Relaxed);
        Ok(())
    }

    /// Copies data out, from byte `offset` on. If somebody writes at the same time, it is a mix.
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
        self.leave(Ask::Park);
    }
}

impl<T: ?Sized> fmt::Debug for Block<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pool = self.inner().name.as_str();
        f.debug_struct("Block").field("pool", &pool).field("number", &self.number()).finish()
    }
}
