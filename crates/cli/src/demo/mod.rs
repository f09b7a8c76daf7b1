//! `mainstay demo`: a real service loses its process again and again, and nothing else.
//!
//! Four processes of this one program:
//!
//! ```text
//!            ledger, kills                      one pool on a memfd,
//!   parent ----------------> recorder --------> one block an entity of /proc
//!     |  ^  promises            | killed, succeeded,     ^            ^
//!     |  |                      v killed, ...            | lease      | read-only, no lease
//!     |  +----------------- recorder                   reader      watcher
//!     +------ asks for reports ---------------------------+------------+
//! ```
//!
//! * The **recorder** samples this machine into blocks, in place, and tells the parent what it
//!   published (`recorder`, `sampler`, `kinds`). A record survives a kill in the middle of an
//!   update, and a read at any time, because it is two copies of which one is never being written
//!   (`twin`).
//! * The **reader** attaches, copies and checks live blocks all the time, and measures whether
//!   anything ever held it up (`reader`, `pace`).
//! * The **watcher** counts blocks through a read-only view (`watcher`).
//! * The **parent** kills the recorder at random instants, starts a successor at once and compares
//!   what the successor found with what was promised (`conduct`, `ledger`). After the last kill the
//!   recorder hands over to a successor in good order, by a passed descriptor.
//!
//! The second act (`vitals`) is about states: a writer and four readers of this machine's vital
//! signs, of which the writer is killed and replaced.
//!
//! The third act (`power`) has a pool in a file: checkpoints while it is written, a kill in the middle
//! of one, and what power cuts at that moment would have left.
//!
//! The fourth act (`packages`) is about stores: a leader and two followers of this machine's package
//! index, a cut, a kill and a promotion, and a comparison of all copies record by record.
//!
//! The first two acts write nothing to disk; no process outlives the parent (`role`, R1).

mod child;
mod conduct;
mod error;
mod kinds;
mod ledger;
mod pace;
mod packages;
mod power;
mod reader;
mod recorder;
mod report;
mod role;
mod sampler;
mod survey;
mod twin;
mod view;
mod vitals;
mod watcher;
mod wire;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use conduct::{Plan, conduct};
use error::{DemoError, Trying};
use view::View;

pub(crate) use packages::{PackagesArgs, take_part as take_part_in_packages};
pub(crate) use power::{PowerArgs, keep};
pub(crate) use vitals::{VitalsArgs, take_part};

/// Exit status when the demo ran to its end and something was not well.
const FAULTS_FOUND: u8 = 3;

/// Watch a recorder of this machine be killed again and again, and lose nothing
///
/// A recorder process samples every process, thread, descriptor, socket, disk, interface, mount and
/// kernel counter in /proc into a pool of shared memory, as often as it can. A second process reads
/// every block at the same time, a third only watches. The recorder is killed by SIGKILL in the
/// middle of its work; a successor recovers, and everything that had been acknowledged is looked
/// for. At the end a recorder hands over to its successor in good order.
///
/// In the second act a process writes the machine's vital signs into five states, 250 times a second
/// and all five in one transaction. Four others read: whenever they like, woken by each change, at
/// most five times a second, and two states as of one instant. The writer is killed and replaced.
///
/// In the third act a recorder keeps its pool in a file and makes checkpoints while it writes, each
/// shown as a heat map of what changed. It is killed in the middle of one; then the demo opens what
/// the crash has left, and what 40 power cuts at that moment would have left.
///
/// In the fourth act a process leads a store of all packages that this machine knows of, from the
/// lists of apt or from dpkg; two others follow it. One is cut off, the leader is killed in the
/// middle of an update, a follower is promoted, the others follow it, and all copies are compared.
///
/// Needs no root and no network, some 200 MB of the temporary folder, and leaves nothing behind. The last line is
/// `DEMO kills=<n> lost=<n> torn=<n> leaked=<n> reader_stalls=<n>`. A stall is a gap of more than
/// 100 ms between two reads, beyond the time the reader waited for a CPU.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Exit status:
  0  nothing was lost, torn or leaked, and the reader was never held up
  1  the demo could not be carried through; standard error says why
  2  the command line is wrong
  3  something was lost, torn or leaked, or the reader was held up

Examples:
  mainstay demo                      the whole show, in under 35 seconds
  mainstay demo --kills 100          a longer one
  mainstay demo --seed 7             the same kill times as any other run with seed 7
  mainstay demo --json | jq .totals  for machines")]
pub(crate) struct DemoArgs {
    /// How many processes to kill
    #[arg(long, value_name = "N", default_value_t = 24,
          value_parser = clap::value_parser!(u64).range(1..=10_000))]
    kills: u64,

    /// Decides when each kill comes [default: from the clock]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,

    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,

    /// Do a fault on purpose, which the demo must then find
    #[arg(long, value_enum, hide = true)]
    plant: Option<Plant>,
}

/// Arguments of a process of the demo: not for people.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RoleArgs {
    role: Role,
    #[arg(long, value_enum)]
    plant: Option<Plant>,
}

/// What a process of the demo is.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Recorder,
    Reader,
    Watcher,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Recorder => "recorder",
            Self::Reader => "reader",
            Self::Watcher => "watcher",
        }
    }
}

/// A fault done on purpose, to show that the demo would see one.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Plant {
    /// A successor drops an acknowledged block.
    Lost,
    /// Something scribbles over a record.
    Torn,
    /// A block is allocated and forgotten.
    Leaked,
    /// The reader stands still.
    Stalled,
    /// The states of the second act are written one by one.
    Mixed,
    /// The disk of the third act says that it has what it has not.
    Lied,
    /// A follower of the fourth act does not delete what its leader deletes.
    Ghosts,
}

impl Plant {
    fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Torn => "torn",
            Self::Leaked => "leaked",
            Self::Stalled => "stalled",
            Self::Mixed => "mixed",
            Self::Lied => "lied",
            Self::Ghosts => "ghosts",
        }
    }
}

/// Runs the demo.
#[must_use]
pub(crate) fn run(args: DemoArgs) -> ExitCode {
    let plan = Plan {
        kills: args.kills,
        seed: args.seed.unwrap_or_else(seed_of_the_clock),
        plant: args.plant,
    };
    match show(plan, View::fitting(args.json)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAULTS_FOUND),
        Err(error) => {
            eprintln!("mainstay demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(plan: Plan, view: View) -> Result<bool, DemoError> {
    let mut outcome = conduct(plan, view)?;
    view.end_first_act(&outcome).trying("write to standard output")?;
    // A fault of the first act is shown by the first act.
    if plan.plant.is_none_or(|plant| plant == Plant::Mixed) {
        outcome = outcome.with_vitals(vitals::play(view, plan.plant)?);
    }
    if plan.plant.is_none_or(|plant| plant == Plant::Lied) {
        outcome = outcome.with_power(power::play(view, plan.seed, plan.plant)?);
    }
    if plan.plant.is_none_or(|plant| plant == Plant::Ghosts) {
        outcome = outcome.with_packages(packages::play(view, plan.plant)?);
    }
    view.close(&outcome).trying("write to standard output")?;
    Ok(outcome.ok)
}

/// Short enough to be typed again.
fn seed_of_the_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) % 1_000_000
}

/// Is one of the demo's processes, started by [`run`].
#[must_use]
pub(crate) fn role(args: RoleArgs) -> ExitCode {
    let outcome = match args.role {
        Role::Recorder => recorder::run(args.plant),
        Role::Reader => reader::run(args.plant),
        Role::Watcher => watcher::run(),
    };
    role::exit(args.role.name(), outcome)
}
