//! `mainstay pool verify`.

use super::checkpoint::checkpoint_of;
use crate::{
    error::{Outcome, Result},
    output::Output,
    place::Target,
    progress::Progress,
    size::grouped,
};
use mainstay::pool::{
    ChecksumReport, Corruption, PoolView, VerifyReport,
    checkpoint::{self, Survey},
};
use serde::Serialize;
use std::path::Path;

/// How many findings are listed for people.
const LISTED_MAX: usize = 20;

/// Check every owner word, hint, block header and checksum of a pool, and its checkpoint file
///
/// Changes nothing, and others may go on working. The exit status is 3 if something is damaged.
/// What dead processes hold is no damage: the next recovery takes it back. Nor is a block in memory
/// that differs from its checksum: it was written since a tracker last saw it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool verify calls
  mainstay pool verify ./data/orders.pool --json
  mainstay pool verify calls || mainstay pool repair calls")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// List the blocks that differ from their checksums
    #[arg(long)]
    differing: bool,
}

#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    row: Row,
    checksums: Checksums,
    checkpoint: Option<Checkpoint>,
}

#[derive(Serialize)]
struct Checksums {
    matching: u64,
    differing: u64,
    without: u64,
    /// The first of those that differ.
    blocks: Vec<u32>,
}

/// What the checkpoint file holds.
#[derive(Serialize)]
struct Checkpoint {
    cut: u64,
    blocks: u64,
    damaged: Vec<u32>,
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
    let path = args.target.existing()?;
    let view = PoolView::open(&path)?;
    let progress = Progress::spinner("verifying");
    let report = view.verify()?;
    let checksums = view.verify_checksums()?;
    let checkpoint = look_at_checkpoint(&path)?;
    drop(progress);
    let damaged = checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.damaged.is_empty());
    if out.json {
        let checksums = Checksums {
            matching: checksums.matching,
            differing: checksums.differing,
            without: checksums.without,
            blocks: checksums.first_differing,
        };
        out.document(&Document { row: Row::from(&report), checksums, checkpoint })?;
    } else {
        tell(view.name(), &report, out)?;
        tell_checksums(&checksums, args.differing, out)?;
        if let Some(checkpoint) = &checkpoint {
            tell_checkpoint(checkpoint, out)?;
        }
    }
    Ok(if report.is_sound() && !damaged { Outcome::Fine } else { Outcome::Damaged })
}

/// None when the pool has no checkpoints.
fn look_at_checkpoint(pool: &Path) -> Result<Option<Checkpoint>> {
    let path = checkpoint_of(pool);
    if !path.exists() {
        return Ok(None);
    }
    let Survey { cut, blocks, damaged, .. } = checkpoint::survey(path)?;
    Ok(Some(Checkpoint { cut, blocks, damaged }))
}

fn tell_checksums(report: &ChecksumReport, differing: bool, out: &mut Output) -> Result<()> {
    let lines = [
        (report.matching, "live blocks have the checksum in their header"),
        (report.differing, "differ from it: written since a tracker last saw them"),
        (report.without, "live blocks have none: no tracker has seen them"),
    ];
    for (count, what) in lines {
        if count > 0 {
            out.line(&format!("  {} {what}", grouped(count)))?;
        }
    }
    if differing {
        for number in &report.first_differing {
            out.line(&format!("  block {number} differs from its checksum"))?;
        }
    }
    Ok(())
}

fn tell_checkpoint(checkpoint: &Checkpoint, out: &mut Output) -> Result<()> {
    let Checkpoint { cut, blocks, damaged } = checkpoint;
    let verdict = if damaged.is_empty() { "sound" } else { "damaged" };
    out.line(&format!("checkpoint {cut}: {verdict}; {} blocks checked", grouped(*blocks)))?;
    for number in damaged.iter().take(LISTED_MAX) {
        out.line(&format!("  block {number} is damaged in the checkpoint file"))?;
    }
    Ok(())
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
