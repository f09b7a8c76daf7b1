//! States that outlive their subscribers, and the end of states.

use crate::sandbox::Sandbox;
use std::fs;

#[test]
fn a_state_that_is_kept_outlives_all_its_processes() {
    let sandbox = Sandbox::new();
    let mut holder = sandbox.holder("motto", "keep going");
    let told = sandbox.ok(&["persist", "motto", "motto.kept"]);
    assert!(told.starts_with("motto: version 1 is kept in "), "{told}");
    assert!(told.ends_with("motto.kept (survives processes)\n"), "{told}");
    holder.0.kill().unwrap();
    holder.0.wait().unwrap();
    assert_eq!(sandbox.ok(&["get", "motto"]), "keep going\n");
    assert_eq!(sandbox.ok(&["set", "motto", "go on"]), "motto: version 2, 5 B\n");
    assert_eq!(sandbox.listed(), ["motto"]);
}

#[test]
fn a_state_that_survives_the_machine_comes_back_from_its_file() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["set", "motto", "keep going", "--persist", "motto.kept", "--machine"]);
    // What a power cut leaves: the disk, and an empty folder in memory.
    for name in sandbox.files().iter().filter(|name| *name != "motto.kept") {
        fs::remove_file(sandbox.path(name)).unwrap();
    }
    sandbox.fails(1, &["get", "motto"]);
    sandbox.ok(&["persist", "motto", "motto.kept", "--machine"]);
    assert_eq!(sandbox.ok(&["get", "motto"]), "keep going\n");
    assert_eq!(sandbox.ok(&["get", "motto", "--version"]), "1\n");
}

#[test]
fn a_kept_state_has_one_file_and_no_way_back() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["set", "motto", "x", "--persist", "motto.kept", "--machine"]);
    let error = sandbox.fails(1, &["persist", "motto", "other.kept"]);
    assert!(error.contains("motto.kept, which cannot be changed"), "{error}");
    sandbox.fails(1, &["persist", "motto", "motto.kept"]);
    assert!(!sandbox.path("other.kept").exists());
}

#[test]
fn rm_deletes_the_state_and_its_file() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["set", "motto", "x", "--persist", "motto.kept"]);
    assert!(sandbox.path("motto.kept").exists());
    assert_eq!(sandbox.ok(&["rm", "motto"]), "removed motto\n");
    assert!(sandbox.listed().is_empty());
    assert!(!sandbox.path("motto.kept").exists());
    sandbox.fails(1, &["get", "motto"]);
}

#[test]
fn rm_names_the_process_that_is_in_its_way() {
    let sandbox = Sandbox::new();
    let holder = sandbox.holder("temperature", "21.5");
    let error = sandbox.fails(1, &["rm", "temperature"]);
    assert!(error.contains(&format!("process {} is subscribed", holder.0.id())), "{error}");
    assert_eq!(sandbox.ok(&["get", "temperature"]), "21.5\n");
}

#[test]
fn a_damaged_state_is_told_of_and_removed_after_a_question() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["set", "motto", "x", "--persist", "motto.kept"]);
    let file = sandbox.path("motto.state");
    let mut bytes = fs::read(&file).unwrap();
    bytes[40] ^= 1;
    fs::write(&file, bytes).unwrap();
    for arguments in [&["get", "motto"][..], &["set", "motto", "y"], &["info", "motto"]] {
        let error = sandbox.fails(3, arguments);
        assert!(error.contains("`mainstay state rm`"), "{error}");
    }
    let run = sandbox.run(&["rm", "motto"]);
    assert_eq!(run.code, 2, "there is nobody to ask: {}", run.stderr);
    assert!(file.exists());
    let run = sandbox.run(&["rm", "motto", "--yes"]);
    assert_eq!((run.code, &*run.stdout), (0, &b"removed motto\n"[..]));
    assert!(sandbox.listed().is_empty());
}
