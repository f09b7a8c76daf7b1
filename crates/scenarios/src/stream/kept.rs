//! A store of either kind.

use super::shelf::VALUE;
use mainstay_replica::{Chunk, Show, Source};
use mainstay_sim::Disk;
use mainstay_store::{
    Change, Durability, Error, Found, History, Identity, LogOptions, LogScan, LogSeek, LogTail,
    Options, RawLogStore, RawStore, Result, Role, Seek, Tail, Token, limits::SEGMENT_BYTES_MIN,
    read_records, write_changes, write_records,
};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Clone)]
pub(super) enum Kept {
    Fixed(Arc<RawStore<Disk>>),
    Any(Arc<RawLogStore<Disk>>),
}

/// Does the same with either.
macro_rules! either {
    ($kept:expr, $store:ident => $do:expr) => {
        match $kept {
            Kept::Fixed($store) => $do,
            Kept::Any($store) => $do,
        }
    };
}
pub(super) use either;

/// A place in the log of either.
pub(super) enum Place {
    Fixed(Tail<Disk>),
    Any(LogTail<Disk>),
}

/// One that is looked for in the log of either.
pub(super) enum Sought {
    Fixed(Seek<Disk>),
    Any(LogSeek<Disk>),
}

/// What is still to be shown of either.
#[derive(Default)]
pub(super) struct Look {
    pub(super) fixed: <Arc<RawStore<Disk>> as Source>::Scan,
    pub(super) any: LogScan<Disk>,
}

pub(super) const KEY: usize = 1;

pub(super) fn identity(shards: u32, is_any: bool) -> Identity {
    let (key_len, value_len) = if is_any { (Identity::ANY, Identity::ANY) } else { (KEY, VALUE) };
    Identity { id: [7; 16], key_len, value_len, shards, shard_bits: 0, has_ends: false }
}

/// The changes as they are in the log of one kind.
pub(super) fn bytes_of(changes: &[Change<'_>], is_any: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    if is_any {
        let changes: Vec<_> = changes.iter().map(|change| (*change, 0)).collect();
        write_records(&changes, &mut bytes);
    } else {
        write_changes(changes, &mut bytes);
    }
    bytes
}

impl Kept {
    /// The store of a disk; an empty replica if there is none.
    pub(super) fn open(disk: &Disk, shards: u32, is_any: bool) -> Result<Self> {
        let identity = identity(shards, is_any);
        if is_any {
            let segment_bytes = SEGMENT_BYTES_MIN;
            let options = LogOptions { segment_bytes, threads: 1, ..LogOptions::default() };
            let store = match RawLogStore::open(disk.clone(), &options) {
                Err(Error::NotAStore) => {
                    RawLogStore::create_replica(disk.clone(), &identity, &options)?
                }
                opened => opened?,
            };
            return Ok(Self::Any(Arc::new(store)));
        }
        let options =
            Options { segment_bytes: SEGMENT_BYTES_MIN, threads: 1, ..Options::default() };
        let store = match RawStore::open(disk.clone(), &options) {
            Err(Error::NotAStore) => RawStore::create_replica(disk.clone(), &identity, &options)?,
            opened => opened?,
        };
        Ok(Self::Fixed(Arc::new(store)))
    }

    /// The store as the leader; none if somebody else has it as well.
    pub(super) fn promote(self, above: u64, drawn: u16) -> Option<Result<Self>> {
        Some(match self {
            Self::Fixed(store) => {
                let store = Arc::try_unwrap(store).ok()?;
                let led = store.fence(above).and_then(|()| store.promote(drawn));
                led.map(|store| Self::Fixed(Arc::new(store)))
            }
            Self::Any(store) => {
                let store = Arc::try_unwrap(store).ok()?;
                let led = store.fence(above).and_then(|()| store.promote(drawn));
                led.map(|store| Self::Any(Arc::new(store)))
            }
        })
    }

    /// The store as a follower; none if somebody else has it as well.
    pub(super) fn demote(self) -> Option<Result<Self>> {
        Some(match self {
            Self::Fixed(store) => {
                Arc::try_unwrap(store).ok()?.demote().map(|store| Self::Fixed(Arc::new(store)))
            }
            Self::Any(store) => {
                Arc::try_unwrap(store).ok()?.demote().map(|store| Self::Any(Arc::new(store)))
            }
        })
    }

    pub(super) fn is_whole(&self) -> bool {
        either!(self, store => store.is_whole())
    }

    pub(super) fn set_whole(&self, is_whole: bool) -> Result<()> {
        either!(self, store => store.set_whole(is_whole))
    }

    pub(super) fn role(&self) -> Role {
        either!(self, store => store.role())
    }

    pub(super) fn epoch(&self) -> u64 {
        either!(self, store => store.epoch())
    }

    pub(super) fn known_epoch(&self) -> u64 {
        either!(self, store => store.known_epoch())
    }

    pub(super) fn fence(&self, epoch: u64) -> Result<()> {
        either!(self, store => store.fence(epoch))
    }

    pub(super) fn shard(&self, key: &[u8]) -> Result<u32> {
        either!(self, store => store.shard(key))
    }

    pub(super) fn history(&self, shard: u32) -> Result<History> {
        either!(self, store => store.history(shard))
    }

    pub(super) fn batch(&self, changes: &[Change<'_>]) -> Result<Option<Token>> {
        either!(self, store => store.batch(changes, Durability::Memory))
    }

    pub(super) fn is_durable(&self, token: Token) -> Result<bool> {
        either!(self, store => store.is_durable(token))
    }

    pub(super) fn tend(&self) -> Result<()> {
        either!(self, store => store.tend())
    }

    /// The records of a shard; none if its disk does not let them be read now.
    pub(super) fn contents(&self, shard: u32) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
        let (mut records, mut look) = (BTreeMap::new(), Look::default());
        let mut show = |key: &[u8], rest: &[u8]| {
            let value = match read_records(rest, 1).as_deref() {
                Some([(Change::Put(_, value), _)]) if matches!(self, Self::Any(_)) => value,
                _ => rest,
            };
            records.insert(key.to_vec(), value.to_vec());
        };
        let all = Chunk { records: 100, bytes: u64::MAX };
        while self.look(shard, &mut look, all, &|_| true, &mut show).ok()? {}
        Some(records)
    }

    pub(super) fn look(
        &self,
        shard: u32,
        look: &mut Look,
        chunk: Chunk,
        wanted: &dyn Fn(&[u8]) -> bool,
        show: &mut Show<'_>,
    ) -> Result<bool> {
        match self {
            Self::Fixed(store) => Source::scan(store, shard, &mut look.fixed, chunk, wanted, show),
            Self::Any(store) => Source::scan(store, shard, &mut look.any, chunk, wanted, show),
        }
    }
}

/// The same of a place of either kind.
pub(super) fn placed<T>(found: Found<T>, place: impl FnOnce(T) -> Place) -> Found<Place> {
    match found {
        Found::Here(tail) => Found::Here(place(tail)),
        Found::Older => Found::Older,
        Found::Foreign => Found::Foreign,
    }
}
