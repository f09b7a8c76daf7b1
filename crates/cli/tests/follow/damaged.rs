//! Copies that are damaged: it is told, and they are made whole again by their leader.

use std::{
    io::Read,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::play::*;

/// A leader with so many records, and a copy that has all of them.
fn followed(folder: &Path, store: &str, copy: &str, records: usize) -> (Running, String) {
    let (mut leader, address) = serve(folder, store, "127.0.0.1:0");
    leader.write(&(0..records).map(|n| format!("k{n} v{n}\n")).collect::<String>());
    follow_until(folder, copy, &address, records);
    (leader, address)
}

/// Has a copy made anew by a leader: the status, what was said, and the error.
fn repair(folder: &Path, copy: &str, from: &str) -> (i32, Value, String) {
    let arguments = [&["repair", copy, "--from", from, "--node", "2"], SECRET].concat();
    let mut command = mainstay(folder, &arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut repairing = Running::new(child);
    let begun = Instant::now();
    while repairing.child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "{copy} waits for {from}");
        thread::sleep(Duration::from_millis(20));
    }
    let (mut said, mut error) = (String::new(), String::new());
    repairing.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    repairing.child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    let code = repairing.child.wait().unwrap().code().unwrap();
    (code, serde_json::from_str(&said).unwrap_or_default(), error)
}

#[test]
fn a_damaged_copy_of_either_kind_is_made_anew_from_its_leader() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    ok(folder, &["create", "pictures", "--values", "any", "--segment", "64KiB"]);
    ok(folder, &["create", "other", "--values", "any"]);
    let (_other, other) = serve(folder, "other", "127.0.0.1:0");
    for store in ["people", "pictures"] {
        let copy = &format!("copy-of-{store}");
        let (mut leader, address) = followed(folder, store, copy, 200);
        let (code, said, _) = repair(folder, copy, &address);
        assert_eq!((code, &said["found"], &said["kept"]), (0, &0.into(), &Value::Null), "{said}");
        // A byte of a record in the middle of a log.
        let path = logs(folder, copy).remove(0);
        let mut damaged = std::fs::read(&path).unwrap();
        damaged[4_096 + 70] ^= 4;
        std::fs::write(&path, &damaged).unwrap();
        let name = path.file_name().unwrap();
        let broken = mainstay(folder, &["verify", copy]).output().unwrap();
        assert_eq!(broken.status.code(), Some(3));
        // Another store's leader is refused, and nothing is touched.
        assert_eq!(repair(folder, copy, &other).0, 1);
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
        leader.write("late one\nk7\n");
        thread::sleep(Duration::from_millis(200));
        let (code, said, _) = repair(folder, copy, &address);
        assert_eq!(
            (code, said["left"].as_u64(), said["records"].as_u64()),
            (0, Some(0), Some(200))
        );
        let kept = folder.join(format!("{copy}.damaged-1"));
        assert_eq!(std::fs::read(kept.join(name)).unwrap(), damaged);
        assert!(!folder.join(format!("{copy}.repairing")).exists());
        leader.kill();
        ok(folder, &["verify", copy]);
        let said: Value =
            serde_json::from_str(&ok(folder, &["verify", store, "--against", copy])).unwrap();
        assert_eq!(said["equal"], 200, "{said}");
        for difference in ["different", "only_here", "only_there"] {
            assert_eq!(said[difference], 0, "{said}");
        }
    }
}

/// A copy that is made anew knows of the leaders that the damaged one knew of: a replaced leader which
/// has not heard of that yet does not get it back. And of what the damaged one is the header tells, when
/// another file cannot even be read.
#[test]
fn n4_a_copy_that_is_made_anew_takes_nothing_of_a_leader_older_than_the_damaged_one_knew() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    ok(folder, &["create", "pictures", "--values", "any", "--segment", "64KiB"]);
    ok(folder, &["create", "other", "--values", "any"]);
    for store in ["people", "pictures"] {
        let copy = &format!("copy-of-{store}");
        let (leader, _) = followed(folder, store, copy, 100);
        leader.kill();
        // It leads from now on, and so knows of an epoch that its leader of before has not heard of.
        let led: Value = serde_json::from_str(&ok(folder, &["promote", copy])).unwrap();
        // What is not even a file says nothing at all.
        let path = logs(folder, copy).remove(0);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let (_leader, address) = serve(folder, store, "127.0.0.1:0");
        let (code, _, said) = repair(folder, copy, &address);
        assert!(code == 1 && said.contains(&led["epoch"].to_string()), "{code}: {said}");
        assert!(path.is_dir(), "the damaged one is where it was");
        let (_other, other) = serve(folder, "other", "127.0.0.1:0");
        let (code, _, said) = repair(folder, copy, &other);
        assert!(code == 1 && said.contains("another store"), "{code}: {said}");
    }
}

#[test]
fn damage_at_the_end_of_a_followers_log_is_told_once_it_has_stopped() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    let (mut leader, address) = serve(folder, "people", "127.0.0.1:0");
    leader.write("alice one\n");
    // So that the copy takes its last writes from the log, one by one.
    follow_until(folder, "copy", &address, 1);
    leader.write("bob two\ncarol three\n");
    follow_until(folder, "copy", &address, 3);
    leader.kill();
    ok(folder, &["verify", "copy"]);
    let mut damaged = 0;
    for path in logs(folder, "copy") {
        let sound = std::fs::read(&path).unwrap();
        let Some(end) = sound.iter().rposition(|byte| *byte != 0).filter(|end| *end >= 4_096)
        else {
            continue;
        };
        let mut bytes = sound.clone();
        bytes[end] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let status = mainstay(folder, &["verify", "copy"]).stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(3), "{}", path.display());
        std::fs::write(&path, sound).unwrap();
        ok(folder, &["verify", "copy"]);
        damaged += 1;
    }
    assert!(damaged > 0, "no log of the copy has a write");
}

#[test]
fn a_follower_whose_store_is_damaged_is_made_equal_again_by_its_leader() {
    let sandbox = sandbox();
    let folder = sandbox.path();
    let (mut leader, address) = serve(folder, "people", "127.0.0.1:0");
    let lines: String = (0..50).map(|number| format!("k{number} {number}\n")).collect();
    leader.write(&lines);
    follow_until(folder, "copy", &address, 50);
    // Taken from its log, not by comparing.
    leader.write("more 1\n");
    follow_until(folder, "copy", &address, 51);
    let damaged = logs(folder, "copy").into_iter().find(|path| {
        let mut bytes = std::fs::read(path).unwrap();
        let found = bytes.get_mut(4_096 + 50).filter(|byte| **byte != 0);
        let has_one = found.map(|byte| *byte ^= 1).is_some();
        std::fs::write(path, bytes).unwrap();
        has_one
    });
    assert!(damaged.is_some(), "no log of the copy has a write");
    let code = |arguments: &[&str]| {
        mainstay(folder, arguments).stdout(Stdio::null()).status().unwrap().code()
    };
    assert_eq!(code(&["verify", "copy"]), Some(3));
    // As the guide says: out of the way, and followed anew.
    std::fs::rename(folder.join("copy"), folder.join("copy.damaged")).unwrap();
    follow_until(folder, "copy", &address, 51);
    leader.kill();
    ok(folder, &["verify", "copy"]);
    let said = ok(folder, &["verify", "people", "--against", "copy"]);
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["equal"], 51, "{said}");
}
