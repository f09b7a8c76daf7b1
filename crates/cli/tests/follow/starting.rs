//! Who is there first, who waits for whom, and how they end.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::play::*;

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
    // It was to end with a copy that is equal, and there is none.
    assert_eq!(follower.child.wait().unwrap().code(), Some(130));
    assert!(!folder.join("copy").exists());
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
    let mut cert = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay"));
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
