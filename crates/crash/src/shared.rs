//! Memory that a process shares with the children it forks, outside of any pool: what the tests
//! remember of the dead must not be in the thing under test.

use rustix::mm::{self, MapFlags, ProtFlags};
use std::{
    ops::Deref,
    ptr::{self, NonNull},
    sync::atomic::{
        AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// A type that may be shared with children.
///
/// # Safety
/// It consists of atomics only, all bytes zero are a value of it, and it has no `Drop`.
pub(crate) unsafe trait Sharable: Sync {}

// SAFETY: an atomic.
unsafe impl Sharable for AtomicU64 {}
// SAFETY: an atomic.
unsafe impl Sharable for AtomicU32 {}
// SAFETY: an atomic.
unsafe impl Sharable for AtomicUsize {}
// SAFETY: an array of what may be shared.
unsafe impl<T: Sharable, const N: usize> Sharable for [T; N] {}

/// One value, all zero at first, the same memory in this process and the children it forks.
pub(crate) struct Shared<T: Sharable> {
    at: NonNull<T>,
}

impl<T: Sharable> Shared<T> {
    pub(crate) fn new() -> Self {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous mapping, at an address of the kernel's choice.
        let at =
            unsafe { mm::mmap_anonymous(ptr::null_mut(), size_of::<T>(), prot, MapFlags::SHARED) };
        let at = at.expect("a few hundred KiB of memory can be had");
        Self { at: NonNull::new(at.cast()).expect("mmap without MAP_FIXED never returns null") }
    }
}

impl<T: Sharable> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped as long as `self` lives, page-aligned, and zero bytes are a `T`, which
        // consists of atomics.
        unsafe { self.at.as_ref() }
    }
}

impl<T: Sharable> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no reference outlives `self`. Other processes have mappings
        // of their own.
        let _ = unsafe { mm::munmap(self.at.as_ptr().cast(), size_of::<T>()) };
    }
}

const TEXT_MAX: usize = 256;

/// A short text that may be shared; the last writer wins.
pub(crate) struct Text {
    len: AtomicUsize,
    bytes: [AtomicU8; TEXT_MAX],
}
// SAFETY: atomics only.
unsafe impl Sharable for Text {}

impl Text {
    pub(crate) fn set(&self, text: &str) {
        let bytes = &text.as_bytes()[..text.len().min(TEXT_MAX)];
        self.len.store(0, Relaxed);
        self.bytes.iter().zip(bytes).for_each(|(to, from)| to.store(*from, Relaxed));
        self.len.store(bytes.len(), Release);
    }

    pub(crate) fn get(&self) -> String {
        let len = self.len.load(Acquire).min(TEXT_MAX);
        let bytes: Vec<u8> = self.bytes[..len].iter().map(|b| b.load(Relaxed)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_a_short_one_comes_back() {
        let text = Shared::<Text>::new();
        assert_eq!(text.get(), "");
        text.set("short");
        assert_eq!(text.get(), "short");
        text.set(&"x".repeat(TEXT_MAX + 1));
        assert_eq!(text.get().len(), TEXT_MAX);
    }
}
