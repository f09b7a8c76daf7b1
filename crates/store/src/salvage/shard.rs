//! What is sound of a shard that cannot be opened.
//!
//! Images and logs are read on behind what is damaged, up to what is sound by itself. Each record is
//! noted with the write up to which it is known to be the newest of its key: the one that made it, or
//! the last one that its image has all of. Nothing older replaces or deletes it. In the end it is known
//! which writes are missing: every record that is older than one of these is in doubt, and counted.

use std::collections::BTreeMap;

use mainstay_storage::{Folder, Storage};

use super::{
    Salvaged,
    blocks::{Blocks, Piece},
    covered::Covered,
    frames::Point,
};
use crate::{
    error::{Error, MISPLACED, Result},
    format::{
        CHUNK_LEN, DATA_AT, FRAME_LEN, Header, IMPLAUSIBLE, ImageHeader, NUMBERS_END, Plausible,
        SegmentHeader, StoreHeader, chain_start, parse_name, read_headers, segment_name,
    },
    limits::{RECORDS_MAX, SEGMENT_BYTES_MAX},
    log::Frame,
    pages::{UNREADABLE, read_pages},
    parts::Parts,
    planted::{self, Fault},
    recover::private_table,
    route::Route,
    shard::Change,
    survey::MISSING,
    table::{Table, Writing, hash_of, sequence_and_key},
    unwritten::Unwritten,
};

const NOT_OURS: &str = "the file belongs to another store, shard or place";
const NO_HEADER: &str = "neither copy of the header is sound";
const BAD_BLOCK: &str = "a chunk of the image is not as it was written";

/// What was found of a shard.
pub(super) struct Rest {
    pub(super) table: Table,
    /// The last write that was found, or is known to have been.
    pub(super) sequence: u64,
    pub(super) parts: Option<Parts>,
    /// The last write that is missing: what is older may be older than that.
    doubt: u64,
}

impl Rest {
    pub(super) fn of(table: Table, sequence: u64, parts: Option<Parts>) -> Self {
        Self { table, sequence, parts, doubt: 0 }
    }

    /// How many records may be older than something that is lost.
    pub(super) fn doubtful(&self) -> Result<u64> {
        let mut doubtful = 0;
        if self.doubt > 0 {
            self.table.each(|record| {
                doubtful += u64::from(sequence_and_key(record).0 < self.doubt);
                Ok(())
            })?;
        }
        Ok(doubtful)
    }
}

/// A file of the shard, and its header if that is sound.
struct Found<S, H> {
    number: u64,
    name: String,
    file: S,
    len: u64,
    head: Option<H>,
}

/// What is being read.
struct Reading<'a> {
    told: &'a mut Salvaged,
    table: &'a Table,
    writing: Writing<'a>,
    shard: u32,
    key_len: usize,
    value: Vec<u8>,
    route: Route,
    covered: Covered,
    /// An image has all of the writes up to this one.
    needless: u64,
    /// The last write of which something tells.
    known: u64,
    parts: Option<Parts>,
    /// Keys that damaged places name, and up to which write they may have been changed there.
    named: BTreeMap<Box<[u8]>, u64>,
}

impl Salvaged {
    /// All that is sound of a shard.
    pub(super) fn damaged_shard<G: Folder>(
        &mut self,
        from: &G,
        store: &StoreHeader,
        shard: u32,
    ) -> Result<Rest> {
        let (mut images, mut segments) = (Vec::new(), Vec::new());
        for name in from.names().map_err(Error::io("the directory"))? {
            match parse_name(&name).filter(|it| it.0 == shard) {
                Some((_, number, true)) => {
                    let is_ours = |head: &ImageHeader| {
                        (head.id, head.shard.get(), head.number.get()) == (store.id, shard, number)
                    };
                    images.extend(self.found(from, name, number, is_ours)?);
                }
                Some((_, number, false)) => {
                    let is_ours = |head: &SegmentHeader| {
                        (head.id, head.shard.get(), head.number.get()) == (store.id, shard, number)
                    };
                    segments.extend(self.found(from, name, number, is_ours)?);
                }
                None => {}
            }
        }
        images.sort_unstable_by_key(|found| found.number);
        segments.sort_unstable_by_key(|found| found.number);
        // The ring is not in any file: whatever is wrong with it, that is how far the files go.
        let mut unwritten = Unwritten::find(from, store, shard).ok().flatten();
        let table = private_table(store, shard, 0)?;
        let mut reading = Reading {
            told: self,
            table: &table,
            writing: table.writing()?,
            shard,
            key_len: store.key_len.get() as usize,
            value: vec![0; store.value_len.get() as usize],
            route: store.route(),
            covered: Covered::default(),
            needless: 0,
            known: 0,
            parts: None,
            named: BTreeMap::new(),
        };
        let lost = reading.images(&images, &segments)?;
        reading.segments(&segments, store, &mut unwritten)?;
        let (sequence, parts, doubt) = reading.judge(lost, &segments)?;
        Ok(Rest { table, sequence, parts, doubt })
    }

