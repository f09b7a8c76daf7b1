//! The first write to a clean page, beside the two older ways to learn of it.

use std::path::Path;

use mainstay_pool::PoolOptions;
use mainstay_track::{Method, Tracker};

use super::peers::{Protected, Synchronous};
use super::{PAGE, a_hundredth, filled};
use crate::Outcome;
use crate::clock::Span;
use crate::method::{Plan, Round, rounds};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

const FIRST_WRITE: &str = "track.first_write";

pub(super) const GROUP: Group = Group { figures: &[FIRST_WRITE], measure };

/// Pages there are; a hundredth of them is written in a round, scattered.
const PAGES: usize = 100_000;

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let pool = PoolOptions::new("bench", PAGE).create_memfd()?;
    let blocks = filled(&pool, PAGES)?;
    let tracker = Tracker::new(&pool)?;
    if tracker.method() != Method::Pages {
        return Err(tracker.refusal().unwrap_or("no write tracking").into());
    }
    tracker.flush()?;
    let (synchronous, protected) = (Synchronous::new(PAGES)?, Protected::new(PAGES)?);
    let (mut one, mut two, mut three) = (0, 0, 0);
    let written = (PAGES / 100) as u64;
    let all_noted = |noted: u64| match noted {
        noted if noted == written => Ok(()),
        noted => Err(format!("{noted} of {written} writes were noted")),
    };
    let timings = rounds(
        plan.repetitions,
        &mut [
            Round::new("mainstay", || {
                one += 1;
                let chosen = a_hundredth(PAGES, one);
                let (span, done) = Span::of(|| {
                    chosen.iter().try_for_each(|at| blocks[*at].write(0, &one.to_le_bytes()))
                });
                done?;
                // It protects the pages again, and shows that each write was noticed.
                all_noted(tracker.flush()?.changes.len() as u64)?;
                Ok(span.per(written))
            }),
            Round::new("synchronous_userfaultfd", || {
                two += 1;
                let chosen = a_hundredth(PAGES, two);
                synchronous.arm()?;
                let before = synchronous.noted();
                let (span, ()) =
                    Span::of(|| chosen.iter().for_each(|at| synchronous.write(*at, two)));
                all_noted(synchronous.noted() - before)?;
                Ok(span.per(written))
            }),
            Round::new("mprotect", || {
                three += 1;
                let chosen = a_hundredth(PAGES, three);
                protected.arm()?;
                let before = protected.noted();
                let (span, ()) =
                    Span::of(|| chosen.iter().for_each(|at| protected.write(*at, three)));
                all_noted(protected.noted() - before)?;
                Ok(span.per(written))
            }),
        ],
    )?;
    for peer in &timings[1..] {
        report.ratios.push(Ratio::of_wall(FIRST_WRITE, Unit::Ns, &timings[0], peer));
    }
    Ok(())
}
