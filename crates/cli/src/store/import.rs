//! `mainstay store import`.

use super::{
    opened::Opened,
    portable::{Format, LineError, Reader, Record},
    target::Target,
};
use crate::{
    error::{CliError, Outcome, Result},
    interrupt::Interrupt,
    output::Output,
    progress::Progress,
    size::{counted, grouped},
};
use mainstay::store::{Change, Directory, Durability, RawStore};
use serde::Serialize;
use std::{
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

/// Bytes of a batch: always less than a file of the log takes.
const BATCH_BYTES: usize = 8 << 10;
/// After so many bytes of values they are synced.
const SYNC_BYTES: u64 = 64 << 20;
/// After so many records the store does what is due.
const BETWEEN_UPKEEP: u64 = 50_000;

/// Put the records of a file into a store
///
/// A JSON object a line, as in {"key": "alice", "value": "room 12"}, or CSV whose first line names
/// the columns. Bytes that are no text are given in hexadecimal digits, as key_hex and value_hex.
/// A record with `ends`, milliseconds since 1970, ends then, where records of the store can end.
/// Keys that are there get the new value; of a key that comes twice the last one counts. All of it
/// is durable when the command ends.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store import people.jsonl ./people
  mainstay store import people.csv ./people
  zcat people.csv.gz | mainstay store import - ./people --format csv")]
pub(super) struct Args {
    /// The records; - is standard input
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    #[command(flatten)]
    target: Target,
    /// What the file is [default: csv if its name ends so, else jsonl]
    #[arg(long)]
    format: Option<Format>,
}

#[derive(Serialize)]
struct Report {
    path: String,
    records: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let (name, input, bytes) = open(&args.file)?;
    let at = |line, source, imported| CliError::Line { file: name.clone(), line, source, imported };
    let reader = Reader::new(Format::of(args.format, &args.file), input);
    let mut reader = reader.map_err(|source| at(1, source, 0))?.named(&args.file);
    let store = match args.target.open_either()? {
        Opened::Fixed(store) => store,
        store => return one_by_one(args, store, &mut reader, bytes, at, out),
    };
    let progress = match bytes {
        0 => Progress::spinner("importing"),
        bytes => Progress::bytes("importing", bytes),
    };
    let mut import = Import::into(&store, &args.target);
    let imported = import.all(&mut reader, &progress, at);
    // What was read before an error stays, durably.
    let written = import.flush();
    let records = import.records;
    store.close().map_err(args.target.failed())?;
    drop(progress);
    imported.and(written)?;
    tell(args, records, out)
}

/// Values of any size, and those that end, go one by one, and are synced after so many bytes.
fn one_by_one(
    args: &Args,
    store: Opened,
    reader: &mut Reader,
    bytes: u64,
    at: impl Fn(u64, LineError, u64) -> CliError,
    out: &mut Output,
) -> Result<Outcome> {
    let failed = args.target.failed();
    let lengths = store.lengths();
    let progress = match bytes {
        0 => Progress::spinner("importing"),
        bytes => Progress::bytes("importing", bytes),
    };
    let interrupt = Interrupt::watch();
    let (mut records, mut shown, mut unsynced) = (0, 0, 0);
    let mut next = || -> Result<bool> {
        let next = reader.next(lengths);
        let (line, read) = reader.position();
        let Some((key, value, ends)) = next.map_err(|source| at(line, source, records))? else {
            return Ok(false);
        };
        store.put_until(&key, &value, ends).map_err(&failed)?;
        records += 1;
        unsynced += (key.len() + value.len()) as u64;
        if unsynced > SYNC_BYTES {
            store.tend().map_err(&failed)?;
            unsynced = 0;
        }
        interrupt.check("the records before stay; import the file again to have all")?;
        if records.is_multiple_of(64) {
            progress.advance(read - shown);
            shown = read;
        }
        Ok(true)
    };
    let imported = loop {
        match next() {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // What was read before an error stays, durably.
    store.close().map_err(&failed)?;
    drop(progress);
    imported?;
    tell(args, records, out)
}

fn tell(args: &Args, records: u64, out: &mut Output) -> Result<Outcome> {
    let path = args.target.path.display().to_string();
    if out.json {
        out.document(&Report { path, records })?;
    } else {
        out.line(&format!("imported {} into {path}", counted(records, "record", "records")))?;
    }
    Ok(Outcome::Fine)
}

/// The input, what to call it in errors, and how long it is, if that is known.
fn open(file: &Path) -> Result<(String, Box<dyn io::BufRead>, u64)> {
    if file == Path::new("-") {
        return Ok(("standard input".to_owned(), Box::new(BufReader::new(io::stdin())), 0));
    }
    let hint = "check the name; - is standard input";
    let opened = File::open(file).map_err(CliError::file(file, "open it", hint))?;
    let bytes = opened.metadata().map_or(0, |metadata| metadata.len());
    let input = BufReader::with_capacity(1 << 18, opened);
    Ok((file.display().to_string(), Box::new(input), bytes))
}

/// Records on their way, a batch a shard.
struct Import<'a> {
    store: &'a RawStore<Directory>,
    target: &'a Target,
    batches: Vec<(usize, Vec<Record>)>,
    records: u64,
}

impl<'a> Import<'a> {
    fn into(store: &'a RawStore<Directory>, target: &'a Target) -> Self {
        let batches = store.stats().iter().map(|_| (0, Vec::new())).collect();
        Self { store, target, batches, records: 0 }
    }

    fn all(
        &mut self,
        reader: &mut Reader,
        progress: &Progress,
        at: impl Fn(u64, LineError, u64) -> CliError,
    ) -> Result<()> {
        let interrupt = Interrupt::watch();
        let lengths = self.store.lengths();
        let mut shown = 0;
        loop {
            let next = reader.next(lengths);
            let (line, bytes) = reader.position();
            let Some(record) = next.map_err(|source| at(line, source, self.records))? else {
                return Ok(());
            };
            if record.2.is_some() {
                return Err(at(line, LineError::Ends, self.records));
            }
            self.add(record)?;
            interrupt.check("the records before stay; import the file again to have all")?;
            if self.records.is_multiple_of(256) {
                progress.advance(bytes - shown);
                shown = bytes;
            }
            if self.records.is_multiple_of(BETWEEN_UPKEEP) {
                self.store.tend().map_err(self.target.failed())?;
            }
        }
    }

    fn add(&mut self, record: Record) -> Result<()> {
        let shard = self.store.shard(&record.0).map_err(self.target.failed())? as usize;
        let len = 1 + record.0.len() + record.1.len();
        if self.batches[shard].0 + len > BATCH_BYTES {
            self.write(shard)?;
        }
        let (bytes, batch) = &mut self.batches[shard];
        *bytes += len;
        batch.push(record);
        self.records += 1;
        Ok(())
    }

    fn write(&mut self, shard: usize) -> Result<()> {
        let (bytes, batch) = &mut self.batches[shard];
        let changes: Vec<Change<'_>> =
            batch.iter().map(|(key, value, _)| Change::Put(key, value)).collect();
        self.store.batch(&changes, Durability::Memory).map_err(self.target.failed())?;
        *bytes = 0;
        batch.clear();
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        (0..self.batches.len()).try_for_each(|shard| self.write(shard))
    }
}

/// What of an import is there after all.
pub(crate) fn kept(imported: u64) -> String {
    match imported {
        0 => "nothing was imported".to_owned(),
        1 => "the record before it was imported, and stays".to_owned(),
        many => format!("the {} records before it were imported, and stay", grouped(many)),
    }
}
