//! What is said to be durable was given to the disk: the system calls of a process that writes to
//! stores in directories, as strace sees them.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{
    collections::BTreeSet,
    env,
    os::unix::process::parent_id,
    path::{Path, PathBuf},
    process::Command,
};

use mainstay_store::{Directory, Durability, LogOptions, Options, RawLogStore, RawStore};

/// In the process that is watched: where its stores are to be.
const PLACE: &str = "MAINSTAY_TRACED_STORE";
const SEGMENT: u64 = 64 << 10;
const VALUE: usize = 1_000;

/// What is done, one after another, with a system call between that does nothing else.
const WORK: [&str; 6] = ["create", "each", "group", "sync", "rotation", "compaction"];

fn mark() {
    let _nothing = parent_id();
}

fn logs(place: &Path) -> BTreeSet<PathBuf> {
    let names = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|end| end == "log")).collect()
}

macro_rules! work {
    ($place:expr, $create:expr) => {{
        let place: &Path = $place;
        mark();
        let store = $create(Directory::lock(place).unwrap());
        mark();
        let put = |key: u8, durability| store.put(&[key], &[key; VALUE], durability).unwrap();
        put(0, Durability::Each);
        mark();
        put(1, Durability::Memory);
        put(2, Durability::Group);
        mark();
        put(3, Durability::Memory);
        store.sync().unwrap();
        mark();
        let before = logs(place);
        for number in 0_u8..=255 {
            put(number % 16, Durability::Memory);
            if logs(place) != before {
                break;
            }
        }
        assert_ne!(logs(place), before);
        mark();
        store.compact().unwrap();
        mark();
    }};
}

fn fixed(place: &Path) {
    let options = Options { shards: 1, segment_bytes: SEGMENT, ..Options::default() };
    work!(place, |folder| RawStore::create(folder, 1, VALUE, &options).unwrap());
}

fn any(place: &Path) {
    let (shards, segment_bytes) = (1, SEGMENT);
    let options = LogOptions { shards, segment_bytes, dead_percent: 1, ..LogOptions::default() };
    work!(place, |folder| RawLogStore::create(folder, &options).unwrap());
}

/// Runs a test of this file again, as the process that is watched. Of each work, the calls that make
/// something durable, each with its file; none if there is no strace.
fn calls_of(test: &str, place: &Path) -> Option<Vec<Vec<String>>> {
    if Command::new("strace").arg("--version").output().is_err() {
        eprintln!("skipped: strace is not installed");
        return None;
    }
    let above = place.parent().unwrap();
    let log = above.parent().unwrap().join("calls");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-y", "-s", "0", "-e", "trace=pwritev2,fdatasync,fsync,getppid", "-o"])
        .arg(&log)
        .arg(env::current_exe().unwrap())
        .args([test, "--exact", "--test-threads", "1"])
        .env(PLACE, place)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let text = std::fs::read_to_string(&log).unwrap();
    let is_mark = |line: &&str| line.contains("getppid(");
    let lines: Vec<&str> = text.lines().skip_while(|line| !is_mark(line)).collect();
    let syncs = |line: &&str| {
        line.contains("fdatasync(") || line.contains("fsync(") || line.contains("RWF_DSYNC")
    };
    let works = lines.split(|line| is_mark(line)).skip(1);
    let syncs_of = |work: &[&str]| work.iter().copied().filter(syncs).map(str::to_owned).collect();
    Some(works.take(WORK.len()).map(syncs_of).collect())
}

fn look(test: &str, work: fn(&Path)) {
    if let Some(place) = env::var_os(PLACE) {
        work(Path::new(&place));
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let scratch = std::fs::canonicalize(scratch.path()).unwrap();
    let place = scratch.join("above").join("store");
    let Some(works) = calls_of(test, &place) else { return };
    assert_eq!(works.len(), WORK.len());
    let is_of = |call: &String, path: &Path| call.contains(&format!("<{}>", path.display()));
    let is_of_log = |call: &String| call.contains(".log>");
    let syncs_names = |call: &String, of: &Path| call.contains("fsync(") && is_of(call, of);
    for (name, calls) in WORK.iter().zip(&works) {
        assert!(calls.iter().any(is_of_log), "{name} syncs no log: {calls:?}");
        if ["create", "rotation", "compaction"].contains(name) {
            let synced = calls.iter().any(|call| syncs_names(call, &place));
            assert!(synced, "{name} does not sync the directory: {calls:?}");
        }
    }
    // The store is in a directory that was made for it, in one that was made for that.
    for above in [place.parent().unwrap(), &scratch] {
        let synced = works[0].iter().any(|call| syncs_names(call, above));
        assert!(synced, "{} is not synced: {:?}", above.display(), works[0]);
    }
}

#[test]
fn what_a_store_says_is_durable_was_synced_and_so_were_the_names_of_its_files() {
    look("what_a_store_says_is_durable_was_synced_and_so_were_the_names_of_its_files", fixed);
}

#[test]
fn what_a_log_store_says_is_durable_was_synced_and_so_were_the_names_of_its_files() {
    look("what_a_log_store_says_is_durable_was_synced_and_so_were_the_names_of_its_files", any);
}
