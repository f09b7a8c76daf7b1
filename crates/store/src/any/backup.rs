//! A copy of a store as it was at one moment, made while writers and compaction go on, and brought up
//! to date later by what is new.
//!
//! A log is only appended to, so what it was at one moment is known by where each segment ended then.
//! These places are noted under the locks of all logs; then the files are copied, which stay readable
//! when compaction removes them meanwhile. A file of the copy is only appended to, too: what the copy
//! was before stays in it until the file that names its segments has been followed by another one.

use std::sync::Arc;

use mainstay_storage::{Folder, Storage};

use super::{
    copy::{Copied, CopyEntry, begin},
    format::{ANY_FILE, AnyHeader, Frame},
    raw::RawLogStore,
    recover::any_header,
    shard::Shard,
};
use crate::{
    error::{Error, Result},
    format::{DATA_AT, FRAME_LEN, FrameHeader, STORE_FILE, write_header},
    mark::check_whole,
    planted::{self, Fault},
    rank::{Ranked, at_places},
};

/// What a copy came to.
///
/// Example: see [`RawLogStore::backup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogCopied {
    /// Records that the store had at that moment.
    pub records: u64,
    /// Files of the log that the copy has.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of them that were not in the copy before.
    pub copied_bytes: u64,
}

/// A segment that is copied.
struct Planned<S> {
    entry: CopyEntry,
    file: Arc<S>,
}

impl<F: Folder> RawLogStore<F> {
    /// Copies the store, as it is at this moment, into a folder, durably. In the copy batches are
    /// whole, also those across shards. Writers are held up for a moment only, and compaction goes on.
    /// Where the folder has an older copy of the store, only what is new is copied; until the new one
    /// is durable the older one is there, whatever happens. `told` hears how many bytes were copied,
    /// and of how many. Every checksum is looked at on the way.
    ///
    /// A copy is not opened: [`restore`](crate::restore) makes a store of it.
    ///
    /// ```
    /// use mainstay_sim::Disk;
    /// use mainstay_store::{Durability::Memory, LogOptions, RawLogStore};
    /// let store = RawLogStore::create(Disk::new(7), &LogOptions::default())?;
    /// store.put(b"de", b"Deutschland", Memory)?;
    /// let copy = Disk::new(8);
    /// assert_eq!(store.backup(&copy, |_, _| {})?.records, 1);
    /// store.put(b"fr", b"France", Memory)?;
    /// let again = store.backup(&copy, |_, _| {})?;
    /// assert!(again.records == 2 && again.copied_bytes < 200);
    ///
    /// let anew = RawLogStore::restore(&copy, Disk::new(9), &LogOptions::default(), |_, _| {})?;
    /// assert_eq!(anew.get(b"fr")?.as_deref(), Some(&b"France"[..]));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Exists`] if there is a store in the folder; [`Error::OtherCopy`] if there is a copy of
    /// another one, or of writes that this one never had; [`Error::NotWhole`] or [`Error::Mending`] of
    /// a follower that has not caught up; [`Error::Damaged`] with the first place
    /// that is not as it was written; [`Error::Poisoned`]; what the disk says. Then the copy is as it
    /// was.
    pub fn backup<G: Folder>(&self, to: &G, mut told: impl FnMut(u64, u64)) -> Result<LogCopied> {
        let before = self.copy_in(to)?;
        let (header, (plan, records)) = loop {
            let header = self.standing.header();
            header.check_finished()?;
            let plan = self.plan()?;
            // Meanwhile a follower may have become another one, and what it was is not known.
            if self.standing.header().generation == header.generation {
                break (header, plan);
            }
        };
        if before.is_none() {
            begin(to)?;
        }
        let entries: Vec<CopyEntry> = plan.iter().map(|of| of.entry).collect();
        let old = |entry: &CopyEntry| before.as_ref().and_then(|old| old.find(entry.place()));
        if let Some(before) = &before {
            check_continues(before, &entries)?;
        }
        let mut work = Vec::new();
        for planned in &plan {
            let from = match old(&planned.entry) {
                Some(old) => planned.continues(to, old, &self.header)?,
                None => 0,
            };
            work.push((planned, from));
        }
        let new = |(planned, from): &(&Planned<_>, u64)| planned.entry.bytes.get() - from;
        let all: u64 = work.iter().map(new).sum();
        let mut done = 0;
        for (planned, from) in work.into_iter().filter(|one| new(one) > 0) {
            planned.copy(to, &self.header, from, &mut |bytes| {
                done += bytes;
                told(done, all);
            })?;
        }
        to.sync_names().map_err(Error::io("the directory"))?;
        // What a power cut takes from the store must not be in a copy of it: the next one could not
        // continue it.
        if !planted::is(Fault::CopyAhead) {
            for of_shard in plan.chunk_by(|one, next| one.entry.shard == next.entry.shard) {
                let last = &of_shard[of_shard.len() - 1].entry;
                self.shards[last.shard.get() as usize].wait(last.last.get())?;
            }
        }
        let generation = before.as_ref().map_or(0, |old| old.generation) + 1;
        let copied = Copied { store: header, generation, records, entries };
        if planted::is(Fault::CopyTidiedEarly) {
            copied.tidy(to)?;
        }
        copied.write(to)?;
        copied.tidy(to)?;
        Ok(LogCopied {
            records,
            segments: plan.len() as u64,
            bytes: plan.iter().map(|planned| planned.entry.bytes.get()).sum(),
            copied_bytes: all,
        })
    }

