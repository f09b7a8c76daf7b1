//! `mainstay store export`.

use super::{
    opened::View,
    portable::{Format, Writer},
    target::Target,
};
use crate::{
    error::{CliError, Outcome, Result},
    interrupt::Interrupt,
    output::Output,
    progress::Progress,
    size::{counted, human},
    whole_file::{refuse_what_is_there, write_whole},
};
use serde::Serialize;
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// Write all records of a store to a file that any program can read
///
/// A JSON object a line, or CSV; `import` reads both. Keys and values that are text are written as
/// such, without the zeros at their end; others in hexadecimal digits, as key_hex and value_hex. Of a
/// record that ends, `ends` says when: milliseconds since 1970; what has ended is left out.
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
    /// In the order of the keys; takes the memory of all keys twice
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
        refuse_what_is_there(&args.file, args.force)?;
    }
    let view = args.target.look()?;
    let interrupt = Interrupt::watch();
    if to_stdout {
        let in_the_way = out.is_terminal();
        write_all(&view, args, out.writer(), &interrupt, in_the_way)?;
        return Ok(Outcome::Fine);
    }
    let (records, bytes) = write_whole(&args.file, args.force, |writer| {
        write_all(&view, args, writer, &interrupt, false)
    })?;
    let file = args.file.display().to_string();
    if out.json {
        out.document(&Report { file, records, bytes })?;
    } else {
        let records = counted(records, "record", "records");
        out.line(&format!("exported {records} to {file} ({})", human(bytes)))?;
    }
    Ok(Outcome::Fine)
}

/// How many records. An `Output` error is about the writer, whatever that is.
fn write_all(
    view: &View,
    args: &Args,
    writer: impl Write,
    interrupt: &Interrupt,
    in_the_way: bool,
) -> Result<u64> {
    let total = view.records();
    let progress = if in_the_way { Progress::none() } else { Progress::bar("exporting", total) };
    let format = Format::of(args.format, &args.file);
    let mut writer = Writer::new(format, view.has_ends(), writer).map_err(CliError::Output)?;
    let text = view.text();
    let (mut records, mut outcome) = (0_u64, Ok(()));
    // Says whether there is to be more: a record may be so long that each is asked about.
    let mut write = |key: &[u8], value: &[u8], ends| {
        outcome = interrupt
            .check("there is no complete export")
            .and_then(|()| writer.record((key, value, ends), text).map_err(CliError::Output));
        records += 1;
        if records.is_multiple_of(1_024) {
            progress.advance(1_024);
        }
        outcome.is_ok()
    };
    if args.sorted {
        let mut keys = Vec::with_capacity(total as usize);
        view.for_each_key(|key| keys.push(key.to_vec())).map_err(args.target.failed())?;
        keys.sort_unstable();
        for key in keys {
            // None: it was removed meanwhile.
            let found = view.get(&key).map_err(args.target.failed())?;
            if !found.is_none_or(|(value, ends)| write(&key, &value, ends)) {
                break;
            }
        }
    } else {
        view.for_each_while(write).map_err(args.target.failed())?;
    }
    outcome?;
    writer.finish().map_err(CliError::Output)?;
    Ok(records)
}
