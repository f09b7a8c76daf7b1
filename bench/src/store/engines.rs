//! The store and its peers behind one set of operations, each used as its documentation says and
//! with the fewest system calls it can do with.
//!
//! Two shards for whoever has shards. A write is *volatile* if it survives the process but no power
//! cut, as far as the engine can have it so; it is *durable* if it survives both.

use std::hint::black_box;
use std::path::Path;

use armdb::{ConstMap, FixedMap};
use fjall::{KeyspaceCreateOptions, PersistMode};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env};
use mainstay_base::{Rng, mix64};
use mainstay_store::{Change, Durability, FixedStore, LogOptions, LogStore, Options};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use crate::{Outcome, raw};

pub(super) type Key = [u8; 16];

/// Key number `number`: scattered, as those of subscribers or sessions are.
pub(super) fn key(number: u64) -> Key {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mix64(number).to_le_bytes());
    key[8..].copy_from_slice(&number.to_le_bytes());
    key
}

/// A value that is told from others by its beginning.
pub(super) fn value<const V: usize>(seed: u64) -> [u8; V] {
    let mut value = [seed as u8; V];
    value[..8].copy_from_slice(&seed.to_le_bytes());
    value
}

pub(super) trait Engine: Sync {
    fn name(&self) -> &'static str;

    /// Puts keys 0 to `count`; volatile.
    fn load(&self, count: u64) -> Outcome<()>;

    /// Gets keys below `among` that are drawn, all of which are there.
    fn get(&self, times: u64, among: u64, rng: &mut Rng) -> Outcome<()>;

    /// Puts one key after another; volatile.
    fn put(&self, times: u64, among: u64, rng: &mut Rng) -> Outcome<()>;

    /// Puts many keys, and returns when all are durable.
    fn put_batch(&self, size: u64, among: u64, rng: &mut Rng) -> Outcome<()>;

    /// Puts one key, and returns when it is durable.
    fn put_durable(&self, among: u64, rng: &mut Rng) -> Outcome<()>;

    /// Looks at all records; how many there are.
    fn scan(&self) -> Outcome<u64>;
}

fn drawn(among: u64, rng: &mut Rng) -> Key {
    key(rng.below(among))
}

fn missing(name: &str) -> Box<dyn std::error::Error + Send + Sync> {
    format!("{name} has lost a key").into()
}

pub(super) struct Ours<const V: usize>(pub(super) FixedStore<Key, [u8; V]>);

pub(super) fn options() -> Options {
    Options { shards: 2, ..Options::default() }
}

impl<const V: usize> Ours<V> {
    pub(super) fn new(directory: &Path) -> Outcome<Ours<V>> {
        Ok(Ours(FixedStore::create(directory, &options())?))
    }
}

impl<const V: usize> Engine for Ours<V> {
    fn name(&self) -> &'static str {
        "mainstay"
    }

    fn load(&self, count: u64) -> Outcome<()> {
        for number in 0..count {
            self.0.put(&key(number), &value(number), Durability::Memory)?;
        }
        Ok(())
    }

    fn get(&self, times: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
        for _ in 0..times {
            // By reference: a value that is bound is moved first, by a call of `memcpy`.
            match self.0.get(&drawn(among, rng)) {
                Ok(Some(ref value)) => black_box(value),
                Ok(None) => return Err(missing("mainstay")),
                Err(error) => return Err(error.into()),
            };
        }
        Ok(())
    }

    fn put(&self, times: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
        for _ in 0..times {
            self.0.put(&drawn(among, rng), &value(rng.next_u64()), Durability::Memory)?;
        }
        Ok(())
    }

    fn put_batch(&self, size: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
        let new: Vec<(Key, [u8; V])> =
            (0..size).map(|_| (drawn(among, rng), value(rng.next_u64()))).collect();
        let raw = self.0.raw();
        let mut shards = [Vec::new(), Vec::new()];
        for (key, value) in &new {
            shards[raw.shard(key)? as usize % 2].push(Change::Put(key, value));
        }
        for changes in &shards {
            raw.batch(changes, Durability::Memory)?;
        }
        raw.sync()?;
        Ok(())
    }

    fn put_durable(&self, among: u64, rng: &mut Rng) -> Outcome<()> {
        self.0.put(&drawn(among, rng), &value(rng.next_u64()), Durability::Group)?;
        Ok(())
    }

    fn scan(&self) -> Outcome<u64> {
        let mut count = 0;
        self.0.for_each(|key, value| {
            black_box((key[0], value[0]));
            count += 1;
        })?;
        Ok(count)
    }
}

