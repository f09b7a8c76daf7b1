//! `mainstay store bench`.

mod followers;

use super::{keys, target::failed};
use crate::{
    channel::wire::Over,
    error::{CliError, Outcome, Result},
    output::{Output, Side},
    progress::Progress,
    size::grouped,
};
use mainstay::store::{Change, Directory, Durability, Options, RawStore};
use mainstay_base::Rng;
use serde::Serialize;
use std::{
    hint::black_box,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// A measurement ends after so long.
const TIME: Duration = Duration::from_millis(700);
const KEY_BYTES: usize = 16;
/// Records of a durable batch.
const BATCH: usize = 256;
/// Operations between looks at the clock.
const ROUND: usize = 256;

/// Measure a store on this machine and this disk
///
/// In a folder of its own, which is removed in the end; keys of 16 bytes. `load` fills an empty
/// store; `get` reads known keys in random order; `put, memory` does not wait for the disk; `put,
/// durable` waits for it, each write by itself, and writers that wait at the same time share a sync;
/// `batch, durable` writes 256 records a sync; `open` reads everything again; `compact` writes an
/// image of everything.
///
/// With `--followers` something else is measured: how long so many followers take to get everything
/// from one leader at once, all of them processes, and how much memory the leader needs at most
/// while one more stands still. With --key-file the store is encrypted, but not for followers.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store bench
  mainstay store bench --records 1000000 --value-bytes 256 --in /var/lib
  mainstay store bench --followers 2 --records 2000000
  mainstay store bench --json | jq '.[] | select(.operation == \"get\")'")]
pub(super) struct Args {
    /// How many records
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1_000..=50_000_000))]
    records: u64,
    /// Bytes of a value
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(0..=4_096))]
    value_bytes: u16,
    /// Threads that read, and that write
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// How many shards
    #[arg(long, value_name = "N", default_value_t = Options::default().shards)]
    shards: u32,
    /// The folder to make the store in: on the disk that is to be measured
    #[arg(long = "in", value_name = "FOLDER", default_value = ".", value_hint = clap::ValueHint::DirPath)]
    folder: PathBuf,
    /// Measure so many followers instead
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=16))]
    followers: u32,
    /// Over what they follow; may be given several times [default: all that this program has]
    #[arg(long, value_enum, requires = "followers")]
    over: Vec<Over>,
}

#[derive(Serialize)]
struct Row {
    operation: &'static str,
    threads: u32,
    operations: u64,
    seconds: f64,
    per_second: f64,
}

type Store = RawStore<Directory>;

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let hint = "name another folder with --in";
    let folder = tempfile::Builder::new()
        .prefix(".mainstay-store-bench-")
        .tempdir_in(&args.folder)
        .map_err(CliError::file(&args.folder, "make a folder in it", hint))?;
    if args.followers > 0 {
        return followers::run(args, folder.path(), out);
    }
    let rows = measure(args, folder.path())?;
    if out.json {
        out.document(&rows)?;
    } else {
        tell(&rows, out)?;
    }
    Ok(Outcome::Fine)
}

fn measure(args: &Args, path: &Path) -> Result<Vec<Row>> {
    let failed = failed(path);
    let progress = Progress::bar("measuring", 8);
    let options = Options { shards: args.shards, ..Options::default() };
    let lock = || keys::lock(path).map_err(&failed);
    let store = RawStore::create(lock()?, KEY_BYTES, args.value_bytes.into(), &options);
    let store = store.map_err(&failed)?;
    let mut rows = Vec::new();
    let mut add = |operation, threads, operations, elapsed: Duration| {
        let seconds = elapsed.as_secs_f64();
        let per_second = operations as f64 / seconds;
        rows.push(Row { operation, threads, operations, seconds, per_second });
        progress.advance(1);
    };
    let work = Work { args, store: &store };
    let began = Instant::now();
    work.load().map_err(&failed)?;
    add("load", 1, args.records, began.elapsed());
    let mut timed =
        |operation, threads, one: &(dyn Fn(&mut Rng) -> mainstay::store::Result<u64> + Sync)| {
            let (operations, elapsed) = work.timed(threads, one).map_err(&failed)?;
            add(operation, threads, operations, elapsed);
            Ok::<_, CliError>(())
        };
    timed("get", args.threads, &|rng| work.gets(rng))?;
    timed("put, memory", args.threads, &|rng| work.puts(rng, Durability::Memory, ROUND))?;
    timed("put, durable", 1, &|rng| work.puts(rng, Durability::Group, 1))?;
    timed("put, durable", 8, &|rng| work.puts(rng, Durability::Group, 1))?;
    timed("batch, durable", args.threads, &|rng| work.batch(rng))?;
    let began = Instant::now();
    store.compact().map_err(&failed)?;
    add("compact", 1, args.records, began.elapsed());
    store.close().map_err(&failed)?;
    let began = Instant::now();
    let store = RawStore::open(lock()?, &options).map_err(&failed)?;
    add("open", 1, args.records, began.elapsed());
    drop(store);
    Ok(rows)
}

