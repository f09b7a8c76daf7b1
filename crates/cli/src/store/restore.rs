//! `mainstay store restore`.

use super::{
    backup::{copy_over, create},
    keys,
    promote::lead,
    target::{Target, failed, fixed_only},
};
use crate::{
    error::{CliError, Outcome, Result},
    output::Output,
    progress::Bar,
    size::grouped,
};
use mainstay::store::{Error, Making, RawStore, is_log_copy};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Make a store of a copy that `backup` or `follow` has made
///
/// Every checksum of the copy is looked at first. STORE must not be there: it appears when it is
/// whole, and takes writes from then on. Followers of what was there before find out by themselves
/// what they have to give up, and set it aside.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store restore /mnt/backup/people ./people
  mainstay store restore /mnt/backup/people ./people --json")]
pub(super) struct Args {
    /// The directory of the copy
    #[arg(value_name = "COPY", value_hint = clap::ValueHint::DirPath)]
    copy: PathBuf,
    /// The directory of the store to make
    #[arg(value_name = "STORE", value_hint = clap::ValueHint::DirPath)]
    store: PathBuf,
}

#[derive(Serialize)]
struct Report {
    store: String,
    records: u64,
    epoch: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let copy = Target { path: args.copy.clone() };
    fixed_only(&copy.path, "restored")?;
    if args.store.exists() {
        return Err(CliError::StoreExists(args.store.clone()));
    }
    let is_any = is_log_copy(&copy.path).map_err(copy.failed())?;
    if !is_any {
        let survey = copy.survey("checking")?;
        if !survey.is_sound() {
            return Err(CliError::DamagedCopy(copy.path));
        }
        if !survey.is_whole {
            return Err(CliError::Unfinished(copy.path));
        }
    }
    // Beside it, so that it can be renamed; what an interrupted one left is begun anew.
    let refused = |error| match error {
        Error::Locked => CliError::Restoring(args.store.clone()),
        Error::Exists => CliError::StoreExists(args.store.clone()),
        error => failed(&args.store)(error),
    };
    let making = Making::begin(&args.store, "restoring").map_err(refused)?;
    let fill = if is_any { fill_any } else { fill };
    let (records, epoch) = fill(&copy, making.path())?;
    making.finish().map_err(refused)?;
    let store = args.store.display().to_string();
    if out.json {
        out.document(&Report { store, records, epoch })?;
    } else {
        let records = grouped(records);
        out.line(&format!("{store}: {records} records; it leads with epoch {epoch}"))?;
    }
    Ok(Outcome::Fine)
}

/// One with values of any size, of which every checksum is looked at on the way.
fn fill_any(copy: &Target, path: &Path) -> Result<(u64, u64)> {
    let mut bar = Bar::new("restoring");
    let restored = keys::restore(&copy.path, path, |done, total| bar.to(done, total));
    drop(bar);
    let records = restored.map_err(copy.failed())?;
    let failed = failed(path);
    let store = Target { path: path.to_path_buf() }.open_any()?;
    let known = store.known_epoch();
    let store = lead(store, known).map_err(&failed)?;
    let epoch = store.epoch();
    store.close().map_err(&failed)?;
    Ok((records, epoch))
}

fn fill(copy: &Target, path: &Path) -> Result<(u64, u64)> {
    let failed = failed(path);
    let from = Arc::new(copy.open()?);
    let store = Arc::new(create(path, &from)?);
    copy_over("restoring", &from, &store)?;
    let shards = store.identity().shards;
    let records = (0..shards).map(|shard| store.records(shard)).sum::<Result<u64, _>>();
    let records = records.map_err(&failed)?;
    let known = from.known_epoch();
    Arc::into_inner(from).map_or(Ok(()), RawStore::close).map_err(copy.failed())?;
    let mut epoch = 0;
    if let Some(store) = Arc::into_inner(store) {
        let store = lead(store, known).map_err(&failed)?;
        epoch = store.epoch();
        store.close().map_err(&failed)?;
    }
    Ok((records, epoch))
}
