//! `cargo xtask bench`: side by side with peers.

use crate::{
    error::Result,
    project::{self, Project},
};

/// Run benchmarks side by side with peers
///
/// Prints a table, then one line a figure:
/// `RATIO <name> <value> <ours> <peer-name> <peers> <unit>`, where value is how many times better
/// Mainstay is than the peer. Both are measured in turns in one run; figures are medians of at
/// least seven repetitions.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench                      everything\n  \
    cargo xtask bench pool --quick         the pool, under 45 seconds")]
pub(crate) struct Args {
    /// Which benchmarks [default: all]
    name: Option<String>,
    /// Fewer repetitions: under 45 seconds a name
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<()> {
    let mut command =
        project.cargo(&["run", "--release", "--manifest-path", "bench/Cargo.toml", "--"]);
    command.args(&args.name);
    if args.quick {
        command.arg("--quick");
    }
    project::run(&mut command)
}
