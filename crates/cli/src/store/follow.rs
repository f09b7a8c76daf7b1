//! `mainstay store follow`.

use super::{
    keys,
    replica::Replica,
    serve::{PURPOSE, Ticker},
    target::Target,
};
use crate::{
    channel::wire::{Identity, Over},
    error::{CliError, Outcome, Result},
    interrupt::Interrupt,
    output::Output,
    progress::Progress,
    size::parse_duration,
};
use mainstay::{
    channel::{
        Channel,
        dial::Backoff,
        net::{self, Settings, Wire},
    },
    replica::{
        FollowSettings, Sink, drive,
        follower::{Status, Told},
        wire::{Hello, Way},
    },
    store::{
        Directory, Identity as StoreIdentity, Known, LogOptions, Options, RawLogStore, RawStore,
        Role,
    },
};
use serde::Serialize;
use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

const LOOK: Duration = Duration::from_millis(50);

/// Follow a leader: keep a copy of its store
///
/// STORE is made if it is not there. A copy takes no writes of its own; what it had and the leader
/// has not is set aside, in files beside it. A leader that is not there is waited for, and called
/// again until it is. Ends when interrupted.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store follow ./copy 127.0.0.1:7500 --node 2 --secret-file secret
  mainstay store follow ./copy leader:7500 --over tls --node 2 --certs certs
  mainstay store follow ./copy 127.0.0.1:7500 --node 2 --secret-file secret --until-equal")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Where the leader listens
    address: String,
    /// Over what
    #[arg(long, value_enum, default_value = "tcp")]
    over: Over,
    #[command(flatten)]
    identity: Identity,
    /// How often to tell how far it is
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1s")]
    every: Duration,
    /// Make a leader of earlier days a follower; without this it is refused
    #[arg(long)]
    demote: bool,
    /// End when it has all that the leader has
    #[arg(long)]
    until_equal: bool,
    /// What the store knew in whose place the copy goes: of a leader of before nothing is taken.
    #[arg(skip)]
    instead: Option<Known>,
}

#[derive(Serialize)]
struct Line {
    applied: u64,
    durable: u64,
    leader: u64,
    /// Not known as long as no leader has said how far it is.
    behind: Option<u64>,
    /// How long it has not had everything.
    lag_ms: u64,
    caught_up: bool,
}

impl Line {
    /// `equal` is when it had everything last.
    fn of(status: &[Status], equal: &mut Instant) -> Self {
        // What the leader says of itself may be anything.
        let sum = |of: &dyn Fn(&Status) -> u64| status.iter().map(of).fold(0, u64::saturating_add);
        let applied = sum(&|shard| shard.at.map_or(0, |at| at.sequence));
        let leader = sum(&|shard| shard.tip);
        let behind =
            |shard: &Status| shard.tip.saturating_sub(shard.at.map_or(0, |at| at.sequence));
        let caught_up = status.iter().all(|shard| shard.is_caught_up);
        let is_known = caught_up || leader > 0;
        let behind = is_known.then(|| sum(&behind));
        if caught_up && behind == Some(0) {
            *equal = Instant::now();
        }
        let lag_ms = u64::try_from(equal.elapsed().as_millis()).unwrap_or(u64::MAX);
        let durable = sum(&|shard| shard.durable);
        Self { applied, durable, leader, behind, lag_ms, caught_up }
    }

    fn text(&self) -> String {
        let Self { applied, durable, behind, lag_ms, caught_up, .. } = self;
        let how = if *caught_up { "caught up" } else { "catching up" };
        let behind =
            behind.map_or("how far behind is not known".to_owned(), |it| format!("{it} behind"));
        let since = if *lag_ms > 0 { format!(" for {lag_ms} ms") } else { String::new() };
        format!("{how}: {applied} writes, {durable} durable, {behind}{since}")
    }
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let interrupt = Interrupt::watch();
    let (wire, settings) = args.identity.on_for(args.over, PURPOSE)?;
    let mut ticker = Ticker::new(out);
    let hello = if args.target.is_any() || args.target.path.join("store").exists() {
        None
    } else {
        // Nothing is made before it is known what the leader has.
        let hello = ask(args, &wire, &settings, &interrupt, &mut ticker)?;
        if hello.is_none() {
            return ended(args, false, "there is no copy yet; follow again");
        }
        hello
    };
    let is_any = hello.map_or(args.target.is_any(), |hello| hello.identity.is_any());
    let on = (wire, settings);
    if is_any {
        let store = match hello {
            Some(hello) => create_any(args, &hello)?,
            None => args.target.open_any()?,
        };
        let is_equal = follow(args, store, on, &interrupt, ticker)?;
        return ended(args, is_equal, LESS);
    }
    let store = match hello {
        Some(hello) => create(args, &hello)?,
        None => args.target.open()?,
    };
    let is_equal = follow(args, store, on, &interrupt, ticker)?;
    ended(args, is_equal, LESS)
}

/// What is left by who was to end when the copy is equal, and did so before.
const LESS: &str = "the copy has less than its leader; follow again";

