//! Making stores; reading, writing and removing records.

use crate::sandbox::{Run, Sandbox, wait_until};
use mainstay::store::{Durability, FixedStore, LogOptions, LogStore, Options};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

#[test]
fn a_record_is_there_for_the_next_command_until_it_is_removed() {
    let sandbox = Sandbox::with_people();
    assert!(
        sandbox.ok(&["put", "people", "alice", "room 12"]).starts_with("alice: write 1 of shard ")
    );
    assert_eq!(sandbox.ok(&["get", "people", "alice"]), "room 12\n");
    sandbox.ok(&["put", "people", "alice", "room 13"]);
    assert_eq!(sandbox.ok(&["get", "people", "alice"]), "room 13\n");
    assert_eq!(
        sandbox.json(&["get", "people", "alice"]),
        serde_json::json!({"key": "alice", "value": "room 13"})
    );
    assert_eq!(sandbox.ok(&["rm", "people", "alice"]), "removed 1 record\n");
    let error = sandbox.fails(1, &["get", "people", "alice"]);
    assert!(error.contains("has no record alice") && error.contains("store scan"), "{error}");
}

#[test]
fn of_keys_that_are_not_all_there_none_is_removed_unless_forced() {
    let sandbox = Sandbox::with_people();
    sandbox.ok(&["put", "people", "alice", "1"]);
    sandbox.fails(1, &["rm", "people", "alice", "bob"]);
    assert_eq!(sandbox.ok(&["get", "people", "alice"]), "1\n");
    let report = sandbox.json(&["rm", "people", "alice", "bob", "--force"]);
    assert_eq!(report, serde_json::json!({"removed": 1, "missing": 1}));
}

#[test]
fn a_store_is_made_once_and_within_its_limits() {
    let sandbox = Sandbox::with_people();
    let again = ["create", "people", "--key-bytes", "8", "--value-bytes", "16"];
    assert!(sandbox.fails(1, &again).contains("a store in this directory already"));
    let with = |option: &str, value: &str| {
        let all = ["create", "other", "--key-bytes", "8", "--value-bytes", "16", option, value];
        sandbox.fails(2, &all)
    };
    assert!(with("--shards", "3").contains("power of two"));
    assert!(with("--segment", "5000").contains("4096"));
    let none = ["create", "other", "--key-bytes", "0", "--value-bytes", "16"];
    assert!(sandbox.fails(2, &none).contains("1 to 256"));
    for command in [["get", "nowhere", "a"], ["rm", "nowhere", "a"]] {
        assert!(sandbox.fails(1, &command).contains("no store in this directory"));
    }
    assert!(!sandbox.path("nowhere").exists());
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    let sandbox = Sandbox::with_people();
    fs::create_dir(sandbox.path("empty")).unwrap();
    fs::create_dir(sandbox.path("mine")).unwrap();
    fs::write(sandbox.path("mine/note"), "precious").unwrap();
    let before = sandbox.files();
    for (code, arguments) in [
        (1, &["put", "empty", "a", "b"][..]),
        (1, &["put", "mine", "a", "b"]),
        (1, &["rm", "empty", "a"]),
        (1, &["compact", "empty"]),
        (1, &["reshard", "empty", "--shards", "4"]),
        (1, &["promote", "empty"]),
        (1, &["repair", "empty"]),
        (1, &["backup", "empty", "to/a/copy"]),
        (1, &["restore", "empty", "to/a/store"]),
        (2, &["create", "cr", "--key-bytes", "8", "--value-bytes", "8", "--shards", "3"]),
        (2, &["create", "cr", "--values", "any", "--shards", "3"]),
        (2, &["create", "a/b/c", "--values", "any", "--segment", "5000"]),
        (2, &["create", "empty", "--values", "any", "--shards", "3"]),
    ] {
        sandbox.fails(code, arguments);
        assert_eq!(sandbox.files(), before, "{arguments:?}");
        assert_eq!(fs::read_dir(sandbox.path("empty")).unwrap().count(), 0, "{arguments:?}");
        assert_eq!(fs::read_dir(sandbox.path("mine")).unwrap().count(), 1, "{arguments:?}");
    }
    sandbox.ok(&["create", "empty", "--values", "any"]);
    sandbox.ok(&["create", "a/b/c", "--values", "any"]);
    sandbox.ok(&["put", "a/b/c", "a", "b"]);
}

