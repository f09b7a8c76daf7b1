//! A real systemd for one test: the script `xtask/rigs/systemd.sh`, held by its standard input.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    project::{self, Project},
};

/// After this long the rig ends by itself, and every wait on it gives up.
const LIMIT: Duration = Duration::from_secs(30);

/// The script's status for "this machine cannot do it".
const UNAVAILABLE: i32 = 69;

/// A running service manager. Dropping it takes everything down.
pub(super) struct Rig {
    script: Child,
    shown: String,
    /// Its process id as seen from here.
    manager: String,
    cgroup: PathBuf,
    deadline: Instant,
}

impl Rig {
    /// Why this machine cannot run one, if so.
    pub(super) fn obstacle(project: &Project) -> Result<Option<String>> {
        let mut check = script(project);
        check.arg("--check").stdin(Stdio::null());
        let shown = project::show(&check);
        let output =
            check.output().map_err(|source| Error::Start { command: shown.clone(), source })?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.code() {
            Some(0) => Ok(None),
            Some(UNAVAILABLE) => Ok(Some(said)),
            _ => Err(Error::Output { command: shown, complaint: format!("failed: {said}") }),
        }
    }

    /// Starts a manager that has the unit files in `work`.
    pub(super) fn start(project: &Project, work: &Path) -> Result<Self> {
        let mut command = script(project);
        command.arg(work).arg(LIMIT.as_secs().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let shown = project::show(&command);
        let cannot = |source| Error::Start { command: shown.clone(), source };
        let mut script = command.spawn().map_err(cannot)?;

        let mut line = String::new();
        if let Some(out) = script.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(cannot)?;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let (manager, cgroup) = match words[..] {
            ["UP", manager, cgroup] => (manager.to_owned(), PathBuf::from(cgroup)),
            _ => {
                let status = script.wait().map_err(cannot)?;
                let complaint = format!("did not bring the manager up ({status})");
                return Err(Error::Output { command: shown, complaint });
            }
        };
        Ok(Self { script, shown, manager, cgroup, deadline: Instant::now() + LIMIT })
    }

    /// Runs a command beside the manager and returns what it printed.
    pub(super) fn inside(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.manager]);
        command.args(["--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup"]);
        command.args(words).stdin(Stdio::null());
        let shown = project::show(&command);
        let output =
            command.output().map_err(|source| Error::Start { command: shown.clone(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Error::Output { command: shown, complaint: format!("failed: {}", said.trim()) })
    }

    /// Asks until there is an answer, or the rig's time is over.
    pub(super) fn wait_for<T>(
        &self,
        what: &str,
        mut ask: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        loop {
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            if Instant::now() > self.deadline {
                let complaint = format!("did not come to {what} within {LIMIT:?}");
                return Err(Error::Output { command: self.shown.clone(), complaint });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Takes it down and checks that nothing is left.
    pub(super) fn stop(mut self) -> Result<()> {
        let status =
            self.end().map_err(|source| Error::Start { command: self.shown.clone(), source })?;
        if !status.success() {
            return Err(Error::Command { command: self.shown.clone(), status });
        }
        let mut left = Vec::new();
        if self.cgroup.exists() {
            left.push(format!("control group {}", self.cgroup.display()));
        }
        if is_running_systemd(&self.manager) {
            left.push(format!("process {}", self.manager));
        }
        if left.is_empty() {
            return Ok(());
        }
        let complaint = format!("left behind: {}", left.join(", "));
        Err(Error::Output { command: self.shown.clone(), complaint })
    }

    /// The script takes all down when its standard input ends.
    fn end(&mut self) -> io::Result<ExitStatus> {
        drop(self.script.stdin.take());
        self.script.wait()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Reached with work to do only on the way out with an error, which is the one to report.
        let _ = self.end();
    }
}

fn script(project: &Project) -> Command {
    let mut command = Command::new("bash");
    command.arg(project.root().join("xtask/rigs/systemd.sh"));
    command
}

/// A dead process that its new parent has not collected yet has no command line.
fn is_running_systemd(pid: &str) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| String::from_utf8_lossy(&line).contains("--unit=rig.target"))
}
