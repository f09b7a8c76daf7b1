//! `mainstay store reshard`.

use super::target::Target;
use crate::{
    error::{Outcome, Result},
    output::Output,
    progress::Bar,
    size::{counted, parse},
};
use mainstay::store::{LogOptions, Options};
use serde::Serialize;

/// Records that are copied between two looks at the bar.
const STEP: u64 = 10_000;

/// Give a store another number of shards
///
/// A second store is made in a directory beside it, `STORE.resharding`, and takes its name in one
/// step when it has all records. Killed before, the store is as it was; what was begun is removed by
/// the next attempt. It is another store to its followers: they begin anew. A program that has the
/// store open does the same, while it goes on, with `FixedStore::reshard` or
/// `LogStore::reshard`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store reshard ./people --shards 8
  mainstay store reshard ./people --shards 8 --segment 64MiB --json")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// How many shards: a power of two, at most 1024
    #[arg(long, value_name = "N")]
    shards: u32,
    /// The size of a file of the log: 16KiB to 1GiB, in steps of 4KiB [default: as it is]
    #[arg(long, value_name = "SIZE", value_parser = parse)]
    segment: Option<u64>,
}

#[derive(Serialize)]
struct Report {
    records: u64,
    shards_before: u32,
    shards: u32,
    segment_bytes: u64,
}

/// The two kinds of stores do it alike, with types of their own.
macro_rules! resharded {
    ($args:expr, $store:expr, $options:ident) => {{
        let (args, store) = ($args, $store);
        let failed = args.target.failed();
        let before = store.stats();
        let total = before.iter().map(|shard| shard.records).sum();
        let segment_bytes = args.segment.unwrap_or_else(|| store.segment_bytes());
        let (shards, shard_bits) = (args.shards, store.identity().shard_bits);
        let options = $options { shards, shard_bits, segment_bytes, ..$options::default() };
        let mut resharding = store.reshard(&options).map_err(&failed)?;
        copy(total, |bar| {
            let is_done = resharding.advance(STEP).map_err(&failed)?;
            bar.to(resharding.copied(), total);
            Ok(is_done)
        })?;
        let new = resharding.finish().map_err(&failed)?;
        let records = new.stats().iter().map(|shard| shard.records).sum();
        new.close().map_err(&failed)?;
        Report { records, shards_before: before.len() as u32, shards, segment_bytes }
    }};
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let report = if args.target.is_any() {
        resharded!(args, args.target.open_any()?, LogOptions)
    } else {
        resharded!(args, args.target.open()?, Options)
    };
    if out.json {
        out.document(&report)?;
    } else {
        let Report { records, shards_before, shards, .. } = report;
        let records = counted(records, "record", "records");
        let path = args.target.path.display();
        out.line(&format!("{path}: {records} in {shards} shards, {shards_before} before"))?;
    }
    Ok(Outcome::Fine)
}

/// Goes on until it is done, with a bar.
fn copy(total: u64, mut step: impl FnMut(&mut Bar) -> Result<bool>) -> Result<()> {
    let mut bar = Bar::of_pieces("copying", total);
    while !step(&mut bar)? {}
    Ok(())
}
