//! What needs another process: no rights, no room.

use crate::place::{LIVE, Place, helpful, options};
use mainstay_pool::{Error, Kind, Pool, PoolOptions, PoolView};
use mainstay_shm::Error as Shm;
use rustix::process::{Resource, Rlimit, geteuid, setrlimit};
use std::{
    fs::{self, File, Permissions},
    io::ErrorKind,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

/// Runs the test `name` once more, in a process of its own that is started by `wrap`: there it finds
/// [`given_folder`], and does its part in it.
fn in_another_process(name: &str, folder: &Path, wrap: &[&str]) {
    // The program may stand in a folder that others cannot enter: run a copy that they can reach.
    let copy = folder.join("test-program");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    let mut words: Vec<&str> = wrap.to_vec();
    words.push(copy.to_str().unwrap());
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .args(["--exact", &format!("surroundings::{name}"), "--nocapture", "--test-threads=1"])
        .env("REFUSALS_FOLDER", folder);
    let output = loop {
        match command.output() {
            // A child that another test is just starting has the copy open for writing until it
            // becomes another program.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                thread::sleep(Duration::from_millis(10));
            }
            output => break output.unwrap(),
        }
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{name}: {text}");
    fs::remove_file(copy).unwrap();
}

/// The folder that the test prepared for its other process; none in the first one.
fn given_folder() -> Option<PathBuf> {
    std::env::var_os("REFUSALS_FOLDER").map(PathBuf::from)
}

#[test]
fn a_file_that_may_not_be_written_is_refused_for_work_and_shown() {
    if let Some(folder) = given_folder() {
        return without_the_right_to_write(&folder);
    }
    let place = Place::new();
    fs::set_permissions(place.path(), Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(place.dir.path(), Permissions::from_mode(0o755)).unwrap();
    // Root may write whatever the mode says, so the attempt is made by nobody.
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let wrap = if geteuid().is_root() { &nobody[..] } else { &[] };
    in_another_process(
        "a_file_that_may_not_be_written_is_refused_for_work_and_shown",
        place.dir.path(),
        wrap,
    );
    assert!(fs::read(place.path()).unwrap() == place.bytes);
}

fn without_the_right_to_write(folder: &Path) {
    let path = folder.join("refused.pool");
    let read_only = || OwnedFd::from(File::open(&path).unwrap());
    let mut errors = vec![
        options().join(&path).unwrap_err(),
        options().open(&path).unwrap_err(),
        Pool::join_any(&path).unwrap_err(),
        options().join_fd(read_only()).unwrap_err(),
        Pool::join_any_fd(read_only()).unwrap_err(),
    ];
    if fs::metadata(folder).unwrap().uid() != geteuid().as_raw() {
        errors.push(options().create(folder.join("new.pool")).unwrap_err());
    }
    for error in errors {
        assert!(matches!(error, Error::Shm(Shm::PermissionDenied { .. })), "{error:?}");
        helpful(&error);
    }
    assert_eq!(PoolView::open(&path).unwrap().info().unwrap().counts.parked, 9);
    assert_eq!(PoolView::open_fd(read_only()).unwrap().name(), "refused");
}

#[test]
fn a_full_disk_stops_growth_and_creation_and_loses_nothing() {
    if let Some(folder) = given_folder() {
        return with_a_limit_on_files(&folder);
    }
    let place = Place::new();
    in_another_process(
        "a_full_disk_stops_growth_and_creation_and_loses_nothing",
        place.dir.path(),
        &[],
    );
    assert!(!place.dir.path().join("new.pool").exists(), "nothing half made stays behind");
    let now = fs::read(place.path()).unwrap();
    assert_eq!(now.len(), place.bytes.len(), "a growth that failed leaves no bytes");
    assert!(now[..LIVE] == place.bytes[..LIVE], "the header never changes");
    let pool = options().join(place.path()).unwrap();
    let parked = pool.blocks().unwrap().filter(|block| block.kind.is_some());
    let texts = parked.map(|block| pool.copy_block(block.id.number).unwrap().unwrap().1);
    assert!(texts.filter(|data| data.starts_with(b"must stay")).count() == 9);
    assert!(pool.verify().unwrap().is_sound());
}

fn with_a_limit_on_files(folder: &Path) {
    let limit_to = |bytes: u64| {
        setrlimit(Resource::Fsize, Rlimit { current: Some(bytes), maximum: Some(bytes) }).unwrap();
    };
    // SAFETY: only changes what becomes of a signal: growth past the limit is then an error.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let path = folder.join("refused.pool");
    limit_to(fs::metadata(&path).unwrap().len());
    // Joining needs no room; work goes on in the room there is, then says what is missing.
    let pool = options().join(&path).unwrap();
    let mut held = Vec::new();
    let error = until_it_is_refused(&pool, &mut held);
    assert_no_space(&error);
    assert_eq!(held.len(), 7, "the free blocks of the two extents");
    assert_eq!(pool.info().unwrap().extents, 2);
    held.clear();
    assert!(pool.allocate(Kind::Transient).is_ok(), "what was freed is there again");
    pool.close().unwrap();

    limit_to(4_096);
    assert_no_space(&options().create(folder.join("new.pool")).unwrap_err());
    assert_no_space(&options().create_memfd().unwrap_err());
}

fn until_it_is_refused(pool: &Pool, held: &mut Vec<mainstay_pool::Block>) -> Error {
    loop {
        match pool.allocate(Kind::Transient) {
            Ok(block) => held.push(block),
            Err(error) => return error,
        }
    }
}

#[track_caller]
fn assert_no_space(error: &Error) {
    assert!(matches!(error, Error::Shm(Shm::NoSpace { .. })), "{error:?}");
    helpful(error);
}

#[test]
fn a_full_file_system_says_so_and_loses_nothing() {
    if let Some(folder) = given_folder() {
        return on_a_small_file_system(&folder);
    }
    let dir = tempfile::tempdir().unwrap();
    let full = dir.path().join("full");
    fs::create_dir(&full).unwrap();
    // A tmpfs of 64 KiB in a mount namespace of its own.
    let mount = format!("mount -t tmpfs -o size=64k none {} && exec \"$@\"", full.display());
    let user = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &mount, "sh"];
    let root = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    let wrap = if geteuid().is_root() { &root[..] } else { &user[..] };
    let possible = Command::new(wrap[0]).args(&wrap[1..]).arg("true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no mount namespace can be made here (the limit on files stands in)");
        return;
    }
    in_another_process("a_full_file_system_says_so_and_loses_nothing", dir.path(), wrap);
}

fn on_a_small_file_system(folder: &Path) {
    let folder = folder.join("full");
    let small = PoolOptions::new("small", 1_000).growth_step(8).create(folder.join("a")).unwrap();
    let kept = small.allocate(Kind::Recoverable).unwrap();
    kept.write(0, &[7; 1_000]).unwrap();
    let mut held = Vec::new();
    assert_no_space(&until_it_is_refused(&small, &mut held));
    for block in &held {
        block.write(0, &[8; 1_000]).unwrap();
    }
    assert_eq!(kept.to_vec().unwrap(), [7; 1_000]);
    assert!(small.verify().unwrap().is_sound());
    // No room even for the first extent of another pool, or for its head.
    match PoolOptions::new("other", 1_000).growth_step(8).create(folder.join("b")) {
        Ok(other) => assert_no_space(&other.allocate(Kind::Transient).unwrap_err()),
        Err(error) => {
            assert_no_space(&error);
            assert!(!folder.join("b").exists(), "nothing half made stays behind");
        }
    }
}
