//! What tracking costs those who write to no clean page: stores to pages that are written already,
//! while a waiter is at work, beside the same without a tracker.

use std::path::Path;
use std::time::Duration;

use mainstay_pool::{Block, PoolOptions};
use mainstay_track::Tracker;

use super::{PAGE, filled};
use crate::Outcome;
use crate::method::{Plan, Side, interleave};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

const IDLE: &str = "track.idle";

pub(super) const GROUP: Group = Group { figures: &[IDLE], measure };

const PAGES: usize = 256;

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let tracked = PoolOptions::new("bench", PAGE).create_memfd()?;
    let plain = PoolOptions::new("bench", PAGE).create_memfd()?;
    let (ours, theirs) = (filled(&tracked, PAGES)?, filled(&plain, PAGES)?);
    let tracker = Tracker::new(&tracked)?;
    // Nothing is written to the pages of the pool that it looks at: it looks all the time.
    let watched = PoolOptions::new("bench", PAGE).create_memfd()?;
    let idle = Tracker::new(&watched)?;
    let waiter = idle.waiter(Duration::from_millis(1))?;
    fn stores(blocks: &[Block], count: u64) -> Outcome<()> {
        for at in 0..count {
            // At another place in each page: pages have the same place in a cache.
            let at = at as usize;
            blocks[at % PAGES].write(at % PAGES * 72 % 4_032, &at.to_le_bytes())?;
        }
        Ok(())
    }
    // The first write to each page is another figure.
    stores(&ours, PAGES as u64)?;
    let timings = interleave(
        plan,
        vec![
            Side::new("mainstay", |n| stores(&ours, n)),
            Side::new("no_tracker", |n| stores(&theirs, n)),
        ],
    )?;
    if waiter.wait_timeout(Duration::ZERO) {
        return Err("the waiter woke although nothing was written".into());
    }
    report.ratios.push(Ratio::of_wall(IDLE, Unit::Ns, &timings[0], &timings[1]));
    drop(tracker);
    Ok(())
}
