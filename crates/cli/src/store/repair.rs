//! `mainstay store repair`.

use super::{
    bytes::{Row, Text, as_text, cell, exact_text},
    follow::Source,
    keys,
    target::Target,
    verify::AnyPlace,
};
use crate::{
    channel::wire::{Credentials, Identity, Over},
    error::{CliError, Outcome, Result},
    output::Output,
    progress::Bar,
    size::{counted, grouped},
};
use mainstay::store::{
    Error, Identity as StoreIdentity, Known, LogDamage, LogRepaired, RawLogStore, RawStore,
    Repaired, Replacing,
};
use serde::Serialize;
use std::path::PathBuf;

/// How many lost keys are listed for people, and in JSON.
const LISTED_MAX: usize = 20;
const KEYS_MAX: usize = 1_000;

/// Write anew what is damaged, where there is a sound copy of it, and save what is sound
///
/// Looks at every checksum, as `verify` does. Damage that costs no record, as there is a copy of what
/// it was, is repaired, and the exit status is 0.
///
/// Where damage costs records, the exit status is 3. A new store is made of all that is sound, in
/// STORE.repairing beside it, and takes the place of the damaged one in one step when it is complete and
/// durable; the damaged files are kept in STORE.damaged-1, and are yours to remove. With values of any
/// size, a key whose last value is damaged is lost, and listed. With fixed sizes, the keys are listed
/// that damaged places name: what is there of them is older, and one that was deleted may be back.
/// Where nobody knows which keys are lost, it is told how many records may be older than they were. The
/// new one is another store: its followers begin anew. What was a follower's store, or a copy, takes no
/// writes until it is promoted, and one that was not finished is still not finished.
///
/// With --from, a damaged store of either kind is made anew as a copy of what its leader has, and takes
/// the place of the damaged one in the same way: it is a follower then, whatever it was before. What the
/// damaged one had and the leader has not is in the files that are kept.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store repair ./people
  mainstay store repair ./people --json
  mainstay store repair ./secrets --key-file people.key
  mainstay store repair ./copy --from leader:7500 --node 2 --secret-file secret")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Take the records of a leader that serves the store at this address
    #[arg(long, value_name = "ADDRESS", requires = "node")]
    from: Option<String>,
    /// Over what
    #[arg(long, value_enum, default_value = "tcp", requires = "from")]
    over: Over,
    /// Our number in the cluster; every node has another
    #[arg(long, value_name = "N", requires = "from")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    node: Option<u64>,
    #[command(flatten)]
    credentials: Credentials,
}

#[derive(Serialize)]
struct Report<'a> {
    path: String,
    /// Places that were damaged.
    found: u64,
    /// Places that still are.
    left: u64,
    records: u64,
    /// What a new store was made of, and what is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<&'a Saved>,
    /// Where the records are from, if it is a leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Where the damaged files are now, if another store is in their place.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
}

#[derive(Default, Serialize)]
struct Saved {
    damage: Vec<AnyPlace>,
    /// Writes that are damaged or missing, as far as they can be counted.
    writes_lost: u64,
    /// Records in damaged parts of images, of a store of fixed sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    records_lost: Option<u64>,
    /// Keys whose last value is lost, and the first of them; with fixed sizes as damaged places name
    /// them.
    keys_lost: u64,
    keys: Vec<serde_json::Value>,
    /// Places where nobody knows which keys are lost, and records that may be older than these.
    unknown: u64,
    doubtful: u64,
    /// The header was gone: what chooses shards, how large segments are, and that it led, is a guess.
    guessed: bool,
    /// It takes no writes before it is promoted, and is refused as a copy that is not finished: the
    /// damaged one was so.
    follows: bool,
    unfinished: bool,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let target = &args.target;
    if let (Some(address), Some(node)) = (&args.from, args.node) {
        let identity = &Identity::new(node, args.credentials.clone());
        return from_leader(target, &Source { address, over: args.over, identity }, out);
    }
    let mut bar = Bar::new("repairing");
    let folder = keys::lock(&target.path).map_err(target.failed())?;
    let told = |done, total| bar.to(done, total);
    let repaired = if target.is_any() {
        RawLogStore::repair(folder, told).map(Mended::from)
    } else {
        RawStore::repair(folder, told).map(Mended::from)
    };
    drop(bar);
    tell(target, &repaired.map_err(target.failed())?, out)
}