/// The same in a store whose values stay in the log.
pub(super) struct OurLog<const V: usize>(pub(super) LogStore<Vec<u8>, Vec<u8>>);

pub(super) fn log_options() -> LogOptions {
    LogOptions { shards: 2, ..LogOptions::default() }
}

impl<const V: usize> OurLog<V> {
    pub(super) fn new(directory: &Path) -> Outcome<OurLog<V>> {
        Ok(OurLog(LogStore::create(directory, &log_options())?))
    }

    /// Puts keys 0 to `count`; volatile.
    pub(super) fn load(&self, count: u64) -> Outcome<()> {
        let raw = self.0.raw();
        for number in 0..count {
            raw.put(&key(number), &value::<V>(number), Durability::Memory)?;
        }
        Ok(())
    }
}

/// armdb's map of fixed slots.
pub(super) struct ArmFixed<const V: usize>(pub(super) FixedMap<Key, V>);

/// armdb's map over a log.
pub(super) struct ArmLog<const V: usize>(pub(super) ConstMap<Key, V>);

impl<const V: usize> ArmFixed<V> {
    pub(super) fn open(directory: &Path) -> Outcome<ArmFixed<V>> {
        Ok(ArmFixed(FixedMap::open(directory, Self::config())?))
    }

    /// It syncs by itself only while it is written to; here it does so when it is told.
    pub(super) fn config() -> armdb::FixedConfig {
        let mut config = armdb::FixedConfig::balanced().build();
        config.shard_count = 2;
        config.sync_batch_size = u32::MAX;
        config.sync_interval = std::time::Duration::from_secs(3_600);
        config
    }
}

impl<const V: usize> ArmLog<V> {
    pub(super) fn open(directory: &Path) -> Outcome<ArmLog<V>> {
        let mut config = armdb::Config::balanced().build();
        config.shard_count = 2;
        Ok(ArmLog(ConstMap::<Key, V>::open(directory, config)?))
    }
}

macro_rules! armdb_engine {
    ($type:ident, $name:literal) => {
        impl<const V: usize> Engine for $type<V> {
            fn name(&self) -> &'static str {
                $name
            }

            fn load(&self, count: u64) -> Outcome<()> {
                for number in 0..count {
                    self.0.put(&key(number), &value(number))?;
                }
                Ok(())
            }

            fn get(&self, times: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
                for _ in 0..times {
                    match self.0.get(&drawn(among, rng)) {
                        Some(ref value) => black_box(value),
                        None => return Err(missing($name)),
                    };
                }
                Ok(())
            }

            fn put(&self, times: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
                for _ in 0..times {
                    self.0.put(&drawn(among, rng), &value(rng.next_u64()))?;
                }
                Ok(())
            }

            fn put_batch(&self, size: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
                self.put(size, among, rng)?;
                Ok(self.0.flush()?)
            }

            fn put_durable(&self, among: u64, rng: &mut Rng) -> Outcome<()> {
                self.put(1, among, rng)?;
                Ok(self.0.flush()?)
            }

            fn scan(&self) -> Outcome<u64> {
                let mut count = 0;
                self.0.for_each(|key, value| {
                    black_box((key[0], value[0]));
                    count += 1;
                });
                Ok(count)
            }
        }
    };
}

armdb_engine!(ArmFixed, "armdb_fixed");
armdb_engine!(ArmLog, "armdb_log");

/// LMDB twice: with commits that are synced, and with commits that are not.
pub(super) struct Lmdb<const V: usize> {
    durable: Records,
    volatile: Records,
}

const MAP_BYTES: usize = 4 << 30;

/// The environment is kept until the process ends: the database borrows it.
type Records = (&'static Env, Database<'static, Bytes, Bytes>);

fn records(env: Env) -> Outcome<Records> {
    let env: &'static Env = Box::leak(Box::new(env));
    let txn = env.write_txn()?;
    let opened = env.create_databases_and_commit(txn, |maker, txn| {
        let records: Database<'_, Bytes, Bytes> = maker.create_database(txn, None)?;
        heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(records))
    })?;
    let records = opened.commit().ok_or("LMDB did not commit an empty database")?;
    Ok((env, records))
}

