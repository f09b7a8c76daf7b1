//! What `verify` says of sound, damaged and different stores.

use crate::sandbox::{Run, Sandbox};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

fn filled() -> Sandbox {
    let sandbox = Sandbox::with_people();
    let lines: String = (0..400).map(|number| format!("k{number},v{number}\n")).collect();
    fs::write(sandbox.path("people.csv"), format!("key,value\n{lines}")).unwrap();
    sandbox.ok(&["import", "people.csv", "people"]);
    sandbox
}

#[test]
fn a_sound_store_is_said_to_be_sound_file_by_file() {
    let sandbox = filled();
    let text = sandbox.ok(&["verify", "people"]);
    assert!(text.ends_with("people: sound, 400 records\n"), "{text}");
    let document = sandbox.json(&["verify", "people"]);
    assert_eq!((&document["sound"], &document["records"]), (&true.into(), &400.into()));
    let files = document["files"].as_array().unwrap();
    assert_eq!(files[0]["kind"], "header");
    let changes = files.iter().filter(|file| file["kind"] == "log");
    assert_eq!(changes.map(|file| file["records"].as_u64().unwrap()).sum::<u64>(), 400);
}

#[test]
fn damage_is_named_with_its_file_and_place_and_gives_status_3() {
    let sandbox = filled();
    let log = sandbox.flip("people", ".log", 4_096 + 70);
    let run = sandbox.run(&["verify", "people"]);
    let text = String::from_utf8(run.stdout).unwrap();
    let name = log.file_name().unwrap().to_str().unwrap();
    assert_eq!(run.code, 3, "{text}");
    assert!(text.contains(&format!("{name} at byte 4096: ")) && text.contains("DAMAGED"), "{text}");
    assert!(text.contains("people: damaged") && text.contains("next: "), "{text}");
    let error = sandbox.fails(3, &["get", "people", "k1"]);
    assert!(error.contains(name) && error.contains("4096"), "{error}");
    let run = sandbox.run(&["verify", "people", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&document["sound"], &document["can_be_opened"]), (&false.into(), &false.into()));
}

#[test]
fn damage_that_has_a_copy_is_told_and_compacting_heals_it() {
    let sandbox = filled();
    sandbox.flip("people", ".log", 20);
    let run = sandbox.run(&["verify", "people"]);
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(
        run.code == 3 && text.contains("nothing is lost") && text.contains("store compact"),
        "{text}"
    );
    assert_eq!(sandbox.ok(&["get", "people", "k1"]), "v1\n");
    sandbox.ok(&["compact", "people"]);
    assert!(sandbox.ok(&["verify", "people"]).ends_with("sound, 400 records\n"));
    sandbox.flip("people", ".image", 4_096 + 40);
    assert_eq!(sandbox.run(&["verify", "people"]).code, 3);
}

