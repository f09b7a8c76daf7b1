//! The victim: threads that write at every level of durability, delete, write batches, and one that
//! compacts.

use super::{
    board::{BATCH_KEYS, Board, KEYS, SHARDS, State, WRITERS},
    folder::{Countdown, Counted},
};
use crate::verdict::{Harm, Verdict};
use mainstay_base::{Rng, mix64};
use mainstay_shm::hook;
use mainstay_store::{
    Change, Directory, Durability, Error, FixedStore, Folder, Options, RawStore, Result, Token,
};
use std::{path::Path, sync::atomic::Ordering::SeqCst, thread, time::Duration};

pub(crate) const VALUE_BYTES: usize = 104;
pub(crate) type Key = [u8; 8];
pub(crate) type Value = [u8; VALUE_BYTES];

pub(crate) fn options() -> Options {
    Options {
        shards: SHARDS as u32,
        segment_bytes: 16 << 10,
        interval: Duration::from_millis(2),
        ..Options::default()
    }
}

pub(crate) fn key(number: usize) -> Key {
    (number as u64).to_le_bytes()
}

/// The version, and bytes that belong to no other version and no other key.
pub(crate) fn value(number: usize, version: u64) -> Value {
    let mut value = [0; VALUE_BYTES];
    for (place, word) in value.chunks_exact_mut(8).enumerate() {
        let mixed = mix64(version ^ ((number as u64) << 40) ^ ((place as u64) << 56));
        word.copy_from_slice(&mixed.to_le_bytes());
    }
    value[..8].copy_from_slice(&version.to_le_bytes());
    value
}

/// How a victim dies.
#[derive(Clone, Copy)]
pub(crate) enum Death {
    /// At this call of the file layer.
    AtCall(u64),
    /// Whenever somebody kills it.
    FromOutside,
}

/// The victim's life: until it is killed.
pub(crate) fn live(path: &Path, board: &Board, verdict: &Verdict, seed: u64, death: Death) -> i32 {
    let lived = match death {
        Death::AtCall(calls) => {
            let (countdown, is_mapped) = (Countdown::from(calls), calls.is_multiple_of(2));
            let counted = Directory::lock(path)
                .map(|directory| Counted::new(directory, countdown, is_mapped));
            counted
                .and_then(|folder| RawStore::open(folder, &options()))
                .and_then(|store| work(&store, board, seed))
        }
        Death::FromOutside => FixedStore::<Key, Value>::open(path, &options())
            .and_then(|store| work(store.raw(), board, seed)),
    };
    let Err(error) = lived else { return 0 };
    verdict.report(Harm::Stuck, &format!("a victim: {error}"));
    1
}

fn work<F: Folder>(store: &RawStore<F>, board: &Board, seed: u64) -> Result<()> {
    board.is_open.store(1, SeqCst);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|who| {
                let rng = Rng::seeded(seed ^ who as u64);
                scope.spawn(move || Writer { store, board, who, rng }.write_on())
            })
            .collect();
        scope.spawn(move || maintain(store, board, seed));
        // An error ends the whole process: nobody waits for those who go on.
        writers.into_iter().try_for_each(|writer| match writer.join() {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// What the thread of a [`FixedStore`] does, and compaction far more often.
fn maintain<F: Folder>(store: &RawStore<F>, board: &Board, seed: u64) -> Result<()> {
    let mut rng = Rng::seeded(!seed);
    loop {
        thread::sleep(Duration::from_micros(rng.below(4_000)));
        if rng.below(3) == 0 {
            store.compact()?;
            board.compactions.fetch_add(1, SeqCst);
        } else {
            store.tend()?;
        }
    }
}

struct Writer<'a, F: Folder> {
    store: &'a RawStore<F>,
    board: &'a Board,
    who: usize,
    rng: Rng,
}

impl<F: Folder> Writer<'_, F> {
    fn write_on(mut self) -> Result<()> {
        loop {
            let durability = match self.rng.below(12) {
                0..8 => Durability::Memory,
                8 => Durability::Interval,
                9..11 => Durability::Group,
                _ => Durability::Each,
            };
            match self.rng.below(8) {
                0 => self.batch(durability)?,
                1 => self.one(false, durability)?,
                _ => self.one(true, durability)?,
            }
            self.board.writes.fetch_add(1, SeqCst);
        }
    }

    fn any_key(&mut self) -> usize {
        self.rng.below((KEYS / WRITERS) as u64) as usize * WRITERS + self.who
    }

    fn next(&self, number: usize, is_there: bool) -> State {
        let state = self.board.begun(number).next(is_there);
        self.board.begin(number, state);
        state
    }

    /// One key is written, or deleted.
    fn one(&mut self, is_there: bool, durability: Durability) -> Result<()> {
        let number = self.any_key();
        let state = self.next(number, is_there);
        let token = match state.version() {
            Some(version) => {
                Some(self.store.put(&key(number), &value(number, version), durability)?)
            }
            None => self.store.delete(&key(number), durability)?,
        };
        self.board.acknowledge(number);
        self.note(token, durability);
        Ok(())
    }

    /// Several keys of a shard at once.
    fn batch(&mut self, durability: Durability) -> Result<()> {
        let first = self.any_key();
        let shard = self.store.shard(&key(first))?;
        let mut numbers = vec![first];
        for _ in 1..BATCH_KEYS {
            let number = self.any_key();
            if !numbers.contains(&number) && self.store.shard(&key(number))? == shard {
                numbers.push(number);
            }
        }
        let batch = &self.board.batches[self.who];
        for (place, number) in batch.keys.iter().zip(&numbers) {
            place.store(*number as u64, SeqCst);
        }
        batch.count.store(numbers.len() as u64, SeqCst);
        let mut records = Vec::new();
        for number in &numbers {
            let is_there = self.rng.below(5) > 0;
            let version = self.next(*number, is_there).version();
            records.push((key(*number), version.map(|version| value(*number, version))));
        }
        let changes: Vec<Change<'_>> = records
            .iter()
            .map(|(key, value)| Change::of(key, value.as_ref().map(AsRef::as_ref)))
            .collect();
        let token = if hook::planted("batch-in-pieces") {
            changes.chunks(1).try_fold(None, |_, change| self.store.batch(change, durability))?
        } else {
            self.store.batch(&changes, durability)?
        };
        numbers.iter().for_each(|number| self.board.acknowledge(*number));
        batch.count.store(0, SeqCst);
        self.note(token, durability);
        Ok(())
    }

    /// What was told to be durable must stay, also by its number.
    fn note(&self, token: Option<Token>, durability: Durability) {
        let waits = matches!(durability, Durability::Group | Durability::Each);
        if let Some(token) = token.filter(|_| waits) {
            self.board.durable[token.shard as usize].fetch_max(token.sequence, SeqCst);
        }
    }
}

/// Does somebody else find the store locked, while the victim is frozen?
pub(crate) fn is_locked(path: &Path) -> bool {
    matches!(FixedStore::<Key, Value>::open(path, &options()), Err(Error::Locked))
}
