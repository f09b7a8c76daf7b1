//! How far the log of a shard is durable, for all who wait: one sync is for all of them, and an error
//! of it ends the shard (A2, A3).

use std::{
    io,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    planted::{self, Fault},
};

/// What part of the time that the last sync took others are waited for before one that has fewer to
/// wait for it, and how long at most.
const GATHER_PART: u32 = 4;
const GATHER_MAX: Duration = Duration::from_micros(200);

pub(crate) struct Group {
    shard: u32,
    flush: Mutex<Flush>,
    flushed: Condvar,
    /// Syncs of the log one at a time: one that fails must be known before the next begins, which
    /// might succeed without saving anything.
    syncing: Mutex<()>,
}

/// How far the log is durable, and who sees to it.
struct Flush {
    durable: u64,
    is_busy: bool,
    /// How many wait, and how many did at most since the last sync was begun.
    waiting: usize,
    crowd: usize,
    /// How long the last sync took that somebody made for others too.
    took: Duration,
    poison: Option<String>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked was in a closure of the user's, which runs before anything is changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Group {
    /// Everything up to a write is durable, and nobody waits.
    pub(crate) fn at(shard: u32, durable: u64) -> Self {
        let took = Duration::ZERO;
        let flush = Flush { durable, is_busy: false, waiting: 0, crowd: 0, took, poison: None };
        let (flush, flushed, syncing) = (Mutex::new(flush), Condvar::new(), Mutex::new(()));
        Self { shard, flush, flushed, syncing }
    }

    /// The last write that is known to be durable.
    pub(crate) fn durable(&self) -> u64 {
        lock(&self.flush).durable
    }

    /// What failed, if the shard takes no more writes.
    pub(crate) fn poison_text(&self) -> Option<String> {
        lock(&self.flush).poison.clone()
    }

    fn poisoned(&self, what: &str) -> Error {
        Error::Poisoned { shard: self.shard, what: what.to_owned() }
    }

    /// Takes no more writes since something failed.
    pub(crate) fn poison(&self, what: &str, error: &io::Error) -> Error {
        let what = format!("{what}: {error}");
        let error = self.poisoned(&what);
        if !planted::is(Fault::ErrorForgotten) {
            self.give_up(&what);
        }
        error
    }

    /// Takes no more writes, for a reason that is not its own.
    pub(crate) fn give_up(&self, what: &str) {
        lock(&self.flush).poison.get_or_insert_with(|| what.to_owned());
        self.flushed.notify_all();
    }

    /// How far the log is durable, unless something failed.
    pub(crate) fn check_sound(&self) -> Result<u64> {
        let flush = lock(&self.flush);
        match &flush.poison {
            Some(what) => Err(self.poisoned(what)),
            None => Ok(flush.durable),
        }
    }

    /// Syncs with `save`, which makes everything up to `written` durable; `note` is called if more is
    /// durable by it.
    pub(crate) fn sync(
        &self,
        written: u64,
        save: impl FnOnce() -> io::Result<()>,
        note: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let _one = lock(&self.syncing);
        self.check_sound()?;
        if !planted::is(Fault::SyncLeftOut) {
            save().map_err(|error| self.poison("a sync of the log", &error))?;
        }
        let mut flush = lock(&self.flush);
        if flush.durable < written {
            flush.durable = written;
            note()?;
        }
        // Who syncs for others tells them when the next one can. None is woken to find the lock taken.
        let is_led = flush.is_busy;
        drop(flush);
        if !is_led {
            self.flushed.notify_all();
        }
        Ok(())
    }

    /// Returns when a write is durable: whoever comes first syncs for all, with `lead`.
    pub(crate) fn wait(&self, sequence: u64, lead: impl Fn() -> Result<()>) -> Result<()> {
        let mut flush = lock(&self.flush);
        if flush.durable >= sequence {
            return Ok(());
        }
        flush.waiting += 1;
        flush.crowd = flush.crowd.max(flush.waiting);
        let (done, mut flush) = self.wait_among(flush, sequence, lead);
        flush.waiting -= 1;
        done
    }

