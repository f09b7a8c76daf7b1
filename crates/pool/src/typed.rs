//! Blocks that hold one value of a plain type.

use crate::{Block, Error, Result, inner::Inner};
use mainstay_shm::{Atomic64, copy, hook};
pub(crate) use mainstay_shm::{Record, fingerprint};
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering::Relaxed;

impl<T: Record> Block<T> {
    /// A copy of the value. If somebody writes at the same time, it is a mix.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions, Record};
    /// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
    ///
    /// #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, PartialEq, Debug)]
    /// #[repr(C)]
    /// struct Call { caller: u64, seconds: u64 }
    /// impl Record for Call { const NAME: &'static str = "example.call/1"; }
    ///
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let call = pool.allocate_typed::<Call>(Kind::Recoverable)?;
    /// call.set(&Call { caller: 7, seconds: 0 });
    /// assert_eq!(call.get(), Call { caller: 7, seconds: 0 });
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Panics
    /// In a child made by fork, where the block is not mapped.
    #[must_use]
    pub fn get(&self) -> T {
        assert!(!self.inner().is_forked(), "a child made by fork has no block of its parent");
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the type was checked to fit when the guard was made; any bytes are a `T`.
        unsafe {
            copy::load(self.as_ptr(), value.as_mut_ptr().cast(), size_of::<T>());
            value.assume_init()
        }
    }

    /// Writes the value.
    ///
    /// Example: see [`Block::get`].
    ///
    /// # Panics
    /// In a child made by fork, where the block is not mapped.
    pub fn set(&self, value: &T) {
        assert!(!self.inner().is_forked(), "a child made by fork has no block of its parent");
        hook::step();
        let bytes = value.as_bytes();
        // SAFETY: the type was checked to fit when the guard was made.
        unsafe { copy::store(bytes.as_ptr(), self.as_ptr(), bytes.len()) };
    }

    /// The same block as bytes.
    ///
    /// Example: see [`crate::Pool::attach_typed`].
    #[must_use]
    pub fn into_bytes(self) -> Block {
        self.cast()
    }
}

/// Blocks are aligned to 64 bytes.
pub(crate) fn check_fit<T: Record>(inner: &Inner) -> Result<()> {
    let block_size = inner.extents.geometry.block_size as usize;
    if size_of::<T>() <= block_size && align_of::<T>() <= 64 {
        return Ok(());
    }
    Err(Error::TypeDoesNotFit {
        pool: inner.display(),
        type_name: T::NAME,
        size: size_of::<T>(),
        align: align_of::<T>(),
        block_size,
    })
}

/// Whether the block holds a `T`; `found` in the error is the fingerprint without its flag.
pub(crate) fn check_type<T: Record>(inner: &Inner, number: u32) -> Result<()> {
    check_fit::<T>(inner)?;
    let found = inner.extents.cold(number).fingerprint.load(Relaxed);
    let wanted = fingerprint::<T>().bits();
    if found == wanted {
        return Ok(());
    }
    let pool = inner.display();
    Err(Error::WrongType { pool, number, found, wanted, type_name: T::NAME })
}
