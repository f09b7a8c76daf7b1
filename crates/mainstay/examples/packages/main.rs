//! This machine's own package index as a replicated store: one process leads, two follow, one is cut
//! off, the leader is killed in the middle of an update, a follower takes over, and all three copies
//! are compared record by record.
//!
//! ```text
//! cargo run --release -p mainstay --example packages
//! ```
//!
//! Needs a Debian, or one of its descendants: the package lists that `apt-get update` fetches, or
//! else what dpkg has installed. The last line is the verdict, `PACKAGES records=<n> kills=1 lost=0
//! different=0 missing=0 ghosts=0`, and the exit status 0 only if it is as it should be: nothing is
//! lost that was acknowledged, and each copy has exactly the packages that it has to have.

#![forbid(unsafe_code)]

mod show;

use std::{
    env,
    path::Path,
    process::{Command, ExitCode},
};

use show::{Index, Plan, Role, conduct, play};

const USAGE: &str = "usage: packages    takes no arguments; see the head of its source";

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => run(false),
        // A fault on purpose, which has to be found.
        ["--plant", "ghosts"] => run(true),
        // How this program starts the processes of the show.
        ["role", role, folder, node, address] => match (Role::named(role), node.parse()) {
            (Some(role), Ok(node)) => play(role, Path::new(folder), node, address).map(|()| true),
            _ => Err(USAGE.into()),
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
            eprintln!("packages: {error}");
            ExitCode::from(2)
        }
    }
}

/// The whole show; whether all was well.
fn run(is_forgetful: bool) -> show::Result<bool> {
    let index = Index::read()?;
    if index.records.is_empty() {
        return Err("this machine has no package index of Debian: run `apt-get update` on one \
                    that is a Debian, and try again there"
            .into());
    }
    let (packages, files) = (index.records.len(), index.files);
    println!("{packages} packages from {files} files; {} names too long", index.left_out);
    let folder = show::folder()?;
    let program = env::current_exe()?;
    let command = || {
        let mut command = Command::new(&program);
        command.arg("role");
        command
    };
    let plan = Plan { folder: folder.path(), index: &index, command: &command, is_forgetful };
    let outcome = conduct(&plan, &mut |line| {
        println!("{line}");
        Ok(())
    })?;
    println!();
    outcome.lines().iter().for_each(|line| println!("{line}"));
    println!("{}", outcome.last_line());
    Ok(outcome.is_well())
}
