//! A node's store, as its core sees it: with a rule broken, if one is.

use super::{
    Flaw,
    kept::{Kept, Look, Place, Sought, either, placed},
};
use mainstay_replica::{Chunk, Found, Mended, Show, Sink, Source};
use mainstay_sim::{Disk, NodeId, Storage};
use mainstay_store::{Change, History, Identity, Position, Reached, Result, Token, Written};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

pub(super) const VALUE: usize = 120;

/// A copy of all files of a store.
pub(super) type Backup = Rc<Vec<(String, Vec<u8>)>>;

/// The last place of each shard of each host that it holds to be durable as a follower.
pub(super) type Vouched = Rc<RefCell<BTreeMap<(NodeId, u32), Position>>>;

/// Where a backup is being put back, it says so: what is there then is nothing.
const RESTORING: &str = "restoring";

#[derive(Clone)]
pub(super) struct Shelf {
    pub(super) store: Kept,
    flaw: Option<Flaw>,
    vouched: (NodeId, Vouched),
    /// Who follows with it has not begun yet.
    begins: Cell<bool>,
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
    pub(super) fn open(
        disk: &Disk,
        (shards, is_any): (u32, bool),
        flaw: Option<Flaw>,
        vouched: (NodeId, Vouched),
    ) -> Result<Self> {
        if disk.names().iter().any(|name| name == RESTORING) {
            wipe(disk);
            disk.remove(RESTORING);
        }
        let store = Kept::open(disk, shards, is_any)?;
        Ok(Self { store, flaw, vouched, begins: Cell::new(false) })
    }

    /// It with its store in another role; none if somebody else has it as well.
    pub(super) fn with(
        self,
        change: impl FnOnce(Kept) -> Option<Result<Kept>>,
    ) -> Option<Result<Self>> {
        let Self { store, flaw, vouched, begins } = self;
        let changed = change(store)?;
        Some(changed.map(|store| Self { store, flaw, vouched, begins }))
    }

    /// It for one who is about to follow.
    pub(super) fn to_follow(&self) -> Self {
        Self { begins: Cell::new(true), ..self.clone() }
    }

    /// All up to a place is durable, its follower says.
    pub(super) fn vouch(&self, shard: u32, at: Position) {
        let (node, vouched) = &self.vouched;
        vouched.borrow_mut().insert((*node, shard), at);
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
}

impl Source for Shelf {
    type Tail = Place;
    type Seek = (u32, Sought);
    type Scan = Look;

    fn identity(&self) -> Identity {
        either!(&self.store, store => Source::identity(store))
    }

    fn write_bytes_max(&self) -> u64 {
        either!(&self.store, store => Source::write_bytes_max(store))
    }

    fn epoch(&self) -> u64 {
        self.store.epoch()
    }

    fn fence(&self, epoch: u64) -> Result<()> {
        if self.has(Flaw::NotFenced) { Ok(()) } else { self.store.fence(epoch) }
    }

    fn is_whole(&self) -> bool {
        either!(&self.store, store => Source::is_whole(store))
    }

    fn tip(&self, shard: u32) -> Result<Option<Position>> {
        either!(&self.store, store => Source::tip(store, shard))
    }

    fn records(&self, shard: u32) -> Result<u64> {
        either!(&self.store, store => Source::records(store, shard))
    }

    fn tail_end(&self, shard: u32) -> Result<Place> {
        Ok(match &self.store {
            Kept::Fixed(store) => Place::Fixed(Source::tail_end(store, shard)?),
            Kept::Any(store) => Place::Any(Source::tail_end(store, shard)?),
        })
    }

    fn seek(&self, shard: u32, position: Position) -> Result<(u32, Sought)> {
        let sought = match &self.store {
            Kept::Fixed(store) => Sought::Fixed(Source::seek(store, shard, position)?),
            Kept::Any(store) => Sought::Any(Source::seek(store, shard, position)?),
        };
        Ok((shard, sought))
    }

    fn seek_on(
        &self,
        (shard, seek): &mut (u32, Sought),
        bytes_max: u64,
    ) -> Result<Option<Found<Place>>> {
        // In small steps: others have their turn in between.
        let bytes_max = bytes_max.min(1_000);
        let found = match (&self.store, seek) {
            (Kept::Fixed(store), Sought::Fixed(seek)) => {
                Source::seek_on(store, seek, bytes_max)?.map(|found| placed(found, Place::Fixed))
            }
            (Kept::Any(store), Sought::Any(seek)) => {
                Source::seek_on(store, seek, bytes_max)?.map(|found| placed(found, Place::Any))
            }
            // A place of another store.
            _ => Some(Found::Foreign),
        };
        match found {
            Some(Found::Foreign) if self.has(Flaw::DivergedIsEqual) => {
                Ok(Some(Found::Here(self.tail_end(*shard)?)))
            }
            found => Ok(found),
        }
    }

