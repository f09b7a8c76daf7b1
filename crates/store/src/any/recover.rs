//! What the files of a shard say: which segments there are, what their frames do, and where the log
//! ends.

use std::{collections::BTreeSet, sync::Arc};

use mainstay_storage::{Folder, Storage};

use super::{
    format::{
        ANY_FILE, AnyHeader, Frame, Hint, HintHeader, Kind, ListEntry, ListHeader, LogHeader, Past,
        Place, parse_name, read_list, was_more_durable, write_list,
    },
    frames::NOT_AS_WRITTEN,
    index::{Index, Segment},
    lines::Lines,
    parts::Parts,
    shard::{Log, hint_header, note},
};
use crate::{
    error::{Error, Result},
    format::{
        DATA_AT, IMPLAUSIBLE, NUMBERS_END, Plausible, STORE_FILE, chain_start, read_headers,
        write_header,
    },
    keyed,
    limits::SEGMENT_BYTES_MAX,
    planted::{self, Fault},
    recover::{is_blank, or_gone},
};

/// A shard as found.
pub(super) struct Found<F: Folder> {
    pub(super) index: Index<F::File>,
    pub(super) log: Log<F::File>,
    /// The last write known to be durable.
    pub(super) durable: u64,
    /// What the last frame has of other shards.
    pub(super) parts: Option<Parts>,
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

impl Plausible for LogHeader {
    fn is_plausible(&self) -> bool {
        (1..NUMBERS_END).contains(&self.first_sequence.get())
    }
}

/// The files that count, before their frames are read.
struct Files<F: Folder> {
    shard: u32,
    /// Oldest first.
    segments: Vec<(LogHeader, F::File)>,
    entries: Vec<ListEntry>,
    list: ListHeader,
    /// Which segments have one.
    hints: BTreeSet<u64>,
    leftovers: Vec<String>,
    next_number: u64,
    next_list: u64,
}

impl<F: Folder> Files<F> {
    fn of(folder: &F, store: &AnyHeader, shard: u32) -> Result<Self> {
        let (mut lists, mut segments) = (Vec::new(), Vec::new());
        let (mut leftovers, mut blank) = (Vec::new(), Vec::new());
        let (mut next_number, mut next_list, mut hints) = (1, 1, BTreeSet::new());
        for name in folder.names().map_err(Error::io("the directory"))? {
            let Some((_, number, kind)) = parse_name(&name).filter(|name| name.0 == shard) else {
                continue;
            };
            let file = folder.file(&name).map_err(Error::io(&*name))?;
            let ours = |id: [u8; 16], of: u32, named: u64| {
                let is_ours = id == store.id && of == shard && named == number;
                let what = "the file belongs to another store, shard or place";
                if is_ours { Ok(()) } else { Err(Error::damaged(&name, 0, what)) }
            };
            match kind {
                Kind::List => {
                    next_list = next_list.max(number + 1);
                    let head = read_headers::<ListHeader>(&file, &name)?.pop();
                    let entries = head.map(|head| read_list(&file, &head, &name)).transpose()?;
                    if let (Some(head), Some(Some(entries))) = (head, entries) {
                        ours(head.id, head.shard.get(), head.generation.get())?;
                        lists.push((head, entries));
                    } else {
                        leftovers.push(name);
                    }
                }
                Kind::Log => {
                    next_number = next_number.max(number + 1);
                    match read_headers::<LogHeader>(&file, &name)?.pop() {
                        Some(head) => {
                            ours(head.id, head.shard.get(), head.number.get())?;
                            segments.push((head, file));
                        }
                        None => blank.push((number, name, file)),
                    }
                }
                Kind::Hint => drop(hints.insert(number)),
            }
        }
        lists.sort_unstable_by_key(|(head, _)| head.generation.get());
        let Some((list, entries)) = lists.pop().filter(|(list, _)| list.is_plausible()) else {
            let what = "the list of segments is missing";
            return Err(Error::damaged(&Kind::List.name(shard, 1), 0, what));
        };
        let older = lists.iter().map(|(head, _)| Kind::List.name(shard, head.generation.get()));
        leftovers.extend(older);
        let is_listed = |number: u64| entries.iter().any(|entry| entry.number.get() == number);
        for (number, name, file) in blank {
            if is_listed(number) || (number > list.through.get() && !is_blank(&file, &name)?) {
                return Err(Error::damaged(&name, 0, "neither copy of the header is sound"));
            }
            leftovers.push(name);
        }
        segments.retain(|(head, _)| {
            let number = head.number.get();
            let counts = number > list.through.get() || is_listed(number);
            if !counts {
                leftovers.push(Kind::Log.name(shard, number));
            }
            counts
        });
        segments.sort_unstable_by_key(|(head, _)| head.number.get());
        Ok(Self { shard, segments, entries, list, hints, leftovers, next_number, next_list })
    }

