//! Writing values, and reading them back.

use crate::{
    pose::Pose,
    sandbox::{Run, Sandbox},
};
use std::{fs, io::Write, process::Stdio};

#[test]
fn a_state_that_one_process_holds_is_read_and_changed_by_others() {
    let sandbox = Sandbox::new();
    let _holder = sandbox.holder("temperature", "21.5");
    assert_eq!(sandbox.ok(&["get", "temperature"]), "21.5\n");
    assert_eq!(sandbox.ok(&["set", "temperature", "-3"]), "temperature: version 2, 2 B\n");
    assert_eq!(sandbox.ok(&["get", "temperature"]), "-3\n");
    assert_eq!(sandbox.ok(&["get", "temperature", "--version"]), "2\n");
}

#[test]
fn a_new_state_that_would_vanish_at_once_is_refused_and_nothing_is_left() {
    let sandbox = Sandbox::new();
    let error = sandbox.fails(1, &["set", "temperature", "21.5"]);
    assert!(error.contains("--hold") && error.contains("--persist FILE"), "{error}");
    assert!(sandbox.listed().is_empty());
    assert!(sandbox.files().iter().all(|name| !name.contains("temperature")));
}

#[test]
fn text_digits_files_and_standard_input_come_back_as_they_went_in() {
    let sandbox = Sandbox::new();
    let _holder = sandbox.holder("value", "x");
    let all: Vec<u8> = (0..=255).collect();
    let raw = || sandbox.run(&["get", "value", "--raw"]).stdout;

    sandbox.ok(&["set", "value", "two\nlines"]);
    assert_eq!(sandbox.ok(&["get", "value"]), "two\nlines\n");
    assert_eq!(raw(), b"two\nlines");

    sandbox.ok(&["set", "value", "--hex", "00ff10"]);
    assert_eq!(sandbox.ok(&["get", "value", "--hex"]), "00ff10\n");
    assert!(sandbox.ok(&["get", "value"]).starts_with("00000000  00 ff 10 "));
    let got = sandbox.json(&["get", "value"]);
    assert_eq!((&got["hex"], &got["text"]), (&"00ff10".into(), &serde_json::Value::Null));

    fs::write(sandbox.path("bytes"), &all).unwrap();
    sandbox.ok(&["set", "value", "--file", "bytes"]);
    assert_eq!(raw(), all);

    let mut command = sandbox.command(&["set", "value", "--file", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&all[..7]).unwrap();
    assert_eq!(Run::of(child.wait_with_output().unwrap()).code, 0);
    assert_eq!(raw(), &all[..7]);
}

#[test]
fn a_state_that_describes_its_fields_is_shown_and_set_as_json() {
    let sandbox = Sandbox::new();
    let pose = sandbox.domain().writer::<Pose>("pose").unwrap();
    pose.replace(&Pose { x: 0.5, y: -1.0, steps: 7, room: *b"hall\0\0\0\0" }).unwrap();
    let shown = "{\"x\":0.5,\"y\":-1.0,\"steps\":7,\"room\":\"hall\"}\n";
    assert_eq!(sandbox.ok(&["get", "pose"]), shown);

    sandbox.ok(&["set", "pose", r#"{"y": 2, "room": "attic"}"#]);
    let now = *pose.read().unwrap();
    assert_eq!(now, Pose { x: 0.5, y: 2.0, steps: 7, room: *b"attic\0\0\0" });
    let got = sandbox.json(&["get", "pose"]);
    assert_eq!((&got["value"]["y"], &got["type"]), (&2.0.into(), &"test.pose/1".into()));
    assert_eq!((&got["version"], &got["size_bytes"]), (&2.into(), &32.into()));

    let hex = sandbox.ok(&["get", "pose", "--hex"]);
    sandbox.ok(&["set", "pose", "--hex", hex.trim_end()]);
    assert_eq!(*pose.read().unwrap(), now, "bytes do as well, if they are as many");
}

#[test]
fn a_value_that_does_not_fit_the_type_changes_nothing() {
    let sandbox = Sandbox::new();
    let pose = sandbox.domain().writer::<Pose>("pose").unwrap();
    for (arguments, complaint) in [
        (&["set", "pose", "north"][..], "is no JSON"),
        (&["set", "pose", "5"], "is no JSON object; the fields are x: f64, "),
        (&["set", "pose", r#"{"z": 1}"#], "there is no field \"z\""),
        (&["set", "pose", r#"{"x": 1, "steps": -1}"#], "field steps: -1 is no u64"),
        (&["set", "pose", r#"{"room": "much too long"}"#], "is no text[8]"),
        (&["set", "pose", "--hex", "00"], "its type has 32 bytes"),
    ] {
        let error = sandbox.fails(1, arguments);
        assert!(error.contains(complaint), "{arguments:?}: {error}");
    }
    assert_eq!(pose.version().unwrap(), 0);
}

#[test]
fn a_holder_that_is_interrupted_ends_in_good_order() {
    let sandbox = Sandbox::new();
    let mut holder = sandbox.holder("temperature", "21.5");
    let pid = rustix::process::Pid::from_child(&holder.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(holder.0.wait().unwrap().success());
    assert!(sandbox.files().iter().all(|name| !name.contains("temperature")));
}

#[test]
fn a_wrong_command_line_is_told_from_a_failure() {
    let sandbox = Sandbox::new();
    let wrong: [&[&str]; 13] = [
        &["set", "x"],
        &["set", "x", "1", "--hex", "01"],
        &["set", "x", "--hex", "0g", "--hold"],
        &["set", "x", "1", "--machine"],
        &["set", "a b", "1", "--hold"],
        &["get", ".hidden"],
        &["get", "x", "--raw", "--json"],
        &["get", "x", "--hex", "--text"],
        &["watch", "x", "--max-rate", "0"],
        &["watch", "x", "--exec", "true", "--json"],
        &["feed", "x", "--rate", "0"],
        &["bench", "--size", "1B"],
        &["polish", "x"],
    ];
    for arguments in wrong {
        sandbox.fails(2, arguments);
    }
    let failed: [&[&str]; 6] = [
        &["get", "x"],
        &["watch", "x"],
        &["info", "x"],
        &["rm", "x"],
        &["persist", "x", "./none"],
        &["set", "x", "--file", "./none", "--hold"],
    ];
    for arguments in failed {
        sandbox.fails(1, arguments);
    }
    assert!(sandbox.listed().is_empty());
}
