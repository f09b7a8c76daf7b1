//! The pool's figures, one file a group.

mod allocate;
mod attach;
mod growth;
mod holder;
mod index;
mod read;
mod recover;
mod scaling;

use mainstay_base::Rng;
use mainstay_pool::PoolOptions;

use crate::part::{Group, Part};

pub(crate) const PART: Part =
    Part { name: "pool", groups: GROUPS, roles: &[scaling::SCALE, holder::FILL, holder::TAKE] };

const GROUPS: &[Group] = &[
    allocate::GROUP,
    scaling::THREADS,
    scaling::PROCESSES,
    attach::GROUP,
    index::GROUP,
    read::GROUP,
    growth::GROUP,
    recover::GROUP,
];

/// A million: what "at 10^6 blocks" means in a figure's name.
const MILLION: u32 = 1_000_000;
const SEED: u64 = 0x6d61_696e_7374_6179;

fn options(block_size: usize) -> PoolOptions {
    PoolOptions::new("bench", block_size)
}

/// The same random order of `items` on every run.
fn shuffled<T>(mut items: Vec<T>) -> Vec<T> {
    let mut rng = Rng::seeded(SEED);
    for end in (1..items.len()).rev() {
        let other = rng.below(end as u64 + 1);
        items.swap(end, other as usize);
    }
    items
}

/// Walks a list round and round, going on where the sample before stopped.
struct Walk<T> {
    items: Vec<T>,
    next: usize,
}

impl<T: Copy> Walk<T> {
    fn new(items: Vec<T>) -> Walk<T> {
        assert!(!items.is_empty(), "there must be something to walk over");
        Walk { items, next: 0 }
    }

    #[inline]
    fn step(&mut self) -> T {
        let item = self.items[self.next];
        self.next += 1;
        if self.next == self.items.len() {
            self.next = 0;
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffling_keeps_every_item_and_a_walk_comes_round_again() {
        let mut order = shuffled((0..1_000).collect::<Vec<u32>>());
        assert_ne!(order, (0..1_000).collect::<Vec<u32>>());
        let mut walk = Walk::new(order.clone());
        let first: Vec<u32> = (0..1_000).map(|_| walk.step()).collect();
        assert_eq!(first, order);
        assert_eq!(walk.step(), order[0]);
        order.sort_unstable();
        assert_eq!(order, (0..1_000).collect::<Vec<u32>>());
    }
}
