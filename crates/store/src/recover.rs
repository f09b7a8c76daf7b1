//! What the files of a shard say: reads and checks, and changes nothing.

use mainstay_storage::{Folder, Storage};

use crate::{
    any::ANY_FILE,
    error::{Error, Result},
    format::{
        DATA_AT, FRAME_LEN, IMPLAUSIBLE, ImageHeader, Plausible, STORE_FILE, SegmentHeader,
        StoreHeader, chain_start, image_name, parse_name, read_headers, segment_name,
    },
    history::{History, Position},
    home::{InFolder, index_reserved, reserved, shape},
    image,
    limits::RECORDS_MAX,
    live::{Control, Place, ring_bytes},
    log::{Frame, was_more_durable},
    memory::Memory,
    parts::Parts,
    table::{Table, Writing},
    unwritten::Unwritten,
};

/// A shard as its files say.
pub(crate) struct Loaded {
    pub(crate) table: Table,
    pub(crate) image: Option<ImageHeader>,
    /// The segments in use, oldest first; never empty.
    pub(crate) segments: Vec<SegmentHeader>,
    /// The sound bytes of the last segment, headers included; nothing if they were not read, which
    /// is so only if the shard is safe.
    pub(crate) tail: Vec<u8>,
    /// Where they end.
    pub(crate) end: u64,
    /// Of the last frame.
    pub(crate) sequence: u64,
    pub(crate) chain: u32,
    pub(crate) history: History,
    /// What the last frame has of other shards.
    pub(crate) parts: Option<Parts>,
    /// Writes after this one follow each other in the history.
    pub(crate) since: u64,
    /// No file has this number or a higher one.
    pub(crate) next_number: u64,
    /// Files that nothing needs: unfinished, or replaced.
    pub(crate) leftovers: Vec<String>,
    /// The last segment is known to be on the disk as it was read, and to end there.
    pub(crate) is_safe: bool,
    /// The records are where the last process left them.
    pub(crate) is_adopted: bool,
}

/// The newest sound header of the store.
pub(crate) fn store_header(folder: &impl Folder) -> Result<StoreHeader> {
    let names = folder.names().map_err(Error::io("the directory"))?;
    if names.iter().any(|name| name == ANY_FILE) {
        return Err(Error::OtherKind { is: "keys and values of any size" });
    }
    if !names.iter().any(|name| name == STORE_FILE) {
        return Err(Error::NotAStore);
    }
    newest_header(&folder.file(STORE_FILE).map_err(Error::io(STORE_FILE))?)
}

/// The newest sound header in the file of a store.
pub(crate) fn newest_header(file: &impl Storage) -> Result<StoreHeader> {
    let sound = read_headers::<StoreHeader>(file, STORE_FILE)?;
    match sound.into_iter().max_by_key(|header| header.generation.get()) {
        Some(header) => Ok(header),
        // A creation that did not come to its end leaves it empty, or without a sound byte.
        None if file.len().map_err(Error::io(STORE_FILE))? == 0 => Err(Error::NotAStore),
        None => Err(Error::damaged(STORE_FILE, 0, "neither copy of the header is sound")),
    }
}

/// Reads a shard into a table that `make` makes for about so many records.
pub(crate) fn load<F: Folder>(
    folder: &F,
    store: &StoreHeader,
    shard: u32,
    unwritten: Option<Unwritten>,
    make: impl FnOnce(u64) -> Result<Table>,
) -> Result<Loaded> {
    let mut found = Found::list(folder, store, shard)?;
    let image = found.newest_image();
    if let Some(header) = &image {
        // Before there is room for all the records that it says it has.
        image::check_len(folder, header)?;
    }
    let table = make(image.map_or(0, |image| image.records.get()))?;
    let mut writing = table.writing()?;
    if let Some(header) = &image {
        let file = folder.file(&image_name(shard, header.number.get()));
        image::load(&file.map_err(Error::io("an image"))?, header, &table, &mut writing)?;
    }
    let from = image.map_or(0, |image| image.from.get());
    found.drop_old_segments(from)?;
    let mut at = Cursor::new(store, shard, from, found.oldest());
    at.unwritten = unwritten;
    let tail = at.replay_all(folder, &found.segments, Vec::new(), &mut writing)?;
    let (through, segments) = (image.map_or(0, |image| image.through.get()), &found.segments);
    if at.sequence < through {
        let name = segments.last().map_or(0, |segment| segment.number.get());
        let what = "the log ends before what the image has seen of it";
        return Err(Error::damaged(&segment_name(shard, name), tail.len() as u64, what));
    }
    drop(writing);
    let end = tail.len() as u64;
    Ok(found.loaded(table, image, (tail, end), at, (false, false)))
}

