//! What encryption costs: a store beside one that is not encrypted, on the same disk. What is read
//! from memory is not affected, and so no figure here; values of a store of any sizes are read from
//! their files, past the cache.

use std::path::Path;

use mainstay_base::Rng;
use mainstay_store::{
    Change, Directory, Durability, FixedStore, Key as Secret, Keys, LogOptions, RawLogStore,
};

use super::engines::{Engine, Key, Ours, key, options, value};
use super::{add, on_a_disk, records};
use crate::Outcome;
use crate::clock::Span;
use crate::method::{Plan, Round, Side, interleave, rounds};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

pub(super) const BATCHES: Group =
    Group { figures: &["store.encrypted_put_durable_batch"], measure: put };
pub(super) const VALUES: Group = Group { figures: &["store.encrypted_log_get_4k"], measure: get };
pub(super) const OPENING: Group = Group { figures: &["store.encrypted_reopen"], measure: open };

/// The two stores: what is measured, and what it stands beside.
const NAMES: [&str; 2] = ["mainstay_encrypted", "mainstay"];
const VALUE: usize = 4_096;
/// Values that are read: 32 MiB.
const VALUES_COUNT: u64 = 8_192;
const BATCH: u64 = 1_024;
const BATCHES_OF_A_SAMPLE: u64 = 4;

/// The directory of a store, encrypted if its name says so.
fn lock(directory: &Path, name: &str) -> Outcome<Directory> {
    let place = directory.join(name);
    Ok(if name == NAMES[0] {
        Directory::lock_with(&place, &Keys::new(Secret::new(&[7; 32])))?
    } else {
        Directory::lock(&place)?
    })
}

fn put(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let disk = on_a_disk(scratch)?;
    let count = records(plan);
    let mut engines = Vec::new();
    for name in NAMES {
        let engine = Ours::<64>(FixedStore::create_in(lock(disk.path(), name)?, &options())?);
        engine.load(count)?;
        engine.put_batch(1, count, &mut Rng::seeded(0))?;
        engines.push((name, engine));
    }
    let mut sides: Vec<Round<'_>> = engines
        .iter()
        .map(|(name, engine)| {
            let mut rng = Rng::seeded(3);
            Round::new(name, move || {
                let (span, done) = Span::of(|| {
                    (0..BATCHES_OF_A_SAMPLE)
                        .try_for_each(|_| engine.put_batch(BATCH, count, &mut rng))
                });
                done.map(|()| span.per(BATCH * BATCHES_OF_A_SAMPLE))
            })
        })
        .collect();
    let timings = rounds(plan.repetitions_heavy, &mut sides)?;
    add(report, Ratio::of_wall(BATCHES.figures[0], Unit::Ns, &timings[0], &timings[1]));
    Ok(())
}

fn get(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let disk = on_a_disk(scratch)?;
    let options = LogOptions { cache_bytes: 0, ..LogOptions::default() };
    let mut stores = Vec::new();
    for name in NAMES {
        let store = RawLogStore::create(lock(disk.path(), name)?, &options)?;
        let mut rng = Rng::seeded(1);
        for number in 0..VALUES_COUNT {
            let value: Vec<u8> =
                (0..VALUE / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
            store.batch(&[Change::Put(&key(number), &value)], Durability::Memory)?;
        }
        store.sync()?;
        stores.push((name, store));
    }
    let sides = stores.iter().map(|(name, store)| {
        let mut rng = Rng::seeded(2);
        Side::new(name, move |times| {
            (0..times).try_for_each(|_| {
                let found = store.get(&key(rng.below(VALUES_COUNT)))?;
                std::hint::black_box(found.ok_or("a store has lost a key")?);
                Ok(())
            })
        })
    });
    let timings = interleave(plan, sides.collect())?;
    add(report, Ratio::of_wall(VALUES.figures[0], Unit::Ns, &timings[0], &timings[1]));
    Ok(())
}

/// After a close: of one the memory in files is believed, of the other the log is read, as nothing of
/// it is in memory that lasts.
fn open(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let disk = on_a_disk(scratch)?;
    let count = records(plan);
    for name in NAMES {
        let engine = Ours::<64>(FixedStore::create_in(lock(disk.path(), name)?, &options())?);
        engine.load(count)?;
        engine.0.close()?;
    }
    let mut sides = NAMES.map(|name| {
        let path = disk.path();
        Round::new(name, move || {
            let (span, opened) = Span::of(|| -> Outcome<_> {
                Ok(FixedStore::<Key, [u8; 64]>::open_in(lock(path, name)?, &options())?)
            });
            let store = opened?;
            if store.get(&key(count / 2))? != Some(value(count / 2)) {
                return Err("a record is not as it was".into());
            }
            store.close()?;
            Ok(span)
        })
    });
    let timings = rounds(plan.repetitions_heavy, &mut sides)?;
    add(report, Ratio::of_wall(OPENING.figures[0], Unit::Ms, &timings[0], &timings[1]));
    Ok(())
}
