//! A queue without bounds between one producer and one consumer that never wait for each other.
//!
//! G1. Between `push` and `pop` a slot belongs to exactly one side: `full` says to whom, and only
//!     its owner touches the value.
//! G2. What is pushed is popped once, in order, also over the seam between two rings.
//! G3. In a steady state nothing is allocated: a ring that turned out too small is followed by one
//!     of twice the size, and the small one goes when it is empty.
//!
//! A slot has a cache line of its own, and says itself whether it is full: so handing a message over
//! moves one line from one processor to the other. Indices are private to their side.

use std::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    sync::{Arc, OnceLock},
};

use std::sync::atomic::{AtomicBool, Ordering};

/// A new channel costs little; a busy one grows quickly.
const SLOTS_MIN: usize = 2;
/// No ring grows past this; whoever needs more has one ring behind the other.
const SLOTS_MAX: usize = 4_096;

#[repr(align(64))]
struct Slot<T> {
    full: AtomicBool,
    /// Initialised exactly while `full`.
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: by G1 only one side touches the value at a time, and it is handed over by a release store
// and an acquire load of `full`; so values only move between threads, for which `Send` is enough.
unsafe impl<T: Send> Sync for Slot<T> {}

struct Ring<T> {
    slots: Box<[Slot<T>]>,
    /// Where the producer went on when this ring was full.
    next: OnceLock<Arc<Ring<T>>>,
}

impl<T> Ring<T> {
    fn new(slots: usize) -> Arc<Self> {
        let empty =
            || Slot { full: AtomicBool::new(false), value: UnsafeCell::new(MaybeUninit::uninit()) };
        let slots = std::iter::repeat_with(empty).take(slots).collect();
        Arc::new(Self { slots, next: OnceLock::new() })
    }

    fn slot(&self, index: usize) -> &Slot<T> {
        // The number of slots is a power of two.
        &self.slots[index & (self.slots.len() - 1)]
    }
}

/// The side that pushes. There is one, and it takes `&mut self`.
pub(super) struct Producer<T> {
    ring: Arc<Ring<T>>,
    tail: usize,
}

/// The side that pops. There is one, and it takes `&mut self`.
pub(super) struct Consumer<T> {
    ring: Arc<Ring<T>>,
    head: usize,
}

/// Both sides of an empty queue.
pub(super) fn ring<T>() -> (Producer<T>, Consumer<T>) {
    let ring = Ring::new(SLOTS_MIN);
    (Producer { ring: Arc::clone(&ring), tail: 0 }, Consumer { ring, head: 0 })
}

impl<T> Producer<T> {
    #[inline]
    pub(super) fn push(&mut self, value: T) {
        let slot = self.ring.slot(self.tail);
        if slot.full.load(Ordering::Acquire) {
            return self.push_on(value);
        }
        // SAFETY: the slot is not full, so it is the producer's (G1), which is this one. The acquire
        // load pairs with the consumer's release: its last access is over.
        unsafe { (*slot.value.get()).write(value) };
        slot.full.store(true, Ordering::Release);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Goes on in a larger ring.
    #[cold]
    fn push_on(&mut self, value: T) {
        let slots = (self.ring.slots.len() * 2).min(SLOTS_MAX);
        let next = Ring::new(slots);
        let _ = self.ring.next.set(Arc::clone(&next));
        (self.ring, self.tail) = (next, 0);
        self.push(value);
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            if *slot.full.get_mut() {
                // SAFETY: the slot is full, so its value is initialised; and neither side is left,
                // since each keeps its ring alive.
                unsafe { slot.value.get_mut().assume_init_drop() };
            }
        }
    }
}

impl<T> Consumer<T> {
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if !self.ring.slot(self.head).full.load(Ordering::Acquire) && !self.go_on() {
            return None;
        }
        let slot = self.ring.slot(self.head);
        // SAFETY: the slot is full, so it is the consumer's (G1), which is this one, and its value
        // is initialised. The acquire load pairs with the producer's release: the value is whole.
        // It is not read again, since the slot is empty from here on.
        let value = unsafe { (*slot.value.get()).assume_init_read() };
        slot.full.store(false, Ordering::Release);
        self.head = self.head.wrapping_add(1);
        Some(value)
    }

    /// Looks whether the producer went on in another ring; true when the slot at the head is full.
    #[cold]
    fn go_on(&mut self) -> bool {
        while let Some(next) = self.ring.next.get().map(Arc::clone) {
            // The producer went on because this ring was full; what it had put here before is seen
            // by whoever sees the next ring. Only when nothing of it is left is this ring done.
            if !self.is_head_full() {
                (self.ring, self.head) = (next, 0);
            }
            if self.is_head_full() {
                return true;
            }
        }
        false
    }

    fn is_head_full(&self) -> bool {
        self.ring.slot(self.head).full.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g2_everything_comes_out_once_and_in_order_over_any_number_of_rings() {
        let (mut producer, mut consumer) = ring();
        let (mut pushed, mut popped) = (0_u32, 0_u32);
        for round in 0..2_000_u32 {
            for _ in 0..round % 97 {
                producer.push(pushed);
                pushed += 1;
            }
            for _ in 0..round % 89 {
                if let Some(value) = consumer.pop() {
                    assert_eq!(value, popped);
                    popped += 1;
                }
            }
        }
        while let Some(value) = consumer.pop() {
            assert_eq!(value, popped);
            popped += 1;
        }
        assert_eq!(popped, pushed);
    }

    #[test]
    fn g1_g2_two_threads_hand_over_every_value_whole() {
        const VALUES: u64 = 300_000;
        let (mut producer, mut consumer) = ring::<Box<u64>>();
        std::thread::scope(|scope| {
            scope.spawn(move || (0..VALUES).for_each(|value| producer.push(Box::new(value))));
            scope.spawn(move || {
                let mut expected = 0;
                while expected < VALUES {
                    match consumer.pop() {
                        Some(value) => {
                            assert_eq!(*value, expected);
                            expected += 1;
                        }
                        None => std::thread::yield_now(),
                    }
                }
            });
        });
    }

    #[test]
    fn g3_a_ring_that_is_large_enough_is_used_for_ever_and_the_small_ones_are_gone() {
        let (mut producer, mut consumer) = ring();
        (0..1_000).for_each(|value| producer.push(value));
        while consumer.pop().is_some() {}
        let ring = Arc::as_ptr(&producer.ring);
        for value in 0..100_000 {
            producer.push(value);
            assert_eq!(consumer.pop(), Some(value));
        }
        assert!(std::ptr::eq(ring, Arc::as_ptr(&producer.ring)));
        assert_eq!(Arc::strong_count(&producer.ring), 2, "one for each side, and no more");
    }

    #[test]
    fn values_that_nobody_popped_are_dropped_with_the_queue() {
        let witness = Arc::new(());
        let (mut producer, consumer) = ring();
        (0..100).for_each(|_| producer.push(Arc::clone(&witness)));
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&witness), 1);
    }
}
