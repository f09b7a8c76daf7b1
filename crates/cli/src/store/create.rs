//! `mainstay store create`.

use super::{keys, opened::now_ms, target::Target};
use crate::{
    error::{Outcome, Result},
    output::Output,
    progress::Progress,
    size::{counted, human, parse},
};
use clap::ValueEnum;
use mainstay::store::{LogOptions, Options, RawExpiring, RawLogStore, RawStore};
use serde::Serialize;

/// Make a store in a directory
///
/// All keys have one size, and all values another; shorter ones are filled up with zeros. With
/// --values any, keys and values have whatever size they have, and values stay on the disk. Shards
/// are what writers and followers work on at the same time: as many as there are processors is a
/// good number; `reshard` changes it. Sizes stay as they are; to change them, export and import.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store create ./people --key-bytes 16 --value-bytes 64
  mainstay store create ./pictures --values any
  mainstay store create ./sessions --key-bytes 16 --value-bytes 64 --expiring
  mainstay store create ./secrets --values any --key-file secrets.key
  mainstay store create ./counters --key-bytes 8 --value-bytes 8 --shards 8
  mainstay store create ./calls --key-bytes 16 --value-bytes 64 --shards 16 --shard-bits 64
  mainstay store create ./small --key-bytes 8 --value-bytes 8 --segment 64KiB --json")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Bytes of a key: 1 to 256
    #[arg(long, value_name = "N", required_unless_present = "values")]
    key_bytes: Option<usize>,
    /// Bytes of a value: 0 to 4096, with --expiring 8 less
    #[arg(long, value_name = "N", required_unless_present = "values")]
    value_bytes: Option<usize>,
    /// Records can be put for a certain time; with --values any they always can
    #[arg(long, conflicts_with = "values")]
    expiring: bool,
    /// Keys and values of any size, the values on the disk
    #[arg(long, value_name = "SIZES", conflicts_with_all = ["key_bytes", "value_bytes"])]
    values: Option<Values>,
    /// How many shards: a power of two, at most 1024
    #[arg(long, value_name = "N", default_value_t = Options::default().shards)]
    shards: u32,
    /// How many bits of a key, from its beginning on, choose its shard, so that keys that begin
    /// alike are in one: at most those of a key, and 2048 [default: all]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    shard_bits: u32,
    /// The size of a file of the log: 16KiB to 1GiB, in steps of 4KiB; no value of any size can be
    /// longer [default: 8MiB, with --values any 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse)]
    segment: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Values {
    /// Keys of 1 to 4096 bytes, values of 0 to 2^28
    Any,
}

#[derive(Serialize)]
struct AnyReport {
    path: String,
    shards: u32,
    shard_bits: u32,
    segment_bytes: u64,
}

/// A store with values of any size.
fn create_any(args: &Args, out: &mut Output) -> Result<Outcome> {
    let failed = args.target.failed();
    let default = LogOptions::default();
    let (shards, shard_bits) = (args.shards, args.shard_bits);
    let segment_bytes = args.segment.unwrap_or(default.segment_bytes);
    let options = LogOptions { shards, shard_bits, segment_bytes, ..default };
    let progress = Progress::spinner("creating");
    let folder = keys::lock(&args.target.path).map_err(&failed)?;
    let store = RawLogStore::create(folder, &options).map_err(&failed)?;
    store.close().map_err(&failed)?;
    drop(progress);
    let path = args.target.path.display().to_string();
    if out.json {
        out.document(&AnyReport { path, shards, shard_bits, segment_bytes })?;
    } else {
        let shards = sharded(shards, shard_bits);
        let bytes = human(segment_bytes);
        let sizes = "keys and values of any size";
        out.line(&format!("made {path}: {sizes}; {shards}, files of up to {bytes}"))?;
    }
    Ok(Outcome::Fine)
}

/// Into how many shards, and by what of a key.
pub(super) fn sharded(shards: u32, shard_bits: u32) -> String {
    let shards = counted(shards.into(), "shard", "shards");
    match shard_bits {
        0 => shards,
        bits => format!("{shards} by the first {}", counted(bits.into(), "bit", "bits")),
    }
}

#[derive(Serialize)]
struct Report {
    path: String,
    key_bytes: usize,
    value_bytes: usize,
    expiring: bool,
    shards: u32,
    shard_bits: u32,
    segment_bytes: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    // Without --values any, both are there.
    let (Some(key_bytes), Some(value_bytes)) = (args.key_bytes, args.value_bytes) else {
        return create_any(args, out);
    };
    let failed = args.target.failed();
    let default = Options::default();
    let (shards, shard_bits) = (args.shards, args.shard_bits);
    let segment_bytes = args.segment.unwrap_or(default.segment_bytes);
    let options = Options { shards, shard_bits, segment_bytes, ..default };
    let progress = Progress::spinner("creating");
    let folder = keys::lock(&args.target.path).map_err(&failed)?;
    let expiring = args.expiring;
    let made = if expiring {
        RawExpiring::create(folder, key_bytes, value_bytes, &options, now_ms)
            .and_then(RawExpiring::close)
    } else {
        RawStore::create(folder, key_bytes, value_bytes, &options).and_then(RawStore::close)
    };
    made.map_err(&failed)?;
    drop(progress);
    let path = args.target.path.display().to_string();
    if out.json {
        out.document(&Report {
            path,
            key_bytes,
            value_bytes,
            expiring,
            shards,
            shard_bits,
            segment_bytes,
        })?;
    } else {
        let shards = sharded(shards, shard_bits);
        let bytes = human(segment_bytes);
        let ends = if expiring { ", which may end" } else { "" };
        out.line(&format!(
            "made {path}: keys of {key_bytes} bytes, values of {value_bytes}{ends}; {shards}, files \
             of {bytes}"
        ))?;
    }
    Ok(Outcome::Fine)
}
