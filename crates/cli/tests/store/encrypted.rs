//! Stores that are encrypted: with a key everything goes as without, and without it nothing does.

use crate::sandbox::Sandbox;
use std::{fs, os::unix::fs::PermissionsExt};

const KEY: [&str; 2] = ["--key-file", "people.key"];
/// What must not be found in any file.
const SECRET: &str = "room-one-hundred";

fn with_key<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &KEY].concat()
}

/// An encrypted store `people` with some records.
fn with_secrets(values: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.ok(&["key", "new", "people.key"]);
    sandbox.ok(&with_key(&[&["create", "people"], values].concat()));
    let lines: String = (0..200).map(|n| format!("k{n},{SECRET}\n")).collect();
    fs::write(sandbox.path("people.csv"), format!("key,value\n{lines}")).unwrap();
    sandbox.ok(&with_key(&["import", "people.csv", "people"]));
    sandbox
}

const FIXED: &[&str] = &["--key-bytes", "8", "--value-bytes", "16", "--segment", "16KiB"];
const ANY: &[&str] = &["--values", "any", "--segment", "64KiB"];

fn nothing_is_readable(sandbox: &Sandbox, store: &str) {
    for entry in fs::read_dir(sandbox.path(store)).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let found = bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
        assert!(!found, "{}", path.display());
    }
}

