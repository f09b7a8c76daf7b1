//! What the files of a shard say: reads and checks, and changes nothing.

use mainstay_storage::{Folder, Storage};

use crate::{
    error::{Error, Result},
    format::{
        DATA_AT, ImageHeader, SegmentHeader, StoreHeader, chain_start, image_name, parse_name,
        read_headers, segment_name,
    },
    history::{History, Position},
    image,
    log::{Frame, was_more_durable},
    shard::Change,
    table::{Table, hash_of},
};

/// A shard as its files say.
pub(crate) struct Loaded {
    pub(crate) table: Table,
    pub(crate) image: Option<ImageHeader>,
    /// The segments in use, oldest first; never empty.
    pub(crate) segments: Vec<SegmentHeader>,
    /// The sound bytes of the last segment, headers included.
    pub(crate) tail: Vec<u8>,
    /// Of the last frame.
    pub(crate) sequence: u64,
    pub(crate) chain: u32,
    pub(crate) history: History,
    /// Writes after this one follow each other in the history.
    pub(crate) since: u64,
    /// No file has this number or a higher one.
    pub(crate) next_number: u64,
    /// Files that nothing needs: unfinished, or replaced.
    pub(crate) leftovers: Vec<String>,
}

/// The newest sound header of the store.
pub(crate) fn store_header(folder: &impl Folder) -> Result<StoreHeader> {
    use crate::format::STORE_FILE;
    let names = folder.names().map_err(Error::io("the directory"))?;
    if !names.iter().any(|name| name == STORE_FILE) {
        return Err(Error::NotAStore);
    }
    let file = folder.file(STORE_FILE).map_err(Error::io(STORE_FILE))?;
    let sound = read_headers::<StoreHeader>(&file, STORE_FILE)?;
    match sound.into_iter().max_by_key(|header| header.generation.get()) {
        Some(header) => Ok(header),
        // A creation that did not come to its end leaves it empty, or without a sound byte.
        None if file.len().map_err(Error::io(STORE_FILE))? == 0 => Err(Error::NotAStore),
        None => Err(Error::damaged(STORE_FILE, 0, "neither copy of the header is sound")),
    }
}

/// Reads a shard.
pub(crate) fn load<F: Folder>(folder: &F, store: &StoreHeader, shard: u32) -> Result<Loaded> {
    let (key_len, value_len) = (store.key_len.get() as usize, store.value_len.get() as usize);
    let mut found = Found::list(folder, store, shard)?;
    let mut table = Table::new(key_len, value_len);
    let image = found.images.pop();
    found.leftovers.extend(found.images.iter().map(|image| image_name(shard, image.number.get())));
    if let Some(header) = &image {
        let file = folder.file(&image_name(shard, header.number.get()));
        image::load(&file.map_err(Error::io("an image"))?, header, &mut table)?;
    }
    let from = image.map_or(0, |image| image.from.get());
    let covers = |segment: &SegmentHeader| segment.first_sequence.get() <= from + 1;
    let Some(first) = found.segments.iter().rposition(covers) else {
        let name = segment_name(shard, found.segments.first().map_or(0, |head| head.number.get()));
        return Err(Error::damaged(&name, 0, "the log before this segment is missing"));
    };
    let old = found.segments.drain(..first);
    found.leftovers.extend(old.map(|segment| segment_name(shard, segment.number.get())));
    let segments = found.segments;
    let history = History::Mending(Position::START);
    let mut at =
        Cursor { sequence: 0, chain: 0, history, since: 0, from, shard, key_len, value_len };
    let mut tail = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let name = segment_name(shard, segment.number.get());
        let file = folder.file(&name).map_err(Error::io(&*name))?;
        let (first, chain) = (segment.first_sequence.get(), segment.chain.get());
        let origin = History::from_bytes(&segment.origin);
        let continues =
            index == 0 || (first == at.sequence + 1 && chain == at.chain && origin == at.history);
        let starts = first > 1 || chain == chain_start(&store.id, shard);
        if !continues || !starts || first == 0 {
            return Err(Error::damaged(&name, 0, "the segment does not continue the one before"));
        }
        if index == 0 {
            at.since = first - 1;
        }
        (at.sequence, at.chain, at.history) = (first - 1, chain, origin);
        tail = whole(&file, &name, segment)?;
        let end = at.replay(&tail, &mut table);
        if was_more_durable(&tail, end, shard, at.sequence) {
            let what = "a write that was durable is not as it was written";
            return Err(Error::damaged(&name, end as u64, what));
        }
        tail.truncate(end);
    }
    if at.sequence < image.map_or(0, |image| image.through.get()) {
        let name = segments.last().map_or(0, |segment| segment.number.get());
        let what = "the log ends before what the image has seen of it";
        return Err(Error::damaged(&segment_name(shard, name), tail.len() as u64, what));
    }
    let Cursor { sequence, chain, history, since, .. } = at;
    Ok(Loaded {
        table,
        image,
        segments,
        tail,
        sequence,
        chain,
        history,
        since,
        next_number: found.next_number,
        leftovers: found.leftovers,
    })
}

/// The files of a shard that are sound so far.
struct Found {
    images: Vec<ImageHeader>,
    segments: Vec<SegmentHeader>,
    leftovers: Vec<String>,
    next_number: u64,
}

impl Found {
    fn list<F: Folder>(folder: &F, store: &StoreHeader, shard: u32) -> Result<Self> {
        let (images, segments, leftovers) = (Vec::new(), Vec::new(), Vec::new());
        let mut found = Self { images, segments, leftovers, next_number: 1 };
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
                        found.images.push(head);
                    }
                    None => found.leftovers.push(name),
                }
                continue;
            }
            match read_headers::<SegmentHeader>(&file, &name)?.pop() {
                Some(head) => {
                    ours(head.id, head.shard.get(), head.number.get())?;
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
    sequence: u64,
    chain: u32,
    history: History,
    since: u64,
    from: u64,
    shard: u32,
    key_len: usize,
    value_len: usize,
}

impl Cursor {
    /// Takes the frames of a segment, and returns where they end.
    fn replay(&mut self, segment: &[u8], table: &mut Table) -> usize {
        let mut at = DATA_AT as usize;
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
            if written.is_none() {
                self.since = self.sequence;
            }
            self.chain = head.checksum.get();
            at += head.len.get() as usize;
            if self.sequence > self.from {
                let sequence = self.sequence;
                frame.changes(self.key_len, self.value_len, |change| {
                    apply(table, &change, sequence);
                });
            }
        }
        at
    }
}

/// Makes a change in memory.
pub(crate) fn apply(table: &mut Table, change: &Change<'_>, sequence: u64) {
    match change {
        Change::Put(key, value) => table.put(hash_of(key), key, value, sequence),
        Change::Delete(key) => {
            table.remove(hash_of(key), key);
        }
    }
}
