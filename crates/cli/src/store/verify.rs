//! `mainstay store verify`.

use super::{
    bytes::{Row, Text, as_text, cell, exact_text},
    keys,
    opened::{is_any, now_ms},
    target::{Target, failed, view_either},
};
use crate::{
    error::{CliError, Outcome, Result},
    output::{Output, Side},
    progress::{Bar, Progress},
    size::{grouped, human},
};
use mainstay::store::{
    Error, FileKind, FileReport, LogDamage, LogOnDisk, OnDisk, is_log_copy, split_end,
};
use serde::Serialize;
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// How many differences are listed for people.
const LISTED_MAX: usize = 20;

/// Check every checksum of a store: headers, each write of the log, each part of the images
///
/// Changes nothing, and needs no room. The exit status is 3 if something is not as it was written;
/// what has a sound copy is told as well. With --against, two stores are compared record by record
/// instead, whatever their files and histories are, and the exit status is 3 if they differ; of
/// encrypted ones the keys of both are given.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store verify ./people
  mainstay store verify ./people --json | jq '.files[] | select(.damage != [])'
  mainstay store verify ./leader --against ./follower
  mainstay store verify ./leader --against ./follower --key-file one.key --key-file other.key")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Compare with this store
    #[arg(long, value_name = "STORE", value_hint = clap::ValueHint::DirPath)]
    against: Option<PathBuf>,
}

#[derive(Serialize)]
struct Document {
    path: String,
    sound: bool,
    can_be_opened: bool,
    records: u64,
    files: Vec<File>,
}

#[derive(Serialize)]
struct File {
    name: String,
    kind: &'static str,
    shard: Option<u32>,
    bytes: u64,
    /// Sound writes of a segment, sound chunks of an image.
    parts: u64,
    records: u64,
    sequence: u64,
    unfinished: bool,
    damage: Vec<Place>,
}

#[derive(Serialize)]
struct Place {
    offset: u64,
    what: &'static str,
    has_copy: bool,
}

fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Store => "header",
        FileKind::Segment => "log",
        FileKind::Image => "image",
        FileKind::Leftover => "leftover",
        _ => "other",
    }
}

impl From<&FileReport> for File {
    fn from(file: &FileReport) -> Self {
        let place = |damage: &mainstay::store::Damage| Place {
            offset: damage.offset,
            what: damage.what,
            has_copy: damage.has_copy,
        };
        Self {
            name: file.name.clone(),
            kind: kind(file.kind),
            shard: file.shard,
            bytes: file.bytes,
            parts: file.parts,
            records: file.records,
            sequence: file.sequence,
            unfinished: file.unfinished,
            damage: file.damage.iter().map(place).collect(),
        }
    }
}

impl File {
    fn cells(&self) -> Vec<String> {
        let is_log = matches!(self.kind, "log" | "image");
        let number = |number: u64| if is_log { grouped(number) } else { "-".to_owned() };
        let verdict = match (self.damage.len(), self.unfinished) {
            (0, false) => "sound".to_owned(),
            (0, true) => "sound; the last write was not finished".to_owned(),
            (1, _) => "DAMAGED".to_owned(),
            (many, _) => format!("DAMAGED in {many} places"),
        };
        vec![
            self.name.clone(),
            self.kind.to_owned(),
            human(self.bytes),
            number(self.parts),
            number(self.records),
            number(self.sequence),
            verdict,
        ]
    }
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    if let Some(other) = &args.against {
        return compare(&args.target.path, other, out);
    }
    if args.target.is_any() {
        return verify_any(args, out);
    }
    if args.target.path.is_dir() && is_log_copy(&args.target.path).map_err(args.target.failed())? {
        return verify_copy(args, out);
    }
    let survey = args.target.survey("verifying")?;
    if survey.is_sound() && !survey.is_whole {
        return Err(CliError::Unfinished(args.target.path.clone()));
    }
    let document = Document {
        path: args.target.path.display().to_string(),
        sound: survey.is_sound(),
        can_be_opened: survey.can_be_opened(),
        records: survey.records,
        files: survey.files.iter().map(File::from).collect(),
    };
    if out.json {
        out.document(&document)?;
    } else {
        tell(&document, out)?;
    }
    Ok(if document.sound { Outcome::Fine } else { Outcome::Damaged })
}

