//! The victim: threads that write at every level of durability, delete, write batches, and one that
//! compacts.

use super::{
    board::{BATCH_KEYS, Board, KEYS, State, WRITERS},
    folder::{Countdown, Counted},
    kind::{Kind, Store},
};
use crate::verdict::{Harm, Verdict};
use mainstay_base::{Rng, mix64};
use mainstay_shm::hook;
use mainstay_store::{Change, Directory, Durability, Error, Folder, Result, Token};
use std::{path::Path, sync::atomic::Ordering::SeqCst, thread, time::Duration};

pub(crate) fn key(number: usize) -> [u8; 8] {
    (number as u64).to_le_bytes()
}

/// The version, and bytes that belong to no other version and no other key.
pub(crate) fn value<K: Kind>(number: usize, version: u64) -> Vec<u8> {
    let mut value = vec![0; K::value_bytes(number, version)];
    for (place, word) in value.chunks_mut(8).enumerate() {
        let mixed = mix64(version ^ ((number as u64) << 40) ^ ((place as u64) << 56));
        word.copy_from_slice(&mixed.to_le_bytes()[..word.len()]);
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
pub(crate) fn live<K: Kind>(
    path: &Path,
    board: &Board,
    verdict: &Verdict,
    (seed, death): (u64, Death),
) -> i32 {
    let lived = match death {
        Death::AtCall(calls) => {
            let (countdown, is_mapped) = (Countdown::from(calls), calls.is_multiple_of(2));
            let counted = Directory::lock(path)
                .map(|directory| Counted::new(directory, countdown, is_mapped));
            counted
                .and_then(K::Over::<Counted>::open)
                .and_then(|store| work::<K, _>(&store, board, seed))
        }
        Death::FromOutside => K::attended(path, |store| work::<K, _>(store, board, seed)),
    };
    let Err(error) = lived else { return 0 };
    verdict.report(Harm::Stuck, &format!("a victim: {error}"));
    1
}

fn work<K: Kind, F: Folder>(store: &K::Over<F>, board: &Board, seed: u64) -> Result<()> {
    board.is_open.store(1, SeqCst);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|who| {
                let rng = Rng::seeded(seed ^ who as u64);
                scope.spawn(move || Writer::<K, F> { store, board, who, rng }.write_on())
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

/// What the threads that look after a store do, and compaction far more often.
fn maintain<F: Folder>(store: &impl Store<F>, board: &Board, seed: u64) -> Result<()> {
    let mut rng = Rng::seeded(!seed);
    loop {
        thread::sleep(Duration::from_micros(rng.below(4_000)));
        let before = store.compacted();
        if rng.below(3) == 0 {
            store.compact()?;
        } else {
            store.tend()?;
        }
        board.compactions.fetch_add(u64::from(store.compacted() > before), SeqCst);
    }
}

struct Writer<'a, K: Kind, F: Folder> {
    store: &'a K::Over<F>,
    board: &'a Board,
    who: usize,
    rng: Rng,
}

impl<K: Kind, F: Folder> Writer<'_, K, F> {
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
                Some(self.store.put(&key(number), &value::<K>(number, version), durability)?)
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
            records.push((key(*number), version.map(|version| value::<K>(*number, version))));
        }
        let changes: Vec<Change<'_>> =
            records.iter().map(|(key, value)| Change::of(key, value.as_deref())).collect();
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
    matches!(Directory::lock(path), Err(Error::Locked))
}
