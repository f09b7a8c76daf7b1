//! `mainstay store put`.

use super::{
    bytes::{Form, KeyArgs, Part, Row, cell, shown, text_of},
    target::Target,
};
use crate::{
    error::{CliError, Outcome, Result},
    output::Output,
    size::parse_duration,
};
use serde::Serialize;
use std::time::Duration;

/// Set the value of a key
///
/// It is durable when the command ends. With --new or --expect it is only set if the key is not
/// there yet, or has a certain value: of several that try at the same time, one succeeds. With --ttl
/// the record ends after that time; what --expect replaces ends when it would have.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store put ./people alice 'room 12'
  mainstay store put ./counters 42 1000 --key-as number --value-as number
  mainstay store put ./people alice photo.bin --value-as file
  mainstay store put ./people bob 'room 3' --new
  mainstay store put ./sessions alice 'token 7' --ttl 15m
  mainstay store put ./locks backup 'host 3' --new --ttl 90s
  mainstay store put ./people bob 'room 4' --expect 'room 3'")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    key: KeyArgs,
    /// The value
    #[arg(allow_negative_numbers = true)]
    value: String,
    /// What VALUE is
    #[arg(long, value_name = "FORM", default_value = "text")]
    value_as: Form,
    /// Only if the key is not there yet
    #[arg(long, conflicts_with = "expect")]
    new: bool,
    /// Only if the key has this value, in the form of VALUE
    #[arg(long, value_name = "OLD", allow_negative_numbers = true, conflicts_with = "ttl")]
    expect: Option<String>,
    /// Only for so long [default: for good]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    key: Row<'a>,
    epoch: u64,
    shard: u32,
    sequence: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let failed = args.target.failed();
    let store = args.target.open_either()?;
    if args.ttl.is_some() && !store.has_ends() {
        return Err(CliError::NoEnds(args.target.path.clone()));
    }
    let lengths = store.lengths();
    let (key_len, value_len) = lengths.unzip();
    let key = args.key.bytes(key_len)?;
    let value = args.value_as.bytes(&args.value, value_len, Part::Value)?;
    let token = if args.new {
        store.insert(&key, &value, args.ttl)
    } else if let Some(expected) = &args.expect {
        let expected = args.value_as.bytes(expected, value_len, Part::Value)?;
        store.replace(&key, &expected, &value)
    } else {
        store.put(&key, &value, args.ttl).map(Some)
    };
    let token = token.map_err(&failed)?;
    let now = if token.is_none() { store.get(&key).map_err(&failed)? } else { None };
    let done = if token.is_some() { "the write is durable" } else { "nothing was written" };
    store.close_after(done, &args.target.path);
    let text = text_of(lengths);
    let Some(token) = token else {
        let has = match now {
            Some(value) => format!("has the value {}", cell(&value, text)),
            None => "is not there".to_owned(),
        };
        return Err(CliError::NotAsExpected {
            path: args.target.path.clone(),
            key: shown(&key, text),
            has,
        });
    };
    if out.json {
        let (epoch, shard, sequence) = (token.epoch, token.shard, token.sequence);
        let key = Row::with(&key, None, text);
        out.document(&Report { key, epoch, shard, sequence })?;
    } else {
        let key = shown(&key, text);
        out.line(&format!("{key}: write {} of shard {}", token.sequence, token.shard))?;
    }
    Ok(Outcome::Fine)
}
