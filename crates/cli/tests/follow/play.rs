//! Real processes of `mainstay store`, in a folder of their own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn mainstay(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.current_dir(folder).args(["store", "--json"]).args(arguments);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

pub(crate) fn ok(folder: &Path, arguments: &[&str]) -> String {
    let output = mainstay(folder, arguments).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A process that is killed when it is dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// What it says after its first line; it is not read, and the pipe is not full before the end.
    pub(crate) said: Option<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn new(child: Child) -> Self {
        Self { child, said: None }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn write(&mut self, lines: &str) {
        self.child.stdin.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) const SECRET: &[&str] = &["--secret-file", "secret"];

/// Leads `store` at an address; port 0: at any.
pub(crate) fn serve(folder: &Path, store: &str, address: &str) -> (Running, String) {
    serve_over(folder, store, address, SECRET)
}

pub(crate) fn serve_over(
    folder: &Path,
    store: &str,
    address: &str,
    over: &[&str],
) -> (Running, String) {
    let arguments = [&["serve", store, address, "--node", "1", "--every", "100ms"], over].concat();
    let begun = Instant::now();
    loop {
        let mut command = mainstay(folder, &arguments);
        let mut leader =
            Running::new(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let mut said = BufReader::new(leader.child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        if let Ok(first) = serde_json::from_str::<Value>(&line) {
            leader.said = Some(said);
            return (leader, first["listening"].as_str().unwrap().to_owned());
        }
        // The port of one that was killed may be taken for a moment.
        assert!(begun.elapsed() < PATIENCE, "{store} cannot be served at {address}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Follows until nothing is missing; the last line that was said.
pub(crate) fn follow_until_equal(
    folder: &Path,
    store: &str,
    address: &str,
    more: &[&str],
) -> Value {
    let arguments = [&["follow", store, address, "--node", "2", "--until-equal"], more].concat();
    let child = mainstay(folder, &arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut follower = Running::new(child);
    let begun = Instant::now();
    while follower.child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "{store} is not equal to what {address} has");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(follower.child.wait().unwrap().success(), "{arguments:?}");
    let mut said = String::new();
    follower.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

pub(crate) fn records(folder: &Path, store: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        ok(folder, &["scan", store, "--limit", "0"]).lines().map(ToOwned::to_owned).collect();
    lines.sort();
    lines
}

pub(crate) fn sandbox() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), b"0123456789abcdef").unwrap();
    ok(folder.path(), &["create", "people", "--key-bytes", "8", "--value-bytes", "16"]);
    folder
}

/// Follows until it has so many records: what the leader is told on its input takes a moment.
pub(crate) fn follow_until(folder: &Path, store: &str, address: &str, count: usize) {
    let begun = Instant::now();
    loop {
        follow_until_equal(folder, store, address, SECRET);
        if records(folder, store).len() >= count {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{store} has not got {count} records");
    }
}

/// The files of a store's log, in order.
pub(crate) fn logs(folder: &Path, store: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder.join(store)).unwrap();
    let mut logs: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|end| end == "log"));
    logs.sort_unstable();
    logs
}
