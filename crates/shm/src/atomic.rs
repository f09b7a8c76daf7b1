//! Words in shared memory.
//!
//! I1. Every store to a shared word passes [`hook::step`] first, and every load [`hook::look`], so
//!     a test can stop a process between any two of them.
//! I2. Algorithms are written against [`Atomic64`], so that the very same code runs on shared
//!     memory and inside a model checker.

use crate::hook;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// A 64-bit atomic: a word in shared memory, or its double in a model checker.
///
/// ```
/// use mainstay_shm::{Atomic64, Shared64};
/// # use std::sync::atomic::Ordering::Relaxed;
/// fn take(word: &impl Atomic64) -> bool {
///     word.compare_exchange(0, 1, Relaxed, Relaxed).is_ok()
/// }
/// let word = Shared64::new(0);
/// assert!(take(&word) && !take(&word));
/// ```
pub trait Atomic64 {
    /// Reads the word.
    fn load(&self, order: Ordering) -> u64;
    /// Writes the word.
    fn store(&self, value: u64, order: Ordering);
    /// Writes `new` if the word is `current`; otherwise returns what it is.
    ///
    /// # Errors
    /// The value found, when it was not `current`.
    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64>;
    /// Sets the bits of `mask`; returns the word as it was.
    fn fetch_or(&self, mask: u64, order: Ordering) -> u64;
    /// Keeps only the bits of `mask`; returns the word as it was.
    fn fetch_and(&self, mask: u64, order: Ordering) -> u64;
}

/// A 64-bit word in shared memory.
///
/// ```
/// use mainstay_shm::{Atomic64, Shared64};
/// use std::sync::atomic::Ordering::Relaxed;
/// let word = Shared64::new(1);
/// assert_eq!(word.fetch_or(2, Relaxed), 1);
/// assert_eq!(word.load(Relaxed), 3);
/// ```
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Shared64(AtomicU64);

impl Shared64 {
    /// A word outside of any mapping, for tests and models.
    ///
    /// Example: see [`Shared64`].
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Adds one; returns the word as it was.
    ///
    /// ```
    /// use mainstay_shm::{Atomic64, Shared64};
    /// use std::sync::atomic::Ordering::Relaxed;
    /// let count = Shared64::new(1);
    /// assert_eq!(count.increment(Relaxed), 1);
    /// assert_eq!(count.load(Relaxed), 2);
    /// ```
    #[inline]
    #[track_caller]
    pub fn increment(&self, order: Ordering) -> u64 {
        hook::step();
        self.0.fetch_add(1, order)
    }
}

impl Atomic64 for Shared64 {
    #[inline(always)]
    #[track_caller]
    fn load(&self, order: Ordering) -> u64 {
        hook::look();
        self.0.load(order)
    }

    #[inline(always)]
    #[track_caller]
    fn store(&self, value: u64, order: Ordering) {
        hook::step();
        self.0.store(value, order);
    }

    #[inline(always)]
    #[track_caller]
    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        hook::step();
        self.0.compare_exchange(current, new, success, failure)
    }

    #[inline(always)]
    #[track_caller]
    fn fetch_or(&self, mask: u64, order: Ordering) -> u64 {
        hook::step();
        self.0.fetch_or(mask, order)
    }

    #[inline(always)]
    #[track_caller]
    fn fetch_and(&self, mask: u64, order: Ordering) -> u64 {
        hook::step();
        self.0.fetch_and(mask, order)
    }
}

/// A 32-bit word in shared memory; also what a futex waits on.
///
/// ```
/// use mainstay_shm::Shared32;
/// use std::sync::atomic::Ordering::Relaxed;
/// let word = Shared32::new(1);
/// word.store(2, Relaxed);
/// assert_eq!(word.load(Relaxed), 2);
/// ```
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Shared32(AtomicU32);

impl Shared32 {
    /// A word outside of any mapping, for tests.
    ///
    /// Example: see [`Shared32`].
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    /// Reads the word.
    ///
    /// Example: see [`Shared32`].
    #[inline(always)]
    #[track_caller]
    pub fn load(&self, order: Ordering) -> u32 {
        hook::look();
        self.0.load(order)
    }

    /// Writes the word.
    ///
    /// Example: see [`Shared32`].
    #[inline(always)]
    #[track_caller]
    pub fn store(&self, value: u32, order: Ordering) {
        hook::step();
        self.0.store(value, order);
    }

