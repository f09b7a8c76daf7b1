//! `mainstay store repair`.

use super::{
    bytes::{Row, cell, exact_text},
    follow::Source,
    keys,
    target::Target,
    verify::AnyPlace,
};
use crate::{
    channel::wire::{Credentials, Identity, Over},
    error::{CliError, Outcome, Result},
    output::Output,
    progress::{Bar, Progress},
    size::{counted, grouped},
};
use mainstay::store::{Error, Identity as StoreIdentity, Known, RawLogStore, Replacing, Survey};
use serde::Serialize;

/// How many lost keys are listed for people, and in JSON.
const LISTED_MAX: usize = 20;
const KEYS_MAX: usize = 1_000;

/// Write anew what is damaged, where there is a sound copy of it, and save what is sound
///
/// Looks at every checksum, as `verify` does. Damage that costs no record, as there is a copy of what
/// it was, is repaired, and the exit status is 0.
///
/// Where damage costs records, the exit status is 3. Of a store of fixed sizes nothing is touched then:
/// its records have to come from a copy. With values of any size, a new store is made of all that is
/// sound, in STORE.repairing beside it, and takes the place of the damaged one in one step when it is
/// complete and durable; the damaged files are kept in STORE.damaged-1, and are yours to remove. A key
/// whose last value is damaged is lost, and listed. Where nobody knows which keys are lost, it is told
/// how many records may be older than they were. The new one is another store: its followers begin
/// anew.
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
struct Report {
    path: String,
    /// Places that were damaged.
    found: u64,
    /// Places that still are.
    left: u64,
    records: u64,
    /// What a store with values of any size was made anew of.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<Saved>,
    /// Where the records are from, if it is a leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Where the damaged files are now, if another store is in their place.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
}

#[derive(Serialize)]
struct Saved {
    damage: Vec<AnyPlace>,
    /// Writes that are damaged or missing, as far as they can be counted.
    writes_lost: u64,
    /// Keys whose last value is lost, and the first of them.
    keys_lost: u64,
    keys: Vec<serde_json::Value>,
    /// Places where nobody knows which keys are lost, and records that may be older than these.
    unknown: u64,
    doubtful: u64,
    /// The header was gone: what chooses shards, and how large segments are, is a guess.
    guessed: bool,
}

fn places(survey: &Survey) -> u64 {
    survey.files.iter().map(|file| file.damage.len() as u64).sum()
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let target = &args.target;
    if let (Some(address), Some(node)) = (&args.from, args.node) {
        let identity = &Identity::new(node, args.credentials.clone());
        return from_leader(target, &Source { address, over: args.over, identity }, out);
    }
    if target.is_any() {
        return any(target, out);
    }
    let before = target.survey("verifying")?;
    let (found, mut left, mut records) = (places(&before), places(&before), before.records);
    if !before.is_sound() && before.can_be_opened() {
        let store = target.open()?;
        let progress = Progress::spinner("writing anew");
        store.compact().map_err(target.failed())?;
        store.close().map_err(target.failed())?;
        drop(progress);
        let after = target.survey("verifying again")?;
        (left, records) = (places(&after), after.records);
    }
    let path = target.path.display().to_string();
    let outcome = if left == 0 { Outcome::Fine } else { Outcome::Damaged };
    if out.json {
        out.document(&Report { path, found, left, records, saved: None, from: None, kept: None })?;
        return Ok(outcome);
    }
    if left == 0 {
        fine(&path, found, records, out)?;
    } else {
        let places = counted(left, "place", "places");
        out.line(&format!("{path}: damaged in {places}, of which no other copy is here"))?;
        out.line(
            "next: `mainstay store verify` says where; keep this directory, and make a store of a \
             backup or of a follower's copy with `mainstay store restore`",
        )?;
    }
    Ok(outcome)
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
        keys::survey(&target.path, |done, total| bar.to(done, total))
            .map(|survey| Found { places: places(&survey), records: survey.records })
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

/// A store with values of any size.
fn any(target: &Target, out: &mut Output) -> Result<Outcome> {
    let mut bar = Bar::new("repairing");
    let folder = keys::lock(&target.path).map_err(target.failed())?;
    let repaired = RawLogStore::repair(folder, |done, total| bar.to(done, total));
    drop(bar);
    let repaired = repaired.map_err(target.failed())?;
    let (saved, path) = (&repaired.salvaged, target.path.display().to_string());
    let outcome = if saved.is_whole() { Outcome::Fine } else { Outcome::Damaged };
    let (found, records) = (saved.damage.len() as u64, saved.records);
    let kept = repaired.kept.as_ref().map(|kept| kept.display().to_string());
    if out.json {
        let lost = saved.lost.iter().take(KEYS_MAX);
        let keys = lost.flat_map(|key| serde_json::to_value(Row::with(key, None, exact_text)));
        let saved = Saved {
            damage: saved.damage.iter().map(AnyPlace::from).collect(),
            writes_lost: saved.writes_lost,
            keys_lost: saved.lost.len() as u64,
            keys: keys.collect(),
            unknown: saved.unknown,
            doubtful: saved.doubtful,
            guessed: saved.is_guessed,
        };
        out.document(&Report {
            path,
            found,
            left: 0,
            records,
            saved: Some(saved),
            from: None,
            kept,
        })?;
        return Ok(outcome);
    }
    for damage in &saved.damage {
        out.line(&AnyPlace::from(damage).to_string())?;
    }
    if saved.is_guessed {
        out.line(
            "the header of the store is gone: that it had as many shards as there are logs, that whole \
             keys chose them (no --shard-bits), and segments of 1 GiB, is a guess",
        )?;
    }
    if saved.is_whole() {
        fine(&path, found, records, out)?;
    } else {
        let keys = counted(saved.lost.len() as u64, "key", "keys");
        let records = grouped(records);
        out.line(&format!("{path}: {records} records saved; the last values of {keys} are lost"))?;
        for key in saved.lost.iter().take(LISTED_MAX) {
            out.line(&format!("lost: {}", cell(key, exact_text)))?;
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
    if let Some(kept) = kept {
        out.line(&format!("the damaged files are in {kept}"))?;
    }
    Ok(outcome)
}
