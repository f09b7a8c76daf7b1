//! What the files of a shard say: which segments there are, what their frames do, and where the log
//! ends.

mod files;
mod hints;

use std::{collections::BTreeSet, sync::Arc};

use mainstay_storage::{Folder, Storage};

pub(super) use self::{
    files::newest_list,
    hints::{Hinted, UNREAD_HINT, hint_of, is_unfinished, is_unread, read_hint, wrong_with},
};
use self::{
    files::{Files, drop_leftovers},
    hints::Beside,
};
use super::{
    format::{
        ANY_FILE, AnyHeader, Frame, Kind, LogHeader, Past, Place, log_end, parse_name,
        was_more_durable,
    },
    frames::NOT_AS_WRITTEN,
    index::{Index, Segment},
    lines::Lines,
    parts::Parts,
    shard::{Log, hint_header, note},
};
use crate::{
    error::{Error, Result, has_no_room},
    format::{DATA_AT, STORE_FILE, chain_start, read_headers, write_header},
    keyed,
    limits::SEGMENT_BYTES_MAX,
    planted::{self, Fault},
    recover::or_gone,
    route::Route,
};

/// A shard as found.
pub(super) struct Found<F: Folder> {
    pub(super) index: Index<F::File>,
    pub(super) log: Log<F::File>,
    /// The last write known to be durable.
    pub(super) durable: u64,
    /// What the last frame has of other shards.
    pub(super) parts: Option<Parts>,
    /// Of which segments the disk could not read the hints.
    pub(super) unread_hints: Vec<u64>,
    /// Of which segments the hints say something else, and whether an opening would believe them.
    pub(super) wrong_hints: Vec<(u64, bool)>,
}

/// The newest sound header of the store.
pub(crate) fn any_header(folder: &impl Folder) -> Result<AnyHeader> {
    let names = folder.names().map_err(Error::io("the directory"))?;
    if names.iter().any(|name| name == STORE_FILE) {
        return Err(Error::OtherKind { is: "keys and values of fixed sizes" });
    }
    let found = if names.iter().any(|name| name == ANY_FILE) {
        newest_header(&folder.file(ANY_FILE).map_err(Error::io(ANY_FILE))?)
    } else {
        Err(Error::NotAStore)
    };
    let is_log = |name: &str| matches!(parse_name(name), Some((_, _, Kind::Log)));
    or_gone(found, folder, &names, is_log)
}

fn newest_header(file: &impl Storage) -> Result<AnyHeader> {
    let sound = read_headers::<AnyHeader>(file, ANY_FILE)?;
    match sound.into_iter().max_by_key(|header| header.generation.get()) {
        Some(header) => Ok(header),
        None if file.len().map_err(Error::io(ANY_FILE))? == 0 => Err(Error::NotAStore),
        None => Err(keyed::not_sound(file, ANY_FILE)),
    }
}

/// No file of a log is longer; whoever mends its end makes it one byte longer for a moment.
pub(super) const LEN_MAX: u64 = SEGMENT_BYTES_MAX + 1;
pub(super) const TOO_LONG: &str = "the file is longer than a segment can be";

/// How long a segment is. Nobody makes one longer than it can be, and nobody reads one that is.
fn segment_len(file: &impl Storage, name: &str) -> Result<u64> {
    let len = file.len().map_err(Error::io(name))?;
    if len > LEN_MAX {
        return Err(Error::damaged(name, LEN_MAX, TOO_LONG));
    }
    Ok(len)
}

/// How a shard is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Hints are believed, and the end of the log is mended: for who writes.
    Open {
        /// Keys are kept in their order.
        ordered: bool,
    },
    /// Hints are believed, and nothing is changed: for who only reads.
    View,
    /// Every frame is read, and nothing is changed: for who doubts.
    Look,
    /// The same, and keys are taken wherever they are: for who saves what is sound.
    Save,
}