    /// Opens a file, and reads its header. None if it is not of this shard, or was never begun.
    fn found<G: Folder, H: Header + Plausible>(
        &mut self,
        from: &G,
        name: String,
        number: u64,
        is_ours: impl Fn(&H) -> bool,
    ) -> Result<Option<Found<G::File, H>>> {
        let file = match from.file(&name).map_err(Error::io(&*name)) {
            Err(error) => return self.note(error).map(|()| None),
            Ok(file) => file,
        };
        let len = file.len().map_err(Error::io(&*name))?;
        let mut head = match read_headers::<H>(&file, &name) {
            // It is told where the rest of the file is read.
            Err(Error::Io { .. }) => None,
            found => found?.pop(),
        };
        if head.as_ref().is_some_and(|head| !is_ours(head)) {
            self.note(Error::damaged(&name, 0, NOT_OURS))?;
            return Ok(None);
        }
        if head.as_ref().is_some_and(|head| !head.is_plausible()) {
            self.note(Error::damaged(&name, 0, IMPLAUSIBLE))?;
            head = None;
        } else if head.is_none() {
            // One that was made and not begun has zeros there.
            let front = read_pages(&file, 0, len.min(DATA_AT) as usize, |_| {});
            if front.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            self.note(Error::damaged(&name, 0, NO_HEADER))?;
        }
        Ok(Some(Found { number, name, file, len, head }))
    }

    /// Tells that something in a file is damaged, of which nothing is lost.
    fn note_copy(&mut self, file: &str, offset: u64, what: &'static str) {
        self.add_place(file, offset, what, true);
    }
}

/// What images have lost.
#[derive(Default)]
struct OfImages {
    /// The writes up to this one were to be in an image, and not all of them are.
    through: u64,
    /// Where, and how many records.
    places: Vec<(String, u64)>,
    records: u64,
}

