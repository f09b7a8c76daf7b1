//! `mainstay sds inspect`.

use super::ProfileArg;
use crate::{
    error::{CliError, Outcome, Result},
    hex,
    output::{Output, Side},
    size::{grouped, human},
};
use mainstay::sds::{
    Channel, Config, Error, NimSnapshot, Now,
    bloom::{Params, PeerFilter},
    persist::Change,
    shown,
    wire::{EntryView, HistoryEntry, Kind, Message, MessageView, Profile},
};
use serde::Serialize;
use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The most that is read: a snapshot of a full history fits.
const INPUT_LEN_MAX: u64 = 256 << 20;

/// What a change kept by Mainstay begins with; no message and no snapshot of others does.
const CHANGE: &[u8] = b"MSDC";

/// Show what a message, or what is kept of a channel, says
///
/// What it is, and of which dialect, is found out: a message of either profile, a snapshot of
/// nim-sds, a change kept by Mainstay. A file may hold the bytes themselves or their hexadecimal
/// digits.
#[derive(clap::Args)]
#[command(after_help = "\
Exit status: 0 it is shown, 3 it is none of these; standard error says what was expected where.

Examples:
  mainstay sds inspect message.bin
  mainstay sds inspect --hex 0a046d736731100122036368312a01013200
  mainstay sds inspect snapshot.bin --profile nim --json
  tail -c +43 datagram.bin | mainstay sds inspect -")]
pub(crate) struct Args {
    /// A file; - for standard input
    #[arg(required_unless_present = "hex", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// The bytes as hexadecimal digits
    #[arg(long, value_name = "DIGITS", conflicts_with = "file")]
    hex: Option<String>,
    /// Take it for a message of this profile, whatever it looks like
    #[arg(long, value_enum)]
    profile: Option<ProfileArg>,
}

/// What was found.
#[derive(Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
enum Found {
    Message(MessageRow),
    NimSnapshot(SnapshotRow),
    Change(ChangeRow),
}

#[derive(Serialize)]
struct MessageRow {
    profile: &'static str,
    kind: &'static str,
    bytes: usize,
    id: String,
    sender: String,
    channel: String,
    lamport: Option<u64>,
    content: Option<String>,
    content_bytes: usize,
    filter: Option<FilterRow>,
    causal: Vec<EntryRow>,
    requests: Vec<EntryRow>,
}

#[derive(Serialize)]
struct FilterRow {
    bytes: usize,
    /// The share of absent ids it takes for present; none if it says nothing or makes no sense.
    error_rate: Option<f64>,
}

#[derive(Serialize)]
struct EntryRow {
    id: String,
    sender: String,
    hint: String,
}

#[derive(Serialize)]
struct SnapshotRow {
    bytes: usize,
    lamport: u64,
    outgoing: Vec<LogRow>,
    incoming: Vec<LogRow>,
    requests: Vec<EntryRow>,
    answers: Vec<EntryRow>,
    history: Vec<LogRow>,
}

#[derive(Serialize)]
struct ChangeRow {
    bytes: usize,
    number: u64,
    base: bool,
    /// The messages that a base has; of other changes none are shown.
    profile: Option<&'static str>,
    history: Vec<LogRow>,
}

#[derive(Serialize)]
struct LogRow {
    id: String,
    sender: String,
    lamport: u64,
    content: String,
}

pub(crate) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let (what, bytes) = input(args)?;
    let found = match args.profile {
        Some(profile) => message(profile.into(), &bytes).map(Found::Message),
        None => anything(&bytes),
    };
    let found = found.map_err(|error| CliError::NotSds { what, why: error.to_string() })?;
    if out.json {
        out.document(&found)?;
    } else {
        match &found {
            Found::Message(row) => row.show(out),
            Found::NimSnapshot(row) => row.show(out),
            Found::Change(row) => row.show(out),
        }?;
    }
    Ok(Outcome::Fine)
}

