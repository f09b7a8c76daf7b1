//! What comes of a close and of upkeep where not everything can be written.

use std::io;

use mainstay_storage::Folder;

use crate::{
    Durability, Error, LogOptions, RawLogStore,
    faulty::{Call, Faulty},
};

fn hint_writes(call: Call, name: &str) -> io::Result<()> {
    let fails = call == Call::Write && name.ends_with(".hint");
    if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

fn syncs_of_first(call: Call, name: &str) -> io::Result<()> {
    let fails = call == Call::Sync && name.starts_with("any-0000");
    if fails { Err(io::Error::other("planted")) } else { Ok(()) }
}

/// Closes a store of four shards, each with a write that is not durable yet: what the close says, and
/// of how many disks after a power cut which shards lack it.
fn closed(fails: fn(Call, &str) -> io::Result<()>) -> (crate::Result<()>, Vec<usize>) {
    let folder = Faulty::new(7);
    let options = LogOptions { shards: 4, ..LogOptions::default() };
    let store = RawLogStore::create(folder.clone(), &options).unwrap();
    let of = |shard| {
        let mut keys = (0_u64..).map(u64::to_le_bytes);
        keys.find(|key| store.shard(key).unwrap() == shard).unwrap()
    };
    let keys: Vec<_> = (0..4).map(of).collect();
    for key in &keys {
        store.put(key, b"value", Durability::Interval).unwrap();
    }
    folder.fail(fails);
    let closed = store.close();
    let mut lost = vec![0; keys.len()];
    for image in folder.disk.crash_images(20) {
        let again = RawLogStore::open(image, &options).unwrap();
        for (lost, key) in lost.iter_mut().zip(&keys) {
            *lost += usize::from(again.get(key).unwrap().is_none());
        }
    }
    (closed, lost)
}

#[test]
fn a_close_that_cannot_write_hints_makes_all_durable_and_is_none_that_failed() {
    let (closed, lost) = closed(hint_writes);
    assert!(closed.is_ok(), "{closed:?}");
    assert_eq!(lost, [0; 4]);
}

#[test]
fn a_close_syncs_the_other_shards_though_one_cannot_be_synced() {
    let (closed, lost) = closed(syncs_of_first);
    assert!(matches!(closed, Err(Error::Poisoned { shard: 0, .. })), "{closed:?}");
    assert_eq!(lost[1..], [0; 3]);
}

#[test]
fn where_hints_have_no_room_upkeep_makes_some_and_writes_them_later() {
    let folder = Faulty::new(7);
    let options = LogOptions { shards: 1, segment_bytes: 16 << 10, ..LogOptions::default() };
    let store = RawLogStore::create(folder.clone(), &options).unwrap();
    store.put(b"kept", &[7; 1000], Durability::Memory).unwrap();
    for number in 0..100 {
        store.put(b"de", &[number; 1000], Durability::Memory).unwrap();
    }
    folder.fail(hint_writes);
    let before = store.stats()[0].segments;
    for _ in 0..2 * before {
        let failed = store.upkeep();
        assert!(
            matches!(&failed, Err(Error::Io { source, .. })
            if source.kind() == io::ErrorKind::StorageFull),
            "{failed:?}"
        );
    }
    // Those that are dead are gone, and nothing was moved.
    let stats = &store.stats()[0];
    assert!(before > 5 && stats.segments < 4 && stats.moved_bytes == 0, "{before}, {stats:?}");
    let hints = || folder.names().unwrap().iter().filter(|name| name.ends_with(".hint")).count();
    folder.fail(|_, _| Ok(()));
    store.write_hints().unwrap();
    assert!(hints() > 0);
    store.upkeep().unwrap();
    assert_eq!(store.get(b"de").unwrap().as_deref(), Some(&[99; 1000][..]));
    assert_eq!(store.get(b"kept").unwrap().as_deref(), Some(&[7; 1000][..]));
}
