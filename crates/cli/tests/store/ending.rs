//! Records that are there for a certain time.

use crate::sandbox::{Sandbox, wait_until};
use mainstay::store::{Directory, Options, RawStore};
use serde_json::Value;
use std::{
    fs,
    io::Read,
    thread,
    time::{Duration, SystemTime},
};

const FIXED: &[&str] = &["--key-bytes", "8", "--value-bytes", "16", "--expiring"];
const ANY: &[&str] = &["--values", "any"];

fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

fn with_sessions(sizes: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.ok(&[&["create", "sessions"], sizes].concat());
    sandbox
}

/// Milliseconds, within a minute that a slow machine may have taken.
fn about(found: &Value, wanted: u64) {
    let found = found.as_u64().unwrap();
    assert!(found <= wanted && found + 60_000 > wanted, "{found} is not about {wanted}");
}

#[test]
fn a_record_is_there_for_its_time_and_no_longer() {
    for sizes in [FIXED, ANY] {
        let sandbox = with_sessions(sizes);
        sandbox.ok(&["put", "sessions", "short", "1", "--ttl", "300ms"]);
        sandbox.ok(&["put", "sessions", "long", "2", "--ttl", "2h"]);
        sandbox.ok(&["put", "sessions", "good", "3"]);
        wait_until("it has ended", || sandbox.run(&["get", "sessions", "short"]).code == 1);
        assert_eq!(sandbox.ok(&["get", "sessions", "long"]), "2\n");
        about(&sandbox.json(&["get", "sessions", "long"])["left_ms"], 7_200_000);
        assert_eq!(sandbox.json(&["get", "sessions", "good"])["left_ms"], Value::Null);
        assert_eq!(sandbox.ok(&["scan", "sessions", "--count"]), "2\n");
        let table = sandbox.ok(&["scan", "sessions"]);
        assert!(table.contains("LEFT") && table.contains("1 h 59 min"), "{table}");
        about(&sandbox.json_lines(&["scan", "sessions"])[1]["left_ms"], 7_200_000);
        assert!(!sandbox.ok(&["scan", "sessions", "--prefix", "good"]).contains("LEFT"));
        assert_eq!(sandbox.ok(&["sweep", "sessions"]), "removed 1 record\n");
        assert_eq!(sandbox.ok(&["sweep", "sessions"]), "removed 0 records\n");
        sandbox.ok(&["compact", "sessions"]);
        sandbox.ok(&["verify", "sessions"]);
        about(&sandbox.json(&["get", "sessions", "long"])["left_ms"], 7_200_000);
    }
}

#[test]
fn an_end_is_moved_kept_and_taken_away() {
    for sizes in [FIXED, ANY] {
        let sandbox = with_sessions(sizes);
        let left = |key: &str| sandbox.json(&["get", "sessions", key])["left_ms"].clone();
        // A lock that somebody has until then.
        sandbox.ok(&["put", "sessions", "lock", "mine", "--new", "--ttl", "1h"]);
        sandbox.fails(1, &["put", "sessions", "lock", "yours", "--new", "--ttl", "1h"]);
        about(&left("lock"), 3_600_000);
        sandbox.ok(&["put", "sessions", "lock", "still", "--expect", "mine"]);
        about(&left("lock"), 3_600_000);
        assert_eq!(
            sandbox.ok(&["touch", "sessions", "lock", "--ttl", "3h"]),
            "lock: ends in 3 h\n"
        );
        about(&left("lock"), 10_800_000);
        assert_eq!(sandbox.ok(&["get", "sessions", "lock"]), "still\n");
        assert_eq!(sandbox.ok(&["touch", "sessions", "lock", "--forever"]), "lock: ends never\n");
        assert_eq!(left("lock"), Value::Null);
        sandbox.ok(&["touch", "sessions", "lock", "--ttl", "10ms"]);
        thread::sleep(Duration::from_millis(20));
        sandbox.fails(1, &["touch", "sessions", "lock", "--ttl", "1h"]);
        sandbox.ok(&["put", "sessions", "lock", "yours", "--new", "--ttl", "1h"]);
        sandbox.fails(2, &["touch", "sessions", "lock"]);
        sandbox.fails(2, &["put", "sessions", "lock", "1", "--expect", "yours", "--ttl", "1h"]);
        sandbox.ok(&["rm", "sessions", "lock"]);
        sandbox.fails(2, &["put", "sessions", "lock", "1", "--ttl", "0ms"]);
    }
}