/// What to call the input, and its bytes.
fn input(args: &Args) -> Result<(String, Vec<u8>)> {
    if let Some(digits) = &args.hex {
        let digits: String = digits.chars().filter(|c| !c.is_whitespace()).collect();
        let why = "an even number of hexadecimal digits was expected".to_owned();
        let what = "--hex".to_owned();
        let bytes = hex::decode(&digits);
        return match bytes {
            Some(bytes) => Ok((what, bytes)),
            None => Err(CliError::NotSds { what, why }),
        };
    }
    let path = args.file.as_deref().unwrap_or(Path::new("-"));
    let mut bytes = Vec::new();
    let failed = CliError::file(path, "read it", "check the path");
    let read = if path == Path::new("-") {
        io::stdin().lock().take(INPUT_LEN_MAX + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(INPUT_LEN_MAX + 1).read_to_end(&mut bytes))
    };
    read.map_err(failed)?;
    let what = path.display().to_string();
    if bytes.len() as u64 > INPUT_LEN_MAX {
        let why = format!("is larger than {}, which nothing of SDS is", human(INPUT_LEN_MAX));
        return Err(CliError::NotSds { what, why });
    }
    Ok((what, digits_of(&bytes).unwrap_or(bytes)))
}

/// The bytes that a text of hexadecimal digits stands for. No message or snapshot is one: its first
/// byte would be a field number that none of them has.
fn digits_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if digits.is_empty() { None } else { hex::decode(&digits) }
}

/// Finds out what it is. If it is nothing, the complaint is that about a message.
fn anything(bytes: &[u8]) -> Result<Found, Error> {
    if bytes.starts_with(CHANGE) {
        return Change::parse("", bytes).map(|change| Found::Change(ChangeRow::of(&change)));
    }
    let profile = Profile::sniff(bytes).unwrap_or(Profile::Lip);
    let complaint = match message(profile, bytes) {
        Ok(row) => return Ok(Found::Message(row)),
        Err(complaint) => complaint,
    };
    let snapshot = NimSnapshot::parse(bytes).or_else(|_| NimSnapshot::parse_meta(bytes));
    match snapshot {
        Ok(snapshot) => Ok(Found::NimSnapshot(SnapshotRow::of(&snapshot, bytes.len()))),
        Err(_) => Err(complaint),
    }
}

fn message(profile: Profile, bytes: &[u8]) -> Result<MessageRow, Error> {
    MessageView::parse(profile, bytes).map(|message| MessageRow::of(&message, bytes.len()))
}

fn name_of(profile: Profile) -> &'static str {
    match profile {
        Profile::Lip => "lip",
        Profile::Nim => "nim",
    }
}

impl MessageRow {
    fn of(message: &MessageView<'_>, bytes: usize) -> Self {
        let entries = |entries: mainstay::sds::wire::Entries<'_>| {
            entries.iter().map(|entry| EntryRow::of(&entry)).collect()
        };
        Self {
            profile: name_of(message.profile),
            kind: match message.kind() {
                Kind::Content => "content",
                Kind::Sync => "sync",
                Kind::Ephemeral => "ephemeral",
            },
            bytes,
            id: shown(message.id),
            sender: shown(message.sender),
            channel: shown(message.channel),
            lamport: message.lamport,
            content: message.content.map(shown),
            content_bytes: message.content.map_or(0, <[u8]>::len),
            filter: message.filter.map(|filter| FilterRow::of(message.profile, filter)),
            causal: entries(message.causal),
            requests: entries(message.requests),
        }
    }

    fn show(&self, out: &mut Output) -> Result<()> {
        let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let filter = self.filter.as_ref().filter(|filter| filter.bytes > 0);
        let filter = filter.map(|filter| match filter.error_rate {
            Some(rate) => {
                format!("{}, wrong once in {:.0}", human(filter.bytes as u64), 1.0 / rate)
            }
            None => format!("{}, says nothing", human(filter.bytes as u64)),
        });
        out.fields(&[
            ("message", format!("{} ({} profile)", self.kind, self.profile)),
            ("bytes", grouped(self.bytes as u64)),
            ("id", self.id.clone()),
            ("sender", self.sender.clone()),
            ("channel", self.channel.clone()),
            ("lamport", optional(self.lamport.map(|lamport| lamport.to_string()))),
            ("content", optional(self.content.clone())),
            ("filter", optional(filter)),
        ])?;
        show_entries(out, "depends on", &self.causal)?;
        show_entries(out, "asks for", &self.requests)
    }
}

impl FilterRow {
    fn of(profile: Profile, filter: &[u8]) -> Self {
        // Without parameters of its own a filter has the default ones of its peers, unless it has
        // another length.
        let own = [10_000, 1_000].into_iter().find_map(|capacity| {
            let params = Params::new(capacity, 0.001).ok()?;
            PeerFilter::parse(profile, filter, params)
        });
        // An empty filter is wrong about nothing.
        let error_rate = own.and_then(|filter| filter.error_rate()).filter(|rate| *rate > 0.0);
        Self { bytes: filter.len(), error_rate }
    }
}

