//! What is sound of a shard that cannot be opened.
//!
//! The segments are read in their order, and each is read on behind what is damaged, up to the next
//! frame that is sound. What was in between is known exactly where the segment has a hint: which keys
//! were put or deleted there. A record of them is taken if its own checksum is right; where it is not,
//! the key is lost, and what it had before is not shown in its place. Without a hint nobody knows which
//! keys these were: then every record that is older is in doubt, and counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mainstay_storage::{Folder, Storage};

use super::LogSalvaged;
use crate::{
    any::{
        format::{
            AnyHeader, Frame, Hint, HintHeader, Kind, ListEntry, ListHeader, LogHeader, Record,
            change_at, log_end, next_sound, parse_name, sound_changes,
        },
        frames::NOT_AS_WRITTEN,
        index::{Index, Segment},
        lines::Lines,
        parts::Parts,
        recover::{Hinted, LEN_MAX, UNREAD_HINT, newest_list, read_hint},
        shard::{Log, note},
        survey::LogDamage,
    },
    error::{Error, Result},
    format::{DATA_AT, NUMBERS_END, chain_start, read_headers},
    pages::{UNREADABLE, read_pages},
    planted::{self, Fault},
    shard::Change,
};

/// What was found of a shard.
pub(super) struct Rest<S> {
    pub(super) index: Index<S>,
    /// The last write that was found, or is known to have been.
    pub(super) sequence: u64,
    pub(super) parts: Option<Parts>,
    /// Keys whose values are lost.
    pub(super) lost: BTreeSet<Box<[u8]>>,
    /// Records before this place may be older than what is lost.
    doubt: Option<(u64, u64)>,
}

impl<S> Rest<S> {
    pub(super) fn of(index: Index<S>, sequence: u64, parts: Option<Parts>) -> Self {
        Self { index, sequence, parts, lost: BTreeSet::new(), doubt: None }
    }

    /// How many records may be older than something that is lost.
    pub(super) fn doubtful(&self) -> u64 {
        let Some(doubt) = self.doubt else { return 0 };
        let old = self.index.lines.iter().filter(|(_, at)| (at.segment, at.at.into()) < doubt);
        old.count() as u64
    }

    fn take(&mut self, log: &mut Log<S>, record: &Record<'_>) {
        note(&mut self.index, log, record);
        self.lost.remove(record.change.key());
    }

    /// What a key had is not any more what it had in the end, which is lost.
    fn lose(&mut self, key: &[u8], segment: u64) {
        if !planted::is(Fault::OlderShown) {
            self.index.delete(key, segment);
        }
        self.lost.insert(key.into());
    }
}

/// What there is of a segment.
struct Piece<'a, S> {
    number: u64,
    file: Option<S>,
    head: Option<LogHeader>,
    hint: Option<(Hint, HintHeader)>,
    listed: Option<&'a ListEntry>,
    /// The write before it, and its own last one, if something says so.
    before: Option<u64>,
    last: Option<u64>,
}

impl LogSalvaged {
    /// All that is sound of a shard, in the order in which it was written.
    pub(super) fn damaged_shard<G: Folder>(
        &mut self,
        from: &G,
        store: &AnyHeader,
        shard: u32,
    ) -> Result<Rest<G::File>> {
        let list = newest_list(from, store, shard)?;
        let mut rest = Rest::of(Index::new(Lines::new(false)), 0, None);
        let mut pieces = self.pieces(from, store, shard, list.as_ref())?;
        let firsts: Vec<_> = pieces.iter().map(|piece| piece.before).collect();
        for (at, piece) in pieces.iter_mut().enumerate() {
            // Before the next one was begun all of it was written; what compaction moved away leaves
            // gaps between those that are listed.
            let through = list.as_ref().map_or(u64::MAX, |(head, _)| head.through.get());
            let next = firsts.get(at + 1).copied().flatten().filter(|_| piece.number > through);
            piece.last = piece.last.max(next);
        }
        let through = list.as_ref().map(|(head, _)| (head.through.get(), head.sequence.get()));
        let last = pieces.last().map(|piece| piece.number);
        for mut piece in pieces {
            self.gap(shard, &piece, through, &mut rest)?;
            let is_last = Some(piece.number) == last;
            if let (true, Some((head, _))) = (is_last, &list) {
                piece.last = piece.last.max(Some(head.vouched.get()).filter(|it| *it > 0));
            }
            self.piece(store, shard, piece, is_last, &mut rest)?;
        }
        let (through, sequence) = through.unwrap_or_default();
        if last.is_none_or(|last| last <= through) {
            let name = Kind::Log.name(shard, through + 1);
            self.note(Error::damaged(&name, 0, "the end of the log is missing"))?;
            self.writes_lost += sequence.saturating_sub(rest.sequence);
            self.doubt(&mut rest, (u64::MAX, 0));
        }
        Ok(rest)
    }

