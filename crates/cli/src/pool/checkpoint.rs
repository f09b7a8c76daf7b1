//! `mainstay pool checkpoint`.

use crate::{
    error::{CliError, Outcome, Result},
    interrupt::Interrupt,
    output::Output,
    place::Target,
    progress::Progress,
    size::{grouped, parse_duration},
};
use mainstay::pool::{
    Pool,
    checkpoint::{self, CheckpointReport, Checkpointer},
};
use serde::Serialize;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How often to look whether the user wants to end.
const LOOK: Duration = Duration::from_millis(50);

/// Make what is in a pool survive a power cut
///
/// Writes what changed since the last checkpoint to the file POOL.checkpoint, as of one moment, and
/// waits until the disk has it. After a power cut whoever opens the pool gets it back as of the last
/// completed checkpoint; after a mere crash of processes the pool is as they left it. Other processes
/// go on working, and batches are seen whole.
///
/// This command compares every block with the last checkpoint. A service that makes checkpoints
/// often lets a tracker find what changed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool checkpoint ./data/orders.pool
  mainstay pool checkpoint ./data/orders.pool --every 5s
  mainstay pool checkpoint ./data/orders.pool --restore   the pool's own file is gone
  mainstay pool checkpoint ./data/orders.pool --json")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Go on making checkpoints, so often, until interrupted; then make a last one
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    every: Option<Duration>,
    /// How long to wait for open batches
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "10s")]
    wait: Duration,
    /// Make the pool anew from its checkpoint file; it must not exist
    #[arg(long, conflicts_with_all = ["every", "wait"])]
    restore: bool,
}

#[derive(Serialize)]
struct Row {
    cut: u64,
    blocks: u64,
    bytes: u64,
    held_us: u64,
    wrote_us: u64,
    broken_batches: u32,
}

#[derive(Serialize)]
struct Restored {
    restored: PathBuf,
    cut: u64,
    blocks: u64,
}

impl From<&CheckpointReport> for Row {
    fn from(report: &CheckpointReport) -> Self {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            cut: report.cut,
            blocks: report.blocks,
            bytes: report.bytes,
            held_us: us(report.held),
            wrote_us: us(report.wrote),
            broken_batches: report.broken_batches,
        }
    }
}

/// Where the checkpoints of a pool are.
pub(super) fn checkpoint_of(pool: &Path) -> PathBuf {
    let mut path = OsString::from(pool);
    path.push(".checkpoint");
    path.into()
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    if args.restore {
        return restore(args, out);
    }
    let interrupt = Interrupt::watch();
    let pool = Pool::join_any(args.target.existing()?)?;
    let progress = Progress::spinner("reading the last checkpoint");
    let mut checkpointer = pool.checkpointer()?;
    drop(progress);
    let mut broken = make(&mut checkpointer, args, out)?;
    while let Some(every) = args.every {
        let next = Instant::now() + every;
        while Instant::now() < next && !interrupt.is_asked() {
            thread::sleep(LOOK.min(next.saturating_duration_since(Instant::now())));
        }
        broken |= make(&mut checkpointer, args, out)?;
        if interrupt.is_asked() {
            break;
        }
    }
    Ok(if broken { Outcome::Damaged } else { Outcome::Fine })
}

/// Makes one; whether some process had died inside of a batch.
fn make(checkpointer: &mut Checkpointer, args: &Args, out: &mut Output) -> Result<bool> {
    let progress = Progress::spinner("making a checkpoint");
    let report = checkpointer.checkpoint(args.wait)?;
    drop(progress);
    if out.json {
        out.document(&Row::from(&report))?;
    } else {
        out.line(&format!(
            "checkpoint {}: {} blocks, {} bytes; batches held up for {:.1} ms, written in {:.1} ms",
            report.cut,
            grouped(report.blocks),
            grouped(report.bytes),
            report.held.as_secs_f64() * 1e3,
            report.wrote.as_secs_f64() * 1e3
        ))?;
        if report.broken_batches > 0 {
            out.line(&format!(
                "  {} processes had died inside of a batch: that much may be half done",
                report.broken_batches
            ))?;
        }
    }
    out.flush()?;
    Ok(report.broken_batches > 0)
}

fn restore(args: &Args, out: &mut Output) -> Result<Outcome> {
    let path = args.target.path()?;
    if path.exists() {
        return Err(CliError::PoolExists(path));
    }
    let progress = Progress::spinner("making the pool anew");
    let survey = checkpoint::survey(checkpoint_of(&path))?;
    checkpoint::restore(checkpoint_of(&path), &path)?;
    drop(progress);
    if out.json {
        let (cut, blocks) = (survey.cut, survey.blocks);
        out.document(&Restored { restored: path, cut, blocks })?;
    } else {
        let (path, blocks) = (path.display(), grouped(survey.blocks));
        out.line(&format!("{path}: made anew as of checkpoint {}; {blocks} blocks", survey.cut))?;
    }
    Ok(Outcome::Fine)
}
