//! `mainstay store export`.

use super::{
    portable::{Format, Writer},
    target::Target,
};
use crate::{
    error::{CliError, Outcome, Result},
    interrupt::Interrupt,
    output::Output,
    progress::Progress,
    size::{counted, human},
};
use mainstay::store::OnDisk;
use serde::Serialize;
use std::{
    fs,
    io::{BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// Write all records of a store to a file that any program can read
///
/// A JSON object a line, or CSV; `import` reads both. Keys and values that are text are written as
/// such, without the zeros at their end; others in hexadecimal digits, as key_hex and value_hex.
/// The file appears complete or not at all.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store export ./people people.jsonl
  mainstay store export ./people people.csv --force
  mainstay store export ./people --sorted | sha256sum")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Where to; - is standard output
    #[arg(default_value = "-", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// What to write [default: csv if the name of the file ends so, else jsonl]
    #[arg(long)]
    format: Option<Format>,
    /// In the order of the keys; takes the memory of all records twice
    #[arg(long)]
    sorted: bool,
    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Report {
    file: String,
    records: u64,
    bytes: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let to_stdout = args.file == Path::new("-");
    if !to_stdout {
        refuse_what_is_there(args)?;
    }
    let view = args.target.view()?;
    let interrupt = Interrupt::watch();
    if to_stdout {
        let in_the_way = out.is_terminal();
        write_all(&view, args, out.writer(), &interrupt, in_the_way)?;
        return Ok(Outcome::Fine);
    }
    let (records, bytes) = to_file(&view, args, &interrupt)?;
    let file = args.file.display().to_string();
    if out.json {
        out.document(&Report { file, records, bytes })?;
    } else {
        let records = counted(records, "record", "records");
        out.line(&format!("exported {records} to {file} ({})", human(bytes)))?;
    }
    Ok(Outcome::Fine)
}

fn refuse_what_is_there(args: &Args) -> Result<()> {
    match fs::symlink_metadata(&args.file) {
        Ok(found) if !found.is_file() => Err(CliError::NotAFile(args.file.clone())),
        Ok(_) if !args.force => Err(CliError::FileExists(args.file.clone())),
        _ => Ok(()),
    }
}

fn to_file(view: &OnDisk, args: &Args, interrupt: &Interrupt) -> Result<(u64, u64)> {
    let path = &args.file;
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let hint = "name another place; nothing was written";
    let failed = |action| CliError::file(path, action, hint);
    let mut file = tempfile::Builder::new()
        .prefix(".mainstay-export-")
        .tempfile_in(folder)
        .map_err(failed("create a file beside it"))?;
    let buffered = BufWriter::with_capacity(1 << 20, &mut file);
    let records =
        write_all(view, args, buffered, interrupt, false).map_err(|error| match error {
            CliError::Output(source) => failed("write it")(source),
            other => other,
        })?;
    file.as_file().sync_all().map_err(failed("write it to the disk"))?;
    let bytes = file.as_file().metadata().map_or(0, |metadata| metadata.len());
    publish(file, args)?;
    // The name is on the disk only when the folder is.
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(CliError::file(folder, "write the folder to the disk", "check the disk"))?;
    Ok((records, bytes))
}

fn publish(file: NamedTempFile, args: &Args) -> Result<()> {
    let path = &args.file;
    let published = if args.force { file.persist(path) } else { file.persist_noclobber(path) };
    let Err(refused) = published else { return Ok(()) };
    if refused.error.kind() == ErrorKind::AlreadyExists {
        return Err(CliError::FileExists(path.clone()));
    }
    Err(CliError::file(path, "give it its name", "name another place")(refused.error))
}

/// How many records. An `Output` error is about the writer, whatever that is.
fn write_all(
    view: &OnDisk,
    args: &Args,
    writer: impl Write,
    interrupt: &Interrupt,
    in_the_way: bool,
) -> Result<u64> {
    let total = view.shards().map(|shard| shard.records).sum();
    let progress = if in_the_way { Progress::none() } else { Progress::bar("exporting", total) };
    let format = Format::of(args.format, &args.file);
    let mut writer = Writer::new(format, writer).map_err(CliError::Output)?;
    let (mut records, mut outcome) = (0_u64, Ok(()));
    let mut write = |key: &[u8], value: &[u8]| {
        if outcome.is_err() {
            return;
        }
        outcome = writer.record(key, value).map_err(CliError::Output);
        records += 1;
        if records.is_multiple_of(1_024) {
            progress.advance(1_024);
            let checked = interrupt.check("there is no complete export");
            outcome = std::mem::replace(&mut outcome, Ok(())).and(checked);
        }
    };
    if args.sorted {
        let mut sorted = Vec::with_capacity(total as usize);
        view.for_each(|key, value| sorted.push((key.to_vec(), value.to_vec())));
        sorted.sort_unstable();
        sorted.iter().for_each(|(key, value)| write(key, value));
    } else {
        view.for_each(write);
    }
    outcome?;
    writer.finish().map_err(CliError::Output)?;
    Ok(records)
}
