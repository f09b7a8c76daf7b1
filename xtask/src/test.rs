//! `cargo xtask test`: everything a change has to pass, in the time of a coffee.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{
    error::{Error, Result},
    images, interop, netns, powercut,
    project::{self, Project, Stream},
    report::{Outcome, Report},
    sim, systemd,
};

/// Run all tests: unit and doc tests, interoperability, crash suites, simulations, real rigs
///
/// Needs a Rust toolchain only; what this machine cannot do is skipped, and the table at the end
/// says why. Every step runs even if one before it failed.
#[derive(clap::Args)]
// `ci` takes these arguments too, and clap wants its groups to differ in name.
#[group(skip)]
#[command(after_help = "Examples:\n  \
    cargo xtask test\n  \
    cargo xtask test --crash-kills 2000    a longer storm\n  \
    cargo xtask test --sim-seeds 2000      more seeds for each simulation")]
pub(crate) struct Args {
    /// How many processes the crash suite kills at random
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    crash_kills: u64,
    /// How many seeds each simulation runs
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    sim_seeds: u64,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<()> {
    let mut report = Report::new("TEST");
    steps(project, args, &mut report);
    report.finish()
}

/// The steps themselves: `ci` runs exactly these.
pub(crate) fn steps(project: &Project, args: &Args, report: &mut Report) {
    let without_dbus = without_dbus();
    report.step("cargo test --workspace", || {
        let mut command = project.cargo(&["test", "--no-fail-fast"]);
        command.args(with_everything(without_dbus.is_none()));
        // They have a step of their own, which shows what they say.
        command.args(["--", "--skip", images::TESTS]);
        project::run(&mut command)?;
        Ok(Outcome::Passed)
    });
    report.step("disks after power cuts", || {
        images::test(project, &with_everything(without_dbus.is_none()))
    });
    if let Some(reason) = &without_dbus {
        report.step("D-Bus", || Ok(Outcome::Skipped(reason.clone())));
    }
    // What a program says that was built without them.
    report.step("cargo test, default features", || {
        let args = [
            "test",
            "-p",
            "mainstay-cli",
            "--test",
            "channel",
            "--test",
            "sds",
            "--test",
            "state",
            "without",
        ];
        project::run(&mut project.cargo(&args))?;
        Ok(Outcome::Passed)
    });
    report.step("interop with @waku/sds", || {
        interop::test(project, &with_everything(without_dbus.is_none()))
    });
    let kills = args.crash_kills.to_string();
    crash(project, report, &["pool", "--kills", &kills], args.crash_kills);
    // Some hundred stop points, each killed and frozen.
    crash(project, report, &["pool", "--every-store"], 500);
    // Its own verdict is whether each planted fault was found; it kills nobody by count.
    crash(project, report, &["pool", "--planted"], 0);
    crash(project, report, &["state", "--kills", &kills], args.crash_kills);
    crash(project, report, &["state", "--every-store"], 500);
    crash(project, report, &["state", "--planted"], 0);
    let seeds = args.sim_seeds.to_string();
    let to_last = format!("1..{seeds}");
    simulate(project, report, &["--seeds", &to_last], args.sim_seeds);
    simulate(project, report, &["--planted"], 0);
    crash(project, report, &["track", "--kills", &kills], args.crash_kills);
    crash(project, report, &["track", "--planted"], 0);
    crash(project, report, &["store", "--kills", &kills], args.crash_kills);
    // Each of these starts with an opening that reads, and ends segments by syncs: slower.
    let any = (args.crash_kills / 5).to_string();
    crash(project, report, &["store", "--values", "any", "--kills", &any], args.crash_kills / 5);
    crash(project, report, &["store", "--planted"], 0);
    crash(project, report, &["sds", "--kills", &kills], args.crash_kills);
    crash(project, report, &["sds", "--every-store"], 500);
    crash(project, report, &["sds", "--planted"], 0);
    report.step("systemd rig", || systemd::test(project));
    report.step("power cuts on a real ext4", || powercut::test(project));
    report.step("network namespaces", || {
        netns::test(project, &with_everything(without_dbus.is_none()))
    });
}

/// What a default build leaves out.
const FEATURES: &str = "mainstay-cli/gossipsub,mainstay-cli/tls,mainstay-replica/metrics,\
                        mainstay-sds/gossipsub,mainstay-store/serde";
const DBUS: &str = "mainstay-cli/dbus,mainstay-state/dbus";

/// The arguments of cargo for all there is. Steps that build with the same ones share what they
/// build: a crate with other features is another one, with all that stands on it.
pub(crate) fn with_everything(with_dbus: bool) -> [String; 3] {
    let features = if with_dbus { format!("{FEATURES},{DBUS}") } else { FEATURES.to_owned() };
    ["--workspace".to_owned(), "--features".to_owned(), features]
}

/// Why there is no bus to test with, if so.
fn without_dbus() -> Option<String> {
    let missing = ["dbus-daemon", "dbus-send"].into_iter().find(|program| {
        let quiet = Stdio::null;
        let started =
            Command::new(program).arg("--version").stdout(quiet()).stderr(quiet()).status();
        started.is_err()
    });
    missing.map(|program| format!("there is no {program}; install the package dbus"))
}

fn crash(project: &Project, report: &mut Report, args: &[&str], kills: u64) {
    report.step(&format!("crash {}", args.join(" ")), || run_crash(project, args, kills));
}

fn run_crash(project: &Project, args: &[&str], kills: u64) -> Result<Outcome> {
    judge(project, project.build_crash_suite()?, args, |verdict| complaint(verdict, kills))
}

fn simulate(project: &Project, report: &mut Report, args: &[&str], seeds: u64) {
    report.step(&format!("sim {}", args.join(" ")), || {
        judge(project, sim::build(project)?, args, |verdict| sim::complaint(verdict, seeds))
    });
}

/// Runs a program, and judges it by its last line.
fn judge(
    project: &Project,
    program: PathBuf,
    args: &[&str],
    complaint: impl FnOnce(&str) -> Option<String>,
) -> Result<Outcome> {
    let mut command = Command::new(program);
    command.args(args).current_dir(project.root());
    let mut last = String::new();
    project::run_and_watch(&mut command, Stream::Out, |line| {
        if !line.is_empty() {
            line.clone_into(&mut last);
        }
    })?;
    match complaint(&last) {
        None => Ok(Outcome::Passed),
        Some(complaint) => Err(Error::Output { command: project::show(&command), complaint }),
    }
}

/// What is wrong with a verdict `CRASH <name> kills=<n> lost=<n> torn=<n> stuck=<n> leaked=<n>`.
///
/// The exit status says the same; a suite that ends well without having killed anyone is what
/// this catches.
fn complaint(verdict: &str, kills: u64) -> Option<String> {
    let figure = |name: &str| -> Option<u64> {
        let word = verdict.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word?.parse().ok()
    };
    if !verdict.starts_with("CRASH ") {
        return Some(format!("ended without a verdict, its last line is `{verdict}`"));
    }
    match figure("kills") {
        Some(done) if done >= kills => {}
        _ => return Some(format!("was asked for {kills} kills and says `{verdict}`")),
    }
    let faults = ["lost", "torn", "stuck", "leaked"];
    let clean = faults.iter().all(|fault| figure(fault) == Some(0));
    (!clean).then(|| format!("found faults: `{verdict}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_verdict_passes() {
        let verdict = "CRASH pool kills=60 lost=0 torn=0 stuck=0 leaked=0";
        assert_eq!(complaint(verdict, 60), None);
    }

    #[test]
    fn a_verdict_with_any_fault_fails() {
        for fault in ["lost", "torn", "stuck", "leaked"] {
            let clean = "CRASH pool kills=60 lost=0 torn=0 stuck=0 leaked=0";
            let verdict = clean.replace(&format!("{fault}=0"), &format!("{fault}=2"));
            assert!(complaint(&verdict, 60).is_some(), "{verdict}");
        }
    }

    #[test]
    fn a_verdict_that_lacks_a_figure_fails() {
        assert!(complaint("CRASH pool kills=60 lost=0 torn=0 stuck=0", 60).is_some());
    }

    #[test]
    fn a_suite_that_killed_too_few_fails() {
        let verdict = "CRASH pool kills=59 lost=0 torn=0 stuck=0 leaked=0";
        assert!(complaint(verdict, 60).is_some());
    }

    #[test]
    fn a_suite_without_a_verdict_fails() {
        assert!(complaint("", 60).is_some());
        assert!(complaint("all fine", 60).is_some());
    }
}
