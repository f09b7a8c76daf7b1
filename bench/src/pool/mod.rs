//! The pool's figures, one file a group.

mod allocate;
mod attach;
mod growth;
pub(crate) mod holder;
mod index;
mod read;
mod recover;
pub(crate) mod scaling;

use std::path::Path;

use mainstay_base::Rng;
use mainstay_pool::PoolOptions;

use crate::Outcome;
use crate::method::Plan;
use crate::report::Report;

/// Figures that are measured together because they share their set-up.
pub(crate) struct Group {
    pub(crate) figures: &'static [&'static str],
    pub(crate) measure: fn(&Plan, &Path, &mut Report) -> Outcome<()>,
}

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

/// The groups with a figure that `names` ask for; an error when a name asks for nothing there is.
pub(crate) fn groups_named(names: &[String]) -> Outcome<Vec<&'static Group>> {
    let figures = || GROUPS.iter().flat_map(|group| group.figures.iter().copied());
    for name in names {
        if !figures().any(|figure| figure.starts_with(name.as_str())) {
            let known: Vec<&str> = figures().collect();
            return Err(
                format!("no figure is called {name}; there are {}", known.join(", ")).into()
            );
        }
    }
    let wanted = |group: &&Group| group.figures.iter().any(|figure| is_named(names, figure));
    Ok(GROUPS.iter().filter(wanted).collect())
}

/// Whether one of `names` is the beginning of `figure`. No names ask for everything.
pub(crate) fn is_named(names: &[String], figure: &str) -> bool {
    names.is_empty() || names.iter().any(|name| figure.starts_with(name.as_str()))
}

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

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_name_selects_by_its_beginning_and_an_unknown_one_is_refused() {
        assert_eq!(groups_named(&names(&["pool"])).unwrap().len(), GROUPS.len());
        assert_eq!(groups_named(&[]).unwrap().len(), GROUPS.len());
        let attach = groups_named(&names(&["pool.attach_hot"])).unwrap();
        assert_eq!(attach.len(), 1);
        assert!(attach[0].figures.contains(&"pool.attach_random_1e5"));
        let error = groups_named(&names(&["pool.atach"])).err().unwrap().to_string();
        assert!(error.contains("pool.atach") && error.contains("pool.attach_hot"), "{error}");
    }

    #[test]
    fn no_two_groups_measure_a_figure_of_one_name() {
        let mut all: Vec<&str> = GROUPS.iter().flat_map(|g| g.figures.iter().copied()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

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
