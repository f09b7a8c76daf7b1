//! The example `vitals` from outside: its verdict, and what a wrong command line is told.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{
    env,
    path::PathBuf,
    process::{Command, Output},
};

/// Where cargo has put the example: beside the folder of this test.
fn vitals(arguments: &[&str]) -> Output {
    let test = env::current_exe().unwrap();
    let built: PathBuf = test.ancestors().nth(2).unwrap().join("examples/vitals");
    Command::new(built).args(arguments).output().unwrap()
}

#[test]
fn every_reader_is_right_although_the_writer_is_killed() {
    let output = vitals(&["--seconds", "2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let verdict = text.lines().last().unwrap();
    assert!(verdict.starts_with("VITALS samples="), "{text}");
    assert!(verdict.ends_with(" kills=1 torn=0 mixed=0 early=0 behind=0 left=0"), "{text}");
    assert!(text.contains(" killed (SIGKILL) after sample "), "{text}");
}

#[test]
fn a_wrong_command_line_is_refused_with_the_usage() {
    for arguments in [&["--seconds", "0"][..], &["--seconds"], &["role", "none", "."], &["x"]] {
        let output = vitals(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: vitals"));
    }
}
