//! The store's figures: the same keys and values, the same durability, the same run.
//!
//! Records have 16-byte keys and values of 64 bytes, or of 256 where the name says so. There are
//! 10^6 of them, with `--quick` 250,000 (10^6 still for what has it in its name, and for memory).
//! Values of 4 and 64 KiB go through the log, some 100 MB of them.
//! Everything lies in a directory on a disk, and is removed when a group has been measured.

mod encrypted;
mod engines;
mod follow;
mod get;
mod growth;
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
use crate::report::{Ratio, Report};
use crate::role::Role;

pub(crate) const PART: Part = Part { name: "store", groups: GROUPS, roles: ROLES };

const GROUPS: &[Group] = &[
    get::SMALL,
    get::LARGE,
    put::SMALL,
    put::LARGE,
    put::SINGLE,
    growth::GROUP,
    reopen::GROUP,
    memory::SMALL,
    memory::LARGE,
    large::PAGES,
    large::LARGE,
    encrypted::BATCHES,
    encrypted::VALUES,
    encrypted::OPENING,
    follow::CATCH_UP,
    follow::DELIVERY,
    follow::RECONNECT,
];

const ROLES: &[Role] = &[growth::GROW, reopen::FILL, reopen::FILL_LOG, reopen::OPEN, memory::FILL];

/// What is asked of a figure beside a peer; the first row that fits counts.
const ASKED: &[(&str, &str, f64)] = &[
    ("store.get", "armdb_fixed", 2.0),
    ("store.get", "armdb_log", 2.0),
    ("store.get", ANY, 1.0),
    ("store.get_256", "armdb_fixed", 2.0),
    ("store.get_256", "armdb_log", 2.0),
    ("store.get_256", ANY, 1.0),
    ("store.get_cold", ANY, 1.0),
    ("store.get_256_cold", ANY, 1.0),
    ("store.get_two_threads", ANY, 1.7),
    ("store.get_256_two_threads", ANY, 1.7),
    ("store.put_volatile", "armdb_fixed", 1.0),
    ("store.put_volatile", "armdb_log", 1.0),
    ("store.put_volatile", "lmdb", 5.0),
    ("store.put_volatile_256", "armdb_fixed", 1.0),
    ("store.put_volatile_256", "armdb_log", 1.0),
    ("store.put_volatile_256", "lmdb", 5.0),
    ("store.put_durable_batch", ANY, 1.0),
    ("store.put_durable_batch_256", ANY, 1.0),
    ("store.put_durable_single_growth", ANY, 3.0),
    ("store.reopen_1e6", ANY, 10.0),
    ("store.bytes_per_record_memory", ANY, 1.5),
    ("store.log_get_4k", ANY, 1.0),
    ("store.log_put_volatile_4k", ANY, 1.0),
    ("store.log_put_durable_batch_4k", ANY, 1.0),
    ("store.log_get_64k", ANY, 1.0),
    ("store.log_put_volatile_64k", ANY, 1.0),
    ("store.log_put_durable_batch_64k", ANY, 1.0),
    ("store.catchup_1e6", ANY, 5.0),
    ("store.reconnect_bytes", ANY, 1.0),
];

/// Every peer that has no row of its own.
const ANY: &str = "*";

/// Reports a ratio, with what is asked of it.
fn add(report: &mut Report, ratio: Ratio) {
    let fits = |row: &&(&str, &str, f64)| row.0 == ratio.name && [ANY, ratio.peer].contains(&row.1);
    match ASKED.iter().find(fits) {
        Some((_, _, asked)) => report.ask(ratio, *asked),
        None => report.ratios.push(ratio),
    }
}

/// Records of a run with all peers.
fn records(plan: &Plan) -> u64 {
    if plan.is_full() { 1_000_000 } else { 250_000 }
}

/// All engines, filled.
fn filled<const V: usize>(directory: &Path, count: u64) -> Outcome<Vec<Box<dyn Engine>>> {
    let engines = engines::all::<V>(directory)?;
    for engine in &engines {
        engine.load(count)?;
        // What is done behind the scenes after a load is not part of any figure.
        engine.put_batch(1, count, &mut Rng::seeded(0))?;
    }
    settle(directory)?;
    Ok(engines)
}

/// Waits until the disk has all that was written so far (M7 of [`crate::method`]).
fn settle(directory: &Path) -> Outcome<()> {
    Ok(rustix::fs::syncfs(std::fs::File::open(directory)?)?)
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
