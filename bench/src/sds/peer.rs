//! `@waku/sds` from the npm registry, run by node as a child process of this one.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::Outcome;
use crate::clock::Span;

/// The version the vectors were made with.
const PACKAGE: &str = "@waku/sds@0.0.8";

/// A running peer; it ends when this is dropped.
pub(super) struct Peer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts the peer, installing it first if it is not there. What is missing is an error whose
    /// text says what.
    pub(super) fn start() -> Outcome<Peer> {
        let folder = folder();
        install(&folder)?;
        let script = folder.join("peer.mjs");
        std::fs::write(&script, include_str!("peer.mjs"))?;
        let mut process = Command::new("node")
            .arg(&script)
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let input = process.stdin.take().ok_or("node has no standard input")?;
        let output = process.stdout.take().ok_or("node has no standard output")?;
        Ok(Peer { process, input, output: BufReader::new(output) })
    }

    /// Has `count` operations done; the time of all together.
    pub(super) fn run(&mut self, order: &str, count: u64) -> Outcome<Span> {
        writeln!(self.input, "{order} {count}")?;
        loop {
            let line = self.line()?;
            let mut words = line.split_whitespace();
            if words.next() == Some("ns") {
                let mut number = || words.next().and_then(|word| word.parse::<f64>().ok());
                let (Some(wall_ns), Some(cpu_ns)) = (number(), number()) else {
                    return Err(format!("the peer says {line:?}").into());
                };
                return Ok(Span { wall_ns, cpu_ns });
            }
        }
    }

    /// The bytes of one message with its default parameters.
    pub(super) fn bytes_per_message(&mut self) -> Outcome<f64> {
        writeln!(self.input, "bytes 1")?;
        let mut bytes = None;
        loop {
            let line = self.line()?;
            match line.split_once(' ') {
                Some(("bytes", count)) => bytes = count.trim().parse().ok(),
                _ => return bytes.ok_or_else(|| "the peer did not say how many bytes".into()),
            }
        }
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(format!("node has ended ({})", self.process.wait()?).into());
        }
        Ok(line)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

/// Where the peer is installed: beside what cargo builds.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join("waku-sds")
}

fn install(folder: &Path) -> Outcome<()> {
    let there = folder.join("node_modules").join("@waku").join("sds").join("dist");
    let node = Command::new("node").arg("--version").output();
    if !node.is_ok_and(|output| output.status.success()) {
        return Err("node is not installed (Debian: apt-get install nodejs)".into());
    }
    if there.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    let npm = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--silent", "--prefix"])
        .arg(folder)
        .arg(PACKAGE)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match npm {
        Err(_) => Err("npm is not installed (Debian: apt-get install npm)".into()),
        Ok(status) if status.success() && there.is_dir() => Ok(()),
        Ok(status) => Err(format!("npm could not install {PACKAGE} ({status})").into()),
    }
}
