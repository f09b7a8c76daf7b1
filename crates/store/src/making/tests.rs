//! Stores that are made beside their places: by one at a time, and nothing of anybody is removed.

use super::*;
use crate::{Directory, Options, RawStore};

fn make(path: &Path) {
    let options = Options { shards: 1, ..Options::default() };
    let folder = Directory::lock(path).unwrap();
    RawStore::create(folder, 1, 1, &options).unwrap().close().unwrap();
}

fn opens(place: &Path) -> bool {
    let opened = RawStore::open(Directory::lock(place).unwrap(), &Options::default());
    !place.join(MAKING).exists() && opened.is_ok()
}

#[test]
fn one_makes_it_and_the_others_are_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("numbers");
    let making = Making::begin(&place, "restoring").unwrap();
    make(making.path());
    assert!(matches!(Making::begin(&place, "restoring"), Err(Error::Locked)));
    making.finish().unwrap();
    assert!(opens(&place));
    assert!(matches!(Making::begin(&place, "restoring"), Err(Error::Exists)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_is_given_up_or_killed_leaves_nothing_and_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("numbers");
    let making = Making::begin(&place, "restoring").unwrap();
    make(making.path());
    drop(making);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // Killed before it was marked, and after that.
    let beside = dir.path().join("numbers.restoring");
    fs::create_dir(&beside).unwrap();
    drop(Making::begin(&place, "restoring").unwrap());
    make_left(&beside);
    let making = Making::begin(&place, "restoring").unwrap();
    let names: Vec<_> =
        fs::read_dir(&beside).unwrap().map(|name| name.unwrap().file_name()).collect();
    assert_eq!(names, [MAKING], "what was left is gone");
    make(making.path());
    making.finish().unwrap();
    assert!(opens(&place));
    // And when all was in its place.
    fs::write(place.join(MAKING), b"").unwrap();
    RawStore::open(Directory::lock(&place).unwrap(), &Options::default()).unwrap();
    assert!(matches!(Making::begin(&place, "restoring"), Err(Error::Exists)));
    // The directory above it is made as well.
    let place = dir.path().join("more").join("numbers");
    let making = Making::begin(&place, "restoring").unwrap();
    make(making.path());
    making.finish().unwrap();
    assert!(opens(&place));
}

/// As one that was killed leaves it.
fn make_left(beside: &Path) {
    fs::create_dir_all(beside).unwrap();
    make(beside);
    fs::write(beside.join(MAKING), b"").unwrap();
}

#[test]
fn a20_what_is_somebodys_is_left_alone_and_nothing_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("numbers");
    let beside = dir.path().join("numbers.restoring");
    fs::create_dir(&beside).unwrap();
    fs::write(beside.join("store"), b"precious").unwrap();
    assert!(matches!(Making::begin(&place, "restoring"), Err(Error::InTheWay { .. })));
    assert_eq!(fs::read_dir(&beside).unwrap().count(), 1, "nothing is put there either");
    // Nor is a directory in it, whatever mark there is.
    fs::write(beside.join(MAKING), b"").unwrap();
    fs::create_dir(beside.join("more")).unwrap();
    assert!(matches!(Making::begin(&place, "restoring"), Err(Error::InTheWay { .. })));
    assert_eq!(fs::read(beside.join("store")).unwrap(), b"precious");
    fs::remove_dir_all(&beside).unwrap();
    std::os::unix::fs::symlink(dir.path(), &beside).unwrap();
    assert!(matches!(Making::begin(&place, "restoring"), Err(Error::InTheWay { .. })));
    fs::remove_file(&beside).unwrap();
    // What came to be in the place meanwhile stays, even if it is empty.
    let making = Making::begin(&place, "restoring").unwrap();
    make(making.path());
    fs::create_dir(&place).unwrap();
    assert!(matches!(making.finish(), Err(Error::Exists)));
    assert!(place.is_dir() && !beside.exists());
}

#[test]
fn a20_of_many_that_begin_at_once_each_makes_it_whole_or_is_refused() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("numbers");
        let made: u32 = std::thread::scope(|scope| {
            let one = || match Making::begin(&place, "restoring") {
                Ok(making) => {
                    make(making.path());
                    making.finish().map(|()| 1).unwrap_or_default()
                }
                Err(Error::Locked | Error::Exists) => 0,
                Err(error) => panic!("{error}"),
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(made, 1);
        assert!(opens(&place));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
