//! `mainstay channel` from outside: what it prints, and with which status it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use serde_json::Value;

fn mainstay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.arg("channel").args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    mainstay(arguments).output().expect("the binary was built for this test")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A listener, and where it listens; ended when dropped.
struct Listener {
    process: Child,
    place: String,
    out: BufReader<ChildStdout>,
}

impl Listener {
    fn start(arguments: &[&str]) -> Self {
        let mut process = mainstay(&[&["--json", "ping"], arguments].concat())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let place = read(&mut out)["listening"].as_str().unwrap().to_owned();
        Self { process, place, out }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(out: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn secret(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_ping_over_tcp_comes_back_and_a_wrong_secret_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let right = secret(folder.path(), "right", "known to the members only");
    let wrong = secret(folder.path(), "wrong", "known to somebody else only");
    let mut listener =
        Listener::start(&["--listen", "127.0.0.1:0", "--node", "1", "--secret-file", &right]);
    let place = listener.place.clone();
    let ping = |secret: &str| {
        run(&[
            "--json",
            "ping",
            &place,
            "--node",
            "2",
            "--secret-file",
            secret,
            "--count",
            "3",
            "--interval",
            "1ms",
        ])
    };
    let output = ping(&right);
    assert!(output.status.success(), "{}", said(&output));
    let lines = lines(&output);
    assert_eq!(lines.len(), 4);
    assert_eq!((lines[0]["number"].as_u64(), lines[0]["bytes"].as_u64()), (Some(1), Some(64)));
    assert_eq!((lines[3]["sent"].as_u64(), lines[3]["received"].as_u64()), (Some(3), Some(3)));
    assert!(lines[3]["rtt_max_ns"].as_u64() >= lines[3]["rtt_p50_ns"].as_u64());
    assert_eq!(read(&mut listener.out)["node"], 2);

    let output = ping(&wrong);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("give both ends the same secret"), "{}", said(&output));
    assert!(ping(&right).status.success(), "members are still served");
}

#[test]
fn a_ping_through_shared_memory_comes_back_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.channel");
    let path = path.to_str().unwrap();
    let mut listener = Listener::start(&["--listen", path, "--over", "shm", "--node", "1"]);
    let output =
        run(&["ping", path, "--over", "shm", "--node", "2", "--count", "2", "--interval", "1ms"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("2 of 2 came back"));
    assert!(listener.process.wait().unwrap().success(), "it ends when its visitor has left");
    assert!(!Path::new(path).exists());
}

#[test]
fn what_is_missing_is_named_and_ends_with_status_2() {
    let output = run(&["ping", "127.0.0.1:1", "--node", "2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--secret-file"), "{}", said(&output));
    let output = run(&["ping", "127.0.0.1:1", "--node", "2", "--over", "tls"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--certs"), "{}", said(&output));
}

#[test]
fn nobody_at_the_address_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret(folder.path(), "secret", "known to the members only");
    let output = run(&["ping", "127.0.0.1:1", "--node", "2", "--secret-file", &secret]);
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(said.contains("127.0.0.1:1") && said.contains("check that the peer"), "{said}");
}

#[test]
fn a_benchmark_counts_and_its_percentiles_are_in_order() {
    for over in ["memory", "shm", "tcp"] {
        let output = run(&["bench", "--over", over, "--time", "100ms", "--json"]);
        assert!(output.status.success(), "{over}: {}", said(&output));
        let report = &lines(&output)[0];
        assert_eq!(report["over"], over);
        let figure = |name: &str| report[name].as_u64().unwrap();
        assert!(figure("round_trips") > 10 && figure("messages_per_second") > 100, "{report}");
        let names = ["rtt_p50_ns", "rtt_p90_ns", "rtt_p99_ns", "rtt_p999_ns", "rtt_max_ns"];
        assert!(names.map(figure).is_sorted(), "{report}");
    }
}

#[cfg(not(feature = "tls"))]
#[test]
fn a_build_without_tls_says_how_to_get_one() {
    for arguments in [&["cert", "certs", "--node", "1"][..], &["bench", "--over", "quic"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("--features tls"), "{}", said(&output));
    }
}

#[cfg(feature = "tls")]
#[test]
fn certificates_that_were_made_work_for_their_node_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().join("certs");
    let certs = certs.to_str().unwrap();
    for nodes in [&["--node", "1", "--node", "2"][..], &["--node", "3"]] {
        let output = run(&[&["cert", certs], nodes].concat());
        assert!(output.status.success(), "{}", said(&output));
    }
    // Never over what is there.
    assert_eq!(run(&["cert", certs, "--node", "3"]).status.code(), Some(1));
    use std::os::unix::fs::PermissionsExt;
    let mode = |name: &str| {
        std::fs::metadata(Path::new(certs).join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("ca.key"), mode("node-1.key"), mode("node-1.pem")), (0o600, 0o600, 0o644));
    for over in ["tls", "quic"] {
        let listener = Listener::start(&[
            "--listen",
            "127.0.0.1:0",
            "--node",
            "1",
            "--over",
            over,
            "--certs",
            certs,
        ]);
        let output = run(&[
            "ping",
            &listener.place,
            "--node",
            "3",
            "--over",
            over,
            "--certs",
            certs,
            "--count",
            "1",
        ]);
        assert!(output.status.success(), "{over}: {}", said(&output));
    }
}