    /// What a folder has of this store.
    fn copy_in(&self, to: &impl Folder) -> Result<Option<Copied>> {
        let names = to.names().map_err(Error::io("the directory"))?;
        if names.iter().any(|name| name == ANY_FILE || name == STORE_FILE) {
            return Err(Error::Exists);
        }
        check_whole(to)?;
        let found = Copied::read(to)?;
        match &found {
            // Segments of a store of which the header is gone are not those of a copy.
            None => match any_header(to) {
                Err(Error::NotAStore) => Ok(None),
                other => other.and(Err(Error::Exists)),
            },
            Some(old) if old.store.id != self.header.id => {
                Err(Error::OtherCopy { what: "another store" })
            }
            _ => Ok(found),
        }
    }

    /// Where each segment ends now, all at the same moment; with the records there are.
    fn plan(&self) -> Result<(Vec<Planned<F::File>>, u64)> {
        let is_torn = planted::is(Fault::CopyOfMoments);
        let logs: Vec<_> = self.shards.iter().filter(|_| !is_torn).map(Shard::writer).collect();
        at_places((0..).zip(logs.iter().map(|log| log.history())))?;
        let (mut plan, mut records) = (Vec::new(), 0);
        for shard in &self.shards {
            let alone = is_torn.then(|| shard.writer());
            let log = alone.as_ref().unwrap_or_else(|| &logs[shard.number as usize]);
            let index = shard.index();
            records += index.len();
            for (number, segment) in &index.segments {
                // The one in use has no last write yet.
                let is_used = *number == log.segment;
                let (last, chain) =
                    if is_used { (log.sequence, log.chain) } else { (segment.last, segment.chain) };
                let entry = CopyEntry {
                    shard: shard.number.into(),
                    chain: chain.into(),
                    number: (*number).into(),
                    first: segment.first.into(),
                    last: last.into(),
                    bytes: segment.end.into(),
                };
                plan.push(Planned { entry, file: Arc::clone(&segment.file) });
            }
            drop(index);
            if is_torn {
                std::thread::yield_now();
            }
        }
        Ok((plan, records))
    }
}

/// Refuses a copy that has a later write of a shard than the store: those are of another history, and
/// no segment of the store need be where they are.
fn check_continues(old: &Copied, entries: &[CopyEntry]) -> Result<()> {
    let last = |entries: &[CopyEntry], shard| {
        let ours = entries.iter().filter(|entry| entry.shard == shard);
        ours.map(|entry| entry.last.get()).max()
    };
    for of_shard in entries.chunk_by(|one, next| one.shard == next.shard) {
        let shard = of_shard[0].shard;
        if last(&old.entries, shard) > last(of_shard, shard) {
            return Err(Error::OtherCopy { what: "writes that this store never had" });
        }
    }
    Ok(())
}

