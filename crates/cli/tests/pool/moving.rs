//! Export and import.

use crate::calls::unchanged;
use crate::sandbox::{Run, Sandbox};
use mainstay::pool::{Kind, Pool, PoolBox, PoolView, Record, Uuid};
use std::{collections::BTreeMap, fs, io::Write, path::Path, process::Stdio};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Call {
    caller: u64,
    seconds: u64,
}

impl Record for Call {
    const NAME: &'static str = "test.call/1";
}

/// Everything that an export keeps of a block.
#[derive(PartialEq, Debug)]
struct Kept {
    used: usize,
    fingerprint: u64,
    exclusive: bool,
    data: Vec<u8>,
}

fn kept(path: &Path) -> BTreeMap<Uuid, Kept> {
    let view = PoolView::open(path).unwrap();
    let live = view.blocks().unwrap().filter(|block| block.kind == Some(Kind::Recoverable));
    live.map(|block| {
        let (info, data) = view.copy_block(block.id.number).unwrap().unwrap();
        let (used, fingerprint, exclusive) = (info.used_len, info.fingerprint, info.exclusive);
        (info.uuid, Kept { used, fingerprint, exclusive, data })
    })
    .collect()
}

/// A pool `calls` with blocks of every sort.
fn with_every_sort() -> Sandbox {
    let sandbox = Sandbox::with_calls(0);
    let pool = Pool::join_any(sandbox.path("calls.pool")).unwrap();
    let bytes = pool.allocate(Kind::Recoverable).unwrap();
    bytes.write(0, &(0..64).map(|i| 255 - i).collect::<Vec<u8>>()).unwrap();
    bytes.set_used_len(17).unwrap();
    let empty = pool.allocate(Kind::Recoverable).unwrap();
    empty.set_used_len(0).unwrap();
    let typed = pool.allocate_typed::<Call>(Kind::Recoverable).unwrap();
    typed.set(&Call { caller: 7, seconds: 0 });
    let mut alone = PoolBox::<Call>::new(&pool, &Call { caller: 8, seconds: 1 }).unwrap();
    alone.seconds = 2;
    let transient = pool.allocate(Kind::Transient).unwrap();
    transient.write(0, b"not kept").unwrap();
    drop((bytes, empty, typed, alone));
    drop(transient);
    sandbox
}

#[test]
fn what_was_exported_is_imported_with_everything_it_had() {
    let sandbox = with_every_sort();
    sandbox.ok(&["fill", "calls", "--blocks", "500", "--data", "random"]);
    let before = kept(&sandbox.path("calls.pool"));
    assert_eq!(before.len(), 504);
    assert!(before.values().any(|block| block.exclusive && block.fingerprint != 0));

    sandbox.ok(&["export", "calls", "a.jsonl"]);
    sandbox.ok(&["import", "a.jsonl", "copy"]);
    assert_eq!(kept(&sandbox.path("copy.pool")), before);
    assert_eq!(sandbox.run(&["verify", "copy"]).code, 0);
    let (one, two) = (sandbox.json(&["info", "calls"]), sandbox.json(&["info", "copy"]));
    for same in ["block_size_bytes", "blocks_max", "growth_step_blocks", "reserved_bytes"] {
        assert_eq!(one[same], two[same], "{same}");
    }

    sandbox.ok(&["export", "copy", "b.jsonl"]);
    let blocks = |name| {
        let text = fs::read_to_string(sandbox.path(name)).unwrap();
        let mut lines: Vec<String> =
            text.lines().filter(|line| line.starts_with("{\"block\"")).map(String::from).collect();
        lines.sort();
        lines
    };
    assert_eq!(blocks("a.jsonl"), blocks("b.jsonl"));
}

