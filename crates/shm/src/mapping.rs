//! An address range reserved once, over a file that grows into it.
//!
//! I1. An address inside the mapping never changes and never goes away while the mapping lives:
//!     the whole range is mapped over the file at once, past its end. Growth of the file makes
//!     more of it usable; no further `mmap` is needed, and the mapping stays one line in
//!     `/proc/self/maps`.
//! I2. Safe views reach only bytes that the file was seen to cover ([`Mapping::refresh`]). A
//!     memfd sealed against shrinking keeps that true; a plain file that somebody truncates
//!     afterwards raises SIGBUS, as for any mapped file.
//! I3. A child made by fork has no such mapping (`MADV_DONTFORK`).

use crate::{Access, Backing, Error, Result, SharedLayout, copy, fork::Epoch};
use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use std::{
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Bytes of a page, at least: what a mapping begins at is a multiple of it.
const PAGE_MIN: usize = 4_096;

/// A reserved address range over a backing.
///
/// ```
/// use mainstay_shm::{Access, Backing, Mapping, Shared64, Atomic64};
/// use std::sync::atomic::Ordering::Relaxed;
/// let backing = Backing::memfd("example")?;
/// let mapping = Mapping::new(&backing.reopen()?, 1 << 30, Access::ReadWrite)?;
/// backing.allocate(0, 4096)?;
/// mapping.refresh(&backing)?;
/// mapping.view::<Shared64>(8, 1)?[0].store(7, Relaxed);
/// assert!(mapping.view::<Shared64>(4096, 1).is_err());
/// # Ok::<(), mainstay_shm::Error>(())
/// ```
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    backed: AtomicUsize,
    access: Access,
    /// Of the process that made it; a child made by fork has another.
    epoch: Epoch,
}

