//! The store of keys and values of any size as a source and as a sink.

use std::sync::Arc;

use mainstay_store::{
    Change, Folder, Found, History, Hook, Identity, LogScan, LogSeek, LogTail, Position,
    RawLogStore, Reached, Result, Role, Token, Written,
};

use crate::{
    store::in_writes,
    traits::{Chunk, Mended, Show, Sink, Source},
};

/// What surrounds a key and a value in a record, at most.
const AROUND: u64 = 20;

impl<F: Folder> Source for Arc<RawLogStore<F>> {
    type Tail = LogTail<F>;
    type Seek = LogSeek<F>;
    type Scan = LogScan<F>;

    fn identity(&self) -> Identity {
        RawLogStore::identity(self)
    }

    fn write_bytes_max(&self) -> u64 {
        RawLogStore::write_bytes_max(self)
    }

    fn epoch(&self) -> u64 {
        RawLogStore::epoch(self)
    }

    fn fence(&self, epoch: u64) -> Result<()> {
        RawLogStore::fence(self, epoch)
    }

    fn is_whole(&self) -> bool {
        RawLogStore::is_whole(self)
    }

    fn tip(&self, shard: u32) -> Result<Option<Position>> {
        Ok(RawLogStore::history(self, shard)?.position())
    }

    fn records(&self, shard: u32) -> Result<u64> {
        RawLogStore::records(self, shard)
    }

    fn tail_end(&self, shard: u32) -> Result<LogTail<F>> {
        RawLogStore::tail_end(self, shard)
    }

    fn seek(&self, shard: u32, position: Position) -> Result<LogSeek<F>> {
        RawLogStore::seek(self, shard, position)
    }

    fn seek_on(&self, seek: &mut LogSeek<F>, bytes_max: u64) -> Result<Option<Found<LogTail<F>>>> {
        RawLogStore::seek_on(self, seek, bytes_max)
    }

    fn place(&self, tail: &LogTail<F>) -> (Position, u64) {
        (tail.position(), tail.sequence())
    }

    fn read(
        &self,
        tail: &mut LogTail<F>,
        bytes_max: u64,
        each: &mut dyn FnMut(Written<'_>),
    ) -> Result<Reached> {
        RawLogStore::read_tail(self, tail, bytes_max, each)
    }

    fn behind_bytes(&self, tail: &LogTail<F>) -> Result<u64> {
        RawLogStore::behind_bytes(self, tail)
    }

    fn scan(
        &self,
        shard: u32,
        scan: &mut LogScan<F>,
        chunk: Chunk,
        wanted: &dyn Fn(&[u8]) -> bool,
        show: &mut Show<'_>,
    ) -> Result<bool> {
        RawLogStore::scan(self, shard, scan, (chunk.records, chunk.bytes), wanted, show)
    }

    fn retain(&self, shard: u32, behind: Option<u64>) -> Result<()> {
        RawLogStore::retain(self, shard, behind)
    }

    fn on_write(&self, notify: Box<dyn Fn() + Send + Sync>) -> Option<Hook> {
        Some(RawLogStore::on_write(self, notify))
    }

    fn sequence_of(&self, token: Token) -> Result<u64> {
        RawLogStore::sequence_of(self, token)
    }
}

impl<F: Folder> Sink for Arc<RawLogStore<F>> {
    type Scan = LogScan<F>;

    fn identity(&self) -> Identity {
        RawLogStore::identity(self)
    }

    fn write_bytes_max(&self) -> u64 {
        RawLogStore::write_bytes_max(self)
    }

    fn follows(&self) -> bool {
        self.role() == Role::Follower
    }

    fn known_epoch(&self) -> u64 {
        RawLogStore::known_epoch(self)
    }

    fn know(&self, epoch: u64) -> Result<()> {
        self.fence(epoch)
    }

    fn is_whole(&self) -> bool {
        RawLogStore::is_whole(self)
    }

    fn set_whole(&self, is_whole: bool) -> Result<()> {
        RawLogStore::set_whole(self, is_whole)
    }

    fn history(&self, shard: u32) -> Result<History> {
        RawLogStore::history(self, shard)
    }

    fn records(&self, shard: u32) -> Result<u64> {
        RawLogStore::records(self, shard)
    }

    fn record(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        RawLogStore::record(self, key)
    }

    fn scan(
        &self,
        shard: u32,
        scan: &mut LogScan<F>,
        chunk: Chunk,
        wanted: &dyn Fn(&[u8]) -> bool,
        show: &mut Show<'_>,
    ) -> Result<bool> {
        RawLogStore::scan(self, shard, scan, (chunk.records, chunk.bytes), wanted, show)
    }

    fn apply(&self, shard: u32, epoch: u64, count: u32, changes: &[u8]) -> Result<Position> {
        RawLogStore::apply(self, shard, epoch, count, changes)
    }

    fn mend(&self, shard: u32, changes: &[Mended<'_>], then: History) -> Result<()> {
        let room = RawLogStore::write_bytes_max(self);
        let from = RawLogStore::history(self, shard)?;
        in_writes(changes, (room, change_bytes), (from, then), |changes, then| {
            let (changes, ends): (Vec<_>, Vec<_>) = changes.iter().copied().unzip();
            RawLogStore::mend(self, shard, &changes, &ends, then)
        })
    }

    fn set_aside(&self, shard: u32, from: Position, records: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        RawLogStore::set_aside(self, shard, from, records.iter().map(|(_, record)| &**record))
    }

    fn sync(&self) -> Result<()> {
        RawLogStore::sync(self).map(drop)
    }
}

fn change_bytes((change, _): &Mended<'_>) -> u64 {
    AROUND
        + match change {
            Change::Put(key, value) => key.len() as u64 + value.len() as u64,
            Change::Delete(key) => key.len() as u64,
        }
}