impl Reading<'_> {
    /// Takes the images, the newest first. What is found in a newer one is not older.
    fn images<S: Storage>(
        &mut self,
        images: &[Found<S, ImageHeader>],
        segments: &[Found<S, SegmentHeader>],
    ) -> Result<OfImages> {
        let mut lost = OfImages::default();
        let first = segments.iter().filter_map(|it| it.head).map(|it| it.first_sequence.get());
        let oldest = first.min().unwrap_or(1).saturating_sub(1);
        for (back, image) in images.iter().rev().enumerate() {
            // The log was cut behind what the newest image has.
            let from = match &image.head {
                Some(head) => head.from.get(),
                None if back == 0 => oldest,
                None => 0,
            };
            self.known = self.known.max(image.head.map_or(from, |head| head.through.get()));
            lost.through = lost.through.max(from);
            if self.image(image, from, (back == 0, &mut lost))? {
                self.covered.add(1, from);
                self.needless = from;
                break;
            }
        }
        Ok(lost)
    }

    /// Takes what is sound of an image. Is that all of it?
    fn image<S: Storage>(
        &mut self,
        image: &Found<S, ImageHeader>,
        from: u64,
        (is_newest, lost): (bool, &mut OfImages),
    ) -> Result<bool> {
        let Found { number, name, file, len, head } = image;
        let record = self.table.record();
        let mut blocks = Blocks::of((file, *len), *number, head.as_ref(), record);
        let (mut records, mut is_whole, mut unknown) = (0, head.is_some(), 0);
        for piece in blocks.by_ref() {
            match piece {
                Piece::Sound(bytes) => {
                    for record in bytes.chunks_exact(record) {
                        let (sequence, rest) = sequence_and_key(record);
                        let (key, value) = rest.split_at(self.key_len);
                        if !self.take(&Change::Put(key, value), sequence.max(from))? {
                            self.strange(name);
                        }
                        records += 1;
                    }
                }
                Piece::Damaged(at, bytes) => {
                    is_whole = false;
                    lost.places.push((name.clone(), at));
                    // If it has a header, and no more of them than there can be.
                    let behind = bytes.get(CHUNK_LEN..).unwrap_or_default();
                    unknown += (behind.len() / record) as u64;
                    for record in behind.chunks_exact(record) {
                        self.name(&sequence_and_key(record).1[..self.key_len], from.max(1));
                    }
                }
            }
        }
        let (end, count) = blocks.reached();
        for at in std::mem::take(&mut blocks.unread) {
            self.told.note(Error::damaged(name, at, UNREADABLE))?;
        }
        if let Some(head) = head {
            let is_all = (count, end) == (head.chunks.get(), head.bytes.get());
            if is_whole && (!is_all || records != head.records.get()) {
                is_whole = false;
                lost.places.push((name.clone(), end));
            }
            unknown = head.records.get().saturating_sub(records);
        }
        if is_newest {
            lost.records = unknown;
        }
        Ok(is_whole)
    }

    /// Takes the logs, in their order.
    fn segments<S: Storage>(
        &mut self,
        segments: &[Found<S, SegmentHeader>],
        store: &StoreHeader,
        unwritten: &mut Option<Unwritten>,
    ) -> Result<()> {
        let needless = self.needless;
        let first_of =
            |found: &Found<S, SegmentHeader>| found.head.map(|head| head.first_sequence.get());
        let covers = |found| first_of(found).is_some_and(|first| first <= needless + 1);
        // What an image has made superfluous.
        let needed = segments.iter().rposition(covers).unwrap_or(0);
        let lengths = (self.key_len, self.value.len());
        let shard = self.shard;
        let chain = Some(chain_start(&store.id, shard));
        let mut point = Point { shard, lengths, sequence: needless, chain };
        for (number, segment) in segments.iter().enumerate().skip(needed) {
            if let Some(head) = &segment.head {
                let before = head.first_sequence.get() - 1;
                if before > point.sequence {
                    let what = if number == needed {
                        "the log before this segment is missing"
                    } else {
                        "the segment does not continue the one before"
                    };
                    if number > needed || before > self.known {
                        self.told.note(Error::damaged(&segment.name, 0, what))?;
                    }
                }
                self.known = self.known.max(before).max(head.vouched.get());
                (point.sequence, point.chain) = (before, Some(head.chain.get()));
            }
            let behind = segments.get(number + 1);
            let next = behind.map(|behind| {
                let head = behind.head.as_ref()?;
                Some((head.first_sequence.get() - 1, head.chain.get()))
            });
            self.segment(segment, &mut point, next, unwritten)?;
        }
        Ok(())
    }

    /// Takes what is sound of a segment. `next` is the write before the segment behind it and its
    /// checksum, if there is one, and that is known.
    fn segment<S: Storage>(
        &mut self,
        segment: &Found<S, SegmentHeader>,
        point: &mut Point,
        next: Option<Option<(u64, u32)>>,
        unwritten: &mut Option<Unwritten>,
    ) -> Result<()> {
        let Found { number, name, file, len, head } = segment;
        let (name, is_bounded) = (&**name, head.is_some());
        if head.is_some_and(|head| head.bytes.get() != *len) {
            let what = "the segment is not as long as its header says";
            self.told.note(Error::damaged(name, *len, what))?;
        }
        let mut unread = Vec::new();
        let len = (*len).min(SEGMENT_BYTES_MAX) as usize;
        let mut bytes = read_pages(file, 0, len, |at| unread.push(at));
        unread
            .into_iter()
            .try_for_each(|at| self.told.note(Error::damaged(name, at, UNREADABLE)))?;
        let mut at = DATA_AT as usize;
        loop {
            if let Some(frame) = point.next(bytes.get(at..).unwrap_or_default()) {
                let head = frame.header;
                if !self.frame(&frame)? {
                    self.strange(name);
                }
                self.parts = Parts::of(&frame, *number, at as u64);
                (point.sequence, point.chain) = (head.sequence.get(), Some(head.checksum.get()));
                at += head.len.get() as usize;
                continue;
            }
            if let (Some(ring), Some(chain)) = (&unwritten, point.chain) {
                let after = (point.sequence, chain, point.shard);
                if ring.complete((*number, at), &mut bytes, after) {
                    *unwritten = None;
                    continue;
                }
            }
            if point.mend(&mut bytes, at, next.flatten()) {
                self.told.note_copy(name, at as u64, MISSING);
                continue;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let (before, end) = match point.later(&bytes, at, is_bounded) {
                Some((place, head)) => (head.sequence.get() - 1, place),
                None => (self.known.max(next.flatten().map_or(0, |next| next.0)), bytes.len()),
            };
            let is_end = end == bytes.len();
            let is_damaged = point.end(at as u64).is_some_and(|end| end.is_damaged(rest));
            let is_unknown =
                is_damaged || (next == Some(None) && rest.iter().any(|byte| *byte != 0));
            if is_end && before <= point.sequence && !is_unknown {
                // A write that was not finished: it never counted.
                return Ok(());
            }
            let missing = before.saturating_sub(point.sequence);
            self.parts = None;
            if !is_end && missing * FRAME_LEN as u64 == (end - at) as u64 {
                // There is no room for changes.
                self.covered.add(point.sequence + 1, before);
                self.told.note_copy(name, at as u64, MISSING);
            } else {
                let last = before.max(point.sequence + 1);
                self.told.add_place(name, at as u64, MISSING, last <= self.needless);
                self.known = self.known.max(last);
                let (bytes, point) = (&bytes[at.min(end)..end], *point);
                point.named(bytes, &mut |key| self.name(key, last));
            }
            (point.sequence, point.chain) = (before.max(point.sequence), None);
            if is_end {
                return Ok(());
            }
            at = end;
        }
    }

    /// Takes the changes of a frame. Do they all belong to the shard?
    fn frame(&mut self, frame: &Frame<'_>) -> Result<bool> {
        let (sequence, durable) = (frame.header.sequence.get(), frame.header.durable.get());
        // More than there can be was never written.
        let durable = if durable < NUMBERS_END { durable } else { 0 };
        self.known = self.known.max(sequence).max(durable);
        self.covered.add(sequence, sequence);
        if sequence <= self.needless {
            return Ok(true);
        }
        let (mut changes, lengths) = (Vec::new(), (self.key_len, self.value.len()));
        frame.changes(lengths.0, lengths.1, |change| changes.push(change));
        let mut are_ours = true;
        for change in &changes {
            are_ours &= self.take(change, sequence)?;
        }
        Ok(are_ours)
    }

    /// A file has a key that belongs to another shard. No store has written that, and it would be in
    /// the way of what that shard has of it.
    fn strange(&mut self, name: &str) {
        let is_new = self.told.damage.iter().all(|it| (&*it.file, it.what) != (name, MISPLACED));
        if is_new {
            self.told.add_place(name, DATA_AT, MISPLACED, false);
            self.told.unknown += 1;
        }
    }

    /// Makes a change, unless something newer is known of its key. False if that belongs to another
    /// shard.
    fn take(&mut self, change: &Change<'_>, sequence: u64) -> Result<bool> {
        let key = change.key();
        if self.route.elsewhere(self.shard, key).is_some() {
            return Ok(false);
        }
        let found = self.table.copy(hash_of(key), key, &mut self.value)?;
        if found.is_some_and(|newer| newer > sequence) && !planted::is(Fault::OlderTaken) {
            return Ok(true);
        }
        if !self.writing.reserve(1)? {
            return Err(Error::Full { shard: self.shard, max: RECORDS_MAX });
        }
        self.writing.apply(change, sequence);
        self.writing.applied(sequence);
        Ok(true)
    }

    /// A damaged place names a key.
    fn name(&mut self, key: &[u8], sequence: u64) {
        if self.route.shard(key) == self.shard {
            let last = self.named.entry(key.into()).or_default();
            *last = sequence.max(*last);
        }
    }

    /// Says what is lost. The last write there was, its parts, and the last one that is missing.
    fn judge<S>(
        self,
        images: OfImages,
        segments: &[Found<S, SegmentHeader>],
    ) -> Result<(u64, Option<Parts>, u64)> {
        let Self { told, table, shard, known, mut parts, named, covered, .. } = self;
        let missing = covered.missing(known);
        let is_needed = missing.first().is_some_and(|(first, _)| *first <= images.through);
        for (name, at) in &images.places {
            told.add_place(name, *at, BAD_BLOCK, !is_needed);
            told.unknown += u64::from(is_needed);
        }
        if is_needed {
            told.records_lost += images.records;
        }
        let mut doubt = missing.last().map_or(0, |(_, last)| *last);
        for (first, last) in missing.iter().filter(|(_, last)| *last > images.through) {
            told.unknown += 1;
            told.writes_lost += last - (first - 1).max(images.through);
        }
        if segments.is_empty() {
            let what = "the end of the log is missing";
            told.note(Error::damaged(&segment_name(shard, 1), 0, what))?;
            told.unknown += 1;
            (doubt, parts) = (u64::MAX, None);
        }
        for (key, last) in named {
            let newer = table.copy(hash_of(&key), &key, &mut vec![0; self.value.len()])?;
            if newer.is_none_or(|newer| newer < last) && (doubt > 0 || is_needed) {
                told.named.push(key);
            }
        }
        if planted::is(Fault::OlderShown) {
            doubt = 0;
        }
        Ok((known, parts, doubt))
    }
}