/// Reads a shard into memory of this process alone, with the writes that are in the ring of the
/// memory that a dead process left.
pub(crate) fn load_apart<F: Folder>(folder: &F, store: &StoreHeader, shard: u32) -> Result<Loaded> {
    let unwritten = Unwritten::find(folder, store, shard)?;
    load(folder, store, shard, unwritten, |records| {
        let memory = Memory::private(reserved(store))?;
        let memory = (memory, Memory::private(index_reserved(store))?, false);
        let ring = ring_bytes(store.segment_bytes.get());
        Table::new(shard, shape(store), memory, ring, records)
    })
}

/// Goes on with the memory that the last process left, if it is to be believed. After a close only
/// the last frame is read, to see that the log is the one the memory is about: the checksum of a
/// frame is one of all before it. Otherwise the last segment is.
pub(crate) fn adopt<F: Folder>(
    folder: &F,
    store: &StoreHeader,
    shard: u32,
) -> Result<Option<Loaded>> {
    let Some(table) = (InFolder { folder, shard }).left(store)? else { return Ok(None) };
    let control = table.control()?;
    let Some(place) = control.committed() else { return Ok(None) };
    let mut found = Found::list(folder, store, shard)?;
    let image = found.newest_image();
    found.drop_old_segments(image.map_or(0, |image| image.from.get()))?;
    let since = found.oldest().max(control.since());
    let mut at = Cursor::new(store, shard, control.applied(), since);
    if at.is_at(folder, &found.segments, &control, place)? {
        return Ok(Some(found.loaded(table, image, (Vec::new(), place.at), at, (true, true))));
    }
    let mut writing = table.writing()?;
    let is_in_it = |segment: &SegmentHeader| segment.number.get() == place.segment;
    let (later, tail, is_clean) = match found.segments.iter().position(is_in_it) {
        Some(last) => {
            let segment = &found.segments[last];
            let left = at.replay_left(folder, segment, &table, place, &mut writing)?;
            let Some((tail, is_clean)) = left else { return Ok(None) };
            (&found.segments[last + 1..], tail, is_clean)
        }
        // An image has all up to there, and the next segment is begun.
        None => {
            let continues = found.segments.first().is_some_and(|first| {
                first.first_sequence.get() == place.sequence + 1
                    && first.chain.get() == place.chain
                    && first.number.get() > place.segment
            });
            if !continues || control.applied() != place.sequence {
                return Ok(None);
            }
            (&found.segments[..], Vec::new(), true)
        }
    };
    let is_last = later.is_empty();
    let tail = at.replay_all(folder, later, tail, &mut writing)?;
    if at.sequence < image.map_or(0, |image| image.through.get()) {
        return Ok(None);
    }
    // Whoever notes something says so before it counts, and may have died between.
    at.since = at.since.min(at.sequence);
    let is_safe = is_clean && is_last && control.durable() == at.sequence;
    drop(writing);
    let end = tail.len() as u64;
    Ok(Some(found.loaded(table, image, (tail, end), at, (true, is_safe))))
}

/// The files of a shard that are sound so far.
struct Found {
    shard: u32,
    images: Vec<ImageHeader>,
    segments: Vec<SegmentHeader>,
    leftovers: Vec<String>,
    next_number: u64,
}

impl Found {
    /// The others are leftovers.
    fn newest_image(&mut self) -> Option<ImageHeader> {
        let newest = self.images.pop();
        let old = self.images.drain(..);
        self.leftovers.extend(old.map(|image| image_name(self.shard, image.number.get())));
        newest
    }

    /// Segments that an image, which has all up to `from`, has made superfluous are leftovers.
    fn drop_old_segments(&mut self, from: u64) -> Result<()> {
        let shard = self.shard;
        let covers = |segment: &SegmentHeader| segment.first_sequence.get() <= from + 1;
        let Some(first) = self.segments.iter().rposition(covers) else {
            let number = self.segments.first().map_or(0, |head| head.number.get());
            let what = "the log before this segment is missing";
            return Err(Error::damaged(&segment_name(shard, number), 0, what));
        };
        let old = self.segments.drain(..first);
        self.leftovers.extend(old.map(|segment| segment_name(shard, segment.number.get())));
        Ok(())
    }