#[test]
fn keys_and_values_are_text_digits_numbers_and_files() {
    let sandbox = Sandbox::with_people();
    let raw = |key: &str| sandbox.run(&["get", "people", key, "--raw"]).stdout;

    sandbox.ok(&["put", "people", "a", "two\nlines"]);
    assert_eq!(sandbox.ok(&["get", "people", "a"]), "two\nlines\n");
    let digits = "00ff102030405060708090a0b0c0d0e0";
    sandbox.ok(&["put", "people", "a", digits, "--value-as", "hex"]);
    assert_eq!(sandbox.ok(&["get", "people", "a", "--hex"]), format!("{digits}\n"));
    assert!(sandbox.ok(&["get", "people", "a"]).starts_with("00000000  00 ff 10 20 "));
    assert_eq!(sandbox.json(&["get", "people", "a"])["value_hex"], digits);

    sandbox.ok(&["put", "people", "b", "258", "--value-as", "number"]);
    assert_eq!(raw("b")[..3], [2, 1, 0]);
    fs::write(sandbox.path("bytes"), [7; 16]).unwrap();
    sandbox.ok(&["put", "people", "c", "bytes", "--value-as", "file"]);
    assert_eq!(raw("c"), [7; 16]);
    let mut command = sandbox.command(&["put", "people", "d", "-", "--value-as", "file"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"piped").unwrap();
    assert_eq!(Run::of(child.wait_with_output().unwrap()).code, 0);
    assert_eq!(sandbox.ok(&["get", "people", "d"]), "piped\n");

    sandbox.ok(&["put", "people", "6100000000000000", "from digits", "--key-as", "hex"]);
    assert_eq!(sandbox.ok(&["get", "people", "97", "--key-as", "number"]), "from digits\n");
    let long = sandbox.fails(2, &["put", "people", "more than eight", "x"]);
    assert!(long.contains("15 bytes") && long.contains("have 8"), "{long}");
    sandbox.fails(2, &["put", "people", "a", "0", "--value-as", "hex"]);
    sandbox.fails(2, &["put", "people", "-1", "x", "--key-as", "number"]);
    assert_eq!(sandbox.ok(&["scan", "people", "--count"]), "4\n");
}

#[test]
fn a_conditional_put_changes_what_it_expects_and_nothing_else() {
    let sandbox = Sandbox::with_people();
    sandbox.ok(&["put", "people", "bob", "3", "--new"]);
    let error = sandbox.fails(1, &["put", "people", "bob", "4", "--new"]);
    assert!(error.contains("bob has the value 3; nothing was changed"), "{error}");
    sandbox.ok(&["put", "people", "bob", "4", "--expect", "3"]);
    sandbox.fails(1, &["put", "people", "bob", "5", "--expect", "3"]);
    let error = sandbox.fails(1, &["put", "people", "eve", "5", "--expect", "3"]);
    assert!(error.contains("eve is not there"), "{error}");
    assert_eq!(sandbox.ok(&["get", "people", "bob"]), "4\n");
}

#[test]
fn a_scan_lists_what_is_asked_for_in_order() {
    let sandbox = Sandbox::with_people();
    for key in ["carol", "alice", "bob", "al"] {
        sandbox.ok(&["put", "people", key, &key.to_uppercase()]);
    }
    let keys = |arguments: &[&str]| -> Vec<String> {
        let rows = sandbox.json_lines(&[&["scan", "people"], arguments].concat());
        rows.iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys(&[]), ["al", "alice", "bob", "carol"]);
    assert_eq!(keys(&["--prefix", "al"]), ["al", "alice"]);
    assert_eq!(keys(&["--from", "alice", "--to", "carol"]), ["alice", "bob"]);
    assert_eq!(keys(&["--reverse", "--limit", "2"]), ["carol", "bob"]);
    assert_eq!(keys(&["--prefix", "616c69", "--key-as", "hex"]), ["alice"]);
    let text = sandbox.ok(&["scan", "people", "--limit", "1"]);
    assert!(text.starts_with("KEY  VALUE") && text.contains("al   AL"), "{text}");
    assert!(text.ends_with("... and 3 more: --limit 0 lists them all\n"), "{text}");
    assert_eq!(sandbox.ok(&["scan", "people", "--count", "--prefix", "b"]), "1\n");
    sandbox.fails(2, &["scan", "people", "--prefix", "1", "--key-as", "number"]);
}

#[test]
fn a_store_that_a_program_has_open_can_be_looked_at_and_is_left_alone() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("numbers");
    let store = FixedStore::<u64, u64>::create(&path, &Options::default()).unwrap();
    store.put(&258, &7, Durability::Memory).unwrap();
    let get = ["get", "numbers", "258", "--key-as", "number", "--hex"];
    assert_eq!(sandbox.ok(&get), "0700000000000000\n");
    assert_eq!(sandbox.ok(&["scan", "numbers", "--count"]), "1\n");
    assert_eq!(sandbox.json(&["export", "numbers", "all.jsonl"])["records"], 1);
    let error = sandbox.fails(1, &["put", "numbers", "a", "b"]);
    assert!(error.contains("open already"), "{error}");
    store.put(&258, &8, Durability::Memory).unwrap();
    assert_eq!(sandbox.ok(&get), "0800000000000000\n");
    drop(store);
    assert_eq!(sandbox.ok(&get), "0800000000000000\n");
}

