//! Reading a version that was not seen before, while its writer writes as fast as it can.
//!
//! Reader and writer have a processor each, if there are two: side by side on one of them, which the
//! scheduler may choose for one side and not for the other, they would take turns.

use std::path::Path;
use std::time::{Duration, Instant};

use super::value::{Reader, SIZES, TORN, keepers, tell_who_is_missing};
use super::writer::Remote;
use crate::Outcome;
use crate::clock::{Span, wall_ns};
use crate::method::{Plan, Summary, Timing};
use crate::part::Group;
use crate::processors::Tied;
use crate::report::{Aim, Ratio, Report, Unit};

pub(super) const GROUP: Group = Group {
    figures: &[
        "state.read_new_64",
        "state.read_new_1k",
        "state.read_new_4k",
        "state.read_new_64k",
        "state.read_new_p99_64",
        "state.read_new_p99_1k",
        "state.read_new_p99_4k",
        "state.read_new_p99_64k",
    ],
    measure,
};

/// How long one side reads in a round: many short rounds, as how fast two processors hear of each other
/// changes all the time on a virtual machine.
const ROUND: Duration = Duration::from_millis(4);

/// What is asked: to be behind nobody.
const ASKED: f64 = 1.0;

fn measure(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    tell_who_is_missing(report);
    let tied = Tied::new()?;
    for size in SIZES {
        let mut sides = Vec::new();
        for keeper in keepers() {
            let folder = scratch.join(format!("new-{}-{}", keeper.name, size.name));
            std::fs::create_dir(&folder)?;
            let remote = Remote::start(keeper.name, &folder, size, tied.there)?;
            let reader = (keeper.reader)(&folder, size)?;
            let (p50, p99) = (vec![], vec![]);
            sides.push(Busy { name: keeper.name, remote, reader, p50, p99, torn: 0 });
        }
        for round in 0..=plan.repetitions / 2 {
            for turn in 0..sides.len() {
                let who = (round + turn) % sides.len();
                sides[who].round(round > 0)?;
            }
        }
        let (ours, peers) = sides.split_first().ok_or("nobody was measured")?;
        for peer in peers {
            let name = format!("state.read_new_{}", size.name);
            let ratio = Ratio::of_wall(&name, Unit::Ns, &ours.median()?, &peer.median()?);
            report.ask(ratio, ASKED);
        }
        for side in &sides {
            let p99 = Summary::of(&side.p99).ok_or("nothing was read")?;
            let name = format!("state.read_new_p99_{}", size.name);
            let aim = Aim::of_ns(&name, &p99, None, Unit::Ns);
            let note = format!("{}, {} torn, {}", side.name, side.torn, aim.note);
            report.aims.push(aim.with_note(note));
        }
    }
    Ok(())
}

/// One side, with what its rounds came to.
struct Busy {
    name: &'static str,
    remote: Remote,
    reader: Box<dyn Reader>,
    p50: Vec<Option<Span>>,
    p99: Vec<f64>,
    torn: u64,
}

impl Busy {
    fn round(&mut self, counts: bool) -> Outcome<()> {
        let reader = &mut self.reader;
        let (mut times, torn) = self.remote.while_writing(|| fresh_reads(reader))?;
        self.torn += torn;
        if torn > 0 && self.name == super::ours::KEEPER.name {
            return Err("a torn value was read, which must never be".into());
        }
        if !counts {
            return Ok(());
        }
        if times.is_empty() {
            self.p50.push(None);
            return Ok(());
        }
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] as f64;
        self.p50.push(Some(Span { wall_ns: at(0.5), cpu_ns: at(0.5) }));
        self.p99.push(at(0.99));
        Ok(())
    }

    fn median(&self) -> Outcome<Timing> {
        let timing = Timing::of(self.name, self.p50.clone());
        timing.ok_or_else(|| format!("{} showed no new version to its reader", self.name).into())
    }
}

/// How long each read took that showed a version not seen before, and how many were torn.
fn fresh_reads(reader: &mut Box<dyn Reader>) -> Outcome<(Vec<u64>, u64)> {
    let mut torn = 0;
    let mut times = Vec::with_capacity(1 << 16);
    let mut last = reader.read()?;
    let start = Instant::now();
    while start.elapsed() < ROUND {
        for _ in 0..64 {
            let before = wall_ns();
            let stamp = reader.read()?;
            let after = wall_ns();
            if stamp == TORN {
                torn += 1;
            } else if stamp != last {
                last = stamp;
                times.push(after - before);
            }
        }
    }
    Ok((times, torn))
}
