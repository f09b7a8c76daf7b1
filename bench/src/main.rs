//! Mainstay beside its peers, measured in the same run.
//!
//! Method: [`method`] for what one thread does, [`windows`] for what several do at once. Each group
//! of figures is a file of its part; [`part`] lists them all.

// What the parts share is used by some of them only, and one can be built alone.
#![cfg_attr(
    not(all(
        feature = "channel",
        feature = "pool",
        feature = "sds",
        feature = "state",
        feature = "store",
        feature = "track"
    )),
    allow(dead_code)
)]

#[cfg(feature = "channel")]
mod channel;
mod child;
mod clock;
mod control;
#[cfg(any(feature = "pool", feature = "track"))]
mod lmdb;
mod machine;
mod method;
mod part;
#[cfg(feature = "pool")]
mod pool;
#[cfg(feature = "state")]
mod processors;
#[cfg(any(feature = "pool", feature = "state", feature = "store", feature = "track"))]
mod raw;
mod report;
mod role;
#[cfg(feature = "sds")]
mod sds;
#[cfg(feature = "state")]
mod state;
#[cfg(feature = "store")]
mod store;
#[cfg(feature = "track")]
mod track;
mod windows;

use std::process::ExitCode;

use clap::Parser;

use crate::machine::Machine;
use crate::method::Plan;
use crate::report::Report;

/// What every fallible step here returns.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Runs benchmarks side by side with peers: tables first, then one line a figure,
/// `RATIO <name> <value> <ours> <peer-name> <peers> <unit>`, where a value over 1 is ahead, and one
/// `VERDICT <name> <value> <peer-name> asked <ratio> met|MISSED` for each ratio that is promised.
#[derive(Parser)]
#[command(name = "mainstay-bench", version)]
struct Arguments {
    /// Figures to measure, by the beginning of their names: pool, pool.attach, pool.recover_1e6.
    /// All when none is named.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Fewer and shorter samples: all figures in under 45 seconds.
    #[arg(long)]
    quick: bool,
    /// Print one JSON document instead of tables and lines.
    #[arg(long)]
    json: bool,
    /// The part a child process plays; its arguments stand in place of the names.
    #[arg(long, hide = true)]
    role: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.role {
        Some(name) => match part::role(name) {
            Some(role) => role.play(&arguments.names),
            None => Err(format!("no child plays {name}").into()),
        },
        None => measure(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mainstay-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Outcome<()> {
    let groups = part::groups_named(&arguments.names)?;
    let scratch = machine::scratch()?;
    let machine = Machine::look(scratch.path());
    let plan = if arguments.quick { Plan::quick() } else { Plan::full() };
    if !arguments.json {
        println!("{}", machine.header());
    }
    let mut report = Report::new(machine, arguments.quick);
    for group in groups {
        if !arguments.json {
            eprintln!("measuring {} ...", group.figures[0]);
        }
        (group.measure)(&plan, scratch.path(), &mut report)?;
    }
    report.keep(|name| part::is_named(&arguments.names, name));
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    Ok(())
}