#[test]
fn a_store_of_any_sizes_that_a_program_has_open_can_be_looked_at_and_is_left_alone() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("texts");
    let store = LogStore::<String, String>::create(&path, &LogOptions::default()).unwrap();
    let put = |value: &str| store.put(&"a".into(), &value.into(), Durability::Memory).unwrap();
    put("one");
    assert_eq!(sandbox.ok(&["get", "texts", "a"]), "one\n");
    assert_eq!(sandbox.ok(&["scan", "texts", "--count"]), "1\n");
    assert_eq!(sandbox.json(&["export", "texts", "all.jsonl"])["records"], 1);
    assert_eq!(sandbox.json(&["stats", "texts"])["records"], 1);
    assert!(sandbox.fails(1, &["put", "texts", "a", "b"]).contains("open already"));
    put("two");
    assert_eq!(sandbox.ok(&["get", "texts", "a"]), "two\n");
    drop(store);
    // Looking changes nothing, and needs not be allowed to.
    let before: Vec<_> =
        std::fs::read_dir(&path).unwrap().map(|it| it.unwrap().file_name()).collect();
    let header = std::fs::read(path.join("any")).unwrap();
    assert_eq!(sandbox.ok(&["get", "texts", "a"]), "two\n");
    let after: Vec<_> =
        std::fs::read_dir(&path).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!((before, header), (after, std::fs::read(path.join("any")).unwrap()));
}

#[test]
fn stats_show_records_log_and_durable_position_of_each_shard() {
    let sandbox = Sandbox::with_people();
    for key in 0..20 {
        sandbox.ok(&["put", "people", &format!("key-{key}"), "x"]);
    }
    let stats = sandbox.json(&["stats", "people"]);
    assert_eq!((&stats["records"], &stats["key_bytes"]), (&20.into(), &8.into()));
    let shards = stats["shards"].as_array().unwrap();
    assert_eq!((shards.len(), stats["segment_bytes"].as_u64()), (2, Some(16_384)));
    for shard in shards {
        let number = |field: &str| shard[field].as_u64().unwrap();
        assert!(number("records") > 0 && number("log_bytes") >= 16_384);
        // The last frame is the note that all before it was durable.
        assert_eq!(number("durable") + 1, number("sequence"));
    }
    let text = sandbox.ok(&["stats", "people"]);
    assert!(text.contains("DURABLE") && text.contains("records  20, keys of 8 bytes"), "{text}");
    // Looking is no opening.
    assert_eq!(sandbox.json(&["stats", "people"])["epoch"], stats["epoch"]);
}

#[test]
fn compacting_makes_a_long_log_short() {
    let sandbox = Sandbox::with_people();
    let lines: String = (0..4_000)
        .map(|number| format!("{{\"key\": \"k{}\", \"value\": \"{number}\"}}\n", number % 10))
        .collect();
    fs::write(sandbox.path("many.jsonl"), lines).unwrap();
    sandbox.ok(&["import", "many.jsonl", "people"]);
    let report = sandbox.json(&["compact", "people"]);
    let bytes = |field: &str| report[field].as_u64().unwrap();
    assert!(bytes("bytes_after") * 2 < bytes("bytes_before"), "{report}");
    assert_eq!(sandbox.ok(&["get", "people", "k9"]), "3999\n");
    sandbox.ok(&["verify", "people"]);
}

#[test]
fn a_killed_command_leaves_a_store_that_opens() {
    let sandbox = Sandbox::with_people();
    let lines: String = (0..100_000).map(|number| format!("k{number},v\n")).collect();
    fs::write(sandbox.path("many.csv"), format!("key,value\n{lines}")).unwrap();
    let mut running = sandbox.spawn(&["import", "many.csv", "people"]);
    let files = || fs::read_dir(sandbox.path("people")).unwrap().count();
    wait_until("some of it is in the log", || files() > 8);
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    let count: u64 = sandbox.ok(&["scan", "people", "--count"]).trim().parse().unwrap();
    assert!((1..=100_000).contains(&count), "{count}");
    sandbox.ok(&["put", "people", "after", "it"]);
    sandbox.ok(&["verify", "people"]);
}

