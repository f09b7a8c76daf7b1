//! `mainstay store watch`.

use super::{
    bytes::{Form, Part, Row, Text, cell, shown, text_of},
    keys,
    opened::{Found, live, now_ms},
    target::Target,
};
use crate::{
    error::{CliError, Outcome, Result},
    output::Output,
    size::{counted, parse_duration},
};
use mainstay::store::{Error, Reader, Span, encrypted_under};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Files that were changed so short a time ago may be changed again with the same time.
const UNSETTLED: Duration = Duration::from_millis(30);

/// Print a line whenever a record changes, while a program has the store open
///
/// Reads the records in place, in the memory of the program that has the store open, and holds up
/// nobody: every so often it looks whether anything was written, and then at all records that are
/// asked for. Of a key that changes several times between two looks, only the last value is seen.
/// A store with values of any size is read in its files, whether a program has it open or not: where
/// something was written, the values that are asked for are read again. A record that ends is told as
/// `ended` as soon as its time is over, whether or not it is removed already.
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

/// Where the records are.
enum Source {
    /// In the memory of the program that has the store open.
    Memory(Reader),
    /// In files, that anybody may change.
    Files,
}

/// The records of a store that are asked for.
struct View<'a> {
    args: &'a Args,
    source: Source,
    key: Option<Vec<u8>>,
    span: Span,
}

impl<'a> View<'a> {
    fn open(args: &'a Args) -> Result<Self> {
        let path = &args.target.path;
        let source = if args.target.is_any() {
            Source::Files
        } else if let Ok(Some(_)) = encrypted_under(path) {
            return Err(CliError::NotToWatch(path.clone()));
        } else {
            Source::Memory(Reader::open(path).map_err(args.target.failed())?)
        };
        let len = match &source {
            Source::Memory(reader) => Some(reader.lengths().0),
            Source::Files => None,
        };
        let key =
            args.key.as_ref().map(|key| args.key_as.bytes(key, len, Part::Key)).transpose()?;
        let prefix = args.prefix.as_ref().map(|given| args.key_as.prefix(given)).transpose()?;
        Ok(Self { args, source, key, span: Span::ALL.prefix(&prefix.unwrap_or_default()) })
    }

    /// Which bytes are text.
    fn text(&self) -> Text {
        match &self.source {
            Source::Memory(reader) => text_of(Some(reader.lengths())),
            Source::Files => text_of(None),
        }
    }

    /// The records as they are now, and how much was written before that; none if that is in doubt.
    fn look(&mut self) -> Result<(Option<u64>, Records)> {
        loop {
            let found = match &self.source {
                Source::Memory(reader) => self.in_memory(reader),
                Source::Files => self.in_files(),
            };
            match found {
                // A program has opened the store with other memory.
                Err(Error::OtherMemory) => self.source = Self::open(self.args)?.source,
                done => return done.map_err(self.args.target.failed()),
            }
        }
    }

    fn in_memory(&self, reader: &Reader) -> mainstay::store::Result<(Option<u64>, Records)> {
        let (written, mut records) = (reader.writes()?, Records::new());
        // The value, and when it ends, unless it has ended.
        let found = |stored: &[u8]| {
            let (end, value) = live(stored, reader.has_ends(), now_ms())?;
            Some((value.to_vec(), end))
        };
        match &self.key {
            Some(key) => {
                let stored = reader.get(key)?;
                records.extend(stored.and_then(|it| found(&it)).map(|it| (key.clone(), it)));
            }
            None => reader.for_each(|key, stored| {
                if self.span.has(key) {
                    records.extend(found(stored).map(|found| (key.to_vec(), found)));
                }
            })?,
        }
        Ok((Some(written), records))
    }

    fn in_files(&self) -> mainstay::store::Result<(Option<u64>, Records)> {
        let path = &self.args.target.path;
        let (written, mut records) = (mark_of(path).unwrap_or_default(), Records::new());
        let view = keys::beside_any(path)?;
        match &self.key {
            Some(key) => records.extend(view.get(key)?.map(|found| (key.clone(), found))),
            None => {
                let mut keys = Vec::new();
                view.for_each_key(|key| keys.extend(self.span.has(key).then(|| key.to_vec())));
                for key in keys {
                    records.extend(view.get(&key)?.map(|found| (key, found)));
                }
            }
        }
        Ok((written, records))
    }

    /// Was anything written since?
    fn has_changed(&self, written: Option<u64>) -> bool {
        let now = match &self.source {
            Source::Memory(reader) => reader.writes().ok(),
            Source::Files => mark_of(&self.args.target.path).unwrap_or_default(),
        };
        now.is_none() || now != written
    }
}

/// Changes whenever a file of the directory does; none while that may have happened too short a time
/// ago to tell.
fn mark_of(path: &Path) -> io::Result<Option<u64>> {
    let (now, mut files) = (SystemTime::now(), Vec::new());
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(found) => files.push((entry.file_name(), found.len(), found.modified()?)),
            // Removed meanwhile: the next look sees it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let settled = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age > UNSETTLED);
    if !files.iter().all(|(_, _, at)| settled(at)) {
        return Ok(None);
    }
    files.sort_unstable();
    let mut mark = DefaultHasher::new();
    files.hash(&mut mark);
    Ok(Some(mark.finish()))
}

/// When the first of them ends that does.
fn first_end(records: &Records) -> Option<u64> {
    records.values().filter_map(|(_, end)| *end).min()
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
    let (text, mut next_end) = (view.text(), first_end(&known));
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let time = args.end.map_or(Duration::MAX, |end| end.saturating_sub(started.elapsed()));
        if time.is_zero() {
            break;
        }
        thread::sleep(args.every.min(time));
        let has_ended = |end: Option<u64>| end.is_some_and(|end| end <= now_ms());
        if !view.has_changed(written) && !has_ended(next_end) {
            continue;
        }
        let (now, found) = view.look()?;
        for (key, value) in
            changes(&known, &found).take(usize::try_from(left).unwrap_or(usize::MAX))
        {
            let event = match value {
                Some(_) => "put",
                None if known.get(key).is_some_and(|(_, end)| has_ended(*end)) => "ended",
                None => "deleted",
            };
            if out.json {
                let value_bytes = value.map(|(value, _)| value.as_slice());
                let row = Row::with(key, value_bytes, text);
                let row = row.ending(value.and_then(|(_, ends)| *ends));
                out.json_line(&Line { at_ms: at_ms(), event, row })?;
            } else {
                let value =
                    value.map_or_else(String::new, |(value, _)| format!("  {}", cell(value, text)));
                let at = started.elapsed().as_secs_f64();
                out.line(&format!("{at:8.2} s  {event:7}  {}{value}", shown(key, text)))?;
            }
            left -= 1;
        }
        // Whoever watches wants to see it now.
        out.flush()?;
        next_end = first_end(&found);
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
            .map(|(key, value)| {
                let shown = |bytes: &[u8]| shown(bytes, text_of(None));
                (shown(key), value.map(|(value, _)| shown(value)))
            })
            .collect();
        let put = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
        assert_eq!(told, [("a".to_owned(), None), put("b", "2"), put("d", "1")]);
    }
}
