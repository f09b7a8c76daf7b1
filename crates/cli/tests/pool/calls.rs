//! A pool to try things out with.

use crate::sandbox::Sandbox;
use std::{fs, path::Path};

impl Sandbox {
    /// As an argument.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// One with a pool `calls` of so many parked blocks of 64 bytes.
    pub(crate) fn with_calls(blocks: u64) -> Self {
        let sandbox = Self::new();
        sandbox.ok(&["create", "calls", "--block-size", "64", "--growth-step", "64"]);
        if blocks > 0 {
            sandbox.ok(&["fill", "calls", "--blocks", &blocks.to_string()]);
        }
        sandbox
    }

    /// Numbers of the live blocks of `calls`.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let blocks = self.json_lines(&["show", "calls", "--limit", "0"]);
        blocks.iter().map(|block| block["number"].as_u64().unwrap()).collect()
    }
}

/// Every file of `paths` is, at the end, byte by byte what it is now.
pub(crate) fn unchanged(path: &Path, during: impl FnOnce()) {
    let before = fs::read(path).unwrap();
    during();
    assert!(fs::read(path).unwrap() == before, "{} was changed", path.display());
}
