//! The example as the world's own proof: right over many seeds, and each of its flaws found.

use mainstay_sim::example::{Flaw, run};
use std::{cell::RefCell, rc::Rc};

/// Seeds for the correct register, and at most so many for each flaw.
const SEEDS: u64 = 300;
const SEEDS_PER_FLAW: u64 = 3_000;

fn first_seed_that_finds(flaw: Flaw) -> Option<u64> {
    (1..=SEEDS_PER_FLAW).find(|seed| run(*seed, Some(flaw), None).result.is_err())
}

fn lines_of(seed: u64, flaw: Option<Flaw>) -> Vec<String> {
    let lines = Rc::new(RefCell::new(Vec::new()));
    let to = lines.clone();
    let _ = run(seed, flaw, Some(Box::new(move |line| to.borrow_mut().push(line.to_owned()))));
    lines.take()
}

#[test]
fn the_register_is_linearizable_and_every_operation_ends_whatever_goes_wrong() {
    let mut answered = 0;
    for seed in 1..=SEEDS {
        let run = run(seed, None, None);
        assert_eq!(run.result, Ok(()), "seed {seed}");
        answered += run.answered;
    }
    assert!(answered > 20_000, "the clients got little done: {answered}");
}

#[test]
fn every_flaw_is_found_and_its_seed_replays_to_the_same_trace_twice() {
    for (flaw, name, _) in Flaw::ALL {
        let seed = first_seed_that_finds(flaw);
        let seed = seed.unwrap_or_else(|| panic!("{name}: not found in {SEEDS_PER_FLAW} seeds"));
        let (once, again) = (run(seed, Some(flaw), None), run(seed, Some(flaw), None));
        assert_eq!(once.result, again.result, "{name}: seed {seed}");
        assert_eq!(once.trace_hash, again.trace_hash, "{name}: seed {seed}");
        let (lines, same) = (lines_of(seed, Some(flaw)), lines_of(seed, Some(flaw)));
        assert!(!lines.is_empty());
        assert!(lines == same, "{name}: seed {seed} told two stories");
        eprintln!("{name}: seed {seed}, {} lines, {}", lines.len(), once.result.unwrap_err());
    }
}

#[test]
fn two_seeds_tell_two_stories() {
    assert_ne!(run(1, None, None).trace_hash, run(2, None, None).trace_hash);
}
