//! The program behind `cargo xtask sim`: protocols in the seeded world, many seeds at a time.
//!
//! | part | what it does |
//! |---|---|
//! | [`registry`] | which scenarios there are, and which faults are planted in each |
//! | [`channel`] | channels over faulty streams, with misfits and strangers |
//! | [`register`] | the simulator's own example: a register on several nodes |
//! | [`sds`] | groups over a lossy broadcast |
//! | [`runner`] | runs seeds over threads, and catches panics |
//! | [`seeds`], [`progress`] | what is typed, and what is shown meanwhile |
//!
//! To add a scenario: a file with a `SCENARIO`, and a line in the registry. The guide
//! (`docs/guide/simulator.md`) goes through one.

#![forbid(unsafe_code)]

mod channel;
mod progress;
mod register;
mod registry;
mod runner;
mod sds;
mod seeds;
mod stream;

use clap::Parser;
use registry::{Planted, SCENARIOS, Scenario};
use runner::{Batch, Failure};
use seeds::Seeds;
use std::{num::NonZero, process::ExitCode, thread, time::Instant};

/// Run seeded simulations of protocols: everything goes wrong, and nothing may
///
/// A seed decides all of a run: which faults there are, when, and what clients do. A seed that fails
/// is printed with the command that replays it. The last line is `SIM <name> seeds=<n> failed=<n>`,
/// with --planted `SIM <name> planted=<n> found=<n>`; the exit status is 0 only if all is well.
#[derive(Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim", max_term_width = 100)]
#[command(after_help = "Examples:\n  \
    cargo xtask sim                               every scenario, 200 seeds each\n  \
    cargo xtask sim register --seeds 1..2000      seeds 1 to 2000\n  \
    cargo xtask sim register --seeds 17 --trace   one seed, with all that happens\n  \
    cargo xtask sim register --planted            plant each fault, and find it\n  \
    cargo xtask sim --list                        which scenarios there are")]
struct Cli {
    /// Which scenario [default: all]
    name: Option<String>,
    /// The first and the last seed, both included; or one seed
    #[arg(long, value_name = "A..B")]
    seeds: Option<Seeds>,
    /// Print all that happens, line by line
    #[arg(long)]
    trace: bool,
    /// Plant one fault after the other; each has to be found
    #[arg(long, value_name = "FAULT", num_args = 0..=1, default_missing_value = "all")]
    planted: Option<String>,
    /// How many threads [default: as many as there are processors]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    /// List the scenarios and their planted faults
    #[arg(long)]
    list: bool,
}

/// Without --seeds.
const SEEDS: Seeds = Seeds { first: 1, last: 200 };
/// A planted fault is looked for in so many seeds.
const SEEDS_FOR_A_FAULT: Seeds = Seeds { first: 1, last: 20_000 };

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.list {
        list();
        return ExitCode::SUCCESS;
    }
    let name = cli.name.as_deref().unwrap_or("all");
    let chosen: Vec<_> =
        SCENARIOS.iter().filter(|scenario| name == "all" || scenario.name == name).collect();
    if chosen.is_empty() {
        eprintln!("error: there is no scenario `{name}`; `cargo xtask sim --list` lists them");
        return ExitCode::from(2);
    }
    let all_well = match &cli.planted {
        Some(fault) if cli.trace => show_planted(&cli, &chosen, fault),
        Some(fault) => find_planted(&cli, name, &chosen, fault),
        None => run(&cli, name, &chosen),
    };
    if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn list() {
    for scenario in SCENARIOS {
        println!("{}: {}", scenario.name, scenario.about);
        for Planted { name, breaks } in scenario.planted {
            println!("    --planted {name:22} {breaks}");
        }
    }
}

fn threads(cli: &Cli) -> usize {
    let all = || thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    // Lines of several worlds would make one story of many.
    if cli.trace { 1 } else { cli.threads.unwrap_or_else(all).get() }
}