/// To be interrupted is how a follower ends, unless it was to end with a copy that is equal.
fn ended(args: &Args, is_equal: bool, left: &'static str) -> Result<Outcome> {
    if args.until_equal && !is_equal {
        Err(CliError::Interrupted { left })
    } else {
        Ok(Outcome::Fine)
    }
}

/// A leader of which a copy is made.
pub(super) struct Source<'a> {
    pub(super) address: &'a str,
    pub(super) over: Over,
    pub(super) identity: &'a Identity,
}

impl Source<'_> {
    /// Makes a copy of what it has, durable, where there is none, unless `check` refuses what it is. It
    /// knows of the leaders that the store knew `instead` of which it is: nothing is taken of an older one.
    pub(super) fn copy_to(
        &self,
        path: &Path,
        instead: Option<Known>,
        check: impl FnOnce(&StoreIdentity) -> Result<()>,
        out: &mut Output,
    ) -> Result<()> {
        let args = Args {
            target: Target { path: path.to_path_buf() },
            address: self.address.to_owned(),
            over: self.over,
            identity: self.identity.clone(),
            every: Duration::from_secs(1),
            demote: false,
            until_equal: true,
            instead,
        };
        let interrupt = Interrupt::watch();
        let (wire, settings) = args.identity.on_for(args.over, PURPOSE)?;
        let channel = net::connect(&wire, &args.address, &settings)?;
        let hello = drive::ask(&channel, settings.silence);
        channel.close();
        let hello = hello?;
        check(&hello.identity)?;
        let (on, ticker) = ((wire, settings), Ticker::silent(out));
        let _progress = Progress::spinner("copying");
        let is_equal = if hello.identity.is_any() {
            follow(&args, create_any(&args, &hello)?, on, &interrupt, ticker)?
        } else {
            follow(&args, create(&args, &hello)?, on, &interrupt, ticker)?
        };
        let left = "the damaged store is where it was";
        if is_equal { Ok(()) } else { Err(CliError::Interrupted { left }) }
    }
}

/// True if it has all that the leader has, and was to end then.
fn follow<S: Replica>(
    args: &Args,
    store: S,
    (wire, settings): (Wire, Settings),
    interrupt: &Interrupt,
    mut ticker: Ticker<'_>,
) -> Result<bool>
where
    Arc<S>: Sink,
{
    let failed = args.target.failed();
    let store = if store.role() == Role::Leader && args.demote {
        store.demote().map_err(&failed)?
    } else {
        store
    };
    if let Some(known) = args.instead {
        store.fence(known.epoch).map_err(&failed)?;
    }
    let store = Arc::new(store);
    let address = args.address.clone();
    let told = Arc::new(Mutex::new(Vec::new()));
    let (tells, misses) = (Arc::clone(&told), Arc::clone(&told));
    let stale = Arc::new(Mutex::new(None));
    let is_stale = Arc::clone(&stale);
    let mut missed = String::new();
    let dial = move || match net::connect(&wire, &address, &settings) {
        Ok(channel) => {
            missed.clear();
            Ok(Arc::new(channel) as Arc<dyn Channel>)
        }
        Err(error) => {
            // Once, however often it is called.
            let why = format!("waiting for the leader: {error}");
            if why != missed {
                misses.lock().unwrap_or_else(PoisonError::into_inner).push(why.clone());
                missed = why;
            }
            Err(error)
        }
    };
    // It is not to be taken for all that the leader had if it ends before.
    let settings = FollowSettings { as_one: args.until_equal, ..FollowSettings::default() };
    let follower = drive::follow(Arc::clone(&store), dial, settings, move |told| {
        if let Told::StaleLeader { epoch, known } = told {
            *is_stale.lock().unwrap_or_else(PoisonError::into_inner) = Some((epoch, known));
        }
        if let Some(text) = text(&told) {
            tells.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
    })?;
    let (mut shown, mut equal, mut is_equal) = (Instant::now(), Instant::now(), false);
    while !interrupt.is_asked() {
        thread::sleep(LOOK);
        store.tend().map_err(&failed)?;
        for text in std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner)) {
            crate::error::warn(&text);
        }
        let stale = *stale.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some((epoch, known)), Some(_)) = (stale, args.instead) {
            follower.stop();
            let address = args.address.clone();
            return Err(CliError::StaleLeader { address, epoch, known });
        }
        let line = Line::of(&follower.status(), &mut equal);
        is_equal = args.until_equal && line.caught_up && line.behind == Some(0);
        if is_equal {
            break;
        }
        if shown.elapsed() >= args.every {
            shown = Instant::now();
            ticker.say(&line, &line.text())?;
        }
    }
    let line = Line::of(&follower.stop(), &mut equal);
    Replica::vouch(&*store).map_err(&failed)?;
    ticker.say(&line, &line.text())?;
    for text in std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner)) {
        crate::error::warn(&text);
    }
    // The leader may have gone, or a disk failed, between the look and the end: a copy that says of
    // itself that it is not finished is not one.
    Ok(is_equal && store.is_whole())
}

#[derive(Serialize)]
struct Waiting {
    waiting_for: String,
    why: String,
}

