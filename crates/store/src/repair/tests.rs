//! A repair that dies at each of its steps.

use super::*;
use crate::{
    Durability,
    any::dying::{dies_anywhere, files},
    format::is_memory_name,
    limits::SEGMENT_BYTES_MIN,
    planted::{Fault, plant},
    rank::Role,
};
use crate::{LogOptions, RawLogStore};
use mainstay_sim::Disk;
use std::{fs, os::unix::fs::FileExt};

#[test]
fn a18_a_repair_that_dies_leaves_the_damaged_store_or_the_whole_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("template");
    let options = Options { shards: 1, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() };
    let store = RawStore::create(Directory::lock(&path).unwrap(), 2, 3, &options).unwrap();
    for (key, value) in [(b"de", b"049"), (b"es", b"034"), (b"fr", b"033")] {
        store.put(key, value, Durability::Memory).unwrap();
    }
    store.close().unwrap();
    let mut template = files(&path);
    // Memory is of no worth elsewhere.
    template.retain(|name, _| !is_memory_name(name));
    template.get_mut("shard-0000-0000000000000001.log").unwrap()[4096 + 56 + 48 + 3] ^= 4;
    let repair = |folder| {
        let repaired = RawStore::repair(folder, |_, _| {})?;
        Ok((repaired.salvaged.records, repaired.kept.is_some()))
    };
    dies_anywhere(&template, repair, |path| {
        let store = RawStore::open(Directory::lock(path).unwrap(), &options).unwrap();
        assert_eq!(store.get(b"de").unwrap().as_deref(), Some(&b"049"[..]));
        assert_eq!(store.get(b"es").unwrap(), None);
        assert_eq!(store.get(b"fr").unwrap().as_deref(), Some(&b"033"[..]));
    });
}

/// Does a store of these records, of which this was told, follow, and is it whole or not as another was?
macro_rules! stands {
    ($store:expr, $told:expr, $is_whole:expr) => {{
        let (store, told, is_whole) = ($store, $told, $is_whole);
        (told.records, told.follows, told.is_unfinished) == (2, true, !is_whole)
            && (store.role(), store.is_whole()) == (Role::Follower, is_whole)
            && matches!(store.put(b"it", b"039", Durability::Group), Err(Error::Follows))
            && store.set_whole(true).is_ok()
            && store.promote(1).unwrap().put(b"it", b"039", Durability::Group).is_ok()
    }};
}

/// A damaged follower's store, whole or not, is salvaged and then repaired: does it stay what it was?
macro_rules! stays_what_it_is {
    ($store:ident, $create:expr, $options:expr, $value_at:expr) => {{
        let stays = |is_whole: bool| {
            let (dir, options) = (tempfile::tempdir().unwrap(), $options);
            let path = dir.path().join("copy");
            let lock = || Directory::lock(&path).unwrap();
            let store = $create(lock(), &options).unwrap();
            for (key, value) in [(b"de", b"049"), (b"es", b"034"), (b"fr", b"033")] {
                store.put(key, value, Durability::Group).unwrap();
            }
            let store = store.demote().unwrap();
            store.set_whole(is_whole).unwrap();
            store.close().unwrap();
            let mut names: Vec<_> = files(&path).into_keys().collect();
            names.retain(|name| name.ends_with(".log"));
            let log = fs::OpenOptions::new().write(true).open(path.join(&names[0])).unwrap();
            log.write_all_at(b"?", $value_at).unwrap();
            // Memory is no copy of a file.
            let memory = files(&path).into_keys().filter(|name| is_memory_name(name));
            memory.for_each(|name| fs::remove_file(path.join(name)).unwrap());

            let disk = Disk::new(7);
            let (saved, it) = $store::salvage(&lock(), disk.clone(), &options, |_, _| {}).unwrap();
            drop(saved);
            disk.power_cut();
            let saved = $store::open(disk, &options).unwrap();
            let is_saved = stands!(saved, it, is_whole);
            let it = $store::repair(lock(), |_, _| {}).unwrap().salvaged;
            let repaired = $store::open(lock(), &options).unwrap();
            is_saved && {
                let refused = || repaired.backup(&Disk::new(8), |_, _| {});
                let is_refused = is_whole || matches!(refused(), Err(Error::NotWhole));
                is_refused && stands!(repaired, it, is_whole)
            }
        };
        assert!(stays(true) && stays(false));
        for fault in [Fault::MadeLeader, Fault::MadeWhole] {
            plant(Some(fault));
            let stays = stays(true) && stays(false);
            plant(None);
            assert!(!stays, "{fault:?} is not found");
        }
    }};
}

#[test]
fn a19_what_is_saved_of_a_follower_follows_and_is_whole_only_if_that_was() {
    let options = Options { shards: 1, ..Options::default() };
    let create = |folder, options: &Options| RawStore::create(folder, 2, 3, options);
    stays_what_it_is!(RawStore, create, options.clone(), 4096 + 56 + 48 + 3);
    let options = LogOptions { shards: 1, ..LogOptions::default() };
    stays_what_it_is!(RawLogStore, RawLogStore::create, options.clone(), 4096 + 72 + 64);
}
