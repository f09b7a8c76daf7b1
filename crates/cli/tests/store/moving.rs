//! Records out of a store and into another.

use crate::sandbox::{Run, Sandbox};
use std::{fs, io::Write, process::Stdio};

/// Text, bytes, and what CSV has to quote.
fn with_every_sort() -> Sandbox {
    let sandbox = Sandbox::with_people();
    sandbox.ok(&["put", "people", "alice", "room 12"]);
    sandbox.ok(&["put", "people", "b,\"c", "two\nlines, \""]);
    sandbox.ok(&["put", "people", "empty", ""]);
    let digits = "00ff102030405060708090a0b0c0d0e0";
    sandbox.ok(&[
        "put",
        "people",
        "00ff000000000001",
        digits,
        "--key-as",
        "hex",
        "--value-as",
        "hex",
    ]);
    sandbox
}

fn empty(sandbox: &Sandbox, name: &str) {
    let sizes = ["--key-bytes", "8", "--value-bytes", "16", "--shards", "4"];
    sandbox.ok(&[&["create", name], &sizes[..]].concat());
}

#[test]
fn what_is_exported_and_imported_is_equal_record_by_record() {
    let sandbox = with_every_sort();
    for name in ["people.jsonl", "people.csv"] {
        let report = sandbox.json(&["export", "people", name]);
        assert_eq!(report["records"], 4);
        let copy = format!("{name}.store");
        empty(&sandbox, &copy);
        let said = sandbox.ok(&["import", name, &copy]);
        assert_eq!(said, format!("imported 4 records into {copy}\n"));
        let equal = sandbox.ok(&["verify", "people", "--against", &copy]);
        assert_eq!(equal, "equal: 4 records\n");
    }
    let sorted = sandbox.ok(&["export", "people", "--sorted", "--format", "csv"]);
    assert!(
        sorted.starts_with("key,key_hex,value,value_hex\n,00ff000000000001,,00ff1020"),
        "{sorted}"
    );
}

#[test]
fn standard_input_and_output_make_a_pipe() {
    let sandbox = with_every_sort();
    let export = sandbox.ok(&["export", "people"]);
    assert_eq!(export.lines().count(), 4);
    empty(&sandbox, "copy");
    let mut command = sandbox.command(&["import", "-", "copy", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(export.as_bytes()).unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stdout), (0, b"{\"path\":\"copy\",\"records\":4}\n".to_vec()));
    sandbox.ok(&["verify", "copy", "--against", "people"]);
}

#[test]
fn a_bad_line_is_named_and_what_was_before_it_stays() {
    let sandbox = Sandbox::with_people();
    let bad = [
        (
            "{\"key\": \"a\", \"value\": \"1\"}\n\n{\"key\": \"far too long\", \"value\": \"\"}\n",
            "12 bytes",
        ),
        ("{\"key\": \"a\", \"value\": \"1\"}\n\nnonsense\n", "key_hex"),
        ("{\"key\": \"a\", \"value\": \"1\"}\n\n{\"key\": \"b\", \"values\": \"1\"}\n", "values"),
    ];
    for (text, why) in bad {
        fs::write(sandbox.path("bad.jsonl"), text).unwrap();
        let error = sandbox.fails(1, &["import", "bad.jsonl", "people"]);
        assert!(error.contains("bad.jsonl, line 3: ") && error.contains(why), "{error}");
        assert!(error.contains("the record before it was imported, and stays"), "{error}");
        assert_eq!(sandbox.ok(&["get", "people", "a"]), "1\n");
        assert_eq!(sandbox.ok(&["scan", "people", "--count"]), "1\n");
    }
    let no_text = b"{\"key\": \"a\", \"value\": \"1\"}\n\n{\"key\": \"\xff\", \"value\": \"1\"}\n";
    fs::write(sandbox.path("bad.jsonl"), no_text).unwrap();
    let error = sandbox.fails(1, &["import", "bad.jsonl", "people"]);
    assert!(error.contains("bad.jsonl, line 3: ") && error.contains("key_hex"), "{error}");
    assert!(error.contains("the record before it was imported, and stays"), "{error}");
    fs::write(sandbox.path("bad.csv"), b"key,value\na,1\n\xff,1\n").unwrap();
    let error = sandbox.fails(1, &["import", "bad.csv", "people"]);
    assert!(error.contains("bad.csv, line 3: "), "{error}");
    fs::write(sandbox.path("bad.csv"), "name,value\na,b\n").unwrap();
    let error = sandbox.fails(1, &["import", "bad.csv", "people"]);
    assert!(error.contains("line 1") && error.contains("nothing was imported"), "{error}");
    fs::write(sandbox.path("bad.csv"), "key,value,key\nb,1,c\n").unwrap();
    let error = sandbox.fails(1, &["import", "bad.csv", "people"]);
    assert!(error.contains("line 1") && error.contains("the column \"key\" twice"), "{error}");
    assert_eq!(sandbox.ok(&["scan", "people", "--count"]), "1\n");
    fs::write(sandbox.path("bad.csv"), "key,value\na,b\nc\n").unwrap();
    assert!(sandbox.fails(1, &["import", "bad.csv", "people"]).contains("line 3"));
    sandbox.fails(1, &["import", "none.csv", "people"]);
}

