//! Which method is used where: each of them is shown to have run.

use crate::other::{Other, Restricted};
use mainstay_track::Method;
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

const NOBODY: u32 = 65_534;

/// A folder that anybody may use, with a copy of this program and a pool in it.
fn open_folder() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (program, file) = (folder.path().join("program"), folder.path().join("test.pool"));
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    crate::options(64).create(&file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    (folder, program, file)
}

/// What the kernel of this machine allows.
fn expected() -> Method {
    let pool = crate::pool(64);
    mainstay_track::Tracker::new(&pool).unwrap().method()
}

#[test]
fn who_has_rights_and_who_has_none_track_by_pages() {
    let (_folder, program, file) = open_folder();
    let me = rustix::process::getuid();
    let users = [Some(NOBODY), None];
    for user in &users[usize::from(!me.is_root())..] {
        let restricted = Restricted { user: *user, ..Restricted::default() };
        let mut other = Other::start_as(&program, &file, restricted);
        let uid = user.unwrap_or(me.as_raw());
        assert_eq!(other.ask("smoke"), format!("uid {uid} {:?}", expected()));
    }
    println!("by {:?}, as {}", expected(), if me.is_root() { "root and nobody" } else { "a user" });
}

#[test]
fn where_userfaultfd_is_refused_contents_are_compared_and_it_says_so() {
    let (_folder, program, file) = open_folder();
    let root = rustix::process::getuid().is_root();
    for user in [root.then_some(NOBODY), None] {
        let restricted = Restricted { user, no_userfaultfd: true };
        let mut other = Other::start_as(&program, &file, restricted);
        assert!(other.ask("smoke").ends_with(" Compare"));
    }
}

#[test]
fn this_machine_tracks_by_pages_if_its_kernel_can() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    println!("Linux {release}: by {:?}", expected());
    if version < (6, 7) {
        assert_eq!(expected(), Method::Compare);
    }
}