struct Work<'a> {
    args: &'a Args,
    store: &'a Store,
}

impl Work<'_> {
    fn key(&self, number: u64) -> [u8; KEY_BYTES] {
        let mut key = *b"record..........";
        key[8..].copy_from_slice(&number.to_be_bytes());
        key
    }

    fn any_key(&self, rng: &mut Rng) -> [u8; KEY_BYTES] {
        self.key(rng.below(self.args.records))
    }

    fn value(&self, rng: &mut Rng) -> Vec<u8> {
        vec![rng.next_u64() as u8; self.args.value_bytes.into()]
    }

    fn load(&self) -> mainstay::store::Result<()> {
        let value = vec![1; self.args.value_bytes.into()];
        for number in 0..self.args.records {
            self.store.put(&self.key(number), &value, Durability::Memory)?;
            if number % 100_000 == 99_999 {
                self.store.tend()?;
            }
        }
        self.store.sync().map(drop)
    }

    fn gets(&self, rng: &mut Rng) -> mainstay::store::Result<u64> {
        for _ in 0..ROUND {
            let key = self.any_key(rng);
            black_box(self.store.read(&key, |value| value.first().copied())?);
        }
        Ok(ROUND as u64)
    }

    fn puts(
        &self,
        rng: &mut Rng,
        durability: Durability,
        count: usize,
    ) -> mainstay::store::Result<u64> {
        for _ in 0..count {
            self.store.put(&self.any_key(rng), &self.value(rng), durability)?;
        }
        Ok(count as u64)
    }

    /// Keys of one shard.
    fn batch(&self, rng: &mut Rng) -> mainstay::store::Result<u64> {
        let shard = rng.below(self.args.shards.into()) as u32;
        let mut records = Vec::with_capacity(BATCH);
        while records.len() < BATCH {
            let key = self.any_key(rng);
            if self.store.shard(&key)? == shard {
                records.push((key, self.value(rng)));
            }
        }
        let changes: Vec<Change<'_>> =
            records.iter().map(|(key, value)| Change::Put(key, value)).collect();
        self.store.batch(&changes, Durability::Group)?;
        Ok(BATCH as u64)
    }

    /// Does something on several threads until the time is over: how often, and how long it took.
    fn timed(
        &self,
        threads: u32,
        one: &(dyn Fn(&mut Rng) -> mainstay::store::Result<u64> + Sync),
    ) -> mainstay::store::Result<(u64, Duration)> {
        let began = Instant::now();
        let work = |seed: u32| {
            move || {
                let mut rng = Rng::seeded(seed.into());
                let mut done = 0;
                while began.elapsed() < TIME {
                    done += one(&mut rng)?;
                }
                Ok(done)
            }
        };
        let done = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|seed| scope.spawn(work(seed))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("nothing in the loop panics"))
                .sum::<mainstay::store::Result<u64>>()
        })?;
        let elapsed = began.elapsed();
        self.store.tend()?;
        Ok((done, elapsed))
    }
}

fn tell(rows: &[Row], out: &mut Output) -> Result<()> {
    let columns = [
        ("OPERATION", Side::Left),
        ("THREADS", Side::Right),
        ("RECORDS/S", Side::Right),
        ("RECORDS", Side::Right),
        ("SECONDS", Side::Right),
    ];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.operation.to_owned(),
                row.threads.to_string(),
                grouped(row.per_second as u64),
                grouped(row.operations),
                format!("{:.3}", row.seconds),
            ]
        })
        .collect();
    out.table(&columns, &cells)
}
