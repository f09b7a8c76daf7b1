//! The only unsafe code of the benchmarks: addresses from the C library, the kernel and LMDB.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use heed::{Env, EnvOpenOptions};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::Outcome;

/// A zeroed piece of memory from `calloc`, given back by `free`.
pub(crate) struct Calloc(NonNull<u64>);

impl Calloc {
    /// `None` when the C library has no memory left.
    #[inline]
    pub(crate) fn new(words: usize) -> Option<Calloc> {
        // SAFETY: calloc takes any sizes and checks their product itself.
        let address = unsafe { libc::calloc(words.max(1), size_of::<u64>()) };
        NonNull::new(address.cast()).map(Calloc)
    }

    /// Writes the first word, in a way the optimiser may not drop.
    #[inline]
    pub(crate) fn touch(&mut self, value: u64) {
        // SAFETY: `new` asked for at least one word, calloc aligns for any type, and `&mut self`
        // says that nobody else reads or writes it.
        unsafe { self.0.as_ptr().write_volatile(value) };
    }

    /// Where the memory is.
    #[inline]
    pub(crate) fn address(&self) -> *mut u64 {
        self.0.as_ptr()
    }
}

impl Drop for Calloc {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the address came from calloc and is freed once, here.
        unsafe { libc::free(self.0.as_ptr().cast()) };
    }
}

/// Words of a file, mapped shared: memory that two processes can contend for.
pub(crate) struct SharedWords {
    start: NonNull<AtomicU64>,
    words: usize,
}

impl SharedWords {
    /// Maps the first `words` words of `file`, made long enough first.
    pub(crate) fn map(file: &File, words: usize) -> Outcome<SharedWords> {
        let bytes = words * size_of::<u64>();
        if file.metadata()?.len() < bytes as u64 {
            file.set_len(bytes as u64)?;
        }
        // SAFETY: a null hint lets the kernel choose an address that is free, so no memory of ours
        // is replaced.
        let start = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            mmap(std::ptr::null_mut(), bytes, access, MapFlags::SHARED, file, 0)?
        };
        let start = NonNull::new(start.cast()).ok_or("the kernel mapped a file at address 0")?;
        Ok(SharedWords { start, words })
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, covers `words` words of a file that nobody shortens
        // (it lies in a directory of this run's own) and lives as long as `self`; atomics may be
        // changed by others.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        let bytes = self.words * size_of::<u64>();
        // SAFETY: exactly what `map` mapped, and `deref`'s borrows ended with `self`. A failure
        // would leave the mapping in place, which harms nobody.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), bytes) };
    }
}

// SAFETY: it is shared atomic words and nothing else.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

/// Opens an LMDB environment in a directory that belongs to this run alone.
pub(crate) fn open_lmdb(directory: &Path, map_bytes: usize) -> Outcome<Env> {
    let mut options = EnvOpenOptions::new();
    options.map_size(map_bytes);
    // SAFETY: LMDB trusts its file, and so do the slices it hands out; nobody but this process
    // knows the directory, and this process changes the file through LMDB only.
    Ok(unsafe { options.open(directory)? })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn two_mappings_of_one_file_see_the_same_words() {
        let file = tempfile::tempfile().unwrap();
        let (one, two) = (SharedWords::map(&file, 8).unwrap(), SharedWords::map(&file, 8).unwrap());
        one[3].store(77, Ordering::Release);
        assert_eq!(two[3].load(Ordering::Acquire), 77);
        assert_eq!(two.len(), 8);
    }

    #[test]
    fn calloc_gives_memory_that_can_be_touched() {
        let mut memory = Calloc::new(8).unwrap();
        memory.touch(5);
    }
}