/// Reads a shard. `told` is told how many bytes it has come through, in parts.
pub(super) fn load<F: Folder>(
    folder: &F,
    store: &AnyHeader,
    shard: u32,
    how: How,
    told: &mut dyn FnMut(u64),
) -> Result<Found<F>> {
    let mut files = Files::<F>::of(folder, store, shard)?;
    files.check(store)?;
    let ends: Vec<_> = (0..files.segments.len()).map(|at| files.end_of(at)).collect();
    let (through, sequence, chain) = (&files.list.through, &files.list.sequence, &files.list.chain);
    let mut sealed = (through.get(), sequence.get(), chain.get());
    let is_opening = matches!(how, How::Open { .. });
    let believes = !matches!(how, How::Look | How::Save);
    let hints = files.hints.clone();
    let route = (how != How::Save).then(|| store.route());
    let index = Index::new(Lines::new(how == How::Open { ordered: true }));
    let (durable, parts, unread_hints, wrong_hints) = (0, None, Vec::new(), Vec::new());
    let mut reading = Reading {
        told,
        store,
        shard,
        route,
        believes,
        hints,
        index,
        durable,
        parts,
        unread_hints,
        wrong_hints,
    };
    let mut full = Vec::new();
    for ((head, file), end) in std::mem::take(&mut files.segments).into_iter().zip(ends) {
        let number = head.number.get();
        let name = Kind::Log.name(shard, number);
        let (mut log, tail) = reading.segment(folder, &head, file, &name)?;
        let Some((sequence, chain)) = end else {
            // It is the last one.
            log.sealed = sealed;
            log.full = full;
            (log.next_number, log.next_list) = (files.next_number, files.next_list);
            let Reading { index, mut durable, parts, unread_hints, wrong_hints, .. } = reading;
            // What was durable when a segment was removed: it may have gone as what is here was there.
            durable = durable.max(files.list.vouched.get());
            if durable > log.sequence {
                return Err(Error::damaged(&name, log.at, NOT_AS_WRITTEN));
            }
            if is_opening {
                mend(&head, &log, &tail, durable).map_err(Error::io(name))?;
                log.next_list = drop_leftovers(folder, shard, files, &index)?;
                durable = log.sequence;
            }
            return Ok(Found { index, log, durable, parts, unread_hints, wrong_hints });
        };
        if (log.sequence, log.chain) != (sequence, chain) {
            return Err(Error::damaged(&name, log.at, NOT_AS_WRITTEN));
        }
        // Before the next one was begun this one was synced, and all of a batch at its end was.
        reading.parts = None;
        reading.durable = reading.durable.max(sequence);
        if let Some(segment) = reading.index.segments.get_mut(&number) {
            (segment.last, segment.chain) = (sequence, chain);
        }
        if number > sealed.0 {
            sealed = (number, sequence, chain);
        }
        if tail.known < log.at {
            let header = hint_header(store, shard, &log);
            full.push((log.hint, header));
        }
    }
    let what = "the end of the log is missing";
    Err(Error::damaged(&Kind::Log.name(shard, sealed.0), 0, what))
}

/// What was found behind the part of a segment that a hint describes.
struct Tail {
    /// Where that part ends.
    known: u64,
    /// Where frames begin behind it: sequences and offsets.
    frames: Vec<(u64, u64)>,
    /// How long the file is.
    len: u64,
}

/// After so many bytes it is told again how far it is.
const STEP: u64 = 1 << 20;

struct Reading<'a, S> {
    told: &'a mut dyn FnMut(u64),
    store: &'a AnyHeader,
    shard: u32,
    /// Which keys belong to it, if that matters.
    route: Option<Route>,
    /// Hints are believed.
    believes: bool,
    /// Which segments have one.
    hints: BTreeSet<u64>,
    index: Index<S>,
    /// The last write that something says was durable.
    durable: u64,
    /// What the last frame that was read has of other shards.
    parts: Option<Parts>,
    /// Of which segments the disk could not read the hints.
    unread_hints: Vec<u64>,
    /// Of which segments the hints say something else, and whether an opening would believe them.
    wrong_hints: Vec<(u64, bool)>,
}