#[derive(Serialize)]
struct AnyDocument {
    path: String,
    sound: bool,
    can_be_opened: bool,
    records: u64,
    segments: u64,
    log_bytes: u64,
    live_bytes: u64,
    damage: Vec<AnyPlace>,
}

/// A place that is damaged, where not every file has a report.
#[derive(Serialize)]
pub(super) struct AnyPlace {
    file: String,
    offset: u64,
    what: &'static str,
    has_copy: bool,
}

impl From<&LogDamage> for AnyPlace {
    fn from(damage: &LogDamage) -> Self {
        let LogDamage { file, offset, what, has_copy, .. } = damage;
        Self { file: file.clone(), offset: *offset, what, has_copy: *has_copy }
    }
}

impl fmt::Display for AnyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, what, has_copy } = self;
        let copy = if *has_copy { HAS_COPY } else { "" };
        write!(f, "{file} at byte {offset}: {what}{copy}")
    }
}

/// What is said of such a place.
const HAS_COPY: &str = " (nothing is lost: it is not needed, or has a copy)";

/// A store with values of any size.
fn verify_any(args: &Args, out: &mut Output) -> Result<Outcome> {
    let mut bar = Bar::new("verifying");
    let survey = keys::survey_any(&args.target.path, |done, total| bar.to(done, total));
    let survey = survey.map_err(args.target.failed())?;
    drop(bar);
    if survey.damage.is_empty() && !survey.is_whole {
        return Err(CliError::Unfinished(args.target.path.clone()));
    }
    let document = AnyDocument {
        path: args.target.path.display().to_string(),
        sound: survey.damage.is_empty(),
        can_be_opened: survey.damage.iter().all(|damage| damage.has_copy),
        records: survey.records,
        segments: survey.segments,
        log_bytes: survey.log_bytes,
        live_bytes: survey.live_bytes,
        damage: survey.damage.iter().map(AnyPlace::from).collect(),
    };
    let outcome = if document.sound { Outcome::Fine } else { Outcome::Damaged };
    if out.json {
        out.document(&document)?;
        return Ok(outcome);
    }
    for place in &document.damage {
        out.line(&place.to_string())?;
    }
    let AnyDocument { path, records, segments, log_bytes, .. } = &document;
    let (records, bytes) = (grouped(*records), human(*log_bytes));
    if document.sound {
        out.line(&format!("{path}: sound, {records} records in {segments} files of {bytes}"))?;
        return Ok(outcome);
    }
    out.line(&format!("{path}: damaged, {records} records are in shards that can be opened"))?;
    out.line(
        "next: check the disk; `mainstay store repair` saves what is sound, and keeps the damaged files",
    )?;
    Ok(outcome)
}

#[derive(Serialize)]
struct CopyDocument {
    path: String,
    sound: bool,
    damage: Option<AnyPlace>,
}

/// A copy of one.
fn verify_copy(args: &Args, out: &mut Output) -> Result<Outcome> {
    let mut bar = Bar::new("verifying");
    let checked = keys::check_copy(&args.target.path, |done, total| bar.to(done, total));
    drop(bar);
    let damage = match checked {
        Ok(()) => None,
        Err(Error::Damaged { file, offset, what }) => {
            Some(AnyPlace { file, offset, what, has_copy: false })
        }
        Err(error) => return Err(args.target.failed()(error)),
    };
    let path = args.target.path.display().to_string();
    let outcome = if damage.is_none() { Outcome::Fine } else { Outcome::Damaged };
    if out.json {
        out.document(&CopyDocument { path, sound: damage.is_none(), damage })?;
    } else if let Some(place) = damage {
        out.line(&place.to_string())?;
        out.line("next: check the disk, and make another copy in another directory")?;
    } else {
        out.line(&format!("{path}: a sound copy; `mainstay store restore` makes a store of it"))?;
    }
    Ok(outcome)
}

