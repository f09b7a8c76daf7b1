//! The fourth act: this machine's package index as a store with two followers.
//!
//! It is the example `packages` of the facade, run by this program in its own roles.

#[path = "../../../mainstay/examples/packages/show/mod.rs"]
mod show;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use serde::Serialize;

use super::Plant;
use super::error::{DemoError, Trying};
use super::view::View;

/// The hidden command that is a process of this act.
pub(super) const COMMAND: &str = "demo-packages";

/// Arguments of a process of the fourth act: not for people.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PackagesArgs {
    #[arg(value_parser = role)]
    role: show::Role,
    folder: PathBuf,
    node: u64,
    address: String,
}

fn role(name: &str) -> Result<show::Role, String> {
    show::Role::named(name).ok_or_else(|| "no such role".to_owned())
}

/// What the fourth act came to.
#[derive(Clone, Default, Debug, Serialize)]
pub(super) struct Packages {
    /// Packages of the machine's index; 0 if it has none, and then there was no act.
    pub(super) packages: u64,
    /// Files they come from.
    pub(super) files: u64,
    /// Steps of the update.
    pub(super) steps: u64,
    /// Of these, steps that a follower had durably when the leader was killed.
    pub(super) acknowledged: u64,
    /// Leaders that were killed.
    pub(super) kills: u64,
    /// From the kill to the promoted follower's taking writes.
    pub(super) promoted_ms: f64,
    /// What went to a new follower, and what to the one that had been cut off.
    pub(super) whole_bytes: u64,
    pub(super) missed_bytes: u64,
    /// Records that only the killed leader had, and set aside.
    pub(super) aside: u64,
    /// Acknowledged steps that the promoted follower did not have.
    pub(super) lost: u64,
    /// Over all three copies: records with another value, none, or too many.
    pub(super) different: u64,
    pub(super) missing: u64,
    pub(super) ghosts: u64,
    /// Records that each copy has in the end, if they are equal.
    pub(super) records: u64,
    pub(super) seconds: f64,
    pub(super) ok: bool,
}

/// Plays the fourth act.
pub(super) fn play(view: View, plant: Option<Plant>) -> Result<Packages, DemoError> {
    let write = "write to standard output";
    view.fourth_act().trying(write)?;
    let failed = |source| DemoError::Refused { action: "play the fourth act", source };
    let index = show::Index::read().map_err(failed)?;
    if index.records.is_empty() {
        let text = "This machine has no package index of Debian, so there is nothing to store: the \
                    act is left out.\n";
        view.line(text).trying(write)?;
        return Ok(Packages { ok: true, ..Packages::default() });
    }
    let program = std::env::current_exe().trying("find this program")?;
    let folder = show::folder().map_err(failed)?;
    let command = || {
        let mut command = Command::new(&program);
        command.arg(COMMAND);
        command
    };
    let plan = show::Plan {
        folder: folder.path(),
        index: &index,
        command: &command,
        is_forgetful: plant == Some(Plant::Ghosts),
    };
    let told = &mut |line: &str| Ok(view.line(line)?);
    let outcome = show::conduct(&plan, told).map_err(failed)?;
    view.line("").trying(write)?;
    for line in outcome.lines() {
        view.line(&line).trying(write)?;
    }
    view.line(&outcome.last_line()).trying(write)?;
    view.line("").trying(write)?;
    Ok(Packages {
        packages: index.records.len() as u64,
        files: index.files,
        steps: outcome.steps,
        acknowledged: outcome.acknowledged,
        kills: outcome.kills,
        promoted_ms: outcome.promoted_ms,
        whole_bytes: outcome.whole_bytes,
        missed_bytes: outcome.missed_bytes,
        aside: outcome.aside,
        lost: outcome.lost,
        different: outcome.different(),
        missing: outcome.missing(),
        ghosts: outcome.ghosts(),
        records: outcome.copies.first().map_or(0, |(_, found)| found.equal),
        seconds: outcome.seconds,
        ok: outcome.is_well(),
    })
}

/// Is one of the processes of the fourth act.
#[must_use]
pub(crate) fn take_part(args: &PackagesArgs) -> ExitCode {
    match show::play(args.role, &args.folder, args.node, &args.address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mainstay demo: {}: {error}", args.role.name());
            ExitCode::FAILURE
        }
    }
}
