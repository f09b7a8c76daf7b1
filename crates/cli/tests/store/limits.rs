//! How many files a process may have open, and what the command says of it.

use crate::sandbox::{Run, Sandbox};
use std::process::{Command, Stdio};

/// Runs the command under limits, as the shell's `ulimit` understands them.
fn limited(sandbox: &Sandbox, limits: &str, arguments: &str) -> Run {
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_mainstay");
    command.args(["-c", &format!("{limits} && exec '{program}' store {arguments}")]);
    command.current_dir(sandbox.path("")).stdin(Stdio::null());
    Run::of(command.output().unwrap())
}

#[test]
fn a_store_of_many_shards_is_made_under_the_limit_of_a_login() {
    let sandbox = Sandbox::new();
    let made = "create wide --key-bytes 8 --value-bytes 8 --shards 128 --segment 16KiB";
    // The hard limit is far above.
    let run = limited(&sandbox, "ulimit -S -n 128", made);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let run = limited(&sandbox, "ulimit -S -n 128", "put wide alice 1");
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn whoever_may_not_have_as_many_files_open_is_told_how_many_are_needed() {
    let sandbox = Sandbox::new();
    let made = "create wide --key-bytes 8 --value-bytes 8 --shards 128 --segment 16KiB";
    let run = limited(&sandbox, "ulimit -n 200", made);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let needed = run.stderr.split("needs ").nth(1).unwrap().split(' ').next().unwrap();
    let told = format!("this process may have 200 files open, and needs {needed} or more");
    assert!(run.stderr.contains(&told), "{}", run.stderr);
    assert!(run.stderr.contains("LimitNOFILE"), "{}", run.stderr);
    // As many are enough, and were not far too many.
    let few: u64 = needed.parse().unwrap();
    let run = limited(&sandbox, &format!("ulimit -n {}", few / 2), made);
    assert_eq!(run.code, 1, "{few}");
    let run = limited(&sandbox, &format!("ulimit -n {few}"), made);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn a_creation_that_was_refused_can_be_tried_again_with_fewer_shards() {
    let sandbox = Sandbox::new();
    for sizes in ["--key-bytes 8 --value-bytes 8 --segment 16KiB", "--values any --segment 64KiB"] {
        let run = limited(&sandbox, "ulimit -n 60", &format!("create people {sizes} --shards 64"));
        assert!(run.code == 1 && run.stderr.contains("files open"), "{}", run.stderr);
        let run = limited(&sandbox, "ulimit -n 60", &format!("create people {sizes} --shards 1"));
        assert_eq!((run.code, run.stderr.as_str()), (0, ""));
        std::fs::remove_dir_all(sandbox.path("people")).unwrap();
    }
}

#[test]
fn a_write_that_was_made_is_not_told_as_failed_where_closing_finds_no_room() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["create", "full", "--values", "any", "--shards", "1"]);
    // The write ends within 512 bytes behind the header of the log, and what a close writes does not.
    let value = "x".repeat(430);
    let limits = "trap '' XFSZ && ulimit -f 9";
    let run = limited(&sandbox, limits, &format!("put full alice {value}"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let said = run.stderr.contains("warning: ") && run.stderr.contains("the write is durable");
    assert!(said && run.stdout.starts_with(b"alice: write 1 "), "{}", run.stderr);
    assert_eq!(sandbox.ok(&["get", "full", "alice"]).trim(), value);
    // One that was not made is.
    let run = limited(&sandbox, limits, &format!("put full bob {value}"));
    assert_eq!(run.code, 1, "{}", run.stderr);
    sandbox.fails(1, &["get", "full", "bob"]);
}
