//! The simulator's own example: a register on several nodes. See [`mainstay_sim::example`].

use crate::registry::{Options, Outcome, Planted, Scenario};
use mainstay_sim::example::{Flaw, run};

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "register",
    about: "a register on one to five nodes stays linearizable: the simulator's own proof",
    work: "operations answered",
    run: play,
    planted: &FLAWS,
};

const FLAWS: [Planted; Flaw::ALL.len()] = {
    let mut flaws = [const { Planted { name: "", breaks: "" } }; Flaw::ALL.len()];
    let mut at = 0;
    while at < flaws.len() {
        flaws[at] = Planted { name: Flaw::ALL[at].1, breaks: Flaw::ALL[at].2 };
        at += 1;
    }
    flaws
};

fn play(seed: u64, options: &Options) -> Outcome {
    let planted = |(flaw, name, _): &(Flaw, &str, &str)| {
        options.planted.is_some_and(|planted| planted == *name).then_some(*flaw)
    };
    let flaw = Flaw::ALL.iter().find_map(planted);
    let run = run(seed, flaw, options.sink());
    Outcome {
        result: run.result.map_err(|error| error.to_string()),
        trace_hash: run.trace_hash,
        events: run.events,
        simulated: run.simulated,
        worked: run.answered as u64,
    }
}