impl<const V: usize> Lmdb<V> {
    pub(super) fn new(directory: &Path) -> Outcome<Lmdb<V>> {
        let (durable, volatile) = (directory.join("durable"), directory.join("volatile"));
        std::fs::create_dir_all(&durable)?;
        std::fs::create_dir_all(&volatile)?;
        Ok(Lmdb {
            durable: records(raw::open_lmdb(&durable, MAP_BYTES)?)?,
            volatile: records(raw::open_lmdb_unsynced(&volatile, MAP_BYTES)?)?,
        })
    }
}

impl<const V: usize> Lmdb<V> {
    /// Puts key number `number`; volatile.
    pub(super) fn put_key(&self, number: u64) -> Outcome<()> {
        let (env, records) = &self.volatile;
        let mut txn = env.write_txn()?;
        records.put(&mut txn, &key(number), &value::<V>(number))?;
        Ok(txn.commit()?)
    }
}

impl<const V: usize> Engine for Lmdb<V> {
    fn name(&self) -> &'static str {
        "lmdb"
    }

    fn load(&self, count: u64) -> Outcome<()> {
        for (env, records) in [&self.durable, &self.volatile] {
            let mut txn = env.write_txn()?;
            for number in 0..count {
                records.put(&mut txn, &key(number), &value::<V>(number))?;
            }
            txn.commit()?;
        }
        Ok(())
    }

    fn get(&self, times: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
        let (env, records) = &self.volatile;
        let txn = env.read_txn()?;
        for _ in 0..times {
            let found = records.get(&txn, &drawn(among, rng))?.ok_or_else(|| missing("lmdb"))?;
            let mut copy = [0; V];
            copy.copy_from_slice(found);
            black_box(&copy);
        }
        Ok(())
    }

    fn put(&self, times: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
        let (env, records) = &self.volatile;
        for _ in 0..times {
            let mut txn = env.write_txn()?;
            records.put(&mut txn, &drawn(among, rng), &value::<V>(rng.next_u64()))?;
            txn.commit()?;
        }
        Ok(())
    }

    fn put_batch(&self, size: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
        let (env, records) = &self.durable;
        let mut txn = env.write_txn()?;
        for _ in 0..size {
            records.put(&mut txn, &drawn(among, rng), &value::<V>(rng.next_u64()))?;
        }
        Ok(txn.commit()?)
    }

    fn put_durable(&self, among: u64, rng: &mut Rng) -> Outcome<()> {
        self.put_batch(1, among, rng)
    }

    fn scan(&self) -> Outcome<u64> {
        let (env, records) = &self.volatile;
        let txn = env.read_txn()?;
        let mut count = 0;
        for record in records.iter(&txn)? {
            let (key, value) = record?;
            black_box((key[0], value[0]));
            count += 1;
        }
        Ok(count)
    }
}

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

pub(super) struct Redb<const V: usize>(redb::Database);

impl<const V: usize> Redb<V> {
    pub(super) fn new(directory: &Path) -> Outcome<Redb<V>> {
        std::fs::create_dir_all(directory)?;
        Ok(Redb(redb::Database::create(directory.join("redb"))?))
    }

    fn write(
        &self,
        durability: redb::Durability,
        new: impl Iterator<Item = (Key, [u8; V])>,
    ) -> Outcome<()> {
        let mut txn = self.0.begin_write()?;
        txn.set_durability(durability)?;
        {
            let mut table = txn.open_table(TABLE)?;
            for (key, value) in new {
                table.insert(&key[..], &value[..])?;
            }
        }
        Ok(txn.commit()?)
    }
}

impl<const V: usize> Engine for Redb<V> {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn load(&self, count: u64) -> Outcome<()> {
        let all = (0..count).map(|number| (key(number), value(number)));
        self.write(redb::Durability::Immediate, all)
    }

    fn get(&self, times: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
        let table = self.0.begin_read()?.open_table(TABLE)?;
        for _ in 0..times {
            let found = table.get(&drawn(among, rng)[..])?.ok_or_else(|| missing("redb"))?;
            let mut copy = [0; V];
            copy.copy_from_slice(found.value());
            black_box(&copy);
        }
        Ok(())
    }

