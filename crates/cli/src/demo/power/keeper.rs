//! The process that writes, and makes checkpoints when it is told to.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mainstay::pool::{Block, Kind as Lifetime, Pool};
use mainstay::track::Tracker;
use mainstay_base::crc64;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::super::error::{DemoError, Trying};
use super::super::kinds::Payload;
use super::super::role::monotonic_ns;
use super::super::sampler::{Group, Sink};
use super::super::twin::{Key, Side};
use super::{BLOCKS_MAX, Cut, options, pool_in};

/// For messages.
pub(super) const NAME: &str = "keeper";
/// The one order there is.
pub(super) const CHECKPOINT: u8 = b'c';
/// Between two sweeps.
const PAUSE: Duration = Duration::from_millis(5);

/// The keeper's first block: what all the others are in sum.
#[derive(Clone, Copy, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Head {
    /// Of the last complete sweep, from 1.
    pub(super) sweep: U64,
    /// Records.
    pub(super) records: U64,
    /// The sum, modulo 2^64, of [`weight`] over the newest sides of all records.
    pub(super) sum: U64,
}

/// Bytes in use of the first block: it is told from the others by that.
pub(super) const HEAD_LEN: usize = size_of::<Head>();

/// What a record adds to [`Head::sum`].
pub(super) fn weight(side: &Side) -> u64 {
    crc64(side.as_bytes())
}

/// Writes until its parent kills it, or has gone.
pub(super) fn run(folder: &Path) -> Result<(), DemoError> {
    let pool = options().create(pool_in(folder)).trying("create the pool")?;
    let head = pool.allocate(Lifetime::Recoverable).trying("allocate a block")?;
    head.set_used_len(HEAD_LEN).trying("allocate a block")?;
    let tracker = Tracker::new(&pool).trying("track the pool")?;
    let mut checkpoints = tracker.checkpoints().trying("make checkpoints")?;
    let (swept, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut writer = Writer { pool: &pool, head, table: HashMap::new(), sum: 0, sweep: 0 };
            while !ended.load(Ordering::Relaxed) {
                writer.sweep()?;
                swept.store(writer.sweep, Ordering::Release);
                std::thread::sleep(PAUSE);
            }
            Ok(())
        });
        let mut seen = tracker.vector().trying("ask the tracker")?;
        let mut told = || -> Result<(), DemoError> {
            let mut order = [0];
            while std::io::stdin().read(&mut order).trying("hear an order")? == 1 {
                let sweep = swept.load(Ordering::Acquire);
                let report = checkpoints.checkpoint().trying("make a checkpoint")?;
                let changes = tracker.changes_since(&seen);
                seen = tracker.vector().trying("ask the tracker")?;
                let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                let cut = Cut {
                    number: report.cut,
                    sweep,
                    blocks: report.blocks,
                    bytes: report.bytes,
                    held_us: us(report.held),
                    wrote_us: us(report.wrote),
                    changed: changes.iter().map(|change| change.id.number).collect(),
                };
                let mut line = serde_json::to_string(&cut).trying("speak to the parent")?;
                line.push('\n');
                let mut out = std::io::stdout().lock();
                out.write_all(line.as_bytes()).trying("speak to the parent")?;
                out.flush().trying("speak to the parent")?;
            }
            Ok(())
        };
        let told = told();
        ended.store(true, Ordering::Relaxed);
        let written = writer.join().unwrap_or(Err(DemoError::Ended { role: NAME }));
        told.and(written)
    })
}

/// The newest side of a record, and where it is.
struct Held {
    block: Block,
    sequence: u64,
    payload: Vec<u8>,
    weight: u64,
}

struct Writer<'p> {
    pool: &'p Pool,
    head: Block,
    table: HashMap<Key, Held>,
    sum: u64,
    sweep: u64,
}

impl Writer<'_> {
    /// Looks first, then writes what changed in one batch: a checkpoint waits for that alone.
    fn sweep(&mut self) -> Result<(), DemoError> {
        let mut seen = Changed { table: &self.table, records: Vec::new() };
        for group in [Group::Devices, Group::Counters] {
            let Ok(()) = group.visit(&mut seen);
        }
        let records = seen.records;
        self.sweep += 1;
        let batch = self.pool.batch().trying("begin a batch")?;
        for (key, payload, seal) in records {
            self.write(key, payload, seal)?;
        }
        let head = Head {
            sweep: self.sweep.into(),
            records: (self.table.len() as u64).into(),
            sum: self.sum.into(),
        };
        self.head.write(0, head.as_bytes()).trying("write a record")?;
        batch.end();
        Ok(())
    }

    fn write(&mut self, key: Key, payload: Vec<u8>, seal: Seal) -> Result<(), DemoError> {
        let full = self.table.len() as u64 + 1 >= BLOCKS_MAX / 2;
        let held = match self.table.entry(key) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(_) if full => return Ok(()),
            Entry::Vacant(place) => {
                let block = self.pool.allocate(Lifetime::Recoverable);
                let block = block.trying("allocate a block")?;
                place.insert(Held { block, sequence: 0, payload: Vec::new(), weight: 0 })
            }
        };
        let side = seal(&payload, held.sequence + 1, self.sweep);
        held.block.write(side.offset(), side.as_bytes()).trying("write a record")?;
        let before = std::mem::replace(&mut held.weight, weight(&side));
        self.sum = self.sum.wrapping_sub(before).wrapping_add(held.weight);
        (held.sequence, held.payload) = (side.sequence(), payload);
        Ok(())
    }
}

/// Makes a side of the bytes of a payload: payload, sequence, sweep.
type Seal = fn(&[u8], u64, u64) -> Side;

fn seal<T: Payload>(payload: &[u8], sequence: u64, sweep: u64) -> Side {
    let payload =
        T::read_from_bytes(payload).expect("they are the bytes of a payload of this type");
    Side::seal(&payload, sequence, sweep, monotonic_ns())
}

/// What a sweep has found to differ from the records.
struct Changed<'t> {
    table: &'t HashMap<Key, Held>,
    records: Vec<(Key, Vec<u8>, Seal)>,
}

impl Sink for Changed<'_> {
    type Error = Infallible;

    fn record<T: Payload>(&mut self, payload: &T) -> Result<(), Infallible> {
        let key = Key { kind: T::KIND, words: payload.identity() };
        let bytes = payload.as_bytes();
        if self.table.get(&key).is_none_or(|held| held.payload != bytes) {
            self.records.push((key, bytes.to_vec(), seal::<T>));
        }
        Ok(())
    }
}
