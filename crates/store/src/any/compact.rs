//! Compaction: what is worth keeping of a segment is written again at the end of the log, some of it
//! at a time, and then the segment is removed (V4).

use std::sync::Arc;

use mainstay_storage::Folder;

use super::{
    format::{
        AnyHeader, Entry, Frame, Hint, HintHeader, Kind, ListEntry, ListHeader, Place, Record,
        parse_name, write_list,
    },
    index::Segment,
    shard::{Log, Shard, Store, Why, hint_header},
};
use crate::{
    error::{Error, Result},
    format::{DATA_AT, FRAME_LEN, Header, VERSION, chain_start},
    group::lock,
    planted::{self, Fault},
    shard::Change,
    store::IDLE_LOOKS,
};

/// In place of how many percent of a segment are to be dead: all of it, so that nothing is moved.
pub(super) const WHOLLY: u32 = u32::MAX;

/// How far a compaction is.
#[derive(Default)]
pub(super) struct Upkeep {
    victim: Option<Victim>,
    pub(super) moved_bytes: u64,
    pub(super) freed_bytes: u64,
}

struct Victim {
    segment: u64,
    /// Where the next frame to look at is.
    at: u64,
}

impl<F: Folder> Shard<F> {
    /// Which segment is to go: the oldest that is dead enough; if deletes that may hide something have
    /// become more than a segment, the oldest of all, which ends with their hiding nothing.
    fn choose(&self, store: Store<'_, F>, dead_percent: u32) -> Option<Victim> {
        let retain = self.retained();
        let index = self.index();
        let mut full =
            index.segments.iter().filter(|(_, segment)| segment.last > 0 && segment.last <= retain);
        let oldest = index.segments.keys().next().copied();
        let is_dead = |(number, segment): &(&u64, &Segment<F::File>)| {
            let bytes = segment.end - DATA_AT;
            let dead = segment.dead(Some(**number) == oldest);
            dead > 0 && dead * 100 >= bytes * u64::from(dead_percent.min(100))
        };
        let deletes: u64 = index.segments.values().map(|segment| segment.deletes).sum();
        let live: u64 = index.segments.values().map(|segment| segment.live).sum();
        let has_many = deletes > store.header.segment_bytes.get().max(live / 2);
        // First, since the others add to them.
        let chosen =
            if has_many && dead_percent != WHOLLY { full.next() } else { full.find(is_dead) };
        chosen.map(|(number, _)| Victim { segment: *number, at: DATA_AT })
    }

    /// Segments that end behind this frame are to stay.
    fn retained(&self) -> u64 {
        let retain = self.writer().retain.unwrap_or(u64::MAX);
        if planted::is(Fault::RetainIgnored) { u64::MAX } else { retain }
    }

    /// Goes on compacting, and reads at most some `budget` bytes, at least a frame. How many it was;
    /// none if nothing is dead enough.
    pub(super) fn compact(
        &self,
        store: Store<'_, F>,
        budget: u64,
        dead_percent: u32,
    ) -> Result<Option<u64>> {
        let mut upkeep = lock(&self.upkeep);
        self.group.check_sound()?;
        let done = self.go_on(store, &mut upkeep, budget, dead_percent);
        if done.as_ref().is_err_and(Error::is_full) {
            // Another one may need no room.
            upkeep.victim = None;
        }
        done
    }

    fn go_on(
        &self,
        store: Store<'_, F>,
        upkeep: &mut Upkeep,
        budget: u64,
        dead_percent: u32,
    ) -> Result<Option<u64>> {
        // One that is gone had files that could not be removed; the next opening does that.
        let is_there = |victim: &Victim| self.index().segments.contains_key(&victim.segment);
        if !upkeep.victim.as_ref().is_some_and(is_there) {
            upkeep.victim = self.choose(store, dead_percent);
        }
        let Some(victim) = &mut upkeep.victim else { return Ok(None) };
        let (file, end, last, is_oldest) = {
            let index = self.index();
            let Some(segment) = index.segments.get(&victim.segment) else { return Ok(None) };
            let is_oldest = index.segments.keys().next() == Some(&victim.segment);
            (Arc::clone(&segment.file), segment.end, segment.last, is_oldest)
        };
        let from = victim.at;
        let mut frame = Vec::new();
        let mut moved = 0;
        while victim.at < end && victim.at - from < budget {
            self.read_frame(victim, &file, end, &mut frame)?;
            let seed = chain_start(&store.header.id, self.number);
            let records = Frame::read(seed, &frame).and_then(|frame| frame.records());
            let place =
                Place { segment: victim.segment, at: victim.at as u32, value_len: 0, end: 0 };
            for record in records.ok_or_else(|| self.damaged(place))? {
                let at = victim.at as u32 + record.at as u32;
                moved += self.carry(store, (victim.segment, at), &record, is_oldest)?;
            }
            victim.at += frame.len() as u64;
        }
        let (read, is_done) = (victim.at - from, victim.at >= end);
        let segment = victim.segment;
        if is_done && last > self.retained() {
            // A follower has come meanwhile; it goes when that one is further.
            return Ok(None);
        }
        upkeep.moved_bytes += moved;
        if is_done {
            // What was moved, and what made the rest dead. If a sector of it is lost, the log seems to
            // end before, and the records' old place is gone: so it is vouched for first.
            let written = {
                let mut log = self.writer();
                self.vouch(store, &mut log)?;
                log.sequence
            };
            if !planted::is(Fault::MovedUnsynced) {
                self.wait(written)?;
            }
            self.remove(store, segment, written)?;
            upkeep.victim = None;
            upkeep.freed_bytes += end;
        }
        Ok(Some(read))
    }

