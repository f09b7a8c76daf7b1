//! The store's figures: the same keys and values, the same durability, the same run.
//!
//! Records have 16-byte keys and values of 64 bytes, or of 256 where the name says so. There are
//! 10^6 of them, with `--quick` 250,000 (10^6 still for what has it in its name, and for memory).
//! Values of 4 and 64 KiB go through the log, some 100 MB of them.
//! Everything lies in a directory on a disk, and is removed when a group has been measured.

mod engines;
mod follow;
mod get;
mod large;
mod memory;
mod put;
mod reopen;

use std::path::Path;

use mainstay_base::Rng;

use self::engines::Engine;
use crate::Outcome;
use crate::method::Plan;
use crate::part::{Group, Part};
use crate::role::Role;

pub(crate) const PART: Part = Part { name: "store", groups: GROUPS, roles: ROLES };

const GROUPS: &[Group] = &[
    get::SMALL,
    get::LARGE,
    put::SMALL,
    put::LARGE,
    put::SINGLE,
    reopen::GROUP,
    memory::SMALL,
    memory::LARGE,
    large::PAGES,
    large::LARGE,
    follow::CATCH_UP,
    follow::DELIVERY,
    follow::RECONNECT,
];

const ROLES: &[Role] = &[reopen::FILL, memory::FILL];

/// Records of a run with all peers.
fn records(plan: &Plan) -> u64 {
    if plan.repetitions_heavy > crate::method::REPETITIONS_MIN { 1_000_000 } else { 250_000 }
}

/// All engines, filled.
fn filled<const V: usize>(directory: &Path, count: u64) -> Outcome<Vec<Box<dyn Engine>>> {
    let engines = engines::all::<V>(directory)?;
    for engine in &engines {
        engine.load(count)?;
        // What is done behind the scenes after a load is not part of any figure.
        engine.put_batch(1, count, &mut Rng::seeded(0))?;
    }
    Ok(engines)
}

/// A directory on a disk, even if the run's own is in memory.
fn on_a_disk(scratch: &Path) -> Outcome<tempfile::TempDir> {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let is_on_disk = |path: &Path| {
        rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 != TMPFS_MAGIC)
    };
    for place in [scratch, Path::new("/var/tmp"), Path::new("."), &std::env::temp_dir()] {
        if is_on_disk(place)
            && let Ok(folder) = tempfile::Builder::new().prefix("mainstay-bench-").tempdir_in(place)
        {
            return Ok(folder);
        }
    }
    Err("there is no folder on a disk: set TMPDIR to one".into())
}