    /// The first write that the log has is the one after this.
    fn oldest(&self) -> u64 {
        self.segments.first().map_or(0, |segment| segment.first_sequence.get().saturating_sub(1))
    }

    fn loaded(
        self,
        table: Table,
        image: Option<ImageHeader>,
        (tail, end): (Vec<u8>, u64),
        at: Cursor,
        (is_adopted, is_safe): (bool, bool),
    ) -> Loaded {
        let Self { segments, leftovers, next_number, .. } = self;
        let Cursor { sequence, chain, history, parts, since, .. } = at;
        Loaded {
            table,
            image,
            segments,
            tail,
            end,
            sequence,
            chain,
            history,
            parts,
            since,
            next_number,
            leftovers,
            is_safe,
            is_adopted,
        }
    }

    fn list<F: Folder>(folder: &F, store: &StoreHeader, shard: u32) -> Result<Self> {
        let (images, segments, leftovers) = (Vec::new(), Vec::new(), Vec::new());
        let mut found = Self { shard, images, segments, leftovers, next_number: 1 };
        for name in folder.names().map_err(Error::io("the directory"))? {
            let Some((_, number, is_image)) = parse_name(&name).filter(|name| name.0 == shard)
            else {
                continue;
            };
            found.next_number = found.next_number.max(number.saturating_add(1));
            let file = folder.file(&name).map_err(Error::io(&*name))?;
            let ours = |id: [u8; 16], of: u32, named: u64| {
                let is_ours = id == store.id && of == shard && named == number;
                let what = "the file belongs to another store, shard or place";
                if is_ours { Ok(()) } else { Err(Error::damaged(&name, 0, what)) }
            };
            if is_image {
                match read_headers::<ImageHeader>(&file, &name)?.pop() {
                    Some(head) => {
                        ours(head.id, head.shard.get(), head.number.get())?;
                        check(&head, &name)?;
                        found.images.push(head);
                    }
                    None => found.leftovers.push(name),
                }
                continue;
            }
            match read_headers::<SegmentHeader>(&file, &name)?.pop() {
                Some(head) => {
                    ours(head.id, head.shard.get(), head.number.get())?;
                    check(&head, &name)?;
                    if head.bytes != store.segment_bytes {
                        let what = "the segment is longer or shorter than those of this store";
                        return Err(Error::damaged(&name, 64, what));
                    }
                    found.segments.push(head);
                }
                None if is_blank(&file, &name)? => found.leftovers.push(name),
                None => {
                    return Err(Error::damaged(&name, 0, "neither copy of the header is sound"));
                }
            }
        }
        found.images.sort_unstable_by_key(|head| head.number.get());
        found.segments.sort_unstable_by_key(|head| head.number.get());
        Ok(found)
    }
}

fn check(header: &impl Plausible, name: &str) -> Result<()> {
    if header.is_plausible() { Ok(()) } else { Err(Error::damaged(name, 0, IMPLAUSIBLE)) }
}

/// A segment that was never begun has nothing but zeros behind its headers.
fn is_blank(file: &impl Storage, name: &str) -> Result<bool> {
    let len = file.len().map_err(Error::io(name))?;
    let mut bytes = vec![0; 64 << 10];
    let mut at = DATA_AT;
    while at < len {
        let part = bytes.len().min((len - at) as usize);
        file.read_at(at, &mut bytes[..part]).map_err(Error::io(name))?;
        if bytes[..part].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += part as u64;
    }
    Ok(true)
}

/// All bytes of a segment.
fn whole(file: &impl Storage, name: &str, segment: &SegmentHeader) -> Result<Vec<u8>> {
    let len = file.len().map_err(Error::io(name))?;
    if len != segment.bytes.get() {
        return Err(Error::damaged(name, len, "the segment is not as long as its header says"));
    }
    let mut bytes = vec![0; len as usize];
    file.read_at(0, &mut bytes).map_err(Error::io(name))?;
    Ok(bytes)
}

