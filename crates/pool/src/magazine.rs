//! Free blocks at hand: one magazine a thread and pool, in private memory.
//!
//! M1. What is in a magazine is recoverable because its owner words say "cached by this process";
//!     nothing of the magazine itself is shared, and nothing of it needs recovering.
//! M2. The thread that owns it goes in with plain stores; closing the pool and a full pool go in
//!     through [`OwnerLock::seize`], so no block sits unusable in an idle thread.
//! M3. Guards taken and dropped are counted here, per thread, so that the last guard of a closed
//!     pool is known without a shared counter on every operation. Both counts only grow.
//! M4. It lives on pages that a child made by fork finds zeroed. A zeroed magazine is [`VOID`], so
//!     the check "is this still open?" is also the check "is this a child?", and costs nothing more.

use crate::{inner::Inner, limits::MAGAZINE_MAX};
use mainstay_base::Rng;
use mainstay_shm::{
    OwnerLock,
    fork::{Wiped, ZeroValid},
};
use std::{
    cell::{Cell, RefCell, UnsafeCell},
    ptr,
    sync::Arc,
};
use uuid::Uuid;

/// In a child made by fork, or after the end of the pool: nothing may be done.
pub(crate) const VOID: u8 = 0;
/// Work goes on.
pub(crate) const OPEN: u8 = OwnerLock::PLAIN;
/// The pool has no handle any more and waits for its last guard.
pub(crate) const CLOSING: u8 = 2;

/// A stack of free block numbers and what else a thread needs at each operation.
pub(crate) struct Contents {
    len: usize,
    /// Guards that this thread has made.
    pub(crate) taken: u64,
    /// Guards that this thread has dropped.
    pub(crate) dropped: u64,
    /// The random half of this thread's UUIDs; drawn anew before `taken` repeats in the other.
    uuid_high: u64,
    /// When `taken` is this, it is time for that. Guards that are not allocations count in `taken`
    /// too, so it may be passed by.
    uuid_until: u64,
    rng: Rng,
    /// Where the last claim succeeded: extent and group.
    pub(crate) cursor: (u64, usize),
    numbers: [u32; MAGAZINE_MAX],
}