#[test]
fn stores_are_compared_record_by_record_whatever_their_files_are() {
    let sandbox = filled();
    sandbox.ok(&["create", "other", "--key-bytes", "8", "--value-bytes", "16", "--shards", "1"]);
    sandbox.ok(&["import", "people.csv", "other"]);
    sandbox.ok(&["compact", "other"]);
    assert_eq!(sandbox.ok(&["verify", "people", "--against", "other"]), "equal: 400 records\n");
    sandbox.ok(&["put", "other", "k7", "changed"]);
    sandbox.ok(&["put", "other", "more", "x"]);
    sandbox.ok(&["rm", "other", "k8", "k9"]);
    let run = sandbox.run(&["verify", "people", "--against", "other", "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(run.code, 3);
    let counts = ["equal", "different", "only_here", "only_there"].map(|name| found[name].as_u64());
    assert_eq!(counts, [Some(397), Some(1), Some(2), Some(1)]);
    assert_eq!(found["keys"][0]["key"], "k7");
    let run = sandbox.run(&["verify", "people", "--against", "other"]);
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(text.contains("k7    v7    changed") && text.contains("more  -     x"), "{text}");
    sandbox.ok(&["create", "wide", "--key-bytes", "9", "--value-bytes", "16"]);
    let error = sandbox.fails(1, &["verify", "people", "--against", "wide"]);
    assert!(error.contains("same sizes"), "{error}");
}

#[test]
fn scrubbing_finds_damage_of_either_kind_and_goes_on_where_it_is_told_to() {
    let sandbox = filled();
    sandbox.ok(&["create", "pictures", "--values", "any"]);
    sandbox.ok(&["import", "people.csv", "pictures"]);
    for store in ["people", "pictures"] {
        let text = sandbox.ok(&["scrub", store]);
        assert!(text.ends_with("read, and as it was written\n"), "{text}");
        let sound = sandbox.json(&["scrub", store, "--rate", "0"]);
        assert_eq!((&sound["sound"], &sound["next"]), (&true.into(), &serde_json::Value::Null));
        let log = sandbox.flip(store, ".log", 4_096 + 70);
        let name = log.file_name().unwrap().to_str().unwrap();
        let run = sandbox.run(&["scrub", store, "--rate", "64MiB"]);
        let text = String::from_utf8(run.stdout).unwrap();
        assert_eq!(run.code, 3, "{text}");
        assert!(text.contains(&format!("{name} at byte ")) && text.contains("next: "), "{text}");
        // Behind the damaged file all is well.
        let rest = sandbox.json(&["scrub", store, "--from", &format!("{name}~")]);
        assert!(
            rest["files"].as_u64() < sound["files"].as_u64() && rest["sound"] == true,
            "{rest}"
        );
        let error = sandbox.fails(1, &["scrub", store, "--from", "zebra"]);
        assert!(error.contains("none comes after it"), "{error}");
    }
    assert!(sandbox.fails(1, &["scrub", "."]).contains("no store"));
}

#[test]
fn a_scrub_is_interrupted_within_a_file_and_says_where_to_go_on() {
    let sandbox = filled();
    // A file takes it minutes.
    let mut command = sandbox.command(&["scrub", "people", "--rate", "1KiB"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let process = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    kill_process(Pid::from_child(&process), Signal::INT).unwrap();
    let run = Run::of(process.wait_with_output().unwrap());
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(run.code == 130 && text.contains("next: go on with --from "), "{} {text}", run.code);
}

#[test]
fn a_store_whose_directory_is_a_mount_point_is_not_replaced_and_it_is_said_what_to_do() {
    // Where whoever runs this may mount something for themselves.
    let may = Command::new("unshare").args(["-rm", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("nothing can be mounted here");
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.ok(&["create", "pictures", "--values", "any", "--shards", "1"]);
    sandbox.ok(&["put", "pictures", "alice", "a picture"]);
    sandbox.flip("pictures", ".log", 4_096 + 70);
    for told in ["repair mounted", "reshard mounted --shards 2"] {
        let (program, mut command) = (env!("CARGO_BIN_EXE_mainstay"), Command::new("unshare"));
        let script = format!(
            "mkdir -p mounted && mount -t tmpfs none mounted && cp pictures/* mounted \
             && {{ {} '{program}' store {told}; code=$?; ls; exit $code; }}",
            // What is damaged has no other number of shards.
            if told.starts_with("repair") { "" } else { "cp sound/* mounted;" },
        );
        if !sandbox.path("sound").exists() {
            sandbox.ok(&["create", "sound", "--values", "any", "--shards", "1"]);
        }
        command.args(["-rm", "sh", "-c", &script]).current_dir(sandbox.path(""));
        let run = Run::of(command.stdin(Stdio::null()).output().unwrap());
        assert!(run.code == 1 && run.stderr.contains("mounted is a mount point"), "{run:?}");
        assert_eq!(String::from_utf8(run.stdout).unwrap(), "mounted\npictures\nsound\n");
    }
}
