//! `mainstay store ...` from outside: the real program, real files, real processes.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

mod any;
mod backup;
mod damage;
mod encrypted;
mod ending;
mod interrupted;
mod limits;
mod moving;
mod records;
#[path = "../support/sandbox.rs"]
mod sandbox;

use std::{fs, path::PathBuf};

/// What the commands are about.
const NOUN: &str = "store";

impl sandbox::Sandbox {
    /// A sandbox with an empty store `people`: keys of 8 bytes, values of 16.
    pub(crate) fn with_people() -> Self {
        let sandbox = Self::new();
        sandbox.ok(&[
            "create",
            "people",
            "--key-bytes",
            "8",
            "--value-bytes",
            "16",
            "--segment",
            "16KiB",
        ]);
        sandbox
    }

    /// The first file of a store with this ending.
    pub(crate) fn file(&self, store: &str, end: &str) -> PathBuf {
        let entries = fs::read_dir(self.path(store)).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.to_str().unwrap().ends_with(end));
        paths.sort();
        paths.swap_remove(0)
    }

    /// Turns a bit of it, and returns its name.
    pub(crate) fn flip(&self, store: &str, end: &str, at: usize) -> PathBuf {
        let path = self.file(store, end);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        path
    }
}
