//! `mainstay store serve`, `follow` and `promote` from outside: real processes that are killed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn mainstay(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.current_dir(folder).args(["store", "--json"]).args(arguments);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

fn ok(folder: &Path, arguments: &[&str]) -> String {
    let output = mainstay(folder, arguments).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A process that is killed when it is dropped.
struct Running {
    child: Child,
    /// What it says after its first line; it is not read, and the pipe is not full before the end.
    said: Option<BufReader<ChildStdout>>,
}

impl Running {
    fn new(child: Child) -> Self {
        Self { child, said: None }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn write(&mut self, lines: &str) {
        self.child.stdin.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SECRET: &[&str] = &["--secret-file", "secret"];

/// Leads `store` at an address; port 0: at any.
fn serve(folder: &Path, store: &str, address: &str) -> (Running, String) {
    serve_over(folder, store, address, SECRET)
}

fn serve_over(folder: &Path, store: &str, address: &str, over: &[&str]) -> (Running, String) {
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
fn follow_until_equal(folder: &Path, store: &str, address: &str, more: &[&str]) -> Value {
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

fn records(folder: &Path, store: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        ok(folder, &["scan", store, "--limit", "0"]).lines().map(ToOwned::to_owned).collect();
    lines.sort();
    lines
}

fn sandbox() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), b"0123456789abcdef").unwrap();
    ok(folder.path(), &["create", "people", "--key-bytes", "8", "--value-bytes", "16"]);
    folder
}

#[test]
fn a_leader_killed_and_started_ten_times_has_a_follower_that_ends_equal() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    let (mut leader, address) = serve(folder, "people", "127.0.0.1:0");
    let follow = ["follow", "copy", &address, "--node", "2", "--secret-file", "secret"];
    leader.write("first one\n");
    let child = mainstay(folder, &follow).stdout(Stdio::null()).spawn().unwrap();
    let follower = Running::new(child);
    for round in 0..10 {
        let lines: String =
            (0..200).map(|n| format!("k{} r{round}-{n}\n", (round * 37 + n) % 300)).collect();
        leader.write(&lines);
        leader.write(&format!("k{round}\n"));
        thread::sleep(Duration::from_millis(150));
        leader.kill();
        leader = serve(folder, "people", &address).0;
    }
    leader.write("last one\n");
    thread::sleep(Duration::from_millis(200));
    follower.kill();
    follow_until_equal(folder, "copy", &address, SECRET);
    leader.kill();
    let copy = records(folder, "copy");
    assert!(copy.len() > 200, "{}", copy.len());
    assert_eq!(records(folder, "people"), copy);
    ok(folder, &["verify", "copy"]);
    let said: Value =
        serde_json::from_str(&ok(folder, &["verify", "people", "--against", "copy"])).unwrap();
    assert_eq!(said["equal"], copy.len());
    for difference in ["different", "only_here", "only_there"] {
        assert_eq!(said[difference], 0, "{said}");
    }
}

#[test]
fn followers_get_everything_at_once_while_one_stands_still_and_the_leader_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    let records = 30_000;
    let count = records.to_string();
    let arguments = ["bench", "--followers", "2", "--records", &count, "--value-bytes", "1024"];
    let rows: Value = serde_json::from_str(&ok(folder.path(), &arguments)).unwrap();
    let overs: Vec<_> =
        rows.as_array().unwrap().iter().map(|row| row["over"].as_str().unwrap()).collect();
    let all = if cfg!(feature = "tls") { &["tcp", "tls", "quic"][..] } else { &["tcp"] };
    assert_eq!(overs, all);
    for row in rows.as_array().unwrap() {
        let number = |name: &str| row[name].as_u64().unwrap();
        assert_eq!((number("records"), number("followers")), (records, 2), "{row}");
        assert_eq!((number("differences"), number("written")), (0, records / 20), "{row}");
        // A third of what the records have, and so of what one that stands still may lack.
        let grown = number("memory_most") - number("memory_before");
        assert!(grown < 10 << 20, "{row}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing behind");
}

#[test]
fn a_damaged_copy_of_either_kind_is_made_anew_from_its_leader() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    ok(folder, &["create", "pictures", "--values", "any", "--segment", "64KiB"]);
    ok(folder, &["create", "other", "--values", "any"]);
    let (_other, other) = serve(folder, "other", "127.0.0.1:0");
    for store in ["people", "pictures"] {
        let copy = &format!("copy-of-{store}");
        let (mut leader, address) = serve(folder, store, "127.0.0.1:0");
        leader.write(&(0..200).map(|n| format!("k{n} v{n}\n")).collect::<String>());
        thread::sleep(Duration::from_millis(300));
        follow_until_equal(folder, copy, &address, SECRET);
        let repair = |from: &str| {
            let arguments = [&["repair", copy, "--from", from, "--node", "2"], SECRET].concat();
            let output = mainstay(folder, &arguments).output().unwrap();
            let said = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
            (output.status.code().unwrap(), said)
        };
        let (code, said) = repair(&address);
        assert_eq!((code, &said["found"], &said["kept"]), (0, &0.into(), &Value::Null), "{said}");
        // A byte of a record in the middle of a log.
        let mut logs: Vec<_> = std::fs::read_dir(folder.join(copy)).unwrap().flatten().collect();
        logs.retain(|entry| entry.path().extension().is_some_and(|end| end == "log"));
        let path = logs.remove(0).path();
        let mut damaged = std::fs::read(&path).unwrap();
        damaged[4_096 + 70] ^= 4;
        std::fs::write(&path, &damaged).unwrap();
        let name = path.file_name().unwrap();
        let broken = mainstay(folder, &["verify", copy]).output().unwrap();
        assert_eq!(broken.status.code(), Some(3));
        // Another store's leader is refused, and nothing is touched.
        assert_eq!(repair(&other).0, 1);
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
        leader.write("late one\nk7\n");
        thread::sleep(Duration::from_millis(200));
        let (code, said) = repair(&address);
        assert_eq!(
            (code, said["left"].as_u64(), said["records"].as_u64()),
            (0, Some(0), Some(200))
        );
        let kept = folder.join(format!("{copy}.damaged-1"));
        assert_eq!(std::fs::read(kept.join(name)).unwrap(), damaged);
        assert!(!folder.join(format!("{copy}.repairing")).exists());
        leader.kill();
        ok(folder, &["verify", copy]);
        let said: Value =
            serde_json::from_str(&ok(folder, &["verify", store, "--against", copy])).unwrap();
        assert_eq!(said["equal"], 200, "{said}");
        for difference in ["different", "only_here", "only_there"] {
            assert_eq!(said[difference], 0, "{said}");
        }
    }
}

/// A copy that is made anew knows of the leaders that the damaged one knew of: a replaced leader which
/// has not heard of that yet does not get it back. And of what the damaged one is the header tells, when
/// another file cannot even be read.
#[test]
fn n4_a_copy_that_is_made_anew_takes_nothing_of_a_leader_older_than_the_damaged_one_knew() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    ok(folder, &["create", "pictures", "--values", "any", "--segment", "64KiB"]);
    ok(folder, &["create", "other", "--values", "any"]);
    for store in ["people", "pictures"] {
        let copy = &format!("copy-of-{store}");
        let (mut leader, address) = serve(folder, store, "127.0.0.1:0");
        leader.write(&(0..100).map(|n| format!("k{n} v{n}\n")).collect::<String>());
        thread::sleep(Duration::from_millis(300));
        follow_until_equal(folder, copy, &address, SECRET);
        leader.kill();
        // It leads from now on, and so knows of an epoch that its leader of before has not heard of.
        let led: Value = serde_json::from_str(&ok(folder, &["promote", copy])).unwrap();
        let mut logs: Vec<_> = std::fs::read_dir(folder.join(copy)).unwrap().flatten().collect();
        logs.retain(|entry| entry.path().extension().is_some_and(|end| end == "log"));
        // What is not even a file says nothing at all.
        std::fs::remove_file(logs[0].path()).unwrap();
        std::fs::create_dir(logs[0].path()).unwrap();
        let repair = |from: &str| {
            let arguments = [&["repair", copy, "--from", from, "--node", "2"], SECRET].concat();
            let mut command = mainstay(folder, &arguments);
            let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            let mut repairing = Running::new(child);
            let begun = Instant::now();
            while repairing.child.try_wait().unwrap().is_none() {
                assert!(begun.elapsed() < PATIENCE, "{copy} waits for {from}");
                thread::sleep(Duration::from_millis(20));
            }
            let mut said = String::new();
            repairing.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            (repairing.child.wait().unwrap().code().unwrap(), said)
        };
        let (_leader, address) = serve(folder, store, "127.0.0.1:0");
        let (code, said) = repair(&address);
        assert!(code == 1 && said.contains(&led["epoch"].to_string()), "{code}: {said}");
        assert!(logs[0].path().is_dir(), "the damaged one is where it was");
        let (_other, other) = serve(folder, "other", "127.0.0.1:0");
        let (code, said) = repair(&other);
        assert!(code == 1 && said.contains("another store"), "{code}: {said}");
    }
}

