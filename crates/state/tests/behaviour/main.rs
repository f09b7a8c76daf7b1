//! What a user of states would notice, one file a kind of behaviour.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

mod changes;
mod deletion;
mod forks;
mod format;
mod hooks;
mod hostile;
mod limits;
mod names;
mod permissions;
mod persistence;
mod processes;
mod publishing;
mod several;
mod sizes;
mod subscriptions;
mod system_calls;
mod transactions;
mod typed;
mod views;
mod waking;
mod worker;

use mainstay_state::Domain;
use std::path::Path;

/// A folder of states that is gone after the test.
struct Scratch {
    folder: tempfile::TempDir,
    domain: Domain,
}

impl Scratch {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let domain = Domain::open(folder.path().join("states")).unwrap();
        Self { folder, domain }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The names of files that belong to states: not the tables of the folder itself.
    fn state_files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.domain.folder()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != ".leases" && name != ".records").collect()
    }
}