#[test]
fn an_export_goes_through_a_pipe() {
    let sandbox = Sandbox::with_calls(10);
    let export = sandbox.ok(&["export", "calls"]);
    let mut command = sandbox.command(&["import", "-", "copy"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(export.as_bytes()).unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(kept(&sandbox.path("copy.pool")), kept(&sandbox.path("calls.pool")));
}

#[test]
fn an_existing_file_is_replaced_only_on_request() {
    let sandbox = Sandbox::with_calls(2);
    fs::write(sandbox.path("a.jsonl"), "precious").unwrap();
    unchanged(&sandbox.path("a.jsonl"), || {
        let error = sandbox.fails(1, &["export", "calls", "a.jsonl"]);
        assert!(error.contains("--force"), "{error}");
    });
    sandbox.ok(&["export", "calls", "a.jsonl", "--force"]);
    assert!(fs::read_to_string(sandbox.path("a.jsonl")).unwrap().starts_with("{\"pool\""));
    let error = sandbox.fails(1, &["export", "calls", "/dev/null", "--force"]);
    assert!(error.contains("is not a regular file"), "{error}");
    assert_eq!(sandbox.files(), ["a.jsonl", "calls.pool"]);
}

#[test]
fn a_damaged_export_makes_no_pool_and_changes_none() {
    let sandbox = Sandbox::with_calls(20);
    sandbox.ok(&["create", "other", "--block-size", "64"]);
    sandbox.ok(&["fill", "other", "--blocks", "3"]);
    let whole = sandbox.ok(&["export", "calls"]);
    let mut flipped = whole.clone().into_bytes();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let lines: Vec<&str> = whole.lines().collect();
    let without_one = [&lines[..5], &lines[6..]].concat().join("\n") + "\n";
    let cut_short = whole[..whole.len() - 1].to_owned();
    let damaged = [
        flipped,
        without_one.into_bytes(),
        cut_short.into_bytes(),
        whole.as_bytes()[..500].to_vec(),
    ];
    let files = sandbox.files();
    let before = kept(&sandbox.path("other.pool"));
    for bytes in damaged {
        fs::write(sandbox.path("x.jsonl"), bytes).unwrap();
        let error = sandbox.fails(3, &["import", "x.jsonl", "new"]);
        assert!(error.contains("nothing was imported"), "{error}");
        sandbox.fails(3, &["import", "x.jsonl", "other", "--into"]);
        fs::remove_file(sandbox.path("x.jsonl")).unwrap();
        assert_eq!(sandbox.files(), files, "nothing is left behind");
        assert_eq!(kept(&sandbox.path("other.pool")), before);
        let counts = &sandbox.json(&["info", "other"])["counts"];
        assert_eq!((&counts["parked"], &counts["orphaned"]), (&3.into(), &0.into()));
    }
    fs::write(sandbox.path("x.jsonl"), "something else").unwrap();
    let error = sandbox.fails(1, &["import", "x.jsonl", "new"]);
    assert!(error.contains("is not an export of a pool"), "{error}");
}

#[test]
fn boxes_are_taken_out_again_when_an_import_fails() {
    let sandbox = with_every_sort();
    let whole = sandbox.ok(&["export", "calls"]);
    fs::write(sandbox.path("x.jsonl"), &whole[..whole.len() - 1]).unwrap();
    sandbox.ok(&["create", "other", "--block-size", "64"]);
    sandbox.fails(3, &["import", "x.jsonl", "other", "--into"]);
    let counts = &sandbox.json(&["info", "other"])["counts"];
    assert_eq!((&counts["parked"], &counts["held"]), (&0.into(), &0.into()));
}

#[test]
fn blocks_are_added_to_a_pool_but_never_twice() {
    let sandbox = Sandbox::with_calls(20);
    sandbox.ok(&["export", "calls", "a.jsonl"]);
    sandbox.ok(&["create", "other", "--block-size", "64"]);
    sandbox.ok(&["fill", "other", "--blocks", "3"]);
    sandbox.ok(&["import", "a.jsonl", "other", "--into"]);
    let with_both = kept(&sandbox.path("other.pool"));
    assert_eq!(with_both.len(), 23);
    let error = sandbox.fails(1, &["import", "a.jsonl", "other", "--into"]);
    assert!(error.contains("has a block"), "{error}");
    assert_eq!(kept(&sandbox.path("other.pool")), with_both);
}

#[test]
fn an_import_is_the_way_to_another_block_size() {
    let sandbox = Sandbox::with_calls(5);
    sandbox.ok(&["export", "calls", "a.jsonl"]);
    let error = sandbox.fails(1, &["import", "a.jsonl", "small", "--block-size", "32"]);
    assert!(error.contains("--block-size 64 or more"), "{error}");
    assert_eq!(sandbox.files(), ["a.jsonl", "calls.pool"]);
    sandbox.ok(&["import", "a.jsonl", "large", "--block-size", "4KiB"]);
    let (old, new) = (kept(&sandbox.path("calls.pool")), kept(&sandbox.path("large.pool")));
    assert_eq!(new.len(), 5);
    for (uuid, block) in new {
        assert_eq!((block.used, &block.data[..64]), (64, &old[&uuid].data[..]));
        assert!(block.data[64..].iter().all(|byte| *byte == 0));
    }
    sandbox.fails(1, &["import", "a.jsonl", "calls"]);
}

#[test]
fn a_pool_that_is_too_small_is_as_it_was() {
    let sandbox = Sandbox::with_calls(100);
    sandbox.ok(&["export", "calls", "a.jsonl"]);
    sandbox.ok(&["create", "tiny", "--block-size", "64", "--max-blocks", "64"]);
    let error = sandbox.fails(1, &["import", "a.jsonl", "tiny", "--into"]);
    assert!(error.contains("full"), "{error}");
    assert!(kept(&sandbox.path("tiny.pool")).is_empty());
    sandbox.fails(1, &["import", "a.jsonl", "new", "--max-blocks", "64"]);
    assert_eq!(sandbox.files(), ["a.jsonl", "calls.pool", "tiny.pool"]);
}

#[test]
fn an_interrupted_import_leaves_nothing() {
    let sandbox = Sandbox::with_calls(10);
    let export = sandbox.ok(&["export", "calls"]);
    let mut command = sandbox.command(&["import", "-", "copy"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let third_line = export.match_indices('\n').nth(2).unwrap().0 + 1;
    stdin.write_all(&export.as_bytes()[..third_line]).unwrap();
    // The draft is there when the first block was read: by then signals are watched for.
    crate::sandbox::wait_until("the import has begun", || sandbox.files().len() == 2);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    // It may have ended already.
    let _ = stdin.write_all(&export.as_bytes()[third_line..]);
    drop(stdin);
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.code, 130, "{}", run.stderr);
    assert_eq!(sandbox.files(), ["calls.pool"]);
}

#[test]
fn what_a_killed_import_has_left_does_not_stop_the_next() {
    let sandbox = Sandbox::with_calls(10);
    sandbox.ok(&["export", "calls", "a.jsonl"]);
    let export = fs::read_to_string(sandbox.path("a.jsonl")).unwrap();
    let mut command = sandbox.command(&["import", "-", "copy"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&export.as_bytes()[..1_000]).unwrap();
    let draft = sandbox.path(".copy.pool.importing");
    let is_working =
        || PoolView::open(&draft).is_ok_and(|view| !view.holders().unwrap().is_empty());
    crate::sandbox::wait_until("the import has begun", is_working);
    let error = sandbox.fails(1, &["import", "a.jsonl", "copy"]);
    assert!(error.contains("another import is under way"), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(draft.exists() && sandbox.json(&["ls"]).as_array().unwrap().len() == 1);
    sandbox.ok(&["import", "a.jsonl", "copy"]);
    assert_eq!(sandbox.files(), ["a.jsonl", "calls.pool", "copy.pool"]);
}
