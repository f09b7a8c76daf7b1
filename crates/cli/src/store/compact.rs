//! `mainstay store compact`.

use super::target::Target;
use crate::{
    error::{Outcome, Result},
    output::Output,
    progress::Progress,
    size::human,
};
use mainstay::store::{Directory, OnDisk, RawLogStore};
use serde::Serialize;

/// Write an image of all records, and remove the log before it
///
/// Of a store with values of any size, files of the log that are half dead are removed, and what
/// lives in them is written again.
///
/// A program that has the store open does so by itself, once the log is much longer than the records
/// are worth. By hand, it makes a store small before it is copied, and its next opening quick.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store compact ./people
  mainstay store compact ./people --json")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Report {
    bytes_before: u64,
    bytes_after: u64,
}

fn bytes(view: &OnDisk) -> u64 {
    view.shards().map(|shard| shard.log_bytes + shard.image_bytes).sum()
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    if args.target.is_any() {
        return compact_any(args, out);
    }
    let failed = args.target.failed();
    let bytes_before = bytes(&args.target.view()?);
    let store = args.target.open()?;
    let progress = Progress::spinner("compacting");
    store.compact().map_err(&failed)?;
    store.close().map_err(&failed)?;
    drop(progress);
    tell(args, bytes_before, bytes(&args.target.view()?), out)
}

fn compact_any(args: &Args, out: &mut Output) -> Result<Outcome> {
    let failed = args.target.failed();
    let store = args.target.open_any()?;
    let bytes = |store: &RawLogStore<Directory>| {
        store.stats().iter().map(|shard| shard.log_bytes).sum::<u64>()
    };
    let bytes_before = bytes(&store);
    let progress = Progress::spinner("compacting");
    store.compact().map_err(&failed)?;
    let bytes_after = bytes(&store);
    store.close().map_err(&failed)?;
    drop(progress);
    tell(args, bytes_before, bytes_after, out)
}

fn tell(args: &Args, bytes_before: u64, bytes_after: u64, out: &mut Output) -> Result<Outcome> {
    if out.json {
        out.document(&Report { bytes_before, bytes_after })?;
    } else {
        let (before, after) = (human(bytes_before), human(bytes_after));
        out.line(&format!("{}: {before} before, {after} now", args.target.path.display()))?;
    }
    Ok(Outcome::Fine)
}