    /// Every listed segment is there, and behind the list each continues the one before it.
    fn check(&self, store: &AnyHeader) -> Result<()> {
        let name = |number| Kind::Log.name(self.shard, number);
        for entry in &self.entries {
            let number = entry.number.get();
            if !self.segments.iter().any(|(head, _)| head.number.get() == number) {
                return Err(Error::damaged(&name(number), 0, "the segment is missing"));
            }
        }
        for (head, _) in &self.segments {
            if !head.is_plausible() {
                let number = head.number.get();
                return Err(Error::damaged(&name(number), 0, IMPLAUSIBLE));
            }
        }
        // A segment is there for good before it has a hint. A hint may outlast its segment, which goes
        // only when there is a later one.
        let last = self.segments.last().map(|(head, _)| head.number.get());
        if let Some(number) = self.hints.last().copied().filter(|number| Some(*number) > last) {
            return Err(Error::damaged(&name(number), 0, "the segment is missing"));
        }
        let through = self.list.through.get();
        let Some((head, _)) = self.segments.iter().find(|one| one.0.number.get() > through) else {
            let what = "the end of the log is missing";
            return Err(Error::damaged(&name(through), 0, what));
        };
        let (sequence, chain) = (self.list.sequence.get(), self.list.chain.get());
        let follows = head.first_sequence.get() == sequence + 1 && head.chain.get() == chain;
        let starts = sequence > 0 || chain == chain_start(&store.id, self.shard);
        if !follows || !starts {
            let what = "the segment does not continue the one before";
            return Err(Error::damaged(&name(head.number.get()), 0, what));
        }
        Ok(())
    }

