//! `mainstay store backup`.

use super::{
    follow::segment_bytes,
    keys,
    target::{Target, failed, fixed_only, view},
    verify::differences,
};
use crate::{
    error::{CliError, Outcome, Result},
    output::Output,
    progress::{Bar, Progress},
    size::{counted, grouped, human},
};
use mainstay::{
    replica::{Updated, update},
    store::{Directory, Error, LogCopied, Options, RawLogStore, RawStore},
};
use serde::Serialize;
use std::{path::PathBuf, sync::Arc};

/// Copy a store to another place, and later only what has changed since
///
/// COPY is made if it is not there. It is a follower's store: `get`, `scan` and `verify` work on it,
/// `restore` makes a store of it. The log of the store says what the copy lacks; where that is no
/// longer there, records are compared. Interrupted, it goes on where it was when the same command is run
/// again, and until then it is refused by all others. What the copy has and the
/// store never had (after a restore of something older) is set aside, in files beside it.
///
/// A copy of a store with values of any size is no store: only `restore` works on it. Files of the log
/// that it has already are not copied again, and interrupted, it is what it was before.
///
/// A store that is being served is copied without a pause by `mainstay store follow --until-equal`,
/// also to another host; both can be used in turns for one copy.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store backup ./people /mnt/backup/people
  mainstay store backup ./people /mnt/backup/people --check
  mainstay store follow /mnt/backup/people 127.0.0.1:7500 --node 2 --secret-file secret --until-equal")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// The directory of the copy
    #[arg(value_name = "COPY", value_hint = clap::ValueHint::DirPath)]
    copy: PathBuf,
    /// Compare all records afterwards
    #[arg(long)]
    check: bool,
}

#[derive(Serialize)]
struct Report {
    copy: String,
    records: u64,
    bytes_copied: u64,
    shards_compared: u32,
    set_aside: u64,
    checked: bool,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    if args.target.is_any() {
        return backup_any(args, out);
    }
    fixed_only(&args.copy, "such a copy")?;
    let store = Arc::new(args.target.open()?);
    let copy = match (Target { path: args.copy.clone() }).open() {
        // Also where one was killed before there was a store.
        Err(CliError::Store { source: Error::NotAStore, .. } | CliError::IsCopy(_)) => {
            create(&args.copy, &store)?
        }
        opened => opened?,
    };
    let copy = Arc::new(copy);
    let Updated { bytes, compared, set_aside, .. } = copy_over("copying", &store, &copy)?;
    let failed = failed(&args.copy);
    let shards = copy.identity().shards;
    let records = (0..shards).map(|shard| copy.records(shard)).sum::<Result<u64, _>>();
    let records = records.map_err(&failed)?;
    // The only ones that are left of them.
    Arc::into_inner(copy).map_or(Ok(()), RawStore::close).map_err(&failed)?;
    Arc::into_inner(store).map_or(Ok(()), RawStore::close).map_err(args.target.failed())?;
    let is_equal = !args.check || {
        let (_, found) =
            differences(&args.target.view()?, &view(&args.copy)?).map_err(args.target.failed())?;
        found.is_empty()
    };
    let path = args.copy.display().to_string();
    if !is_equal {
        return Err(CliError::Unequal { copy: args.copy.clone(), of: args.target.path.clone() });
    }
    if out.json {
        let (bytes_copied, shards_compared, checked) = (bytes, compared, args.check);
        let copy = path;
        let report = Report { copy, records, bytes_copied, shards_compared, set_aside, checked };
        out.document(&report)?;
        return Ok(Outcome::Fine);
    }
    let checked = if args.check { ", all equal" } else { "" };
    let records = grouped(records);
    out.line(&format!("{path}: {records} records{checked}; {} copied", human(bytes)))?;
    if set_aside > 0 {
        let records = counted(set_aside, "record", "records");
        out.line(&format!("{path}: {records} that the store never had, set aside in files there"))?;
    }
    Ok(Outcome::Fine)
}

#[derive(Serialize)]
struct AnyReport {
    copy: String,
    records: u64,
    segments: u64,
    bytes: u64,
    bytes_copied: u64,
    checked: bool,
}

/// A store with values of any size.
fn backup_any(args: &Args, out: &mut Output) -> Result<Outcome> {
    let store = args.target.open_any()?;
    let failed = failed(&args.copy);
    let folder = keys::lock(&args.copy).map_err(&failed)?;
    let mut bar = Bar::new("copying");
    let copied = store.backup(&folder, |done, total| bar.to(done, total)).map_err(&failed)?;
    drop(bar);
    if args.check {
        let mut bar = Bar::new("checking");
        RawLogStore::check_copy(&folder, |done, total| bar.to(done, total)).map_err(&failed)?;
    }
    store.close().map_err(args.target.failed())?;
    let LogCopied { records, segments, bytes, copied_bytes, .. } = copied;
    let copy = args.copy.display().to_string();
    if out.json {
        let (bytes_copied, checked) = (copied_bytes, args.check);
        out.document(&AnyReport { copy, records, segments, bytes, bytes_copied, checked })?;
        return Ok(Outcome::Fine);
    }
    let checked = if args.check { ", all sound" } else { "" };
    let (records, copied) = (grouped(records), human(copied_bytes));
    out.line(&format!("{copy}: {records} records{checked}; {copied} of {} copied", human(bytes)))?;
    Ok(Outcome::Fine)
}

/// An empty copy of a store.
pub(super) fn create(
    path: &std::path::Path,
    of: &RawStore<Directory>,
) -> Result<RawStore<Directory>> {
    let segment_bytes = segment_bytes(of.write_bytes_max());
    let options = Options { segment_bytes, ..Options::default() };
    let folder = keys::lock(path).map_err(failed(path))?;
    RawStore::create_replica(folder, &of.identity(), &options).map_err(failed(path))
}

/// Brings a copy up to date, with a bar.
pub(super) fn copy_over(
    what: &'static str,
    store: &Arc<RawStore<Directory>>,
    copy: &Arc<RawStore<Directory>>,
) -> Result<Updated> {
    let (mut bar, mut last) = (None, 0);
    let updated = update(store, copy, |done, total| {
        let done = done.max(last);
        bar.get_or_insert_with(|| Progress::bar(what, total)).advance(done - last);
        last = done;
    });
    Ok(updated?)
}
