//! A repair that dies at each of its steps.

use super::*;
use crate::{
    Durability,
    any::dying::{dies_anywhere, files},
    format::is_memory_name,
    limits::SEGMENT_BYTES_MIN,
};

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