    fn read_frame(
        &self,
        victim: &Victim,
        file: &F::File,
        end: u64,
        frame: &mut Vec<u8>,
    ) -> Result<()> {
        let place = Place { segment: victim.segment, at: victim.at as u32, value_len: 0, end: 0 };
        if end - victim.at < FRAME_LEN as u64 {
            return Err(self.damaged(place));
        }
        frame.resize(FRAME_LEN, 0);
        self.read_record(file, place, frame)?;
        let len = Frame::len_of(frame).filter(|len| victim.at + *len as u64 <= end);
        frame.resize(len.ok_or_else(|| self.damaged(place))?, 0);
        self.read_record(file, place, frame)
    }

    /// Writes a change again if it is worth it: the newest of its key, or a delete that may hide
    /// something. How many bytes of a value that moved.
    fn carry(
        &self,
        store: Store<'_, F>,
        here: (u64, u32),
        record: &Record<'_>,
        is_oldest: bool,
    ) -> Result<u64> {
        let mut log = self.writer();
        let newest = self.index().find(record.change.key());
        let (is_wanted, bytes) = match record.change {
            Change::Put(_, value) => {
                let here = |place: Place| (place.segment, place.at) == here;
                let is_newest = newest.is_some_and(here) || planted::is(Fault::MovedUnchecked);
                (is_newest, value.len() as u64)
            }
            Change::Delete(_) => {
                let hides = !is_oldest && !planted::is(Fault::DeletesDropped);
                (newest.is_none() && hides, 0)
            }
        };
        if !is_wanted {
            return Ok(0);
        }
        let end = if planted::is(Fault::EndForgotten) { 0 } else { record.end };
        self.append(store, &mut log, &Entry::new(&[record.change], end), Why::Moved)?;
        Ok(bytes)
    }

    /// Removes a segment of which nothing is needed as long as all up to the write `durable` is there:
    /// writes that down, and which ones there are without it, and only then removes the file (V5).
    fn remove(&self, store: Store<'_, F>, segment: u64, durable: u64) -> Result<()> {
        let (mut header, entries) = {
            let mut log = self.writer();
            log.next_list += 1;
            self.list_without(store, &log, segment)
        };
        if !planted::is(Fault::ListUnmarked) {
            header.vouched = durable.into();
        }
        let number = header.generation.get();
        let name = Kind::List.name(self.number, number);
        let drop_files = || {
            store.folder.remove(&Kind::Log.name(self.number, segment))?;
            store.folder.remove(&Kind::Hint.name(self.number, segment))
        };
        let write = || {
            if planted::is(Fault::ListLate) {
                drop_files()?;
            }
            write_list(&store.folder.file(&name)?, header, &entries)?;
            if planted::is(Fault::CutBeforeName) { Ok(()) } else { store.folder.sync_names() }
        };
        write().map_err(|error| {
            // There may be many of them before one succeeds, and each that stays takes room.
            let _unfinished = store.folder.remove(&name);
            Error::io(&*name)(error)
        })?;
        self.index_mut().segments.remove(&segment);
        self.writer().full.retain(|(_, header)| header.number.get() != segment);
        let tidy = || {
            // Lists that could not be written may lie between.
            for name in store.folder.names()? {
                let parsed = parse_name(&name);
                if parsed.is_some_and(|(shard, at, kind)| {
                    shard == self.number && kind == Kind::List && at < number
                }) {
                    store.folder.remove(&name)?;
                }
            }
            drop_files()?;
            store.folder.sync_names()
        };
        tidy().map_err(Error::io(name))
    }

