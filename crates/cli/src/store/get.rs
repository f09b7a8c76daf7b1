//! `mainstay store get`.

use super::{
    bytes::{KeyArgs, Row, shown},
    opened::now_ms,
    target::Target,
};
use crate::{
    error::{CliError, Outcome, Result},
    hex,
    output::Output,
};
use std::io::Write;

/// Show the value of a key
///
/// As text, if it is one, without the zeros at its end where sizes are fixed; else as a dump. With
/// --json also when it ends (milliseconds since 1970) and how long that is, if it does. The exit status
/// is 1 if the key is not there, or has ended.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store get ./people alice
  mainstay store get ./counters 42 --key-as number --hex
  mainstay store get ./people 00ff10 --key-as hex --raw > value.bin
  mainstay store get ./people alice --json")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    key: KeyArgs,
    /// In hexadecimal digits
    #[arg(long, conflicts_with_all = ["json", "raw"])]
    hex: bool,
    /// The bytes as they are
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let view = args.target.look()?;
    let as_text = view.text();
    let key = args.key.bytes(view.lengths().map(|lengths| lengths.0))?;
    let Some((value, ends)) = view.get(&key).map_err(args.target.failed())? else {
        return Err(CliError::NoRecord {
            path: args.target.path.clone(),
            key: shown(&key, as_text),
        });
    };
    let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    if out.json {
        let row = Row::with(&key, Some(&value), as_text);
        out.document(&row.ending(ends).left_at(now_ms()))?;
    } else if args.raw {
        out.writer().write_all(&value).map_err(CliError::Output)?;
    } else if args.hex {
        out.line(&hex::encode(&value))?;
    } else if let Some(text) = as_text(&value).filter(|text| text.chars().all(plain)) {
        // Line by line, so that a newline is a newline.
        text.lines().try_for_each(|line| out.line(&line.replace('\t', "    ")))?;
    } else {
        hex::dump(out.writer(), &value, |_| {}).map_err(CliError::Output)?;
    }
    Ok(Outcome::Fine)
}
