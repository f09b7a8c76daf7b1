//! What followers get of their leader, whoever is killed, promoted or replaced.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::play::*;

#[test]
fn a_leader_killed_and_started_ten_times_has_a_follower_that_ends_equal() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    let (mut leader, address) = serve(folder, "people", "127.0.0.1:0");
    let follow = ["follow", "copy", &address, "--node", "2", "--secret-file", "secret"];
    leader.write("first one\n");
    let child = mainstay(folder, &follow).stdout(Stdio::null()).spawn().unwrap();
    let follower = Running::new(child);
    for round in 0..10 {
        let lines: String =
            (0..200).map(|n| format!("k{} r{round}-{n}\n", (round * 37 + n) % 300)).collect();
        leader.write(&lines);
        leader.write(&format!("k{round}\n"));
        thread::sleep(Duration::from_millis(150));
        leader.kill();
        leader = serve(folder, "people", &address).0;
    }
    leader.write("last one\n");
    thread::sleep(Duration::from_millis(200));
    follower.kill();
    follow_until_equal(folder, "copy", &address, SECRET);
    leader.kill();
    let copy = records(folder, "copy");
    assert!(copy.len() > 200, "{}", copy.len());
    assert_eq!(records(folder, "people"), copy);
    ok(folder, &["verify", "copy"]);
    let said: Value =
        serde_json::from_str(&ok(folder, &["verify", "people", "--against", "copy"])).unwrap();
    assert_eq!(said["equal"], copy.len());
    for difference in ["different", "only_here", "only_there"] {
        assert_eq!(said[difference], 0, "{said}");
    }
}

#[test]
fn followers_get_everything_at_once_while_one_stands_still_and_the_leader_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    let records = 30_000;
    let count = records.to_string();
    let arguments = ["bench", "--followers", "2", "--records", &count, "--value-bytes", "1024"];
    let rows: Value = serde_json::from_str(&ok(folder.path(), &arguments)).unwrap();
    let overs: Vec<_> =
        rows.as_array().unwrap().iter().map(|row| row["over"].as_str().unwrap()).collect();
    let all = if cfg!(feature = "tls") { &["tcp", "tls", "quic"][..] } else { &["tcp"] };
    assert_eq!(overs, all);
    for row in rows.as_array().unwrap() {
        let number = |name: &str| row[name].as_u64().unwrap();
        assert_eq!((number("records"), number("followers")), (records, 2), "{row}");
        assert_eq!((number("differences"), number("written")), (0, records / 20), "{row}");
        // A third of what the records have, and so of what one that stands still may lack.
        let grown = number("memory_most") - number("memory_before");
        assert!(grown < 10 << 20, "{row}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing behind");
}

/// The copy becomes the leader, and the store that led, which has one write that nobody got, its follower.
fn change_places(folder: &Path) {
    let refused = mainstay(folder, &["put", "copy", "dave", "4"]).status().unwrap();
    assert!(!refused.success(), "a copy takes no writes");
    ok(folder, &["promote", "copy"]);
    ok(folder, &["put", "copy", "dave", "4"]);
    let (new, address) = serve(folder, "copy", "127.0.0.1:0");
    let follow = ["follow", "people", &address, "--node", "2", "--secret-file", "secret"];
    let refused = mainstay(folder, &follow).status().unwrap();
    assert!(!refused.success(), "a leader follows nobody before it is told to");
    follow_until_equal(folder, "people", &address, &[SECRET, &["--demote"]].concat());
    new.kill();
    let aside = std::fs::read_dir(folder.join("people")).unwrap();
    let aside = aside
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("aside-"));
    assert_eq!(aside.count(), 1, "what only the old leader had is set aside");
}

/// The same story with values of any size: killed, promoted, refused, set aside, equal.
#[test]
fn a_store_of_any_sizes_is_followed_promoted_and_followed_back() {
    let sandbox = tempfile::tempdir().unwrap();
    let folder = sandbox.path();
    std::fs::write(folder.join("secret"), b"0123456789abcdef").unwrap();
    ok(folder, &["create", "people", "--values", "any", "--segment", "64KiB"]);
    let (mut leader, address) = serve(folder, "people", "127.0.0.1:0");
    leader.write("first one\n");
    let follow = ["follow", "copy", &address, "--node", "2", "--secret-file", "secret"];
    let child = mainstay(folder, &follow).stdout(Stdio::null()).spawn().unwrap();
    let follower = Running::new(child);
    for round in 0..5 {
        let long = "x".repeat(round * 700);
        let line = |n: usize| format!("key-{} r{round}-{n} {long}\n", (round * 37 + n) % 150);
        leader.write(&(0..100).map(line).collect::<String>());
        leader.write(&format!("key-{round}\n"));
        thread::sleep(Duration::from_millis(150));
        leader.kill();
        leader = serve(folder, "people", &address).0;
    }
    thread::sleep(Duration::from_millis(200));
    follower.kill();
    follow_until_equal(folder, "copy", &address, SECRET);
    leader.write("carol 3\n");
    thread::sleep(Duration::from_millis(300));
    leader.kill();
    let unequal = mainstay(folder, &["verify", "people", "--against", "copy"]).output().unwrap();
    assert!(!unequal.status.success(), "carol is missing");
    let said: Value = serde_json::from_slice(&unequal.stdout).unwrap();
    assert_eq!(
        (&said["only_here"], &said["only_there"], &said["different"]),
        (&1.into(), &0.into(), &0.into())
    );
    change_places(folder);
    let said: Value =
        serde_json::from_str(&ok(folder, &["verify", "people", "--against", "copy"])).unwrap();
    assert!(said["equal"].as_u64().unwrap() > 100, "{said}");
}

