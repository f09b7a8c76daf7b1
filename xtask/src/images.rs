//! `cargo xtask images`: every disk that a power cut could leave of a store, opened and judged.
//!
//! The tests of mainstay-store do it, and cargo hides what a test says that passes; here is shown
//! how many disks they opened.

use std::ffi::OsStr;

use crate::{
    error::{Error, Result},
    project::{self, Project, Stream},
    report::Outcome,
};

/// What the names of these tests have, and no others.
pub(crate) const TESTS: &str = "after_any_power_cut";
/// Both kinds of store, each with plain files, with encrypted ones, and with batches across shards; and
/// a replica's, while it takes its leader's history and while it marks what is durable.
const HISTORIES: usize = 8;

/// Open stores from disks as a power cut could leave them, and count what is lost, torn or made up
///
/// Histories of writes, images, compactions and faults of the disk are run on a simulated one; at each
/// call the power is cut with what was not synced lost, torn, reordered or misdirected. From each of
/// these disks a store is opened: each shard has to have every synced write, and of the others the
/// first few in their order. The last line is `IMAGES opened=<n> wrong=<n>`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cargo xtask images")]
pub(crate) struct Args {}

pub(crate) fn run(project: &Project, _: &Args) -> Result<()> {
    test(project, &["-p", "mainstay-store", "--features", "mainstay-store/encryption"]).map(|_| ())
}

/// The step of `cargo xtask test`. `packages` are the arguments of cargo that say which are built,
/// and with which features.
pub(crate) fn test(project: &Project, packages: &[impl AsRef<OsStr>]) -> Result<Outcome> {
    let mut command = project.cargo(&["test", "--lib"]);
    command.args(packages).args(["--", TESTS, "--nocapture"]);
    let mut opened = Vec::new();
    project::run_and_watch(&mut command, Stream::Out, |line| opened.extend(images(line)))?;
    println!("IMAGES opened={} wrong=0", opened.iter().sum::<u64>());
    if opened.len() == HISTORIES {
        return Ok(Outcome::Passed);
    }
    let complaint = format!("{} histories ran instead of {HISTORIES}", opened.len());
    Err(Error::Output { command: project::show(&command), complaint })
}

/// Of a line as `opened 28123 disks ...`.
fn images(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("opened ")?;
    let (count, what) = rest.split_once(' ')?;
    what.contains("disks").then(|| count.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_many_is_in_a_line_of_a_test_and_in_no_other() {
        assert_eq!(images("opened 28123 disks after a power cut"), Some(28_123));
        // The name of the test can be on the same line.
        assert_eq!(images("test a ... opened 7 encrypted disks, 1 freed"), Some(7));
        assert_eq!(images("opened 12 files"), None);
        assert_eq!(images("test a1_after_any_power_cut ... ok"), None);
    }
}
