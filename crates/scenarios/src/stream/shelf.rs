//! A node's store, as its core sees it: with a rule broken, if one is.

use super::Flaw;
use mainstay_replica::{Found, Sink, Source};
use mainstay_sim::{Disk, Storage};
use mainstay_store::{
    Change, History, Identity, Options, Position, RawStore, Reached, Result, Tail, Written,
    limits::SEGMENT_BYTES_MIN,
};
use std::{rc::Rc, sync::Arc};

pub(super) const KEY: usize = 1;
pub(super) const VALUE: usize = 120;

/// A copy of all files of a store.
pub(super) type Backup = Rc<Vec<(String, Vec<u8>)>>;

/// Where a backup is being put back, it says so: what is there then is nothing.
const RESTORING: &str = "restoring";

#[derive(Clone)]
pub(super) struct Shelf {
    pub(super) store: Arc<RawStore<Disk>>,
    flaw: Option<Flaw>,
}

pub(super) fn identity(shards: u32) -> Identity {
    Identity { id: [7; 16], key_len: KEY, value_len: VALUE, shards, has_ends: false }
}

fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES_MIN, threads: 1, ..Options::default() }
}

/// Takes the files of a disk as they are.
pub(super) fn back_up(disk: &Disk) -> std::io::Result<Backup> {
    let mut files = Vec::new();
    for name in disk.names() {
        let file = disk.file(&name);
        let mut bytes = vec![0; file.len()? as usize];
        file.read_at(0, &mut bytes)?;
        files.push((name, bytes));
    }
    Ok(Rc::new(files))
}

/// Puts a backup in the place of all that is there.
pub(super) fn restore(disk: &Disk, backup: &Backup) -> std::io::Result<()> {
    disk.file(RESTORING).write_at(0, b"!")?;
    disk.file(RESTORING).sync()?;
    wipe(disk);
    for (name, bytes) in backup.iter() {
        let file = disk.file(name);
        file.write_at(0, bytes)?;
        file.sync()?;
    }
    disk.remove(RESTORING);
    Ok(())
}

fn wipe(disk: &Disk) {
    for name in disk.names() {
        if name != RESTORING {
            disk.remove(&name);
        }
    }
}

impl Shelf {
    /// The store of a disk; an empty replica if there is none.
    pub(super) fn open(disk: &Disk, shards: u32, flaw: Option<Flaw>) -> Result<Self> {
        if disk.names().iter().any(|name| name == RESTORING) {
            wipe(disk);
            disk.remove(RESTORING);
        }
        let store = match RawStore::open(disk.clone(), &options()) {
            Err(mainstay_store::Error::NotAStore) => {
                RawStore::create_replica(disk.clone(), &identity(shards), &options())?
            }
            opened => opened?,
        };
        Ok(Self { store: Arc::new(store), flaw })
    }

    pub(super) fn of(store: RawStore<Disk>, flaw: Option<Flaw>) -> Self {
        Self { store: Arc::new(store), flaw }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
}

impl Source for Shelf {
    type Tail = Tail<Disk>;

    fn identity(&self) -> Identity {
        RawStore::identity(&self.store)
    }

    fn write_bytes_max(&self) -> u64 {
        RawStore::write_bytes_max(&self.store)
    }

    fn epoch(&self) -> u64 {
        self.store.epoch()
    }

    fn fence(&self, epoch: u64) -> Result<()> {
        if self.has(Flaw::NotFenced) { Ok(()) } else { self.store.fence(epoch) }
    }

    fn tip(&self, shard: u32) -> Result<Option<Position>> {
        Source::tip(&self.store, shard)
    }

    fn records(&self, shard: u32) -> Result<u64> {
        RawStore::records(&self.store, shard)
    }

    fn tail(&self, shard: u32, position: Position) -> Result<Found<Tail<Disk>>> {
        match Source::tail(&self.store, shard, position)? {
            Found::Foreign if self.has(Flaw::DivergedIsEqual) => {
                let tip = Source::tip(&self.store, shard)?.unwrap_or_default();
                Source::tail(&self.store, shard, tip)
            }
            found => Ok(found),
        }
    }

    fn place(&self, tail: &Tail<Disk>) -> (Position, u64) {
        Source::place(&self.store, tail)
    }

    fn read(
        &self,
        tail: &mut Tail<Disk>,
        bytes_max: u64,
        each: &mut dyn FnMut(Written<'_>),
    ) -> Result<Reached> {
        match Source::read(&self.store, tail, bytes_max, each)? {
            Reached::Cut if self.has(Flaw::SilentWhenCut) => Ok(Reached::End),
            reached => Ok(reached),
        }
    }

    fn behind_bytes(&self, tail: &Tail<Disk>) -> Result<u64> {
        self.store.behind_bytes(tail)
    }

    fn scan(
        &self,
        shard: u32,
        slot: u32,
        max: usize,
        show: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<Option<u32>> {
        RawStore::scan(&self.store, shard, slot, max, show)
    }

    fn retain(&self, shard: u32, behind: Option<u64>) -> Result<()> {
        self.store.retain(shard, behind)
    }
}

impl Sink for Shelf {
    fn identity(&self) -> Identity {
        RawStore::identity(&self.store)
    }

    fn write_bytes_max(&self) -> u64 {
        RawStore::write_bytes_max(&self.store)
    }

    fn follows(&self) -> bool {
        Sink::follows(&self.store)
    }

    fn known_epoch(&self) -> u64 {
        if self.has(Flaw::NoEpochCheck) { 0 } else { self.store.known_epoch() }
    }

    fn know(&self, epoch: u64) -> Result<()> {
        if self.has(Flaw::NoEpochCheck) { Ok(()) } else { self.store.fence(epoch) }
    }

    fn history(&self, shard: u32) -> Result<History> {
        self.store.history(shard)
    }

    fn records(&self, shard: u32) -> Result<u64> {
        RawStore::records(&self.store, shard)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.store.get(key)
    }

    fn scan(
        &self,
        shard: u32,
        slot: u32,
        max: usize,
        show: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<Option<u32>> {
        RawStore::scan(&self.store, shard, slot, max, show)
    }

    fn apply(&self, shard: u32, epoch: u64, count: u32, changes: &[u8]) -> Result<Position> {
        self.store.apply(shard, epoch, count, changes)
    }

    fn mend(&self, shard: u32, changes: &[Change<'_>], then: History) -> Result<()> {
        let mut then = then;
        if let (History::Mending(from), true) = (then, self.has(Flaw::CursorAhead)) {
            then = History::At(from);
        }
        if self.has(Flaw::DeletesNotSent) {
            let puts: Vec<_> = changes.iter().copied().filter(is_put).collect();
            return Sink::mend(&self.store, shard, &puts, then);
        }
        Sink::mend(&self.store, shard, changes, then)
    }

    fn set_aside(&self, shard: u32, from: Position, records: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        if self.has(Flaw::NothingSetAside) {
            return Ok(());
        }
        Sink::set_aside(&self.store, shard, from, records)
    }

    fn sync(&self) -> Result<()> {
        if self.has(Flaw::AcksBeforeDurable) {
            return Ok(());
        }
        Sink::sync(&self.store)
    }
}

fn is_put(change: &Change<'_>) -> bool {
    matches!(change, Change::Put(..))
}
