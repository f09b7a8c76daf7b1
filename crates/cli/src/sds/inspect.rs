//! `mainstay sds inspect`.

use super::ProfileArg;
use crate::{
    error::{CliError, Outcome, Result},
    hex,
    output::{Output, Side},
    size::{counted, grouped, human},
};
use mainstay::sds::{
    Error, NimSnapshot,
    bloom::{Params, PeerFilter},
    persist::{Change, Note},
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
    #[command(flatten)]
    input: Input,
    /// Take it for a message of this profile, whatever it looks like
    #[arg(long, value_enum)]
    profile: Option<ProfileArg>,
}

/// Where the bytes are.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Input {
    /// A file; - for standard input
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// The bytes as hexadecimal digits
    #[arg(long, value_name = "DIGITS")]
    hex: Option<String>,
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
    profile: &'static str,
    /// What came into the log, or is there.
    history: Vec<LogRow>,
    /// What waits for other messages.
    waiting: Vec<LogRow>,
    /// Those of all these that nobody has acknowledged.
    unacknowledged: Vec<String>,
    /// What somebody acknowledged, or what was given up.
    settled: Vec<String>,
    /// Of what only the id is remembered, and of what not even that.
    remembered: Vec<String>,
    forgotten: Vec<String>,
}

#[derive(Serialize)]
struct LogRow {
    id: String,
    sender: String,
    lamport: u64,
    content: String,
}

pub(crate) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let (what, bytes) = input(&args.input)?;
    let found = match args.profile {
        Some(profile) => message(profile.into(), &bytes).map(Found::Message),
        None => anything(&bytes),
    };
    let found = found.map_err(|error| CliError::NotSds { what, why: complaint(&error) })?;
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

/// What is wrong, in words for one who looks at bytes: the core's advice is for one whose channel
/// runs.
pub(super) fn complaint(error: &Error) -> String {
    match error {
        Error::Malformed { what, at } => {
            format!("{what} at byte {at}; check where it was cut out, or that all of it is here")
        }
        Error::OtherProfile { expected, found } => {
            format!(
                "a message of the {found} profile, not of the {expected} profile; leave out --profile"
            )
        }
        Error::Limit { what, value, max, .. } => {
            format!("the {what} is {value}, and no member takes more than {max}")
        }
        Error::Saved { what, .. } => (*what).to_owned(),
        other => other.to_string(),
    }
}

/// What to call the input, and its bytes.
fn input(args: &Input) -> Result<(String, Vec<u8>)> {
    if let Some(digits) = &args.hex {
        let digits: String = digits.chars().filter(|c| !c.is_whitespace()).collect();
        let wrong = digits.chars().position(|c| !c.is_ascii_hexdigit());
        let wrong = wrong.and_then(|at| digits.chars().nth(at).map(|found| (at, found)));
        let why = match wrong {
            Some((at, found)) => format!("{found:?} at place {} is no hexadecimal digit", at + 1),
            None => format!(
                "there are {}, an odd number",
                counted(digits.len() as u64, "digit", "digits")
            ),
        };
        let bytes = hex::decode(&digits).ok_or(CliError::NotDigits { why })?;
        return Ok(("--hex".to_owned(), bytes));
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

/// Finds out what it is. If it is nothing, the complaint is that about what it looks like.
fn anything(bytes: &[u8]) -> Result<Found, Error> {
    if bytes.starts_with(CHANGE) {
        return ChangeRow::of(&Change::parse("", bytes)?).map(Found::Change);
    }
    let profile = Profile::sniff(bytes).unwrap_or(Profile::Lip);
    let complaint = match message(profile, bytes) {
        Ok(row) => return Ok(Found::Message(row)),
        Err(complaint) => complaint,
    };
    let snapshot = NimSnapshot::parse(bytes).or_else(|_| NimSnapshot::parse_meta(bytes));
    match snapshot {
        Ok(snapshot) => Ok(Found::NimSnapshot(SnapshotRow::of(&snapshot, bytes.len()))),
        Err(damage) if looks_like_a_snapshot(bytes) => Err(damage),
        Err(_) => Err(complaint),
    }
}

/// Begins with the version of a snapshot's schema, which is a number, or with a part that does: all
/// messages begin with a name.
fn looks_like_a_snapshot(bytes: &[u8]) -> bool {
    const VERSION: u8 = 0x08;
    match bytes {
        [VERSION, ..] => true,
        // The length of the part, of one byte or of some.
        [0x0a, rest @ ..] => {
            let long = rest.iter().take(5).take_while(|byte| **byte >= 0x80).count();
            rest.get(long + 1..).is_some_and(|part| part.starts_with(&[VERSION, 1]))
        }
        _ => false,
    }
}

/// A name, or a mark where there is none.
fn or_none(name: &str) -> String {
    if name.is_empty() { "-".to_owned() } else { name.to_owned() }
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
            ("sender", or_none(&self.sender)),
            ("channel", or_none(&self.channel)),
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
        .map(|entry| vec![entry.id.clone(), or_none(&entry.sender), or_none(&entry.hint)])
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
        vec![row.lamport.to_string(), row.id.clone(), or_none(&row.sender), row.content.clone()]
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
    fn of(change: &Change<'_>) -> Result<Self, Error> {
        let mut row = Self {
            bytes: change.bytes.len(),
            number: change.number,
            base: change.base,
            profile: name_of(change.profile()?),
            history: Vec::new(),
            waiting: Vec::new(),
            unacknowledged: Vec::new(),
            settled: Vec::new(),
            remembered: Vec::new(),
            forgotten: Vec::new(),
        };
        for noted in change.notes()? {
            let id = || shown(&noted.id);
            let message = noted.message.as_ref().map(LogRow::of);
            match noted.what {
                Note::Logged => row.history.extend(message),
                Note::Waiting => row.waiting.extend(message),
                Note::Remembered => row.remembered.push(id()),
                Note::Forgotten => row.forgotten.push(id()),
                Note::Settled => row.settled.push(id()),
                _ => {}
            }
            if noted.unacknowledged {
                row.unacknowledged.push(id());
            }
        }
        row.history.sort_by(|a, b| (a.lamport, &a.id).cmp(&(b.lamport, &b.id)));
        Ok(row)
    }

    fn show(&self, out: &mut Output) -> Result<()> {
        let kind = if self.base { "everything there is" } else { "what happened since" };
        out.fields(&[
            ("change", format!("kept by Mainstay, number {}: {kind}", self.number)),
            ("bytes", grouped(self.bytes as u64)),
            ("profile", self.profile.to_owned()),
        ])?;
        show_log(out, "messages", &self.history)?;
        show_log(out, "waiting for others", &self.waiting)?;
        show_ids(out, "not acknowledged", &self.unacknowledged)?;
        show_ids(out, "acknowledged or given up", &self.settled)?;
        show_ids(out, "remembered by their ids", &self.remembered)?;
        show_ids(out, "forgotten", &self.forgotten)
    }
}

fn show_ids(out: &mut Output, what: &str, ids: &[String]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.line(&format!("{what}, {}: {}", ids.len(), ids.join(" ")))
}
