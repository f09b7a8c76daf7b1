//! Waiting for changes.

use crate::sandbox::{Run, Sandbox, wait_until};
use serde_json::Value;
use std::{fs, process::Stdio};

/// The version, if the line is of one whole version of a state that is fed: the count stands in it
/// many times, and counts the versions.
fn whole(line: &Value) -> u64 {
    let (version, value) = (line["version"].as_u64().unwrap(), &line["value"]);
    assert_eq!(value["count"], version, "{line}");
    assert!(value["copies"].as_array().unwrap().iter().all(|copy| *copy == version), "{line}");
    version
}

#[test]
fn five_lines_a_second_come_from_a_writer_at_full_speed_each_a_whole_version() {
    let sandbox = Sandbox::new();
    let _feeder = sandbox.feeder("speed");
    let lines = sandbox.json_lines(&["watch", "speed", "--max-rate", "5", "--for", "2100ms"]);
    // At 0.0, 0.2, ... 2.0 s; on a busy machine one may come too late to be within the time.
    assert!((9..=11).contains(&lines.len()), "{} lines", lines.len());
    let versions: Vec<u64> = lines.iter().map(whole).collect();
    assert!(versions.is_sorted_by(|a, b| a < b));
    assert!(versions[versions.len() - 1] - versions[0] > 10_000, "it was written all the time");
    let times: Vec<u64> = lines.iter().map(|line| line["at_ms"].as_u64().unwrap()).collect();
    // Times are told in whole milliseconds.
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 199), "{times:?}");
}

#[test]
fn without_a_limit_every_change_of_a_slow_writer_is_told() {
    let sandbox = Sandbox::new();
    let state = sandbox.domain().writer::<[u8]>("x").unwrap();
    state.replace(b"0").unwrap();
    let watch = sandbox.spawn(&["watch", "x", "--count", "4", "--text"]);
    // The one watching is subscribed, and asleep, before anything changes.
    wait_until("it watches", || state.info().unwrap().subscribers.len() == 2);
    for number in 1..=3_u8 {
        std::thread::sleep(std::time::Duration::from_millis(150));
        state.replace(format!("{number}\n\0").as_bytes()).unwrap();
    }
    let text = String::from_utf8(finish(watch).stdout).unwrap();
    let lines: Vec<&str> =
        text.lines().map(|line| line.split_once("version ").unwrap().1).collect();
    assert_eq!(lines, ["1  0", "2  1", "3  2", "4  3"]);
}

#[test]
fn a_command_gets_each_value_on_its_standard_input() {
    let sandbox = Sandbox::new();
    let state = sandbox.domain().writer::<[u8]>("config").unwrap();
    state.replace(b"first").unwrap();
    let script = "cat >> out; echo \" $MAINSTAY_STATE $MAINSTAY_VERSION\" >> out";
    let watch = sandbox.spawn(&["watch", "config", "--count", "2", "--exec", script]);
    let out = || fs::read_to_string(sandbox.path("out")).unwrap_or_default();
    wait_until("the first value is there", || out() == "first config 1\n");
    state.replace(b"second").unwrap();
    let run = finish(watch);
    assert_eq!((run.code, &*run.stderr), (0, ""));
    assert_eq!(out(), "first config 1\nsecond config 2\n");
}

#[test]
fn a_command_that_fails_is_told_of_and_the_watch_goes_on() {
    let sandbox = Sandbox::new();
    let _holder = sandbox.holder("x", "a value that nobody reads");
    let run = sandbox.run(&["watch", "x", "--exec", "exit 3", "--count", "1"]);
    assert_eq!(run.code, 0);
    assert!(run.stderr.starts_with("warning: the command ended with exit status: 3"), "{run:?}");
}

#[test]
fn a_watch_ends_after_its_time_and_keeps_its_state_from_being_removed() {
    let sandbox = Sandbox::new();
    let state = sandbox.domain().writer::<[u8]>("x").unwrap();
    let lines = sandbox.json_lines(&["watch", "x", "--for", "50ms"]);
    assert_eq!((lines.len(), &lines[0]["version"]), (1, &0.into()));

    // Deleting is refused while another process is subscribed: this one is stopped by then.
    state.replace(b"1").unwrap();
    let error = {
        let _watch = sandbox.spawn(&["watch", "x"]);
        wait_until("it watches", || state.info().unwrap().subscribers.len() == 2);
        sandbox.fails(1, &["rm", "x"])
    };
    assert!(error.contains("is subscribed; stop it first"), "{error}");
}

#[test]
fn a_watch_can_wait_for_a_state_that_does_not_exist_yet() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.ok(&["watch", "x", "--wait", "--for", "60ms"]), "");
    let watch = sandbox.spawn(&["watch", "x", "--wait", "--count", "1"]);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let _holder = sandbox.holder("x", "here");
    let run = finish(watch);
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(text.ends_with("  version 1  here\n") || text.contains("  version 0  "), "{text}");
}

#[test]
fn a_reader_of_the_lines_that_leaves_early_is_no_failure() {
    let sandbox = Sandbox::new();
    let _feeder = sandbox.feeder("speed");
    let mut command = sandbox.command(&["watch", "speed"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!((run.code, &*run.stderr), (0, ""));
}

/// Waits for its end.
fn finish(mut running: crate::sandbox::Running) -> Run {
    use std::io::Read;
    let (mut stdout, mut stderr) = (Vec::new(), String::new());
    running.0.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
    running.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Run { code: running.0.wait().unwrap().code().unwrap(), stdout, stderr }
}