impl<S: Storage> Reading<'_, S> {
    fn segment<F: Folder<File = S>>(
        &mut self,
        folder: &F,
        head: &LogHeader,
        file: S,
        name: &str,
    ) -> Result<(Log<S>, Tail)> {
        let number = head.number.get();
        let file = Arc::new(file);
        let len = segment_len(&*file, name)?;
        let mut log = Log::new(Arc::clone(&file), number);
        (log.first, log.chain) = (head.first_sequence.get(), head.chain.get());
        log.sequence = log.first - 1;
        log.past = Past::from_bytes(&head.past);
        let segment = Segment::new(Arc::clone(&file), log.first, log.past);
        self.index.segments.insert(number, segment);
        let has_hint = self.hints.contains(&number);
        if has_hint && self.believes {
            self.take_hint(folder, &mut log, len, name)?;
        }
        let mut beside = None;
        if has_hint && !self.believes {
            match read_hint(folder, self.store, self.shard, number)? {
                Hinted::Sound(hint, header) => beside = Some(Beside::new(hint, header)),
                Hinted::NotSound => {}
                Hinted::Unread(_) => self.unread_hints.push(number),
            }
        }
        if let Some(beside) = &mut beside {
            beside.look(&log);
        }
        (self.told)(log.at);
        let mut tail = Tail { known: log.at, frames: Vec::new(), len };
        let mut bytes = vec![0; len.saturating_sub(log.at) as usize];
        if !bytes.is_empty() {
            file.read_at(log.at, &mut bytes).map_err(Error::io(name))?;
            self.replay(&mut log, &mut tail, (&bytes, name), beside.as_mut())?;
        }
        if let Some(beside) = beside {
            let header = &beside.header;
            // It was synced before it was described.
            if header.first.get() == log.first && header.last.get() > log.sequence {
                return Err(Error::damaged(name, log.at, NOT_AS_WRITTEN));
            }
            let wrong = beside.is_wrong(log.first).map(|is_believed| (number, is_believed));
            self.wrong_hints.extend(wrong);
        }
        if let Some(segment) = self.index.segments.get_mut(&number) {
            segment.end = log.at;
        }
        Ok((log, tail))
    }

    /// Takes what a hint says of the segment, instead of reading it.
    fn take_hint<F: Folder<File = S>>(
        &mut self,
        folder: &F,
        log: &mut Log<S>,
        len: u64,
        name: &str,
    ) -> Result<()> {
        let (hint, header) = match read_hint(folder, self.store, self.shard, log.segment)? {
            Hinted::Sound(hint, header) => (hint, header),
            Hinted::NotSound => return Ok(()),
            Hinted::Unread(error) => {
                tracing::warn!(%error, "a hint cannot be read; its segment is read instead");
                self.unread_hints.push(log.segment);
                return Ok(());
            }
        };
        if header.first.get() != log.first || header.last.get() < log.sequence {
            return Ok(());
        }
        if header.bytes.get() > len {
            // It was synced before it was described.
            return Err(Error::damaged(name, len, NOT_AS_WRITTEN));
        }
        let (segment, route, shard) = (log.segment, self.route, self.shard);
        let mut misplaced = None;
        hint.each(|line| {
            misplaced = check(route, shard, line.key, (name, line.at.into())).err();
            if misplaced.is_some() {
                return false;
            }
            match line.value_len {
                Some(value_len) => {
                    let place = Place { segment, at: line.at, value_len, end: line.end };
                    self.index.put(line.key, place);
                }
                None => self.index.delete(line.key, segment),
            }
            true
        });
        misplaced.map_or(Ok(()), Err)?;
        log.hint = hint;
        (log.sequence, log.chain) = (header.last.get(), header.chain.get());
        log.past = Past::from_bytes(&header.past);
        log.at = header.bytes.get();
        self.durable = self.durable.max(log.sequence);
        Ok(())
    }

    /// Takes the frames at the front of `bytes`, and sees that where they end nothing is damaged.
    fn replay(
        &mut self,
        log: &mut Log<S>,
        tail: &mut Tail,
        (bytes, name): (&[u8], &str),
        mut beside: Option<&mut Beside>,
    ) -> Result<()> {
        let seed = chain_start(&self.store.id, self.shard);
        let (mut at, mut told) = (0, log.at);
        while let Some(frame) = Frame::read(seed, &bytes[at..]) {
            let head = frame.header;
            let continues = head.sequence.get() == log.sequence + 1
                && head.chain.get() == log.chain
                && head.shard.get() == self.shard;
            let Some(contents) = frame.contents().filter(|_| continues) else { break };
            self.parts = Parts::of(head.epoch.get(), (log.segment, log.at), &contents.parts);
            (log.past, _) = contents.follow(log.past, head.epoch.get(), head.sequence.get());
            for record in &contents.records {
                let place = (name, log.at + record.at as u64);
                check(self.route, self.shard, record.change.key(), place)?;
                note(&mut self.index, log, record);
            }
            tail.frames.push((head.sequence.get(), log.at));
            self.durable = self.durable.max(head.durable.get());
            (log.sequence, log.chain) = (head.sequence.get(), head.checksum.get());
            at += head.len.get() as usize;
            log.at += u64::from(head.len.get());
            if log.at - told >= STEP {
                (self.told)(log.at - told);
                told = log.at;
            }
            if let Some(beside) = &mut beside {
                beside.look(log);
            }
        }
        (self.told)(log.at - told);
        // Frames begin at multiples of 8, in the file and so here.
        let rest = bytes.get(at..).unwrap_or_default();
        if was_more_durable(seed, bytes, at, self.shard, log.sequence)
            || self.durable > log.sequence
            || log_end(self.shard, (log.sequence, log.chain), log.at).is_damaged(rest)
        {
            return Err(Error::damaged(name, log.at, NOT_AS_WRITTEN));
        }
        Ok(())
    }
}

