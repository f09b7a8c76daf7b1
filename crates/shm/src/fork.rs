//! Telling a child made by fork from its parent, and keeping descriptions out of it.
//!
//! I1. [`epoch`] differs between a process and any child it forked, at once and without a system
//!     call: one word on a page that the kernel wipes in the child. Each process has a page of its own,
//!     and nobody stores to that of a parent: there it finds zeros for ever.
//! I2. While a [`Hold`] lives, no thread of this process can fork: so a description that carries a
//!     lease for a moment cannot leak into a child, which would keep the lease alive after us.
//!
//! Example: see [`Epoch`].

use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use std::{
    cell::UnsafeCell,
    ptr::{self, NonNull},
    sync::{
        Once,
        atomic::{AtomicPtr, AtomicU64, Ordering},
    },
};

/// The word on this process's wiped page, or on that of the process it was forked from; null until
/// first used.
static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
/// The last epoch given out; a child inherits a copy and counts on.
static LAST: AtomicU64 = AtomicU64::new(0);
static START: Once = Once::new();

/// A number that is different in a child made by fork. Compare it with the one remembered.
///
/// ```
/// assert_eq!(mainstay_shm::fork::epoch(), mainstay_shm::fork::epoch());
/// ```
#[inline]
#[must_use]
pub fn epoch() -> u64 {
    let word = WORD.load(Ordering::Acquire);
    if word.is_null() {
        return first_epoch();
    }
    // SAFETY: the page is never unmapped; fork copies the mapping.
    let epoch = unsafe { (*word).load(Ordering::Relaxed) };
    if epoch != 0 { epoch } else { next_epoch() }
}

/// An epoch remembered, to be looked at again and again.
///
/// ```
/// assert!(mainstay_shm::fork::Epoch::now().is_current());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    word: &'static AtomicU64,
}

impl Epoch {
    /// The epoch of this process.
    ///
    /// Example: see [`Epoch`].
    #[must_use]
    pub fn now() -> Self {
        let _ = epoch();
        // SAFETY: `epoch` has seen to it that the page is this process's; it is never unmapped.
        let word = unsafe { &*WORD.load(Ordering::Acquire) };
        Self { word }
    }

    /// False in a child made by fork after [`Epoch::now`].
    ///
    /// Example: see [`Epoch`].
    #[inline(always)]
    #[must_use]
    pub fn is_current(self) -> bool {
        // I1: a child finds 0 there.
        self.word.load(Ordering::Relaxed) != 0
    }
}

#[cold]
fn first_epoch() -> u64 {
    START.call_once(|| {
        // SAFETY: registers plain functions that live as long as the program.
        unsafe { libc::pthread_atfork(Some(lock), Some(unlock), Some(renew)) };
        WORD.store(next_word(), Ordering::Release);
    });
    epoch()
}

#[cold]
fn next_epoch() -> u64 {
    let parents = WORD.load(Ordering::Acquire);
    // SAFETY: as in `epoch`.
    if unsafe { (*parents).load(Ordering::Relaxed) } == 0 {
        // Of two threads the first decides. The page of the other one stays, unused: this happens
        // once in a child, if at all.
        let _ = WORD.compare_exchange(parents, next_word(), Ordering::AcqRel, Ordering::Acquire);
    }
    epoch()
}

/// A page of this process with an epoch that was not given out before.
fn next_word() -> *mut AtomicU64 {
    let page: NonNull<AtomicU64> = wiped_pages(rustix::param::page_size()).cast();
    let next = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    // SAFETY: the page was just mapped, and is never unmapped.
    unsafe { page.as_ref() }.store(next, Ordering::Relaxed);
    page.as_ptr()
}

struct ForkMutex(UnsafeCell<libc::pthread_mutex_t>);
// SAFETY: a pthread mutex is made to be used from several threads.
unsafe impl Sync for ForkMutex {}
// A pthread mutex and not one of std, because a fork locks it in one function and unlocks it in
// another. Recursive, because one thread may hold two descriptions for a moment.
static MUTEX: ForkMutex = ForkMutex(UnsafeCell::new(libc::PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP));

extern "C" fn lock() {
    // SAFETY: the mutex is initialised statically and never destroyed.
    unsafe { libc::pthread_mutex_lock(MUTEX.0.get()) };
}

extern "C" fn unlock() {
    // SAFETY: called by the thread that locked it.
    unsafe { libc::pthread_mutex_unlock(MUTEX.0.get()) };
}

extern "C" fn renew() {
    // SAFETY: the child has one thread, and the copy of the mutex that it inherited is locked in
    // the name of a thread that does not exist here.
    unsafe { *MUTEX.0.get() = libc::PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP };
}