impl EntryRow {
    fn of(entry: &EntryView<'_>) -> Self {
        Self { id: shown(entry.id), sender: shown(entry.sender), hint: shown(entry.hint) }
    }

    fn all(entries: impl Iterator<Item = HistoryEntry>) -> Vec<Self> {
        entries.map(|entry| Self::of(&entry.view())).collect()
    }
}

fn show_entries(out: &mut Output, what: &str, entries: &[EntryRow]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.line(&format!("{what} {}:", entries.len()))?;
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| vec![entry.id.clone(), entry.sender.clone(), entry.hint.clone()])
        .collect();
    out.table(&[("ID", Side::Left), ("SENDER", Side::Left), ("HINT", Side::Left)], &rows)
}

impl LogRow {
    fn of(message: &Message) -> Self {
        Self {
            id: shown(&message.id),
            sender: shown(&message.sender),
            lamport: message.lamport.unwrap_or_default(),
            content: shown(message.content.as_deref().unwrap_or_default()),
        }
    }
}

fn show_log(out: &mut Output, what: &str, messages: &[LogRow]) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.line(&format!("{what}, {}:", messages.len()))?;
    let row = |row: &LogRow| {
        vec![row.lamport.to_string(), row.id.clone(), row.sender.clone(), row.content.clone()]
    };
    let rows: Vec<Vec<String>> = messages.iter().map(row).collect();
    let columns = [
        ("LAMPORT", Side::Right),
        ("ID", Side::Left),
        ("SENDER", Side::Left),
        ("CONTENT", Side::Left),
    ];
    out.table(&columns, &rows)
}

impl SnapshotRow {
    fn of(snapshot: &NimSnapshot, bytes: usize) -> Self {
        Self {
            bytes,
            lamport: snapshot.lamport,
            outgoing: snapshot.outgoing.iter().map(|(message, ..)| LogRow::of(message)).collect(),
            incoming: snapshot.incoming.iter().map(|(message, _)| LogRow::of(message)).collect(),
            requests: EntryRow::all(snapshot.requests.iter().map(|(entry, _)| entry.clone())),
            answers: EntryRow::all(snapshot.answers.iter().map(|(entry, ..)| entry.clone())),
            history: snapshot.history.iter().map(LogRow::of).collect(),
        }
    }

    fn show(&self, out: &mut Output) -> Result<()> {
        out.fields(&[
            ("snapshot", "of nim-sds, version 1".to_owned()),
            ("bytes", grouped(self.bytes as u64)),
            ("lamport", self.lamport.to_string()),
        ])?;
        show_log(out, "not acknowledged", &self.outgoing)?;
        show_log(out, "waiting for others", &self.incoming)?;
        show_entries(out, "asks for", &self.requests)?;
        show_entries(out, "is about to send again", &self.answers)?;
        show_log(out, "history", &self.history)
    }
}

impl ChangeRow {
    fn of(change: &Change<'_>) -> Self {
        // A change does not name its profile to those who only keep it; only one of them fits.
        let loaded = [Config::lip(), Config::nim()].into_iter().find_map(|config| {
            let profile = name_of(config.profile);
            let channel = Channel::load("", b"", config, Now::zero(), &[change.bytes]);
            channel.ok().map(|channel| (profile, channel))
        });
        let history = loaded.as_ref().map(|(_, channel)| {
            let row = |entry: mainstay::sds::LogEntry<'_>| LogRow {
                id: shown(entry.id),
                sender: shown(entry.sender),
                lamport: entry.lamport,
                content: shown(entry.content),
            };
            channel.log().map(row).collect()
        });
        Self {
            bytes: change.bytes.len(),
            number: change.number,
            base: change.base,
            profile: loaded.as_ref().map(|(profile, _)| *profile),
            history: history.unwrap_or_default(),
        }
    }

    fn show(&self, out: &mut Output) -> Result<()> {
        let kind = if self.base { "everything there is" } else { "what happened since" };
        out.fields(&[
            ("change", format!("kept by Mainstay, number {}: {kind}", self.number)),
            ("bytes", grouped(self.bytes as u64)),
            ("profile", self.profile.unwrap_or("-").to_owned()),
        ])?;
        show_log(out, "messages", &self.history)
    }
}
