//! `mainstay store stats`.

use super::{
    opened::{View, without_end},
    target::Target,
};
use crate::{
    error::{Outcome, Result},
    hex,
    output::{Output, Side},
    size::{counted, grouped, human},
};
use mainstay::store::{LogOnDisk, LogShardStats, OnDisk, Reader, ShardFiles, encrypted_under};
use serde::Serialize;

/// Show what a store holds: records, log and durable position of each shard
///
/// WRITES counts the writes since the store was made; DURABLE is the last of them that the log
/// itself says was on the disk when the next was made: one less than WRITES after a clean end. IMAGE
/// is the write up to which an image holds all records, so that the log before it is gone.
/// Beside a program that has the store open it shows what there is at this moment, and DURABLE is what
/// that program knows to be.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store stats ./people
  mainstay store stats ./people --json | jq .records")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Document {
    path: String,
    id: String,
    /// What its key is called, if it is encrypted.
    encrypted_under: Option<String>,
    epoch: u64,
    key_bytes: usize,
    value_bytes: usize,
    /// Can its records end?
    expiring: bool,
    segment_bytes: u64,
    shard_bits: u32,
    records: u64,
    log_bytes: u64,
    image_bytes: u64,
    shards: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    shard: u32,
    records: u64,
    sequence: u64,
    durable: u64,
    segments: u64,
    log_bytes: u64,
    image: u64,
    image_bytes: u64,
}

impl Row {
    fn of((shard, files): (u32, &ShardFiles)) -> Self {
        Self {
            shard,
            records: files.records,
            sequence: files.sequence,
            durable: files.durable,
            segments: files.segments,
            log_bytes: files.log_bytes,
            image: files.image,
            image_bytes: files.image_bytes,
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.shard.to_string(),
            grouped(self.records),
            grouped(self.sequence),
            grouped(self.durable),
            human(self.log_bytes),
            self.segments.to_string(),
            if self.image == 0 { "-".to_owned() } else { grouped(self.image) },
            human(self.image_bytes),
        ]
    }
}

impl Document {
    fn of(found: Found, path: String, encrypted_under: Option<String>) -> Self {
        let shards: Vec<Row> = (0..).zip(&found.shards).map(Row::of).collect();
        let sum = |of: fn(&Row) -> u64| shards.iter().map(of).sum();
        let (key_bytes, value_bytes) = without_end(found.lengths, found.has_ends);
        Self {
            path,
            id: hex::encode(&found.id),
            encrypted_under,
            epoch: found.epoch,
            key_bytes,
            value_bytes,
            expiring: found.has_ends,
            segment_bytes: found.segment_bytes,
            shard_bits: found.shard_bits,
            records: sum(|row| row.records),
            log_bytes: sum(|row| row.log_bytes),
            image_bytes: sum(|row| row.image_bytes),
            shards,
        }
    }
}

/// A store of fixed sizes: as its files say, or, while somebody has it open, their memory.
struct Found {
    id: [u8; 16],
    epoch: u64,
    lengths: (usize, usize),
    has_ends: bool,
    segment_bytes: u64,
    shard_bits: u32,
    shards: Vec<ShardFiles>,
}

impl Found {
    fn in_files(view: &OnDisk) -> Self {
        Self {
            id: view.id(),
            epoch: view.epoch(),
            lengths: view.lengths(),
            has_ends: view.has_ends(),
            segment_bytes: view.segment_bytes(),
            shard_bits: view.shard_bits(),
            shards: view.shards().cloned().collect(),
        }
    }

    fn in_memory(view: &Reader) -> mainstay::store::Result<Self> {
        Ok(Self {
            id: view.id(),
            epoch: view.epoch(),
            lengths: view.lengths(),
            has_ends: view.has_ends(),
            segment_bytes: view.segment_bytes(),
            shard_bits: view.shard_bits(),
            shards: view.shards()?,
        })
    }
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let failed = args.target.failed();
    let found = match args.target.look()? {
        View::Any(store) => return stats_any(args, &store, out),
        View::Fixed(view) => Found::in_files(&view),
        View::Live(view) => Found::in_memory(&view).map_err(&failed)?,
    };
    let key = encrypted_under(&args.target.path).map_err(&failed)?;
    let document = Document::of(found, args.target.path.display().to_string(), key);
    if out.json {
        out.document(&document)?;
        return Ok(Outcome::Fine);
    }
    let Document { key_bytes, value_bytes, .. } = document;
    out.fields(&[
        ("store", format!("{} ({})", document.path, document.id)),
        (
            "records",
            format!(
                "{}, keys of {key_bytes} bytes, values of {value_bytes}{}",
                grouped(document.records),
                if document.expiring { ", which may end" } else { "" }
            ),
        ),
        (
            "log",
            format!("{}, in files of {}", human(document.log_bytes), human(document.segment_bytes)),
        ),
        ("images", human(document.image_bytes)),
        ("sharded", by(document.shard_bits)),
        ("opened", format!("{} times", grouped(document.epoch))),
        ("cipher", cipher(document.encrypted_under.as_deref())),
    ])?;
    let columns = [
        ("SHARD", Side::Right),
        ("RECORDS", Side::Right),
        ("WRITES", Side::Right),
        ("DURABLE", Side::Right),
        ("LOG", Side::Right),
        ("FILES", Side::Right),
        ("IMAGE", Side::Right),
        ("IMAGE SIZE", Side::Right),
    ];
    let rows: Vec<_> = document.shards.iter().map(Row::cells).collect();
    out.table(&columns, &rows)?;
    Ok(Outcome::Fine)
}