/// The same story with values of any size: killed, promoted, refused, set aside, equal.
#[test]
fn a_store_of_any_sizes_is_followed_promoted_and_followed_back() {
    let sandbox = tempfile::tempdir().unwrap();
    let folder = sandbox.path();
    std::fs::write(folder.join("secret"), b"0123456789abcdef").unwrap();
    ok(folder, &["create", "people", "--values", "any", "--segment", "64KiB"]);
    let (mut leader, address) = serve(folder, "people", "127.0.0.1:0");
    leader.write("first one\n");
    let follow = ["follow", "copy", &address, "--node", "2", "--secret-file", "secret"];
    let child = mainstay(folder, &follow).stdout(Stdio::null()).spawn().unwrap();
    let follower = Running::new(child);
    for round in 0..5 {
        let long = "x".repeat(round * 700);
        let line = |n: usize| format!("key-{} r{round}-{n} {long}\n", (round * 37 + n) % 150);
        leader.write(&(0..100).map(line).collect::<String>());
        leader.write(&format!("key-{round}\n"));
        thread::sleep(Duration::from_millis(150));
        leader.kill();
        leader = serve(folder, "people", &address).0;
    }
    thread::sleep(Duration::from_millis(200));
    follower.kill();
    follow_until_equal(folder, "copy", &address, SECRET);
    leader.write("carol 3\n");
    thread::sleep(Duration::from_millis(300));
    leader.kill();
    let unequal = mainstay(folder, &["verify", "people", "--against", "copy"]).output().unwrap();
    assert!(!unequal.status.success(), "carol is missing");
    let said: Value = serde_json::from_slice(&unequal.stdout).unwrap();
    assert_eq!(
        (&said["only_here"], &said["only_there"], &said["different"]),
        (&1.into(), &0.into(), &0.into())
    );
    let refused = mainstay(folder, &["put", "copy", "dave", "4"]).status().unwrap();
    assert!(!refused.success(), "a copy takes no writes");
    ok(folder, &["promote", "copy"]);
    ok(folder, &["put", "copy", "dave", "4"]);
    let (new, address) = serve(folder, "copy", "127.0.0.1:0");
    let follow = ["follow", "people", &address, "--node", "2", "--secret-file", "secret"];
    let refused = mainstay(folder, &follow).status().unwrap();
    assert!(!refused.success(), "a leader follows nobody before it is told to");
    follow_until_equal(folder, "people", &address, &[SECRET, &["--demote"]].concat());
    new.kill();
    let said: Value =
        serde_json::from_str(&ok(folder, &["verify", "people", "--against", "copy"])).unwrap();
    assert!(said["equal"].as_u64().unwrap() > 100, "{said}");
    let aside = std::fs::read_dir(folder.join("people")).unwrap();
    let aside = aside
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("aside-"));
    assert_eq!(aside.count(), 1, "what only the old leader had is set aside");
}

