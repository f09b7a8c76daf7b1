//! Values that were read, by where they are. A place never has another value, so nothing in here is
//! ever wrong; what nobody asks for goes first.

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache as Shared};

use super::format::Place;

/// What an entry takes beside its value, about.
const ENTRY_BYTES: u64 = 64;

type Key = (u32, Place);

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Arc<[u8]>> for Bytes {
    fn weight(&self, _: &Key, value: &Arc<[u8]>) -> u64 {
        value.len() as u64 + ENTRY_BYTES
    }
}

/// None: nothing is kept.
pub(super) struct Cache(Option<Shared<Key, Arc<[u8]>, Bytes>>);

impl Cache {
    pub(super) fn new(bytes: u64) -> Self {
        // An estimate, by which it chooses how it is divided.
        let entries = usize::try_from(bytes / 4096).unwrap_or(usize::MAX).max(16);
        Self((bytes > 0).then(|| Shared::with_weighter(entries, bytes, Bytes)))
    }

    pub(super) fn get(&self, shard: u32, place: Place) -> Option<Arc<[u8]>> {
        self.0.as_ref()?.get(&(shard, place))
    }

    pub(super) fn keep(&self, shard: u32, place: Place, value: &Arc<[u8]>) {
        if let Some(cache) = &self.0 {
            cache.insert((shard, place), Arc::clone(value));
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, Shared::weight)
    }
}
