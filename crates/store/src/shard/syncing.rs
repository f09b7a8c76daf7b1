//! How the log of a shard becomes durable: what is in the ring only is written and synced, for all who
//! wait (A2, A3).

use std::sync::Arc;

use mainstay_storage::{Folder, Storage};

use super::{Log, Shard};
use crate::{
    error::Result,
    format::FRAME_LEN,
    group::lock,
    planted::{self, Fault},
    tail::frame_len,
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

impl<F: Folder> Shard<F> {
    /// Takes no more writes, for a reason that is not its own.
    pub(crate) fn give_up(&self, what: &str) {
        self.group.give_up(what);
    }

    /// Syncs a segment, which makes everything up to `written` durable.
    pub(super) fn sync(
        &self,
        written: u64,
        save: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<()> {
        self.group.sync(written, save, || {
            self.table.control()?.set_durable(written);
            Ok(())
        })
    }

    /// How long a frame that goes through the ring may be: a longer one would only be copied there and
    /// back, since a sync does not take it from there.
    pub(super) fn in_ring_max(&self) -> u64 {
        SYNCED_BYTES_MAX.min(self.table.ring_bytes())
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
                .map_err(|error| self.group.poison("a write of the log", &error))?;
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
        let frames = if self.table.lasts() && log.at - log.saved <= self.in_ring_max() {
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

    /// Takes frames from the ring, from one on that is in the segment in use at byte `from`: some
    /// `chunk` bytes, or one frame. False if they may be in the file only.
    pub(crate) fn take_undrained(
        &self,
        log: &Log<F::File>,
        (from, chunk): (u64, u64),
        bytes: &mut Vec<u8>,
    ) -> bool {
        if from < log.drained {
            return false;
        }
        let least = chunk.max(FRAME_LEN as u64);
        self.table.ring_read_into(from, log.at.min(from + least), bytes);
        let whole = frame_len(bytes) as u64;
        if whole > bytes.len() as u64 {
            self.table.ring_read_into(from, log.at.min(from + whole), bytes);
        }
        true
    }

    /// Returns when a write is durable: whoever comes first syncs for all. Segments before the present
    /// one were synced when it was begun.
    pub(crate) fn wait(&self, sequence: u64) -> Result<()> {
        self.group.wait(sequence, || self.lead())
    }

    /// Syncs for all who wait, while writers go on.
    fn lead(&self) -> Result<()> {
        let job = self.job(&mut lock(&self.log))?;
        self.save(&job)?;
        self.note_saved(&mut lock(&self.log), &job)
    }

    pub(crate) fn is_durable(&self, sequence: u64) -> bool {
        self.group.durable() >= sequence
    }
}