fn tell(document: &Document, out: &mut Output) -> Result<()> {
    let columns = [
        ("FILE", Side::Left),
        ("KIND", Side::Left),
        ("SIZE", Side::Right),
        ("PARTS", Side::Right),
        ("RECORDS", Side::Right),
        ("UP TO WRITE", Side::Right),
        ("VERDICT", Side::Left),
    ];
    let rows: Vec<_> = document.files.iter().map(File::cells).collect();
    out.table(&columns, &rows)?;
    for file in &document.files {
        for Place { offset, what, has_copy } in &file.damage {
            let copy = if *has_copy { HAS_COPY } else { "" };
            out.line(&format!("{} at byte {offset}: {what}{copy}", file.name))?;
        }
    }
    let Document { path, sound, can_be_opened, .. } = document;
    let records = grouped(document.records);
    if *sound {
        return out.line(&format!("{path}: sound, {records} records"));
    }
    out.line(&format!("{path}: damaged, {records} records can be read"))?;
    if *can_be_opened {
        return out.line(
            "next: check the disk; the store works, and `mainstay store compact` writes its records \
             anew",
        );
    }
    out.line(
        "next: check the disk; take a copy that a follower has, or `mainstay store repair` saves what is \
         sound, and keeps the damaged files",
    )
}

#[derive(Serialize)]
struct Comparison {
    equal: u64,
    different: u64,
    only_here: u64,
    only_there: u64,
    /// The first of the keys that differ.
    keys: Vec<serde_json::Value>,
}

/// What of two stores is not the same: the key, and the value in each.
pub(super) type Difference = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

fn compare(here: &Path, there: &Path, out: &mut Output) -> Result<Outcome> {
    if is_any(here) && is_any(there) {
        let open = |path: &Path| {
            let _progress = Progress::spinner("reading");
            keys::view_any_either(path).map_err(failed(path))
        };
        let (one, other) = (open(here)?, open(there)?);
        let (equal, found) = differences_of_any((here, &one), (there, &other))?;
        return report(equal, &found, (false, exact_text), out);
    }
    let (one, other) = (view_either(here)?, view_either(there)?);
    if one.lengths() != other.lengths() {
        let (key, value) = one.lengths();
        let (other_key, other_value) = other.lengths();
        let (here, there) = (here.to_path_buf(), there.to_path_buf());
        return Err(CliError::NotComparable { here, there, key, value, other_key, other_value });
    }
    let (equal, differences) = differences(&one, &other).map_err(failed(here))?;
    report(equal, &differences, (one.has_ends(), as_text), out)
}

fn report(
    equal: u64,
    differences: &[Difference],
    (has_ends, text): (bool, Text),
    out: &mut Output,
) -> Result<Outcome> {
    let count = |which: fn(&Difference) -> bool| {
        differences.iter().filter(|found| which(found)).count() as u64
    };
    let mut comparison = Comparison {
        equal,
        different: count(|(_, here, there)| here.is_some() && there.is_some()),
        only_here: count(|(_, _, there)| there.is_none()),
        only_there: count(|(_, here, _)| here.is_none()),
        keys: Vec::new(),
    };
    let is_equal = differences.is_empty();
    if out.json {
        let key = |(key, _, _): &Difference| serde_json::to_value(Row::with(key, None, text));
        comparison.keys = differences.iter().take(1_000).flat_map(key).collect();
        out.document(&comparison)?;
    } else {
        tell_comparison(&comparison, differences, (has_ends, text), out)?;
    }
    Ok(if is_equal { Outcome::Fine } else { Outcome::Damaged })
}

