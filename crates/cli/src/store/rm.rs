//! `mainstay store rm`.

use super::{
    bytes::{Form, Part, shown, text_of},
    target::Target,
};
use crate::{
    error::{CliError, Outcome, Result},
    output::Output,
    size::counted,
};
use serde::Serialize;

/// Remove records
///
/// They are durably gone when the command ends. If one of the keys is not there, nothing is removed,
/// unless --force is said.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store rm ./people alice
  mainstay store rm ./people alice bob --force
  mainstay store rm ./counters 42 --key-as number --json")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// The keys
    #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
    keys: Vec<String>,
    /// What each KEY is
    #[arg(long, value_name = "FORM", default_value = "text")]
    key_as: Form,
    /// Keys that are not there are no error
    #[arg(long, short)]
    force: bool,
}

#[derive(Serialize)]
struct Report {
    removed: u64,
    missing: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let failed = args.target.failed();
    let store = args.target.open_either()?;
    let lengths = store.lengths();
    let (len, text) = (lengths.map(|lengths| lengths.0), text_of(lengths));
    let keys: Vec<Vec<u8>> = args
        .keys
        .iter()
        .map(|key| args.key_as.bytes(key, len, Part::Key))
        .collect::<Result<_>>()?;
    if !args.force {
        for key in &keys {
            if store.get(key).map_err(&failed)?.is_none() {
                let (path, key) = (args.target.path.clone(), shown(key, text));
                return Err(CliError::NoRecord { path, key });
            }
        }
    }
    let mut report = Report { removed: 0, missing: 0 };
    for key in &keys {
        match store.delete(key).map_err(&failed)? {
            Some(_) => report.removed += 1,
            None => report.missing += 1,
        }
    }
    store.sync().map_err(&failed)?;
    store.close_after("what was removed is so durably", &args.target.path);
    if out.json {
        out.document(&report)?;
    } else {
        out.line(&format!("removed {}", counted(report.removed, "record", "records")))?;
    }
    Ok(Outcome::Fine)
}
