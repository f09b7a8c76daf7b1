//! The store of this project as a source and as a sink.

use std::sync::Arc;

use mainstay_store::{
    Change, Folder, Found, History, Hook, Identity, Position, RawStore, Reached, Result, Role,
    Seek, Tail, Token, Written,
};

use crate::traits::{Chunk, Mended, Show, Sink, Source};

/// The slot to go on from; none: all was shown.
pub struct Slots(Option<u32>);

impl Default for Slots {
    fn default() -> Self {
        Self(Some(0))
    }
}

fn scan<F: Folder>(
    store: &RawStore<F>,
    shard: u32,
    slots: &mut Slots,
    chunk: Chunk,
    wanted: &dyn Fn(&[u8]) -> bool,
    show: &mut Show<'_>,
) -> Result<bool> {
    let Some(slot) = slots.0 else { return Ok(false) };
    let (key_len, value_len) = store.lengths();
    let fitting = usize::try_from(chunk.bytes).unwrap_or(usize::MAX) / (key_len + value_len).max(1);
    let max = chunk.records.min(fitting.max(1));
    slots.0 = store.scan(shard, slot, max, |key, value| {
        if wanted(key) {
            show(key, value);
        }
    })?;
    Ok(slots.0.is_some())
}

impl<F: Folder> Source for Arc<RawStore<F>> {
    type Tail = Tail<F>;
    type Seek = Seek<F>;
    type Scan = Slots;

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

    fn is_whole(&self) -> bool {
        RawStore::is_whole(self)
    }

    fn tip(&self, shard: u32) -> Result<Option<Position>> {
        Ok(RawStore::history(self, shard)?.position())
    }

    fn records(&self, shard: u32) -> Result<u64> {
        RawStore::records(self, shard)
    }

    fn tail_end(&self, shard: u32) -> Result<Tail<F>> {
        RawStore::tail_end(self, shard)
    }

    fn seek(&self, shard: u32, position: Position) -> Result<Seek<F>> {
        RawStore::seek(self, shard, position)
    }

    fn seek_on(&self, seek: &mut Seek<F>, bytes_max: u64) -> Result<Option<Found<Tail<F>>>> {
        RawStore::seek_on(self, seek, bytes_max)
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
        slots: &mut Slots,
        chunk: Chunk,
        wanted: &dyn Fn(&[u8]) -> bool,
        show: &mut Show<'_>,
    ) -> Result<bool> {
        scan(self, shard, slots, chunk, wanted, show)
    }

    fn retain(&self, shard: u32, behind: Option<u64>) -> Result<()> {
        RawStore::retain(self, shard, behind)
    }

    fn on_write(&self, notify: Box<dyn Fn() + Send + Sync>) -> Option<Hook> {
        Some(RawStore::on_write(self, notify))
    }

    fn sequence_of(&self, token: Token) -> Result<u64> {
        RawStore::sequence_of(self, token)
    }
}

impl<F: Folder> Sink for Arc<RawStore<F>> {
    type Scan = Slots;

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

    fn is_whole(&self) -> bool {
        RawStore::is_whole(self)
    }

    fn set_whole(&self, is_whole: bool) -> Result<()> {
        RawStore::set_whole(self, is_whole)
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

    fn make_ready(&self, shard: u32, piece: usize) -> Result<bool> {
        RawStore::make_ready(self, shard, piece)
    }

    fn record(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        RawStore::get(self, key)
    }

    fn scan(
        &self,
        shard: u32,
        slots: &mut Slots,
        chunk: Chunk,
        wanted: &dyn Fn(&[u8]) -> bool,
        show: &mut Show<'_>,
    ) -> Result<bool> {
        scan(self, shard, slots, chunk, wanted, show)
    }

    fn apply(&self, shard: u32, epoch: u64, count: u32, changes: &[u8]) -> Result<Position> {
        RawStore::apply(self, shard, epoch, count, changes)
    }

    fn mend(&self, shard: u32, changes: &[Mended<'_>], then: History) -> Result<()> {
        let room = RawStore::write_bytes_max(self);
        let from = RawStore::history(self, shard)?;
        in_writes(changes, (room, change_bytes), (from, then), |changes, then| {
            let changes: Vec<_> = changes.iter().map(|(change, _)| *change).collect();
            RawStore::mend(self, shard, &changes, then)
        })
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

fn change_bytes((change, _): &Mended<'_>) -> u64 {
    match change {
        Change::Put(key, value) => 1 + key.len() as u64 + value.len() as u64,
        Change::Delete(key) => 1 + key.len() as u64,
    }
}

/// Hands out changes as writes that fit into `room`, at least one write: on the way from one place,
/// and with the last of them at `then`.
pub(crate) fn in_writes(
    changes: &[Mended<'_>],
    (room, bytes_of): (u64, fn(&Mended<'_>) -> u64),
    (from, then): (History, History),
    mut write: impl FnMut(&[Mended<'_>], History) -> Result<()>,
) -> Result<()> {
    let (History::At(from) | History::Mending(from)) = from;
    let mut rest = changes;
    loop {
        let (mut bytes, mut count) = (0, 0);
        for change in rest {
            bytes += bytes_of(change);
            if bytes > room {
                break;
            }
            count += 1;
        }
        let (now, later) = rest.split_at(count.max(1).min(rest.len()));
        write(now, if later.is_empty() { then } else { History::Mending(from) })?;
        if later.is_empty() {
            return Ok(());
        }
        rest = later;
    }
}