    /// Adds one, round the end; returns the word as it was.
    ///
    /// ```
    /// use mainstay_shm::Shared32;
    /// use std::sync::atomic::Ordering::Relaxed;
    /// let count = Shared32::new(u32::MAX);
    /// assert_eq!(count.increment(Relaxed), u32::MAX);
    /// assert_eq!(count.load(Relaxed), 0);
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn increment(&self, order: Ordering) -> u32 {
        hook::step();
        self.0.fetch_add(1, order)
    }

    /// Writes `new` if the word is `current`; otherwise returns what it is.
    ///
    /// ```
    /// use mainstay_shm::Shared32;
    /// use std::sync::atomic::Ordering::Relaxed;
    /// let word = Shared32::new(1);
    /// assert_eq!(word.compare_exchange(1, 2, Relaxed, Relaxed), Ok(1));
    /// assert_eq!(word.compare_exchange(1, 3, Relaxed, Relaxed), Err(2));
    /// ```
    ///
    /// # Errors
    /// The value found, when it was not `current`.
    #[inline(always)]
    #[track_caller]
    pub fn compare_exchange(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        hook::step();
        self.0.compare_exchange(current, new, success, failure)
    }

    /// Where the word is, for system calls that wait for it to change.
    ///
    /// ```
    /// let word = mainstay_shm::Shared32::new(1);
    /// assert!(word.as_ptr().is_aligned());
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn as_ptr(&self) -> *const u32 {
        self.0.as_ptr()
    }

    /// Sets the bits of `mask`; returns what was there.
    ///
    /// ```
    /// use mainstay_shm::Shared32;
    /// use std::sync::atomic::Ordering::SeqCst;
    /// let word = Shared32::new(1);
    /// assert_eq!((word.fetch_or(6, SeqCst), word.fetch_and(5, SeqCst)), (1, 7));
    /// assert_eq!(word.load(SeqCst), 5);
    /// ```
    #[track_caller]
    pub fn fetch_or(&self, mask: u32, order: Ordering) -> u32 {
        hook::step();
        self.0.fetch_or(mask, order)
    }

    /// Clears the bits that `mask` has not; returns what was there.
    ///
    /// Example: see [`Shared32::fetch_or`].
    #[track_caller]
    pub fn fetch_and(&self, mask: u32, order: Ordering) -> u32 {
        hook::step();
        self.0.fetch_and(mask, order)
    }

    pub(crate) fn raw(&self) -> &AtomicU32 {
        &self.0
    }
}

/// A byte in shared memory that is only displayed, never decided on: its stores pass no hook.
///
/// ```
/// let byte = mainstay_shm::Shared8::default();
/// byte.store(b'm');
/// assert_eq!(byte.load(), b'm');
/// ```
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Shared8(AtomicU8);

impl Shared8 {
    /// Reads the byte.
    ///
    /// Example: see [`Shared8`].
    #[inline(always)]
    pub fn load(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    /// Writes the byte.
    ///
    /// Example: see [`Shared8`].
    #[inline(always)]
    pub fn store(&self, value: u8) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A type that may be laid over shared memory.
///
/// ```
/// use mainstay_shm::{Access, Backing, Mapping, Shared32, SharedLayout};
/// #[repr(C)]
/// struct Pair { first: Shared32, second: Shared32 }
/// // SAFETY: two shared words, no gap between them, no `Drop`.
/// unsafe impl SharedLayout for Pair {}
/// # let backing = Backing::memfd("example")?;
/// # backing.allocate(0, 4096)?;
/// # let mapping = Mapping::new(&backing, 4096, Access::ReadWrite)?;
/// # mapping.refresh(&backing)?;
/// let pair = &mapping.view::<Pair>(0, 1)?[0];
/// # Ok::<(), mainstay_shm::Error>(())
/// ```
///
/// # Safety
/// Every byte of the type belongs to one of the `Shared*` words of this module, so that any bit
/// pattern is a value and other processes may change it at any time; it has no `Drop`.
pub unsafe trait SharedLayout: Sized {}

// SAFETY: one shared word, any bit pattern is a value.
unsafe impl SharedLayout for Shared64 {}
// SAFETY: as above.
unsafe impl SharedLayout for Shared32 {}
// SAFETY: as above.
unsafe impl SharedLayout for Shared8 {}
