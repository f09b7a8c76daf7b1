//! A lock that costs its owner plain loads and stores, and whoever else wants it a system call.
//!
//! I1. Between [`OwnerLock::enter`] returning true and [`OwnerLock::leave`], no seizer is inside.
//! I2. While a seizer is inside, `enter` returns false.
//!
//! Both sides announce themselves, then look for the other (Dekker). That needs a full fence on
//! each side; membarrier(2) lets the rare side issue the fence for both, so the owner's is only one
//! for the compiler. Where the kernel refuses membarrier, the owner issues a real one.
//! Source: "Biased locking" in the sense of Dice, Huang, Yang, "Asymmetric Dekker Synchronization"
//! (2001); membarrier(2).

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering, compiler_fence, fence},
};

/// A lock with one cheap side. The cheap side belongs to one thread.
///
/// ```
/// let lock = mainstay_shm::OwnerLock::new();
/// if lock.enter() {
///     // ... the owner's work ...
///     lock.leave();
/// }
/// lock.seize(|| { /* another thread's work; the owner is kept out */ });
/// ```
#[derive(Debug)]
pub struct OwnerLock {
    inside: AtomicBool,
    wanted: AtomicBool,
    asymmetric: bool,
}

impl OwnerLock {
    /// An open lock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inside: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            asymmetric: membarrier_is_registered(),
        }
    }

    /// The owner goes in; false when a seizer is at work: then try again, or go another way.
    #[inline(always)]
    #[must_use]
    pub fn enter(&self) -> bool {
        self.inside.store(true, Ordering::Relaxed);
        if self.asymmetric {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
        // Acquire: what the last seizer did happened before.
        if self.wanted.load(Ordering::Acquire) {
            self.inside.store(false, Ordering::Release);
            return false;
        }
        true
    }

    /// The owner goes out.
    #[inline(always)]
    pub fn leave(&self) {
        self.inside.store(false, Ordering::Release);
    }

    /// Runs `work` while the owner is kept out; waits for it to leave first, which takes as long as
    /// its short stay inside. Seizers come one after the other.
    pub fn seize<R>(&self, work: impl FnOnce() -> R) -> R {
        while self.wanted.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
        if self.asymmetric {
            membarrier();
        } else {
            fence(Ordering::SeqCst);
        }
        while self.inside.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        struct Reopen<'a>(&'a AtomicBool);
        impl Drop for Reopen<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        let _reopen = Reopen(&self.wanted);
        work()
    }
}

impl Default for OwnerLock {
    fn default() -> Self {
        Self::new()
    }
}

fn membarrier_is_registered() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| {
        !cfg!(miri) && {
            let command = libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
            // SAFETY: a system call with plain numbers; an unknown one returns an error.
            unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
        }
    })
}

fn membarrier() {
    let command = libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED;
    // SAFETY: a system call with plain numbers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    // The registration succeeded, and only its lack makes this one fail. A child made by fork
    // inherits the registration.
    assert_eq!(result, 0, "membarrier works once it is registered");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::UnsafeCell, sync::atomic::AtomicBool};

    struct Guarded {
        lock: OwnerLock,
        value: UnsafeCell<u64>,
    }
    // SAFETY: the value is only touched inside of the lock; that is what is tested.
    unsafe impl Sync for Guarded {}

    fn no_increment_is_lost(lock: OwnerLock) {
        let memory = Guarded { lock, value: UnsafeCell::new(0) };
        let guarded = &memory;
        let stop = AtomicBool::new(false);
        let (owner, seizer) = std::thread::scope(|scope| {
            let owner = scope.spawn(|| {
                let mut done = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    if guarded.lock.enter() {
                        // SAFETY: inside of the lock.
                        unsafe { *guarded.value.get() += 1 };
                        guarded.lock.leave();
                        done += 1;
                    }
                }
                done
            });
            let mut done = 0;
            for _ in 0..2_000 {
                // SAFETY: inside of the lock.
                guarded.lock.seize(|| unsafe { *guarded.value.get() += 1 });
                done += 1;
            }
            stop.store(true, Ordering::Relaxed);
            (owner.join().unwrap(), done)
        });
        assert_eq!(memory.value.into_inner(), owner + seizer);
    }

    #[test]
    fn owner_and_seizers_never_overlap() {
        no_increment_is_lost(OwnerLock::new());
    }

    #[test]
    fn it_also_holds_where_membarrier_is_refused() {
        no_increment_is_lost(OwnerLock { asymmetric: false, ..OwnerLock::new() });
    }
}
