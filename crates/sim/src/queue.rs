//! What is to happen, in the order in which it will.
//!
//! Q1. Of two events the earlier comes first; of two at one time, the one with the smaller tie
//! word, which is the number of the event or a permutation of it: never the same for two.

use crate::{Time, limits::EVENTS_WAITING_MAX};
use mainstay_base::mix64;
use std::{cmp::Reverse, collections::BinaryHeap};

/// Which of two events at one point in time comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ties {
    /// The one that was thought of first.
    InOrder,
    /// Whichever, as the seed has it: what nobody orders may happen in any order.
    Shuffled(u64),
}

pub(crate) struct Queue<E> {
    /// Small, because a heap moves what it holds; the events themselves stay where they are.
    heap: BinaryHeap<Reverse<(Time, u64, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    numbered: u64,
    ties: Ties,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            numbered: 0,
            ties: Ties::InOrder,
        }
    }

    pub(crate) fn set_ties(&mut self, ties: Ties) {
        self.ties = ties;
    }

    pub(crate) fn push(&mut self, at: Time, event: E) {
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place as usize] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                (self.events.len() - 1) as u32
            }
        };
        let tie = match self.ties {
            Ties::InOrder => self.numbered,
            // A bijection, so no two events have the same word.
            Ties::Shuffled(secret) => mix64(self.numbered ^ secret),
        };
        self.numbered += 1;
        self.heap.push(Reverse((at, tie, place)));
    }

    /// The next event, if it is due by `until`.
    pub(crate) fn pop(&mut self, until: Time) -> Option<(Time, E)> {
        let &Reverse((at, _, place)) = self.heap.peek()?;
        if at > until {
            return None;
        }
        self.heap.pop();
        self.free.push(place);
        let event = self.events[place as usize].take();
        Some((at, event.expect("Q1: a place in the heap has its event until it is popped")))
    }

    pub(crate) fn waiting(&self) -> usize {
        self.heap.len()
    }

    /// More wait than a world can hold.
    pub(crate) fn is_flooded(&self) -> bool {
        self.waiting() > EVENTS_WAITING_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    fn drained(queue: &mut Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop(Time::NEVER)).map(|(_, event)| event).collect()
    }

    #[test]
    fn q1_events_come_by_time_and_then_in_the_order_they_were_thought_of() {
        let mut queue = Queue::new();
        for (time, event) in [(5, 0), (3, 1), (5, 2), (3, 3), (4, 4)] {
            queue.push(at(time), event);
        }
        assert_eq!(queue.pop(at(2)), None);
        assert_eq!(queue.pop(at(3)), Some((at(3), 1)));
        assert_eq!(drained(&mut queue), [3, 4, 0, 2]);
    }

    #[test]
    fn q1_shuffled_ties_are_another_order_for_another_seed_and_the_same_for_the_same() {
        let order = |secret| {
            let mut queue = Queue::new();
            queue.set_ties(Ties::Shuffled(secret));
            queue.push(at(9), 100);
            (0..10).for_each(|event| queue.push(at(5), event));
            drained(&mut queue)
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert_eq!(order(1).last(), Some(&100));
    }

    #[test]
    fn places_are_used_again() {
        let mut queue = Queue::new();
        for event in 0..1_000 {
            queue.push(at(event), event);
            assert!(queue.pop(Time::NEVER).is_some());
        }
        assert_eq!(queue.events.len(), 1);
    }

    #[test]
    fn a_queue_is_flooded_one_past_its_limit() {
        let mut queue = Queue::new();
        (0..EVENTS_WAITING_MAX).for_each(|_| queue.push(at(1), ()));
        assert!(!queue.is_flooded());
        queue.push(at(1), ());
        assert!(queue.is_flooded());
    }
}