    fn put(&self, times: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
        for _ in 0..times {
            let one = (drawn(among, rng), value(rng.next_u64()));
            self.write(redb::Durability::None, [one].into_iter())?;
        }
        Ok(())
    }

    fn put_batch(&self, size: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
        let new = (0..size).map(|_| (drawn(among, rng), value(rng.next_u64())));
        self.write(redb::Durability::Immediate, new)
    }

    fn put_durable(&self, among: u64, rng: &mut Rng) -> Outcome<()> {
        self.put_batch(1, among, rng)
    }

    fn scan(&self) -> Outcome<u64> {
        let table = self.0.begin_read()?.open_table(TABLE)?;
        let mut count = 0;
        for record in table.iter()? {
            let (key, value) = record?;
            black_box((key.value()[0], value.value()[0]));
            count += 1;
        }
        Ok(count)
    }
}

pub(super) struct Fjall<const V: usize>(fjall::Database, fjall::Keyspace);

impl<const V: usize> Fjall<V> {
    pub(super) fn new(directory: &Path) -> Outcome<Fjall<V>> {
        let database = fjall::Database::builder(directory).cache_size(1 << 30).open()?;
        let records = database.keyspace("records", KeyspaceCreateOptions::default)?;
        Ok(Fjall(database, records))
    }
}

impl<const V: usize> Engine for Fjall<V> {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn load(&self, count: u64) -> Outcome<()> {
        for number in 0..count {
            self.1.insert(key(number), value::<V>(number))?;
        }
        Ok(())
    }

    fn get(&self, times: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
        for _ in 0..times {
            let found = self.1.get(drawn(among, rng))?.ok_or_else(|| missing("fjall"))?;
            let mut copy = [0; V];
            copy.copy_from_slice(&found);
            black_box(&copy);
        }
        Ok(())
    }

    fn put(&self, times: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
        for _ in 0..times {
            self.1.insert(drawn(among, rng), value::<V>(rng.next_u64()))?;
        }
        Ok(())
    }

    fn put_batch(&self, size: u64, among: u64, rng: &mut Rng) -> Outcome<()> {
        let mut batch = self.0.batch().durability(Some(PersistMode::SyncData));
        for _ in 0..size {
            batch.insert(&self.1, drawn(among, rng), value::<V>(rng.next_u64()));
        }
        Ok(batch.commit()?)
    }

    fn put_durable(&self, among: u64, rng: &mut Rng) -> Outcome<()> {
        self.1.insert(drawn(among, rng), value::<V>(rng.next_u64()))?;
        Ok(self.0.persist(PersistMode::SyncData)?)
    }

    fn scan(&self) -> Outcome<u64> {
        let mut count = 0;
        for record in self.1.iter() {
            let (key, value) = record.into_inner()?;
            black_box((key[0], value[0]));
            count += 1;
        }
        Ok(count)
    }
}

/// All of them, each in a directory of its own.
pub(super) fn all<const V: usize>(directory: &Path) -> Outcome<Vec<Box<dyn Engine>>> {
    let place = |name: &str| directory.join(name);
    Ok(vec![
        Box::new(Ours::<V>::new(&place("mainstay"))?),
        Box::new(ArmFixed::<V>::open(&place("armdb_fixed"))?),
        Box::new(ArmLog::<V>::open(&place("armdb_log"))?),
        Box::new(Lmdb::<V>::new(&place("lmdb"))?),
        Box::new(Redb::<V>::new(&place("redb"))?),
        Box::new(Fjall::<V>::new(&place("fjall"))?),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_has_what_was_put_into_it() {
        let directory = tempfile::tempdir().unwrap();
        for engine in all::<64>(directory.path()).unwrap() {
            let mut rng = Rng::seeded(1);
            engine.load(500).unwrap();
            engine.put(20, 500, &mut rng).unwrap();
            engine.put_batch(20, 500, &mut rng).unwrap();
            engine.put_durable(500, &mut rng).unwrap();
            engine.get(1_000, 500, &mut rng).unwrap();
            assert_eq!(engine.scan().unwrap(), 500, "{}", engine.name());
            assert!(engine.get(100, 5_000, &mut rng).is_err(), "{}", engine.name());
        }
    }
}
