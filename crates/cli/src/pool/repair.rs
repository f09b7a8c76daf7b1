//! `mainstay pool repair`.

use super::{
    recover::ReapRow,
    verify::{self, Row},
};
use crate::{
    confirm::confirm,
    error::{Outcome, Result},
    output::Output,
    place::Target,
    progress::Progress,
    size::grouped,
};
use mainstay::pool::{Pool, PoolView, RepairReport, VerifyReport};
use serde::Serialize;

/// Mend what `verify` finds
///
/// A block with an impossible owner word becomes an orphan if it has data, so that the next
/// recovery offers it, and free if not. Needs the pool for itself: end the processes that use it
/// first. Asks before it changes anything.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool repair calls
  mainstay pool repair calls --yes --json")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Serialize)]
struct Report {
    reaped: ReapRow,
    orphaned: u64,
    freed: u64,
    shortened: u64,
    hints: u64,
    after: Row,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let path = args.target.existing()?;
    let before = PoolView::open(&path)?.verify()?;
    if needs_repair(&before) {
        confirm(args.yes, format!("changes {} ({})", path.display(), summary(&before)))?;
    }
    let mut pool = Pool::join_any(&path)?;
    let progress = Progress::spinner("repairing");
    let report = pool.repair()?;
    let after = pool.verify()?;
    drop(progress);
    let name = pool.name().to_owned();
    pool.close()?;
    if out.json {
        out.document(&Report {
            reaped: report.reaped.into(),
            orphaned: report.orphaned,
            freed: report.freed,
            shortened: report.shortened,
            hints: report.hints,
            after: Row::from(&after),
        })?;
    } else {
        tell(&report, out)?;
        verify::tell(&name, &after, out)?;
    }
    Ok(if after.is_sound() { Outcome::Fine } else { Outcome::Damaged })
}

fn needs_repair(report: &VerifyReport) -> bool {
    !report.is_sound() || report.hidden > 0 || report.of_the_dead > 0
}

fn summary(report: &VerifyReport) -> String {
    let damaged = report.corrupt_count + report.strangers + report.overlong;
    let (damaged, dead) = (grouped(damaged), grouped(report.of_the_dead));
    format!("{damaged} damaged blocks, {dead} of dead processes")
}

fn tell(report: &RepairReport, out: &mut Output) -> Result<()> {
    let reaped = report.reaped.orphaned + report.reaped.freed + report.reaped.uncached;
    let done = [
        (report.orphaned, "damaged blocks became orphans: `mainstay pool recover` offers them"),
        (report.freed, "damaged blocks without data became free"),
        (report.shortened, "lengths were cut to the block size"),
        (report.hints, "hints were put right"),
        (reaped, "blocks of dead processes were taken back"),
    ];
    for (count, what) in done {
        if count > 0 {
            out.line(&format!("{} {what}", grouped(count)))?;
        }
    }
    if done.iter().all(|(count, _)| *count == 0) {
        out.line("nothing to mend")?;
    }
    Ok(())
}
