//! A repair that dies at each of its steps.

use std::{collections::BTreeMap, fs, path::Path};

use super::*;
use crate::{
    Durability,
    killed::{be_mortal, mortal},
    limits::SEGMENT_BYTES_MIN,
};

fn options() -> LogOptions {
    LogOptions { shards: 1, segment_bytes: SEGMENT_BYTES_MIN, ..LogOptions::default() }
}

pub(crate) fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap());
    let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    named.map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

fn put_files(path: &Path, files: &BTreeMap<String, Vec<u8>>) {
    fs::create_dir(path).unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(path.join(name), bytes).unwrap());
}

fn value(path: &Path, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let store = RawLogStore::open(Directory::lock(path)?, &options())?;
    Ok(store.get(key)?.map(|value| value.to_vec()))
}

/// Files of a store, one value of which is damaged.
fn damaged(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let path = dir.join("template");
    let store = RawLogStore::create(Directory::lock(&path).unwrap(), &options()).unwrap();
    for key in [b"de", b"es", b"fr"] {
        store.put(key, b"in Europe", Durability::Memory).unwrap();
    }
    store.close().unwrap();
    let mut files = files(&path);
    files.get_mut("any-0000-0000000000000001.log").unwrap()[4096 + 72 + 64] ^= 4;
    files
}

/// Repairs a damaged store in a folder, and dies after any number of steps; then somebody tries again.
/// `repair` says how many records there are and whether the damaged files are kept, and `check` looks at
/// the new store.
pub(crate) fn dies_anywhere(
    template: &BTreeMap<String, Vec<u8>>,
    repair: impl Fn(Directory) -> Result<(u64, bool)>,
    check: impl Fn(&Path),
) {
    be_mortal();
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let dir = dir.unwrap();
    let (mut deaths, mut exchanged) = (0, 0);
    for steps in 0.. {
        let place = dir.path().join(steps.to_string());
        fs::create_dir(&place).unwrap();
        let path = place.join("names");
        put_files(&path, template);
        let folder = Directory::lock(&path).unwrap();
        let repaired = mortal(steps, || repair(folder));
        let is_done = repaired.is_some();
        let is_new = files(&path) != *template;
        if is_new {
            check(&path);
            exchanged += u64::from(!is_done);
        }
        deaths += u64::from(!is_done);
        // Somebody tries again: then it is repaired, and the damaged files are kept, once.
        let again = repair(Directory::lock(&path).unwrap()).unwrap();
        assert_eq!(again, (2, !is_new), "{steps}");
        assert_eq!(files(&place.join("names.damaged-1")), *template, "{steps}");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 2, "{steps}");
        check(&path);
        if is_done {
            break;
        }
    }
    assert!(deaths > 30 && exchanged > 1, "{deaths} {exchanged}");
}

#[test]
fn v16_a_repair_that_dies_leaves_the_damaged_store_or_the_whole_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let repair = |folder| {
        let repaired = RawLogStore::repair(folder, |_, _| {})?;
        Ok((repaired.salvaged.records, repaired.kept.is_some()))
    };
    dies_anywhere(&damaged(dir.path()), repair, |path| {
        assert_eq!(value(path, b"de").unwrap().as_deref(), Some(&b"in Europe"[..]));
        assert_eq!(value(path, b"es").unwrap(), None);
        assert_eq!(value(path, b"fr").unwrap().as_deref(), Some(&b"in Europe"[..]));
    });
}

#[test]
fn what_has_a_copy_is_mended_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names");
    let mut files = damaged(dir.path());
    let log = files.get_mut("any-0000-0000000000000001.log").unwrap();
    log[4096 + 72 + 64] ^= 4;
    log[512 + 30] ^= 1;
    files.get_mut("any-0000-0000000000000001.hint").unwrap()[4100] ^= 1;
    files.get_mut("any").unwrap()[40] ^= 1;
    put_files(&path, &files);
    let id = |path: &Path| LogSurvey::of(path, |_, _| {}).map(|survey| survey.id).unwrap();
    let before = id(&path);
    let repaired = RawLogStore::repair(Directory::lock(&path).unwrap(), |_, _| {}).unwrap();
    assert_eq!((repaired.salvaged.records, repaired.salvaged.damage.len()), (3, 3));
    assert!(repaired.salvaged.is_whole() && repaired.kept.is_none());
    assert!(LogSurvey::of(&path, |_, _| {}).unwrap().damage.is_empty());
    assert_eq!((id(&path), value(&path, b"es").unwrap().is_some()), (before, true));
}