fn run(cli: &Cli, name: &str, chosen: &[&Scenario]) -> bool {
    let seeds = cli.seeds.unwrap_or(SEEDS);
    let (mut done, mut failed) = (0, 0);
    for scenario in chosen {
        let started = Instant::now();
        let batch = Batch { scenario, planted: None, trace: cli.trace, threads: threads(cli) };
        let result = batch.run(seeds, false, |Failure { seed, what, .. }| {
            println!("{} seed {seed} failed: {what}", scenario.name);
            println!("    replay it: cargo xtask sim {} --seeds {seed} --trace", scenario.name);
        });
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{}: {} seeds in {seconds:.1} s, {:.1} million events ({:.1} million a second), {:.1} \
             hours of virtual time, {} {}",
            scenario.name,
            result.seeds,
            result.events as f64 / 1e6,
            result.events as f64 / 1e6 / seconds,
            result.simulated.as_secs_f64() / 3_600.0,
            result.worked,
            scenario.work,
        );
        if let (1, Some(hash)) = (result.seeds, result.trace_hash) {
            println!("{}: trace {hash:016x}", scenario.name);
        }
        done += result.seeds;
        failed += result.failed;
    }
    println!("SIM {name} seeds={done} failed={failed}");
    failed == 0 && done > 0
}

/// Replays one planted fault, line by line.
fn show_planted(cli: &Cli, chosen: &[&Scenario], fault: &str) -> bool {
    let hunted: Vec<_> = hunted(chosen, fault);
    let [(scenario, planted)] = hunted[..] else {
        eprintln!("error: with --trace, name one scenario and one planted fault; see --list");
        return false;
    };
    let batch = Batch { scenario, planted: Some(planted.name), trace: true, threads: 1 };
    let seeds = cli.seeds.unwrap_or(SEEDS);
    let result = batch.run(seeds, true, |Failure { seed, what, .. }| {
        println!("{} seed {seed} failed, as it should: {what}", scenario.name);
    });
    println!("SIM {} planted=1 found={}", scenario.name, u64::from(result.failed > 0));
    result.failed > 0
}

fn hunted<'a>(chosen: &[&'a Scenario], fault: &str) -> Vec<(&'a Scenario, &'a Planted)> {
    let all = chosen.iter().flat_map(|scenario| scenario.planted.iter().map(|p| (*scenario, p)));
    all.filter(|(_, planted)| fault == "all" || planted.name == fault).collect()
}

fn find_planted(cli: &Cli, name: &str, chosen: &[&Scenario], fault: &str) -> bool {
    let hunted = hunted(chosen, fault);
    if hunted.is_empty() {
        eprintln!("error: no fault `{fault}` is planted there; `--list` lists them");
        return false;
    }
    let seeds = cli.seeds.unwrap_or(SEEDS_FOR_A_FAULT);
    let mut found = 0;
    for (scenario, planted) in &hunted {
        let batch =
            Batch { scenario, planted: Some(planted.name), trace: false, threads: threads(cli) };
        let verdict = match batch.find(seeds) {
            Some(failure) if batch.replays(&failure) => {
                found += 1;
                format!("seed {}: {}", failure.seed, failure.what)
            }
            Some(failure) => {
                format!("NOT THE SAME TWICE: seed {}: {}", failure.seed, failure.what)
            }
            None => format!("NOT FOUND in {} seeds", seeds.count()),
        };
        println!("{} {:22} {:48} {verdict}", scenario.name, planted.name, planted.breaks);
    }
    println!("SIM {name} planted={} found={found}", hunted.len());
    found == hunted.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_fault_may_be_named_or_all_be_meant() {
        let planted = |line: &[&str]| Cli::parse_from([&["sim"], line].concat()).planted;
        assert_eq!(planted(&["register"]), None);
        assert_eq!(planted(&["register", "--planted"]).as_deref(), Some("all"));
        assert_eq!(planted(&["--planted", "never-syncs"]).as_deref(), Some("never-syncs"));
    }
}
