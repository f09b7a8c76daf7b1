//! Free blocks at hand: one magazine a thread and pool, in private memory.
//!
//! M1. What is in a magazine is recoverable because its owner words say "cached by this process";
//!     nothing of the magazine itself is shared, and nothing of it needs recovering.
//! M2. The thread that owns it goes in with plain stores; closing the pool, a full pool and the
//!     end of another thread's work go in through [`OwnerLock::seize`], so no block sits unusable
//!     in an idle thread.
//! M3. Guards taken and dropped are counted here, per thread, so that the last guard of a closed
//!     pool is known without a shared counter on every operation. Both counts only grow.

use crate::{inner::Inner, limits::MAGAZINE_MAX};
use mainstay_base::Rng;
use mainstay_shm::OwnerLock;
use std::{
    cell::{RefCell, UnsafeCell},
    sync::Arc,
};

/// A stack of free block numbers and what else a thread needs at each operation.
pub(crate) struct Contents {
    numbers: [u32; MAGAZINE_MAX],
    len: usize,
    /// Where the last claim succeeded: extent and group.
    pub(crate) cursor: (u64, usize),
    pub(crate) rng: Rng,
    /// Guards that this thread has made.
    pub(crate) taken: u64,
    /// Guards that this thread has dropped.
    pub(crate) dropped: u64,
    /// The pool is closed: nothing may be done through this magazine any more.
    pub(crate) dead: bool,
}

impl Contents {
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<u32> {
        self.len = self.len.checked_sub(1)?;
        Some(self.numbers[self.len])
    }

    /// Adds a number; false when there is no room.
    #[inline(always)]
    #[must_use]
    pub(crate) fn push(&mut self, number: u32) -> bool {
        if self.len == MAGAZINE_MAX {
            return false;
        }
        self.numbers[self.len] = number;
        self.len += 1;
        true
    }

    /// Takes out all but the `keep` numbers that were used last.
    pub(crate) fn drain(&mut self, keep: usize, mut each: impl FnMut(u32)) {
        let surplus = self.len.saturating_sub(keep);
        self.numbers[..surplus].iter().for_each(|number| each(*number));
        self.numbers.copy_within(surplus..self.len, 0);
        self.len -= surplus;
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

pub(crate) struct Magazine {
    lock: OwnerLock,
    contents: UnsafeCell<Contents>,
}

// SAFETY: the contents are only reached inside of the lock: by the owning thread between `enter`
// and `leave`, by others inside of `seize`.
unsafe impl Send for Magazine {}
// SAFETY: as above.
unsafe impl Sync for Magazine {}

impl Magazine {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed);
        // Threads start in different places, so that they do not claim from the same words.
        let cursor = (rng.next_u64(), rng.next_u64() as usize);
        let (numbers, len) = ([0; MAGAZINE_MAX], 0);
        Self {
            lock: OwnerLock::new(),
            contents: UnsafeCell::new(Contents {
                numbers,
                len,
                cursor,
                rng,
                taken: 0,
                dropped: 0,
                dead: false,
            }),
        }
    }

    /// The owner's way in. `work` must not come back to this magazine.
    #[inline(always)]
    fn own<R>(&self, work: impl FnOnce(&mut Contents) -> R) -> R {
        while !self.lock.enter() {
            std::thread::yield_now();
        }
        struct Leave<'a>(&'a OwnerLock);
        impl Drop for Leave<'_> {
            #[inline(always)]
            fn drop(&mut self) {
                self.0.leave();
            }
        }
        let _leave = Leave(&self.lock);
        // SAFETY: inside of the lock, on the owner's side; only the owning thread gets here, since
        // a magazine is found through its thread-local table alone.
        work(unsafe { &mut *self.contents.get() })
    }

    /// The way in for every other thread (and for the owner when it is not inside).
    pub(crate) fn seize<R>(&self, work: impl FnOnce(&mut Contents) -> R) -> R {
        // SAFETY: inside of the lock, on the seizers' side.
        self.lock.seize(|| work(unsafe { &mut *self.contents.get() }))
    }
}

/// One thread's magazines, one for each pool it has used.
struct Table {
    entries: Vec<(u64, Arc<Magazine>, *const Inner)>,
}

impl Drop for Table {
    fn drop(&mut self) {
        if mainstay_shm::hook::planted("thread-exit-keeps") {
            return;
        }
        for (_, magazine, inner) in &self.entries {
            magazine.own(|contents| {
                if !contents.dead {
                    // SAFETY: a pool marks all its magazines dead before it goes away, and cannot
                    // do so while we are inside of this one.
                    unsafe { (**inner).thread_ends(contents) };
                }
            });
        }
    }
}

thread_local! {
    static TABLE: RefCell<Table> = const { RefCell::new(Table { entries: Vec::new() }) };
}

/// Runs `work` inside of this thread's magazine of `inner`.
///
/// `work` must not come back to any magazine: it is short, and calls nothing of the user's.
#[inline(always)]
pub(crate) fn with<R>(inner: &Inner, work: impl FnOnce(&mut Contents) -> R) -> R {
    let mut work = Some(work);
    let done = TABLE.try_with(|table| {
        let table = table.borrow();
        let (_, magazine, _) = table.entries.iter().find(|(id, ..)| *id == inner.id)?;
        Some(magazine.own(work.take()?))
    });
    match (done, work) {
        (Ok(Some(result)), _) => result,
        (Ok(None), Some(work)) => with_other(inner, work),
        // The thread is ending and its table is gone: work through a magazine that ends at once.
        (_, Some(work)) => {
            let magazine = inner.new_magazine();
            let result = magazine.own(work);
            magazine.own(|contents| inner.thread_ends(contents));
            result
        }
        (_, None) => unreachable!("the work is only taken to be done"),
    }
}

/// The first time in this thread: makes the magazine.
#[cold]
fn with_other<R>(inner: &Inner, work: impl FnOnce(&mut Contents) -> R) -> R {
    let magazine = TABLE.with(|table| {
        let mut table = table.borrow_mut();
        // Closed pools are forgotten here.
        table.entries.retain(|(_, magazine, _)| !magazine.own(|contents| contents.dead));
        let magazine = inner.new_magazine();
        table.entries.push((inner.id, magazine.clone(), std::ptr::from_ref(inner)));
        magazine
    });
    magazine.own(work)
}
