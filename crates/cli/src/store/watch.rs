//! `mainstay store watch`.

use super::{
    bytes::{Form, Part, Row, cell, shown},
    opened::{Found, live, now_ms},
    target::Target,
};
use crate::{
    error::{CliError, Outcome, Result},
    hex,
    output::Output,
    size::{counted, parse_duration},
};
use mainstay::store::{Error, Reader, Span, encrypted_under};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

/// Print a line whenever a record changes, while a program has the store open
///
/// Reads the records in place, in the memory of the program that has the store open, and holds up
/// nobody: every so often it looks whether anything was written, and then at all records that are
/// asked for. Of a key that changes several times between two looks, only the last value is seen.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store watch ./people alice
  mainstay store watch ./people --prefix a --every 20ms
  mainstay store watch ./people --json --for 1m | jq 'select(.event == \"deleted\")'")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Only this key
    #[arg(allow_negative_numbers = true)]
    key: Option<String>,
    /// Only keys that begin with this
    #[arg(long, value_name = "TEXT", conflicts_with = "key")]
    prefix: Option<String>,
    /// What KEY and --prefix are
    #[arg(long, value_name = "FORM", default_value = "text")]
    key_as: Form,
    /// How often to look
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "100ms")]
    every: Duration,
    /// End after so long
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    end: Option<Duration>,
    /// End after so many changes
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

type Records = BTreeMap<Vec<u8>, Found>;

#[derive(Serialize)]
struct Line<'a> {
    at_ms: u64,
    event: &'static str,
    #[serde(flatten)]
    row: Row<'a>,
}

#[derive(Serialize)]
struct First {
    at_ms: u64,
    event: &'static str,
    records: u64,
}

/// The records of a store that are asked for.
struct View<'a> {
    args: &'a Args,
    reader: Reader,
    key: Option<Vec<u8>>,
    span: Span,
}

impl<'a> View<'a> {
    fn open(args: &'a Args) -> Result<Self> {
        if let Ok(Some(_)) = encrypted_under(&args.target.path) {
            return Err(CliError::NotToWatch(args.target.path.clone()));
        }
        let reader = Reader::open(&args.target.path).map_err(args.target.failed())?;
        let len = reader.lengths().0;
        let key =
            args.key.as_ref().map(|key| args.key_as.bytes(key, len, Part::Key)).transpose()?;
        let prefix = match (&args.prefix, args.key_as) {
            (None, _) => Vec::new(),
            (Some(text), Form::Text) => text.as_bytes().to_vec(),
            (Some(digits), Form::Hex) => {
                hex::decode(digits).ok_or_else(|| CliError::NotHex(digits.clone()))?
            }
            (Some(_), Form::Number | Form::File) => return Err(CliError::NoPrefix),
        };
        Ok(Self { args, reader, key, span: Span::ALL.prefix(&prefix) })
    }

    /// The records as they are now, and how much was written before that.
    fn look(&mut self) -> Result<(u64, Records)> {
        loop {
            match self.try_look() {
                // A program has opened the store with other memory.
                Err(Error::OtherMemory) => self.reader = Self::open(self.args)?.reader,
                done => return done.map_err(self.args.target.failed()),
            }
        }
    }

    fn try_look(&self) -> mainstay::store::Result<(u64, Records)> {
        let (written, mut records) = (self.reader.writes()?, Records::new());
        match &self.key {
            Some(key) => records.extend(
                self.reader
                    .get(key)?
                    .and_then(|stored| self.found(&stored))
                    .map(|it| (key.clone(), it)),
            ),
            None => self.reader.for_each(|key, stored| {
                if self.span.has(key) {
                    records.extend(self.found(stored).map(|found| (key.to_vec(), found)));
                }
            })?,
        }
        Ok((written, records))
    }

    /// The value, and when it ends, unless it has ended.
    fn found(&self, stored: &[u8]) -> Option<Found> {
        let (end, value) = live(stored, self.reader.has_ends(), now_ms())?;
        Some((value.to_vec(), end))
    }

    /// Was anything written since?
    fn has_changed(&self, written: u64) -> bool {
        self.reader.writes().map_or(true, |now| now != written)
    }
}

/// What has changed: the key, and its value if it has one.
fn changes<'a>(
    before: &'a Records,
    now: &'a Records,
) -> impl Iterator<Item = (&'a Vec<u8>, Option<&'a Found>)> {
    let gone = before.keys().filter(|key| !now.contains_key(*key)).map(|key| (key, None));
    let put = now.iter().filter(|(key, value)| before.get(*key) != Some(value));
    gone.chain(put.map(|(key, value)| (key, Some(value))))
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let mut view = View::open(args)?;
    let started = Instant::now();
    let at_ms = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (mut written, mut known) = view.look()?;
    let records = known.len() as u64;
    if out.json {
        out.json_line(&First { at_ms: at_ms(), event: "watching", records })?;
    } else {
        out.line(&format!("watching {}", counted(records, "record", "records")))?;
    }
    out.flush()?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let time = args.end.map_or(Duration::MAX, |end| end.saturating_sub(started.elapsed()));
        if time.is_zero() {
            break;
        }
        thread::sleep(args.every.min(time));
        if !view.has_changed(written) {
            continue;
        }
        let (now, found) = view.look()?;
        for (key, value) in
            changes(&known, &found).take(usize::try_from(left).unwrap_or(usize::MAX))
        {
            let event = if value.is_some() { "put" } else { "deleted" };
            if out.json {
                let row = Row::of(key, value.map(|(value, _)| value.as_slice()));
                let row = row.ending(value.and_then(|(_, ends)| *ends));
                out.json_line(&Line { at_ms: at_ms(), event, row })?;
            } else {
                let value =
                    value.map_or_else(String::new, |(value, _)| format!("  {}", cell(value)));
                let at = started.elapsed().as_secs_f64();
                out.line(&format!("{at:8.2} s  {event:7}  {}{value}", shown(key)))?;
            }
            left -= 1;
        }
        // Whoever watches wants to see it now.
        out.flush()?;
        (written, known) = (now, found);
    }
    Ok(Outcome::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_come_gone_and_changed_is_told_and_nothing_else() {
        let records = |all: &[(&str, &str)]| -> Records {
            all.iter()
                .map(|(key, value)| (key.as_bytes().into(), (value.as_bytes().into(), None)))
                .collect()
        };
        let before = records(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let now = records(&[("b", "2"), ("c", "1"), ("d", "1")]);
        let told: Vec<_> = changes(&before, &now)
            .map(|(key, value)| (shown(key), value.map(|(value, _)| shown(value))))
            .collect();
        let put = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
        assert_eq!(told, [("a".to_owned(), None), put("b", "2"), put("d", "1")]);
    }
}
