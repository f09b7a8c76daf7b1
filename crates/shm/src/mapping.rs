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

use crate::{
    Access, Backing, Error, Result, Shared64, SharedLayout, copy, fork::Epoch, line::LINE_WORDS,
};
use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use std::{
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicUsize, Ordering},
};

const LINE_BYTES: usize = LINE_WORDS * size_of::<u64>();
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
    rows: Rows,
    access: Access,
    /// Of the process that made it; a child made by fork has another.
    epoch: Epoch,
}

/// What a mapping is divided into.
#[derive(Debug)]
struct Rows {
    /// Where the first one begins, by its offset and by its address.
    first: usize,
    start: NonNull<u8>,
    bytes: usize,
    /// How many the file was seen to cover.
    covered: AtomicUsize,
}

impl Rows {
    fn cover(&self, backed: usize) {
        let count = backed.saturating_sub(self.first) / self.bytes;
        self.covered.store(count, Ordering::Relaxed);
    }
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
        let rows = Rows { first: 0, start: base, bytes: LINE_BYTES, covered: AtomicUsize::new(0) };
        let mapping = Self { base, len: bytes, backed, rows, access, epoch };
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
        self.rows.cover(covered);
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

    /// Divides what lies behind byte `first` into rows of so many words; without this, they are lines.
    ///
    /// Example: see [`row`](Self::row).
    ///
    /// # Errors
    /// `Misaligned` if a word cannot begin there, `OutOfBounds` for a row of no words, or one that does not
    /// fit into the mapping.
    pub fn in_rows(mut self, first: usize, words: usize) -> Result<Self> {
        let bytes = words.saturating_mul(size_of::<u64>());
        if !first.is_multiple_of(align_of::<Shared64>()) {
            return Err(Error::Misaligned { offset: first as u64, align: align_of::<Shared64>() });
        }
        if bytes == 0 || first.saturating_add(bytes) > self.len {
            return Err(self.out_of_bounds(first, bytes));
        }
        // SAFETY: it is inside of the mapping.
        let start = unsafe { self.base.add(first) };
        self.rows = Rows { first, start, bytes, covered: AtomicUsize::new(0) };
        self.rows.cover(self.backed.load(Ordering::Relaxed));
        Ok(self)
    }

    /// The first words of a row, if all of it is there and it has as many. How many there are was found out
    /// when the file was looked at: so this takes fewer steps than [`get`](Self::get).
    ///
    /// ```
    /// # use mainstay_shm::{Access, Atomic64, Backing, Mapping};
    /// # use std::sync::atomic::Ordering::Relaxed;
    /// # let backing = Backing::memfd("example")?;
    /// # backing.allocate(0, 4096)?;
    /// let mapping = Mapping::new(&backing, 1 << 20, Access::ReadWrite)?.in_rows(4040, 3)?;
    /// mapping.refresh(&backing)?;
    /// mapping.row(1, 3).expect("it is the last one")[2].store(7, Relaxed);
    /// assert_eq!(mapping.row(1, 3).map(|row| row[2].load(Relaxed)), Some(7));
    /// assert!(mapping.row(1, 4).is_none() && mapping.row(2, 1).is_none());
    /// # Ok::<(), mainstay_shm::Error>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn row(&self, number: usize, words: usize) -> Option<&[Shared64]> {
        let Rows { start, bytes, covered, .. } = &self.rows;
        if number >= covered.load(Ordering::Relaxed) || words > bytes / size_of::<u64>() {
            return None;
        }
        // SAFETY: `number + 1` rows from `start` on are inside of the mapping and covered by the file, as
        // `cover` has found, so nothing overflows; `words` are not more than a row has. It is aligned, since
        // the mapping begins with a page, and where rows begin and their length are multiples of a word's
        // size. Any bytes are a valid word that others may change.
        Some(unsafe {
            let at = start.as_ptr().add(number * bytes).cast::<Shared64>();
            std::slice::from_raw_parts(at, words)
        })
    }

    /// A line of the mapping, by its number, if all of it is there.
    ///
    /// ```
    /// # use mainstay_shm::{Access, Backing, Mapping};
    /// # let backing = Backing::memfd("example")?;
    /// # backing.allocate(0, 100)?;
    /// let mapping = Mapping::new(&backing, 1 << 20, Access::ReadOnly)?;
    /// mapping.refresh(&backing)?;
    /// assert!(mapping.line(0).is_some() && mapping.line(1).is_none());
    /// # Ok::<(), mainstay_shm::Error>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn line(&self, number: usize) -> Option<&[Shared64; LINE_WORDS]> {
        if number >= self.backed.load(Ordering::Relaxed) / LINE_BYTES {
            return None;
        }
        // SAFETY: `number + 1` lines are inside of the mapping and covered by the file, so nothing overflows;
        // they are aligned, since the mapping begins with a page. Any bytes are valid words that others
        // may change.
        Some(unsafe { &*self.base.as_ptr().add(number * LINE_BYTES).cast() })
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
    use std::fs::File;

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
    fn a_row_is_there_when_all_of_it_is() {
        let new = |backing: &Backing| Mapping::new(backing, 1 << 20, Access::ReadWrite).unwrap();
        for (first, words) in [(0, 8), (8, 1), (16, 3), (4_096, 5)] {
            let backing = Backing::memfd("test").unwrap();
            let mapping = new(&backing).in_rows(first, words).unwrap();
            let row = |number: usize| mapping.row(number, words);
            for len in [0, 8, 16, 39, 40, 4_095, 4_096, 4_135, 4_136, 1 << 20, 2 << 20] {
                File::from(backing.as_fd().try_clone_to_owned().unwrap()).set_len(len).unwrap();
                let covered = mapping.refresh(&backing).unwrap();
                let count = covered.saturating_sub(first) / (words * 8);
                assert_eq!(mapping.rows.covered.load(Ordering::Relaxed), count);
                assert!(row(count).is_none() && row(usize::MAX).is_none());
                assert!(mapping.row(0, words + 1).is_none());
                assert_eq!(mapping.line(covered / 64).map(|line| line.as_ptr()), None);
                if let Some(last) = (covered / 64).checked_sub(1) {
                    let expected = mapping.get::<Shared64>(last * 64, 8).unwrap();
                    assert_eq!(mapping.line(last).unwrap().as_ptr(), expected.as_ptr());
                }
                if let Some(last) = count.checked_sub(1) {
                    let at = first + last * words * 8;
                    let (found, expected) = (row(last).unwrap(), mapping.get(at, words).unwrap());
                    assert_eq!((found.as_ptr(), found.len()), (expected.as_ptr(), words));
                }
            }
        }
        let backing = Backing::memfd("test").unwrap();
        assert!(matches!(new(&backing).in_rows(4, 1), Err(Error::Misaligned { .. })));
        for words in [0, (1 << 20) / 8 + 1, usize::MAX] {
            assert!(matches!(new(&backing).in_rows(0, words), Err(Error::OutOfBounds { .. })));
        }
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
