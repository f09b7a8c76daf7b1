//! `cargo xtask ci`: the gate in front of the main branch.

use std::process::Command;

use crate::{
    arrows,
    error::{Error, Result},
    project::{self, Project, Stream},
    report::{Outcome, Report},
    test,
};

/// Run everything the main branch requires: format, lints, arrows, docs, then `test`
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask ci\n  \
    cargo xtask ci --crash-kills 2000      a longer storm")]
pub(crate) struct Args {
    #[command(flatten)]
    test: test::Args,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<()> {
    let mut report = Report::new("CI");
    step(&mut report, "format", project.cargo(&["fmt", "--all", "--check"]));
    for folder in arrows::OWN_WORKSPACES {
        let manifest = format!("{folder}/Cargo.toml");
        let command = project.cargo(&["fmt", "--manifest-path", &manifest, "--check"]);
        step(&mut report, &format!("format, {folder}"), command);
    }
    // Tests and examples are looked at with all features.
    step(&mut report, "clippy", project.cargo(&["clippy", "--workspace", "--", "-D", "warnings"]));
    let mut command = project.cargo(&["clippy", "--all-targets"]);
    command.args(test::with_everything(true));
    command.args(["--features", "mainstay-crash/hook", "--", "-D", "warnings"]);
    step(&mut report, "clippy, all features", command);
    report.step("arrows", || {
        arrows::check(project.root())?;
        Ok(Outcome::Passed)
    });
    report.step("docs", || docs(project));
    test::steps(project, &args.test, &mut report);
    report.finish()
}

fn step(report: &mut Report, name: &str, mut command: Command) {
    report.step(name, || {
        project::run(&mut command)?;
        Ok(Outcome::Passed)
    });
}

/// `-D warnings` stops at rustdoc's own warnings; cargo has some as well (two crates that would
/// write the same page), and those are only printed.
fn docs(project: &Project) -> Result<Outcome> {
    let mut command = project.cargo(&["doc", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    let mut warnings = 0;
    project::run_and_watch(&mut command, Stream::Err, |line| {
        warnings += usize::from(line.starts_with("warning"));
    })?;
    if warnings == 0 {
        return Ok(Outcome::Passed);
    }
    let complaint = format!("printed {warnings} warning(s)");
    Err(Error::Output { command: project::show(&command), complaint })
}
