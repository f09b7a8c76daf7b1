//! Values of kilobytes: a store that keeps them in its log beside one that keeps them beside its
//! tree. What is in them cannot be compressed; both may keep all of them in memory once read.

use std::path::Path;

use fjall::{KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use mainstay_base::Rng;
use mainstay_store::{Change, Directory, Durability, LogOptions, RawLogStore};

use super::engines::{Key, key};
use super::{add, on_a_disk, settle};
use crate::Outcome;
use crate::clock::Span;
use crate::method::{Plan, Round, Side, interleave, rounds};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

pub(super) const PAGES: Group = Group {
    figures: &["store.log_get_4k", "store.log_put_volatile_4k", "store.log_put_durable_batch_4k"],
    measure: measure::<4_096>,
};
pub(super) const LARGE: Group = Group {
    figures: &[
        "store.log_get_64k",
        "store.log_put_volatile_64k",
        "store.log_put_durable_batch_64k",
    ],
    measure: measure::<65_536>,
};

/// Bytes of all values.
const BYTES: u64 = 96 << 20;
/// Bytes of the values of a batch.
const BATCH_BYTES: u64 = 1 << 20;
/// Batches of a sample.
const BATCHES: u64 = 4;
const CACHE_BYTES: u64 = 1 << 30;

trait Engine: Sync {
    fn name(&self) -> &'static str;
    fn get(&self, key: Key) -> Outcome<()>;
    /// Volatile, as in `engines.rs`.
    fn put(&self, key: Key, value: &[u8]) -> Outcome<()>;
    /// Returns when all are durable.
    fn put_all(&self, records: &[(Key, Vec<u8>)]) -> Outcome<()>;
}

fn missing(name: &str) -> Box<dyn std::error::Error + Send + Sync> {
    format!("{name} has lost a key").into()
}

struct Ours(RawLogStore<Directory>);

impl Engine for Ours {
    fn name(&self) -> &'static str {
        "mainstay"
    }

    fn get(&self, key: Key) -> Outcome<()> {
        std::hint::black_box(self.0.get(&key)?.ok_or_else(|| missing("mainstay"))?);
        Ok(())
    }

    fn put(&self, key: Key, value: &[u8]) -> Outcome<()> {
        self.0.put(&key, value, Durability::Memory)?;
        Ok(())
    }

    fn put_all(&self, records: &[(Key, Vec<u8>)]) -> Outcome<()> {
        let mut shards = [Vec::new(), Vec::new()];
        for (key, value) in records {
            shards[self.0.shard(key)? as usize % 2].push(Change::Put(key, value));
        }
        for changes in &shards {
            self.0.batch(changes, Durability::Memory)?;
        }
        self.0.sync()?;
        // What its thread would do: compaction is part of the cost.
        self.0.upkeep()?;
        Ok(())
    }
}

struct Fjall(fjall::Database, fjall::Keyspace);

impl Engine for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn get(&self, key: Key) -> Outcome<()> {
        std::hint::black_box(self.1.get(key)?.ok_or_else(|| missing("fjall"))?);
        Ok(())
    }

    fn put(&self, key: Key, value: &[u8]) -> Outcome<()> {
        Ok(self.1.insert(key, value)?)
    }

    fn put_all(&self, records: &[(Key, Vec<u8>)]) -> Outcome<()> {
        let mut batch = self.0.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in records {
            batch.insert(&self.1, *key, &value[..]);
        }
        Ok(batch.commit()?)
    }
}

/// Bytes that no compression makes smaller.
fn noise(len: usize, rng: &mut Rng) -> Vec<u8> {
    (0..len.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).take(len).collect()
}

fn engines(directory: &Path) -> Outcome<[Box<dyn Engine>; 2]> {
    let options = LogOptions { cache_bytes: CACHE_BYTES, ..LogOptions::default() };
    let ours = RawLogStore::create(Directory::lock(&directory.join("mainstay"))?, &options)?;
    let builder = fjall::Database::builder(directory.join("fjall")).cache_size(CACHE_BYTES);
    let database = builder.open()?;
    let separated = || {
        KeyspaceCreateOptions::default().with_kv_separation(Some(KvSeparationOptions::default()))
    };
    let records = database.keyspace("records", separated)?;
    Ok([Box::new(Ours(ours)), Box::new(Fjall(database, records))])
}

fn measure<const V: usize>(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let names = if V == 4_096 { PAGES.figures } else { LARGE.figures };
    let disk = on_a_disk(scratch)?;
    let engines = engines(disk.path())?;
    let (count, batch) = (BYTES / V as u64, BATCH_BYTES / V as u64);
    let mut rng = Rng::seeded(1);
    let noise = noise(2 * V, &mut rng);
    // Another part of the noise for each.
    let value = |rng: &mut Rng| noise[rng.below(V as u64) as usize..][..V].to_vec();
    for engine in &engines {
        for number in 0..count {
            engine.put(key(number), &value(&mut rng))?;
        }
        engine.put_all(&[(key(0), value(&mut rng))])?;
    }

    // What was read once is in memory; how it came there is not what is measured.
    for engine in &engines {
        (0..count).try_for_each(|number| engine.get(key(number)))?;
    }
    let sides = engines.iter().map(|engine| {
        let mut rng = Rng::seeded(2);
        Side::new(engine.name(), move |times| {
            (0..times).try_for_each(|_| engine.get(key(rng.below(count))))
        })
    });
    let timings = interleave(plan, sides.collect())?;
    add(report, Ratio::of_wall(names[0], Unit::Ns, &timings[0], &timings[1]));

    settle(disk.path())?;
    let mut sides: Vec<Round<'_>> = engines
        .iter()
        .map(|engine| {
            let (mut rng, value) = (Rng::seeded(3), &value);
            Round::new(engine.name(), move || {
                let (span, done) = Span::of(|| {
                    (0..batch * BATCHES)
                        .try_for_each(|_| engine.put(key(rng.below(count)), &value(&mut rng)))
                });
                // What was put off is done before the other's turn.
                engine.put_all(&[(key(0), value(&mut rng))])?;
                done.map(|()| span.per(batch * BATCHES))
            })
        })
        .collect();
    let timings = rounds(plan.repetitions_heavy, &mut sides)?;
    add(report, Ratio::of_wall(names[1], Unit::Ns, &timings[0], &timings[1]));

    settle(disk.path())?;
    let mut sides: Vec<Round<'_>> = engines
        .iter()
        .map(|engine| {
            let (mut rng, value) = (Rng::seeded(4), &value);
            Round::new(engine.name(), move || {
                let mut draw =
                    || (0..batch).map(|_| (key(rng.below(count)), value(&mut rng))).collect();
                let drawn: Vec<Vec<(Key, Vec<u8>)>> = (0..BATCHES).map(|_| draw()).collect();
                let (span, done) =
                    Span::of(|| drawn.iter().try_for_each(|records| engine.put_all(records)));
                done.map(|()| span.per(batch * BATCHES))
            })
        })
        .collect();
    let timings = rounds(plan.repetitions_heavy, &mut sides)?;
    add(report, Ratio::of_wall(names[2], Unit::Ns, &timings[0], &timings[1]));
    Ok(())
}