    /// Where a full segment has to end: as the list says, or the one behind it.
    fn end_of(&self, at: usize) -> Option<(u64, u32)> {
        let number = self.segments[at].0.number.get();
        if let Some(entry) = self.entries.iter().find(|entry| entry.number.get() == number) {
            return Some((entry.last.get(), entry.chain.get()));
        }
        let (next, _) = self.segments.get(at + 1)?;
        Some((next.first_sequence.get() - 1, next.chain.get()))
    }
}

/// The newest sound list of a shard, if there is one.
pub(super) fn newest_list(
    folder: &impl Folder,
    store: &AnyHeader,
    shard: u32,
) -> Result<Option<(ListHeader, Vec<ListEntry>)>> {
    let mut newest: Option<(ListHeader, Vec<ListEntry>)> = None;
    for name in folder.names().map_err(Error::io("the directory"))? {
        let Some((_, number, Kind::List)) = parse_name(&name).filter(|of| of.0 == shard) else {
            continue;
        };
        if newest.as_ref().is_some_and(|(known, _)| known.generation.get() > number) {
            continue;
        }
        let file = match folder.file(&name).map_err(Error::io(&*name)) {
            Err(Error::Damaged { .. }) => continue,
            file => file?,
        };
        let Some(head) = read_headers::<ListHeader>(&file, &name)?.pop() else { continue };
        let is_it = head.id == store.id
            && head.shard.get() == shard
            && head.generation.get() == number
            && head.is_plausible();
        if let (true, Some(entries)) = (is_it, read_list(&file, &head, &name)?) {
            newest = Some((head, entries));
        }
    }
    Ok(newest)
}

impl Plausible for ListHeader {
    fn is_plausible(&self) -> bool {
        [self.sequence, self.generation, self.through].iter().all(|it| it.get() < NUMBERS_END)
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
}

/// Reads a shard. `told` is told how many bytes each segment has.
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
    let (hints, believes) = (files.hints.clone(), how != How::Look);
    let index = Index::new(Lines::new(how == How::Open { ordered: true }));
    let mut reading = Reading { store, shard, believes, hints, index, durable: 0, parts: None };
    let mut full = Vec::new();
    for ((head, file), end) in std::mem::take(&mut files.segments).into_iter().zip(ends) {
        let number = head.number.get();
        let name = Kind::Log.name(shard, number);
        let (mut log, tail) = reading.segment(folder, &head, file, &name)?;
        told(log.at);
        let Some((sequence, chain)) = end else {
            // It is the last one.
            log.sealed = sealed;
            log.full = full;
            (log.next_number, log.next_list) = (files.next_number, files.next_list);
            let Reading { index, mut durable, parts, .. } = reading;
            if is_opening {
                mend(&head, &log, &tail, durable).map_err(Error::io(name))?;
                log.next_list = drop_leftovers(folder, shard, files, &index)?;
                durable = log.sequence;
            }
            return Ok(Found { index, log, durable, parts });
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

struct Reading<'a, S> {
    store: &'a AnyHeader,
    shard: u32,
    /// Hints are believed.
    believes: bool,
    /// Which segments have one.
    hints: BTreeSet<u64>,
    index: Index<S>,
    /// The last write that something says was durable.
    durable: u64,
    /// What the last frame that was read has of other shards.
    parts: Option<Parts>,
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
        let mut tail = Tail { known: log.at, frames: Vec::new(), len };
        let mut bytes = vec![0; len.saturating_sub(log.at) as usize];
        if !bytes.is_empty() {
            file.read_at(log.at, &mut bytes).map_err(Error::io(name))?;
            self.replay(&mut log, &mut tail, &bytes, name)?;
        }
        if has_hint && !self.believes {
            // It was synced before it was described.
            let hint = read_hint(folder, self.store, self.shard, number)?;
            let known = hint.filter(|(_, header)| header.first.get() == log.first);
            if known.is_some_and(|(_, header)| header.last.get() > log.sequence) {
                return Err(Error::damaged(name, log.at, NOT_AS_WRITTEN));
            }
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
        let Some((hint, header)) = read_hint(folder, self.store, self.shard, log.segment)? else {
            return Ok(());
        };
        if header.first.get() != log.first || header.last.get() < log.sequence {
            return Ok(());
        }
        if header.bytes.get() > len {
            // It was synced before it was described.
            return Err(Error::damaged(name, len, NOT_AS_WRITTEN));
        }
        let segment = log.segment;
        hint.each(|line| {
            match line.value_len {
                Some(value_len) => {
                    let place = Place { segment, at: line.at, value_len, end: line.end };
                    self.index.put(line.key, place);
                }
                None => self.index.delete(line.key, segment),
            }
            true
        });
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
        bytes: &[u8],
        name: &str,
    ) -> Result<()> {
        let seed = chain_start(&self.store.id, self.shard);
        let mut at = 0;
        while let Some(frame) = Frame::read(seed, &bytes[at..]) {
            let head = frame.header;
            let continues = head.sequence.get() == log.sequence + 1
                && head.chain.get() == log.chain
                && head.shard.get() == self.shard;
            let Some(contents) = frame.contents().filter(|_| continues) else { break };
            self.parts = Parts::of(head.epoch.get(), (log.segment, log.at), &contents.parts);
            (log.past, _) = contents.follow(log.past, head.epoch.get(), head.sequence.get());
            for record in &contents.records {
                note(&mut self.index, log, record);
            }
            tail.frames.push((head.sequence.get(), log.at));
            self.durable = self.durable.max(head.durable.get());
            (log.sequence, log.chain) = (head.sequence.get(), head.checksum.get());
            at += head.len.get() as usize;
            log.at += u64::from(head.len.get());
        }
        // Frames begin at multiples of 8, in the file and so here.
        if was_more_durable(seed, bytes, at, self.shard, log.sequence)
            || self.durable > log.sequence
        {
            return Err(Error::damaged(name, log.at, NOT_AS_WRITTEN));
        }
        Ok(())
    }
}

/// The hint of a segment, if there is one that is sound.
pub(super) fn hint_of<F: Folder>(
    folder: &F,
    store: &AnyHeader,
    shard: u32,
    number: u64,
) -> Result<Option<(Hint, HintHeader)>> {
    let name = Kind::Hint.name(shard, number);
    if !folder.names().map_err(Error::io("the directory"))?.contains(&name) {
        return Ok(None);
    }
    read_hint(folder, store, shard, number)
}

/// The same of one that is there.
pub(super) fn read_hint<F: Folder>(
    folder: &F,
    store: &AnyHeader,
    shard: u32,
    number: u64,
) -> Result<Option<(Hint, HintHeader)>> {
    let name = Kind::Hint.name(shard, number);
    let file = match folder.file(&name).map_err(Error::io(&*name)) {
        // It says nothing that the segment does not.
        Err(Error::Damaged { .. }) => return Ok(None),
        file => file?,
    };
    let Some(header) = read_headers::<HintHeader>(&file, &name)?.pop() else { return Ok(None) };
    let is_it = header.id == store.id
        && header.shard.get() == shard
        && header.number.get() == number
        && header.last.get() < NUMBERS_END
        && (DATA_AT..=SEGMENT_BYTES_MAX).contains(&header.bytes.get());
    if !is_it {
        return Ok(None);
    }
    Ok(Hint::read(&file, &header, &name)?.map(|hint| (hint, header)))
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

/// Removes what does not count, once what says so is durable: in a new list, since the one that
/// counts may be in the page cache only, and must stay if it cannot be written again. The number of
/// the next list.
fn drop_leftovers<F: Folder>(
    folder: &F,
    shard: u32,
    files: Files<F>,
    index: &Index<F::File>,
) -> Result<u64> {
    let Files { mut list, entries, hints, mut leftovers, next_list, .. } = files;
    let without = hints.into_iter().filter(|number| !index.segments.contains_key(number));
    leftovers.extend(without.map(|number| Kind::Hint.name(shard, number)));
    if leftovers.is_empty() {
        return Ok(next_list);
    }
    leftovers.push(Kind::List.name(shard, list.generation.get()));
    list.generation = next_list.into();
    let name = Kind::List.name(shard, next_list);
    let again = || {
        write_list(&folder.file(&name)?, list, &entries)?;
        folder.sync_names()
    };
    again().map_err(Error::io(&*name))?;
    for name in leftovers {
        folder.remove(&name).map_err(Error::io(name))?;
    }
    Ok(next_list + 1)
}
