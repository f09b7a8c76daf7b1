//! A store that takes its time, or makes whoever looks through it take many steps.

use std::sync::Arc;

use mainstay_replica::{Chunk, Found, Mended, Show, Sink, Source};
use mainstay_store::{History, Identity, Position, Reached, Result, Token, Written};

/// A store of which each look, at records or for a place in the log, is told to somebody.
#[derive(Clone)]
pub(crate) struct Slow<S> {
    store: S,
    looked: Arc<dyn Fn() + Send + Sync>,
    /// How many records are shown in one look.
    pub(crate) records_max: usize,
    /// How often a place is looked for in vain, as in a long segment.
    pub(crate) vain_looks: u32,
}

impl<S> Slow<S> {
    pub(crate) fn new(store: S, looked: impl Fn() + Send + Sync + 'static) -> Self {
        Self { store, looked: Arc::new(looked), records_max: usize::MAX, vain_looks: 0 }
    }

    fn look(&self, chunk: Chunk) -> Chunk {
        (self.looked)();
        Chunk { records: chunk.records.min(self.records_max), ..chunk }
    }
}

impl<S: Sink> Sink for Slow<S> {
    type Scan = S::Scan;

    fn identity(&self) -> Identity {
        Sink::identity(&self.store)
    }
    fn write_bytes_max(&self) -> u64 {
        Sink::write_bytes_max(&self.store)
    }
    fn follows(&self) -> bool {
        self.store.follows()
    }
    fn known_epoch(&self) -> u64 {
        self.store.known_epoch()
    }
    fn know(&self, epoch: u64) -> Result<()> {
        self.store.know(epoch)
    }
    fn is_whole(&self) -> bool {
        Sink::is_whole(&self.store)
    }
    fn set_whole(&self, is_whole: bool) -> Result<()> {
        self.store.set_whole(is_whole)
    }
    fn history(&self, shard: u32) -> Result<History> {
        self.store.history(shard)
    }
    fn records(&self, shard: u32) -> Result<u64> {
        Sink::records(&self.store, shard)
    }
    fn record(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.store.record(key)
    }
    fn scan(
        &self,
        shard: u32,
        scan: &mut Self::Scan,
        chunk: Chunk,
        wanted: &dyn Fn(&[u8]) -> bool,
        show: &mut Show<'_>,
    ) -> Result<bool> {
        Sink::scan(&self.store, shard, scan, self.look(chunk), wanted, show)
    }
    fn apply(&self, shard: u32, epoch: u64, count: u32, changes: &[u8]) -> Result<Position> {
        self.store.apply(shard, epoch, count, changes)
    }
    fn mend(&self, shard: u32, changes: &[Mended<'_>], then: History) -> Result<()> {
        self.store.mend(shard, changes, then)
    }
    fn set_aside(&self, shard: u32, from: Position, records: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.store.set_aside(shard, from, records)
    }
    fn sync(&self) -> Result<()> {
        Sink::sync(&self.store)
    }
}

impl<S: Source> Source for Slow<S> {
    type Tail = S::Tail;
    /// And how often it has been looked for in vain.
    type Seek = (S::Seek, u32);
    type Scan = S::Scan;

    fn identity(&self) -> Identity {
        Source::identity(&self.store)
    }
    fn write_bytes_max(&self) -> u64 {
        Source::write_bytes_max(&self.store)
    }
    fn epoch(&self) -> u64 {
        self.store.epoch()
    }
    fn fence(&self, epoch: u64) -> Result<()> {
        self.store.fence(epoch)
    }
    fn is_whole(&self) -> bool {
        Source::is_whole(&self.store)
    }
    fn tip(&self, shard: u32) -> Result<Option<Position>> {
        self.store.tip(shard)
    }
    fn records(&self, shard: u32) -> Result<u64> {
        Source::records(&self.store, shard)
    }
    fn tail_end(&self, shard: u32) -> Result<Self::Tail> {
        self.store.tail_end(shard)
    }
    fn seek(&self, shard: u32, position: Position) -> Result<Self::Seek> {
        Ok((self.store.seek(shard, position)?, 0))
    }
    fn seek_on(&self, seek: &mut Self::Seek, max: u64) -> Result<Option<Found<Self::Tail>>> {
        let is_by_steps = self.vain_looks > 0;
        assert!(!is_by_steps || max <= 1 << 20, "{max} bytes in one step");
        (self.looked)();
        seek.1 += 1;
        if seek.1 < self.vain_looks { Ok(None) } else { self.store.seek_on(&mut seek.0, max) }
    }
    fn place(&self, tail: &Self::Tail) -> (Position, u64) {
        self.store.place(tail)
    }
    fn read(
        &self,
        tail: &mut Self::Tail,
        bytes_max: u64,
        each: &mut dyn FnMut(Written<'_>),
    ) -> Result<Reached> {
        self.store.read(tail, bytes_max, each)
    }
    fn behind_bytes(&self, tail: &Self::Tail) -> Result<u64> {
        self.store.behind_bytes(tail)
    }
    fn scan(
        &self,
        shard: u32,
        scan: &mut Self::Scan,
        chunk: Chunk,
        wanted: &dyn Fn(&[u8]) -> bool,
        show: &mut Show<'_>,
    ) -> Result<bool> {
        Source::scan(&self.store, shard, scan, self.look(chunk), wanted, show)
    }
    fn retain(&self, shard: u32, behind: Option<u64>) -> Result<()> {
        self.store.retain(shard, behind)
    }
    fn sequence_of(&self, token: Token) -> Result<u64> {
        self.store.sequence_of(token)
    }
}
