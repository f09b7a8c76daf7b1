//! `mainstay state info`.

use super::{persist::KeptRow, target::Target};
use crate::{
    error::{Outcome, Result},
    output::{Output, Side},
    size::{counted, grouped, human, parse_duration},
};
use mainstay::state::{Counted, StateInfo, Subscriber};
use serde::Serialize;
use std::{
    thread,
    time::{Duration, Instant},
};

/// Show all there is to say about a state: versions, slots, who holds pins and claims
///
/// A pin is a version that somebody is reading, a claim one that somebody is writing; both take a
/// slot, and what dead processes had is taken back by whoever needs it. The command subscribes to
/// nothing.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay state info temperature
  mainstay state info vitals.cpu --sample 2s
  mainstay state info vitals.cpu --json | jq '.subscribers[] | select(.pins > 0)'")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// How long commits are counted; 0ms does not count them
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "500ms")]
    sample: Duration,
}

/// A state in the form in which it is shown and printed as JSON.
#[derive(Serialize)]
pub(super) struct Looked {
    pub(super) name: String,
    pub(super) version: u64,
    pub(super) size_bytes: u64,
    size_limit_bytes: u64,
    pub(super) r#type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    fields: String,
    pub(super) slots: u64,
    slots_max: u32,
    slot_bytes: u64,
    created_unix_ns: u64,
    /// None while it is transient.
    persistent: Option<KeptRow>,
    subscribers: Vec<SubscriberRow>,
    /// None when commits were not counted.
    pub(super) commits_per_s: Option<f64>,
}

#[derive(Serialize)]
struct SubscriberRow {
    /// None of a dead process whose place another has taken since.
    pid: Option<u32>,
    program: String,
    alive: bool,
    handles: u32,
    pins: u32,
    claims: u32,
}

impl SubscriberRow {
    fn of(subscriber: &Subscriber) -> Self {
        Self {
            pid: (subscriber.pid != 0).then_some(subscriber.pid),
            program: subscriber.program.clone(),
            alive: subscriber.alive,
            handles: subscriber.handles,
            pins: subscriber.pins,
            claims: subscriber.claims,
        }
    }
}

impl Looked {
    /// `earlier` is the same state as it was so long ago.
    pub(super) fn of(
        info: &StateInfo,
        earlier: Option<&StateInfo>,
        elapsed: Option<Duration>,
    ) -> Self {
        let rate = |elapsed: Duration| {
            let commits = earlier.map_or(0, |then| info.version.saturating_sub(then.version));
            (commits as f64 / elapsed.as_secs_f64() * 10.0).round() / 10.0
        };
        Self {
            name: info.name.clone(),
            version: info.version,
            size_bytes: info.len,
            size_limit_bytes: info.size_limit,
            r#type: info.type_name.clone(),
            fields: info.fields.clone(),
            slots: info.slots,
            slots_max: info.slots_max,
            slot_bytes: info.capacity,
            created_unix_ns: info.created_ns,
            persistent: info.persistent.as_ref().map(KeptRow::of),
            subscribers: info.subscribers.iter().map(SubscriberRow::of).collect(),
            commits_per_s: elapsed.map(rate),
        }
    }

    pub(super) fn subscribers_alive(&self) -> usize {
        self.subscribers.iter().filter(|subscriber| subscriber.alive).count()
    }

    pub(super) fn survives(&self) -> &'static str {
        self.persistent.as_ref().map_or("-", KeptRow::survives)
    }
}

/// What all processes of the folder have counted.
#[derive(Serialize)]
struct FolderRow {
    conflicts: u64,
    claims_taken_back: u64,
    pins_taken_back: u64,
    commits_ended: u64,
    wakes: u64,
}

impl FolderRow {
    fn of(counted: Counted) -> Self {
        Self {
            conflicts: counted.conflicts,
            claims_taken_back: counted.scavenged_claims,
            pins_taken_back: counted.scavenged_pins,
            commits_ended: counted.ended_records,
            wakes: counted.wakes,
        }
    }

    fn text(&self) -> String {
        format!(
            "{}, {}; of dead processes {}, {} and {}",
            counted(self.conflicts, "conflict", "conflicts"),
            counted(self.wakes, "wake-up", "wake-ups"),
            counted(self.claims_taken_back, "claim", "claims"),
            counted(self.pins_taken_back, "pin taken back", "pins taken back"),
            counted(self.commits_ended, "commit ended", "commits ended"),
        )
    }
}

#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    state: Looked,
    folder: FolderRow,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let (domain, before) = args.target.existing()?;
    let began = Instant::now();
    thread::sleep(args.sample);
    let now = domain.info(&args.target.name)?.filter(|info| info.id == before.id);
    // One that has ended meanwhile is shown as it was.
    let now = now.as_ref().unwrap_or(&before);
    let elapsed = (!args.sample.is_zero()).then(|| began.elapsed());
    let state = Looked::of(now, Some(&before), elapsed);
    let folder = FolderRow::of(domain.counters());
    if out.json {
        out.document(&Document { state, folder })?;
    } else {
        tell(&state, &folder, out)?;
    }
    Ok(Outcome::Fine)
}

fn tell(state: &Looked, folder: &FolderRow, out: &mut Output) -> Result<()> {
    let size = format!("{} of at most {}", human(state.size_bytes), human(state.size_limit_bytes));
    let slots =
        format!("{} of at most {}, {} each", state.slots, state.slots_max, human(state.slot_bytes));
    let mut fields = vec![
        ("name", state.name.clone()),
        ("version", grouped(state.version)),
        ("size", size),
        ("type", if state.r#type.is_empty() { "bytes" } else { &state.r#type }.to_owned()),
    ];
    if !state.fields.is_empty() {
        fields.push(("fields", state.fields.clone()));
    }
    fields.push(("slots", slots));
    let kept = state
        .persistent
        .as_ref()
        .map_or_else(|| "no file: it ends with its last subscriber".to_owned(), KeptRow::text);
    fields.push(("kept in", kept));
    if let Some(rate) = state.commits_per_s {
        fields.push(("commits a second", grouped(rate as u64)));
    }
    fields.push(("whole folder", folder.text()));
    out.fields(&fields)?;
    if state.subscribers.is_empty() {
        return out.line("no process is subscribed");
    }
    out.line("")?;
    let cells: Vec<Vec<String>> = state
        .subscribers
        .iter()
        .map(|subscriber| {
            vec![
                subscriber.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string()),
                if subscriber.program.is_empty() { "?" } else { &subscriber.program }.to_owned(),
                if subscriber.alive { "yes" } else { "no" }.to_owned(),
                subscriber.handles.to_string(),
                subscriber.pins.to_string(),
                subscriber.claims.to_string(),
            ]
        })
        .collect();
    const COLUMNS: [(&str, Side); 6] = [
        ("PID", Side::Right),
        ("PROGRAM", Side::Left),
        ("ALIVE", Side::Left),
        ("HANDLES", Side::Right),
        ("PINS", Side::Right),
        ("CLAIMS", Side::Right),
    ];
    out.table(&COLUMNS, &cells)
}
