//! `mainstay state persist`.

use super::target::{Target, domain};
use crate::{
    error::{CliError, Outcome, Result},
    interrupt::Interrupt,
    output::Output,
    size::grouped,
};
use mainstay::state::{Grade, StateOptions};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Keep a state in a file, so that it outlives its subscribers
///
/// There is no way back to a transient state, and to no other file; `rm` deletes both. A state that
/// does not exist begins with what the file has.
///
/// Without --machine the state survives all processes: it stays in memory, and the file is written
/// when a writer leaves in good order. With --machine it survives a power cut too, as far as it was
/// written to the disk: once by this command, then ten times a second by every process that writes
/// the state, from its next commit on, and by this one as long as it is held with --hold.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay state persist temperature ~/temperature.state
  mainstay state persist orders /var/lib/shop/orders.state --machine
  mainstay state persist orders /var/lib/shop/orders.state --machine --hold")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// The file; it belongs to this state alone
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    path: PathBuf,
    /// Survive the machine, not only all processes
    #[arg(long)]
    machine: bool,
    /// Stay, and go on writing it to the disk, until interrupted
    #[arg(long, requires = "machine")]
    hold: bool,
}

#[derive(Serialize)]
pub(super) struct KeptRow {
    path: String,
    survives: &'static str,
}

impl KeptRow {
    pub(super) fn of((path, grade): &(PathBuf, Grade)) -> Self {
        let survives = match grade {
            Grade::Process => "processes",
            // `Grade` may get more members, each stronger than those before.
            _ => "the machine",
        };
        Self { path: path.display().to_string(), survives }
    }

    pub(super) fn survives(&self) -> &'static str {
        self.survives
    }

    /// For people: the file, and what it survives.
    pub(super) fn text(&self) -> String {
        format!("{} (survives {})", self.path, self.survives)
    }
}

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    version: u64,
    persistent: KeptRow,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let domain = domain()?;
    let name = &args.target.name;
    if args.target.look(&domain)?.is_none() && !is_there(&args.path) {
        let (name, path) = (name.clone(), args.path.clone());
        return Err(CliError::NothingToPersist { name, path });
    }
    let interrupt = Interrupt::watch();
    let options = StateOptions::new().any_type().persistent(&args.path, grade(args.machine));
    let state = options.writer::<[u8]>(&domain, name)?;
    state.sync()?;
    let kept = state.persistence()?.unwrap_or((args.path.clone(), grade(args.machine)));
    let (version, persistent) = (state.version()?, KeptRow::of(&kept));
    if out.json {
        out.document(&Report { name: state.name(), version, persistent })?;
    } else {
        let then = if args.hold { "; written until interrupted" } else { "" };
        let version = grouped(version);
        out.line(&format!("{name}: version {version} is kept in {}{then}", persistent.text()))?;
    }
    out.flush()?;
    while args.hold && !interrupt.is_asked() {
        thread::sleep(Duration::from_millis(50));
    }
    Ok(Outcome::Fine)
}

/// What cannot be looked at is left to the library, which says why.
fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

pub(super) fn grade(machine: bool) -> Grade {
    if machine { Grade::Machine } else { Grade::Process }
}
