//! `cargo xtask crash`: real processes, really killed.

use std::process::Command;

use crate::{
    error::Result,
    project::{self, Project},
};

/// Kill and freeze real processes in the middle of their work, and count what was lost
///
/// The last line is `CRASH <name> kills=<n> lost=<n> torn=<n> stuck=<n> leaked=<n>`, and the exit
/// status that of the suite. What follows the name is handed to the suite as it is:
///
///   --kills N      random kills, with survivors at work
///   --every-store  a kill, and a freeze, at every shared-memory store (for states: and load) of
///                  every operation
///   --planted      switch on one planted fault after the other; each has to be found
///   --seed S       repeat a run
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
#[command(override_usage = "cargo xtask crash [NAME] [ARGUMENT]...")]
#[command(after_help = "Examples:\n  \
    cargo xtask crash pool --kills 2000\n  \
    cargo xtask crash pool --every-store\n  \
    cargo xtask crash pool --planted --seed 7\n  \
    cargo xtask crash state --kills 2000\n  \
    cargo xtask crash state --every-store --pairs 20000\n  \
    cargo xtask crash store --kills 1000\n  \
    cargo xtask crash sds --every-store    messages, kept in a pool and in a store\n  \
    cargo xtask crash pool --help          what the suite itself has to say")]
pub(crate) struct Args {
    /// Which suite, then its arguments [default suite: pool]
    #[arg(value_name = "NAME", trailing_var_arg = true, allow_hyphen_values = true)]
    suite: Vec<String>,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<()> {
    let mut command = Command::new(project.build_crash_suite()?);
    command.args(with_name(&args.suite)).current_dir(project.root());
    project::run(&mut command)
}

/// `--kills 5` means `pool --kills 5`.
fn with_name(suite: &[String]) -> Vec<&str> {
    let named = suite.first().is_some_and(|first| !first.starts_with('-'));
    let default = (!named).then_some("pool");
    default.into_iter().chain(suite.iter().map(String::as_str)).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn suite(line: &[&str]) -> Vec<String> {
        let line = Line::parse_from([&["crash"], line].concat());
        with_name(&line.args.suite).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn everything_after_the_name_reaches_the_suite_as_it_is() {
        assert_eq!(suite(&["pool", "--kills", "5", "--help"]), ["pool", "--kills", "5", "--help"]);
    }

    #[test]
    fn without_a_name_the_pool_is_meant() {
        assert_eq!(suite(&[]), ["pool"]);
        assert_eq!(
            suite(&["--every-store", "--seed", "7"]),
            ["pool", "--every-store", "--seed", "7"]
        );
    }
}
