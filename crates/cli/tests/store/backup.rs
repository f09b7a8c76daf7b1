//! Copies of a store, stores made of copies, and repair.

use crate::sandbox::Sandbox;
use std::fs;

fn with_records(count: u32) -> Sandbox {
    let sandbox = Sandbox::with_people();
    put(&sandbox, 0..count, "v");
    sandbox
}

fn put(sandbox: &Sandbox, keys: std::ops::Range<u32>, value: &str) {
    let lines: String = keys.map(|number| format!("k{number},{value}{number}\n")).collect();
    fs::write(sandbox.path("people.csv"), format!("key,value\n{lines}")).unwrap();
    sandbox.ok(&["import", "people.csv", "people"]);
}

fn bytes(report: &serde_json::Value) -> u64 {
    report["bytes_copied"].as_u64().unwrap()
}

#[test]
fn a_copy_is_equal_and_later_copies_take_what_has_changed_and_no_more() {
    let sandbox = with_records(2_000);
    let first = sandbox.json(&["backup", "people", "copy", "--check"]);
    assert_eq!((&first["records"], &first["checked"]), (&2_000.into(), &true.into()));
    assert!(bytes(&first) > 2_000 * 24, "{first}");
    let again = sandbox.json(&["backup", "people", "copy", "--check"]);
    assert!(bytes(&again) < 1_000, "{again}");
    put(&sandbox, 0..10, "new");
    sandbox.ok(&["rm", "people", "k77"]);
    let changed = sandbox.json(&["backup", "people", "copy", "--check"]);
    assert_eq!(changed["records"], 1_999);
    assert!(bytes(&changed) < 3_000, "{changed}");
    assert_eq!(sandbox.ok(&["verify", "people", "--against", "copy"]), "equal: 1,999 records\n");
}

#[test]
fn what_the_log_no_longer_has_is_found_by_comparing_and_nothing_deleted_comes_back() {
    let sandbox = with_records(3_000);
    sandbox.ok(&["backup", "people", "copy"]);
    put(&sandbox, 0..2_000, "new");
    sandbox.ok(&["rm", "people", "k2500"]);
    sandbox.ok(&["compact", "people"]);
    put(&sandbox, 0..1, "last");
    let report = sandbox.json(&["backup", "people", "copy", "--check"]);
    assert_eq!(report["records"], 2_999);
    assert!(report["shards_compared"].as_u64().unwrap() > 0, "{report}");
    assert!(bytes(&report) < 3_000 * 24, "{report}");
    sandbox.fails(1, &["get", "copy", "k2500"]);
}

#[test]
fn a_restored_store_takes_writes_and_its_copy_goes_on_with_it() {
    let sandbox = with_records(500);
    sandbox.ok(&["backup", "people", "copy"]);
    put(&sandbox, 500..600, "lost");
    fs::rename(sandbox.path("people"), sandbox.path("burnt")).unwrap();
    let report = sandbox.json(&["restore", "copy", "people"]);
    assert_eq!(report["records"], 500);
    sandbox.ok(&["verify", "people", "--against", "copy"]);
    put(&sandbox, 0..5, "after");
    sandbox.ok(&["backup", "people", "copy", "--check"]);
    assert_eq!(sandbox.ok(&["get", "copy", "k3"]), "after3\n");
    assert!(!sandbox.path("people.restoring").exists());
}

#[test]
fn what_a_copy_has_and_a_restored_store_never_had_is_set_aside() {
    let sandbox = with_records(100);
    sandbox.ok(&["backup", "people", "old"]);
    put(&sandbox, 100..130, "later");
    sandbox.ok(&["backup", "people", "copy"]);
    fs::rename(sandbox.path("people"), sandbox.path("burnt")).unwrap();
    sandbox.ok(&["restore", "old", "people"]);
    let report = sandbox.json(&["backup", "people", "copy", "--check"]);
    assert_eq!((&report["records"], &report["set_aside"]), (&100.into(), &30.into()));
    // It is listed, given back, and put where it is wanted.
    let listed = sandbox.json(&["aside", "copy"]);
    let files = listed.as_array().unwrap();
    let records = files.iter().map(|file| file["records"].as_u64().unwrap()).sum::<u64>();
    assert!(records == 30 && files.iter().all(|file| file["epoch"].as_u64() > Some(0)), "{listed}");
    assert!(sandbox.ok(&["aside", "copy"]).starts_with("FILE"));
    let text = sandbox.ok(&["aside", "copy", "-"]);
    assert!(text.contains("{\"key\":\"k101\",\"value\":\"later101\"}\n"), "{text}");
    assert_eq!(sandbox.json(&["aside", "copy", "all.csv"])["records"], 30);
    let file = format!("copy/{}", files[0]["file"].as_str().unwrap());
    for file in ["all.csv", &file] {
        sandbox.ok(&["import", file, "people"]);
        assert_eq!(sandbox.ok(&["scan", "people", "--count"]), "130\n");
    }
    assert_eq!(sandbox.ok(&["get", "people", "k101"]), "later101\n");
    assert_eq!(sandbox.ok(&["aside", "people"]), "people: nothing was set aside\n");
    // What an earlier version has set aside is given back, and not taken for text.
    let old = "{\"key\":\"6f6c64\",\"value\":\"76\"}\n";
    fs::write(sandbox.path("people/aside-0000-1-7"), old).unwrap();
    let refused = sandbox.fails(1, &["import", "people/aside-0000-1-7", "people"]);
    assert!(refused.contains("store aside"), "{refused}");
    assert_eq!(sandbox.ok(&["aside", "people", "-"]), "{\"key\":\"old\",\"value\":\"v\"}\n");
}

