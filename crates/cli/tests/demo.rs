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
fn the_second_act_kills_the_writer_of_states_and_nobody_notices() {
    let output = demo(&["--kills", "1", "--seed", "4", "--json"]);
    let outcome = json(&output);
    assert!(output.status.success(), "{outcome:#}");
    let vitals = &outcome["vitals"];
    assert_eq!((&vitals["ok"], &vitals["kills"]), (&true.into(), &1.into()), "{vitals:#}");
    for fault in ["torn", "mixed", "early", "behind", "left"] {
        assert_eq!(vitals[fault], 0, "{fault} in {vitals:#}");
    }
    let samples = vitals["samples"].as_u64().unwrap();
    assert!(samples > 100, "{vitals:#}");
    for reader in ["poll", "woken", "limited", "pair"] {
        assert_eq!(vitals["readers"][reader]["last"], samples, "{reader} in {vitals:#}");
    }
    let limited = vitals["readers"]["limited"]["changes"].as_f64().unwrap();
    assert!(limited <= 2.0 + 5.0 * (vitals["seconds"].as_f64().unwrap() + 1.0), "{vitals:#}");
    assert_eq!(outcome["totals"]["kills"], 1, "the kills of the first act alone");
}

#[test]
fn people_get_a_row_a_round_and_the_verdict_as_the_last_line() {
    let output = demo(&["--kills", "2", "--seed", "2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(!text.contains('\x1b'), "no colours where there is no terminal");
    let rows = text.lines().filter(|line| line.trim_start().starts_with(['1', '2'])).count();
    assert!(rows >= 2, "{text}");
    let acts: Vec<usize> = [
        "round",
        "Second act. ",
        "VITALS samples=",
        "Third act. ",
        "Fourth act. ",
        "All is well. ",
    ]
    .iter()
    .map(|what| text.find(what).unwrap_or_else(|| panic!("no {what:?} in {text}")))
    .collect();
    assert!(acts.is_sorted(), "{text}");
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
fn states_that_are_not_written_in_one_transaction_are_found_mixed() {
    let output = demo(&["--kills", "1", "--seed", "3", "--json", "--plant", "mixed"]);
    let outcome = json(&output);
    assert_eq!(output.status.code(), Some(3), "{outcome:#}");
    assert_eq!((&outcome["ok"], &outcome["planted"]), (&false.into(), &"mixed".into()));
    let vitals = &outcome["vitals"];
    assert!(vitals["mixed"].as_u64().unwrap() > 0, "{vitals:#}");
    assert_eq!((&vitals["torn"], &vitals["left"]), (&0.into(), &0.into()), "{vitals:#}");
}

#[test]
fn the_third_act_cuts_the_power_and_gets_one_moment_back() {
    let output = demo(&["--kills", "1", "--seed", "5", "--json"]);
    let outcome = json(&output);
    assert!(output.status.success(), "{outcome:#}");
    let power = &outcome["power"];
    for fault in ["torn", "lost", "mixed"] {
        assert_eq!(power[fault], 0, "{fault} in {power:#}");
    }
    assert_eq!((&power["images"], &power["checkpoints"]), (&40.into(), &8.into()), "{power:#}");
    assert!(power["records"].as_u64().unwrap() > 100, "{power:#}");
}

#[test]
fn a_disk_that_says_it_has_what_it_has_not_is_found() {
    let output = demo(&["--kills", "1", "--seed", "3", "--json", "--plant", "lied"]);
    let outcome = json(&output);
    assert_eq!(output.status.code(), Some(3), "{outcome:#}");
    assert_eq!((&outcome["ok"], &outcome["planted"]), (&false.into(), &"lied".into()));
    assert!(outcome["power"]["lost"].as_u64().unwrap() > 0, "{outcome:#}");
}

#[test]
fn the_fourth_act_kills_a_leader_and_all_copies_end_equal() {
    let output = demo(&["--kills", "1", "--seed", "6", "--json"]);
    let outcome = json(&output);
    assert!(output.status.success(), "{outcome:#}");
    let act = &outcome["packages"];
    for fault in ["lost", "different", "missing", "ghosts"] {
        assert_eq!(act[fault], 0, "{fault} in {act:#}");
    }
    let number = |name: &str| act[name].as_u64().unwrap();
    if number("packages") == 0 {
        return eprintln!("no package index on this machine: the act was left out");
    }
    assert!(number("kills") == 1 && number("records") > 100, "{act:#}");
    assert!((1..number("steps")).contains(&number("acknowledged")), "{act:#}");
    assert!(number("missed_bytes") < number("whole_bytes") / 2, "{act:#}");
}

#[test]
fn a_follower_that_does_not_delete_is_found() {
    let output = demo(&["--kills", "1", "--seed", "3", "--json", "--plant", "ghosts"]);
    let outcome = json(&output);
    let act = &outcome["packages"];
    if act["packages"] == 0 {
        return eprintln!("no package index on this machine: the act was left out");
    }
    assert_eq!(output.status.code(), Some(3), "{outcome:#}");
    assert_eq!((&outcome["ok"], &outcome["planted"]), (&false.into(), &"ghosts".into()));
    assert!(act["ghosts"].as_u64().unwrap() > 0, "{act:#}");
    assert_eq!(
        (&act["lost"], &act["missing"], &act["different"]),
        (&0.into(), &0.into(), &0.into())
    );
}

#[test]
fn a_demo_killed_in_its_second_act_leaves_no_process_and_no_folder() {
    let mut demo = Command::new(MAINSTAY)
        .args(["demo", "--kills", "1", "--json"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let memory = std::path::Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let prefix = format!("mainstay-vitals-{}-", demo.id());
    let folders = || -> usize {
        let entries = std::fs::read_dir(&parent).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).count()
    };
    let children = || -> Vec<_> {
        running().into_iter().filter(|(_, parent, _)| *parent == demo.id()).collect()
    };
    wait_until("a writer and four readers run", || folders() == 1 && children().len() == 5);
    std::thread::sleep(Duration::from_millis(200));
    let seen = children();
    demo.kill().unwrap();
    demo.wait().unwrap();
    assert!(seen.len() >= 4);
    wait_until("nothing of it is left", || {
        let running = running();
        let is_gone = |(pid, _, start): &(u32, u32, u64)| {
            !running.iter().any(|(other, _, other_start)| (other, other_start) == (pid, start))
        };
        folders() == 0 && seen.iter().all(is_gone)
    });
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