struct Cursor {
    id: [u8; 16],
    segment: u64,
    sequence: u64,
    chain: u32,
    history: History,
    /// Of the last frame.
    parts: Option<Parts>,
    /// Frames after this one are writes that follow each other in the history.
    since: u64,
    /// Frames up to this one are in the records already.
    from: u64,
    shard: u32,
    key_len: usize,
    value_len: usize,
    is_first: bool,
    unwritten: Option<Unwritten>,
}

impl Cursor {
    fn new(store: &StoreHeader, shard: u32, from: u64, since: u64) -> Self {
        let (key_len, value_len) = (store.key_len.get() as usize, store.value_len.get() as usize);
        let (segment, sequence, chain, is_first, id) = (0, 0, 0, true, store.id);
        let (history, parts) = (History::Mending(Position::START), None);
        Self {
            segment,
            id,
            sequence,
            chain,
            history,
            parts,
            since,
            from,
            shard,
            key_len,
            value_len,
            is_first,
            unwritten: None,
        }
    }

    /// Stands before the first frame of a segment.
    fn begin(&mut self, segment: &SegmentHeader) {
        self.segment = segment.number.get();
        self.sequence = segment.first_sequence.get().saturating_sub(1);
        self.chain = segment.chain.get();
        self.history = History::from_bytes(&segment.origin);
        self.is_first = false;
    }

