//! Copies and restores that are killed: afterwards there is nothing, or the whole of it, or the command
//! says that it is not finished; and doing it again finishes it.

use crate::sandbox::Sandbox;
use std::{
    fs, thread,
    time::{Duration, Instant},
};

const RECORDS: u32 = 20_000;
/// How often something is killed, at most, until enough of it was seen.
const KILLS_MAX: u32 = 60;
const SEEN: u32 = 3;

/// A store of fixed sizes, or of any.
fn store(create: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.ok(&[&["create", "people"], create].concat());
    put(&sandbox, RECORDS, "v");
    sandbox
}

const FIXED: &[&str] = &["--key-bytes", "8", "--value-bytes", "16"];
const ANY: &[&str] = &["--values", "any"];

fn put(sandbox: &Sandbox, count: u32, value: &str) {
    let lines: String = (0..count).map(|number| format!("k{number},{value}{number}\n")).collect();
    fs::write(sandbox.path("people.csv"), format!("key,value\n{lines}")).unwrap();
    sandbox.ok(&["import", "people.csv", "people"]);
}

/// How long it takes when nobody kills it.
fn time_of(sandbox: &Sandbox, arguments: &[&str]) -> Duration {
    let started = Instant::now();
    sandbox.ok(arguments);
    started.elapsed()
}

fn kill(sandbox: &Sandbox, arguments: &[&str], after: Duration) {
    let mut running = sandbox.spawn(arguments);
    thread::sleep(after);
    // It may have ended.
    let _ended = running.0.kill();
    running.0.wait().unwrap();
}

/// A moment within that time, another one each round.
fn moment(round: u32, whole: Duration) -> Duration {
    whole.mul_f64(f64::from(round * 7 % 20 + 1) / 21.0)
}

/// Whether the copy was whole. One that is not is refused by whatever would take it for a store.
fn check_copy(sandbox: &Sandbox, copy: &str) -> Option<bool> {
    let verified = sandbox.run(&["verify", copy]);
    if verified.code == 0 {
        return Some(true);
    }
    if !verified.stderr.contains("is not finished") {
        // It had not come to its first file.
        assert!(verified.stderr.contains("there is no store"), "{}", verified.stderr);
        return None;
    }
    for command in [&["restore", copy, "half"][..], &["export", copy], &["get", copy, "k1"]] {
        let error = sandbox.fails(1, command);
        assert!(error.contains("is not finished") || error.contains("is no store"), "{error}");
    }
    let error = sandbox.fails(1, &["restore", copy, "half"]);
    assert!(error.contains("`mainstay store backup`") && error.contains("again"), "{error}");
    assert!(!sandbox.path("half").exists() && !sandbox.path("half.restoring").exists());
    Some(false)
}

fn first_copies(create: &[&str]) {
    let sandbox = store(create);
    let whole = time_of(&sandbox, &["backup", "people", "timed"]);
    let mut seen = 0;
    for round in 0..KILLS_MAX {
        let (copy, anew) = (format!("copy{round}"), format!("anew{round}"));
        kill(&sandbox, &["backup", "people", &copy], moment(round, whole));
        seen += u32::from(check_copy(&sandbox, &copy) == Some(false));
        sandbox.ok(&["backup", "people", &copy, "--check"]);
        assert_eq!(check_copy(&sandbox, &copy), Some(true));
        let restored = sandbox.json(&["restore", &copy, &anew]);
        assert_eq!(restored["records"], RECORDS);
        fs::remove_dir_all(sandbox.path(&copy)).unwrap();
        fs::remove_dir_all(sandbox.path(&anew)).unwrap();
        if seen == SEEN {
            return;
        }
    }
    panic!("only {seen} copies were killed midway");
}

#[test]
fn a19_a_first_copy_that_is_killed_is_not_restored_until_it_is_finished() {
    first_copies(FIXED);
}

#[test]
fn v11_a_first_copy_of_any_sizes_that_is_killed_is_not_restored_until_it_is_finished() {
    first_copies(ANY);
}