    /// Which full segments there are, without one of them.
    fn list_without(
        &self,
        store: Store<'_, F>,
        log: &Log<F::File>,
        without: u64,
    ) -> (ListHeader, Vec<ListEntry>) {
        let index = self.index();
        let entries = index
            .segments
            .iter()
            .filter(|(number, segment)| segment.last > 0 && **number != without)
            .map(|(number, segment)| ListEntry {
                number: (*number).into(),
                first: segment.first.into(),
                last: segment.last.into(),
                bytes: segment.end.into(),
                chain: segment.chain.into(),
                reserved: 0.into(),
            })
            .collect();
        (list_header(store.header, self.number, log.next_list - 1, log.sealed), entries)
    }

    /// Writes the hints of full segments. What cannot be written is tried again the next time.
    pub(super) fn write_hints(&self, store: Store<'_, F>) -> Result<()> {
        let _one = lock(&self.upkeep);
        let mut full = std::mem::take(&mut self.writer().full);
        full.retain(|(_, header)| self.index().segments.contains_key(&header.number.get()));
        while let Some((hint, header)) = full.first() {
            if let Err(error) = self.write_hint(store, hint, *header) {
                let mut log = self.writer();
                full.append(&mut log.full);
                log.full = full;
                return Err(error);
            }
            full.remove(0);
        }
        Ok(())
    }

    fn write_hint(&self, store: Store<'_, F>, hint: &Hint, header: HintHeader) -> Result<()> {
        let name = Kind::Hint.name(self.number, header.number.get());
        let write = || {
            hint.write(&store.folder.file(&name)?, header)?;
            store.folder.sync_names()
        };
        write().map_err(Error::io(&*name))
    }

    /// Makes everything durable.
    pub(super) fn settle(&self) -> Result<()> {
        self.sync_now(&self.writer())
    }

    /// Says in the log that everything is durable.
    pub(super) fn finish(&self, store: Store<'_, F>) -> Result<()> {
        let mut log = self.writer();
        if self.group.check_sound()? < log.sequence {
            // Somebody has written meanwhile.
            self.sync_now(&log)?;
        }
        if log.sequence > 0 {
            log.vouched = self.append(store, &mut log, &Entry::new(&[], 0), Why::New)?;
            self.sync_now(&log)?;
        }
        Ok(())
    }

    /// Says so as well if nothing was written while upkeep looked some times, and all is durable: damage of
    /// the last writes of a process that is killed then is told from their never having been finished.
    pub(super) fn vouch_if_idle(&self, store: Store<'_, F>) -> Result<()> {
        let mut log = self.writer();
        let (was, times) = log.considered;
        let times = if was == log.sequence { times.saturating_add(1) } else { 0 };
        log.considered = (log.sequence, times);
        if times < IDLE_LOOKS || self.group.check_sound()? < log.sequence {
            return Ok(());
        }
        self.vouch(store, &mut log)
    }

    /// Says in the log that what is before it was there, unless nothing was written since it was said, or
    /// there is no room: nobody waits for it.
    fn vouch(&self, store: Store<'_, F>, log: &mut Log<F::File>) -> Result<()> {
        if log.vouched == log.sequence || planted::is(Fault::EndUnmarked) {
            return Ok(());
        }
        match self.append(store, log, &Entry::new(&[], 0), Why::New) {
            Ok(vouched) => log.vouched = vouched,
            Err(error) if error.is_full() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Describes all segments, the one in use among them, so that the next opening reads no values.
    pub(super) fn describe(&self, store: Store<'_, F>) -> Result<()> {
        self.write_hints(store)?;
        let _one = lock(&self.upkeep);
        let log = self.writer();
        // Only what is durable is described.
        if log.sequence > 0 && self.group.check_sound()? >= log.sequence {
            let (hint, header) = (log.hint.clone(), hint_header(store.header, self.number, &log));
            self.write_hint(store, &hint, header)?;
        }
        Ok(())
    }
}

pub(super) fn list_header(
    store: &AnyHeader,
    shard: u32,
    generation: u64,
    (through, sequence, chain): (u64, u64, u32),
) -> ListHeader {
    ListHeader {
        magic: ListHeader::MAGIC,
        version: VERSION.into(),
        flags: 0.into(),
        id: store.id,
        shard: shard.into(),
        count: 0.into(),
        generation: generation.into(),
        through: through.into(),
        sequence: sequence.into(),
        chain: chain.into(),
        body_sum: 0.into(),
        vouched: 0.into(),
        reserved: [0; 44],
        checksum: 0.into(),
    }
}
