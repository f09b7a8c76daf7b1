//! `mainstay pool export`.

use super::portable::{Exported, Header, Writer};
use crate::{
    error::{CliError, Outcome, Result, warn},
    interrupt::Interrupt,
    output::Output,
    place::Target,
    progress::Progress,
    size::{grouped, human},
    whole_file::write_whole,
};
use mainstay::pool::{BlockInfo, Kind, PoolView, State};
use serde::Serialize;
use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
};

const INCOMPLETE: &str = "there is no complete export";

/// Write a pool's recoverable blocks to a file that any build, machine and language can read
///
/// Lines of JSON, with a checksum a block and one of the whole; docs/format/export.md describes
/// them. UUID, type, used length and data are kept; numbers and holders are not. The file appears
/// complete or not at all. Blocks are copied one by one while others go on working: what is written
/// to meanwhile may be a mix of old and new. For an exact copy, stop the writers first.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool export calls calls.jsonl
  mainstay pool export calls calls.jsonl --force
  mainstay pool export calls | gzip > calls.jsonl.gz")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Where to; - is standard output
    #[arg(default_value = "-", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Replace the file if there is one
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Report {
    file: String,
    blocks: u64,
    bytes: u64,
    held: u64,
}

/// What an export came to.
struct Written {
    blocks: u64,
    bytes: u64,
    /// Blocks that somebody held, and may have been writing to.
    held: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let view = PoolView::open(args.target.existing()?)?;
    let interrupt = Interrupt::watch();
    if args.file == Path::new("-") {
        let in_the_way = out.is_terminal();
        let written = write_all(&view, out.writer(), &interrupt, in_the_way)?;
        warn_of_held(&written);
        return Ok(Outcome::Fine);
    }
    let written =
        write_whole(&args.file, args.force, |writer| write_all(&view, writer, &interrupt, false))?
            .0;
    let file = args.file.display().to_string();
    let Written { blocks, bytes, held } = written;
    if out.json {
        out.document(&Report { file, blocks, bytes, held })?;
    } else {
        let (blocks, bytes) = (grouped(blocks), human(bytes));
        out.line(&format!("exported {blocks} blocks of {} to {file} ({bytes})", view.name()))?;
        warn_of_held(&written);
    }
    Ok(Outcome::Fine)
}

fn warn_of_held(written: &Written) {
    if written.held > 0 && std::io::stderr().is_terminal() {
        let held = grouped(written.held);
        warn(&format!("{held} blocks were held, and may have been written to meanwhile"));
    }
}

/// An `Output` error is about the writer, whatever that is.
fn write_all(
    view: &PoolView,
    writer: impl Write,
    interrupt: &Interrupt,
    in_the_way: bool,
) -> Result<Written> {
    let info = view.info()?;
    let progress =
        if in_the_way { Progress::none() } else { Progress::bar("exporting", info.blocks()) };
    let mut writer = Writer::new(writer, Header::new(&info)).map_err(CliError::Output)?;
    let mut held = 0;
    for block in view.blocks()? {
        progress.advance(1);
        interrupt.check(INCOMPLETE)?;
        if !is_wanted(&block) {
            continue;
        }
        // By now it may be freed, or another.
        let Some((info, data)) = view.copy_block(block.id.number)? else { continue };
        if !is_wanted(&info) {
            continue;
        }
        held += u64::from(info.state == State::Held);
        let mut exported = Exported {
            uuid: info.uuid,
            used_len: info.used_len as u64,
            fingerprint: info.fingerprint,
            exclusive: info.exclusive,
            data,
        };
        writer.block(&mut exported).map_err(CliError::Output)?;
    }
    let (blocks, bytes) = writer.finish().map_err(CliError::Output)?;
    Ok(Written { blocks, bytes, held })
}

/// What would outlive its holders.
fn is_wanted(block: &BlockInfo) -> bool {
    block.kind == Some(Kind::Recoverable) && !block.doomed
}
