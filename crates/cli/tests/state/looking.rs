//! Looking at states without subscribing to them.

use crate::{pose::Pose, sandbox::Sandbox};
use mainstay::state::StateOptions;

#[test]
fn where_there_are_no_states_none_are_listed_and_nothing_is_made() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["ls"]);
    let output = command.env("MAINSTAY_DIR", sandbox.path("none")).output().unwrap();
    assert!(output.status.success());
    assert!(output.stdout.starts_with(b"no states in "));
    assert!(!sandbox.path("none").exists());
}

#[test]
fn states_are_listed_with_versions_sizes_and_subscribers() {
    let sandbox = Sandbox::new();
    let domain = sandbox.domain();
    let pose = domain.writer::<Pose>("pose").unwrap();
    pose.set_persistent(sandbox.path("pose.kept"), mainstay::state::Grade::Process).unwrap();
    let _holder = sandbox.holder("temperature", "21.5");
    let _reader = domain.reader::<[u8]>("temperature").unwrap();

    let listed = sandbox.ok(&["ls"]);
    let rows: Vec<Vec<&str>> =
        listed.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["pose", "0", "32", "B", "0", "1", "8", "processes", "test.pose/1"]);
    assert_eq!(rows[1], ["temperature", "1", "4", "B", "0", "2", "8", "-", "bytes"]);
    assert_eq!(rows.len(), 2, "{listed}");
}

#[test]
fn commits_are_counted_while_they_are_made() {
    let sandbox = Sandbox::new();
    let _feeder = sandbox.feeder("speed");
    let listed = sandbox.json(&["ls", "--sample", "300ms"]);
    let rate = listed[0]["commits_per_s"].as_f64().unwrap();
    assert!(rate > 1_000.0, "{listed}");
    assert_eq!(
        sandbox.json(&["ls", "--sample", "0ms"])[0]["commits_per_s"],
        serde_json::Value::Null
    );
}

#[test]
fn info_says_who_holds_pins_and_claims() {
    let sandbox = Sandbox::new();
    let domain = sandbox.domain();
    let state = domain.writer::<Pose>("pose").unwrap();
    let other = domain.reader::<Pose>("pose").unwrap();
    let _pinned = other.read().unwrap();
    let mut transaction = state.begin().unwrap();
    transaction.get_mut().unwrap().steps = 1;

    let info = sandbox.json(&["info", "pose", "--sample", "0ms"]);
    let subscriber = &info["subscribers"][0];
    assert_eq!(subscriber["pid"], std::process::id());
    assert_eq!((&subscriber["alive"], &subscriber["claims"]), (&true.into(), &1.into()));
    assert_eq!((&subscriber["pins"], &subscriber["handles"]), (&1.into(), &2.into()));
    assert_eq!(info["fields"], "x: f64, y: f64, steps: u64, room: text[8]");
    assert_eq!(info["folder"]["conflicts"], 0);

    let text = sandbox.ok(&["info", "pose"]);
    for line in ["type              test.pose/1", "slots             8 of at most 64, 4.0 KiB each"]
    {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in {text}");
    }
    assert!(text.contains("it ends with its last subscriber"), "{text}");
}

#[test]
fn looking_changes_nothing_and_needs_no_handle() {
    let sandbox = Sandbox::new();
    let state =
        StateOptions::new().slots(3).slots_max(3).writer::<[u8]>(&sandbox.domain(), "x").unwrap();
    state.replace(b"1").unwrap();
    for look in [&["ls"][..], &["info", "x"], &["get", "x"]] {
        sandbox.ok(look);
    }
    let info = state.info().unwrap();
    assert_eq!((info.version, info.slots, info.subscribers.len()), (1, 3, 1));
}

#[test]
fn every_command_prints_json_that_parses() {
    let sandbox = Sandbox::new();
    let _feeder = sandbox.feeder("speed");
    assert_eq!(sandbox.json(&["ls"])[0]["name"], "speed");
    assert_eq!(sandbox.json(&["info", "speed"])["type"], "mainstay.feed/1");
    assert!(sandbox.json(&["get", "speed"])["value"]["count"].as_u64().unwrap() > 0);
    assert!(sandbox.json(&["get", "speed", "--version"])["version"].as_u64().unwrap() > 0);
    let lines = sandbox.json_lines(&["watch", "speed", "--count", "3"]);
    assert_eq!((lines.len(), &lines[0]["name"]), (3, &"speed".into()));
    let set = sandbox.json(&["set", "motto", "go on", "--persist", "motto.kept"]);
    assert_eq!((&set["version"], &set["size_bytes"]), (&1.into(), &5.into()));
    let persisted = sandbox.json(&["persist", "motto", "motto.kept", "--machine"]);
    assert_eq!(persisted["persistent"]["survives"], "the machine");
    assert_eq!(sandbox.json(&["rm", "motto"])["removed"], "motto");
    let fed = sandbox.json(&["feed", "other", "--count", "5"]);
    assert_eq!((&fed["written"], &fed["version"]), (&5.into(), &5.into()));
}

#[test]
fn a_bench_measures_every_operation_at_every_size_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let rows = sandbox.json(&["bench", "--size", "64B,4KiB", "--samples", "200"]);
    let rows = rows.as_array().unwrap();
    let of = |operation: &str| rows.iter().filter(|row| row["operation"] == operation).count();
    assert_eq!((of("clock"), of("wake")), (1, 1));
    for operation in ["read", "copy", "commit", "read while written"] {
        assert_eq!(of(operation), 2, "{operation}");
    }
    for row in rows {
        let [p50, p99, max] =
            ["p50_ns", "p99_ns", "max_ns"].map(|name| row[name].as_u64().unwrap());
        assert!(p50 <= p99 && p99 <= max && max > 0, "{row}");
    }
    assert!(sandbox.files().is_empty(), "it has a folder of its own");
}
