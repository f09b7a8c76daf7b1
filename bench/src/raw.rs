//! The only unsafe code of the benchmarks: addresses from the C library, the kernel and LMDB.

use std::fs::File;
use std::ops::Deref;
#[cfg(feature = "state")]
use std::os::unix::process::CommandExt;
use std::path::Path;
#[cfg(feature = "state")]
use std::process::{Child, Command};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use heed::{Env, EnvOpenOptions};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
#[cfg(feature = "state")]
use rustix::process::{Signal, set_parent_process_death_signal};

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

/// Starts a program that is killed when this process dies, even by a signal.
#[cfg(feature = "state")]
pub(crate) fn spawn_mortal(command: &mut Command) -> std::io::Result<Child> {
    let die = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: what runs in the child before its program is one system call, prctl(2).
    unsafe { command.pre_exec(die) }.spawn()
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

/// The same, with commits that are not synced to any disk.
#[cfg(any(feature = "state", feature = "store"))]
pub(crate) fn open_lmdb_unsynced(directory: &Path, map_bytes: usize) -> Outcome<Env> {
    let mut options = EnvOpenOptions::new();
    options.map_size(map_bytes);
    // SAFETY: as above, for the processes of this run; without syncs a power cut could damage the
    // file, and after one nobody reads it.
    Ok(unsafe { options.flags(heed::EnvFlags::NO_SYNC).open(directory)? })
}

/// Publishes a value in iceoryx2's blackboard by its way with a single copy.
#[cfg(feature = "state")]
pub(crate) fn iceoryx_update<const N: usize>(
    mut place: IceoryxPlace<N>,
    value: &[u64; N],
) -> iceoryx2::port::writer::EntryHandleMut<iceoryx2::prelude::ipc::Service, u64, [u64; N]> {
    // Not `write(*value)`, which would make a copy on the stack first.
    // SAFETY: source and target are arrays of one length, and the target is ours to write.
    unsafe { std::ptr::copy_nonoverlapping(value, place.value_mut().as_mut_ptr(), 1) };
    // SAFETY: all of it was written just now.
    unsafe { place.assume_init_and_update() }
}

/// Where the next value of a blackboard goes.
#[cfg(feature = "state")]
type IceoryxPlace<const N: usize> =
    iceoryx2::port::writer::EntryValueUninit<iceoryx2::prelude::ipc::Service, u64, [u64; N]>;

/// Copies the current value out of an mmap-sync file.
#[cfg(feature = "state")]
pub(crate) fn mmap_sync_copy<const SLEEP_NS: u64, const N: usize>(
    sync: &mut MmapSync<SLEEP_NS>,
    copy: &mut [u64; N],
) -> Outcome<()> {
    // SAFETY: the file was written by this program as an array of this length, and any bytes are
    // a value of it.
    let value = unsafe { sync.read::<[u64; N]>(false)? };
    copy.copy_from_slice(&*value);
    Ok(())
}

/// The first and the last word of the current value, where they lie.
#[cfg(feature = "state")]
pub(crate) fn mmap_sync_ends<const N: usize>(sync: &mut MmapSync<1_000>) -> Outcome<[u64; 2]> {
    // SAFETY: as in `mmap_sync_copy`.
    let value = unsafe { sync.read::<[u64; N]>(false)? };
    Ok([value[0], value[N - 1]])
}

/// With the crate's own hash, and no lock among writers: there is one.
#[cfg(feature = "state")]
pub(crate) type MmapSync<const SLEEP_NS: u64> = mmap_sync::synchronizer::Synchronizer<
    wyhash::WyHash,
    mmap_sync::locks::LockDisabled,
    1_024,
    SLEEP_NS,
>;

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