    fn wait_among<'a>(
        &'a self,
        mut flush: MutexGuard<'a, Flush>,
        sequence: u64,
        lead: impl Fn() -> Result<()>,
    ) -> (Result<()>, MutexGuard<'a, Flush>) {
        loop {
            if flush.durable >= sequence {
                return (Ok(()), flush);
            }
            if let Some(what) = &flush.poison {
                return (Err(self.poisoned(what)), flush);
            }
            if flush.is_busy {
                flush = self.flushed.wait(flush).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            flush.is_busy = true;
            drop(flush);
            self.gather();
            let begun = Instant::now();
            let synced = lead();
            flush = lock(&self.flush);
            flush.is_busy = false;
            flush.took = begun.elapsed();
            let is_over = synced.is_err() || flush.durable >= sequence;
            drop(flush);
            self.flushed.notify_all();
            flush = lock(&self.flush);
            if is_over {
                return (synced, flush);
            }
        }
    }

    /// Lets those come along who were woken by the last sync and write again: without that, each
    /// sync would have half of the writers only. Whoever is alone waits for nobody.
    fn gather(&self) {
        let (crowd, took) = {
            let flush = lock(&self.flush);
            (flush.crowd, flush.took)
        };
        let begun = Instant::now();
        let patience = (took / GATHER_PART).min(GATHER_MAX);
        while lock(&self.flush).waiting < crowd && begun.elapsed() < patience {
            thread::yield_now();
        }
        let mut flush = lock(&self.flush);
        flush.crowd = flush.waiting;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering::SeqCst},
        },
        thread,
        time::Duration,
    };

    use crate::{
        Durability, LogOptions, Options, RawLogStore, RawStore,
        faulty::{Call, Faulty},
    };

    const WRITERS: u8 = 8;
    const WRITES: u8 = 20;

    /// A disk that takes its time for each sync of a log, and how many there were.
    fn slow() -> (Faulty, Arc<AtomicU64>) {
        let (folder, syncs) = (Faulty::new(1), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&syncs);
        folder.fail(move |call, name| {
            if call == Call::Sync && name.ends_with(".log") {
                count.fetch_add(1, SeqCst);
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        (folder, syncs)
    }

    /// How many syncs it takes until all writes of many writers are durable.
    fn write_together(put: impl Fn([u8; 2]) + Sync, syncs: &AtomicU64) -> u64 {
        let before = syncs.load(SeqCst);
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let put = &put;
                scope.spawn(move || (0..WRITES).for_each(|number| put([writer, number])));
            }
        });
        syncs.load(SeqCst) - before
    }

    fn are_shared(syncs: u64) {
        println!("{syncs} syncs for {} writes", u64::from(WRITERS) * u64::from(WRITES));
        // Each writer waits for its own.
        assert!((u64::from(WRITES)..100).contains(&syncs), "{syncs}");
    }

    #[test]
    fn a2_writers_of_one_shard_that_wait_share_syncs() {
        let (folder, syncs) = slow();
        let options = Options { shards: 1, ..Options::default() };
        let store = RawStore::create(folder, 2, 2, &options).unwrap();
        let put = |key: [u8; 2]| {
            store.put(&key, &key, Durability::Group).unwrap();
        };
        are_shared(write_together(put, &syncs));
        assert_eq!(store.stats()[0].durable, u64::from(WRITERS) * u64::from(WRITES));
    }

    #[test]
    fn v2_writers_of_one_shard_of_any_sizes_that_wait_share_syncs() {
        let (folder, syncs) = slow();
        let options = LogOptions { shards: 1, ..LogOptions::default() };
        let store = RawLogStore::create(folder, &options).unwrap();
        let put = |key: [u8; 2]| {
            store.put(&key, &key, Durability::Group).unwrap();
        };
        are_shared(write_together(put, &syncs));
        assert_eq!(store.stats()[0].durable, u64::from(WRITERS) * u64::from(WRITES));
    }
}