#[test]
fn a_promoted_follower_takes_writes_and_the_old_leader_is_refused_until_it_follows() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    let (mut leader, address) = serve(folder, "people", "127.0.0.1:0");
    leader.write("alice 1\nbob 2\n");
    thread::sleep(Duration::from_millis(300));
    follow_until_equal(folder, "copy", &address, SECRET);
    leader.write("carol 3\n");
    thread::sleep(Duration::from_millis(300));
    leader.kill();
    let refused = mainstay(folder, &["put", "copy", "dave", "4"]).status().unwrap();
    assert!(!refused.success(), "a copy takes no writes");
    ok(folder, &["promote", "copy"]);
    ok(folder, &["put", "copy", "dave", "4"]);
    let (new, address) = serve(folder, "copy", "127.0.0.1:0");
    let follow = ["follow", "people", &address, "--node", "2", "--secret-file", "secret"];
    let refused = mainstay(folder, &follow).status().unwrap();
    assert!(!refused.success(), "a leader follows nobody before it is told to");
    follow_until_equal(folder, "people", &address, &[SECRET, &["--demote"]].concat());
    new.kill();
    assert_eq!(records(folder, "people"), records(folder, "copy"));
    let aside = std::fs::read_dir(folder.join("people")).unwrap();
    let aside = aside
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("aside-"));
    assert_eq!(aside.count(), 1, "what only the old leader had is set aside");
}

