//! A lock that costs its owner plain loads and stores, and whoever else wants it a system call.
//!
//! I1. Between [`OwnerLock::enter`] returning true, or [`OwnerLock::wait`] returning, and
//!     [`OwnerLock::leave`], no seizer is inside.
//! I2. While a seizer is inside, `enter` returns false.
//!
//! Both sides announce themselves, then look for the other (Dekker). That needs a full fence on
//! each side; membarrier(2) lets the rare side issue the fence for both, so the owner's is only one
//! for the compiler. Where the kernel refuses membarrier, the owner goes in by `wait`, which issues
//! a real one.
//! Source: "Biased locking" in the sense of Dice, Huang, Yang, "Asymmetric Dekker Synchronization"
//! (2001); membarrier(2).

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU8, Ordering, compiler_fence, fence},
};

/// A seizer is at work or waits.
const WANTED: u8 = 0x80;
/// The kernel refuses membarrier: the owner needs a real fence.
const FENCED: u8 = 0x40;
const MARKS: u8 = 0x3F;

/// A lock with one cheap side. The cheap side belongs to one thread.
///
/// It carries a *mark*, a small number that says what may be done inside. `enter` looks at lock
/// and mark in one load.
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
    gate: AtomicU8,
}

impl OwnerLock {
    /// The mark with which [`OwnerLock::enter`] lets the owner in.
    ///
    /// Example: see [`OwnerLock::set_mark`].
    pub const PLAIN: u8 = 1;

    /// An open lock with the plain mark.
    ///
    /// Example: see [`OwnerLock`].
    #[must_use]
    pub fn new() -> Self {
        let lock = Self { inside: AtomicBool::new(false), apart: [0; 63], gate: AtomicU8::new(0) };
        lock.renew(Self::PLAIN);
        lock
    }

    /// Makes a lock out of zeroed memory as good as a new one. Zeroed memory is a lock with the
    /// mark 0, whose owner goes in by `wait`. Nobody else may know of the lock yet.
    ///
    /// ```
    /// use mainstay_shm::{OwnerLock, fork::Wiped};
    /// let lock = Wiped::<OwnerLock>::new();
    /// assert_eq!(lock.mark(), 0);
    /// lock.renew(OwnerLock::PLAIN);
    /// assert_eq!(lock.mark(), OwnerLock::PLAIN);
    /// ```
    pub fn renew(&self, mark: u8) {
        let fenced = if membarrier_is_registered() { 0 } else { FENCED };
        self.gate.store(mark & MARKS | fenced, Ordering::Release);
    }

    /// The owner goes in, if no seizer is at work and the mark is plain; otherwise it may [`wait`].
    ///
    /// [`wait`]: OwnerLock::wait
    ///
    /// Example: see [`OwnerLock`].
    #[inline(always)]
    #[must_use]
    pub fn enter(&self) -> bool {
        let not_plain = Gate { gate: &self.gate, is_shut: |gate| gate != Self::PLAIN };
        enter(&self.inside, &not_plain, || compiler_fence(Ordering::SeqCst))
    }

    /// The owner goes in, whatever the mark; waits for seizers to leave.
    ///
    /// Example: see [`OwnerLock::set_mark`].
    #[cold]
    pub fn wait(&self) {
        let wanted = Gate { gate: &self.gate, is_shut: |gate| gate & WANTED != 0 };
        while !enter(&self.inside, &wanted, || fence(Ordering::SeqCst)) {
            std::thread::yield_now();
        }
    }

    /// The owner goes out.
    ///
    /// Example: see [`OwnerLock`].
    #[inline(always)]
    pub fn leave(&self) {
        self.inside.put(false, Ordering::Release);
    }

    /// What may be done inside. Stable only there.
    ///
    /// Example: see [`OwnerLock::set_mark`].
    #[inline(always)]
    #[must_use]
    pub fn mark(&self) -> u8 {
        self.gate.load(Ordering::Relaxed) & MARKS
    }

    /// Changes the mark, 0 to 63. To be called inside of [`OwnerLock::seize`], so that whoever
    /// enters later goes by the new one.
    ///
    /// ```
    /// # use mainstay_shm::OwnerLock;
    /// let lock = OwnerLock::new();
    /// assert_eq!(lock.mark(), OwnerLock::PLAIN);
    /// lock.seize(|| lock.set_mark(2));
    /// lock.wait(); // whatever the mark
    /// assert_eq!(lock.mark(), 2);
    /// lock.leave();
    /// ```
    pub fn set_mark(&self, mark: u8) {
        // Only seizers change the gate, and they come one after the other.
        let rest = self.gate.load(Ordering::Relaxed) & !MARKS;
        self.gate.store(rest | mark & MARKS, Ordering::Relaxed);
    }

    /// Runs `work` while the owner is kept out; waits for it to leave first, which takes as long as
    /// its short stay inside. Seizers come one after the other.
    ///
    /// Example: see [`OwnerLock`].
    pub fn seize<R>(&self, work: impl FnOnce() -> R) -> R {
        let wanted = Gate { gate: &self.gate, is_shut: |gate| gate & WANTED != 0 };
        while !want(&wanted) {
            std::thread::yield_now();
        }
        if membarrier_is_registered() {
            membarrier();
        } else {
            fence(Ordering::SeqCst);
        }
        while !is_out(&self.inside) {
            std::thread::yield_now();
        }
        struct Reopen<'a>(&'a AtomicU8);
        impl Drop for Reopen<'_> {
            fn drop(&mut self) {
                self.0.fetch_and(!WANTED, Ordering::Release);
            }
        }
        let _reopen = Reopen(&self.gate);
        work()
    }
}

// SAFETY: zeros are a value: a lock with the mark 0, nobody inside.
unsafe impl crate::fork::ZeroValid for OwnerLock {}

impl Default for OwnerLock {
    fn default() -> Self {
        Self::new()
    }
}

/// The gate as the flag that a seizer raises; what counts as raised is for the one who looks.
struct Gate<'a, F: Fn(u8) -> bool> {
    gate: &'a AtomicU8,
    is_shut: F,
}

impl<F: Fn(u8) -> bool> Flag for Gate<'_, F> {
    #[inline(always)]
    fn get(&self, order: Ordering) -> bool {
        (self.is_shut)(self.gate.load(order))
    }

    fn put(&self, value: bool, order: Ordering) {
        if value {
            self.gate.fetch_or(WANTED, order);
        } else {
            self.gate.fetch_and(!WANTED, order);
        }
    }

    fn swap(&self, value: bool, order: Ordering) -> bool {
        let before = if value {
            self.gate.fetch_or(WANTED, order)
        } else {
            self.gate.fetch_and(!WANTED, order)
        };
        before & WANTED != 0
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
                    if !guarded.lock.enter() {
                        guarded.lock.wait();
                    }
                    // SAFETY: inside of the lock.
                    unsafe { *guarded.value.get() += 1 };
                    guarded.lock.leave();
                    done += 1;
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
        let lock = OwnerLock::new();
        lock.gate.fetch_or(FENCED, Ordering::Relaxed);
        assert!(!lock.enter(), "the owner waits, with a real fence");
        no_increment_is_lost(lock);
    }
}
