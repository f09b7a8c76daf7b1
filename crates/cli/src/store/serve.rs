//! `mainstay store serve`.

use super::{opened::now_ms, replica::Replica, target::Target};
use crate::{
    channel::wire::{Identity, Over},
    error::{CliError, Outcome, Result},
    interrupt::Interrupt,
    output::Output,
    size::{human, parse_duration},
};
use mainstay::{
    channel::net::Listener,
    replica::{LeadSettings, Source, drive, leader::Told},
    store::{Error, RawExpiring, Role},
};
use serde::Serialize;
use std::{
    io::{BufRead, ErrorKind, stdin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub(super) const PURPOSE: &str = "store";
const LOOK: Duration = Duration::from_millis(50);
/// Parts of an expiring store that are looked at between two looks at the channels.
const SWEPT_PARTS: usize = 8;

/// Lead: let followers have a copy of a store, and keep it up to date
///
/// Takes writes from standard input, a line each: `KEY VALUE` sets, `KEY` alone deletes. A blank
/// behind a key begins its value, which may be empty and has all that follows in the line. Both are
/// filled up with zeros where sizes are fixed. Ends when interrupted.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  head -c 32 /dev/urandom > secret
  mainstay store serve ./people 127.0.0.1:7500 --node 1 --secret-file secret
  mainstay store serve ./people 0.0.0.0:7500 --over tls --node 1 --certs certs")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Where to listen
    address: String,
    /// Over what
    #[arg(long, value_enum, default_value = "tcp")]
    over: Over,
    #[command(flatten)]
    identity: Identity,
    /// How often to tell how far the followers are
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1s")]
    every: Duration,
}

#[derive(Serialize)]
struct Listening {
    listening: String,
}

#[derive(Serialize)]
struct Line {
    node: u64,
    events: u64,
    bytes: u64,
    lag_ms: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    if args.target.is_any() {
        // It sweeps when it is tended.
        return lead(args, &Arc::new(args.target.open_any()?), || Ok(()), out);
    }
    let failed = args.target.failed();
    let opened = args.target.open()?;
    if !opened.has_ends() {
        return lead(args, &Arc::new(opened), || Ok(()), out);
    }
    let expiring = RawExpiring::over(opened, now_ms).map_err(&failed)?;
    lead(args, expiring.shared(), || expiring.sweep(SWEPT_PARTS).map(drop), out)
}

fn lead<S: Replica>(
    args: &Args,
    store: &Arc<S>,
    sweep: impl Fn() -> mainstay::store::Result<()>,
    out: &mut Output,
) -> Result<Outcome>
where
    Arc<S>: Source<Tail: Send, Scan: Send>,
{
    let interrupt = Interrupt::watch();
    let failed = args.target.failed();
    if Replica::role(&**store) == Role::Follower {
        return Err(failed(Error::Follows));
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = Arc::clone(&told);
    let replaced = Arc::new(AtomicBool::new(false));
    let is_replaced = Arc::clone(&replaced);
    let leader = drive::lead(Arc::clone(store), LeadSettings::default(), move |told| {
        if matches!(told, Told::Replaced { .. }) {
            is_replaced.store(true, Ordering::SeqCst);
        }
        tells.lock().unwrap_or_else(PoisonError::into_inner).push(text(&told));
    })?;
    let (wire, settings) = args.identity.on_for(args.over, PURPOSE)?;
    let listener = Listener::bind(&wire, &args.address, settings)?;
    let listening = listener.address().to_string();
    let text = format!("listening at {listening}");
    let mut ticker = Ticker::new(out);
    ticker.say(&Listening { listening }, &text)?;
    let writer = Arc::clone(store);
    // Standard input cannot be interrupted; the thread ends with the program.
    thread::spawn(move || {
        for line in stdin().lock().split(b'\n') {
            match line {
                Ok(line) => {
                    if let Err(error) = writer.write(&line) {
                        crate::error::warn(&error);
                    }
                }
                Err(error) => {
                    crate::error::warn(&format!("standard input takes no more writes: {error}"));
                    break;
                }
            }
        }
    });
    let mut shown = Instant::now();
    while !interrupt.is_asked() && !replaced.load(Ordering::SeqCst) {
        if let Some(channel) = listener.accept(LOOK)? {
            leader.attach(Arc::new(channel));
        }
        store.tend().map_err(&failed)?;
        sweep().map_err(&failed)?;
        for text in std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner)) {
            crate::error::warn(&text);
        }
        if shown.elapsed() >= args.every {
            shown = Instant::now();
            for seen in leader.followers() {
                let events = seen.lags.iter().map(|lag| lag.events).sum();
                let bytes = seen.lags.iter().map(|lag| lag.bytes).sum();
                let time = seen.lags.iter().map(|lag| lag.time).max().unwrap_or_default();
                let lag_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                let line = Line { node: seen.peer, events, bytes, lag_ms };
                let text = format!(
                    "node {}: {events} writes, {}, {lag_ms} ms behind",
                    seen.peer,
                    human(bytes)
                );
                ticker.say(&line, &text)?;
            }
        }
    }
    drop(leader);
    store.sync().map_err(&failed)?;
    if replaced.load(Ordering::SeqCst) {
        let (epoch, by) = (Replica::epoch(&**store), Replica::known_epoch(&**store));
        return Err(failed(Error::Replaced { epoch, by }));
    }
    Ok(Outcome::Fine)
}

fn text(told: &Told) -> String {
    match told {
        Told::Joined { peer } => format!("node {peer} follows"),
        Told::Left { peer, why } => format!("node {peer} is gone: {why}"),
        Told::Replaced { by } => format!("a leader of epoch {by} has taken over"),
        Told::Failed(error) => error.to_string(),
        other => format!("{other:?}"),
    }
}

/// What is told while it goes on; nobody has to listen.
pub(super) struct Ticker<'a> {
    out: &'a mut Output,
    is_closed: bool,
}

impl<'a> Ticker<'a> {
    pub(super) fn new(out: &'a mut Output) -> Self {
        Self { out, is_closed: false }
    }

    /// Nothing is told.
    pub(super) fn silent(out: &'a mut Output) -> Self {
        Self { out, is_closed: true }
    }

    /// One line, at once: somebody may be waiting for it.
    pub(super) fn say(&mut self, json: &impl Serialize, text: &str) -> Result<()> {
        if self.is_closed {
            return Ok(());
        }
        match self.line(json, text) {
            Err(CliError::Output(source)) if source.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                crate::error::warn(&"standard output is closed; nothing more is told there");
                Ok(())
            }
            other => other,
        }
    }

    fn line(&mut self, json: &impl Serialize, text: &str) -> Result<()> {
        if self.out.json {
            self.out.json_line(json)?;
        } else {
            self.out.line(text)?;
        }
        self.out.flush()
    }
}
