//! A flush of 1 GiB of which 1 % was written, beside comparing with a shadow copy.

use std::hint::black_box;
use std::path::Path;

use mainstay_pool::PoolOptions;
use mainstay_track::Tracker;

use super::{PAGE, a_hundredth, filled};
use crate::Outcome;
use crate::clock::Span;
use crate::method::{Plan, Round, rounds};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

const FLUSH: &str = "track.flush_1pct";

pub(super) const GROUP: Group = Group { figures: &[FLUSH], measure };

/// 1 GiB.
const PAGES: usize = 262_144;

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let pool = PoolOptions::new("bench", PAGE).growth_step(16_384).create_memfd()?;
    let blocks = filled(&pool, PAGES)?;
    let tracker = Tracker::new(&pool)?;
    tracker.flush()?;
    let mut plain = vec![1_u8; PAGES * PAGE];
    let mut shadow = plain.clone();
    let (mut one, mut two) = (0, 0);
    let timings = rounds(
        plan.repetitions_heavy,
        &mut [
            Round::new("mainstay", || {
                one += 1;
                for at in a_hundredth(PAGES, one) {
                    blocks[at].write(64, &one.to_le_bytes())?;
                }
                let (span, flush) = Span::of(|| tracker.flush());
                match flush?.changes.len() {
                    found if found == PAGES / 100 => Ok(span),
                    found => Err(format!("{found} of {} changes were found", PAGES / 100).into()),
                }
            }),
            Round::new("shadow_copy", || {
                two += 1;
                for at in a_hundredth(PAGES, two) {
                    plain[at * PAGE + 64..at * PAGE + 72].copy_from_slice(&two.to_le_bytes());
                }
                let (span, found) = Span::of(|| {
                    let pages = plain.chunks_exact(PAGE).zip(shadow.chunks_exact_mut(PAGE));
                    let mut found = Vec::new();
                    for (number, (now, before)) in pages.enumerate() {
                        if now != before {
                            before.copy_from_slice(now);
                            found.push(number);
                        }
                    }
                    found
                });
                match black_box(found).len() {
                    found if found == PAGES / 100 => Ok(span),
                    found => Err(format!("{found} differences were found").into()),
                }
            }),
        ],
    )?;
    report.ratios.push(Ratio::of_wall(FLUSH, Unit::Ms, &timings[0], &timings[1]));
    Ok(())
}
