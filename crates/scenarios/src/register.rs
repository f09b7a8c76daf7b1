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

const FLAWS: [Planted; Flaw::ALL.len()] = Planted::all(&Flaw::ALL);

fn play(seed: u64, options: &Options) -> Outcome {
    let flaw = options.flaw(&FLAWS, Flaw::ALL.iter().map(|(flaw, ..)| *flaw));
    let run = run(seed, flaw, options.sink());
    Outcome {
        result: run.result.map_err(|error| error.to_string()),
        trace_hash: run.trace_hash,
        events: run.events,
        simulated: run.simulated,
        worked: run.answered as u64,
    }
}