    /// Was everything up to the memory's last write durable, and does the log end with it? Then the
    /// cursor stands there.
    fn is_at<F: Folder>(
        &mut self,
        folder: &F,
        segments: &[SegmentHeader],
        control: &Control<'_>,
        place: Place,
    ) -> Result<bool> {
        let Some(segment) = segments.last() else { return Ok(false) };
        let is_all = segment.number.get() == place.segment
            && segment.first_sequence.get() <= place.sequence
            && segment.vouched.get() <= place.sequence
            && (control.applied(), control.durable()) == (place.sequence, place.sequence)
            && control.written() == (place.segment, place.at);
        let frame = place.at.checked_sub(place.len).filter(|frame| *frame >= DATA_AT);
        let (Some(frame), true) = (frame, is_all && place.len >= FRAME_LEN as u64) else {
            return Ok(false);
        };
        let name = segment_name(self.shard, place.segment);
        let file = folder.file(&name).map_err(Error::io(&*name))?;
        let len = file.len().map_err(Error::io(&*name))?;
        let has_both = read_headers::<SegmentHeader>(&file, &name)?.len() == 2;
        if !has_both || len != segment.bytes.get() || place.at > len {
            return Ok(false);
        }
        // What was begun behind it begins with bytes that are not zero.
        let mut bytes = vec![0; (place.at - frame + FRAME_LEN as u64).min(len - frame) as usize];
        file.read_at(frame, &mut bytes).map_err(Error::io(&*name))?;
        let (last, behind) = bytes.split_at(place.len as usize);
        let is_it = |frame: &Frame<'_>| {
            let header = frame.header;
            u64::from(header.len.get()) == place.len
                && header.sequence.get() == place.sequence
                && header.checksum.get() == place.chain
                && header.shard.get() == self.shard
        };
        let Some(last) = Frame::read(last).filter(is_it) else { return Ok(false) };
        if behind.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        self.parts = Parts::of(&last, place.segment, frame);
        (self.sequence, self.chain, self.history) = (place.sequence, place.chain, place.history);
        Ok(true)
    }

    /// Takes the frames of the segment that a memory's last write is in, and writes those to it that
    /// are in the ring only. The sound bytes, and whether both headers are sound and nothing is
    /// behind the last frame; `None` if memory and segment do not belong together.
    fn replay_left<F: Folder>(
        &mut self,
        folder: &F,
        segment: &SegmentHeader,
        table: &Table,
        place: Place,
        writing: &mut Writing<'_>,
    ) -> Result<Option<(Vec<u8>, bool)>> {
        let name = segment_name(self.shard, place.segment);
        let file = folder.file(&name).map_err(Error::io(&*name))?;
        let has_both = read_headers::<SegmentHeader>(&file, &name)?.len() == 2;
        let mut bytes = whole(&file, &name, segment)?;
        let written = match table.control()?.written() {
            (number, at) if number == place.segment => at.min(place.at),
            (number, _) if number > place.segment => place.at,
            _ => DATA_AT,
        };
        let is_sound = written >= DATA_AT
            && place.at <= bytes.len() as u64
            && place.at - written <= table.ring_bytes();
        if !is_sound {
            return Ok(None);
        }
        let (start, end) = (written as usize, place.at as usize);
        let from_ring = table.ring_read(written, place.at);
        bytes[start..end].copy_from_slice(&from_ring);
        self.begin(segment);
        let ends = self.replay(&bytes[..end], DATA_AT as usize, writing)?;
        if (ends, self.sequence, self.chain) != (end, place.sequence, place.chain) {
            return Ok(None);
        }
        file.write_at(written, &from_ring).map_err(Error::io(&*name))?;
        let end = self.replay_rest(&bytes, end, (segment, &name), writing)?;
        let is_clean = has_both && bytes[end..].iter().all(|byte| *byte == 0);
        bytes.truncate(end);
        Ok(Some((bytes, is_clean)))
    }

    /// Takes the frames of segments, and returns the sound bytes of the last one, or `tail` if there
    /// are no segments.
    fn replay_all<F: Folder>(
        &mut self,
        folder: &F,
        segments: &[SegmentHeader],
        mut tail: Vec<u8>,
        writing: &mut Writing<'_>,
    ) -> Result<Vec<u8>> {
        for segment in segments {
            let name = segment_name(self.shard, segment.number.get());
            let file = folder.file(&name).map_err(Error::io(&*name))?;
            let (first, chain) = (segment.first_sequence.get(), segment.chain.get());
            let origin = History::from_bytes(&segment.origin);
            let follows =
                first == self.sequence + 1 && chain == self.chain && origin == self.history;
            let continues = self.is_first || follows;
            let starts = first > 1 || chain == chain_start(&self.id, self.shard);
            if !continues || !starts || first == 0 {
                let what = "the segment does not continue the one before";
                return Err(Error::damaged(&name, 0, what));
            }
            self.begin(segment);
            tail = whole(&file, &name, segment)?;
            let mut end = DATA_AT as usize;
            if self.unwritten.is_some() {
                end = self.replay(&tail, end, writing)?;
            }
            if let Some(unwritten) = &self.unwritten {
                let after = (self.sequence, self.chain, self.shard);
                unwritten.complete((segment.number.get(), end), &mut tail, after);
            }
            let end = self.replay_rest(&tail, end, (segment, &name), writing)?;
            tail.truncate(end);
        }
        Ok(tail)
    }

    /// Takes the frames of a segment from `start` on, and sees that it is not damaged where they
    /// end. Returns where.
    fn replay_rest(
        &mut self,
        bytes: &[u8],
        start: usize,
        (segment, name): (&SegmentHeader, &str),
        writing: &mut Writing<'_>,
    ) -> Result<usize> {
        let end = self.replay(bytes, start, writing)?;
        if segment.vouched.get() > self.sequence
            || was_more_durable(bytes, end, self.shard, self.sequence)
        {
            let what = "a write that was durable is not as it was written";
            return Err(Error::damaged(name, end as u64, what));
        }
        Ok(end)
    }

    /// Takes the frames from `start` on, and returns where they end.
    fn replay(&mut self, segment: &[u8], start: usize, writing: &mut Writing<'_>) -> Result<usize> {
        let mut at = start;
        while let Some(frame) = segment.get(at..).and_then(Frame::read) {
            let head = frame.header;
            let continues = head.sequence.get() == self.sequence + 1
                && head.chain.get() == self.chain
                && head.shard.get() == self.shard;
            let lengths = (self.key_len, self.value_len);
            let whole = continues && frame.changes(self.key_len, self.value_len, |_| {});
            let Some((history, written)) =
                whole.then(|| frame.follow(self.history, lengths)).flatten()
            else {
                break;
            };
            self.sequence += 1;
            self.history = history;
            self.parts = Parts::of(&frame, self.segment, at as u64);
            if written.is_none() {
                self.since = self.sequence;
            }
            self.chain = head.checksum.get();
            at += head.len.get() as usize;
            if self.sequence > self.from {
                if !writing.reserve(head.count.get() as usize)? {
                    return Err(Error::Full { shard: self.shard, max: RECORDS_MAX });
                }
                let sequence = self.sequence;
                frame.changes(self.key_len, self.value_len, |change| {
                    writing.apply(&change, sequence);
                });
                writing.applied(sequence);
            }
        }
        Ok(at)
    }
}
