//! Stores of keys and values of any size.

use crate::sandbox::{Sandbox, wait_until};
use mainstay::store::{Durability, LogOptions, LogStore};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    process::Command,
};

fn with_pictures() -> Sandbox {
    let sandbox = Sandbox::new();
    let made = sandbox.ok(&["create", "pictures", "--values", "any", "--segment", "64KiB"]);
    assert!(made.contains("keys and values of any size"), "{made}");
    sandbox
}

#[test]
fn a_record_of_any_size_is_there_for_the_next_command_until_it_is_removed() {
    let sandbox = with_pictures();
    let photo = vec![0xA5_u8; 50_000];
    fs::write(sandbox.path("photo.bin"), &photo).unwrap();
    sandbox.ok(&["put", "pictures", "alice", "photo.bin", "--value-as", "file"]);
    sandbox.ok(&["put", "pictures", "b", ""]);
    assert!(sandbox.run(&["get", "pictures", "alice", "--raw"]).stdout == photo);
    assert_eq!(sandbox.ok(&["get", "pictures", "alice", "--hex"]).trim().len(), 100_000);
    assert_eq!(sandbox.ok(&["scan", "pictures", "--count"]), "2\n");
    assert_eq!(
        sandbox.json(&["get", "pictures", "b"]),
        serde_json::json!({"key": "b", "value": ""})
    );
    sandbox.fails(1, &["put", "pictures", "b", "2", "--new"]);
    sandbox.fails(1, &["put", "pictures", "b", "2", "--expect", "1"]);
    sandbox.ok(&["put", "pictures", "b", "2", "--expect", ""]);
    assert_eq!(sandbox.ok(&["rm", "pictures", "alice"]), "removed 1 record\n");
    sandbox.fails(1, &["get", "pictures", "alice"]);
    let long = "k".repeat(4_097);
    assert!(sandbox.fails(2, &["put", "pictures", &long, "1"]).contains("4096"));
}

#[test]
fn what_is_exported_is_imported_with_every_byte() {
    let sandbox = with_pictures();
    sandbox.ok(&["put", "pictures", "00ff", "610000", "--key-as", "hex", "--value-as", "hex"]);
    sandbox.ok(&["put", "pictures", "text", "with\nlines"]);
    for file in ["all.jsonl", "all.csv"] {
        sandbox.ok(&["export", "pictures", file]);
        let copy = format!("copy-{file}");
        sandbox.ok(&["create", &copy, "--values", "any"]);
        sandbox.ok(&["import", file, &copy]);
        let export = |store: &str| sandbox.ok(&["export", store, "--sorted"]);
        assert_eq!(export(&copy), export("pictures"));
    }
    let value = sandbox.ok(&["get", "pictures", "00ff", "--key-as", "hex", "--hex"]);
    assert_eq!(value, "610000\n");
}

#[test]
fn compaction_makes_it_small_and_stats_say_so() {
    let sandbox = with_pictures();
    let lines: String = (0..400)
        .map(|at| format!("{{\"key\": \"k{}\", \"value\": \"{}\"}}\n", at % 4, "x".repeat(2_000)))
        .collect();
    fs::write(sandbox.path("many.jsonl"), lines).unwrap();
    sandbox.ok(&["import", "many.jsonl", "pictures"]);
    let before = sandbox.json(&["stats", "pictures"]);
    let report = sandbox.json(&["compact", "pictures"]);
    assert!(report["bytes_before"].as_u64().unwrap() > 700_000, "{report}");
    assert!(report["bytes_after"].as_u64().unwrap() < 200_000, "{report}");
    let after = sandbox.json(&["stats", "pictures"]);
    assert_eq!((&before["records"], &after["records"]), (&4.into(), &4.into()));
    assert!(sandbox.ok(&["stats", "pictures"]).contains("keys and values of any size"));
    assert!(sandbox.ok(&["verify", "pictures"]).contains("sound, 4 records"));
}

