//! Several processes at one pool.

use crate::sandbox::{Running, Sandbox, wait_until};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    process::ChildStdout,
};

/// A process that holds 40 blocks of `calls`, for a minute if nothing happens to it.
fn holder(sandbox: &Sandbox) -> Running {
    let mut running =
        sandbox.spawn(&["fill", "calls", "--blocks", "40", "--hold", "60s", "--json"]);
    let mut line = String::new();
    let stdout = running.0.stdout.as_mut().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let report: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&report["filled"], &report["pid"]), (&40.into(), &running.0.id().into()));
    running
}

#[test]
fn what_a_killed_process_held_is_listed_then_parked_or_freed() {
    let sandbox = Sandbox::with_calls(5);
    let mut running = holder(&sandbox);
    let holders = sandbox.json(&["holders", "calls"]);
    assert_eq!(holders.as_array().unwrap().len(), 1);
    assert_eq!((&holders[0]["pid"], &holders[0]["alive"]), (&running.0.id().into(), &true.into()));
    assert_eq!((&holders[0]["held"], &holders[0]["name"]), (&40.into(), &"mainstay".into()));
    assert_eq!(sandbox.json(&["recover", "calls"])["offered"], 0, "the living keep theirs");

    running.0.kill().unwrap();
    running.0.wait().unwrap();
    let holders = sandbox.json(&["holders", "calls"]);
    assert_eq!((&holders[0]["alive"], &holders[0]["held"]), (&false.into(), &40.into()));
    let sound = sandbox.json(&["verify", "calls"]);
    assert_eq!(sound["sound"], true);
    assert!(sound["of_the_dead"].as_u64().unwrap() >= 40, "{sound}");

    let listed = sandbox.json(&["recover", "calls", "--list"]);
    assert_eq!((&listed["reaped"]["processes"], &listed["offered"]), (&1.into(), &40.into()));
    assert_eq!(listed["blocks"].as_array().unwrap().len(), 40);
    assert_eq!(listed["blocks"][0]["state"], "orphan");
    assert_eq!(sandbox.json(&["recover", "calls", "--park"])["parked"], 40);
    assert_eq!(sandbox.json(&["info", "calls"])["counts"]["parked"], 45);

    let asked = sandbox.fails(2, &["recover", "calls", "--free", "--unheld"]);
    assert!(asked.contains("45 blocks") && asked.contains("--yes"), "{asked}");
    assert_eq!(sandbox.json(&["info", "calls"])["counts"]["parked"], 45);
    let freed = sandbox.json(&["recover", "calls", "--free", "--unheld", "--yes"]);
    assert_eq!((&freed["freed"], &freed["offered"]), (&45.into(), &45.into()));
    assert_eq!(sandbox.json(&["info", "calls"])["counts"]["parked"], 0);
}

#[test]
fn two_processes_fill_one_pool_without_getting_in_each_others_way() {
    let sandbox = Sandbox::with_calls(0);
    let both: Vec<Running> = (0..2)
        .map(|_| sandbox.spawn(&["fill", "calls", "--blocks", "5000", "--data", "random"]))
        .collect();
    for mut running in both {
        assert!(running.0.wait().unwrap().success());
    }
    let shown = sandbox.json_lines(&["show", "calls", "--limit", "0"]);
    let uuids: std::collections::HashSet<&str> =
        shown.iter().map(|block| block["uuid"].as_str().unwrap()).collect();
    assert_eq!((shown.len(), uuids.len()), (10_000, 10_000));
    assert_eq!(sandbox.run(&["verify", "calls"]).code, 0);
}

#[test]
fn held_blocks_are_exported_and_an_interrupted_holder_parks_them() {
    let sandbox = Sandbox::with_calls(0);
    let mut running = holder(&sandbox);
    assert_eq!(sandbox.json(&["export", "calls", "a.jsonl"])["held"], 40);
    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(running.0.wait().unwrap().success());
    let info = sandbox.json(&["info", "calls"]);
    assert_eq!((&info["counts"]["parked"], &info["counts"]["held"]), (&40.into(), &0.into()));
    assert_eq!(sandbox.json(&["holders", "calls"]), serde_json::json!([]));
}

/// Reads until an event comes; returns it.
fn event(lines: &mut std::io::Lines<BufReader<ChildStdout>>, name: &str) -> Value {
    for line in lines {
        let value: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if value["event"] == name {
            return value;
        }
    }
    panic!("the output ended without {name:?}");
}

#[test]
fn a_watcher_sees_a_process_come_grow_the_pool_die_and_be_taken_back() {
    let sandbox = Sandbox::with_calls(0);
    let mut watcher =
        sandbox.spawn(&["watch", "calls", "--json", "--every", "50ms", "--for", "20s"]);
    let mut lines = BufReader::new(watcher.0.stdout.take().unwrap()).lines();
    let lines = &mut lines;
    assert_eq!(event(lines, "watching")["blocks"], 0);

    let mut running = holder(&sandbox);
    let pid = Value::from(running.0.id());
    assert_eq!(event(lines, "joined")["pid"], pid);
    wait_until("40 blocks are held", || event(lines, "counts")["held"] == 40);
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    let died = event(lines, "died");
    assert_eq!((&died["pid"], &died["held"]), (&pid, &40.into()));
    sandbox.ok(&["recover", "calls"]);
    assert_eq!(event(lines, "reaped")["pid"], pid);
    sandbox.ok(&["fill", "calls", "--blocks", "1000"]);
    assert!(event(lines, "grew")["blocks"].as_u64().unwrap() > 64);
    fs::remove_file(sandbox.path("calls.pool")).unwrap();
    event(lines, "removed");
    assert!(watcher.0.wait().unwrap().success(), "it ends with the pool");
}