#[test]
fn a_bench_measures_every_operation_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let rows = sandbox.json(&["bench", "--records", "1000", "--threads", "1"]);
    let rows = rows.as_array().unwrap();
    let operations: Vec<_> = rows.iter().map(|row| row["operation"].as_str().unwrap()).collect();
    let durable = ["put, durable", "put, durable", "batch, durable"];
    assert_eq!(operations[..3], ["load", "get", "put, memory"]);
    assert_eq!((&operations[3..6], &operations[6..]), (&durable[..], &["compact", "open"][..]));
    assert!(rows.iter().all(|row| row["per_second"].as_f64().unwrap() > 0.0));
    assert!(sandbox.files().is_empty());
}

#[test]
fn a_watch_tells_what_changes_in_a_store_that_a_program_has_open() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("numbers");
    let nobody = sandbox.fails(1, &["watch", "numbers"]);
    assert!(nobody.contains("no store in this directory"), "{nobody}");
    let store = FixedStore::<[u8; 2], [u8; 4]>::create(&path, &Options::default()).unwrap();
    store.put(b"a1", b"room", Durability::Memory).unwrap();
    store.put(b"b1", b"room", Durability::Memory).unwrap();
    let arguments =
        ["watch", "numbers", "--prefix", "a", "--every", "5ms", "--count", "3", "--json"];
    let mut running = sandbox.spawn(&arguments);
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut next = || -> serde_json::Value {
        let mut line: serde_json::Value =
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(line.as_object_mut().unwrap().remove("at_ms").unwrap().is_u64());
        line
    };
    assert_eq!(next(), serde_json::json!({"event": "watching", "records": 1}));
    store.put(b"b1", b"else", Durability::Memory).unwrap();
    store.put(b"a2", b"hall", Durability::Memory).unwrap();
    assert_eq!(next(), serde_json::json!({"event": "put", "key": "a2", "value": "hall"}));
    store.delete(b"a1", Durability::Memory).unwrap();
    assert_eq!(next(), serde_json::json!({"event": "deleted", "key": "a1"}));
    // Opened anew, it is watched on.
    drop(store);
    let store = FixedStore::<[u8; 2], [u8; 4]>::open(&path, &Options::default()).unwrap();
    store.put(b"a2", b"room", Durability::Memory).unwrap();
    assert_eq!(next(), serde_json::json!({"event": "put", "key": "a2", "value": "room"}));
    wait_until("the watch has ended", || running.0.try_wait().unwrap().is_some());
    sandbox.fails(2, &["watch", "numbers", "a1", "--prefix", "a"]);
    let text = sandbox.ok(&["watch", "numbers", "a2", "--for", "30ms"]);
    assert_eq!(text, "watching 1 record\n");
}

#[test]
fn the_statistics_of_a_store_that_a_program_has_open_are_those_of_its_memory() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("numbers");
    let options = Options { shards: 4, ..Options::default() };
    let store = FixedStore::<[u8; 2], [u8; 4]>::create(&path, &options).unwrap();
    for number in 0..100 {
        store.put(&[number, 1], b"room", Durability::Memory).unwrap();
    }
    store.delete(&[0, 1], Durability::Group).unwrap();
    let of = |found: &serde_json::Value, field: &str| found[field].as_u64().unwrap();
    let open = sandbox.json(&["stats", "numbers"]);
    assert_eq!((of(&open, "records"), of(&open, "epoch")), (99, 1));
    for (row, shard) in open["shards"].as_array().unwrap().iter().zip(store.stats()) {
        let found = ["records", "sequence", "segments", "image"].map(|field| of(row, field));
        assert_eq!(found, [shard.records, shard.sequence, shard.segments, shard.image]);
        assert!(of(row, "durable") <= shard.durable, "{row}");
    }
    store.raw().compact().unwrap();
    let compacted = sandbox.json(&["stats", "numbers"]);
    assert!(of(&compacted, "image_bytes") > 0, "{compacted}");
    store.close().unwrap();
    let closed = sandbox.json(&["stats", "numbers"]);
    for field in
        ["id", "epoch", "records", "key_bytes", "value_bytes", "segment_bytes", "image_bytes"]
    {
        assert_eq!(closed[field], compacted[field], "{field}");
    }
}