#[test]
fn a_key_is_made_for_its_owner_alone_and_never_replaced() {
    let sandbox = Sandbox::new();
    let made = sandbox.json(&["key", "new", "people.key"]);
    let mode = fs::metadata(sandbox.path("people.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        sandbox.ok(&["key", "id", "people.key"]),
        format!("{}\n", made["key"].as_str().unwrap())
    );
    let before = fs::read(sandbox.path("people.key")).unwrap();
    assert!(sandbox.fails(1, &["key", "new", "people.key"]).contains("never replaced"));
    assert_eq!(fs::read(sandbox.path("people.key")).unwrap(), before);
    fs::set_permissions(sandbox.path("people.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = sandbox.fails(1, &with_key(&["create", "people", "--values", "any"]));
    assert!(error.contains("chmod 600") && !sandbox.path("people").exists(), "{error}");
}

#[test]
fn an_encrypted_store_is_used_as_any_other_and_says_under_which_key_it_is() {
    for values in [FIXED, ANY] {
        let sandbox = with_secrets(values);
        nothing_is_readable(&sandbox, "people");
        let id = sandbox.ok(&["key", "id", "people.key"]);
        assert_eq!(sandbox.ok(&with_key(&["get", "people", "k7"])), format!("{SECRET}\n"));
        sandbox.ok(&with_key(&["put", "people", "k7", "other"]));
        sandbox.ok(&with_key(&["rm", "people", "k8"]));
        assert_eq!(sandbox.ok(&with_key(&["scan", "people", "--count"])), "199\n");
        sandbox.ok(&with_key(&["compact", "people"]));
        assert!(sandbox.ok(&with_key(&["verify", "people"])).contains("sound, 199 records"));
        let stats = sandbox.json(&with_key(&["stats", "people"]));
        assert_eq!(stats["encrypted_under"], id.trim(), "{stats}");
        assert!(sandbox.ok(&with_key(&["stats", "people"])).contains(&format!("under key {id}")));
        nothing_is_readable(&sandbox, "people");
        let export = sandbox.ok(&with_key(&["export", "people"]));
        assert!(export.contains(SECRET), "an export is for whoever reads it");
    }
}

#[test]
fn the_key_may_be_named_in_the_environment() {
    let sandbox = Sandbox::new();
    let run = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        command.env("MAINSTAY_KEY_FILE", sandbox.path("people.key"));
        let run = crate::sandbox::Run::of(command.output().unwrap());
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments:?}");
        String::from_utf8(run.stdout).unwrap()
    };
    run(&["key", "new", "people.key"]);
    run(&[&["create", "people"], FIXED].concat());
    run(&["put", "people", "alice", SECRET]);
    assert_eq!(run(&["get", "people", "alice"]), format!("{SECRET}\n"));
    nothing_is_readable(&sandbox, "people");
    // An empty one is a mistake, and no reason to go on without.
    let mut command = sandbox.command(&["get", "people", "alice"]);
    command.env("MAINSTAY_KEY_FILE", "");
    let run = crate::sandbox::Run::of(command.output().unwrap());
    assert!(run.code == 2 && run.stderr.contains("--key-file"), "{}", run.stderr);
}

#[test]
fn without_its_key_nothing_is_done_and_it_is_said_what_to_do() {
    for values in [FIXED, ANY] {
        let sandbox = with_secrets(values);
        sandbox.ok(&["key", "new", "wrong.key"]);
        let id = sandbox.ok(&["key", "id", "people.key"]);
        let all: [&[&str]; 9] = [
            &["get", "people", "k7"],
            &["put", "people", "k7", "1"],
            &["rm", "people", "k7"],
            &["scan", "people"],
            &["export", "people"],
            &["verify", "people"],
            &["stats", "people"],
            &["aside", "people"],
            &["compact", "people"],
        ];
        for arguments in all {
            let error = sandbox.fails(1, arguments);
            assert!(error.contains("--key-file") && error.contains(id.trim()), "{error}");
            let error = sandbox.fails(1, &[arguments, &["--key-file", "wrong.key"]].concat());
            assert!(error.contains("not given") && error.contains(id.trim()), "{error}");
        }
        let error = sandbox.fails(1, &["get", "people", "k7", "--key-file", "no.key"]);
        assert!(error.contains("no.key"), "{error}");
        let watch = with_key(&["watch", "people", "k7", "--for", "1ms"]);
        if values == ANY {
            assert_eq!(sandbox.ok(&watch), "watching 1 record\n");
        } else {
            let error = sandbox.fails(1, &watch);
            assert!(error.contains("in the memory"), "{error}");
        }
        assert_eq!(sandbox.ok(&with_key(&["get", "people", "k7"])), format!("{SECRET}\n"));
    }
}

#[test]
fn a_store_that_is_not_encrypted_is_refused_with_a_key() {
    let sandbox = Sandbox::with_people();
    sandbox.ok(&["put", "people", "alice", "1"]);
    sandbox.ok(&["key", "new", "people.key"]);
    for arguments in [&["get", "people", "alice"][..], &["put", "people", "alice", "2"]] {
        let error = sandbox.fails(1, &with_key(arguments));
        assert!(error.contains("is not encrypted") && error.contains("leave out"), "{error}");
    }
    assert_eq!(sandbox.ok(&["get", "people", "alice"]), "1\n");
    assert_eq!(sandbox.json(&["stats", "people"])["encrypted_under"], serde_json::Value::Null);
}

#[test]
fn a_new_key_takes_the_place_of_the_old_one() {
    for values in [FIXED, ANY] {
        let sandbox = with_secrets(values);
        sandbox.ok(&["key", "new", "new.key"]);
        let rekey = ["rekey", "people", "--new-key-file", "new.key"];
        assert!(sandbox.fails(2, &rekey).contains("--key-file"));
        let both = with_key(&rekey);
        let report = sandbox.json(&both);
        assert!(report["files_changed"].as_u64().unwrap() > 2, "{report}");
        // Again, as after an interruption.
        assert_eq!(sandbox.json(&both)["files_changed"], 0);
        sandbox.fails(1, &with_key(&["get", "people", "k7"]));
        let new = ["get", "people", "k7", "--key-file", "new.key"];
        assert_eq!(sandbox.ok(&new), format!("{SECRET}\n"));
        // Both are given while nobody knows how far it came.
        assert_eq!(sandbox.ok(&with_key(&new)), format!("{SECRET}\n"));
    }
}

#[test]
fn copies_of_values_of_any_size_are_encrypted_too_and_a_store_is_made_of_one() {
    let sandbox = with_secrets(ANY);
    for value in ["other", "and another"] {
        sandbox.ok(&with_key(&["put", "people", "k7", value]));
        sandbox.ok(&with_key(&["backup", "people", "copy", "--check"]));
        nothing_is_readable(&sandbox, "copy");
    }
    sandbox.fails(1, &["restore", "copy", "anew"]);
    sandbox.ok(&with_key(&["restore", "copy", "anew"]));
    nothing_is_readable(&sandbox, "anew");
    sandbox.ok(&with_key(&["verify", "anew", "--against", "people"]));
    assert_eq!(sandbox.ok(&with_key(&["get", "anew", "k7"])), "and another\n");
}

#[test]
fn copies_are_encrypted_too_and_a_store_is_made_of_one() {
    let sandbox = with_secrets(FIXED);
    sandbox.ok(&with_key(&["backup", "people", "copy", "--check"]));
    nothing_is_readable(&sandbox, "copy");
    sandbox.ok(&with_key(&["put", "people", "k7", "other"]));
    sandbox.ok(&with_key(&["backup", "people", "copy", "--check"]));
    sandbox.ok(&with_key(&["restore", "copy", "anew"]));
    nothing_is_readable(&sandbox, "anew");
    sandbox.ok(&with_key(&["verify", "anew", "--against", "people"]));
    sandbox.ok(&with_key(&["repair", "anew"]));
    sandbox.ok(&with_key(&["reshard", "anew", "--shards", "4"]));
    nothing_is_readable(&sandbox, "anew");
    assert_eq!(sandbox.ok(&with_key(&["get", "anew", "k7"])), "other\n");
    // A copy of an encrypted store does not become a plain one in passing.
    sandbox.ok(&[&["create", "plain"], FIXED].concat());
    sandbox.fails(1, &with_key(&["backup", "people", "plain"]));
    // But it can be compared with one.
    sandbox.ok(&with_key(&["export", "people", "all.csv"]));
    sandbox.ok(&["import", "all.csv", "plain"]);
    sandbox.ok(&with_key(&["verify", "people", "--against", "plain"]));
}
