//! The demo from outside: its verdict, the faults it must find, and that it leaves nothing behind.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const MAINSTAY: &str = env!("CARGO_BIN_EXE_mainstay");

fn demo(arguments: &[&str]) -> Output {
    Command::new(MAINSTAY)
        .arg("demo")
        .args(arguments)
        .output()
        .expect("the binary was built for this test")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Running processes as pid, parent and start time: the last tells two of one number apart.
fn running() -> Vec<(u32, u32, u64)> {
    let processes = std::fs::read_dir("/proc").expect("/proc is mounted").flatten();
    processes
        .filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let pid = stat.split(' ').next()?.parse().ok()?;
            // The name may have anything in it: the fields are counted from behind it.
            let fields: Vec<_> = stat[stat.rfind(')')? + 2..].split(' ').collect();
            (fields[0] != "Z").then_some((pid, fields[1].parse().ok()?, fields[19].parse().ok()?))
        })
        .collect()
}

#[test]
fn three_kills_lose_nothing() {
    let output = demo(&["--kills", "3", "--seed", "1", "--json"]);
    let outcome = json(&output);
    assert!(output.status.success(), "{outcome:#}");
    assert_eq!(outcome["ok"], true);
    let totals = &outcome["totals"];
    assert_eq!(totals["kills"], 3);
    for fault in ["lost", "torn", "leaked", "reader_stalls"] {
        assert_eq!(totals[fault], 0, "{fault} in {outcome:#}");
    }
    let rounds = outcome["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 3);
    for round in rounds {
        assert!(round["recovered"].as_u64().unwrap() > 100, "{round}");
        assert!(round["reads_per_s"].as_u64().unwrap() > 0, "{round}");
        assert!(round["watched"][1].as_u64().unwrap() > 100, "{round}");
    }
    let sampled = outcome["sampled"].as_object().unwrap();
    for kind in ["processes", "threads", "descriptors", "sockets", "counters"] {
        assert!(sampled[kind].as_u64().unwrap() > 0, "{kind} in {outcome:#}");
    }
    assert!(outcome["hand_over"]["pause_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn people_get_a_row_a_round_and_the_verdict_as_the_last_line() {
    let output = demo(&["--kills", "2", "--seed", "2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(!text.contains('\x1b'), "no colours where there is no terminal");
    let rows = text.lines().filter(|line| line.trim_start().starts_with(['1', '2'])).count();
    assert!(rows >= 2, "{text}");
    assert_eq!(
        text.lines().last(),
        Some("DEMO kills=2 lost=0 torn=0 leaked=0 reader_stalls=0"),
        "{text}"
    );
}

#[test]
fn a_fault_done_on_purpose_is_found_and_named() {
    for (plant, total) in
        [("lost", "lost"), ("torn", "torn"), ("leaked", "leaked"), ("stalled", "reader_stalls")]
    {
        let output = demo(&["--kills", "2", "--seed", "3", "--json", "--plant", plant]);
        let outcome = json(&output);
        assert_eq!(output.status.code(), Some(3), "{plant}: {outcome:#}");
        assert_eq!(outcome["ok"], false, "{plant}");
        assert_eq!(outcome["planted"], plant);
        // A torn record is counted by whoever meets it: the successor, and perhaps the reader.
        let count = outcome["totals"][total].as_u64().unwrap();
        assert!((1..=2).contains(&count), "{plant}: {outcome:#}");
        for other in ["lost", "torn", "leaked", "reader_stalls"] {
            assert!(other == total || outcome["totals"][other] == 0, "{plant}: {outcome:#}");
        }
    }
}

#[test]
fn a_demo_killed_in_the_middle_takes_its_processes_with_it() {
    let mut demo = Command::new(MAINSTAY)
        .args(["demo", "--kills", "100", "--json"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let children = || -> Vec<_> {
        running().into_iter().filter(|(_, parent, _)| *parent == demo.id()).collect()
    };
    wait_until("a recorder, a reader and a watcher run", || children().len() == 3);
    std::thread::sleep(Duration::from_millis(200));
    // The recorder may be another one by now.
    let seen = children();
    demo.kill().unwrap();
    demo.wait().unwrap();
    assert!(seen.len() >= 2);
    wait_until("none of them is left", || {
        let running = running();
        seen.iter().all(|(pid, _, start)| {
            !running.iter().any(|(other, _, other_start)| (other, other_start) == (pid, start))
        })
    });
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn wrong_arguments_are_refused_with_a_hint() {
    for arguments in [&["--kills", "0"][..], &["--seed", "x"], &["--plant", "nonsense"]] {
        let output = demo(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("--help"));
    }
}