/// What the leader has, as soon as there is one; none if the user wants an end before.
fn ask(
    args: &Args,
    wire: &Wire,
    settings: &Settings,
    interrupt: &Interrupt,
    ticker: &mut Ticker<'_>,
) -> Result<Option<Hello>> {
    let ask = || -> mainstay::replica::Result<Hello> {
        let channel = net::connect(wire, &args.address, settings)?;
        let hello = drive::ask(&channel, settings.silence);
        channel.close();
        hello
    };
    let (mut backoff, mut random) = (Backoff::default(), crate::random::drawn());
    while !interrupt.is_asked() {
        let why = match ask() {
            Ok(hello) => return Ok(Some(hello)),
            Err(mainstay::replica::Error::Channel(error)) if may_pass(&error) => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        let waiting_for = args.address.clone();
        let text = format!("waiting for the leader: {why}");
        ticker.say(&Waiting { waiting_for, why }, &text)?;
        random = mainstay_base::mix64(random);
        let until = Instant::now() + backoff.next_pause(random);
        while Instant::now() < until && !interrupt.is_asked() {
            thread::sleep(LOOK);
        }
    }
    Ok(None)
}

/// Is it because nobody is there yet, or not any more? Whoever refuses does so for good.
fn may_pass(error: &mainstay::channel::Error) -> bool {
    use mainstay::channel::Error;
    match error {
        // What is no address will not become one.
        Error::Network { source, .. } => source.kind() != io::ErrorKind::InvalidInput,
        Error::Late { .. } | Error::ChannelClosed { .. } => true,
        _ => false,
    }
}

/// An empty copy of what the leader has.
fn create(args: &Args, hello: &Hello) -> Result<RawStore<Directory>> {
    let segment_bytes = segment_bytes(hello.write_bytes_max);
    let options = Options { segment_bytes, ..Options::default() };
    let failed = args.target.failed();
    let folder = keys::lock(&args.target.path).map_err(&failed)?;
    RawStore::create_replica(folder, &hello.identity, &options).map_err(&failed)
}

/// The same of a leader whose keys and values have any size.
fn create_any(args: &Args, hello: &Hello) -> Result<RawLogStore<Directory>> {
    let segment_bytes = segment_bytes(hello.write_bytes_max);
    let options = LogOptions { segment_bytes, ..LogOptions::default() };
    let failed = args.target.failed();
    let folder = keys::lock(&args.target.path).map_err(&failed)?;
    RawLogStore::create_replica(folder, &hello.identity, &options).map_err(&failed)
}

/// How large the segments of a store are, which are whole pages: their longest write, a page for
/// the head, and less than another one for what surrounds the write. A copy has segments just as
/// large as its leader: with smaller ones it could not follow, with larger ones not be followed.
pub(super) fn segment_bytes(write_bytes_max: u64) -> u64 {
    const PAGE: u64 = 4_096;
    write_bytes_max.saturating_add(PAGE).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

fn text(told: &Told) -> Option<String> {
    match told {
        Told::Way { shard, way: Way::Diverged, .. } => {
            Some(format!("shard {shard} has what the leader never had; it is set aside"))
        }
        Told::SetAside { shard, records } => Some(format!("shard {shard}: {records} set aside")),
        Told::StaleLeader { epoch, known } => Some(format!(
            "a leader of epoch {epoch} is refused, {known} is known; promote it first"
        )),
        Told::Refused(error) | Told::Failed(error) => Some(error.to_string()),
        Told::Lost => Some("the leader is gone; it will be called again".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
mod tests {
    use super::*;
    use mainstay::store::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};

    #[test]
    fn a_leader_that_says_anything_of_itself_is_far_ahead_and_no_sum_overflows() {
        let at = Some(mainstay::store::Position { epoch: 1, sequence: u64::MAX, sum: 0 });
        let far = Status { at: None, durable: u64::MAX, tip: u64::MAX, is_caught_up: false };
        let line = Line::of(&[far, far, Status { at, ..far }], &mut Instant::now());
        assert_eq!((line.leader, line.behind), (u64::MAX, Some(u64::MAX)));
        assert_eq!((line.applied, line.durable), (u64::MAX, u64::MAX));
    }

    #[test]
    fn a_copy_has_segments_as_large_as_its_leader() {
        for bytes in [SEGMENT_BYTES_MIN, SEGMENT_BYTES_MIN + 4_096, 8 << 20] {
            let sandbox = tempfile::tempdir().unwrap();
            let folder = Directory::lock(&sandbox.path().join("store")).unwrap();
            let options = Options { segment_bytes: bytes, shards: 1, ..Options::default() };
            let store = RawStore::create(folder, 8, 16, &options).unwrap();
            assert_eq!(segment_bytes(store.write_bytes_max()), bytes);
            let folder = Directory::lock(&sandbox.path().join("any")).unwrap();
            let options = LogOptions { segment_bytes: bytes, shards: 1, ..LogOptions::default() };
            let store = RawLogStore::create(folder, &options).unwrap();
            assert_eq!(segment_bytes(store.write_bytes_max()), bytes);
        }
        assert!(segment_bytes(u64::MAX) > SEGMENT_BYTES_MAX, "no store has such segments");
    }
}