    /// All segments that may count: those of the list, and all behind it; all that are there if
    /// there is no list.
    fn pieces<'a, G: Folder>(
        &mut self,
        from: &G,
        store: &AnyHeader,
        shard: u32,
        list: Option<&'a (ListHeader, Vec<ListEntry>)>,
    ) -> Result<Vec<Piece<'a, G::File>>> {
        let (mut numbers, mut logs, mut hints) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for name in from.names().map_err(Error::io("the directory"))? {
            match parse_name(&name) {
                Some((of, number, Kind::Log)) if of == shard => drop(logs.insert(number)),
                Some((of, number, Kind::Hint)) if of == shard => drop(hints.insert(number)),
                _ => {}
            }
        }
        let entries = list.map_or(&[][..], |(_, entries)| entries);
        let listed: BTreeMap<u64, &ListEntry> =
            entries.iter().map(|entry| (entry.number.get(), entry)).collect();
        let through = list.map(|(head, _)| head.through.get());
        let counts = |number: &u64| {
            through.is_none_or(|through| *number > through) || listed.contains_key(number)
        };
        numbers.extend(listed.keys());
        numbers.extend(logs.iter().chain(&hints).copied().filter(counts));
        let mut pieces = Vec::new();
        for number in numbers {
            let mut piece = Piece {
                number,
                file: None,
                head: None,
                hint: None,
                listed: listed.get(&number).copied(),
                before: None,
                last: None,
            };
            if logs.contains(&number) {
                self.head(from, store, shard, &mut piece)?;
            } else {
                let name = Kind::Log.name(shard, number);
                self.note(Error::damaged(&name, 0, "the segment is missing"))?;
            }
            if hints.contains(&number) {
                piece.hint = match read_hint(from, store, shard, number)? {
                    Hinted::Sound(hint, header) => Some((hint, header)),
                    Hinted::NotSound => None,
                    Hinted::Unread(_) => {
                        let (file, what) = (Kind::Hint.name(shard, number), UNREAD_HINT);
                        self.add(LogDamage { file, offset: 0, what, has_copy: true });
                        None
                    }
                };
            }
            let first = |first: u64| (1..NUMBERS_END).contains(&first).then(|| first - 1);
            let of_head = piece.head.and_then(|head| first(head.first_sequence.get()));
            let of_hint = piece.hint.as_ref().and_then(|(_, head)| first(head.first.get()));
            let of_list = piece.listed.and_then(|entry| first(entry.first.get()));
            piece.before = of_list.or(of_head).or(of_hint);
            piece.last = piece.listed.map(|entry| entry.last.get()).filter(|it| *it < NUMBERS_END);
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// Opens a segment, and reads its header.
    fn head<G: Folder>(
        &mut self,
        from: &G,
        store: &AnyHeader,
        shard: u32,
        piece: &mut Piece<'_, G::File>,
    ) -> Result<()> {
        let name = Kind::Log.name(shard, piece.number);
        let file = match from.file(&name).map_err(Error::io(&*name)) {
            Err(error) => return self.note(error),
            Ok(file) => file,
        };
        match read_headers::<LogHeader>(&file, &name)?.pop() {
            Some(head) => {
                let is_ours = head.id == store.id
                    && head.shard.get() == shard
                    && head.number.get() == piece.number;
                if !is_ours {
                    let what = "the file belongs to another store, shard or place";
                    return self.note(Error::damaged(&name, 0, what));
                }
                piece.head = Some(head);
            }
            // One that was made and not begun has nothing else.
            None if file.len().map_err(Error::io(&*name))? > DATA_AT => {
                let what = "neither copy of the header is sound";
                self.note(Error::damaged(&name, 0, what))?;
            }
            None => {}
        }
        piece.file = Some(file);
        Ok(())
    }

    /// Looks whether a segment goes on where the one before it has ended.
    fn gap<S>(
        &mut self,
        shard: u32,
        piece: &Piece<'_, S>,
        list: Option<(u64, u64)>,
        rest: &mut Rest<S>,
    ) -> Result<()> {
        let may_have_gap = piece.listed.is_some();
        // The first one behind the list goes on where the list ends, whatever is left of that.
        let known = list.filter(|(through, _)| piece.number > *through).map(|it| it.1);
        rest.sequence = rest.sequence.max(known.unwrap_or(0));
        let Some(before) = piece.before else { return Ok(()) };
        if before > rest.sequence && !may_have_gap {
            let what = "the segment does not continue the one before";
            self.note(Error::damaged(&Kind::Log.name(shard, piece.number), 0, what))?;
            self.writes_lost += before - rest.sequence;
            self.doubt(rest, (piece.number, 0));
        }
        rest.sequence = rest.sequence.max(before);
        Ok(())
    }

    /// Takes what is sound of a segment.
    fn piece<S: Storage>(
        &mut self,
        store: &AnyHeader,
        shard: u32,
        piece: Piece<'_, S>,
        is_last: bool,
        rest: &mut Rest<S>,
    ) -> Result<()> {
        let Piece { number, file, head, hint, last, .. } = piece;
        let head = head.filter(|head| head.first_sequence.get() == rest.sequence + 1);
        let mut chain = head.map(|head| head.chain.get());
        let (name, seed) = (Kind::Log.name(shard, number), chain_start(&store.id, shard));
        let bytes = match &file {
            Some(file) => self.read(file, &name)?,
            None => Vec::new(),
        };
        // Records of a segment that is missing are in no file that could be read.
        let mut log = file.map(|file| {
            let file = Arc::new(file);
            rest.index.segments.insert(number, Segment::new(Arc::clone(&file), 0, None));
            Log::new(file, number)
        });
        let hinted = hint.as_ref().map_or(0, |(_, head)| (head.bytes.get() - DATA_AT) as usize);
        let mut known = hint.as_ref().map_or(0, |(_, head)| head.last.get()).max(last.unwrap_or(0));
        let (mut at, mut reached) = (0, 0);
        loop {
            let sound = Frame::read(seed, bytes.get(at..).unwrap_or(&[])).filter(|frame| {
                let head = &frame.header;
                head.shard.get() == shard && head.sequence.get() == rest.sequence + 1
            });
            let contents = sound.and_then(|frame| Some((frame.header, frame.contents()?)));
            if let (Some((head, contents)), Some(log)) = (contents, &mut log) {
                log.at = DATA_AT + at as u64;
                contents.records.iter().for_each(|record| rest.take(log, record));
                rest.parts = Parts::of(head.epoch.get(), (number, log.at), &contents.parts);
                (rest.sequence, chain) = (head.sequence.get(), Some(head.checksum.get()));
                // More than there can be was never written.
                let durable = head.durable.get();
                known = known.max(if durable < NUMBERS_END { durable } else { 0 });
                at += head.len.get() as usize;
                continue;
            }
            let next = next_sound(seed, &bytes, at, (shard, rest.sequence));
            let is_damaged = chain.is_some_and(|chain| {
                let end = log_end(shard, (rest.sequence, chain), DATA_AT + at as u64);
                end.is_damaged(bytes.get(at..).unwrap_or_default())
            });
            if log.is_none() {
                // The segment is not there, which is told.
            } else if next.is_none() && known <= rest.sequence && !is_damaged {
                let is_zeros = bytes.get(at..).unwrap_or(&[]).iter().all(|it| *it == 0);
                if is_last || is_zeros || last.is_some() {
                    // A write that was not finished: it never counted.
                    return Ok(());
                }
            } else {
                self.note(Error::damaged(&name, DATA_AT + at as u64, NOT_AS_WRITTEN))?;
            }
            let end = next.map_or(bytes.len().max(hinted), |(next, _)| next);
            rest.parts = None;
            // As far as the hint knows.
            let middle = end.min(hinted).max(at);
            if let Some((hint, head)) = hint.as_ref().filter(|_| at < middle) {
                self.by_hint((hint, number), (&bytes, at..middle), log.as_mut(), rest);
                reached = reached.max(head.last.get());
            }
            let behind = &bytes[middle.min(bytes.len())..end.min(bytes.len())];
            let (records, is_all) = sound_changes(behind);
            if let Some(log) = &mut log {
                log.at = DATA_AT + middle as u64;
                records.iter().for_each(|record| rest.take(log, record));
                self.saved_from_them += records.len() as u64;
            }
            reached = reached.max(rest.sequence) + u64::from(!behind.is_empty());
            let is_known = match next {
                Some(_) => is_all && at < end,
                // A log may have gone on behind the last thing that is known of it.
                None => is_all && reached >= known && !(log.is_none() && is_last),
            };
            if !is_known {
                self.doubt(rest, (number, DATA_AT + end as u64));
            }
            let before = match next {
                Some((_, head)) => head.sequence.get() - 1,
                // At least one, or up to where something says that it was durable.
                None => known.max(rest.sequence + 1),
            };
            self.writes_lost += before.saturating_sub(rest.sequence);
            rest.sequence = before.max(rest.sequence);
            if next.is_none() {
                return Ok(());
            }
            (at, chain) = (end, None);
        }
    }

    /// Writes of nobody knows which keys are lost before a place.
    fn doubt<S>(&mut self, rest: &mut Rest<S>, place: (u64, u64)) {
        self.unknown += 1;
        if !planted::is(Fault::OlderShown) {
            rest.doubt = Some(place);
        }
    }

    /// Takes of a part of a segment that is not as it was written what its hint says, and is sound.
    fn by_hint<S>(
        &mut self,
        (hint, number): (&Hint, u64),
        (bytes, part): (&[u8], std::ops::Range<usize>),
        mut log: Option<&mut Log<S>>,
        rest: &mut Rest<S>,
    ) {
        hint.each(|line| {
            let Some(at) = (line.at as usize).checked_sub(DATA_AT as usize) else { return true };
            if !part.contains(&at) {
                return true;
            }
            let found = change_at(bytes.get(at..).unwrap_or(&[])).filter(|(change, end)| {
                change.key() == line.key
                    && *end == line.end
                    && matches!(change, Change::Put(..)) == line.value_len.is_some()
            });
            match (found, &mut log, line.value_len) {
                (Some((change, end)), Some(log), _) => {
                    log.at = DATA_AT;
                    rest.take(log, &Record { change, end, at });
                    self.saved_from_them += 1;
                }
                // That it was deleted is all there is to know.
                (_, _, None) => {
                    rest.index.delete(line.key, number);
                    rest.lost.remove(line.key);
                    self.saved_from_them += 1;
                }
                _ => rest.lose(line.key, number),
            }
            true
        });
    }

    /// All frames of a segment. What the disk cannot read is told, and is no frame.
    fn read<S: Storage>(&mut self, file: &S, name: &str) -> Result<Vec<u8>> {
        let len = file.len().map_err(Error::io(name))?.min(LEN_MAX);
        let mut unread = Vec::new();
        let len = len.saturating_sub(DATA_AT) as usize;
        let bytes = read_pages(file, DATA_AT, len, |at| unread.push(at));
        unread.into_iter().try_for_each(|at| self.note(Error::damaged(name, at, UNREADABLE)))?;
        Ok(bytes)
    }
}
