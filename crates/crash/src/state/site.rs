//! What both halves of the suite make their states with.

use super::contents::SIZE;
use crate::{
    finding::{Check, Finding},
    verdict::Harm::{Stuck, Torn},
};
use mainstay_state::{Error, StateOptions};
use std::{
    fs::File,
    path::Path,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

/// Where memory is a file system, if it is there.
const MEMORY: &str = "/dev/shm";

/// A folder for states, gone with the value.
pub(crate) fn folder() -> Check<TempDir> {
    let made = if Path::new(MEMORY).is_dir() {
        tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir())
    } else {
        tempfile::tempdir()
    };
    made.map_err(|e| Finding {
        harm: Stuck,
        what: format!("no folder for states: {e}; set TMPDIR to one that can be written"),
    })
}

/// How the tests make a state: with so few slots that each is used again soon.
pub(crate) fn options(slots: u32) -> StateOptions {
    StateOptions::new().size(SIZE).slots(slots).slots_max(slots)
}

/// A survivor's operation is refused: nothing in the suite gives reason for that.
impl From<Error> for Finding {
    fn from(error: Error) -> Self {
        let harm = if matches!(error, Error::Corrupt { .. }) { Torn } else { Stuck };
        Self { harm, what: format!("a survivor was refused: {error}") }
    }
}

/// Makes all files of a folder older than they are. A pin table gets its name before its state, so
/// one without a state is only removed some seconds after.
pub(crate) fn age(folder: &Path) {
    let past = SystemTime::now() - Duration::from_secs(60);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // One that has gone meanwhile need not be aged.
        let _ = File::options().write(true).open(entry.path()).and_then(|f| f.set_modified(past));
    }
}

/// What a folder holds, by name; the two tables that every folder has are left out.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> =
        names.filter(|name| ![".leases", ".records"].contains(&name.as_str())).collect();
    names.sort_unstable();
    names
}
