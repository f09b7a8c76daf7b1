//! Getting, by one thread and by two, and looking at everything.
//!
//! Keys are drawn evenly from all of them, so that next to no record is in a cache. Gets are timed
//! *steady*, as a process has them that does little else (M6 of [`crate::method`]), and *cold*: then
//! each sample is of a millisecond, behind all other engines, and finds nothing of its own store in any
//! cache, addresses and code included. Both are the same gets of the same engines, which are all called
//! in one loop; a value is looked at where the engine put it.

use std::path::Path;

use mainstay_base::Rng;

use super::engines::Engine;
use super::{add, filled, on_a_disk, records};
use crate::Outcome;
use crate::clock::Span;
use crate::method::{Plan, Round, Side, Timing, interleave, rounds, steady};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};
use crate::windows::{Load, Scaling, run_threads};

pub(super) const SMALL: Group = Group {
    figures: &["store.get", "store.get_cold", "store.get_two_threads", "store.scan"],
    measure: measure::<64>,
};
pub(super) const LARGE: Group = Group {
    figures: &[
        "store.get_256",
        "store.get_256_cold",
        "store.get_256_two_threads",
        "store.scan_256",
    ],
    measure: measure::<256>,
};

/// Gets between two looks at the clock.
const BATCH: u64 = 100;
/// Undisturbed windows to stop at, and how often to try again for them on a busy machine.
const WINDOWS_WANTED: usize = 40;
const TRIES: usize = 8;

fn measure<const V: usize>(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let names = if V == 64 { SMALL.figures } else { LARGE.figures };
    let disk = on_a_disk(scratch)?;
    let count = records(plan);
    let engines = filled::<V>(disk.path(), count)?;

    type Timed = fn(&Plan, Vec<Side<'_>>) -> Outcome<Vec<Timing>>;
    for (name, timed) in names.iter().zip([steady as Timed, interleave]) {
        let sides = engines.iter().map(|engine| {
            let mut rng = Rng::seeded(1);
            Side::new(engine.name(), move |times| engine.get(times, count, &mut rng))
        });
        let timings = timed(plan, sides.collect())?;
        for peer in &timings[1..] {
            add(report, Ratio::of_wall(name, Unit::Ns, &timings[0], peer));
        }
    }

    let load = Gets(&*engines[0], count);
    let mut scaling = Scaling::default();
    for _ in 0..TRIES {
        let one = run_threads(&load, 1, plan.windows)?;
        scaling.push(one, run_threads(&load, 2, plan.windows)?);
        if scaling.windows() >= WINDOWS_WANTED {
            break;
        }
    }
    let scaled = scaling.sum_up().ok_or("nobody got anything")?;
    add(report, Ratio::of_scaling(names[2], &scaled, "one_thread"));

    let scan = |engine: &dyn Engine| -> Outcome<Span> {
        let (span, seen) = Span::of(|| engine.scan());
        match seen? {
            seen if seen == count => Ok(span.per(count)),
            seen => Err(format!("{} shows {seen} records of {count}", engine.name()).into()),
        }
    };
    let mut sides: Vec<Round<'_>> =
        engines.iter().map(|engine| Round::new(engine.name(), move || scan(&**engine))).collect();
    let timings = rounds(plan.repetitions_heavy, &mut sides)?;
    for peer in &timings[1..] {
        add(report, Ratio::of_wall(names[3], Unit::Ns, &timings[0], peer));
    }
    Ok(())
}

/// Gets from one engine.
struct Gets<'a>(&'a dyn Engine, u64);

impl Load for Gets<'_> {
    fn batch(&self, worker: usize) -> Outcome<Box<dyn FnMut() -> Outcome<u64> + '_>> {
        let mut rng = Rng::seeded(worker as u64);
        Ok(Box::new(move || self.0.get(BATCH, self.1, &mut rng).map(|()| BATCH)))
    }
}