#[test]
fn a_store_is_not_restored_over_another_nor_from_a_damaged_copy() {
    let sandbox = with_records(300);
    sandbox.ok(&["backup", "people", "copy"]);
    let error = sandbox.fails(1, &["restore", "copy", "people"]);
    assert!(error.contains("people: exists already"), "{error}");
    sandbox.flip("copy", ".log", 4_096 + 70);
    let error = sandbox.fails(3, &["restore", "copy", "new"]);
    assert!(
        error.contains("copy: the copy is damaged") && !sandbox.path("new").exists(),
        "{error}"
    );
}

#[test]
fn a_copy_of_another_store_is_refused_and_stays() {
    let sandbox = with_records(30);
    sandbox.ok(&["backup", "people", "copy"]);
    sandbox.ok(&["create", "other", "--key-bytes", "8", "--value-bytes", "16"]);
    let error = sandbox.fails(1, &["backup", "other", "copy"]);
    assert!(error.contains("refused: it is of another store"), "{error}");
    sandbox.ok(&["restore", "copy", "leads"]);
    let error = sandbox.fails(1, &["backup", "people", "leads"]);
    assert!(error.contains("takes writes"), "{error}");
    sandbox.ok(&["verify", "people", "--against", "copy"]);
    sandbox.ok(&["create", "any", "--values", "any"]);
    assert!(sandbox.fails(1, &["backup", "any", "copy"]).contains("there is a store in this"));
    sandbox.ok(&["backup", "any", "any-copy"]);
    assert!(sandbox.fails(1, &["backup", "people", "any-copy"]).contains("there is a store in"));
    sandbox.ok(&["verify", "any-copy"]);
}

#[test]
fn damage_that_costs_nothing_is_repaired_and_of_other_damage_what_is_sound_is_saved() {
    let sandbox = with_records(300);
    let sound = "people: sound, 300 records; there was nothing to do\n";
    assert_eq!(sandbox.ok(&["repair", "people"]), sound);
    // The second copy of the header of a file of the log.
    sandbox.flip("people", ".log", 520);
    let report = sandbox.json(&["repair", "people"]);
    assert_eq!((&report["left"], &report["records"]), (&0.into(), &300.into()));
    assert_eq!(report["found"], 1);
    assert!(report["kept"].is_null());
    assert_eq!(sandbox.ok(&["repair", "people"]), sound);

    let log = fs::read(put_and_find_log(&sandbox)).unwrap();
    // What is before it is in an image as well.
    let at = log.windows(4).position(|bytes| bytes == b"more").unwrap();
    let damaged = fs::read(sandbox.flip("people", ".log", at)).unwrap();
    assert_eq!(sandbox.run(&["verify", "people"]).code, 3);
    let run = sandbox.run(&["repair", "people"]);
    let said = String::from_utf8(run.stdout).unwrap();
    assert_eq!(run.code, 3, "{said}");
    let parts = ["records saved; 1 write of the log", "lost: k", "may be back", "next: "];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    assert!(said.contains("people.damaged-1") && !sandbox.path("people.repairing").exists());
    assert_eq!(fs::read(sandbox.file("people.damaged-1", ".log")).unwrap(), damaged);
    sandbox.ok(&["verify", "people"]);
    // As a program has it.
    sandbox.flip("people", ".log", 4_096 + 70);
    let run = sandbox.run(&["repair", "people", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((run.code, &report["saved"]["writes_lost"]), (3, &1.into()), "{report}");
    assert!(report["saved"]["keys"][0]["key"].is_string(), "{report}");
    assert!(report["kept"].as_str().unwrap().ends_with("people.damaged-2"));
    sandbox.ok(&["verify", "people"]);
}

/// Writes after which the first file of the log has something.
fn put_and_find_log(sandbox: &Sandbox) -> std::path::PathBuf {
    put(sandbox, 0..300, "more");
    sandbox.file("people", ".log")
}
