//! How the log of a shard becomes durable: what is in the ring only is written, one sync is for all
//! who wait, and an error of it ends the shard (A2, A3).

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    thread,
};

use mainstay_storage::{Folder, Storage};

use super::{Log, Shard, lock};
use crate::{
    error::{Error, Result},
    planted::{self, Fault},
};

/// A sync of the log: which segment, up to where, and what is written by it.
struct Job<S> {
    file: Arc<S>,
    segment: u64,
    /// Frames from here on, if they are few: one call writes and syncs them.
    from: u64,
    frames: Option<Vec<u8>>,
    to: u64,
    sequence: u64,
}

/// More bytes than these are written first, and then synced with all of the file.
const SYNCED_BYTES_MAX: u64 = 64 << 10;

/// Bytes that are copied out of the ring at a time: so few that they stay in the processor's cache.
const DRAINED_BYTES_MAX: u64 = 64 << 10;

/// How often others are let run before a sync that has fewer to wait for it than the last one.
const GATHER_YIELDS: usize = 8;

/// How far the log is durable, and who sees to it.
pub(super) struct Flush {
    pub(super) durable: u64,
    is_busy: bool,
    /// How many wait, and how many did at most since the last sync was begun.
    waiting: usize,
    crowd: usize,
    pub(super) poison: Option<String>,
}

impl Flush {
    /// Everything up to a write is durable, and nobody waits.
    pub(super) fn at(durable: u64) -> Self {
        Self { durable, is_busy: false, waiting: 0, crowd: 0, poison: None }
    }
}

impl<F: Folder> Shard<F> {
    fn poisoned(&self, what: &str) -> Error {
        Error::Poisoned { shard: self.number, what: what.to_owned() }
    }

    pub(super) fn poison(&self, what: &str, error: &std::io::Error) -> Error {
        let mut flush = lock(&self.flush);
        let what = format!("{what}: {error}");
        let error = self.poisoned(&what);
        if !planted::is(Fault::ErrorForgotten) {
            flush.poison.get_or_insert(what);
        }
        self.flushed.notify_all();
        error
    }

    /// Takes no more writes, for a reason that is not its own.
    pub(crate) fn give_up(&self, what: &str) {
        lock(&self.flush).poison.get_or_insert_with(|| what.to_owned());
        self.flushed.notify_all();
    }

    pub(super) fn check_sound(&self) -> Result<u64> {
        let flush = lock(&self.flush);
        match &flush.poison {
            Some(what) => Err(self.poisoned(what)),
            None => Ok(flush.durable),
        }
    }

    /// Syncs a segment, which makes everything up to `written` durable.
    pub(super) fn sync(
        &self,
        written: u64,
        save: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<()> {
        let _one = lock(&self.syncing);
        self.check_sound()?;
        if !planted::is(Fault::SyncLeftOut) {
            save().map_err(|error| self.poison("a sync of the log", &error))?;
        }
        let mut flush = lock(&self.flush);
        if flush.durable < written {
            flush.durable = written;
            self.table.control()?.set_durable(written);
        }
        self.flushed.notify_all();
        Ok(())
    }

    /// Writes what is in the ring only.
    pub(super) fn drain(&self, log: &mut Log<F::File>) -> Result<()> {
        if planted::is(Fault::RingLeftOut) {
            return Ok(());
        }
        while log.drained < log.at {
            let to = log.at.min(log.drained + DRAINED_BYTES_MAX);
            self.table.ring_read_into(log.drained, to, &mut log.drain);
            log.file
                .write_at(log.drained, &log.drain)
                .map_err(|error| self.poison("a write of the log", &error))?;
            self.note_written(log, to)?;
        }
        Ok(())
    }

    pub(super) fn note_written(&self, log: &mut Log<F::File>, at: u64) -> Result<()> {
        log.drained = log.drained.max(at);
        self.table.control()?.set_written(log.segment(), log.drained);
        Ok(())
    }

    /// What a sync has to do at present.
    fn job(&self, log: &mut Log<F::File>) -> Result<Job<F::File>> {
        let few = SYNCED_BYTES_MAX.min(self.table.ring_bytes());
        let frames = if self.table.lasts() && log.at - log.saved <= few {
            let from = if planted::is(Fault::SyncTooShort) { log.drained } else { log.saved };
            Some(self.table.ring_read(from, log.at))
        } else {
            self.drain(log)?;
            None
        };
        Ok(Job {
            file: Arc::clone(&log.file),
            segment: log.segment(),
            from: log.at - frames.as_ref().map_or(0, |frames| frames.len() as u64),
            frames: frames.filter(|_| !planted::is(Fault::RingLeftOut)),
            to: log.at,
            sequence: log.sequence,
        })
    }

    fn save(&self, job: &Job<F::File>) -> Result<()> {
        self.sync(job.sequence, || match &job.frames {
            Some(frames) if frames.is_empty() => Ok(()),
            Some(frames) => job.file.write_synced_at(job.from, frames),
            None => job.file.sync(),
        })
    }

    fn note_saved(&self, log: &mut Log<F::File>, job: &Job<F::File>) -> Result<()> {
        if log.segment() != job.segment {
            return Ok(());
        }
        log.saved = log.saved.max(job.to);
        self.note_written(log, job.to)
    }

    /// Makes everything written so far durable while the writers wait.
    pub(crate) fn sync_now(&self, log: &mut Log<F::File>) -> Result<()> {
        let job = self.job(log)?;
        self.save(&job)?;
        self.note_saved(log, &job)
    }

    /// Makes the files have everything, durable or not.
    pub(crate) fn settle(&self, log: &mut Log<F::File>) -> Result<()> {
        self.drain(log)
    }

    /// Returns when a write is durable: whoever comes first syncs for all.
    pub(crate) fn wait(&self, sequence: u64) -> Result<()> {
        let mut flush = lock(&self.flush);
        if flush.durable >= sequence {
            return Ok(());
        }
        flush.waiting += 1;
        flush.crowd = flush.crowd.max(flush.waiting);
        let (done, mut flush) = self.wait_among(flush, sequence);
        flush.waiting -= 1;
        done
    }

    fn wait_among<'a>(
        &'a self,
        mut flush: MutexGuard<'a, Flush>,
        sequence: u64,
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
            // Segments before the present one were synced when it was begun.
            self.gather();
            let synced = self.lead();
            flush = lock(&self.flush);
            flush.is_busy = false;
            self.flushed.notify_all();
            if synced.is_err() {
                return (synced, flush);
            }
        }
    }

    /// Lets those come along who were woken by the last sync and write again: without that, each
    /// sync would have half of the writers only. Whoever is alone waits for nobody.
    fn gather(&self) {
        let crowd = lock(&self.flush).crowd;
        for _ in 0..GATHER_YIELDS {
            if lock(&self.flush).waiting >= crowd {
                break;
            }
            thread::yield_now();
        }
        let mut flush = lock(&self.flush);
        flush.crowd = flush.waiting;
    }

    /// Syncs for all who wait, while writers go on.
    fn lead(&self) -> Result<()> {
        let job = self.job(&mut lock(&self.log))?;
        self.save(&job)?;
        self.note_saved(&mut lock(&self.log), &job)
    }

    pub(crate) fn is_durable(&self, sequence: u64) -> bool {
        lock(&self.flush).durable >= sequence
    }
}
