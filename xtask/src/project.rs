//! Where the project is, and how programs are run in it.

use std::{
    env,
    ffi::OsStr,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    error::{Error, Result},
    metadata::Metadata,
};

/// The checkout this command was built from.
pub(crate) struct Project {
    root: PathBuf,
    target: PathBuf,
}

impl Project {
    /// Asks cargo where builds go (it knows of `CARGO_TARGET_DIR` and of configuration files).
    pub(crate) fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().unwrap_or(manifest).to_path_buf();
        let metadata = Metadata::of_manifest(&root.join("Cargo.toml"))?;
        Ok(Self { root, target: metadata.target_directory })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// A cargo command, to be run at the root of the project.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = cargo();
        command.args(args).current_dir(&self.root);
        command
    }

    /// Builds the crash suite, with the hooks compiled in, and returns its program. Hooked libraries have
    /// names of their own beside the plain ones, and what neither has to do with is built once.
    pub(crate) fn build_crash_suite(&self) -> Result<PathBuf> {
        run(&mut self.cargo(&[
            "build",
            "--release",
            "-p",
            "mainstay-crash",
            "--features",
            "hook",
        ]))?;
        Ok(self.target.join("release/mainstay-crash"))
    }
}

/// The cargo that runs this command, so that a toolchain chosen by `+name` is kept.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command to its end, showing its output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status =
        command.status().map_err(|source| Error::Start { command: shown.clone(), source })?;
    if status.success() { Ok(()) } else { Err(Error::Command { command: shown, status }) }
}

/// Which of its two outputs is looked at by [`run_and_watch`].
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Runs a command to its end, showing its output, and hands each line of `stream` to `see`.
pub(crate) fn run_and_watch(
    command: &mut Command,
    stream: Stream,
    mut see: impl FnMut(&str),
) -> Result<()> {
    let shown = show(command);
    let cannot_start = |source| Error::Start { command: shown.clone(), source };
    match stream {
        Stream::Out => command.stdout(Stdio::piped()),
        Stream::Err => command.stderr(Stdio::piped()),
    };
    let mut child = command.spawn().map_err(cannot_start)?;
    if let Some(pipe) = child.stdout.take() {
        pass_on(pipe, io::stdout(), &mut see);
    }
    if let Some(pipe) = child.stderr.take() {
        pass_on(pipe, io::stderr(), &mut see);
    }
    let status = child.wait().map_err(cannot_start)?;
    if status.success() { Ok(()) } else { Err(Error::Command { command: shown, status }) }
}

/// Copies lines as they come. The child must always be able to write, so a line that cannot be
/// shown (our own reader has gone) is dropped and reading goes on.
fn pass_on(pipe: impl io::Read, mut to: impl Write, see: &mut impl FnMut(&str)) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let _ = to.write_all(&line).and_then(|()| to.flush());
        see(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

/// The command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words: Vec<_> = std::iter::once(program)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .map(|word| if word.contains(' ') { format!("'{word}'") } else { word.into_owned() })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/usr/lib/toolchain/bin/cargo");
        command.args(["test", "--", "two words"]);
        assert_eq!(show(&command), "cargo test -- 'two words'");
    }

    #[test]
    fn a_failing_program_is_an_error_that_names_it() {
        let error = run(Command::new("sh").args(["-c", "exit 7"])).unwrap_err();
        assert!(error.to_string().contains("sh -c 'exit 7'"), "{error}");
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let error = run(&mut Command::new("no-such-program-anywhere")).unwrap_err();
        assert!(matches!(error, Error::Start { .. }), "{error}");
        assert!(error.to_string().contains("no-such-program-anywhere"), "{error}");
    }

    #[test]
    fn every_line_of_the_watched_stream_is_seen() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one >&2; echo not this; printf two >&2"]);
        run_and_watch(&mut command, Stream::Err, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two"]);
    }
}
