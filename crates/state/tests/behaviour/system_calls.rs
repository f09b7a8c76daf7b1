use crate::{Scratch, worker};
use std::process::Command;

#[test]
fn a_writer_that_nobody_watches_makes_no_system_call_on_commit() {
    if Command::new("strace").arg("--version").output().is_err() {
        eprintln!("skipped: strace is not installed");
        return;
    }
    let scratch = Scratch::new();
    let _keep = scratch.domain.writer::<[u8]>("speed").unwrap();
    let log = scratch.path().join("calls");
    let log_text = log.to_str().unwrap();
    let traced = worker::start_wrapped(
        "commit_unwatched",
        &scratch,
        &["strace", "-f", "-qq", "-o", log_text],
    );
    let answer = traced.finish();
    assert_eq!(answer.output, "300001", "{answer:?}");
    let calls = std::fs::read_to_string(&log).unwrap();
    // Between the two marks there are 300,000 commits of one thread.
    let between: Vec<&str> =
        calls.lines().skip_while(|line| !line.contains("getppid(")).skip(1).collect();
    let end = between.iter().position(|line| line.contains("getppid(")).expect("the second mark");
    let thread = between[end].split_whitespace().next();
    let own = between[..end].iter().filter(|line| line.split_whitespace().next() == thread);
    let own: Vec<_> = own.collect();
    assert!(own.is_empty(), "{own:?}");
}
