//! Seeds over threads: one world a thread, results in one place.
//!
//! Now and then a seed is run twice, and its traces compared: a scenario that depends on anything
//! but its seed could not be replayed when it matters.

use crate::{
    progress::Progress,
    registry::{Options, Outcome, Scenario},
    seeds::Seeds,
};
use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    sync::{
        Once,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

/// Every so many seeds, one is run twice.
const TWICE_EVERY: u64 = 16;
/// So many failures are shown; more are counted.
const SHOWN_MAX: u64 = 10;

/// What is to be run, and how.
pub(crate) struct Batch<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) planted: Option<&'static str>,
    pub(crate) trace: bool,
    pub(crate) threads: usize,
}

/// What a batch has come to.
#[derive(Default, Debug)]
pub(crate) struct Sum {
    pub(crate) seeds: u64,
    pub(crate) failed: u64,
    pub(crate) events: u64,
    pub(crate) worked: u64,
    pub(crate) simulated: Duration,
    /// Of the last seed that came in.
    pub(crate) trace_hash: Option<u64>,
}

/// A seed that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) what: String,
    pub(crate) trace_hash: u64,
}

impl Batch<'_> {
    /// Runs all seeds, or until one fails if that is enough.
    pub(crate) fn run(
        &self,
        seeds: Seeds,
        first_is_enough: bool,
        mut tell: impl FnMut(&Failure),
    ) -> Sum {
        quiet_panics();
        let next = AtomicU64::new(0);
        let enough = AtomicBool::new(false);
        let (send, outcomes) = mpsc::channel();
        let mut sum = Sum::default();
        thread::scope(|scope| {
            for _ in 0..self.threads.min(usize::try_from(seeds.count()).unwrap_or(usize::MAX)) {
                let (send, next, enough) = (send.clone(), &next, &enough);
                scope.spawn(move || {
                    while !enough.load(Relaxed) {
                        let at = next.fetch_add(1, Relaxed);
                        if at >= seeds.count() {
                            break;
                        }
                        let seed = seeds.first + at;
                        if send.send((seed, self.one(seed))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(send);
            let mut progress = Progress::new();
            for (seed, outcome) in outcomes {
                sum.add(&outcome);
                if let Err(what) = outcome.result {
                    sum.failed += 1;
                    enough.store(first_is_enough, Relaxed);
                    if sum.failed <= SHOWN_MAX {
                        progress.end();
                        tell(&Failure { seed, what, trace_hash: outcome.trace_hash });
                    }
                }
                progress.show(|| {
                    let (name, done, failed) = (self.scenario.name, sum.seeds, sum.failed);
                    format!("{name}: {done} of {} seeds, {failed} failed", seeds.count())
                });
            }
            progress.end();
        });
        sum
    }

    /// A seed that fails: the first one, or nearly.
    pub(crate) fn find(&self, seeds: Seeds) -> Option<Failure> {
        let mut found: Vec<Failure> = Vec::new();
        self.run(seeds, true, |failure| found.push(failure.clone()));
        found.into_iter().min_by_key(|failure| failure.seed)
    }

    /// Does it fail in the same way, with the same trace, once more, and once more again?
    pub(crate) fn replays(&self, failure: &Failure) -> bool {
        (0..2).all(|_| {
            let outcome = self.once(failure.seed);
            outcome.result.as_ref() == Err(&failure.what)
                && outcome.trace_hash == failure.trace_hash
        })
    }

    fn one(&self, seed: u64) -> Outcome {
        let mut outcome = self.once(seed);
        if seed.is_multiple_of(TWICE_EVERY) && !self.trace && outcome.result.is_ok() {
            let again = self.once(seed);
            if again != outcome {
                outcome.result = Err(format!(
                    "two runs of this seed differ (traces {:016x} and {:016x}, {} and {} events): \
                     something beside the seed takes part",
                    outcome.trace_hash, again.trace_hash, outcome.events, again.events
                ));
            }
        }
        outcome
    }

    /// A panic is a failure like any other: an assertion has found something.
    fn once(&self, seed: u64) -> Outcome {
        let options = Options { planted: self.planted, trace: self.trace };
        let run = AssertUnwindSafe(|| (self.scenario.run)(seed, &options));
        panic::catch_unwind(run).unwrap_or_else(|_| {
            let what = LAST_PANIC.take().unwrap_or_else(|| "a panic without a word".into());
            let (events, worked, simulated) = (0, 0, Duration::ZERO);
            Outcome { result: Err(what), trace_hash: 0, events, simulated, worked }
        })
    }
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.worked += outcome.worked;
        self.simulated += outcome.simulated;
        self.trace_hash = Some(outcome.trace_hash);
    }
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics are kept for the report instead of being printed among other lines.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let what = info.to_string().replace('\n', " ");
            LAST_PANIC.set(Some(what));
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    const ALL: Seeds = Seeds { first: 1, last: 100 };

    fn scenario(run: fn(u64, &Options) -> Outcome) -> Scenario {
        Scenario { name: "test", about: "", work: "", run, planted: &[] }
    }

    fn batch(scenario: &Scenario) -> Batch<'_> {
        Batch { scenario, planted: None, trace: false, threads: 3 }
    }

    fn outcome(seed: u64, result: Result<(), String>) -> Outcome {
        let simulated = Duration::from_secs(1);
        Outcome { result, trace_hash: seed, events: 2, simulated, worked: 3 }
    }

    #[test]
    fn every_seed_is_run_and_the_failures_are_told_and_counted() {
        let scenario = scenario(|seed, _| {
            let failed = seed.is_multiple_of(40);
            outcome(seed, if failed { Err(format!("no {seed}")) } else { Ok(()) })
        });
        let mut told = Vec::new();
        let sum = batch(&scenario).run(ALL, false, |failure| told.push(failure.clone()));
        told.sort_by_key(|failure| failure.seed);
        let expected =
            [40, 80].map(|seed| Failure { seed, what: format!("no {seed}"), trace_hash: seed });
        assert_eq!(told, expected);
        assert_eq!((sum.seeds, sum.failed, sum.events, sum.worked), (100, 2, 200, 300));
        assert_eq!(sum.simulated, Duration::from_secs(100));
    }

    #[test]
    fn a_panic_is_a_failure_and_the_others_go_on() {
        let scenario = scenario(|seed, _| {
            assert_ne!(seed, 7, "I3: seven is not allowed");
            outcome(seed, Ok(()))
        });
        let mut told = Vec::new();
        let sum = batch(&scenario).run(ALL, false, |failure| told.push(failure.clone()));
        assert_eq!((sum.seeds, sum.failed), (100, 1));
        assert!(told[0].seed == 7 && told[0].what.contains("I3: seven is not allowed"), "{told:?}");
    }

    #[test]
    fn a_scenario_that_depends_on_more_than_its_seed_is_found() {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let scenario = scenario(|_, _| outcome(CALLS.fetch_add(1, Relaxed), Ok(())));
        let mut told = Vec::new();
        batch(&scenario).run(ALL, false, |failure| told.push(failure.clone()));
        assert!(!told.is_empty());
        assert!(told.iter().all(|failure| failure.seed.is_multiple_of(TWICE_EVERY)));
        assert!(told[0].what.contains("something beside the seed"), "{told:?}");
    }

    #[test]
    fn one_failure_is_enough_where_that_is_asked_for_and_is_replayed() {
        let scenario =
            scenario(|seed, _| outcome(seed, if seed >= 5 { Err("five".into()) } else { Ok(()) }));
        let batch = batch(&scenario);
        let found = batch.find(Seeds { first: 1, last: u64::MAX }).unwrap();
        assert!((5..100).contains(&found.seed), "{found:?}");
        assert!(batch.replays(&found));
        let other = Failure { trace_hash: 1, ..found };
        assert!(!batch.replays(&other));
    }
}