#[test]
fn a_flipped_bit_is_found() {
    let sandbox = with_pictures();
    sandbox.ok(&["put", "pictures", "alice", &"x".repeat(5_000)]);
    let log = (0..2_u32)
        .map(|shard| sandbox.path(&format!("pictures/any-{shard:04}-0000000000000001.log")))
        .find(|path| fs::metadata(path).unwrap().len() > 5_000)
        .unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(log).unwrap();
    file.write_all_at(b"y", 7_000).unwrap();
    let told = sandbox.run(&["verify", "pictures"]);
    assert_eq!(told.code, 3);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("at byte 4096"), "{told}");
    // Not served, either: the hint spares the opening from reading it, and the reading finds it.
    let error = sandbox.fails(3, &["get", "pictures", "alice"]);
    assert!(error.contains("not as it was written"), "{error}");
}

#[test]
fn a_copy_takes_what_is_new_and_a_store_is_made_of_it() {
    let sandbox = with_pictures();
    for number in 0..40 {
        let key = format!("k{number}");
        sandbox.ok(&["put", "pictures", &key, &"x".repeat(4_000)]);
    }
    let bytes = |report: &serde_json::Value| report["bytes_copied"].as_u64().unwrap();
    let first = sandbox.json(&["backup", "pictures", "copy", "--check"]);
    assert_eq!((&first["records"], &first["checked"]), (&40.into(), &true.into()));
    assert!(bytes(&first) > 160_000, "{first}");
    sandbox.ok(&["put", "pictures", "new", "one"]);
    let second = sandbox.json(&["backup", "pictures", "copy"]);
    assert!(second["records"] == 41 && bytes(&second) < 2_000, "{second}");
    assert!(sandbox.ok(&["verify", "copy"]).contains("sound"));
    sandbox.fails(1, &["get", "copy", "new"]);
    assert!(sandbox.fails(1, &["restore", "copy", "pictures"]).contains("pictures"));
    let restored = sandbox.ok(&["restore", "copy", "again"]);
    assert!(restored.starts_with("again: 41 records; it leads with epoch "), "{restored}");
    assert!(!sandbox.path("again.restoring").exists());
    let export = |store: &str| sandbox.ok(&["export", store, "--sorted"]);
    assert_eq!(export("again"), export("pictures"));
    sandbox.ok(&["put", "again", "new", "two"]);
    // Damage of the copy is told, and nothing is made of it.
    let mut logs = fs::read_dir(sandbox.path("copy")).unwrap().map(|found| found.unwrap().path());
    let log = logs.find(|path| fs::metadata(path).unwrap().len() > 30_000).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(log).unwrap();
    file.write_all_at(b"y", 20_000).unwrap();
    assert_eq!(sandbox.run(&["verify", "copy"]).code, 3);
    sandbox.fails(3, &["backup", "pictures", "copy", "--check"]);
    sandbox.fails(3, &["restore", "copy", "other"]);
    assert!(!sandbox.path("other").exists() && !sandbox.path("other.restoring").exists());
}