/// By what of a key its shard is found.
fn by(shard_bits: u32) -> String {
    match shard_bits {
        0 => "by keys".to_owned(),
        bits => format!("by the first {} of a key", counted(bits.into(), "bit", "bits")),
    }
}

fn cipher(key: Option<&str>) -> String {
    key.map_or_else(|| "none".to_owned(), |key| format!("AES-256-GCM, under key {key}"))
}

#[derive(Serialize)]
struct AnyDocument {
    path: String,
    id: String,
    /// What its key is called, if it is encrypted.
    encrypted_under: Option<String>,
    shard_bits: u32,
    records: u64,
    key_bytes: u64,
    log_bytes: u64,
    live_bytes: u64,
    /// Hints that the disk could not read: segments were read instead.
    unread_hints: u64,
    shards: Vec<AnyRow>,
}

#[derive(Serialize)]
struct AnyRow {
    shard: u32,
    records: u64,
    key_bytes: u64,
    sequence: u64,
    segments: u64,
    log_bytes: u64,
    live_bytes: u64,
    unread_hints: u64,
}

impl AnyRow {
    fn of((shard, stats): (u32, LogShardStats)) -> Self {
        Self {
            shard,
            records: stats.records,
            key_bytes: stats.key_bytes,
            sequence: stats.sequence,
            segments: stats.segments,
            log_bytes: stats.log_bytes,
            live_bytes: stats.live_bytes,
            unread_hints: stats.unread_hints,
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.shard.to_string(),
            grouped(self.records),
            human(self.key_bytes),
            grouped(self.sequence),
            human(self.log_bytes),
            self.segments.to_string(),
            human(self.live_bytes),
        ]
    }
}

/// A store with values of any size.
fn stats_any(args: &Args, store: &LogOnDisk, out: &mut Output) -> Result<Outcome> {
    let shards: Vec<AnyRow> = (0..).zip(store.stats()).map(AnyRow::of).collect();
    let sum = |of: fn(&AnyRow) -> u64| shards.iter().map(of).sum();
    let document = AnyDocument {
        path: args.target.path.display().to_string(),
        id: hex::encode(&store.id()),
        encrypted_under: encrypted_under(&args.target.path).map_err(args.target.failed())?,
        shard_bits: store.shard_bits(),
        records: sum(|row| row.records),
        key_bytes: sum(|row| row.key_bytes),
        log_bytes: sum(|row| row.log_bytes),
        live_bytes: sum(|row| row.live_bytes),
        unread_hints: sum(|row| row.unread_hints),
        shards,
    };
    if out.json {
        out.document(&document)?;
        return Ok(Outcome::Fine);
    }
    let (records, keys) = (grouped(document.records), human(document.key_bytes));
    let (log, live) = (human(document.log_bytes), human(document.live_bytes));
    out.fields(&[
        ("store", format!("{} ({})", document.path, document.id)),
        ("records", format!("{records}, keys and values of any size; {keys} of keys")),
        ("log", format!("{log}, {live} of it is needed")),
        ("sharded", by(document.shard_bits)),
        ("cipher", cipher(document.encrypted_under.as_deref())),
    ])?;
    let columns = [
        ("SHARD", Side::Right),
        ("RECORDS", Side::Right),
        ("KEYS", Side::Right),
        ("WRITES", Side::Right),
        ("LOG", Side::Right),
        ("FILES", Side::Right),
        ("NEEDED", Side::Right),
    ];
    let rows: Vec<_> = document.shards.iter().map(AnyRow::cells).collect();
    out.table(&columns, &rows)?;
    if document.unread_hints > 0 {
        let hints = counted(document.unread_hints, "hint", "hints");
        out.line(&format!("the disk could not read {hints}; what they describe was read instead"))?;
        out.line("next: check the disk; `mainstay store repair` writes them anew")?;
    }
    Ok(Outcome::Fine)
}
