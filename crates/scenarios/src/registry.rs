//! Which scenarios there are.

use crate::{channel, register, sds, stream};
use std::{
    io::{Write, stdout},
    time::Duration,
};

/// All scenarios, in the order in which they run.
pub(crate) const SCENARIOS: &[Scenario] =
    &[register::SCENARIO, channel::SCENARIO, sds::SCENARIO, stream::SCENARIO];

/// A protocol in the seeded world.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// What [`Outcome::worked`] counts.
    pub(crate) work: &'static str,
    /// The whole story of a seed. It must depend on nothing else.
    pub(crate) run: fn(seed: u64, options: &Options) -> Outcome,
    /// Rules that it can break on purpose; each has to be found.
    pub(crate) planted: &'static [Planted],
}

/// A fault that is planted.
pub(crate) struct Planted {
    pub(crate) name: &'static str,
    pub(crate) breaks: &'static str,
}

impl Planted {
    pub(crate) const fn new(name: &'static str, breaks: &'static str) -> Self {
        Self { name, breaks }
    }

    /// Those of a protocol that names its flaws itself: each with its name, and what it breaks.
    pub(crate) const fn all<F, const N: usize>(
        flaws: &[(F, &'static str, &'static str); N],
    ) -> [Self; N] {
        let mut all = [const { Self::new("", "") }; N];
        let mut at = 0;
        while at < N {
            all[at] = Self::new(flaws[at].1, flaws[at].2);
            at += 1;
        }
        all
    }
}

/// How a seed is to be run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// With this fault planted.
    pub(crate) planted: Option<&'static str>,
    /// With all that happens on standard output.
    pub(crate) trace: bool,
}

/// Where the lines of a trace go.
pub(crate) type Sink = Box<dyn FnMut(&str)>;

impl Options {
    /// The flaw that is planted, if any: `flaws` are those of the `names`, in the same order.
    pub(crate) fn flaw<F: Copy>(
        &self,
        names: &[Planted],
        flaws: impl Iterator<Item = F>,
    ) -> Option<F> {
        let mut all = names.iter().zip(flaws);
        all.find(|(planted, _)| self.planted == Some(planted.name)).map(|(_, flaw)| flaw)
    }

    /// Where the trace goes, if anywhere.
    pub(crate) fn sink(&self) -> Option<Sink> {
        // Whoever stops reading a trace has seen enough of it.
        self.trace.then(|| -> Sink { Box::new(|line| drop(writeln!(stdout(), "{line}"))) })
    }
}

/// What became of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) result: Result<(), String>,
    pub(crate) trace_hash: u64,
    pub(crate) events: u64,
    /// How much virtual time passed.
    pub(crate) simulated: Duration,
    /// How much was done: a scenario that does nothing finds nothing.
    pub(crate) worked: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        for scenario in SCENARIOS {
            let planted: BTreeSet<_> = scenario.planted.iter().map(|p| p.name).collect();
            assert_eq!(planted.len(), scenario.planted.len(), "{}", scenario.name);
        }
    }

    #[test]
    fn every_scenario_is_the_same_twice_for_a_seed_and_does_something() {
        for scenario in SCENARIOS {
            let worked: u64 = (1..=8)
                .map(|seed| {
                    let run = || (scenario.run)(seed, &Options::default());
                    let once = run();
                    assert_eq!(once, run(), "{} seed {seed}", scenario.name);
                    assert_eq!(once.result, Ok(()), "{} seed {seed}", scenario.name);
                    once.worked
                })
                .sum();
            assert!(worked > 0, "{} does nothing", scenario.name);
        }
    }
}
