//! The store of this project as a source and as a sink.

use std::sync::Arc;

use mainstay_store::{
    Change, Folder, Found as StoreFound, History, Identity, Position, RawStore, Reached, Result,
    Role, Tail, Written,
};

use crate::traits::{Found, Sink, Source};

impl<F: Folder> Source for Arc<RawStore<F>> {
    type Tail = Tail<F>;

    fn identity(&self) -> Identity {
        RawStore::identity(self)
    }

    fn write_bytes_max(&self) -> u64 {
        RawStore::write_bytes_max(self)
    }

    fn epoch(&self) -> u64 {
        RawStore::epoch(self)
    }

    fn fence(&self, epoch: u64) -> Result<()> {
        RawStore::fence(self, epoch)
    }

    fn tip(&self, shard: u32) -> Result<Option<Position>> {
        Ok(RawStore::history(self, shard)?.position())
    }

    fn records(&self, shard: u32) -> Result<u64> {
        RawStore::records(self, shard)
    }

    fn tail(&self, shard: u32, position: Position) -> Result<Found<Tail<F>>> {
        Ok(match RawStore::tail(self, shard, position)? {
            StoreFound::Here(tail) => Found::Here(tail),
            StoreFound::Older => Found::Older,
            StoreFound::Foreign => Found::Foreign,
        })
    }

    fn place(&self, tail: &Tail<F>) -> (Position, u64) {
        (tail.position(), tail.sequence())
    }

    fn read(
        &self,
        tail: &mut Tail<F>,
        bytes_max: u64,
        each: &mut dyn FnMut(Written<'_>),
    ) -> Result<Reached> {
        RawStore::read_tail(self, tail, bytes_max, each)
    }

    fn behind_bytes(&self, tail: &Tail<F>) -> Result<u64> {
        RawStore::behind_bytes(self, tail)
    }

    fn scan(
        &self,
        shard: u32,
        slot: u32,
        max: usize,
        show: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<Option<u32>> {
        RawStore::scan(self, shard, slot, max, show)
    }

    fn retain(&self, shard: u32, behind: Option<u64>) -> Result<()> {
        RawStore::retain(self, shard, behind)
    }
}

impl<F: Folder> Sink for Arc<RawStore<F>> {
    fn identity(&self) -> Identity {
        RawStore::identity(self)
    }

    fn write_bytes_max(&self) -> u64 {
        RawStore::write_bytes_max(self)
    }

    fn follows(&self) -> bool {
        self.role() == Role::Follower
    }

    fn known_epoch(&self) -> u64 {
        RawStore::known_epoch(self)
    }

    fn know(&self, epoch: u64) -> Result<()> {
        self.fence(epoch)
    }

    fn history(&self, shard: u32) -> Result<History> {
        RawStore::history(self, shard)
    }

    fn records(&self, shard: u32) -> Result<u64> {
        RawStore::records(self, shard)
    }

    fn expect(&self, shard: u32, records: u64) -> Result<()> {
        RawStore::expect(self, shard, records)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        RawStore::get(self, key)
    }

    fn scan(
        &self,
        shard: u32,
        slot: u32,
        max: usize,
        show: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<Option<u32>> {
        RawStore::scan(self, shard, slot, max, show)
    }

    fn apply(&self, shard: u32, epoch: u64, count: u32, changes: &[u8]) -> Result<Position> {
        RawStore::apply(self, shard, epoch, count, changes)
    }

    fn mend(&self, shard: u32, changes: &[Change<'_>], then: History) -> Result<()> {
        let room = RawStore::write_bytes_max(self);
        let mending = match RawStore::history(self, shard)? {
            History::At(from) | History::Mending(from) => History::Mending(from),
        };
        let mut rest = changes;
        loop {
            let (mut bytes, mut count) = (0, 0);
            for change in rest {
                bytes += change_bytes(change);
                if bytes > room {
                    break;
                }
                count += 1;
            }
            let (now, later) = rest.split_at(count.max(1).min(rest.len()));
            let is_last = later.is_empty();
            RawStore::mend(self, shard, now, if is_last { then } else { mending })?;
            if is_last {
                return Ok(());
            }
            rest = later;
        }
    }

    fn set_aside(&self, shard: u32, from: Position, records: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let records = records.iter().map(|(key, value)| (&**key, &**value));
        RawStore::set_aside(self, shard, from, records)
    }

    fn sync(&self) -> Result<()> {
        RawStore::sync(self).map(drop)
    }

    fn vouch(&self) -> Result<()> {
        RawStore::vouch(self)
    }
}

fn change_bytes(change: &Change<'_>) -> u64 {
    match change {
        Change::Put(key, value) => 1 + key.len() as u64 + value.len() as u64,
        Change::Delete(key) => 1 + key.len() as u64,
    }
}
