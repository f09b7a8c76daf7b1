//! `mainstay pool recover`.

use super::rows::{BLOCK_COLUMNS, BlockRow};
use crate::{
    confirm::confirm,
    error::{Outcome, Result},
    output::Output,
    place::Target,
    progress::Progress,
    size::{counted, grouped},
};
use mainstay::pool::{Decision, Offer, Pool, ReapReport};
use serde::Serialize;
use std::time::SystemTime;

/// How many blocks are listed for people.
const LISTED_MAX: usize = 50;

/// Take back what dead processes held, and decide about it
///
/// Transient blocks of the dead are freed; recoverable ones become orphans, which are then listed,
/// parked or freed. Works beside living processes, whose blocks are not touched. Mostly a service
/// does this itself when it starts.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool recover calls
  mainstay pool recover calls --park
  mainstay pool recover calls --free --yes
  mainstay pool recover calls --list --unheld --json")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    action: Action,
    #[command(flatten)]
    which: Which,
    /// Do not ask before freeing
    #[arg(long, short)]
    yes: bool,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct Action {
    /// List them, and leave them as they are (the default)
    #[arg(long)]
    list: bool,
    /// Park them: they are kept, and no longer count as left by the dead
    #[arg(long)]
    park: bool,
    /// Free them: their data is gone. Asks first
    #[arg(long)]
    free: bool,
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct Which {
    /// Blocks whose last holder died (the default)
    #[arg(long)]
    orphans: bool,
    /// Every recoverable block that nobody holds: those, and the parked ones
    #[arg(long)]
    unheld: bool,
}

/// What was taken back from the dead.
#[derive(Serialize)]
pub(super) struct ReapRow {
    processes: u32,
    orphaned: u64,
    freed: u64,
    uncached: u64,
    shared: u64,
    hints_repaired: u64,
    corrupt: u64,
}

impl From<ReapReport> for ReapRow {
    fn from(report: ReapReport) -> Self {
        Self {
            processes: report.slots,
            orphaned: report.orphaned,
            freed: report.freed,
            uncached: report.uncached,
            shared: report.shared,
            hints_repaired: report.hints_repaired,
            corrupt: report.corrupt,
        }
    }
}

#[derive(Serialize)]
struct Report {
    reaped: ReapRow,
    offered: u64,
    parked: u64,
    freed: u64,
    gone: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<Vec<BlockRow>>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let pool = Pool::join_any(args.target.existing()?)?;
    let offer = if args.which.unheld { Offer::Unheld } else { Offer::Orphans };
    let decision = match &args.action {
        Action { free: true, .. } => Decision::Free,
        Action { park: true, .. } => Decision::Park,
        _ => Decision::Leave,
    };
    if decision == Decision::Leave {
        list(&pool, offer, out)?;
    } else {
        decide(args, &pool, offer, decision, out)?;
    }
    pool.close()?;
    Ok(Outcome::Fine)
}

fn list(pool: &Pool, offer: Offer, out: &mut Output) -> Result<()> {
    let progress = Progress::spinner("looking for what the dead held");
    let recovery = pool.recover(offer)?;
    let reaped = recovery.reaped();
    let most = if out.json { usize::MAX } else { LISTED_MAX };
    let (mut offered, mut blocks) = (0, Vec::new());
    for found in recovery {
        offered += 1;
        if blocks.len() < most {
            blocks.push(BlockRow::of(&pool.block_info(found.number())?));
        }
    }
    drop(progress);
    if out.json {
        let (reaped, blocks) = (reaped.into(), Some(blocks));
        return out.document(&Report { reaped, offered, parked: 0, freed: 0, gone: 0, blocks });
    }
    tell_reaped(&reaped, out)?;
    let what = if offer == Offer::Orphans { "orphaned" } else { "unheld" };
    if offered == 0 {
        return out.line(&format!("no {what} blocks"));
    }
    let now = SystemTime::now();
    let cells: Vec<Vec<String>> = blocks.iter().map(|block| block.cells(now)).collect();
    out.table(&BLOCK_COLUMNS, &cells)?;
    out.line(&format!("{} {what} blocks; --park keeps them, --free deletes them", grouped(offered)))
}

fn decide(
    args: &Args,
    pool: &Pool,
    offer: Offer,
    decision: Decision,
    out: &mut Output,
) -> Result<()> {
    let first = pool.recover(offer)?;
    let reaped = first.reaped();
    if decision == Decision::Free && !args.yes {
        let count = grouped(first.count() as u64);
        confirm(false, format!("deletes {count} blocks of {} for good", pool.name()))?;
    }
    let progress = Progress::spinner("recovering");
    let report = pool.recover_with(offer, |offered| {
        // A parked block that is to be parked is as it should be.
        let done = decision == Decision::Park && !offered.is_orphan();
        if done { Decision::Leave } else { decision }
    })?;
    drop(progress);
    if out.json {
        return out.document(&Report {
            reaped: reaped.into(),
            offered: report.offered,
            parked: report.left,
            freed: report.freed,
            gone: report.gone,
            blocks: None,
        });
    }
    tell_reaped(&reaped, out)?;
    let (offered, parked, freed) =
        (grouped(report.offered), grouped(report.left), grouped(report.freed));
    out.line(&format!("{offered} blocks offered: {parked} parked, {freed} freed"))?;
    if report.gone > 0 {
        let gone = grouped(report.gone);
        out.line(&format!("{gone} were taken by other processes meanwhile"))?;
    }
    Ok(())
}

fn tell_reaped(reaped: &ReapReport, out: &mut Output) -> Result<()> {
    if reaped.slots == 0 {
        return Ok(());
    }
    let dead = counted(reaped.slots.into(), "dead process", "dead processes");
    let (orphaned, freed) = (grouped(reaped.orphaned), grouped(reaped.freed));
    out.line(&format!("took back from {dead}: {orphaned} blocks orphaned, {freed} freed"))
}