#[test]
fn a_damaged_store_becomes_one_of_what_is_sound_and_its_files_are_kept() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["create", "pictures", "--values", "any", "--shards", "1"]);
    for key in ["alice", "bob", "carol"] {
        sandbox.ok(&["put", "pictures", key, "a picture"]);
    }
    let sound = "pictures: sound, 3 records; there was nothing to do\n";
    assert_eq!(sandbox.ok(&["repair", "pictures"]), sound);
    // The second copy of a header costs nothing.
    sandbox.flip("pictures", ".log", 520);
    let report = sandbox.json(&["repair", "pictures"]);
    assert_eq!(
        (&report["found"], &report["left"], &report["records"]),
        (&1.into(), &0.into(), &3.into())
    );
    assert!(report["kept"].is_null());
    assert_eq!(sandbox.ok(&["repair", "pictures"]), sound);
    // A value does.
    let log = fs::read(sandbox.file("pictures", ".log")).unwrap();
    let at = log.windows(9).position(|bytes| bytes == b"a picture").unwrap();
    let damaged = fs::read(sandbox.flip("pictures", ".log", at)).unwrap();
    assert_eq!(sandbox.run(&["verify", "pictures"]).code, 3);
    let run = sandbox.run(&["repair", "pictures"]);
    let said = String::from_utf8(run.stdout).unwrap();
    assert_eq!(run.code, 3, "{said}");
    assert!(
        said.contains("2 records saved; the last values of 1 key are lost\nlost: alice\n"),
        "{said}"
    );
    assert!(said.contains("next: ") && said.contains("pictures.damaged-1"), "{said}");
    assert_eq!(fs::read(sandbox.file("pictures.damaged-1", ".log")).unwrap(), damaged);
    assert!(!sandbox.path("pictures.repairing").exists());
    sandbox.fails(1, &["get", "pictures", "alice"]);
    assert_eq!(sandbox.ok(&["get", "pictures", "bob"]), "a picture\n");
    sandbox.ok(&["verify", "pictures"]);
    // As a program has it.
    sandbox.flip("pictures", ".log", 4_096 + 60);
    let run = sandbox.run(&["repair", "pictures", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(
        (run.code, &report["records"], &report["saved"]["keys_lost"]),
        (3, &1.into(), &1.into())
    );
    assert_eq!(report["saved"]["keys"][0], serde_json::json!({"key": "bob"}));
    assert!(report["kept"].as_str().unwrap().ends_with("pictures.damaged-2"));
    assert_eq!(report["saved"]["guessed"], false);
    // Both copies of the header.
    let header = sandbox.path("pictures/any");
    let mut bytes = fs::read(&header).unwrap();
    (bytes[20], bytes[512 + 20]) = (!bytes[20], !bytes[512 + 20]);
    fs::write(&header, bytes).unwrap();
    let said = sandbox.ok(&["repair", "pictures"]);
    assert!(said.contains("is a guess\n") && said.contains("sound, 1 records"), "{said}");
}

/// What a key is shown as is given again, as digits from 0x on.
fn given(shown: &str) -> [&str; 3] {
    [shown, "--key-as", if shown.starts_with("0x") { "hex" } else { "text" }]
}

#[test]
fn keys_that_differ_in_zeros_at_their_end_are_told_apart_and_can_be_given_again() {
    let sandbox = Sandbox::new();
    let keys = ["a", "0x6100", "0x610000", "0x3078"];
    for store in ["one", "other"] {
        sandbox.ok(&["create", store, "--values", "any"]);
        for (key, value) in keys.into_iter().zip(["00", "0000", "", "61"]) {
            // Of the other one all values are one zero longer.
            let value = if store == "one" { value.to_owned() } else { format!("{value}00") };
            let with = [&["put", store][..], &given(key)[..1], &[&value, "--value-as", "hex"]];
            let said = sandbox.ok(&[&with.concat(), &given(key)[1..]].concat());
            assert!(said.starts_with(&format!("{key}: write ")), "{said}");
        }
    }
    let column = |text: &str| -> Vec<String> {
        let rows = text.lines().filter_map(|line| line.split_whitespace().next());
        rows.skip(1).take(keys.len()).map(ToOwned::to_owned).collect()
    };
    let wanted = ["0x3078", "a", "0x6100", "0x610000"];
    assert_eq!(column(&sandbox.ok(&["scan", "one"])), wanted);
    let run = sandbox.run(&["verify", "one", "--against", "other"]);
    let told = String::from_utf8(run.stdout).unwrap();
    assert_eq!((run.code, &column(&told)[..]), (3, &wanted.map(ToOwned::to_owned)[..]), "{told}");
    assert!(told.lines().nth(2).unwrap().contains("0x00 ") && told.contains("0x000000"), "{told}");
    let run = sandbox.run(&["verify", "one", "--against", "other", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let text = |text: &str| serde_json::json!({"key": text});
    let digits = |digits: &str| serde_json::json!({"key_hex": digits});
    assert_eq!(
        told["keys"],
        serde_json::json!([text("0x"), text("a"), digits("6100"), digits("610000")])
    );
    for (key, row) in keys.into_iter().zip([text("a"), digits("6100"), digits("610000")]) {
        for command in [&["put", "one"][..], &["touch", "one"]] {
            let more: &[&str] = if command[0] == "put" { &["1"] } else { &["--forever"] };
            let with = [command, &given(key)[..1], more, &given(key)[1..]].concat();
            let told = sandbox.json(&with);
            assert_eq!((&told["key"], &told["key_hex"]), (&row["key"], &row["key_hex"]), "{told}");
        }
        assert_eq!(sandbox.ok(&[&["get", "one"][..], &given(key)].concat()), "1\n");
        sandbox.ok(&[&["rm", "one"][..], &given(key)].concat());
        let error = sandbox.fails(1, &[&["rm", "one"][..], &given(key)].concat());
        assert!(error.contains(&format!("has no record {key};")), "{error}");
    }
    assert_eq!(column(&sandbox.ok(&["scan", "one"])), ["0x3078"]);
}

#[test]
fn a_key_that_is_too_long_is_told_the_most_there_can_be() {
    let sandbox = with_pictures();
    let error = sandbox.fails(2, &["put", "pictures", &"k".repeat(5_000), "v"]);
    assert!(error.contains("the key has more than 4096 bytes"), "{error}");
    assert!(!error.contains("give it as many"), "{error}");
    sandbox.ok(&["put", "pictures", &"k".repeat(4_096), "v"]);
}

/// Each command is in one of the lists: what works, what is refused with which words, and what is
/// tested elsewhere with such stores, or takes none.
#[test]
fn every_command_takes_such_a_store_or_refuses_it_and_says_why() {
    let sandbox = with_pictures();
    sandbox.ok(&["create", "people", "--key-bytes", "8", "--value-bytes", "16"]);
    fs::write(sandbox.path("one.csv"), "key,value\na,1\n").unwrap();
    let works: &[&[&str]] = &[
        &["put", "pictures", "a", "1"],
        &["get", "pictures", "a"],
        &["touch", "pictures", "a", "--ttl", "1h"],
        &["scan", "pictures"],
        &["watch", "pictures", "--for", "1ms"],
        &["stats", "pictures"],
        &["import", "one.csv", "pictures"],
        &["export", "pictures"],
        &["verify", "pictures"],
        &["scrub", "pictures"],
        &["repair", "pictures"],
        &["sweep", "pictures"],
        &["aside", "pictures"],
        &["compact", "pictures"],
        &["reshard", "pictures", "--shards", "4"],
        &["backup", "pictures", "copy"],
        &["restore", "copy", "again"],
        &["rm", "pictures", "a"],
    ];
    let refused: &[(&[&str], &str)] = &[
        (&["create", "x", "--values", "any", "--key-bytes", "8"], "--key-bytes"),
        (&["create", "x", "--values", "any", "--expiring"], "--expiring"),
        (&["backup", "people", "pictures"], "values of any size cannot be such a copy"),
        (&["restore", "pictures", "x"], "values of any size cannot be restored"),
        (&["verify", "pictures", "--against", "people"], "has keys and values of any size"),
        (&["verify", "people", "--against", "pictures"], "has keys and values of any size"),
    ];
    let elsewhere = ["serve", "follow", "promote", "rekey", "key", "bench", "help"];
    for arguments in works {
        sandbox.ok(arguments);
    }
    for (arguments, why) in refused {
        let run = sandbox.run(arguments);
        assert!(run.code != 0 && run.stderr.contains(why), "{arguments:?}: {}", run.stderr);
        assert!(!sandbox.path("x").exists(), "{arguments:?}");
    }
    let help = sandbox.ok(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    // What stands further in is a text that goes on.
    let commands = commands.filter(|line| !line.starts_with("   "));
    let commands: Vec<_> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 20, "{help}");
    for command in commands {
        let tested = works.iter().copied().chain(refused.iter().map(|(arguments, _)| *arguments));
        let is_tested = tested.into_iter().any(|arguments| arguments[0] == command);
        assert!(is_tested || elsewhere.contains(&command), "nobody tries `{command}` with it");
    }
}

#[test]
fn a_watch_tells_what_changes_whether_a_program_has_it_open_or_not() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("pictures");
    let store = LogStore::<String, String>::create(&path, &LogOptions::default()).unwrap();
    store.put(&"a1".into(), &"room".into(), Durability::Memory).unwrap();
    store.put(&"b1".into(), &"room".into(), Durability::Memory).unwrap();
    let arguments =
        ["watch", "pictures", "--prefix", "a", "--every", "5ms", "--count", "4", "--json"];
    let mut running = sandbox.spawn(&arguments);
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut next = || -> serde_json::Value {
        let mut line: serde_json::Value =
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(line.as_object_mut().unwrap().remove("at_ms").unwrap().is_u64());
        line
    };
    assert_eq!(next(), serde_json::json!({"event": "watching", "records": 1}));
    store.put(&"b1".into(), &"else".into(), Durability::Memory).unwrap();
    store.put(&"a2".into(), &"hall".into(), Durability::Memory).unwrap();
    assert_eq!(next(), serde_json::json!({"event": "put", "key": "a2", "value": "hall"}));
    store.delete(&"a1".into(), Durability::Memory).unwrap();
    assert_eq!(next(), serde_json::json!({"event": "deleted", "key": "a1"}));
    // Closed and opened by others, who are never refused because of it.
    store.close().unwrap();
    for value in ["1", "2"] {
        sandbox.ok(&["put", "pictures", "a2", value]);
        assert_eq!(next(), serde_json::json!({"event": "put", "key": "a2", "value": value}));
    }
    wait_until("the watch has ended", || running.0.try_wait().unwrap().is_some());
    let text = sandbox.ok(&["watch", "pictures", "a2", "--for", "30ms"]);
    assert_eq!(text, "watching 1 record\n");
}

#[test]
fn who_compares_stores_or_checks_a_copy_writes_nothing() {
    let sandbox = with_pictures();
    sandbox.ok(&["put", "pictures", "alice", "1"]);
    sandbox.ok(&["put", "pictures", "bob", "2", "--ttl", "1h"]);
    sandbox.ok(&["backup", "pictures", "copy"]);
    sandbox.ok(&["restore", "copy", "other"]);
    // As a medium has it that takes no more files.
    fs::remove_file(sandbox.path("copy").join("lock")).unwrap();
    let files = || {
        let mut files = Vec::new();
        for store in ["pictures", "copy", "other"] {
            for entry in fs::read_dir(sandbox.path(store)).unwrap() {
                let path = entry.unwrap().path();
                files.push((fs::read(&path).unwrap(), path));
            }
        }
        files.sort();
        files
    };
    let before = files();
    let both = ["verify", "pictures", "--against", "other"];
    assert_eq!(sandbox.ok(&both), "equal: 2 records\n");
    assert!(sandbox.ok(&["verify", "copy"]).contains("a sound copy"));
    assert!(files() == before);
    sandbox.ok(&["put", "other", "alice", "3"]);
    sandbox.ok(&["put", "other", "carol", "4"]);
    sandbox.ok(&["rm", "other", "bob"]);
    let run = sandbox.run(&[&both[..], &["--json"]].concat());
    let found: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let counts = ["equal", "different", "only_here", "only_there"].map(|name| found[name].as_u64());
    assert_eq!((run.code, counts), (3, [Some(0), Some(1), Some(1), Some(1)]));
}

#[test]
fn a_scan_reads_no_value_that_it_does_not_show() {
    let sandbox = with_pictures();
    for key in ["a", "b", "z"] {
        sandbox.ok(&["put", "pictures", key, &"x".repeat(1_000)]);
    }
    // The value of the last one is damaged.
    for entry in fs::read_dir(sandbox.path("pictures")).unwrap() {
        let path = entry.unwrap().path();
        let Some(at) = fs::read(&path).unwrap().windows(6).position(|found| found == b"zxxxxx")
        else {
            continue;
        };
        if path.extension().is_some_and(|ending| ending == "log") {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(b"y", at as u64 + 500).unwrap();
        }
    }
    sandbox.fails(3, &["get", "pictures", "z"]);
    assert_eq!(sandbox.ok(&["scan", "pictures", "--count"]), "3\n");
    let rows = sandbox.json_lines(&["scan", "pictures", "--limit", "2"]);
    assert_eq!((&rows[0]["key"], &rows[1]["key"]), (&"a".into(), &"b".into()));
    sandbox.fails(3, &["scan", "pictures"]);
}

#[test]
fn an_export_ends_when_it_is_interrupted_whatever_is_left() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["create", "pictures", "--values", "any", "--segment", "64MiB"]);
    fs::write(sandbox.path("photo"), "x".repeat(1 << 20)).unwrap();
    for number in 0..10 {
        let key = format!("k{number}");
        sandbox.ok(&["put", "pictures", &key, "photo", "--value-as", "file"]);
    }
    for arguments in [&["export", "pictures"][..], &["export", "pictures", "--sorted"]] {
        let mut export = sandbox.spawn(arguments);
        let mut stdout = export.0.stdout.take().unwrap();
        // It waits for somebody to read the first record.
        let mut first = [0];
        stdout.read_exact(&mut first).unwrap();
        let pid = export.0.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest).unwrap();
        assert_eq!(export.0.wait().unwrap().code(), Some(130), "{arguments:?}");
        assert!(rest.len() < 4 << 20, "{}", rest.len());
    }
}