    fn place(&self, tail: &Place) -> (Position, u64) {
        match tail {
            Place::Fixed(tail) => (tail.position(), tail.sequence()),
            Place::Any(tail) => (tail.position(), tail.sequence()),
        }
    }

    fn read(
        &self,
        tail: &mut Place,
        bytes_max: u64,
        each: &mut dyn FnMut(Written<'_>),
    ) -> Result<Reached> {
        let reached = match (&self.store, tail) {
            (Kept::Fixed(store), Place::Fixed(tail)) => Source::read(store, tail, bytes_max, each)?,
            (Kept::Any(store), Place::Any(tail)) => Source::read(store, tail, bytes_max, each)?,
            // A place of another store.
            _ => Reached::Cut,
        };
        match reached {
            Reached::Cut if self.has(Flaw::SilentWhenCut) => Ok(Reached::End),
            reached => Ok(reached),
        }
    }

    fn behind_bytes(&self, tail: &Place) -> Result<u64> {
        match (&self.store, tail) {
            (Kept::Fixed(store), Place::Fixed(tail)) => Source::behind_bytes(store, tail),
            (Kept::Any(store), Place::Any(tail)) => Source::behind_bytes(store, tail),
            _ => Ok(0),
        }
    }

    fn scan(
        &self,
        shard: u32,
        look: &mut Look,
        chunk: Chunk,
        wanted: &dyn Fn(&[u8]) -> bool,
        show: &mut Show<'_>,
    ) -> Result<bool> {
        self.store.look(shard, look, chunk, wanted, show)
    }

    fn retain(&self, shard: u32, behind: Option<u64>) -> Result<()> {
        either!(&self.store, store => Source::retain(store, shard, behind))
    }

    fn sequence_of(&self, token: Token) -> Result<u64> {
        either!(&self.store, store => Source::sequence_of(store, token))
    }
}

impl Sink for Shelf {
    type Scan = Look;

    fn identity(&self) -> Identity {
        Source::identity(self)
    }

    fn write_bytes_max(&self) -> u64 {
        Source::write_bytes_max(self)
    }

    fn follows(&self) -> bool {
        either!(&self.store, store => Sink::follows(store))
    }

    fn known_epoch(&self) -> u64 {
        if self.has(Flaw::NoEpochCheck) { 0 } else { self.store.known_epoch() }
    }

    fn know(&self, epoch: u64) -> Result<()> {
        if self.has(Flaw::NoEpochCheck) { Ok(()) } else { self.store.fence(epoch) }
    }

    fn is_whole(&self) -> bool {
        either!(&self.store, store => Sink::is_whole(store))
    }

    fn set_whole(&self, is_whole: bool) -> Result<()> {
        either!(&self.store, store => Sink::set_whole(store, is_whole))
    }

    fn history(&self, shard: u32) -> Result<History> {
        self.store.history(shard)
    }

    fn records(&self, shard: u32) -> Result<u64> {
        Source::records(self, shard)
    }

    fn record(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        either!(&self.store, store => Sink::record(store, key))
    }

    fn scan(
        &self,
        shard: u32,
        look: &mut Look,
        chunk: Chunk,
        wanted: &dyn Fn(&[u8]) -> bool,
        show: &mut Show<'_>,
    ) -> Result<bool> {
        self.store.look(shard, look, chunk, wanted, show)
    }

    fn apply(&self, shard: u32, epoch: u64, count: u32, changes: &[u8]) -> Result<Position> {
        either!(&self.store, store => Sink::apply(store, shard, epoch, count, changes))
    }

    fn mend(&self, shard: u32, changes: &[Mended<'_>], then: History) -> Result<()> {
        let (node, vouched) = &self.vouched;
        vouched.borrow_mut().remove(&(*node, shard));
        let mut then = then;
        if let (History::Mending(from), true) = (then, self.has(Flaw::CursorAhead)) {
            then = History::At(from);
        }
        let puts: Vec<_>;
        let changes = if self.has(Flaw::DeletesNotSent) {
            puts = changes.iter().copied().filter(is_put).collect();
            &puts
        } else {
            changes
        };
        either!(&self.store, store => Sink::mend(store, shard, changes, then))
    }

    fn set_aside(&self, shard: u32, from: Position, records: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        if self.has(Flaw::NothingSetAside) {
            return Ok(());
        }
        either!(&self.store, store => Sink::set_aside(store, shard, from, records))
    }

    fn sync(&self) -> Result<()> {
        let begins = self.begins.take();
        if self.has(Flaw::AcksBeforeDurable) || (begins && self.has(Flaw::BegunUnsynced)) {
            return Ok(());
        }
        either!(&self.store, store => Sink::sync(store))
    }
}

fn is_put((change, _): &Mended<'_>) -> bool {
    matches!(change, Change::Put(..))
}
