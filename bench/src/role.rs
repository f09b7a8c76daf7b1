//! The parts that child processes play.

use crate::{Outcome, child};

/// What a child was started for.
pub(crate) struct Role {
    /// `part:role`, as it stands on the child's command line.
    pub(crate) name: &'static str,
    /// Runs in the child, with the arguments it was started with.
    pub(crate) run: fn(&[String]) -> Outcome<()>,
}

impl Role {
    /// Runs in the child.
    pub(crate) fn play(&self, arguments: &[String]) -> Outcome<()> {
        child::die_with_parent()?;
        (self.run)(arguments)
    }
}