fn fine(path: &str, found: u64, records: u64, out: &mut Output) -> Result<()> {
    let records = grouped(records);
    if found == 0 {
        return out.line(&format!("{path}: sound, {records} records; there was nothing to do"));
    }
    let places = counted(found, "place", "places");
    out.line(&format!("{path}: {places} repaired; sound, {records} records"))
}

/// What is damaged in a store.
struct Found {
    places: u64,
    records: u64,
}

fn look(target: &Target) -> Result<Found> {
    let found = if target.is_any() {
        let mut bar = Bar::new("verifying");
        keys::survey_any(&target.path, |done, total| bar.to(done, total))
            .map(|survey| Found { places: survey.damage.len() as u64, records: survey.records })
    } else {
        let mut bar = Bar::new("verifying");
        keys::survey(&target.path, |done, total| bar.to(done, total)).map(|survey| {
            let places = survey.files.iter().map(|file| file.damage.len() as u64).sum();
            Found { places, records: survey.records }
        })
    };
    match found {
        // Not even its header can be read, or the disk does not say.
        Err(Error::Damaged { .. } | Error::Misplaced { .. } | Error::Io { .. }) => {
            Ok(Found { places: 1, records: 0 })
        }
        found => found.map_err(target.failed()),
    }
}

/// A copy of a leader in the place of a damaged one.
fn from_leader(target: &Target, source: &Source<'_>, out: &mut Output) -> Result<Outcome> {
    let before = look(target)?;
    let (shown, from) = (target.path.display().to_string(), source.address.to_owned());
    let (found, mut records, mut kept) = (before.places, before.records, None);
    if found > 0 {
        let failed = target.failed();
        // Nobody opens it meanwhile.
        let folder = keys::lock(&target.path).map_err(&failed)?;
        // Its header may be sound whatever else cannot be read; who has lost that knows nothing.
        let known = Known::of(&folder).ok();
        let replacing = Replacing::begin(folder).map_err(&failed)?;
        let check = |identity: &StoreIdentity| {
            let is_it = known.is_none_or(|known| known.id == identity.id);
            let (path, address) = (target.path.clone(), from.clone());
            if is_it { Ok(()) } else { Err(CliError::OtherStore { path, address }) }
        };
        source.copy_to(replacing.path(), known, check, out)?;
        kept = Some(replacing.finish().map_err(&failed)?.display().to_string());
        records = look(target)?.records;
    }
    if out.json {
        let from = found.gt(&0).then_some(from);
        let path = shown;
        out.document(&Report { path, found, left: 0, records, saved: None, from, kept })?;
        return Ok(Outcome::Fine);
    }
    fine(&shown, found, records, out)?;
    if let Some(kept) = kept {
        out.line(&format!("it is a copy of what {from} has; the damaged files are in {kept}"))?;
    }
    Ok(Outcome::Fine)
}

/// A store of either kind that was repaired.
struct Mended {
    records: u64,
    is_whole: bool,
    saved: Saved,
    /// Keys that are lost, or are named where something is.
    keys: Vec<Box<[u8]>>,
    text: Text,
    kept: Option<String>,
}

impl Mended {
    /// What can be said of either kind.
    fn of(
        (records, is_whole): (u64, bool),
        damage: &[LogDamage],
        (keys, text): (Vec<Box<[u8]>>, Text),
        kept: Option<PathBuf>,
    ) -> Self {
        let shown = keys.iter().take(KEYS_MAX);
        let saved = Saved {
            damage: damage.iter().map(AnyPlace::from).collect(),
            keys_lost: keys.len() as u64,
            keys: shown.flat_map(|key| serde_json::to_value(Row::with(key, None, text))).collect(),
            ..Saved::default()
        };
        let kept = kept.map(|kept| kept.display().to_string());
        Self { records, is_whole, saved, keys, text, kept }
    }
}

