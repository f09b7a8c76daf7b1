//! What can go wrong with the demo itself (faults of the pool are not errors, they are counted).

use std::error::Error;

/// Why the demo could not be carried through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum DemoError {
    /// The system or the pool refused something.
    #[error("cannot {action}: {source}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// Who refused says why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A process of the demo ended that should not have.
    #[error("the {role} ended by itself; what it wrote to standard error says why")]
    Ended {
        /// Which one.
        role: &'static str,
    },
    /// A process of the demo said nothing for too long.
    #[error(
        "the {role} said nothing for {seconds} s: it is stuck, or this machine is far too busy; run \
         the demo again, and report it if it happens twice"
    )]
    Silent {
        /// Which one.
        role: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// A process of the demo got a command that it does not know.
    #[error("unexpected command {command:?}; `demo-role` is started by `mainstay demo` only")]
    Command {
        /// What came.
        command: Option<char>,
    },
    /// A fault was asked for and there was no record to do it to.
    #[error("no record was acknowledged yet: nothing to plant a fault in")]
    NothingToPlant,
}

impl DemoError {
    /// Whether the one at the other end of a pipe has gone.
    pub(super) fn is_broken_pipe(&self) -> bool {
        let Self::Refused { source, .. } = self else { return false };
        source
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// Adds what was tried to an error.
pub(super) trait Trying<T> {
    /// "cannot `action`: ..."
    fn trying(self, action: &'static str) -> Result<T, DemoError>;
}

impl<T, E: Error + Send + Sync + 'static> Trying<T> for Result<T, E> {
    fn trying(self, action: &'static str) -> Result<T, DemoError> {
        self.map_err(|source| DemoError::Refused { action, source: Box::new(source) })
    }
}