impl Contents {
    /// A free block and a UUID for it; counted as a guard.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Option<(u32, [u64; 2])> {
        let len = self.len.checked_sub(1)?;
        let number = *self.numbers.get(len)?;
        (self.len, self.taken) = (len, self.taken + 1);
        let serial = self.taken & UUID_SERIAL_MAX;
        if self.taken >= self.uuid_until {
            self.uuid_high = random_uuid_half(&mut self.rng);
            self.uuid_until = (self.taken | UUID_SERIAL_MAX) + 1;
        }
        Some((number, native_uuid(self.uuid_high, serial, number)))
    }

    /// Adds a number; false when there is no room.
    #[inline(always)]
    #[must_use]
    pub(crate) fn push(&mut self, number: u32) -> bool {
        let Some(place) = self.numbers.get_mut(self.len) else { return false };
        *place = number;
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

/// What `taken` counts to in a UUID before its random half is drawn anew.
const UUID_SERIAL_MAX: u64 = (1 << 30) - 1;

/// RFC 9562, version 8 (the maker's own): 60 random bits, a thread's own; a serial of 30 bits; and
/// the number of the block, so that a block is found by its UUID without a table. A version 4 of
/// fresh random bits for each block would cost as much as all the rest of an allocation.
#[inline(always)]
fn native_uuid(random: u64, serial: u64, number: u32) -> [u64; 2] {
    [random, 1 << 63 | serial << 32 | u64::from(number)]
}

fn random_uuid_half(rng: &mut Rng) -> u64 {
    rng.next_u64() & !0xF000 | 0x8000
}

/// The number of the block that was given this UUID at its allocation, if it was given any there.
#[inline]
pub(crate) fn number_in(uuid: Uuid) -> u32 {
    uuid.as_u64_pair().1 as u32
}

/// One thread's magazine of one pool. Made by [`Magazine::new`]; zeros are a void one.
#[repr(align(64))]
pub(crate) struct Magazine {
    /// Its mark is the mode.
    lock: OwnerLock,
    contents: UnsafeCell<Contents>,
}

// SAFETY: zeros are a value of every field: mode void, an open lock, an empty stack.
unsafe impl ZeroValid for Magazine {}
// SAFETY: the contents are only reached inside of the lock: by the owning thread between `enter`
// and `leave`, by others inside of `seize`.
unsafe impl Send for Magazine {}
// SAFETY: as above.
unsafe impl Sync for Magazine {}

impl Magazine {
    pub(crate) fn new(seed: u64, mode: u8) -> Arc<Wiped<Self>> {
        let mut rng = Rng::seeded(seed);
        let magazine = Wiped::<Self>::new();
        magazine.lock.renew(mode);
        magazine.seize(|contents| {
            contents.uuid_high = random_uuid_half(&mut rng);
            contents.uuid_until = UUID_SERIAL_MAX + 1;
            // Threads start in different places, so that they do not claim from the same words.
            contents.cursor = (rng.next_u64(), rng.next_u64() as usize);
            contents.rng = rng;
        });
        Arc::new(magazine)
    }

    /// What may be done: [`VOID`], [`OPEN`] or [`CLOSING`]. Stable only inside of the lock.
    #[inline(always)]
    pub(crate) fn mode(&self) -> u8 {
        self.lock.mark()
    }

    /// Inside of `seize`: changes what may be done.
    pub(crate) fn set_mode(&self, mode: u8) {
        self.lock.set_mark(mode);
    }

    /// The owner's way in while the magazine is open. `work` is short, calls nothing of the user's,
    /// and does not come back.
    #[inline(always)]
    pub(crate) fn own_open<R>(&self, work: impl FnOnce(&mut Contents) -> R) -> Option<R> {
        if !self.lock.enter() && !self.wait_open() {
            return None;
        }
        Some(self.inside(work))
    }

    #[cold]
    fn wait_open(&self) -> bool {
        self.lock.wait();
        let open = self.mode() == OPEN;
        if !open {
            self.lock.leave();
        }
        open
    }

    /// The owner's way in, whatever may be done.
    pub(crate) fn own<R>(&self, work: impl FnOnce(&mut Contents) -> R) -> R {
        if !self.lock.enter() {
            self.lock.wait();
        }
        self.inside(work)
    }

    /// On the owner's side of the lock, which is left at the end.
    #[inline(always)]
    fn inside<R>(&self, work: impl FnOnce(&mut Contents) -> R) -> R {
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
    entries: Vec<Entry>,
}

struct Entry {
    /// Of the pool; never used again.
    id: u64,
    magazine: Arc<Wiped<Magazine>>,
    inner: *const Inner,
}

impl Drop for Table {
    fn drop(&mut self) {
        FAST.set([NOTHING; WAYS]);
        if mainstay_shm::hook::planted("thread-exit-keeps") {
            return;
        }
        for Entry { magazine, inner, .. } in &self.entries {
            magazine.own(|contents| {
                if magazine.mode() != VOID {
                    // SAFETY: a pool makes all its magazines void before it goes away, and cannot
                    // do so while we are inside of this one.
                    unsafe { (**inner).give_back(contents, 0) };
                }
            });
        }
    }
}

const WAYS: usize = 4;
const NOTHING: (u64, *const Magazine) = (0, ptr::null());

thread_local! {
    static TABLE: RefCell<Table> = const { RefCell::new(Table { entries: Vec::new() }) };
    /// Pool id and magazine, by the last bits of the id: the way that needs no destructor and no
    /// search. What it points to is in the table.
    static FAST: Cell<[(u64, *const Magazine); WAYS]> = const { Cell::new([NOTHING; WAYS]) };
}

/// This thread's magazine of `inner`, if it is at hand. Not to be kept over a call that may end
/// the thread's table: use it and forget it.
#[inline(always)]
pub(crate) fn fast(inner: &Inner) -> Option<&Magazine> {
    let at = inner.id as usize % WAYS;
    // SAFETY: the cell is this thread's and no reference to its inside exists elsewhere: all
    // other uses are `set` and `get`.
    let (id, magazine) = FAST.with(|fast| unsafe { (*fast.as_ptr())[at] });
    if id != inner.id {
        return None;
    }
    // SAFETY: the entry in this thread's table keeps it; entries go away only when their pool has
    // ended, which it cannot while `inner` is borrowed, or with the table, and then `FAST` is
    // cleared.
    Some(unsafe { &*magazine })
}

/// Runs `work` on this thread's magazine of `inner`, made if there is none.
#[cold]
pub(crate) fn of<R>(inner: &Inner, work: impl FnOnce(&Magazine) -> R) -> R {
    let found = TABLE.try_with(|table| {
        let mut table = table.borrow_mut();
        let known = table.entries.iter().find(|entry| entry.id == inner.id);
        let magazine = match known {
            Some(entry) => entry.magazine.clone(),
            None => {
                // Ended pools are forgotten here; a child made by fork keeps its parent's, whose
                // memory it cannot give back.
                table.entries.retain(|entry| entry.magazine.mode() != VOID);
                FAST.set([NOTHING; WAYS]);
                let magazine = inner.new_magazine();
                let inner_ptr = ptr::from_ref(inner);
                let entry = Entry { id: inner.id, magazine: magazine.clone(), inner: inner_ptr };
                table.entries.push(entry);
                magazine
            }
        };
        let mut fast = FAST.get();
        fast[inner.id as usize % WAYS] = (inner.id, ptr::from_ref::<Magazine>(&magazine));
        FAST.set(fast);
        magazine
    });
    match found {
        Ok(magazine) => work(&magazine),
        // The thread is ending and its table is gone: a magazine for this once.
        Err(_) => {
            let magazine = inner.new_magazine();
            let result = work(&magazine);
            magazine.own(|contents| inner.give_back(contents, 0));
            result
        }
    }
}

/// Runs `work` on this thread's magazine of `inner`.
#[inline(always)]
pub(crate) fn with<R>(inner: &Inner, work: impl FnOnce(&Magazine) -> R) -> R {
    match fast(inner) {
        Some(magazine) => work(magazine),
        None => of(inner, work),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_do_not_repeat_when_the_serial_goes_round_between_two_allocations() {
        let magazine = Magazine::new(1, OPEN);
        let take_at = |taken| {
            magazine.seize(|contents| {
                contents.taken = taken;
                assert!(contents.push(7));
                contents.take().unwrap().1
            })
        };
        let first = take_at(4);
        assert_eq!(take_at(4), first, "the test can tell a repetition");
        // An attach has counted the very number at which the serial is 0.
        let round = take_at(UUID_SERIAL_MAX + 1 + 4);
        assert_eq!(round[1], first[1], "the serial has gone round");
        assert_ne!(round[0], first[0]);
        assert_ne!(take_at(2 * (UUID_SERIAL_MAX + 1) + 4)[0], round[0]);
    }
}