#[test]
fn of_a_key_that_comes_twice_the_last_one_counts() {
    let sandbox = Sandbox::with_people();
    let lines: String = (0..5_000).map(|number| format!("k{},{number}\n", number % 7)).collect();
    fs::write(sandbox.path("twice.csv"), format!("key,value\n{lines}")).unwrap();
    sandbox.ok(&["import", "twice.csv", "people"]);
    assert_eq!(sandbox.ok(&["scan", "people", "--count"]), "7\n");
    for last in 4_993..5_000 {
        assert_eq!(sandbox.ok(&["get", "people", &format!("k{}", last % 7)]), format!("{last}\n"));
    }
}

#[test]
fn an_export_replaces_nothing_unless_forced() {
    let sandbox = with_every_sort();
    fs::write(sandbox.path("mine"), "precious").unwrap();
    let error = sandbox.fails(1, &["export", "people", "mine"]);
    assert!(error.contains("--force"), "{error}");
    assert_eq!(fs::read(sandbox.path("mine")).unwrap(), b"precious");
    sandbox.ok(&["export", "people", "mine", "--force"]);
    assert_eq!(fs::read_to_string(sandbox.path("mine")).unwrap().lines().count(), 4);
    sandbox.fails(1, &["export", "people", "people", "--force"]);
    assert_eq!(sandbox.files(), ["mine", "people"]);
}

#[test]
fn a_store_gets_other_shards_and_keeps_its_records_and_its_name() {
    let sandbox = with_every_sort();
    sandbox.ok(&["export", "people", "before.jsonl"]);
    let said = sandbox.ok(&["reshard", "people", "--shards", "8", "--segment", "16KiB"]);
    assert_eq!(said, "people: 4 records in 8 shards, 2 before\n");
    empty(&sandbox, "copy");
    sandbox.ok(&["import", "before.jsonl", "copy"]);
    assert_eq!(sandbox.ok(&["verify", "people", "--against", "copy"]), "equal: 4 records\n");
    let report = sandbox.json(&["reshard", "people", "--shards", "1"]);
    assert_eq!((&report["records"], &report["shards_before"]), (&4.into(), &8.into()));
    assert_eq!(report["segment_bytes"], 16 << 10, "as it was");
    assert!(!sandbox.path("people.resharding").exists());
    sandbox.ok(&["verify", "people"]);
    let refused = sandbox.run(&["reshard", "people", "--shards", "3"]);
    assert!(refused.stderr.contains("a power of two"), "{}", refused.stderr);
    sandbox.ok(&["create", "pictures", "--values", "any"]);
    sandbox.ok(&["put", "pictures", "k", "v"]);
    let told = sandbox.ok(&["reshard", "pictures", "--shards", "8"]);
    assert_eq!(told, "pictures: 1 record in 8 shards, 2 before\n");
    let report = sandbox.json(&["reshard", "pictures", "--shards", "1", "--segment", "64KiB"]);
    assert_eq!((&report["shards_before"], &report["segment_bytes"]), (&8.into(), &65_536.into()));
    assert!(!sandbox.path("pictures.resharding").exists());
    assert!(sandbox.ok(&["get", "pictures", "k"]).contains('v'));
    sandbox.ok(&["verify", "pictures"]);
}

#[test]
fn shards_by_the_first_bits_of_a_key_stay_so_when_there_are_others() {
    let sandbox = Sandbox::new();
    for (name, sizes) in
        [("fixed", &["--key-bytes", "8", "--value-bytes", "8"][..]), ("any", &["--values", "any"])]
    {
        let made =
            sandbox.ok(&[&["create", name, "--shards", "4", "--shard-bits", "32"], sizes].concat());
        assert!(made.contains("4 shards by the first 32 bits"), "{made}");
        let shards = |sandbox: &Sandbox, store: &str| {
            let said = ["0001", "0002"].map(|last| {
                sandbox.json(&["put", store, &format!("aaaa{last}"), "1"])["shard"].clone()
            });
            assert_eq!(said[0], said[1]);
        };
        shards(&sandbox, name);
        sandbox.ok(&["reshard", name, "--shards", "16"]);
        let stats = sandbox.json(&["stats", name]);
        assert_eq!((&stats["shard_bits"], &stats["records"]), (&32.into(), &2.into()));
        assert!(sandbox.ok(&["stats", name]).contains("by the first 32 bits of a key"));
        shards(&sandbox, name);
    }
    let wrong = "create wrong --key-bytes 2 --value-bytes 2 --shard-bits 17";
    let run = sandbox.run(&wrong.split(' ').collect::<Vec<_>>());
    assert!(run.code == 2 && run.stderr.contains("at most the bits of a key"), "{}", run.stderr);
}
