//! `mainstay store sweep`.

use super::target::Target;
use crate::{
    error::{CliError, Outcome, Result},
    output::Output,
    progress::Progress,
    size::counted,
};
use serde::Serialize;

/// Remove the records that have ended
///
/// Nobody sees them any more; until they are removed they take room. A program that has the store
/// open removes them by itself, and so does `serve`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store sweep ./sessions
  mainstay store sweep ./sessions --json && mainstay store compact ./sessions")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Report {
    path: String,
    removed: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let failed = args.target.failed();
    let store = args.target.open_either()?;
    if !store.has_ends() {
        return Err(CliError::NoEnds(args.target.path.clone()));
    }
    let progress = Progress::spinner("sweeping");
    let removed = store.sweep().map_err(&failed)?;
    store.close().map_err(&failed)?;
    drop(progress);
    let path = args.target.path.display().to_string();
    if out.json {
        out.document(&Report { path, removed })?;
    } else {
        out.line(&format!("removed {}", counted(removed, "record", "records")))?;
    }
    Ok(Outcome::Fine)
}