#[test]
fn a_promoted_follower_takes_writes_and_the_old_leader_is_refused_until_it_follows() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    let (mut leader, address) = serve(folder, "people", "127.0.0.1:0");
    leader.write("alice 1\nbob 2\n");
    thread::sleep(Duration::from_millis(300));
    follow_until_equal(folder, "copy", &address, SECRET);
    leader.write("carol 3\n");
    thread::sleep(Duration::from_millis(300));
    leader.kill();
    change_places(folder);
    assert_eq!(records(folder, "people"), records(folder, "copy"));
}

#[test]
fn a_leader_removes_what_has_ended_and_its_follower_has_the_same_ends() {
    let sandbox = tempfile::tempdir().unwrap();
    let folder = sandbox.path();
    std::fs::write(folder.join("secret"), b"0123456789abcdef").unwrap();
    let sizes = ["--key-bytes", "8", "--value-bytes", "16", "--expiring"];
    ok(folder, &[&["create", "people"][..], &sizes].concat());
    ok(folder, &["put", "people", "alice", "1", "--ttl", "24h"]);
    ok(folder, &["put", "people", "bob", "2", "--ttl", "1ms"]);
    let (mut leader, address) = serve(folder, "people", "127.0.0.1:0");
    leader.write("carol 3\n");
    follow_until(folder, "copy", &address, 2);
    leader.kill();
    let exported = |store| ok(folder, &["export", store, "--sorted"]);
    assert_eq!(exported("people"), exported("copy"));
    assert_eq!(exported("copy").lines().count(), 2);
    assert!(exported("copy").contains("\"ends\":") && exported("copy").contains("carol"));
    let stats: Value = serde_json::from_str(&ok(folder, &["stats", "copy"])).unwrap();
    assert_eq!(
        (&stats["expiring"], &stats["records"]),
        (&true.into(), &2.into()),
        "bob is removed"
    );
}

#[test]
fn a_line_of_a_leader_can_set_a_value_that_is_empty_or_ends_with_blanks() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    ok(folder, &["create", "texts", "--values", "any"]);
    for store in ["people", "texts"] {
        let (mut leader, address) = serve(folder, store, "127.0.0.1:0");
        leader.write("gone 1\nnone \nlast 4 9  \ngone\nend 1\n");
        let copy = format!("copy-of-{store}");
        follow_until(folder, &copy, &address, 3);
        leader.kill();
        let mut found = records(folder, &copy);
        found.iter_mut().for_each(|line| line.retain(|letter| !"{}\n".contains(letter)));
        let value = |key: &str, value: &str| format!("\"key\":\"{key}\",\"value\":\"{value}\"");
        assert_eq!(found, [value("end", "1"), value("last", "4 9  "), value("none", "")]);
    }
}

#[test]
fn a_follower_is_encrypted_under_another_key_than_its_leader() {
    let sandbox = tempfile::tempdir().unwrap();
    let folder = sandbox.path();
    std::fs::write(folder.join("secret"), b"0123456789abcdef").unwrap();
    let (ours, theirs) = (["--key-file", "our.key"], ["--key-file", "their.key"]);
    for key in ["our.key", "their.key"] {
        ok(folder, &["key", "new", key]);
    }
    let create = ["create", "people", "--key-bytes", "8", "--value-bytes", "24"];
    ok(folder, &[&create[..], &ours].concat());
    let (mut leader, address) =
        serve_over(folder, "people", "127.0.0.1:0", &[SECRET, &ours].concat());
    leader.write("alice what-nobody-shall-read\n");
    thread::sleep(Duration::from_millis(300));
    follow_until_equal(folder, "copy", &address, &[SECRET, &theirs].concat());
    leader.kill();
    for store in ["people", "copy"] {
        for file in std::fs::read_dir(folder.join(store)).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(14).any(|part| part == b"what-nobody-sh"), "{store}");
        }
    }
    let refused = |key: [&str; 2]| {
        let mut get = mainstay(folder, &[&["get", "copy", "alice"][..], &key].concat());
        !get.stdout(Stdio::null()).status().unwrap().success()
    };
    assert!(refused(ours) && !refused(theirs));
    let both = ["verify", "people", "--against", "copy"];
    let said = ok(folder, &[&both[..], &ours, &theirs].concat());
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["equal"], 1, "{said}");
}

/// They are new stores, whose epochs begin anew, and their followers are to begin anew too. One that
/// does not know that yet harms nobody.
#[test]
fn n4_a_leader_that_was_resharded_or_repaired_leads_on_when_an_old_follower_calls() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    ok(folder, &["create", "pictures", "--values", "any", "--segment", "64KiB"]);
    for store in ["people", "pictures"] {
        let copy = &format!("copy-of-{store}");
        for round in 0..4 {
            // Each opening is another epoch.
            ok(folder, &["put", store, "alice", &round.to_string()]);
        }
        let (leader, address) = serve(folder, store, "127.0.0.1:0");
        follow_until_equal(folder, copy, &address, SECRET);
        leader.kill();
        ok(folder, &["reshard", store, "--shards", "4"]);
        let (mut leader, address) = serve(folder, store, "127.0.0.1:0");
        let follow = ["follow", copy, &address, "--node", "2", "--secret-file", "secret"];
        let mut command = mainstay(folder, &follow);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut old = Running::new(command.spawn().unwrap());
        let mut said = BufReader::new(old.child.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("different stores")), "it says why");
        // It calls again, for as long as it is there.
        let old = (old, said);
        leader.write("bob 2\n");
        // A follower that begins anew gets it.
        let new = &format!("new-copy-of-{store}");
        follow_until(folder, new, &address, 2);
        assert!(leader.child.try_wait().unwrap().is_none(), "it leads on");
        drop(old);
        leader.kill();
        ok(folder, &["put", store, "carol", "3"]);
    }
}