#[test]
fn a_follower_that_ends_says_that_what_it_has_is_durable() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    let (mut leader, address) = serve(folder, "people", "127.0.0.1:0");
    leader.write("alice 1\nbob 2\nalice\n");
    thread::sleep(Duration::from_millis(300));
    for _ in 0..2 {
        let last = follow_until_equal(folder, "copy", &address, SECRET);
        let [applied, durable, leader, behind] =
            ["applied", "durable", "leader", "behind"].map(|name| last[name].as_u64().unwrap());
        assert!(applied >= 3 && durable == applied && leader == applied, "{last}");
        assert!(behind == 0 && last["caught_up"] == true, "{last}");
    }
}

#[test]
fn a_leader_whose_output_is_closed_goes_on_leading() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    let (mut leader, address) = serve(folder, "people", "127.0.0.1:0");
    leader.said = None;
    let follow = ["follow", "copy", &address, "--node", "2", "--secret-file", "secret"];
    let child = mainstay(folder, &follow).stdout(Stdio::null()).spawn().unwrap();
    let follower = Running::new(child);
    // Time for some lines on that follower.
    thread::sleep(Duration::from_millis(700));
    follower.kill();
    leader.write("alice 1\n");
    thread::sleep(Duration::from_millis(300));
    follow_until_equal(folder, "copy", &address, SECRET);
    assert_eq!(leader.child.try_wait().unwrap(), None);
    assert_eq!(records(folder, "copy").len(), 1);
}

#[cfg(feature = "tls")]
#[test]
fn a_store_is_followed_over_tls_and_over_quic() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    let mut cert = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    cert.current_dir(folder).args(["channel", "cert", "certs", "--node", "1", "--node", "2"]);
    assert!(cert.stdin(Stdio::null()).output().unwrap().status.success());
    for (over, key) in [("tls", "alice"), ("quic", "bob")] {
        let over = ["--over", over, "--certs", "certs"];
        let (mut leader, address) = serve_over(folder, "people", "127.0.0.1:0", &over);
        leader.write(&format!("{key} 1\n"));
        thread::sleep(Duration::from_millis(300));
        follow_until_equal(folder, "copy", &address, &over);
        leader.kill();
        assert_eq!(records(folder, "people"), records(folder, "copy"));
    }
    assert_eq!(records(folder, "copy").len(), 2);
}

