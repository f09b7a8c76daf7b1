//! The example `packages` from outside: its verdict, the fault it must find, and what it leaves.

#![cfg(feature = "replica")]
#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Where cargo has put the example: beside the folder of this test.
fn packages(arguments: &[&str], folder: &Path) -> Output {
    let test = env::current_exe().unwrap();
    let built: PathBuf = test.ancestors().nth(2).unwrap().join("examples/packages");
    Command::new(built).args(arguments).env("TMPDIR", folder).output().unwrap()
}

fn has_index() -> bool {
    Path::new("/var/lib/dpkg/status").exists()
}

#[test]
fn all_copies_of_the_machines_packages_end_equal() {
    let folder = tempfile::tempdir().unwrap();
    let output = packages(&[], folder.path());
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if !has_index() {
        assert!(errors.contains("apt-get update"), "{errors}");
        return;
    }
    assert!(output.status.success(), "{text}{errors}");
    let verdict = text.lines().last().unwrap();
    assert!(verdict.starts_with("PACKAGES records="), "{text}");
    assert!(verdict.ends_with(" kills=1 lost=0 different=0 missing=0 ghosts=0"), "{text}");
    assert!(text.contains("is killed (SIGKILL) in an update"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing behind");
}

#[test]
fn a_follower_that_does_not_delete_is_found() {
    if !has_index() {
        return eprintln!("this machine has no package index");
    }
    let folder = tempfile::tempdir().unwrap();
    let output = packages(&["--plant", "ghosts"], folder.path());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let verdict = text.lines().last().unwrap();
    let (rest, ghosts) = verdict.rsplit_once(" ghosts=").unwrap();
    assert!(rest.ends_with(" kills=1 lost=0 different=0 missing=0"), "{text}");
    assert!(ghosts.parse::<u64>().unwrap() > 0, "{text}");
}

#[test]
fn a_wrong_command_line_is_refused_with_the_usage() {
    for arguments in [&["--plant", "none"][..], &["role", "none", ".", "1", ""], &["x"]] {
        let output = packages(arguments, &env::temp_dir());
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: packages"));
    }
}