pub(super) fn differences(
    one: &OnDisk,
    other: &OnDisk,
) -> mainstay::store::Result<(u64, Vec<Difference>)> {
    let progress = Progress::spinner("comparing");
    let (mut equal, mut found) = (0, Vec::new());
    // Both have keys of one length, so no look-up is refused.
    one.for_each(|key, value| match other.get(key).ok().flatten() {
        Some(there) if there == value => equal += 1,
        there => found.push((key.to_vec(), Some(value.to_vec()), there)),
    })?;
    other.for_each(|key, value| {
        if one.get(key).ok().flatten().is_none() {
            found.push((key.to_vec(), None, Some(value.to_vec())));
        }
    })?;
    found.sort_unstable();
    drop(progress);
    Ok((equal, found))
}

/// The same of stores with values of any size, of which the beginnings are told. Records that end at
/// different times differ.
fn differences_of_any(
    (here, one): (&Path, &LogOnDisk),
    (there, other): (&Path, &LogOnDisk),
) -> Result<(u64, Vec<Difference>)> {
    let progress = Progress::spinner("comparing");
    let (mut equal, mut found) = (0, Vec::new());
    // They were opened one after the other, and what has ended meanwhile is in neither.
    let now = now_ms();
    let is_there = |end: Option<u64>| end.is_none_or(|end| end > now);
    let get = |path: &Path, view: &LogOnDisk, key: &[u8]| {
        let value = view.get(key).map_err(failed(path))?;
        Ok::<_, CliError>(value.filter(|(_, end)| is_there(*end)))
    };
    let begin = |value: &[u8]| value[..value.len().min(BEGIN)].to_vec();
    let mut outcome = Ok(());
    one.for_each_while(|key, value, end| {
        if !is_there(end) {
            return true;
        }
        match get(there, other, key) {
            Ok(Some((also, its_end))) if also == value && its_end == end => equal += 1,
            Ok(also) => {
                let also = also.map(|(value, _)| begin(&value));
                found.push((key.to_vec(), Some(begin(value)), also));
            }
            Err(error) => outcome = Err(error),
        }
        outcome.is_ok()
    })
    .map_err(failed(here))?;
    std::mem::replace(&mut outcome, Ok(()))?;
    other
        .for_each_while(|key, value, end| {
            match get(here, one, key) {
                Ok(None) if is_there(end) => found.push((key.to_vec(), None, Some(begin(value)))),
                Ok(_) => {}
                Err(error) => outcome = Err(error),
            }
            outcome.is_ok()
        })
        .map_err(failed(there))?;
    outcome?;
    found.sort_unstable();
    drop(progress);
    Ok((equal, found))
}

/// How much of a value is told.
const BEGIN: usize = 256;

fn tell_comparison(
    comparison: &Comparison,
    differences: &[Difference],
    (has_ends, text): (bool, Text),
    out: &mut Output,
) -> Result<()> {
    let Comparison { equal, different, only_here, only_there, .. } = comparison;
    if differences.is_empty() {
        return out.line(&format!("equal: {} records", grouped(*equal)));
    }
    let columns = [("KEY", Side::Left), ("HERE", Side::Left), ("THERE", Side::Left)];
    let value = |value: &Option<Vec<u8>>| match value.as_deref() {
        None => "-".to_owned(),
        Some(stored) if has_ends => {
            let (end, value) = split_end(stored);
            let end = end.map_or_else(String::new, |end| format!(" (ends {end})"));
            format!("{}{end}", cell(value, text))
        }
        Some(value) => cell(value, text),
    };
    let rows: Vec<_> = differences
        .iter()
        .take(LISTED_MAX)
        .map(|(key, here, there)| vec![cell(key, text), value(here), value(there)])
        .collect();
    out.table(&columns, &rows)?;
    let (equal, different) = (grouped(*equal), grouped(*different));
    let (here, there) = (grouped(*only_here), grouped(*only_there));
    out.line(&format!(
        "different: {different} records differ, {here} are only here, {there} only there; {equal} are equal"
    ))
}