#[test]
fn damage_at_the_end_of_a_followers_log_is_told_once_it_has_stopped() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    let (mut leader, address) = serve(folder, "people", "127.0.0.1:0");
    leader.write("alice one\n");
    // So that the copy takes its last writes from the log, one by one.
    follow_until(folder, "copy", &address, 1);
    leader.write("bob two\ncarol three\n");
    follow_until(folder, "copy", &address, 3);
    leader.kill();
    ok(folder, &["verify", "copy"]);
    let mut damaged = 0;
    for entry in std::fs::read_dir(folder.join("copy")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "log") {
            continue;
        }
        let sound = std::fs::read(&path).unwrap();
        let Some(end) = sound.iter().rposition(|byte| *byte != 0).filter(|end| *end >= 4_096)
        else {
            continue;
        };
        let mut bytes = sound.clone();
        bytes[end] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let status = mainstay(folder, &["verify", "copy"]).stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(3), "{}", path.display());
        std::fs::write(&path, sound).unwrap();
        ok(folder, &["verify", "copy"]);
        damaged += 1;
    }
    assert!(damaged > 0, "no log of the copy has a write");
}

/// Follows until it has so many records: what the leader is told on its input takes a moment.
fn follow_until(folder: &Path, store: &str, address: &str, count: usize) {
    let begun = Instant::now();
    loop {
        follow_until_equal(folder, store, address, SECRET);
        if records(folder, store).len() >= count {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{store} has not got {count} records");
    }
}

/// Starts to follow an address at which nobody is, and returns when it has said so.
fn follow_nobody(folder: &Path, store: &str, address: &str) -> (Running, BufReader<ChildStdout>) {
    let follow = ["follow", store, address, "--node", "2", "--until-equal", "--every", "100ms"];
    let child = mainstay(folder, &[&follow, SECRET].concat()).stdout(Stdio::piped()).spawn();
    let mut follower = Running::new(child.unwrap());
    let said = BufReader::new(follower.child.stdout.take().unwrap());
    (follower, said)
}

#[test]
fn a_follower_that_is_started_first_waits_for_its_leader() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    ok(folder, &["put", "people", "alice", "1"]);
    // An address that is free a moment later.
    let (leader, address) = serve(folder, "people", "127.0.0.1:0");
    leader.kill();
    let (mut follower, mut said) = follow_nobody(folder, "copy", &address);
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let waiting: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(waiting["waiting_for"], address.as_str(), "{waiting}");
    assert!(waiting["why"].as_str().unwrap().contains("refused"), "{waiting}");
    assert!(!folder.join("copy").exists(), "nothing is made before it is known what");
    assert_eq!(follower.child.try_wait().unwrap(), None);
    let (leader, _) = serve(folder, "people", &address);
    let begun = Instant::now();
    while follower.child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "the leader is there, and is not followed");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(follower.child.wait().unwrap().success());
    leader.kill();
    assert_eq!(records(folder, "people"), records(folder, "copy"));
}

#[test]
fn a_follower_that_waits_ends_when_it_is_told_to_and_at_once_where_nothing_will_change() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    let (leader, address) = serve(folder, "people", "127.0.0.1:0");
    let other = folder.join("other");
    std::fs::write(&other, b"another secret 16").unwrap();
    let follow = ["follow", "copy", &address, "--node", "2", "--secret-file", "other"];
    assert_eq!(mainstay(folder, &follow).status().unwrap().code(), Some(1), "refused for good");
    let nowhere = ["follow", "copy", "nowhere", "--node", "2", "--secret-file", "secret"];
    assert_eq!(mainstay(folder, &nowhere).status().unwrap().code(), Some(1), "no address");
    leader.kill();
    let (mut follower, mut said) = follow_nobody(folder, "copy", &address);
    said.read_line(&mut String::new()).unwrap();
    let id = rustix::process::Pid::from_child(&follower.child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let begun = Instant::now();
    while follower.child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "it does not end");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(follower.child.wait().unwrap().success());
}

