//! `cargo xtask sim`: protocols in a world in which everything goes wrong, decided by a seed.

use std::{path::PathBuf, process::Command};

use crate::{
    error::Result,
    project::{self, Project},
};

/// Run seeded simulations of protocols
///
/// The last line is `SIM <name> seeds=<n> failed=<n>`, and the exit status says the same. A seed that
/// fails is printed with the command that replays it. What is typed is handed on as it is:
///
///   NAME           which scenario; without it, every one
///   --seeds A..B   the first and the last seed, both included; or one seed
///   --trace        print all that happens
///   --planted      plant one fault after the other; each has to be found
///   --list         which scenarios and planted faults there are
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
#[command(override_usage = "cargo xtask sim [NAME] [ARGUMENT]...")]
#[command(after_help = "Examples:\n  \
    cargo xtask sim                               every scenario, 200 seeds each\n  \
    cargo xtask sim register --seeds 1..2000      seeds 1 to 2000\n  \
    cargo xtask sim register --seeds 17 --trace   replay one seed\n  \
    cargo xtask sim register --planted            are the planted faults found?\n  \
    cargo xtask sim register --help               what the program itself has to say")]
pub(crate) struct Args {
    /// Which scenario, then its arguments [default: all]
    #[arg(value_name = "NAME", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<()> {
    let mut command = Command::new(build(project)?);
    command.args(&args.arguments).current_dir(project.root());
    project::run(&mut command)
}

/// Builds the scenarios, with optimisations, and returns their program.
pub(crate) fn build(project: &Project) -> Result<PathBuf> {
    project::run(&mut project.cargo(&["build", "--release", "-p", "mainstay-scenarios"]))?;
    Ok(project.target().join("release/mainstay-scenarios"))
}

/// What is wrong with a verdict `SIM <name> seeds=<n> failed=<n>` or `SIM <name> planted=<n>
/// found=<n>`.
///
/// The exit status says the same; a run that ends well without having run anything is what this
/// catches.
pub(crate) fn complaint(verdict: &str, seeds: u64) -> Option<String> {
    let figure = |name: &str| -> Option<u64> {
        let word = verdict.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word?.parse().ok()
    };
    if !verdict.starts_with("SIM ") {
        return Some(format!("ended without a verdict, its last line is `{verdict}`"));
    }
    match (figure("seeds"), figure("failed"), figure("planted"), figure("found")) {
        (Some(done), Some(0), None, None) if done >= seeds => None,
        (None, None, Some(planted), Some(found)) if planted > 0 && planted == found => None,
        _ => Some(format!("says `{verdict}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_verdict_passes() {
        assert_eq!(complaint("SIM all seeds=400 failed=0", 200), None);
        assert_eq!(complaint("SIM all planted=11 found=11", 0), None);
    }

    #[test]
    fn failures_missed_faults_and_too_few_seeds_do_not_pass() {
        for wrong in [
            "SIM all seeds=400 failed=1",
            "SIM all seeds=199 failed=0",
            "SIM all seeds=400",
            "SIM all planted=11 found=10",
            "SIM all planted=0 found=0",
            "all fine",
            "",
        ] {
            assert!(complaint(wrong, 200).is_some(), "{wrong}");
        }
    }
}
