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
#[repr(C, align(64))]
pub struct OwnerLock {
    inside: AtomicBool,
    // What is loaded right after the store to `inside` lies on another cache line: on some
    // processors a load near a store that is still on its way waits for it (4 ns an operation,
    // measured on Zen 4).
    apart: [u8; 63],
    wanted: AtomicBool,
    asymmetric: AtomicBool,
}

impl OwnerLock {
    /// An open lock.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inside: AtomicBool::new(false),
            apart: [0; 63],
            wanted: AtomicBool::new(false),
            asymmetric: AtomicBool::new(membarrier_is_registered()),
        }
    }

    /// Makes a lock out of zeroed memory as good as a new one.
    pub fn renew(&self) {
        self.asymmetric.store(membarrier_is_registered(), Ordering::Release);
    }

    /// The owner goes in; false when a seizer is at work: then try again, or go another way.
    #[inline(always)]
    #[must_use]
    pub fn enter(&self) -> bool {
        enter(&self.inside, &self.wanted, || {
            if self.asymmetric.load(Ordering::Relaxed) {
                compiler_fence(Ordering::SeqCst);
            } else {
                fence(Ordering::SeqCst);
            }
        })
    }

    /// The owner goes out.
    #[inline(always)]
    pub fn leave(&self) {
        self.inside.put(false, Ordering::Release);
    }

    /// Runs `work` while the owner is kept out; waits for it to leave first, which takes as long as
    /// its short stay inside. Seizers come one after the other.
    pub fn seize<R>(&self, work: impl FnOnce() -> R) -> R {
        while !want(&self.wanted) {
            std::thread::yield_now();
        }
        if self.asymmetric.load(Ordering::Relaxed) {
            membarrier();
        } else {
            fence(Ordering::SeqCst);
        }
        while !is_out(&self.inside) {
            std::thread::yield_now();
        }
        struct Reopen<'a>(&'a AtomicBool);
        impl Drop for Reopen<'_> {
            fn drop(&mut self) {
                self.0.put(false, Ordering::Release);
            }
        }
        let _reopen = Reopen(&self.wanted);
        work()
    }
}

// SAFETY: of all three flags false is a value: an open lock, with real fences.
unsafe impl crate::fork::ZeroValid for OwnerLock {}

impl Default for OwnerLock {
    fn default() -> Self {
        Self::new()
    }
}

/// What the lock is made of; in a model checker, its double.
trait Flag {
    fn get(&self, order: Ordering) -> bool;
    fn put(&self, value: bool, order: Ordering);
    fn swap(&self, value: bool, order: Ordering) -> bool;
}

impl Flag for AtomicBool {
    #[inline(always)]
    fn get(&self, order: Ordering) -> bool {
        self.load(order)
    }

    #[inline(always)]
    fn put(&self, value: bool, order: Ordering) {
        self.store(value, order);
    }

    #[inline(always)]
    fn swap(&self, value: bool, order: Ordering) -> bool {
        self.swap(value, order)
    }
}

/// The owner announces itself, then looks.
#[inline(always)]
fn enter(inside: &impl Flag, wanted: &impl Flag, fence: impl FnOnce()) -> bool {
    inside.put(true, Ordering::Relaxed);
    fence();
    // Acquire: what the last seizer did happened before.
    if wanted.get(Ordering::Acquire) {
        inside.put(false, Ordering::Release);
        return false;
    }
    true
}

/// A seizer announces itself; false when another is at work. A fence comes next.
fn want(wanted: &impl Flag) -> bool {
    !wanted.swap(true, Ordering::Acquire)
}

/// The seizer looks. Acquire: what the owner did happened before.
fn is_out(inside: &impl Flag) -> bool {
    !inside.get(Ordering::Acquire)
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
mod model;

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
        no_increment_is_lost(OwnerLock { asymmetric: AtomicBool::new(false), ..OwnerLock::new() });
    }
}
