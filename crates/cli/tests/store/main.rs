//! `mainstay store ...` from outside: the real program, real files, real processes.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

mod any;
mod damage;
mod moving;
mod records;
#[path = "../support/sandbox.rs"]
mod sandbox;

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
}