impl From<LogRepaired> for Mended {
    fn from(repaired: LogRepaired) -> Self {
        let LogRepaired { salvaged: it, kept, .. } = repaired;
        let is = (it.records, it.is_whole());
        let mut mended = Self::of(is, &it.damage, (it.lost, exact_text), kept);
        let saved = &mut mended.saved;
        (saved.writes_lost, saved.guessed) = (it.writes_lost, it.is_guessed);
        (saved.unknown, saved.doubtful) = (it.unknown, it.doubtful);
        (saved.follows, saved.unfinished) = (it.follows, it.is_unfinished);
        mended
    }
}

impl From<Repaired> for Mended {
    fn from(repaired: Repaired) -> Self {
        let Repaired { salvaged: it, kept, .. } = repaired;
        let is = (it.records, it.is_whole());
        let mut mended = Self::of(is, &it.damage, (it.named, as_text), kept);
        let saved = &mut mended.saved;
        (saved.writes_lost, saved.records_lost) = (it.writes_lost, Some(it.records_lost));
        (saved.unknown, saved.doubtful) = (it.unknown, it.doubtful);
        (saved.follows, saved.unfinished) = (it.follows, it.is_unfinished);
        mended
    }
}

fn tell(target: &Target, mended: &Mended, out: &mut Output) -> Result<Outcome> {
    let Mended { records, is_whole, saved, keys, text, kept } = mended;
    let path = target.path.display().to_string();
    let outcome = if *is_whole { Outcome::Fine } else { Outcome::Damaged };
    let (records, found) = (*records, saved.damage.len() as u64);
    if out.json {
        let (saved, kept) = (Some(saved), kept.clone());
        out.document(&Report { path, found, left: 0, records, saved, from: None, kept })?;
        return Ok(outcome);
    }
    for damage in &saved.damage {
        out.line(&damage.to_string())?;
    }
    if saved.guessed {
        out.line(
            "the header of the store is gone: that it had as many shards as there are logs, that whole \
             keys chose them (no --shard-bits), segments of 1 GiB, and that it was a leader's whole store, \
             is a guess",
        )?;
    }
    if *is_whole {
        fine(&path, found, records, out)?;
    } else {
        let lost = match saved.records_lost {
            None => {
                let keys = counted(saved.keys_lost, "key", "keys");
                format!("the last values of {keys} are lost")
            }
            Some(records) => {
                let writes = counted(saved.writes_lost, "write", "writes");
                let records = counted(records, "record", "records");
                format!("{writes} of the log and {records} of images are lost")
            }
        };
        out.line(&format!("{path}: {} records saved; {lost}", grouped(records)))?;
        for key in keys.iter().take(LISTED_MAX) {
            out.line(&format!("lost: {}", cell(key, *text)))?;
        }
        if saved.records_lost.is_some() && !keys.is_empty() {
            out.line("what is there of these keys is older, and one that was deleted may be back")?;
        }
        if saved.unknown > 0 {
            let places = counted(saved.unknown, "place", "places");
            let doubtful = grouped(saved.doubtful);
            out.line(&format!(
                "in {places} nobody knows which keys were written; {doubtful} records may be older \
                 than that, or were deleted"
            ))?;
        }
        out.line(
            "next: compare it with a backup or a follower with `mainstay store verify --against`, and \
             check the disk",
        )?;
    }
    if saved.unfinished {
        out.line(&format!(
            "it is not finished, as the damaged one was not: make the copy again, or, if what it is of is \
             gone, take what is here by `mainstay store promote {path} --unfinished`"
        ))?;
    } else if saved.follows {
        out.line(&format!(
            "it takes no writes, as the damaged one followed a leader: make it anew from that (`--from`), \
             or, if the leader is gone, run `mainstay store promote {path}`"
        ))?;
    }
    if let Some(kept) = kept {
        out.line(&format!("the damaged files are in {kept}"))?;
    }
    Ok(outcome)
}
