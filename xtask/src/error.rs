//! What can go wrong in a project command.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitCode, ExitStatus},
};

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a project command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error("cannot start `{command}`: {source}; check that it is installed and on PATH")]
    Start { command: String, source: io::Error },

    #[error("`{command}` failed ({status}); its own output above says why")]
    Command { command: String, status: ExitStatus },

    #[error("cannot {action} {}: {source}; check that it exists and who may access it", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },

    #[error("cannot read what `{command}` printed: {source}; run it by hand to see its output")]
    Metadata { command: String, source: serde_json::Error },

    #[error("`{command}` {complaint}; run it by hand to see what it does")]
    Output { command: String, complaint: String },

    #[error("{broken} broken rule(s) of the workspace, listed above; each says what to change")]
    Rules { broken: usize },

    #[error("{failed} of {steps} steps failed, see the table above")]
    Steps { failed: usize, steps: usize },

    #[error("{what} is missing; {remedy}")]
    Missing { what: String, remedy: String },
}

impl Error {
    /// The status to leave with: that of the program that failed where there is one, as a shell
    /// would report it, else 1.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let Self::Command { status, .. } = self else { return ExitCode::FAILURE };
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(raw: i32) -> Error {
        Error::Command { command: "x".into(), status: ExitStatus::from_raw(raw) }
    }

    #[test]
    fn the_status_of_the_failed_program_is_passed_on() {
        assert_eq!(format!("{:?}", ended(3 << 8).exit_code()), format!("{:?}", ExitCode::from(3)));
    }

    #[test]
    fn a_program_killed_by_a_signal_counts_as_128_and_the_signal() {
        assert_eq!(format!("{:?}", ended(9).exit_code()), format!("{:?}", ExitCode::from(137)));
    }
}