#[test]
fn a_leader_removes_what_has_ended_and_its_follower_has_the_same_ends() {
    let sandbox = tempfile::tempdir().unwrap();
    let folder = sandbox.path();
    std::fs::write(folder.join("secret"), b"0123456789abcdef").unwrap();
    let sizes = ["--key-bytes", "8", "--value-bytes", "16", "--expiring"];
    ok(folder, &[&["create", "people"][..], &sizes].concat());
    ok(folder, &["put", "people", "alice", "1", "--ttl", "24h"]);
    ok(folder, &["put", "people", "bob", "2", "--ttl", "1ms"]);
    let (mut leader, address) = serve(folder, "people", "127.0.0.1:0");
    leader.write("carol 3\n");
    follow_until(folder, "copy", &address, 2);
    leader.kill();
    let exported = |store| ok(folder, &["export", store, "--sorted"]);
    assert_eq!(exported("people"), exported("copy"));
    assert_eq!(exported("copy").lines().count(), 2);
    assert!(exported("copy").contains("\"ends\":") && exported("copy").contains("carol"));
    let stats: Value = serde_json::from_str(&ok(folder, &["stats", "copy"])).unwrap();
    assert_eq!(
        (&stats["expiring"], &stats["records"]),
        (&true.into(), &2.into()),
        "bob is removed"
    );
}

#[test]
fn a_follower_is_encrypted_under_another_key_than_its_leader() {
    let sandbox = tempfile::tempdir().unwrap();
    let folder = sandbox.path();
    std::fs::write(folder.join("secret"), b"0123456789abcdef").unwrap();
    let (ours, theirs) = (["--key-file", "our.key"], ["--key-file", "their.key"]);
    for key in ["our.key", "their.key"] {
        ok(folder, &["key", "new", key]);
    }
    let create = ["create", "people", "--key-bytes", "8", "--value-bytes", "24"];
    ok(folder, &[&create[..], &ours].concat());
    let (mut leader, address) =
        serve_over(folder, "people", "127.0.0.1:0", &[SECRET, &ours].concat());
    leader.write("alice what-nobody-shall-read\n");
    thread::sleep(Duration::from_millis(300));
    follow_until_equal(folder, "copy", &address, &[SECRET, &theirs].concat());
    leader.kill();
    for store in ["people", "copy"] {
        for file in std::fs::read_dir(folder.join(store)).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(14).any(|part| part == b"what-nobody-sh"), "{store}");
        }
    }
    let refused = |key: [&str; 2]| {
        let mut get = mainstay(folder, &[&["get", "copy", "alice"][..], &key].concat());
        !get.stdout(Stdio::null()).status().unwrap().success()
    };
    assert!(refused(ours) && !refused(theirs));
    let both = ["verify", "people", "--against", "copy"];
    let said = ok(folder, &[&both[..], &ours, &theirs].concat());
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["equal"], 1, "{said}");
}

#[test]
fn a_follower_whose_store_is_damaged_is_made_equal_again_by_its_leader() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    let (mut leader, address) = serve(folder, "people", "127.0.0.1:0");
    let lines: String = (0..50).map(|number| format!("k{number} {number}\n")).collect();
    leader.write(&lines);
    follow_until(folder, "copy", &address, 50);
    // Taken from its log, not by comparing.
    leader.write("more 1\n");
    follow_until(folder, "copy", &address, 51);
    let damaged = std::fs::read_dir(folder.join("copy")).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).ok()?;
        let is_log = path.extension().is_some_and(|end| end == "log");
        let at = 4_096 + 50;
        if !is_log || bytes.get(at).is_none_or(|byte| *byte == 0) {
            return None;
        }
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        Some(path)
    });
    assert!(damaged.is_some(), "no log of the copy has a write");
    let code = |arguments: &[&str]| {
        mainstay(folder, arguments).stdout(Stdio::null()).status().unwrap().code()
    };
    assert_eq!(code(&["verify", "copy"]), Some(3));
    // As the guide says: out of the way, and followed anew.
    std::fs::rename(folder.join("copy"), folder.join("copy.damaged")).unwrap();
    follow_until(folder, "copy", &address, 51);
    leader.kill();
    ok(folder, &["verify", "copy"]);
    let said = ok(folder, &["verify", "people", "--against", "copy"]);
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["equal"], 51, "{said}");
}