// SAFETY: the range is valid for the whole life of the value and its contents are only reached
// through atomics and racy copies.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `len` bytes of addresses over the file of `fd`, from its first byte on. The
    /// mapping keeps the description of `fd`, and any lock held through it, alive.
    ///
    /// Example: see [`Mapping`].
    ///
    /// # Errors
    /// `AddressSpace` when there is no such range.
    pub fn new(fd: &impl AsFd, len: u64, access: Access) -> Result<Self> {
        let refused = |source| Error::AddressSpace { bytes: len, source };
        let bytes = usize::try_from(len).map_err(|e| refused(std::io::Error::other(e)))?;
        let prot = match access {
            Access::ReadOnly => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: no address is asked for, so no existing mapping is replaced.
        let base = unsafe { mm::mmap(ptr::null_mut(), bytes, prot, flags, fd, 0) }
            .map_err(|e| refused(e.into()))?;
        let base = NonNull::new(base.cast()).expect("mmap without MAP_FIXED never returns null");
        let (backed, epoch) = (AtomicUsize::new(0), Epoch::now());
        let mapping = Self { base, len: bytes, backed, access, epoch };
        // SAFETY: the range was just mapped and is ours; the advice changes nothing in this process.
        unsafe { mm::madvise(base.as_ptr().cast(), bytes, Advice::LinuxDontFork) }
            .map_err(|e| refused(e.into()))?;
        Ok(mapping)
    }

    /// Looks how far the file reaches now; returns that many bytes, at most the mapping's length.
    ///
    /// Example: see [`Mapping`].
    ///
    /// # Errors
    /// `DescriptorLost`.
    pub fn refresh(&self, backing: &Backing) -> Result<usize> {
        let covered = usize::try_from(backing.len()?).unwrap_or(usize::MAX).min(self.len);
        self.backed.store(covered, Ordering::Relaxed);
        Ok(covered)
    }

    /// Asks for pages of 2 MiB, as far as the file system has them and the file reaches: then
    /// scattered accesses seldom have to wait for the translation of an address. A request only: what
    /// is read and written stays the same.
    ///
    /// ```
    /// # use mainstay_shm::{Access, Backing, Mapping};
    /// # let backing = Backing::memfd("example")?;
    /// # backing.allocate(0, 4096)?;
    /// let mapping = Mapping::new(&backing, 1 << 30, Access::ReadWrite)?;
    /// mapping.prefer_huge_pages();
    /// assert_eq!(mapping.refresh(&backing)?, 4096);
    /// # Ok::<(), mainstay_shm::Error>(())
    /// ```
    pub fn prefer_huge_pages(&self) {
        // SAFETY: the range is our mapping; the advice changes how it is mapped, not what is in it.
        // A kernel that has no such pages refuses, and nothing depends on it.
        let _refused =
            unsafe { mm::madvise(self.base.as_ptr().cast(), self.len, Advice::LinuxHugepage) };
    }

    /// Makes `len` bytes from `offset` on ready to be written, as far as the file reaches: all at
    /// once, where each page would be waited for at its first write. A request only.
    ///
    /// ```
    /// # use mainstay_shm::{Access, Backing, Mapping};
    /// # let backing = Backing::memfd("example")?;
    /// # backing.allocate(0, 8192)?;
    /// let mapping = Mapping::new(&backing, 1 << 20, Access::ReadWrite)?;
    /// mapping.refresh(&backing)?;
    /// mapping.make_ready(4096, 1 << 30);
    /// mapping.write(8191, b"a")?;
    /// # Ok::<(), mainstay_shm::Error>(())
    /// ```
    pub fn make_ready(&self, offset: usize, len: usize) {
        let page = rustix::param::page_size();
        let covered = self.backed.load(Ordering::Relaxed);
        let from = offset.min(covered) / page * page;
        let len = offset.saturating_add(len).min(covered) - from;
        // SAFETY: the range is inside of our mapping and of what the file covers, and begins with a
        // page; the advice changes what is in memory, not what the bytes are. A kernel that does not
        // know it refuses, and nothing depends on it.
        let _refused = unsafe {
            mm::madvise(
                self.base.as_ptr().wrapping_add(from).cast(),
                len,
                Advice::LinuxPopulateWrite,
            )
        };
    }

    /// `count` values of `T` from byte `offset` on.
    ///
    /// Example: see [`Mapping`].
    ///
    /// # Errors
    /// `OutOfBounds` when they are not all inside of what the file covers, `Misaligned`.
    #[inline]
    pub fn view<T: SharedLayout>(&self, offset: usize, count: usize) -> Result<&[T]> {
        self.get(offset, count)
            .ok_or_else(|| self.no_view(offset, (count, size_of::<T>()), align_of::<T>()))
    }

    /// The same for whoever only needs to know whether they are there.
    ///
    /// ```
    /// # use mainstay_shm::{Access, Backing, Mapping, Shared64};
    /// # let backing = Backing::memfd("example")?;
    /// # backing.allocate(0, 4096)?;
    /// let mapping = Mapping::new(&backing, 1 << 20, Access::ReadOnly)?;
    /// mapping.refresh(&backing)?;
    /// assert!(mapping.get::<Shared64>(4088, 1).is_some());
    /// assert!(mapping.get::<Shared64>(4088, 2).is_none());
    /// # Ok::<(), mainstay_shm::Error>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn get<T: SharedLayout>(&self, offset: usize, count: usize) -> Option<&[T]> {
        const { assert!(align_of::<T>() <= PAGE_MIN, "the mapping begins with a page") }
        let at = self.checked(offset, count.checked_mul(size_of::<T>())?)?;
        if !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: the range is inside of the mapping and covered by the file; it is aligned, since the
        // mapping begins with a page; and `SharedLayout` makes any bytes a valid value that others may
        // change.
        Some(unsafe { std::slice::from_raw_parts(at.cast::<T>(), count) })
    }

    #[cold]
    fn no_view(&self, offset: usize, (count, size): (usize, usize), align: usize) -> Error {
        let len = count.saturating_mul(size);
        if self.checked(offset, len).is_none() {
            return self.out_of_bounds(offset, len);
        }
        Error::Misaligned { offset: offset as u64, align }
    }

    /// Copies bytes from `offset` on to `target`; they may be a mix if somebody is writing.
    ///
    /// ```
    /// # use mainstay_shm::{Access, Backing, Mapping};
    /// # let backing = Backing::memfd("example")?;
    /// # backing.allocate(0, 4096)?;
    /// let mapping = Mapping::new(&backing, 4096, Access::ReadWrite)?;
    /// mapping.refresh(&backing)?;
    /// mapping.write(100, b"ringing")?;
    /// let mut state = [0; 7];
    /// mapping.read(100, &mut state)?;
    /// assert_eq!(&state, b"ringing");
    /// # Ok::<(), mainstay_shm::Error>(())
    /// ```
    ///
    /// # Errors
    /// `OutOfBounds`.
    #[inline]
    pub fn read(&self, offset: usize, target: &mut [u8]) -> Result<()> {
        let out = || self.out_of_bounds(offset, target.len());
        let at = self.checked(offset, target.len()).ok_or_else(out)?;
        // SAFETY: the source is inside of the mapping, the target is a slice of our own.
        unsafe { copy::load(at, target.as_mut_ptr(), target.len()) };
        Ok(())
    }

    /// Copies `source` to `offset`.
    ///
    /// Example: see [`Mapping::read`].
    ///
    /// # Errors
    /// `OutOfBounds`.
    ///
    /// # Panics
    /// When the mapping is read-only: a bug of the caller.
    #[inline]
    pub fn write(&self, offset: usize, source: &[u8]) -> Result<()> {
        assert_eq!(self.access, Access::ReadWrite, "a read-only mapping is never written");
        let out = || self.out_of_bounds(offset, source.len());
        let at = self.checked(offset, source.len()).ok_or_else(out)?;
        // SAFETY: the target is inside of the mapping, which is writable; the source is a slice.
        unsafe { copy::store(source.as_ptr(), at, source.len()) };
        Ok(())
    }

    #[inline(always)]
    fn checked(&self, offset: usize, len: usize) -> Option<*mut u8> {
        let end = offset.checked_add(len)?;
        // SAFETY: offset is at most `backed`, which is at most the length of the mapping.
        (end <= self.backed.load(Ordering::Relaxed))
            .then(|| unsafe { self.base.as_ptr().add(offset) })
    }

    #[cold]
    fn out_of_bounds(&self, offset: usize, len: usize) -> Error {
        let limit = self.backed.load(Ordering::Relaxed) as u64;
        Error::OutOfBounds { offset: offset as u64, len: len as u64, limit }
    }

    /// The first byte of the range.
    ///
    /// ```
    /// use mainstay_shm::{Access, Backing, Mapping};
    /// let backing = Backing::memfd("example")?;
    /// let mapping = Mapping::new(&backing, 1 << 20, Access::ReadOnly)?;
    /// assert!(mapping.base().addr().get().is_multiple_of(4096));
    /// assert_eq!((mapping.reserved(), mapping.access()), (1 << 20, Access::ReadOnly));
    /// # Ok::<(), mainstay_shm::Error>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// How many bytes of addresses are reserved.
    ///
    /// Example: see [`Mapping::base`].
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.len
    }

    /// Whether the mapping may be written.
    ///
    /// Example: see [`Mapping::base`].
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // In a child made by fork there is nothing at these addresses, or what the child itself
        // mapped there later: it must not be touched.
        if !self.epoch.is_current() {
            return;
        }
        // SAFETY: the range was mapped by `new` in this process, and no view outlives `self`.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Atomic64, Shared64};

    #[test]
    fn an_address_stays_the_same_while_the_file_grows() {
        let backing = Backing::memfd("test").unwrap();
        let mapping = Mapping::new(&backing, 1 << 32, Access::ReadWrite).unwrap();
        backing.allocate(0, 4_096).unwrap();
        mapping.refresh(&backing).unwrap();
        let word = &mapping.view::<Shared64>(0, 1).unwrap()[0];
        word.store(1, Ordering::Relaxed);
        backing.allocate(4_096, 1 << 20).unwrap();
        assert_eq!(mapping.refresh(&backing).unwrap(), 4_096 + (1 << 20));
        assert_eq!(word.load(Ordering::Relaxed), 1);
        mapping.view::<Shared64>(1 << 20, 1).unwrap()[0].store(2, Ordering::Relaxed);
    }

    #[test]
    fn a_view_ends_where_the_file_ends() {
        let backing = Backing::memfd("test").unwrap();
        let mapping = Mapping::new(&backing, 1 << 20, Access::ReadWrite).unwrap();
        assert!(mapping.view::<Shared64>(0, 1).is_err());
        backing.allocate(0, 16).unwrap();
        mapping.refresh(&backing).unwrap();
        assert!(mapping.view::<Shared64>(8, 1).is_ok());
        assert!(matches!(mapping.view::<Shared64>(16, 1), Err(Error::OutOfBounds { .. })));
        assert!(matches!(mapping.view::<Shared64>(0, usize::MAX), Err(Error::OutOfBounds { .. })));
        assert!(matches!(mapping.view::<Shared64>(4, 1), Err(Error::Misaligned { .. })));
        assert!(mapping.read(15, &mut [0; 2]).is_err());
        assert!(mapping.write(usize::MAX, &[0; 2]).is_err());
    }

    #[test]
    fn two_mappings_of_one_file_see_each_other() {
        let backing = Backing::memfd("test").unwrap();
        backing.allocate(0, 4_096).unwrap();
        let a = Mapping::new(&backing, 4_096, Access::ReadWrite).unwrap();
        let b = Mapping::new(&backing, 4_096, Access::ReadOnly).unwrap();
        a.refresh(&backing).unwrap();
        b.refresh(&backing).unwrap();
        a.write(100, b"hello").unwrap();
        let mut seen = [0; 5];
        b.read(100, &mut seen).unwrap();
        assert_eq!(&seen, b"hello");
    }

    #[test]
    fn a_range_that_does_not_exist_is_a_typed_error() {
        let backing = Backing::memfd("test").unwrap();
        let error = Mapping::new(&backing, 1 << 60, Access::ReadWrite).unwrap_err();
        assert!(matches!(error, Error::AddressSpace { .. }), "{error}");
    }
}