#[test]
fn a_watch_tells_that_a_record_has_ended_though_nobody_writes() {
    for sizes in [FIXED, ANY] {
        let sandbox = with_sessions(sizes);
        sandbox.ok(&["put", "sessions", "long", "1", "--ttl", "2h"]);
        let end = now_ms() + 3_000;
        sandbox.ok(&["put", "sessions", "short", "2", "--ttl", "3s"]);
        // Somebody has it open, and removes nothing.
        let path = sandbox.path("sessions");
        let mut fixed = None;
        if sizes == FIXED {
            let folder = Directory::lock(&path).unwrap();
            fixed = Some(RawStore::open(folder, &Options::default()).unwrap());
        }
        let arguments = ["watch", "sessions", "--every", "5ms", "--count", "1", "--json"];
        let mut running = sandbox.spawn(&arguments);
        let mut said = String::new();
        running.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(now_ms() >= end, "{said}");
        let lines: Vec<Value> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["event"], &lines[0]["records"]), (&"watching".into(), &2.into()));
        assert_eq!((&lines[1]["event"], &lines[1]["key"]), (&"ended".into(), &"short".into()));
        assert_eq!(lines.len(), 2);
        drop(fixed);
    }
}

#[test]
fn where_records_do_not_end_it_is_said_what_store_to_make() {
    let sandbox = Sandbox::with_people();
    sandbox.ok(&["put", "people", "alice", "1"]);
    for arguments in [
        &["put", "people", "alice", "2", "--ttl", "1h"][..],
        &["touch", "people", "alice", "--ttl", "1h"],
        &["sweep", "people"],
    ] {
        assert!(sandbox.fails(1, arguments).contains("create --expiring"), "{arguments:?}");
    }
    assert_eq!(sandbox.ok(&["get", "people", "alice"]), "1\n");
    let lines = "{\"key\": \"a\", \"value\": \"1\", \"ends\": 4102444800000}\n";
    fs::write(sandbox.path("ends.jsonl"), lines).unwrap();
    assert!(sandbox.fails(1, &["import", "ends.jsonl", "people"]).contains("create --expiring"));
}

#[test]
fn ends_go_along_whatever_becomes_of_a_store() {
    let sandbox = with_sessions(FIXED);
    sandbox.ok(&["create", "any", "--values", "any"]);
    sandbox.ok(&["put", "sessions", "long", "1", "--ttl", "24h"]);
    sandbox.ok(&["put", "sessions", "good", "2"]);
    sandbox.ok(&["put", "sessions", "gone", "3", "--ttl", "1ms"]);
    thread::sleep(Duration::from_millis(5));
    let all = sandbox.ok(&["export", "sessions", "--sorted"]);
    let ends = sandbox.json(&["get", "sessions", "long"])["ends"].clone();
    assert_eq!(all.lines().count(), 2, "what has ended is nobody's: {all}");
    assert!(all.contains(&format!("\"ends\":{ends}")), "{all}");
    // To files and back, into stores of both kinds.
    for file in ["all.jsonl", "all.csv"] {
        sandbox.ok(&["export", "sessions", file]);
        let copy = format!("copy-{file}");
        sandbox.ok(&[&["create", &copy], FIXED].concat());
        sandbox.ok(&["import", file, &copy]);
        assert_eq!(sandbox.ok(&["export", &copy, "--sorted"]), all);
        sandbox.ok(&["import", file, "any"]);
        assert_eq!(sandbox.ok(&["export", "any", "--sorted"]), all);
    }
    // To a copy, to a store made of it, to other shards.
    sandbox.ok(&["backup", "sessions", "backup", "--check"]);
    sandbox.ok(&["restore", "backup", "anew"]);
    sandbox.ok(&["reshard", "anew", "--shards", "4"]);
    for store in ["backup", "anew"] {
        assert_eq!(sandbox.ok(&["export", store, "--sorted"]), all);
        let stats = sandbox.json(&["stats", store]);
        assert_eq!((&stats["expiring"], &stats["value_bytes"]), (&true.into(), &16.into()));
    }
    sandbox.ok(&["put", "anew", "more", "4", "--ttl", "1h"]);
    sandbox.ok(&["verify", "sessions", "--against", "backup"]);
    let made = sandbox.run(&["verify", "sessions", "--against", "anew"]);
    let told = String::from_utf8(made.stdout).unwrap();
    assert!(made.code == 3 && told.contains("4 (ends "), "{told}");
}
