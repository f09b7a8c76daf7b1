//! The second act: a writer of this machine's vital signs and four readers of its states.
//!
//! It is the example `vitals` of the facade, run by this program in its own roles.

#[path = "../../../mainstay/examples/vitals/show/mod.rs"]
mod show;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use serde::Serialize;

use super::Plant;
use super::error::{DemoError, Trying};
use super::view::View;

/// How long the writer writes.
const LENGTH: Duration = Duration::from_millis(3_500);
/// The hidden command that is a process of this act.
pub(super) const COMMAND: &str = "demo-vitals";

/// Arguments of a process of the second act: not for people.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct VitalsArgs {
    #[arg(value_parser = role)]
    role: show::Role,
    folder: PathBuf,
    /// Does the fault that [`Plant::Mixed`] is.
    #[arg(value_parser = ["one-by-one"])]
    fault: Option<String>,
}

fn role(name: &str) -> Result<show::Role, String> {
    show::Role::named(name).ok_or_else(|| "no such role".to_owned())
}

/// What the second act came to.
#[derive(Clone, Default, Debug, Serialize)]
pub(super) struct Vitals {
    /// Samples that were written.
    pub(super) samples: u64,
    /// Writers that were killed.
    pub(super) kills: u64,
    /// From the kill to the first sample of the successor.
    pub(super) back_ms: f64,
    /// Values that were half old and half new.
    pub(super) torn: u64,
    /// Pairs that were not from one instant.
    pub(super) mixed: u64,
    /// Changes of the limited view that came too soon.
    pub(super) early: u64,
    /// Readers that did not see the last sample.
    pub(super) behind: u64,
    /// States left when everybody had gone.
    pub(super) left: u64,
    /// What each reader counted.
    pub(super) readers: BTreeMap<&'static str, BTreeMap<String, u64>>,
    pub(super) seconds: f64,
    pub(super) ok: bool,
}

/// Plays the second act.
pub(super) fn play(view: View, plant: Option<Plant>) -> Result<Vitals, DemoError> {
    view.second_act().trying("write to standard output")?;
    let program = std::env::current_exe().trying("find this program")?;
    let failed = |source| DemoError::Refused { action: "play the second act", source };
    let folder = show::folder().map_err(failed)?;
    let command = || {
        let mut command = Command::new(&program);
        command.arg(COMMAND);
        command
    };
    let plan = show::Plan {
        folder: folder.path(),
        length: LENGTH,
        command: &command,
        one_by_one: plant == Some(Plant::Mixed),
    };
    let told = &mut |line: &str| Ok(view.line(line)?);
    let outcome = show::conduct(&plan, told).map_err(failed)?;
    view.line("").trying("write to standard output")?;
    for line in outcome.lines() {
        view.line(&line).trying("write to standard output")?;
    }
    view.line(&outcome.last_line()).trying("write to standard output")?;
    view.line("").trying("write to standard output")?;
    Ok(Vitals {
        samples: outcome.samples,
        kills: outcome.kills,
        back_ms: outcome.back_ms,
        torn: outcome.torn(),
        mixed: outcome.mixed(),
        early: outcome.early(),
        behind: outcome.behind(),
        left: outcome.left,
        ok: outcome.is_well(),
        seconds: outcome.seconds,
        readers: outcome
            .readers
            .into_iter()
            .map(|(role, report)| (role.name(), report.0))
            .collect(),
    })
}

/// Is one of the processes of the second act.
#[must_use]
pub(crate) fn take_part(args: &VitalsArgs) -> ExitCode {
    match show::play(args.role, &args.folder, args.fault.is_some()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mainstay demo: {}: {error}", args.role.name());
            ExitCode::FAILURE
        }
    }
}
