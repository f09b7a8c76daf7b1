//! P7: everything works for a user without rights, and in a container that forbids much.

use crate::{OnDisk, options, worker::Worker};
use mainstay_pool::{Index, Kind, Offer, Pool, PoolBox, PoolOptions, PoolView};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const NOBODY: u32 = 65_534;

/// A folder that anybody may use, with a copy of this program in it.
fn open_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    (folder, program)
}

/// Root becomes nobody; everybody else has no rights already.
fn other_user() -> Option<u32> {
    rustix::process::getuid().is_root().then_some(NOBODY)
}

/// A little of everything, on a memfd and in a file.
pub(crate) fn smoke(path: &Path) -> String {
    let in_memory = options(256).create_memfd().unwrap();
    let in_file = options(256).open(path).unwrap();
    for pool in [&in_memory, &in_file] {
        let index = Index::default();
        let indexed = index.attach(pool).unwrap();
        let block = pool.allocate(Kind::Recoverable).unwrap();
        block.write(0, b"here").unwrap();
        assert_eq!(indexed.find(block.uuid()), Some(block.id()));
        drop((block, pool.allocate(Kind::Transient).unwrap()));
        drop(PoolBox::new(pool, &crate::worker::Mark::of(1)).unwrap());
        let kept: Vec<_> = pool.recover(Offer::Unheld).unwrap().map(|it| it.free()).collect();
        assert_eq!(kept.len(), 2);
        assert!(pool.verify().unwrap().is_sound() && pool.holders().unwrap().len() == 1);
        let second = Pool::join_any_fd(pool.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_ne!(second.slot(), pool.slot());
        index.detach("test").unwrap();
    }
    assert_eq!(PoolView::open(path).unwrap().block_size(), 256);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let in_shm = maps.lines().any(|line| line.contains("/dev/shm/"));
    format!("uid {} shm {in_shm}", rustix::process::getuid().as_raw())
}

#[test]
fn p7_a_user_without_rights_can_do_everything_on_memory_and_on_files() {
    let (folder, program) = open_folder();
    let path = folder.path().join("unprivileged.pool");
    let user = other_user();
    let mut worker = Worker::start_as(&program, &path, user);
    let uid = user.unwrap_or(rustix::process::getuid().as_raw());
    assert_eq!(worker.ask("smoke"), format!("uid {uid} shm false"));
}

#[test]
fn p7_no_locked_memory_is_needed() {
    let (folder, program) = open_folder();
    let path = folder.path().join("unlocked.pool");
    let mut worker = Worker::start_as(&program, &path, other_user());
    worker.ask("limit memlock 0");
    assert!(worker.ask("smoke").starts_with("uid"));
}

#[test]
fn p7_too_little_address_space_is_a_typed_error_and_a_smaller_reservation_helps() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = Worker::start(&folder.path().join("none.pool"));
    worker.ask(&format!("limit address-space {}", 4_u64 << 30));
    let refused = worker.ask(&format!("create {}", 64_u64 << 30));
    assert!(refused.starts_with("AddressSpace"), "{refused}");
    let made = worker.ask(&format!("create {}", 16 << 20));
    assert!(made.ends_with("@0"), "a block of the first generation: {made}");
}

#[test]
fn p7_a_file_that_may_only_be_read_can_be_viewed_and_not_joined() {
    let Some(user) = other_user() else {
        println!("skipped: needs root, to have a second user");
        return;
    };
    let shared = OnDisk::new(options(64).mode(0o644));
    drop(shared.pool.allocate(Kind::Recoverable).unwrap());
    fs::set_permissions(shared.path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = shared.path.clone();
    let opened = std::thread::spawn(move || {
        // Of this thread alone: a raw system call, where libc's would change all threads.
        // SAFETY: plain numbers.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) };
        assert_eq!(done, 0);
        let view = PoolView::open(&path).map(|view| view.info().unwrap().counts.parked);
        (view, PoolOptions::new("test", 64).join(&path).map(drop))
    });
    let (view, joined) = opened.join().unwrap();
    assert_eq!(view.unwrap(), 1);
    let refused = joined.unwrap_err();
    let expected =
        matches!(refused, mainstay_pool::Error::Shm(mainstay_shm::Error::PermissionDenied { .. }));
    assert!(expected, "{refused}");
}
