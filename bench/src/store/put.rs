//! Putting: volatile, durable in batches, durable one at a time by several writers at once.
//!
//! Before volatile puts are timed, the disk has what the engines were filled with, and each engine has
//! put as many records as it has, untimed (M7 of [`crate::method`]). They are timed in samples of a
//! millisecond, whose median leaves out what few of them have: the end of a segment, compaction.
//!
//! At the end of a segment the writer syncs what is left of it and the header of the next one, and
//! at this rate it mostly makes the next one as well: each shard fills one in some 60 ms, and who
//! makes them in advance looks every 50 ms. That takes 3 or 4 ms, so samples of 20 ms nearly all
//! have it, and there we are at 0.8 to 0.95 of armdb's log, which hardly ever syncs. Beside a program
//! that writes the disk full each of these syncs waits in its queue: the median of a millisecond
//! stays as it is (0.4 µs here, 0.65 µs for armdb's log), while all puts together fall to about a
//! quarter of armdb's rate. Of 6 seconds of the writer 4.7 passed in calls for the log. Faults of
//! pages that were written back (20 to 40 in 1,000 puts) are at most a tenth: with the records on a
//! tmpfs there were none, and all puts together took no less. With segments of 64 MiB they were two
//! to four times as fast (decision 0093).

use std::path::Path;
use std::sync::Barrier;

use mainstay_base::Rng;

use super::engines::Engine;
use super::{add, filled, on_a_disk, records};
use crate::Outcome;
use crate::clock::Span;
use crate::method::{Plan, Round, Side, Timing, interleave, rounds};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

pub(super) const SMALL: Group =
    Group { figures: &["store.put_volatile", "store.put_durable_batch"], measure: measure::<64> };
pub(super) const LARGE: Group = Group {
    figures: &["store.put_volatile_256", "store.put_durable_batch_256"],
    measure: measure::<256>,
};
pub(super) const SINGLE: Group = Group {
    figures: &[
        "store.put_durable_single",
        "store.put_durable_single_2",
        "store.put_durable_single_8",
        "store.put_durable_single_growth",
    ],
    measure: measure_single,
};

/// Records of a batch, and batches of a sample.
const BATCH: u64 = 1_024;
const BATCHES: u64 = 4;
/// Puts of each writer in a sample.
const PUTS: u64 = 64;

fn measure<const V: usize>(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let names = if V == 64 { SMALL.figures } else { LARGE.figures };
    let disk = on_a_disk(scratch)?;
    let count = records(plan);
    let engines = filled::<V>(disk.path(), count)?;
    for engine in &engines {
        engine.put(count, count, &mut Rng::seeded(4))?;
    }
    let sides = engines.iter().map(|engine| {
        let mut rng = Rng::seeded(2);
        Side::new(engine.name(), move |times| engine.put(times, count, &mut rng))
    });
    let timings = interleave(plan, sides.collect())?;
    for peer in &timings[1..] {
        add(report, Ratio::of_wall(names[0], Unit::Ns, &timings[0], peer));
    }

    let mut sides: Vec<Round<'_>> = engines
        .iter()
        .map(|engine| {
            let mut rng = Rng::seeded(3);
            Round::new(engine.name(), move || {
                let (span, done) = Span::of(|| {
                    (0..BATCHES).try_for_each(|_| engine.put_batch(BATCH, count, &mut rng))
                });
                done.map(|()| span.per(BATCH * BATCHES))
            })
        })
        .collect();
    let timings = rounds(plan.repetitions_heavy, &mut sides)?;
    for peer in &timings[1..] {
        add(report, Ratio::of_wall(names[1], Unit::Ns, &timings[0], peer));
    }
    Ok(())
}

fn measure_single(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let disk = on_a_disk(scratch)?;
    let count = records(plan) / 10;
    let engines = filled::<64>(disk.path(), count)?;
    let mut ours = Vec::new();
    for (writers, name) in [1, 2, 8].into_iter().zip(SINGLE.figures) {
        let mut sides: Vec<Round<'_>> = engines
            .iter()
            .map(|engine| Round::new(engine.name(), move || together(&**engine, writers, count)))
            .collect();
        let timings = rounds(plan.repetitions_heavy, &mut sides)?;
        for peer in &timings[1..] {
            add(report, Ratio::of_wall(name, Unit::Us, &timings[0], peer));
        }
        ours.extend(timings.into_iter().next());
    }
    if let [one, _, eight] = &ours[..] {
        let alone = Timing { name: "one_writer", ..one.clone() };
        add(report, Ratio::of_wall(SINGLE.figures[3], Unit::Us, eight, &alone));
    }
    Ok(())
}

/// Durable puts by several threads: wall time by put of any of them.
fn together(engine: &dyn Engine, writers: u64, count: u64) -> Outcome<Span> {
    let start = Barrier::new(writers as usize + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let start = &start;
                scope.spawn(move || -> Outcome<()> {
                    let mut rng = Rng::seeded(writer);
                    start.wait();
                    (0..PUTS).try_for_each(|_| engine.put_durable(count, &mut rng))
                })
            })
            .collect();
        start.wait();
        let (span, done) = Span::of(|| {
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err("a writer panicked".into()))
            })
        });
        done.map(|()| span.per(PUTS * writers))
    })
}
