//! `mainstay store touch`.

use super::{
    bytes::{KeyArgs, Row, shown, text_of},
    target::Target,
};
use crate::{
    error::{CliError, Outcome, Result},
    output::Output,
    size::{lasting, parse_duration},
};
use serde::Serialize;
use std::time::Duration;

/// Let a record end at another time, or never
///
/// Its value stays. The exit status is 1 if the key is not there, or has ended.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store touch ./sessions alice --ttl 15m
  mainstay store touch ./sessions alice --forever")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    key: KeyArgs,
    /// So long from now
    #[arg(long, value_name = "DURATION", value_parser = parse_duration,
          required_unless_present = "forever", conflicts_with = "forever")]
    ttl: Option<Duration>,
    /// Never
    #[arg(long)]
    forever: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    key: Row<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_ms: Option<u64>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let failed = args.target.failed();
    let store = args.target.open_either()?;
    if !store.has_ends() {
        return Err(CliError::NoEnds(args.target.path.clone()));
    }
    let lengths = store.lengths();
    let key = args.key.bytes(lengths.map(|lengths| lengths.0))?;
    let touched = store.touch(&key, args.ttl).map_err(&failed)?;
    let done = if touched.is_some() { "the write is durable" } else { "nothing was written" };
    store.close_after(done, &args.target.path);
    let text = text_of(lengths);
    if touched.is_none() {
        return Err(CliError::NoRecord { path: args.target.path.clone(), key: shown(&key, text) });
    }
    if out.json {
        let left_ms = args.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let key = Row::with(&key, None, text);
        out.document(&Report { key, left_ms })?;
    } else {
        let end = args.ttl.map_or_else(|| "never".to_owned(), |ttl| format!("in {}", lasting(ttl)));
        let key = shown(&key, text);
        out.line(&format!("{key}: ends {end}"))?;
    }
    Ok(Outcome::Fine)
}