impl<S: Storage> Planned<S> {
    /// From where on the segment is to be copied to a folder that has an older copy of it; 0: all.
    fn continues(&self, to: &impl Folder, old: &CopyEntry, store: &AnyHeader) -> Result<u64> {
        let other = Err(Error::OtherCopy { what: "writes that this store never had" });
        let (name, entry) = (self.entry.name(), &self.entry);
        let (at, end) = (old.bytes.get(), entry.bytes.get());
        if old.first != entry.first || at > end {
            return other;
        }
        let (last, chain) = if at == end {
            (entry.last.get(), entry.chain.get())
        } else {
            // In the log of another history no frame need begin there, nor end behind it.
            let Some(before) = self.before(at)? else { return other };
            before
        };
        if (last, chain) != (old.last.get(), old.chain.get()) {
            return other;
        }
        let file = to.file(&name).map_err(Error::io(&*name))?;
        let has_it =
            file.len().map_err(Error::io(&*name))? >= at && entry.header_in(&file, store).is_ok();
        // What was lost there is copied again.
        Ok(if has_it { at } else { 0 })
    }

    /// The write before the frame at a place of the segment, and the checksum of its frame; none if no
    /// frame begins there.
    fn before(&self, at: u64) -> Result<Option<(u64, u32)>> {
        if self.entry.bytes.get().saturating_sub(at) < FRAME_LEN as u64 {
            return Ok(None);
        }
        let mut head = [0; FRAME_LEN];
        self.file.read_at(at, &mut head).map_err(Error::io(self.entry.name()))?;
        if Frame::len_of(&head).is_none() {
            return Ok(None);
        }
        let head: FrameHeader = zerocopy::transmute!(head);
        Ok(head.sequence.get().checked_sub(1).map(|before| (before, head.chain.get())))
    }

    /// Copies what is behind `from`, durably.
    fn copy(
        &self,
        to: &impl Folder,
        store: &AnyHeader,
        from: u64,
        told: &mut impl FnMut(u64),
    ) -> Result<()> {
        let name = self.entry.name();
        let file = to.file(&name).map_err(Error::io(&*name))?;
        copy_segment((&*self.file, &file), &self.entry, store, from, told, |_, _| {})?;
        if !planted::is(Fault::CopyUnsynced) {
            file.sync().map_err(Error::io(&*name))?;
        }
        Ok(())
    }
}

/// Copies the frames of a segment behind `from`, or all of it if that is 0, and checks them on the
/// way. Nothing is synced.
pub(super) fn copy_segment<S: Storage, T: Storage>(
    (source, target): (&S, &T),
    entry: &CopyEntry,
    store: &AnyHeader,
    from: u64,
    told: &mut impl FnMut(u64),
    mut show: impl FnMut(u64, &Frame<'_>),
) -> Result<()> {
    let name = entry.name();
    let failed = || Error::io(&*name);
    let head = entry.header_in(source, store)?;
    if from == 0 {
        let begin = || {
            // What an earlier one left that did not come to its end.
            target.set_len(0)?;
            target.set_len(DATA_AT)?;
            write_header(target, &head)
        };
        begin().map_err(failed())?;
        told(DATA_AT);
    }
    let (mut sequence, mut chain) = (head.first_sequence.get() - 1, head.chain.get());
    let mut at = DATA_AT;
    if from > DATA_AT {
        let mut next = [0; FRAME_LEN];
        source.read_at(from, &mut next).map_err(failed())?;
        let next: FrameHeader = zerocopy::transmute!(next);
        (sequence, chain, at) = (next.sequence.get().saturating_sub(1), next.chain.get(), from);
    }
    let mut piece = Piece { file: target, at, bytes: Vec::new() };
    entry.read_behind(source, store, (at, sequence, chain), |at, frame, bytes| {
        show(at, frame);
        told(bytes.len() as u64);
        piece.add(bytes).map_err(failed())
    })?;
    piece.write().and_then(|()| target.set_len(entry.bytes.get())).map_err(failed())
}

/// Frames that are written together.
struct Piece<'a, S> {
    file: &'a S,
    at: u64,
    bytes: Vec<u8>,
}

impl<S: Storage> Piece<'_, S> {
    const BYTES: usize = 1 << 20;

    fn add(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= Self::BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> std::io::Result<()> {
        if !self.bytes.is_empty() {
            self.file.write_at(self.at, &self.bytes)?;
        }
        self.at += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
