//! The two kinds of stores, as far as the suite uses them: one worker and one check for both.

use super::board::SHARDS;
use mainstay_base::mix64;
use mainstay_store::{
    Change, Directory, Durability, FixedStore, Folder, LogOptions, LogStore, Options, RawLogStore,
    RawStore, Result, Token,
};
use std::{path::Path, time::Duration};

const INTERVAL: Duration = Duration::from_millis(2);
const SEGMENT_BYTES: u64 = 16 << 10;
/// Of a log with values of any size: the beginning of each costs a few syncs.
const ANY_SEGMENT_BYTES: u64 = 64 << 10;
/// Of keys, and of values of a fixed size.
const KEY_BYTES: usize = 8;
const VALUE_BYTES: usize = 104;
/// The longest value of any size: longer than a page.
const ANY_BYTES_MAX: u64 = 4_500;

/// Which values a store has.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Values {
    /// All of one size, in memory
    Fixed,
    /// Each of its own, on the disk
    Any,
}

/// A kind of store, over any folder.
pub(crate) trait Kind {
    type Over<F: Folder>: Store<F>;

    fn create(path: &Path) -> Result<()>;

    /// Works on one that is open together with the threads that look after it.
    fn attended(path: &Path, work: impl FnOnce(&Self::Over<Directory>) -> Result<()>)
    -> Result<()>;

    /// How long a value is, at least the eight bytes of its version.
    fn value_bytes(number: usize, version: u64) -> usize;
}

/// What is done with a store.
pub(crate) trait Store<F: Folder>: Sized + Sync {
    fn open(folder: F) -> Result<Self>;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    fn put(&self, key: &[u8], value: &[u8], durability: Durability) -> Result<Token>;
    fn delete(&self, key: &[u8], durability: Durability) -> Result<Option<Token>>;
    fn batch(&self, changes: &[Change<'_>], durability: Durability) -> Result<Option<Token>>;
    fn shard(&self, key: &[u8]) -> Result<u32>;
    fn for_each_key(&self, show: impl FnMut(&[u8])) -> Result<()>;
    /// The last write of each shard.
    fn sequences(&self) -> Vec<u64>;
    fn compact(&self) -> Result<()>;
    /// Grows with each compaction that has come to its end.
    fn compacted(&self) -> u64;
    fn tend(&self) -> Result<()>;
    fn verify(&self) -> Result<()>;
    fn close(self) -> Result<()>;
}

pub(crate) struct Fixed;
pub(crate) struct Any;

fn fixed_options() -> Options {
    Options {
        shards: SHARDS as u32,
        segment_bytes: SEGMENT_BYTES,
        interval: INTERVAL,
        // An image takes several steps.
        compact_bytes_per_second: 1 << 20,
        ..Options::default()
    }
}

/// There is no cache: what is read is what the disk has.
fn any_options() -> LogOptions {
    LogOptions {
        shards: SHARDS as u32,
        segment_bytes: ANY_SEGMENT_BYTES,
        interval: INTERVAL,
        cache_bytes: 0,
        ..LogOptions::default()
    }
}

impl Kind for Fixed {
    type Over<F: Folder> = RawStore<F>;

    fn create(path: &Path) -> Result<()> {
        let folder = Directory::lock(path)?;
        RawStore::create(folder, KEY_BYTES, VALUE_BYTES, &fixed_options()).map(drop)
    }

    fn attended(path: &Path, work: impl FnOnce(&RawStore<Directory>) -> Result<()>) -> Result<()> {
        let store = FixedStore::<[u8; KEY_BYTES], [u8; VALUE_BYTES]>::open(path, &fixed_options())?;
        work(store.raw())
    }

    fn value_bytes(_: usize, _: u64) -> usize {
        VALUE_BYTES
    }
}

impl Kind for Any {
    type Over<F: Folder> = RawLogStore<F>;

    fn create(path: &Path) -> Result<()> {
        RawLogStore::create(Directory::lock(path)?, &any_options()).map(drop)
    }

    fn attended(
        path: &Path,
        work: impl FnOnce(&RawLogStore<Directory>) -> Result<()>,
    ) -> Result<()> {
        let store = LogStore::<Vec<u8>, Vec<u8>>::open(path, &any_options())?;
        work(store.raw())
    }

    fn value_bytes(number: usize, version: u64) -> usize {
        8 + (mix64(version ^ ((number as u64) << 40)) % ANY_BYTES_MAX) as usize
    }
}

/// What both kinds call the same.
macro_rules! alike {
    () => {
        fn put(&self, key: &[u8], value: &[u8], durability: Durability) -> Result<Token> {
            self.put(key, value, durability)
        }

        fn delete(&self, key: &[u8], durability: Durability) -> Result<Option<Token>> {
            self.delete(key, durability)
        }

        fn batch(&self, changes: &[Change<'_>], durability: Durability) -> Result<Option<Token>> {
            self.batch(changes, durability)
        }

        fn shard(&self, key: &[u8]) -> Result<u32> {
            self.shard(key)
        }

        fn sequences(&self) -> Vec<u64> {
            self.stats().iter().map(|shard| shard.sequence).collect()
        }

        fn compact(&self) -> Result<()> {
            self.compact()
        }

        fn tend(&self) -> Result<()> {
            self.tend()
        }

        fn verify(&self) -> Result<()> {
            self.verify()
        }

        fn close(self) -> Result<()> {
            self.close()
        }
    };
}

impl<F: Folder> Store<F> for RawStore<F> {
    alike!();

    fn open(folder: F) -> Result<Self> {
        Self::open(folder, &fixed_options())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get(key)
    }

    fn for_each_key(&self, mut show: impl FnMut(&[u8])) -> Result<()> {
        self.for_each(|key, _| show(key))
    }

    fn compacted(&self) -> u64 {
        self.stats().iter().map(|shard| shard.image).sum()
    }
}

impl<F: Folder> Store<F> for RawLogStore<F> {
    alike!();

    fn open(folder: F) -> Result<Self> {
        Self::open(folder, &any_options())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.get(key)?.map(|value| value.to_vec()))
    }

    fn for_each_key(&self, mut show: impl FnMut(&[u8])) -> Result<()> {
        self.for_each_key(|key, _| show(key));
        Ok(())
    }

    fn compacted(&self) -> u64 {
        self.stats().iter().map(|shard| shard.freed_bytes).sum()
    }
}
