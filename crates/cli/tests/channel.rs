//! `mainstay channel` from outside: what it prints, and with which status it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
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

fn send(signal: Signal, to: &Child) {
    kill_process(Pid::from_child(to), signal).unwrap();
}

/// Stops it, and returns when none of its threads runs any more: one that does may still answer.
fn stop(process: &Child) {
    send(Signal::STOP, process);
    let tasks = format!("/proc/{}/task", process.id());
    // The state is behind the name, which is in parentheses.
    let is_stopped = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap();
        stat.rsplit_once(')').is_some_and(|(_, state)| state.starts_with(" T"))
    };
    let start = Instant::now();
    while !std::fs::read_dir(&tasks).unwrap().all(|task| is_stopped(task.unwrap())) {
        assert!(start.elapsed() < SOON, "it does not stop");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The status with which it ends, and within this time it must.
fn status_within(process: &mut Child, time: Duration) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status.code();
        }
        assert!(start.elapsed() < time, "it has not ended after {time:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Long enough on a busy machine, and far less than what the pings below would wait for.
const SOON: Duration = Duration::from_secs(10);

/// A ping in JSON, as node 2 and with a secret.
fn pinging(place: &str, secret: &str, arguments: &[&str]) -> Command {
    let common = ["--json", "ping", place, "--node", "2", "--secret-file", secret];
    let mut command = mainstay(&[&common, arguments].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
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
    let told = read(&mut listener.out);
    assert!(told["why"].as_str().unwrap().contains("give both ends the same secret"), "{told}");
    assert!(told["refused"].as_str().unwrap().starts_with("127.0.0.1:"), "{told}");
    assert_eq!(told["others"], 0);
    assert!(ping(&right).status.success(), "members are still served");
}

#[test]
fn a_listener_tells_a_person_whom_it_refused_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret(folder.path(), "secret", "known to the members only");
    let mut listener =
        mainstay(&["ping", "--listen", "127.0.0.1:0", "--node", "2", "--secret-file", &secret])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let mut line = String::new();
    BufReader::new(listener.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let place = line.trim().strip_prefix("listening at ").unwrap();
    // The same node as the listener says to be.
    let output = pinging(place, &secret, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let mut told = String::new();
    BufReader::new(listener.stderr.take().unwrap()).read_line(&mut told).unwrap();
    listener.kill().unwrap();
    listener.wait().unwrap();
    assert!(told.starts_with("warning: refused: 127.0.0.1:"), "{told}");
    assert!(told.contains("give each node an id of its own"), "{told}");
}

#[test]
fn an_interrupt_ends_a_ping_at_once_whatever_it_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret(folder.path(), "secret", "known to the members only");
    let mut listener =
        Listener::start(&["--listen", "127.0.0.1:0", "--node", "1", "--secret-file", &secret]);
    let ends = |mut process: Child, mut out: BufReader<ChildStdout>, unanswered: u64| {
        send(Signal::INT, &process);
        assert_eq!(status_within(&mut process, SOON), Some(130));
        let mut sum = read(&mut out);
        while sum["sent"].is_null() {
            sum = read(&mut out);
        }
        let (sent, received) = (sum["sent"].as_u64().unwrap(), sum["received"].as_u64().unwrap());
        assert!(received > 0 && sent == received + unanswered, "{sum}");
        let mut said = String::new();
        process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.starts_with("error: interrupted; "), "{said}");
    };
    let start = |arguments: &[&str]| {
        let mut process = pinging(&listener.place, &secret, arguments).spawn().unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        (process, out)
    };
    // The pause between two.
    let (process, mut out) = start(&["--interval", "1h"]);
    assert_eq!(read(&mut out)["number"], 1);
    ends(process, out, 0);
    // An answer that does not come.
    let (process, mut out) = start(&["--interval", "500ms", "--timeout", "1h"]);
    assert_eq!(read(&mut out)["number"], 1);
    stop(&listener.process);
    thread::sleep(Duration::from_secs(2));
    ends(process, out, 1);
    send(Signal::CONT, &listener.process);
    // And a listener that waits for visitors.
    send(Signal::INT, &listener.process);
    assert_eq!(status_within(&mut listener.process, SOON), Some(130));
}

#[test]
fn a_listener_that_stands_still_is_given_the_time_one_says() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret(folder.path(), "secret", "known to the members only");
    let listener =
        Listener::start(&["--listen", "127.0.0.1:0", "--node", "1", "--secret-file", &secret]);
    stop(&listener.process);
    let start = Instant::now();
    let output =
        pinging(&listener.place, &secret, &["--connect-timeout", "300ms"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("took too long"), "{}", said(&output));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_begun() {
    for (arguments, words) in [
        (&["ping", "nowhere:1", "--node", "2", "--count", "0"][..], "1.."),
        (&["ping", "nowhere:1", "--node", "2", "--over", "memory"], "possible values: shm, tcp"),
        (&["ping", "nowhere:1", "--node", "2", "--size", "65MiB"], "at most 64 MiB"),
        (&["ping", "nowhere:1", "--node", "2", "--connect-timeout", "0s"], "1ms or more"),
        (&["bench", "--time", "0s"], "1ms or more"),
        (&["bench", "--size", "67108865"], "at most 64 MiB"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(said(&output).contains(words), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn the_help_says_what_each_transport_is_and_hides_what_is_not_built_in() {
    for command in ["ping", "bench"] {
        let output = run(&[command, "--help"]);
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = help.lines().map(str::trim).collect();
        for over in ["shm", "tcp", "tls", "quic"] {
            let described = lines.iter().any(|line| line.starts_with(&format!("- {over}:")));
            let expected = cfg!(feature = "tls") || matches!(over, "shm" | "tcp");
            assert_eq!(described, expected, "{command} --over {over}: {help}");
        }
        assert!(!help.contains("a line each"), "{help}");
    }
    let output = run(&["--help"]);
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(help.contains("\n  cert "), cfg!(feature = "tls"), "{help}");
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
fn a_listener_at_shared_memory_that_is_interrupted_says_so_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.channel");
    let path = path.to_str().unwrap();
    let mut listener = Listener::start(&["--listen", path, "--over", "shm", "--node", "1"]);
    send(Signal::INT, &listener.process);
    assert_eq!(status_within(&mut listener.process, SOON), Some(130));
    assert!(!Path::new(path).exists());
}

#[test]
fn what_is_missing_is_named_and_ends_with_status_2() {
    let output = run(&["ping", "127.0.0.1:1", "--node", "2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--secret-file"), "{}", said(&output));
    if cfg!(feature = "tls") {
        let output = run(&["ping", "127.0.0.1:1", "--node", "2", "--over", "tls"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains("--certs"), "{}", said(&output));
    }
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
    let with_tls: &[&str] = if cfg!(feature = "tls") { &["tls", "quic"] } else { &[] };
    for over in ["memory", "shm", "tcp"].iter().chain(with_tls) {
        let over = *over;
        let output = run(&["bench", "--over", over, "--time", "100ms", "--size", "1KiB", "--json"]);
        assert!(output.status.success(), "{over}: {}", said(&output));
        let report = &lines(&output)[0];
        assert_eq!((report["over"].as_str(), report["bytes"].as_u64()), (Some(over), Some(1_024)));
        let figure = |name: &str| report[name].as_u64().unwrap();
        assert!(figure("round_trips") > 10 && figure("messages_per_second") > 100, "{report}");
        let names = ["rtt_p50_ns", "rtt_p90_ns", "rtt_p99_ns", "rtt_p999_ns", "rtt_max_ns"];
        assert!(names.map(figure).is_sorted(), "{report}");
    }
}

#[cfg(not(feature = "tls"))]
#[test]
fn a_build_without_tls_says_how_to_get_one() {
    for arguments in [
        &["cert", "certs", "--node", "1"][..],
        &["bench", "--over", "quic"],
        // Whatever else is missing.
        &["ping", "127.0.0.1:1", "--node", "2", "--over", "tls"],
        &["ping", "--listen", "127.0.0.1:0", "--node", "2", "--over", "quic", "--certs", "nowhere"],
    ] {
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

/// Names of all files, hidden ones included.
#[cfg(feature = "tls")]
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[cfg(feature = "tls")]
#[test]
fn certificates_are_made_all_or_none_and_what_is_half_done_is_completed() {
    const AUTHORITY: [&str; 3] = ["ca.key", "ca.pem", "cluster"];
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().join("certs");
    let make = |arguments: &[&str]| run(&[&["cert", certs.to_str().unwrap()], arguments].concat());
    let fails = |arguments: &[&str], words: &str| {
        let output = make(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(said(&output).contains(words), "{arguments:?}: {}", said(&output));
    };
    let succeeds = |arguments: &[&str]| {
        let output = make(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    };
    // A node that is named twice is one node.
    succeeds(&["--node", "5", "--node", "5"]);
    let after_one = [&AUTHORITY[..], &["node-5.key", "node-5.pem"]].concat();
    assert_eq!(names(&certs), after_one);
    // One that is there already: then nothing is made.
    fails(&["--node", "4", "--node", "5", "--node", "6"], "node-5.pem");
    assert_eq!(names(&certs), after_one);
    // The folder of another cluster.
    let other = "00000000-0000-4000-8000-000000000007";
    fails(&["--node", "4", "--cluster", other], "leave --cluster out");
    assert_eq!(names(&certs), after_one);
    let cluster = std::fs::read_to_string(certs.join("cluster")).unwrap();
    succeeds(&["--node", "4", "--cluster", cluster.trim()]);
    // Killed after a node's key, and before its certificate.
    std::fs::remove_file(certs.join("node-4.pem")).unwrap();
    let key = std::fs::read(certs.join("node-4.key")).unwrap();
    succeeds(&["--node", "4"]);
    assert_eq!(std::fs::read(certs.join("node-4.key")).unwrap(), key);
    // Killed in the middle of the authority, after each of its files.
    for left in [&["cluster"][..], &["cluster", "ca.key"]] {
        for name in names(&certs) {
            if !left.contains(&name.as_str()) {
                std::fs::remove_file(certs.join(name)).unwrap();
            }
        }
        let kept = std::fs::read(certs.join(left[left.len() - 1])).unwrap();
        fails(&["--node", "5", "--cluster", other], "leave --cluster out");
        succeeds(&["--node", "5"]);
        assert_eq!(names(&certs), after_one);
        assert_eq!(std::fs::read(certs.join(left[left.len() - 1])).unwrap(), kept);
    }
    // An authority without its key signs nothing, and gets no other.
    std::fs::remove_file(certs.join("ca.key")).unwrap();
    fails(&["--node", "6"], "ca.key");
    assert!(!certs.join("ca.key").exists());
}