/// Does a key that was found at this place belong to the shard?
fn check(route: Option<Route>, shard: u32, key: &[u8], (file, offset): (&str, u64)) -> Result<()> {
    match route.and_then(|route| route.elsewhere(shard, key)) {
        Some(belongs) => Err(Error::Misplaced { file: file.to_owned(), offset, shard, belongs }),
        None => Ok(()),
    }
}

/// Writes again what may be in the page cache only, cuts off what is no frame, and syncs: after a
/// sync that failed a second one alone would prove nothing.
fn mend<S: Storage>(
    head: &LogHeader,
    log: &Log<S>,
    tail: &Tail,
    durable: u64,
) -> std::io::Result<()> {
    let doubt = tail.frames.iter().find(|(sequence, _)| *sequence > durable);
    let is_known = tail.known > DATA_AT && doubt.is_none() && tail.len == log.at;
    if is_known || planted::is(Fault::TailTrusted) {
        return Ok(());
    }
    if tail.len > log.at && !planted::is(Fault::RemainsLeft) {
        // Before it is cut off, and seen by nobody any more: behind the end of a log are zeros, also
        // where the next sync fails, and somebody goes on all the same.
        if clear(&*log.file, log.at, tail.len)? {
            log.file.sync()?;
        }
    }
    if let Some((_, from)) = doubt {
        let mut frames = vec![0; (log.at - from) as usize];
        log.file.read_at(*from, &mut frames)?;
        log.file.write_at(*from, &frames)?;
    }
    write_header(&*log.file, head)?;
    // The length, too: it is written only if it changes.
    log.file.set_len(log.at + 1)?;
    log.file.set_len(log.at)?;
    log.file.sync()
}

/// Fills a part of a file with zeros. It has this part already; but a file system that writes to new
/// places may have no room all the same: false, and what is there can only be cut off.
pub(super) fn clear(file: &impl Storage, mut from: u64, to: u64) -> std::io::Result<bool> {
    let zeros = vec![0; to.saturating_sub(from).min(STEP) as usize];
    while from < to {
        let part = (to - from).min(STEP) as usize;
        match file.write_at(from, &zeros[..part]) {
            Err(error) if has_no_room(&error) => return Ok(false),
            written => written?,
        }
        from += part as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
