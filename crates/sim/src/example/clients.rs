//! Clients of the register, and the whole run: faults, healing, and the question whether anybody
//! saw what could not be.

use super::{Answer, Flaw, Register, Wish};
use crate::{
    Boot, Chance, Error, Fault, FaultSet, Faults, Happening, NodeId, Setup, Story, Time, World,
    check::{Cell, CellCall, CellReply, History, OpId, Verdict},
    random::stream,
};
use mainstay_base::Rng;
use std::{collections::BTreeMap, time::Duration};

/// How long everything may go wrong, and how long it may take after that until all is well.
const SAFETY: Duration = Duration::from_secs(20);
const LIVENESS: Duration = Duration::from_secs(30);

/// How long a client thinks between two operations, at most: some seeds have hasty ones.
const THINKS_MS: [u64; 4] = [20, 60, 200, 600];

/// A client at each node or at some, that reads and writes by turns of chance, and writes down what it sees.
///
/// Example: see [`run`].
pub struct Clients {
    rng: Rng,
    thinks: Duration,
    history: History<CellCall<u64>, CellReply<u64>>,
    /// What was asked at each node and not answered yet, in order.
    asked: BTreeMap<NodeId, OpId>,
    values: u64,
    asking: bool,
}

impl Clients {
    fn new(seed: u64) -> Self {
        let mut rng = stream(seed, "clients");
        Self {
            thinks: Duration::from_millis(*rng.pick(&THINKS_MS)),
            rng,
            history: History::new(),
            asked: BTreeMap::new(),
            values: 0,
            asking: true,
        }
    }

    fn ask(&mut self, world: &mut World<Register>, node: NodeId) {
        if self.asked.contains_key(&node) || world.node(node).is_none() {
            return;
        }
        let wish = if self.rng.chance(500_000) {
            self.values += 1;
            Wish::Write(self.values)
        } else {
            Wish::Read
        };
        let call = match wish {
            Wish::Read => CellCall::Read,
            Wish::Write(value) => CellCall::Write(value),
        };
        self.asked.insert(node, self.history.call(call));
        world.command(node, wish);
    }

    /// No more questions.
    fn stop(&mut self) {
        self.asking = false;
    }

    fn are_content(&self) -> bool {
        self.asked.is_empty()
    }

    /// What they saw.
    ///
    /// Example: see [`run`].
    #[must_use]
    pub fn history(&self) -> &History<CellCall<u64>, CellReply<u64>> {
        &self.history
    }
}

impl Story<Register> for Clients {
    fn happens(
        &mut self,
        world: &mut World<Register>,
        what: Happening<Answer>,
    ) -> Result<(), String> {
        match what {
            Happening::Alarm(node) => {
                let node = NodeId(node as u32);
                if self.asking {
                    self.ask(world, node);
                    world.alarm(self.rng.within(self.thinks), u64::from(node.0));
                }
            }
            Happening::Report { node, report } => {
                let asked = self.asked.remove(&node);
                let operation =
                    asked.ok_or_else(|| format!("{node} answers an unasked {report:?}"))?;
                let reply = match report {
                    Answer::Value(value) => CellReply::Value(value),
                    Answer::Written => CellReply::Written,
                };
                self.history.returns(operation, reply);
            }
            // The client will never know: its operation stays open.
            Happening::Ended(node) => {
                self.asked.remove(&node);
            }
            Happening::Restarted(_) => {}
        }
        Ok(())
    }
}

/// What became of a run.
///
/// Example: see [`run`].
pub struct Run {
    /// What was wrong.
    pub result: Result<(), Error>,
    /// Two runs of one seed have the same.
    pub trace_hash: u64,
    /// How many events there were.
    pub events: u64,
    /// How many operations were answered.
    pub answered: usize,
    /// How much virtual time passed.
    pub simulated: Duration,
}

/// Where the lines of a trace go.
type Sink = Box<dyn FnMut(&str)>;

/// The whole story of a seed: one to five nodes, a client at each or at some, every fault that the register
/// must survive; then healing, and the end of all operations; then the judgement.
///
/// ```
/// use mainstay_sim::example::run;
/// let (once, again) = (run(7, None, None), run(7, None, None));
/// assert!(once.result.is_ok() && once.answered > 0);
/// assert_eq!(once.trace_hash, again.trace_hash);
/// ```
#[must_use]
pub fn run(seed: u64, flaw: Option<Flaw>, trace: Option<Sink>) -> Run {
    let mut rng = stream(seed, "set-up");
    // An even number too: half of four is no majority. And one: nobody covers up for its disk.
    let nodes = rng.between(1, 5) as u32;
    let make = move |boot: Boot| Register::flawed(boot, nodes, flaw);
    let mut world = World::new(seed, Setup::default(), make);
    if let Some(sink) = trace {
        world.trace_to(sink);
    }
    let mut clients = Clients::new(seed);
    let result = play(&mut world, &mut clients, seed, nodes);
    Run {
        result,
        trace_hash: world.trace_hash(),
        events: world.events(),
        answered: clients.history.answered(),
        simulated: world.now().since(Time::START),
    }
}

fn play(
    world: &mut World<Register>,
    clients: &mut Clients,
    seed: u64,
    nodes: u32,
) -> Result<(), Error> {
    let also = FaultSet::of(&[Fault::Shred]);
    let allowed = FaultSet::NETWORK | FaultSet::PROCESS | FaultSet::DISK | also;
    let faults = Faults::drawn(seed, allowed);
    world.add_nodes(nodes as usize);
    world.unleash(&faults);
    let askers = clients.rng.between(1, u64::from(nodes));
    for node in world.nodes().take(askers as usize) {
        world.alarm(Duration::ZERO, u64::from(node.0));
    }
    world.run(SAFETY, clients)?;

    world.heal();
    clients.stop();
    let (done, _) = world.run_until(LIVENESS, clients, |clients, _| clients.are_content())?;
    let failed = |what| Err(Error::Failed { at: world.now(), what });
    if !done {
        return failed(format!("{LIVENESS:?} after all was mended, an operation still waits"));
    }
    match clients.history.linearizable(&Cell::of(0)) {
        Verdict::Linearizable(_) => Ok(()),
        Verdict::Violation(violation) => failed(violation.to_string()),
        Verdict::GaveUp { states } => failed(format!("nobody knows after {states} states")),
    }
}
