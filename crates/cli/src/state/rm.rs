//! `mainstay state rm`.

use super::target::{Target, existing_domain};
use crate::{
    confirm::confirm,
    error::{CliError, Outcome, Result, warn},
    output::Output,
};
use mainstay::state::{Domain, Error};
use serde::Serialize;
use std::fs;

/// Delete a state, and the file that it is kept in
///
/// Refused while another process is subscribed. A damaged state, which nobody can subscribe to any
/// more, is removed too, after a question: its file in the folder of states, not one that it was
/// kept in.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay state rm temperature
  mainstay state rm broken --yes")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Remove a damaged state without asking
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    removed: &'a str,
    damaged: bool,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let name = &args.target.name;
    let domain = existing_domain()?.ok_or_else(|| Error::NotFound { state: name.clone() })?;
    let damaged = match delete(&args.target, &domain) {
        Err(CliError::State(error @ (Error::Corrupt { .. } | Error::Version { .. }))) => {
            warn(&error);
            confirm(args.yes, format!("removes {name}, which nobody can use as it is"))?;
            remove(&domain, name)?;
            true
        }
        deleted => deleted.map(|()| false)?,
    };
    if out.json {
        out.document(&Report { removed: name, damaged })?;
    } else {
        out.line(&format!("removed {name}"))?;
    }
    Ok(Outcome::Fine)
}

fn delete(target: &Target, domain: &Domain) -> Result<()> {
    // A writer would make what is not there.
    if target.look(domain)?.is_none() {
        return Err(Error::NotFound { state: target.name.clone() }.into());
    }
    Ok(target.writer(domain)?.delete()?)
}

fn remove(domain: &Domain, name: &str) -> Result<()> {
    let path = domain.folder().join(format!("{name}.state"));
    let hint = "check the mode of its folder";
    fs::remove_file(&path).map_err(CliError::file(&path, "remove it", hint))
}
