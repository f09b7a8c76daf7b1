//! `mainstay pool verify`.

use crate::{
    error::{Outcome, Result},
    output::Output,
    place::Target,
    progress::Progress,
    size::grouped,
};
use mainstay::pool::{Corruption, PoolView, VerifyReport};
use serde::Serialize;

/// How many findings are listed for people.
const LISTED_MAX: usize = 20;

/// Check every owner word, hint and block header of a pool
///
/// Changes nothing, and others may go on working. The exit status is 3 if something is damaged.
/// What dead processes hold is no damage: the next recovery takes it back.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool verify calls
  mainstay pool verify ./data/orders.pool --json
  mainstay pool verify calls || mainstay pool repair calls")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
pub(super) struct Row {
    sound: bool,
    blocks: u64,
    corrupt: u64,
    strangers: u64,
    overlong: u64,
    hidden: u64,
    of_the_dead: u64,
    /// The first of the corrupt ones.
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<u32>,
    what: String,
}

impl From<&Corruption> for Finding {
    fn from(corruption: &Corruption) -> Self {
        let block = match corruption {
            Corruption::OwnerWord { number, .. } => Some(*number),
            _ => None,
        };
        Self { block, what: corruption.to_string() }
    }
}

impl From<&VerifyReport> for Row {
    fn from(report: &VerifyReport) -> Self {
        Self {
            sound: report.is_sound(),
            blocks: report.blocks,
            corrupt: report.corrupt_count,
            strangers: report.strangers,
            overlong: report.overlong,
            hidden: report.hidden,
            of_the_dead: report.of_the_dead,
            findings: report.corrupt.iter().map(Finding::from).collect(),
        }
    }
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let view = PoolView::open(args.target.existing()?)?;
    let progress = Progress::spinner("verifying");
    let report = view.verify()?;
    drop(progress);
    if out.json {
        out.document(&Row::from(&report))?;
    } else {
        tell(view.name(), &report, out)?;
    }
    Ok(if report.is_sound() { Outcome::Fine } else { Outcome::Damaged })
}

pub(super) fn tell(name: &str, report: &VerifyReport, out: &mut Output) -> Result<()> {
    let verdict = if report.is_sound() { "sound" } else { "damaged" };
    out.line(&format!("{name}: {verdict}; {} blocks checked", grouped(report.blocks)))?;
    let findings = [
        (report.corrupt_count, "impossible owner words"),
        (report.strangers, "blocks said to be held by processes that left in good order"),
        (report.overlong, "blocks that claim more bytes than they have"),
        (report.of_the_dead, "blocks of dead processes (no damage: recovery takes them back)"),
        (report.hidden, "free blocks that look taken (no damage: the next reap finds them)"),
    ];
    for (count, what) in findings {
        if count > 0 {
            out.line(&format!("  {} {what}", grouped(count)))?;
        }
    }
    for corruption in report.corrupt.iter().take(LISTED_MAX) {
        out.line(&format!("  {corruption}"))?;
    }
    let more = report.corrupt_count.saturating_sub(LISTED_MAX as u64);
    if more > 0 {
        out.line(&format!("  ... and {} more: --json lists up to 1,000", grouped(more)))?;
    }
    if !report.is_sound() {
        out.line(
            "next: end the processes that use it (`mainstay pool holders`), then `mainstay pool \
             repair`, which turns damaged blocks that hold data into orphans",
        )?;
    }
    Ok(())
}
