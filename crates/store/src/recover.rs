//! What the files of a shard say: reads and checks, and changes nothing.

mod replay;

use mainstay_storage::{Folder, Storage};

use self::replay::Cursor;
use crate::{
    any::{ANY_FILE, is_called_copy},
    error::{Error, Result},
    format::{
        DATA_AT, IMPLAUSIBLE, ImageHeader, Plausible, STORE_FILE, SegmentHeader, StoreHeader,
        image_name, parse_name, read_headers, segment_name,
    },
    history::History,
    home::{InFolder, index_reserved, reserved, shape},
    image, keyed,
    live::ring_bytes,
    memory::Memory,
    parts::Parts,
    table::Table,
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
    let found = if names.iter().any(|name| name == STORE_FILE) {
        newest_header(&folder.file(STORE_FILE).map_err(Error::io(STORE_FILE))?)
    } else {
        Err(Error::NotAStore)
    };
    or_gone(found, folder, &names, |name| parse_name(name).is_some())
}

/// Where no header is found: is it gone from a store that has writes, in one of its `files`? A creation
/// makes these files before the header, but writes nothing to them.
pub(crate) fn or_gone<H>(
    found: Result<H>,
    folder: &impl Folder,
    names: &[String],
    is_log: impl Fn(&str) -> bool,
) -> Result<H> {
    // A copy has logs and never a header of a store.
    if !matches!(found, Err(Error::NotAStore)) || is_called_copy(folder)? {
        return found;
    }
    for name in names.iter().filter(|name| is_log(name)) {
        if has_data(folder, name).map_err(Error::io(name))? {
            return Err(Error::HeaderGone { file: name.clone() });
        }
    }
    found
}

/// Is there anything behind the header of a file?
fn has_data(folder: &impl Folder, name: &str) -> std::io::Result<bool> {
    let (file, mut first) = (folder.file(name)?, [0; 8]);
    if file.len()? < DATA_AT + first.len() as u64 {
        return Ok(false);
    }
    file.read_at(DATA_AT, &mut first)?;
    Ok(first != [0; 8])
}

/// The newest sound header in the file of a store.
pub(crate) fn newest_header(file: &impl Storage) -> Result<StoreHeader> {
    let sound = read_headers::<StoreHeader>(file, STORE_FILE)?;
    match sound.into_iter().max_by_key(|header| header.generation.get()) {
        Some(header) => Ok(header),
        // A creation that did not come to its end leaves it empty, or without a sound byte.
        None if file.len().map_err(Error::io(STORE_FILE))? == 0 => Err(Error::NotAStore),
        None => Err(keyed::not_sound(file, STORE_FILE)),
    }
}

/// Reads a shard into a table that `make` makes for about so many records. `told` is told how many
/// bytes are read.
pub(crate) fn load<F: Folder>(
    folder: &F,
    store: &StoreHeader,
    shard: u32,
    (unwritten, durable): (Option<Unwritten>, Option<(u64, u64)>),
    make: impl FnOnce(u64) -> Result<Table>,
    told: &dyn Fn(u64),
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
        let file = file.map_err(Error::io("an image"))?;
        let keys = (store.route(), store.key_len.get() as usize);
        image::load(&file, header, &table, &mut writing, keys, told)?;
    }
    let from = image.map_or(0, |image| image.from.get());
    found.drop_old_segments(from)?;
    let mut at = Cursor::new(store, shard, from, found.oldest());
    (at.unwritten, at.durable) = (unwritten, durable);
    let tail = at.replay_all(folder, &found.segments, Vec::new(), &mut writing, told)?;
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
    let durable = unwritten.as_ref().map(Unwritten::durable);
    let left = (unwritten, durable);
    let make = |records| private_table(store, shard, records);
    load(folder, store, shard, left, make, &|_| {})
}

/// An empty table of this process alone, for about so many records of a shard.
pub(crate) fn private_table(store: &StoreHeader, shard: u32, records: u64) -> Result<Table> {
    let memory = Memory::private(reserved(store))?;
    let memory = (memory, Memory::private(index_reserved(store))?, false);
    let ring = ring_bytes(store.segment_bytes.get());
    Table::new(shard, shape(store), memory, ring, records)
}

/// Puts the writes that are only in the ring of a memory that is not taken over into the log, before
/// that memory is made anew. What it says of the log: a segment, and which write was durable.
pub(crate) fn rescue<F: Folder>(
    folder: &F,
    store: &StoreHeader,
    shard: u32,
) -> Result<Option<(u64, u64)>> {
    let Some(unwritten) = Unwritten::find(folder, store, shard)? else { return Ok(None) };
    let durable = Some(unwritten.durable());
    if unwritten.is_empty() {
        return Ok(durable);
    }
    let loaded = load_apart(folder, store, shard)?;
    let Some(last) = loaded.segments.last() else { return Ok(durable) };
    let name = segment_name(shard, last.number.get());
    let file = folder.file(&name).map_err(Error::io(&*name))?;
    // The page cache is enough: the opening syncs what it finds at the end of the log.
    file.write_at(0, &loaded.tail).map_err(Error::io(&*name))?;
    Ok(durable)
}

/// Goes on with the memory that the last process left, if it is to be believed. After a close only
/// the last frame is read, to see that the log is the one the memory is about: the checksum of a
/// frame is one of all before it. Otherwise the last segment is.
pub(crate) fn adopt<F: Folder>(
    folder: &F,
    store: &StoreHeader,
    shard: u32,
    told: &dyn Fn(u64),
) -> Result<Option<Loaded>> {
    let Some(table) = (InFolder { folder, shard }).left(store)? else { return Ok(None) };
    let control = table.control()?;
    let Some(place) = control.committed() else { return Ok(None) };
    let mut found = Found::list(folder, store, shard)?;
    let image = found.newest_image();
    found.drop_old_segments(image.map_or(0, |image| image.from.get()))?;
    let (applied, since) = (control.applied(), found.oldest().max(control.since()));
    let mut at = Cursor::new(store, shard, applied, since);
    if at.is_at(folder, &found.segments, &control, place)? {
        at.since = at.since.min(at.sequence);
        return Ok(Some(found.loaded(table, image, (Vec::new(), place.at), at, (true, true))));
    }
    control.set_replaying(true);
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
    let tail = at.replay_all(folder, later, tail, &mut writing, told)?;
    // Nor may the records have what the log has not.
    if at.sequence < image.map_or(0, |image| image.through.get()).max(applied) {
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
pub(crate) fn is_blank(file: &impl Storage, name: &str) -> Result<bool> {
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
