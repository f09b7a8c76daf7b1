//! What comes of a close and of upkeep where not everything can be written.

use std::io;

use mainstay_sim::{Disk, DiskFile};
use mainstay_storage::{Folder, Storage};

use crate::{Durability, Error, LogOptions, RawLogStore};

/// What fails of a file with this name.
#[derive(Clone, Copy)]
enum Failing {
    HintWrites,
    SyncsOfFirst,
    Nothing,
}

#[derive(Clone)]
struct Faulty {
    disk: Disk,
    failing: std::sync::Arc<std::sync::Mutex<Failing>>,
}

struct File {
    file: DiskFile,
    name: String,
    of: Faulty,
}

impl Faulty {
    fn new() -> Self {
        let failing = std::sync::Arc::new(std::sync::Mutex::new(Failing::Nothing));
        Self { disk: Disk::new(7), failing }
    }

    fn set(&self, failing: Failing) {
        *self.failing.lock().unwrap() = failing;
    }
}

impl Folder for Faulty {
    type File = File;

    fn file(&self, name: &str) -> io::Result<File> {
        let file = Folder::file(&self.disk, name)?;
        Ok(File { file, name: name.to_owned(), of: self.clone() })
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Folder::names(&self.disk)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Folder::remove(&self.disk, name)
    }

    fn sync_names(&self) -> io::Result<()> {
        Folder::sync_names(&self.disk)
    }
}

impl Storage for File {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let failing = *self.of.failing.lock().unwrap();
        if matches!(failing, Failing::HintWrites) && self.name.ends_with(".hint") {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        let failing = *self.of.failing.lock().unwrap();
        if matches!(failing, Failing::SyncsOfFirst) && self.name.starts_with("any-0000") {
            return Err(io::Error::other("planted"));
        }
        self.file.sync()
    }
}

/// Closes a store of four shards, each with a write that is not durable yet: what the close says, and
/// of how many disks after a power cut which shards lack it.
fn closed(failing: Failing) -> (crate::Result<()>, Vec<usize>) {
    let folder = Faulty::new();
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
    folder.set(failing);
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
    let (closed, lost) = closed(Failing::HintWrites);
    assert!(closed.is_ok(), "{closed:?}");
    assert_eq!(lost, [0; 4]);
}

#[test]
fn a_close_syncs_the_other_shards_though_one_cannot_be_synced() {
    let (closed, lost) = closed(Failing::SyncsOfFirst);
    assert!(matches!(closed, Err(Error::Poisoned { shard: 0, .. })), "{closed:?}");
    assert_eq!(lost[1..], [0; 3]);
}

#[test]
fn where_hints_have_no_room_upkeep_makes_some_and_writes_them_later() {
    let folder = Faulty::new();
    let options = LogOptions { shards: 1, segment_bytes: 16 << 10, ..LogOptions::default() };
    let store = RawLogStore::create(folder.clone(), &options).unwrap();
    store.put(b"kept", &[7; 1000], Durability::Memory).unwrap();
    for number in 0..100 {
        store.put(b"de", &[number; 1000], Durability::Memory).unwrap();
    }
    folder.set(Failing::HintWrites);
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
    folder.set(Failing::Nothing);
    store.write_hints().unwrap();
    assert!(hints() > 0);
    store.upkeep().unwrap();
    assert_eq!(store.get(b"de").unwrap().as_deref(), Some(&[99; 1000][..]));
    assert_eq!(store.get(b"kept").unwrap().as_deref(), Some(&[7; 1000][..]));
}