fn later_copies(create: &[&str], is_as_before: bool) {
    let sandbox = store(create);
    let mut seen = 0;
    for round in 0..KILLS_MAX {
        let (copy, anew) = (format!("copy{round}"), format!("anew{round}"));
        let value = format!("{round}v");
        let whole = time_of(&sandbox, &["backup", "people", &copy]);
        put(&sandbox, RECORDS, &value);
        kill(&sandbox, &["backup", "people", &copy], moment(round, whole));
        match check_copy(&sandbox, &copy) {
            Some(true) => {
                sandbox.ok(&["restore", &copy, &anew]);
                let [first, last] = [0, RECORDS - 1].map(|number| {
                    let got = sandbox.ok(&["get", &anew, &format!("k{number}")]);
                    got.trim_end().strip_suffix(&number.to_string()).unwrap().to_owned()
                });
                assert_eq!(first, last, "one part is older than the other");
                fs::remove_dir_all(sandbox.path(&anew)).unwrap();
                seen += u32::from(is_as_before && first != value);
            }
            state => {
                assert!(state.is_some() && !is_as_before, "it was there before");
                seen += 1;
            }
        }
        sandbox.ok(&["backup", "people", &copy, "--check"]);
        sandbox.ok(&["restore", &copy, &anew]);
        sandbox.ok(&["verify", "people", "--against", &anew]);
        fs::remove_dir_all(sandbox.path(&copy)).unwrap();
        fs::remove_dir_all(sandbox.path(&anew)).unwrap();
        // Most of the time goes into opening the two.
        if seen > 0 {
            return;
        }
    }
    panic!("no copy was killed midway");
}

#[test]
fn a19_a_later_copy_that_is_killed_is_the_old_one_the_new_one_or_not_finished() {
    later_copies(FIXED, false);
}

#[test]
fn v11_a_later_copy_of_any_sizes_that_is_killed_is_the_old_one_or_the_new_one() {
    later_copies(ANY, true);
}

/// First copies that were killed, and are not finished.
fn unfinished_copies(sandbox: &Sandbox) -> impl Iterator<Item = String> {
    let whole = time_of(sandbox, &["backup", "people", "timed"]);
    (0..KILLS_MAX).filter_map(move |round| {
        let copy = format!("copy{round}");
        kill(sandbox, &["backup", "people", &copy], moment(round, whole));
        (check_copy(sandbox, &copy) == Some(false)).then_some(copy)
    })
}

#[test]
fn a_copy_that_cannot_be_finished_is_taken_as_it_is_by_promote_and_no_other_way() {
    let sandbox = store(FIXED);
    for copy in unfinished_copies(&sandbox) {
        let refused = sandbox.fails(1, &["promote", &copy]);
        if refused.contains("was catching up") {
            continue;
        }
        assert!(refused.contains("is not finished"), "{refused}");
        sandbox.ok(&["promote", &copy, "--unfinished"]);
        sandbox.ok(&["put", &copy, "k1", "mine"]);
        let records = sandbox.ok(&["export", &copy]).lines().count();
        assert!(records < RECORDS as usize, "{records}");
        return;
    }
    panic!("no copy was killed midway");
}

#[test]
fn a19_what_is_repaired_of_a_copy_that_was_not_finished_is_not_finished() {
    let sandbox = store(FIXED);
    let copy = unfinished_copies(&sandbox).next().expect("no copy was killed midway");
    // Both headers of a file of the log.
    sandbox.flip(&copy, ".log", 8);
    sandbox.flip(&copy, ".log", 520);
    let run = sandbox.run(&["repair", &copy]);
    let said = String::from_utf8(run.stdout).unwrap();
    // It may have had nothing yet that could be lost.
    assert!([0, 3].contains(&run.code), "{said} {}", run.stderr);
    let next = format!("`mainstay store promote {copy} --unfinished`");
    assert!(said.contains("it is not finished") && said.contains(&next), "{said}");
    assert_eq!(check_copy(&sandbox, &copy), Some(false));
    sandbox.fails(1, &["promote", &copy]);
    sandbox.ok(&["promote", &copy, "--unfinished"]);
    sandbox.ok(&["put", &copy, "k1", "mine"]);
}

