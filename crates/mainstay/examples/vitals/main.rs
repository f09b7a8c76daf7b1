//! This machine's vital signs, written by one process and read by four others, while the writer is
//! killed and replaced.
//!
//! ```text
//! cargo run --release -p mainstay --example vitals [-- --seconds N]
//! ```
//!
//! The last line is the verdict, `VITALS samples=<n> kills=1 torn=0 mixed=0 early=0 behind=0
//! left=0`, and the exit status 0 only if it is as it should be: no value was torn, no pair of
//! values mixed from two instants, no change of the limited view early, no reader behind at the
//! end, no state left when everybody had gone.

#![forbid(unsafe_code)]

mod show;

use std::{
    env,
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

use show::{Plan, Role, conduct, play};

const USAGE: &str = "usage: vitals [--seconds N]    N from 1 to 3600, 10 unless told otherwise";

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => run(10),
        ["--seconds", seconds] => match seconds.parse() {
            Ok(seconds @ 1..=3_600) => run(seconds),
            _ => Err(USAGE.into()),
        },
        // How this program starts the processes of the show.
        ["role", role, folder] => match Role::named(role) {
            Some(role) => play(role, Path::new(folder), false).map(|()| true),
            None => Err(USAGE.into()),
        },
        ["--help" | "-h"] => {
            println!("{USAGE}");
            Ok(true)
        }
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vitals: {error}");
            ExitCode::from(2)
        }
    }
}

/// The whole show; whether all was well.
fn run(seconds: u64) -> show::Result<bool> {
    let folder = show::folder()?;
    println!("While this runs, look at it from another terminal:");
    println!(
        "  MAINSTAY_DIR={} mainstay state watch vitals.cpu --max-rate 5",
        folder.path().display()
    );
    println!();
    let program = env::current_exe()?;
    let command = || {
        let mut command = Command::new(&program);
        command.arg("role");
        command
    };
    let plan = Plan {
        folder: folder.path(),
        length: Duration::from_secs(seconds),
        command: &command,
        one_by_one: false,
    };
    let outcome = conduct(&plan, &mut |line| {
        println!("{line}");
        Ok(())
    })?;
    println!();
    outcome.lines().iter().for_each(|line| println!("{line}"));
    println!("{}", outcome.last_line());
    Ok(outcome.is_well())
}
