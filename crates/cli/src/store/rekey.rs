//! `mainstay store rekey`.

use super::{keys, target::Target};
use crate::{
    error::{CliError, Outcome, Result},
    output::Output,
    progress::Progress,
    size::counted,
};
use mainstay::store::{Key, rekey};
use serde::Serialize;
use std::path::PathBuf;

/// Put an encrypted store under a new key
///
/// Only the headers of its files are written, so it takes a moment whatever the size. Nobody may have
/// the store open. Interrupted, it is run again with the same keys; until then the store is opened
/// with both (`--key-file NEW --key-file OLD`). Whoever has the old key and an old copy of the disk can
/// read that copy, and what is written into files that were there already, until `compact` replaces
/// them. Copies that `backup` has made are stores of their own, and are put under a new key likewise.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store key new new.key
  mainstay store rekey ./people --key-file old.key --new-key-file new.key
  mainstay store compact ./people --key-file new.key")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// The file with the new key
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    new_key_file: PathBuf,
}

#[derive(Serialize)]
struct Report {
    path: String,
    key: String,
    files_changed: u64,
    files_unchanged: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let given = keys::given().ok_or(CliError::NoOldKey)?;
    let new = Key::read(&args.new_key_file)?;
    let key = new.id().to_string();
    let ring = given.under(new);
    let (mut bar, mut last) = (None, 0);
    let done = rekey(&args.target.path, &ring, |done, total| {
        bar.get_or_insert_with(|| Progress::bar("putting under the new key", total))
            .advance(done - last);
        last = done;
    });
    drop(bar);
    let done = done.map_err(args.target.failed())?;
    let path = args.target.path.display().to_string();
    let (files_changed, files_unchanged) = (done.changed, done.unchanged);
    if out.json {
        out.document(&Report { path, key, files_changed, files_unchanged })?;
        return Ok(Outcome::Fine);
    }
    let changed = counted(files_changed, "file", "files");
    let before = match files_unchanged {
        0 => String::new(),
        many => format!(", {many} were already"),
    };
    out.line(&format!("{path}: {changed} put under key {key}{before}"))?;
    Ok(Outcome::Fine)
}
