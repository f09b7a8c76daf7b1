//! `mainstay store aside`.

use super::{
    bytes::{as_text, exact_text},
    keys,
    portable::{Format, Writer},
    target::Target,
};
use crate::{
    error::{CliError, Outcome, Result},
    output::{Output, Side},
    size::{counted, grouped, human},
    whole_file::{refuse_what_is_there, write_whole},
};
use mainstay::store::{Aside, AsideFile};
use serde::Serialize;
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// Show what a store had to give up for its leader, or write it to a file
///
/// A store that follows another one sets aside what only it has, in files beside its own. Without FILE
/// they are listed: which shard's records they have, and up to which write of which epoch that shard
/// went its own way. With FILE, - being standard output, all their records are written there, as
/// `export` would and `import` reads them: who wants them back imports them into the leader. Of a key
/// that was set aside several times the last one counts. What is imported stays in the files; remove
/// them when they are not needed. The store may be open.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store aside ./people
  mainstay store aside ./people given-up.csv
  mainstay store aside ./people - | mainstay store import - ./leader
  mainstay store aside ./secrets - --key-file secrets.key")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Where to write the records; - is standard output
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// What to write [default: csv if the name of the file ends so, else jsonl]
    #[arg(long, requires = "file")]
    format: Option<Format>,
    /// Replace the file if there is one
    #[arg(long, requires = "file")]
    force: bool,
}

#[derive(Serialize)]
struct Listed {
    file: String,
    shard: u32,
    epoch: u64,
    sequence: u64,
    records: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Report {
    file: String,
    records: u64,
    bytes: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let aside = keys::aside(&args.target.path).map_err(args.target.failed())?;
    let Some(to) = &args.file else { return list(args, &aside, out) };
    if to == Path::new("-") {
        write_all(args, to, &aside, out.writer())?;
        return Ok(Outcome::Fine);
    }
    refuse_what_is_there(to, args.force)?;
    let write = |writer: &mut dyn Write| write_all(args, to, &aside, writer);
    let (records, bytes) = write_whole(to, args.force, write)?;
    let file = to.display().to_string();
    if out.json {
        out.document(&Report { file, records, bytes })?;
    } else {
        let records = counted(records, "record", "records");
        out.line(&format!("wrote {records} to {file} ({})", human(bytes)))?;
    }
    Ok(Outcome::Fine)
}

fn list(args: &Args, aside: &Aside, out: &mut Output) -> Result<Outcome> {
    let listed = |file: &AsideFile| {
        let mut records = 0;
        aside.for_each(file, |_, _, _| records += 1).map_err(args.target.failed())?;
        let AsideFile { name, shard, epoch, sequence, bytes, .. } = file.clone();
        Ok(Listed { file: name, shard, epoch, sequence, records, bytes })
    };
    let files = aside.files().iter().map(listed).collect::<Result<Vec<_>>>()?;
    if out.json {
        out.document(&files)?;
        return Ok(Outcome::Fine);
    }
    if files.is_empty() {
        out.line(&format!("{}: nothing was set aside", args.target.path.display()))?;
        return Ok(Outcome::Fine);
    }
    let columns = [
        ("FILE", Side::Left),
        ("SHARD", Side::Right),
        ("EPOCH", Side::Right),
        ("WRITES", Side::Right),
        ("RECORDS", Side::Right),
        ("SIZE", Side::Right),
    ];
    let row = |file: &Listed| {
        vec![
            file.file.clone(),
            file.shard.to_string(),
            file.epoch.to_string(),
            grouped(file.sequence),
            grouped(file.records),
            human(file.bytes),
        ]
    };
    out.table(&columns, &files.iter().map(row).collect::<Vec<_>>())?;
    Ok(Outcome::Fine)
}

/// How many records. An `Output` error is about the writer, whatever that is.
fn write_all(args: &Args, to: &Path, aside: &Aside, writer: impl Write) -> Result<u64> {
    let format = Format::of(args.format, to);
    let mut writer = Writer::new(format, true, writer).map_err(CliError::Output)?;
    let text = if args.target.is_any() { exact_text } else { as_text };
    let (mut records, mut outcome) = (0, Ok(()));
    for file in aside.files() {
        let write = |key: &[u8], value: &[u8], ends| {
            if outcome.is_ok() {
                outcome = writer.record((key, value, ends), text).map_err(CliError::Output);
                records += 1;
            }
        };
        aside.for_each(file, write).map_err(args.target.failed())?;
    }
    outcome?;
    writer.finish().map_err(CliError::Output)?;
    Ok(records)
}
