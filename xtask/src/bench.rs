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
/// least seven repetitions. Where a ratio is promised, a line says what came of it:
/// `VERDICT <name> <value> <peer-name> asked <ratio> met`, or `MISSED`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench                      everything\n  \
    cargo xtask bench pool --quick         the pool, under 45 seconds")]
pub(crate) struct Args {
    /// Which figures, by the beginning of their names: a part, or one of its figures [default: all]
    #[arg(value_parser = known)]
    name: Option<String>,
    /// Fewer repetitions: under 45 seconds a name
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<()> {
    let mut command = project.cargo(&["run", "--release", "--manifest-path", "bench/Cargo.toml"]);
    if let Some(name) = &args.name {
        // The peers of the other parts take minutes to build.
        command.args(["--no-default-features", "--features", part(name)]);
    }
    command.arg("--").args(&args.name);
    if args.quick {
        command.arg("--quick");
    }
    project::run(&mut command)
}

/// The parts that have figures: features of the bench workspace.
const PARTS: &[&str] = &["channel", "pool", "sds", "state", "store", "track"];

fn known(name: &str) -> std::result::Result<String, String> {
    if PARTS.contains(&part(name)) {
        return Ok(name.to_owned());
    }
    Err(format!("figures begin with the name of a part: {}", PARTS.join(", ")))
}

/// The part a figure belongs to: what its name begins with, and a feature of the bench workspace.
fn part(name: &str) -> &str {
    name.split_once('.').map_or(name, |(part, _)| part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_names_the_part_that_has_to_be_built() {
        assert_eq!(part("pool"), "pool");
        assert_eq!(part("pool.recover_1e6"), "pool");
    }

    #[test]
    fn an_unknown_part_is_refused_before_anything_is_built() {
        assert!(known("pool.attach").is_ok());
        assert!(known("lake").unwrap_err().contains("pool"));
    }

    #[test]
    fn the_parts_are_the_features_of_the_bench_workspace() {
        let manifest = include_str!("../../bench/Cargo.toml");
        for part in PARTS {
            assert!(manifest.contains(&format!("\n{part} = [")), "{part}");
        }
    }
}