/// A type of which all zero bytes are a value.
///
/// ```
/// use mainstay_shm::fork::{Wiped, ZeroValid};
/// struct Count(std::cell::Cell<u64>);
/// // SAFETY: zero bytes are a count of 0, and there is no `Drop`.
/// unsafe impl ZeroValid for Count {}
/// assert_eq!(Wiped::<Count>::new().0.get(), 0);
/// ```
///
/// # Safety
/// That is so, and it has no `Drop`.
pub unsafe trait ZeroValid {}

/// A value on pages of its own, which a child made by fork finds zeroed: so one of its fields can
/// tell, at no extra cost, that this is a child.
///
/// ```
/// use mainstay_shm::fork::Wiped;
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// let word = Wiped::<AtomicU64>::new();
/// word.store(1, Relaxed);
/// assert_eq!(word.load(Relaxed), 1); // 0 in a child
/// ```
#[derive(Debug)]
pub struct Wiped<T: ZeroValid> {
    value: NonNull<T>,
    len: usize,
}

// SAFETY: all zeros are a value.
unsafe impl ZeroValid for AtomicU64 {}
// SAFETY: the value is owned, as in a Box.
unsafe impl<T: ZeroValid + Send> Send for Wiped<T> {}
// SAFETY: as above.
unsafe impl<T: ZeroValid + Sync> Sync for Wiped<T> {}

impl<T: ZeroValid> Wiped<T> {
    /// A value of zeros.
    ///
    /// Example: see [`Wiped`].
    #[must_use]
    pub fn new() -> Self {
        let len = size_of::<T>().next_multiple_of(rustix::param::page_size());
        Self { value: wiped_pages(len).cast(), len }
    }
}

impl<T: ZeroValid> Default for Wiped<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: ZeroValid> std::ops::Deref for Wiped<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: mapped by `new`, large enough, page-aligned, and zeros are a value.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ZeroValid> Drop for Wiped<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody refers to it any more. A child has the pages too.
        let _ = unsafe { mm::munmap(self.value.as_ptr().cast(), self.len) };
    }
}

fn wiped_pages(len: usize) -> NonNull<u8> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new anonymous mapping, at an address of the kernel's choice.
    let pages = unsafe { mm::mmap_anonymous(ptr::null_mut(), len, prot, MapFlags::PRIVATE) };
    let pages = pages.expect("a few pages of memory can be had, or nothing else works either");
    // SAFETY: the pages were just mapped and are ours. Linux has this advice since 4.14.
    let wiped = unsafe { mm::madvise(pages, len, Advice::LinuxWipeOnFork) };
    wiped.expect("the kernel is 5.14 or newer, and this advice is older");
    NonNull::new(pages.cast()).expect("mmap without MAP_FIXED never returns null")
}

/// While this lives, no other thread of this process can fork; this one must not.
///
/// ```
/// let hold = mainstay_shm::fork::Hold::new();
/// drop(hold);
/// ```
#[derive(Debug)]
pub struct Hold {
    // The mutex belongs to the thread that locked it.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Hold {
    /// Waits for running forks and keeps new ones out.
    ///
    /// Example: see [`Hold`].
    #[must_use]
    pub fn new() -> Self {
        // Makes sure that the handlers are registered.
        let _ = epoch();
        lock();
        Self { _not_send: std::marker::PhantomData }
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `body` in a forked child and returns its exit status.
    fn in_child(body: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child only touches atomics and leaves by _exit.
        match unsafe { libc::fork() } {
            0 => {
                let code = body();
                // SAFETY: ends the child without running the parent's destructors.
                unsafe { libc::_exit(code) }
            }
            pid => {
                let mut status = 0;
                // SAFETY: waits for the child just made.
                unsafe { libc::waitpid(pid, &mut status, 0) };
                libc::WEXITSTATUS(status)
            }
        }
    }

    #[test]
    fn a_child_and_a_grandchild_have_epochs_of_their_own() {
        let mine = epoch();
        let remembered = Epoch::now();
        assert_eq!(in_child(|| i32::from(remembered.is_current())), 0);
        assert!(remembered.is_current());
        let code = in_child(|| {
            let child = epoch();
            let grandchild_differs = in_child(|| i32::from(epoch() != child && epoch() != mine));
            let only_ours = Epoch::now().is_current() && !remembered.is_current();
            i32::from(child != mine && epoch() == child && only_ours && grandchild_differs == 1)
        });
        assert_eq!(code, 1);
        assert_eq!(epoch(), mine);
    }

    #[test]
    fn nobody_forks_while_a_hold_lives() {
        let hold = Hold::new();
        let forked = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = forked.clone();
        let thread = std::thread::spawn(move || {
            in_child(|| 0);
            seen.store(true, Ordering::SeqCst);
        });
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!(!forked.load(Ordering::SeqCst));
        drop(hold);
        thread.join().unwrap();
        assert!(forked.load(Ordering::SeqCst));
    }
}