fn restores(create: &[&str]) {
    let sandbox = store(create);
    sandbox.ok(&["backup", "people", "copy"]);
    let whole = time_of(&sandbox, &["restore", "copy", "timed"]);
    let mut seen = 0;
    for round in 0..KILLS_MAX {
        kill(&sandbox, &["restore", "copy", "anew"], moment(round, whole));
        seen += u32::from(sandbox.path("anew.restoring").exists());
        if sandbox.path("anew").exists() {
            sandbox.ok(&["verify", "people", "--against", "anew"]);
        } else {
            sandbox.ok(&["restore", "copy", "anew"]);
            sandbox.ok(&["verify", "people", "--against", "anew"]);
        }
        assert!(!sandbox.path("anew.restoring").exists());
        sandbox.ok(&["put", "anew", "k1", "mine"]);
        fs::remove_dir_all(sandbox.path("anew")).unwrap();
        if seen == 2 * SEEN {
            return;
        }
    }
    panic!("only {seen} were killed midway");
}

#[test]
fn a_restore_that_is_killed_leaves_no_store_or_all_of_it_and_is_made_again() {
    restores(FIXED);
}

#[test]
fn a_restore_of_any_sizes_that_is_killed_leaves_no_store_or_all_of_it_and_is_made_again() {
    restores(ANY);
}

#[test]
fn a20_of_two_restores_to_one_place_one_makes_the_store_and_the_other_is_told_so() {
    for create in [FIXED, ANY] {
        let sandbox = store(create);
        sandbox.ok(&["backup", "people", "copy"]);
        // Of fixed sizes a copy is open while it is read, so each has its own.
        sandbox.ok(&["backup", "people", "other"]);
        let mut seen = 0;
        for round in 0..KILLS_MAX {
            let [first, second] = thread::scope(|scope| {
                let first = scope.spawn(|| sandbox.run(&["restore", "copy", "anew"]));
                thread::sleep(Duration::from_millis(u64::from(round % 10) * 15));
                let second = sandbox.run(&["restore", "other", "anew"]);
                [first.join().unwrap(), second]
            });
            let codes = [first.code, second.code];
            assert!(codes == [0, 1] || codes == [1, 0], "{} {}", first.stderr, second.stderr);
            let told = format!("{}{}", first.stderr, second.stderr);
            let is_told = told.contains("another restore to this place") || told.contains("exists");
            assert!(is_told && !told.contains("damaged"), "{told}");
            sandbox.ok(&["verify", "people", "--against", "anew"]);
            assert!(!sandbox.path("anew.restoring").exists());
            fs::remove_dir_all(sandbox.path("anew")).unwrap();
            seen += u32::from(told.contains("another restore to this place"));
            if round > 5 && seen >= SEEN {
                break;
            }
        }
        assert!(seen >= SEEN, "only {seen} were at it at once");
    }
}

#[test]
fn a20_a_directory_of_somebody_is_not_removed_by_a_restore_or_a_reshard() {
    for create in [FIXED, ANY] {
        let sandbox = Sandbox::new();
        sandbox.ok(&[&["create", "people"], create].concat());
        put(&sandbox, 10, "v");
        sandbox.ok(&["backup", "people", "copy"]);
        for (name, command) in [
            ("anew.restoring", &["restore", "copy", "anew"][..]),
            ("people.resharding", &["reshard", "people", "--shards", "4"]),
        ] {
            let mine = sandbox.path(name);
            fs::create_dir(&mine).unwrap();
            fs::write(mine.join("file"), "precious").unwrap();
            let error = sandbox.fails(1, command);
            assert!(error.contains("is in the way"), "{error}");
            let left: Vec<_> =
                fs::read_dir(&mine).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(left, [mine.join("file")], "nothing is put there either");
            assert_eq!(fs::read(mine.join("file")).unwrap(), b"precious");
            fs::remove_dir_all(&mine).unwrap();
            sandbox.ok(command);
            assert!(!mine.exists());
        }
    }
}
