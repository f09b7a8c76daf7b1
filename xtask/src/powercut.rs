//! `cargo xtask powercut`: checkpoints on a real ext4, whose device is cut off.
//!
//! The suite `power` of the crash program does it; here is only how it is called, and what it means
//! when this machine cannot do it.

use std::process::Command;

use crate::{
    error::{Error, Result},
    project::{self, Project, Stream},
    report::Outcome,
};

/// Cut the power of a real ext4 under checkpoints, and look at what comes back
///
/// All writes and flushes of a block device are logged; of the log many power cuts are drawn, from
/// each the file system is mounted and the pool opened. A control, with a sync left out, has to be
/// found bad. Needs root, /dev/fuse, and Debian's packages qemu-system-common, e2fsprogs and mount;
/// without them it says so and ends with status 0.
#[derive(clap::Args)]
#[group(skip)]
#[command(after_help = "Examples:\n  cargo xtask powercut\n  cargo xtask powercut --images 500")]
pub(crate) struct Args {
    /// How many power cuts are tried
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<()> {
    // The suite has said itself why it was skipped.
    test_with(project, args).map(|_| ())
}

/// The step of `cargo xtask test`.
pub(crate) fn test(project: &Project) -> Result<Outcome> {
    test_with(project, &Args { images: 40 })
}

fn test_with(project: &Project, args: &Args) -> Result<Outcome> {
    let mut command = Command::new(project.build_crash_suite()?);
    command.args(["power", "--images", &args.images.to_string()]).current_dir(project.root());
    let (mut skipped, mut verdict) = (None, String::new());
    project::run_and_watch(&mut command, Stream::Out, |line| {
        if let Some(reason) = line.strip_prefix("POWER skipped: ") {
            skipped = Some(reason.to_owned());
        }
        line.clone_into(&mut verdict);
    })?;
    match skipped {
        Some(reason) => Ok(Outcome::Skipped(reason)),
        None if verdict.starts_with(&format!("CRASH power kills={} lost=0", args.images)) => {
            Ok(Outcome::Passed)
        }
        None => {
            let complaint = format!("ended with `{verdict}`");
            Err(Error::Output { command: project::show(&command), complaint })
        }
    }
}
