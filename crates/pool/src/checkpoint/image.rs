//! The checkpoint file: an image of the pool, and two logs of cuts that take turns.
//!
//! C1. After a power cut at any point the file holds the last completed cut, or the one that was
//!     being completed: never a mix.
//! C2. A cut is completed by one sync. What it needs is written before that sync, what relies on it
//!     after.
//! C3. Whatever is read is checked: numbers against the geometry, contents against their sums, the
//!     whole against the digest. Damage is an error that names what is damaged, also when the disk
//!     kept something sound but old.
//! C4. After a sync that failed the file is written no more: nothing is known about what it holds.
//!
//! The argument for C1 is in `docs/format/checkpoint.md`, "Why it is safe".

use super::{
    format::{
        CUT_ALIGN, CUT_HEAD_LEN, CUT_MAGIC, CutHead, HEADER_COPY_OFFSET, IMAGE_OFFSET, MAGIC,
        RECORD_LEN, Record, SUPERBLOCK_LEN, Superblock, VERSION, WITH_DATA,
    },
    storage::Storage,
};
use crate::{
    geometry::Geometry,
    ground::Sums,
    layout::{HEADER_LEN, Header},
};
use mainstay_base::Crc64;
use mainstay_shm::hook;
use std::{
    collections::{BTreeMap, HashMap},
    io,
};
use zerocopy::{FromBytes, IntoBytes};

/// A log shorter than this is not folded into the image.
const FOLD_MIN: u64 = 16 << 20;
/// Reads and writes are put together up to this many bytes.
const RUN_MAX: usize = 1 << 20;

/// What is wrong with a checkpoint file.
#[derive(Debug)]
pub(crate) enum Fault {
    Io(io::Error),
    /// It is no checkpoint file, or of another version, or of another shape.
    NotOne(&'static str),
    /// No cut was ever completed.
    NoCut,
    /// These blocks are damaged (the first of them), and so many in all.
    Damaged {
        blocks: Vec<u32>,
        count: u64,
    },
    /// All is sound, and not what the last cut says: something is old.
    Stale,
    /// A cut in the middle of a log is damaged: there are later ones, up to this.
    Broken {
        later: u64,
    },
    /// A cut is larger than a log.
    TooLarge,
    /// A sync has failed before (C4).
    Failed,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How far behind the end of a log is looked for cuts, in bytes.
const BEYOND_MAX: u64 = 64 << 20;

/// How many damaged blocks are named.
const DAMAGED_MAX: usize = 100;

/// The changes of one cut, as they go into a log.
#[derive(Default)]
pub(crate) struct Body {
    /// Room for the head, then the entries.
    bytes: Vec<u8>,
    /// With the offset of the data, if it has any.
    entries: Vec<(Record, Option<usize>)>,
}

impl Body {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; CUT_HEAD_LEN], entries: Vec::new() }
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Adds a block; `data` appends its bytes and says what the record is: none if there is nothing
    /// to add after all, and whether the data belongs to it.
    pub(crate) fn add<E>(
        &mut self,
        data: impl FnOnce(&mut Vec<u8>) -> Result<Option<(Record, bool)>, E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        self.bytes.resize(start + RECORD_LEN, 0);
        let Some((mut record, with_data)) = data(&mut self.bytes).inspect_err(|_| {})? else {
            self.bytes.truncate(start);
            return Ok(());
        };
        let at = start + RECORD_LEN;
        if with_data {
            record.flags |= WITH_DATA;
            let len = self.bytes.len().next_multiple_of(8);
            self.bytes.resize(len, 0);
        } else {
            self.bytes.truncate(at);
        }
        self.bytes[start..at].copy_from_slice(record.sealed().as_bytes());
        self.entries.push((record, with_data.then_some(at)));
        Ok(())
    }
}

/// An open checkpoint file.
pub(crate) struct Image<S> {
    storage: S,
    superblock: Superblock,
    pub(crate) header: Header,
    pub(crate) geometry: Geometry,
    /// By number, as of the last cut.
    records: Vec<Record>,
    pub(crate) cut: u64,
    pub(crate) stamp: u64,
    pub(crate) extents: u64,
    digest: u64,
    /// Which log is written.
    active: usize,
    /// How far.
    used: u64,
    /// Of the blocks that differ from the image: where their data is, if it does.
    overlay: BTreeMap<u32, Option<u64>>,
    fold_min: u64,
    failed: bool,
}

impl<S: Storage> Image<S> {
    fn without_cuts(
        storage: S,
        superblock: Superblock,
        header: Header,
        geometry: Geometry,
    ) -> Self {
        Self {
            storage,
            superblock,
            header,
            geometry,
            records: Vec::new(),
            cut: 0,
            stamp: 0,
            extents: 0,
            digest: 0,
            active: 0,
            used: 0,
            overlay: BTreeMap::new(),
            fold_min: FOLD_MIN,
            failed: false,
        }
    }

    /// Begins a file: nothing is durable, and nobody may rely on it, before the first cut.
    pub(crate) fn create(
        mut storage: S,
        id: [u8; 16],
        header: Header,
        geometry: Geometry,
    ) -> Result<Self, Fault> {
        let superblock = Superblock::new(id, &geometry);
        storage.write_at(0, superblock.as_bytes())?;
        storage.write_at(HEADER_COPY_OFFSET, header.as_bytes())?;
        Ok(Self::without_cuts(storage, superblock, header, geometry))
    }

    /// Writes a block straight into the image, before the first cut.
    pub(crate) fn seed(&mut self, record: Record, data: &[u8]) -> Result<(), Fault> {
        assert_eq!(self.cut, 0, "C2: after the first cut the image is changed by folding only");
        let (_, number) = self.geometry.locate(record.number);
        let extents = u64::from(record.number) / self.geometry.blocks_per_extent + 1;
        self.reach(extents)?;
        let at = self.extent_at(extents - 1);
        self.storage.write_at(at + number * RECORD_LEN as u64, record.sealed().as_bytes())?;
        self.storage.write_at(self.data_at(record.number), data)?;
        self.keep(record.sealed());
        Ok(())
    }

    /// Completes a cut. When it returns, the pool comes back as of this cut after a power cut.
    pub(crate) fn append(&mut self, mut body: Body, extents: u64, stamp: u64) -> Result<(), Fault> {
        if self.failed {
            return Err(Fault::Failed);
        }
        let extents = extents.max(self.extents);
        self.reach(extents)?;
        let digest = body.entries.iter().fold(self.digest, |digest, (record, _)| {
            let before = &self.records[record.number as usize];
            digest.wrapping_sub(before.digest()).wrapping_add(record.sealed().digest())
        });
        let body_len = body.len() - CUT_HEAD_LEN as u64;
        let bytes = body.len().next_multiple_of(CUT_ALIGN);
        if self.used + bytes > self.superblock.log_len {
            return Err(Fault::TooLarge);
        }
        let head = CutHead {
            magic: CUT_MAGIC,
            cut: self.cut + 1,
            file: self.superblock.short_id(),
            bytes,
            entries: body.entries.len() as u64,
            extents,
            stamp,
            digest,
            body_len,
            body_sum: mainstay_base::crc64(&body.bytes[CUT_HEAD_LEN..]),
            reserved: 0,
            checksum: 0,
        };
        body.bytes[..CUT_HEAD_LEN].copy_from_slice(head.sealed().as_bytes());
        body.bytes.resize(bytes as usize, 0);
        let at = self.log_at(self.active) + self.used;
        hook::step();
        self.storage.write_at(at, &body.bytes)?;
        hook::step();
        let synced = if hook::planted("cut-not-synced") { Ok(()) } else { self.storage.sync() };
        if let Err(error) = synced {
            self.failed = true;
            return Err(error.into());
        }
        hook::step();
        for (record, data) in &body.entries {
            let in_log = data.map(|data| at + data as u64);
            let place = self.overlay.entry(record.number).or_default();
            *place = in_log.or(*place);
            self.keep(record.without_data());
        }
        (self.cut, self.stamp, self.used) = (self.cut + 1, stamp, self.used + bytes);
        debug_assert_eq!(self.digest, digest, "kept record by record");
        if self.used >= self.fold_at() {
            // The cut is complete, so this failure is one of the next.
            if self.fold().is_err() {
                self.failed = true;
            }
        }
        Ok(())
    }

    /// A log as long as this is folded: long enough to be worth it, and before it is full.
    fn fold_at(&self) -> u64 {
        let wanted = self.fold_min.max(self.extents * self.superblock.extent_len / 4);
        wanted.min(self.superblock.log_len - Superblock::cut_max(&self.geometry))
    }

    /// Writes what the active log has into the image, and goes on in the other log.
    fn fold(&mut self) -> Result<(), Fault> {
        let mut overlay = std::mem::take(&mut self.overlay);
        if hook::planted("log-not-folded") {
            overlay.clear();
        }
        let mut records = Run::default();
        let mut data = Run::default();
        let mut block = vec![0; self.geometry.block_size as usize];
        for (number, in_log) in &overlay {
            let (extent, place) = self.geometry.locate(*number);
            let at = self.extent_at(extent) + place * RECORD_LEN as u64;
            records.add(&mut self.storage, at, self.records[*number as usize].as_bytes(), 0)?;
            if let Some(in_log) = in_log {
                self.storage.read_at(*in_log, &mut block)?;
                let at = self.data_at(*number);
                let padding = (self.geometry.stride - self.geometry.block_size) as usize;
                data.add(&mut self.storage, at, &block, padding)?;
            }
        }
        records.flush(&mut self.storage)?;
        data.flush(&mut self.storage)?;
        (self.active, self.used) = (1 - self.active, 0);
        Ok(())
    }

    /// Makes sure that the image has room for so many extents, so that folding never lacks any.
    fn reach(&mut self, extents: u64) -> Result<(), Fault> {
        if extents > self.extents {
            let at = self.extent_at(self.extents);
            self.storage.allocate(at, (extents - self.extents) * self.superblock.extent_len)?;
            self.extents = extents;
            let blocks = extents * self.geometry.blocks_per_extent;
            self.records.resize(blocks as usize, Record::default());
        }
        Ok(())
    }

    fn keep(&mut self, record: Record) {
        let before = &mut self.records[record.number as usize];
        self.digest = self.digest.wrapping_sub(before.digest()).wrapping_add(record.digest());
        *before = record;
    }

    /// Reads a file: its last completed cut. Writes nothing.
    pub(crate) fn load(storage: S) -> Result<Self, Fault> {
        let mut head = [0; HEADER_COPY_OFFSET as usize + HEADER_LEN];
        storage.read_at(0, &mut head)?;
        let (superblock, _) = Superblock::ref_from_prefix(&head[..SUPERBLOCK_LEN])
            .map_err(|_| Fault::NotOne("it is too short"))?;
        if superblock.magic != MAGIC {
            return Err(Fault::NotOne("it does not start with the magic"));
        }
        if superblock.version != VERSION || superblock.flags != 0 {
            return Err(Fault::NotOne(
                "it is of a version, or has flags, that this build knows not",
            ));
        }
        if superblock.checksum != superblock.sum() {
            return Err(Fault::NotOne("its superblock does not match its checksum"));
        }
        let copy = &head[HEADER_COPY_OFFSET as usize..];
        let (header, _, geometry) = Header::parse("the checkpoint", copy, u64::MAX)
            .map_err(|_| Fault::NotOne("its copy of the pool's header is damaged"))?;
        if superblock.as_bytes() != Superblock::new(superblock.id, &geometry).as_bytes() {
            return Err(Fault::NotOne("its superblock does not fit its copy of the pool's header"));
        }
        let superblock = superblock.clone();
        let mut image = Self::without_cuts(storage, superblock, header, geometry);
        image.read_cuts()?;
        Ok(image)
    }

    fn read_cuts(&mut self) -> Result<(), Fault> {
        let [(a, beyond_a), (b, beyond_b)] = [self.scan(0)?, self.scan(1)?];
        let last = |run: &[(CutHead, u64)]| run.last().map_or(0, |(head, _)| head.cut);
        let (older, newer, active) = if last(&a) > last(&b) { (b, a, 0) } else { (a, b, 1) };
        let later = beyond_a.max(beyond_b);
        if later > last(&newer) + 1 {
            return Err(Fault::Broken { later });
        }
        let Some((head, _)) = newer.last() else { return Err(Fault::NoCut) };
        let (head, first) = (head.clone(), newer[0].0.cut);
        let joins = last(&older).checked_add(1) == Some(first);
        let cuts = older.iter().filter(|_| joins).chain(&newer);

        // What the logs say, later over earlier.
        let mut said: HashMap<u32, (Record, Option<u64>)> = HashMap::new();
        for (head, at) in cuts {
            self.read_entries(head, *at, |record, data| {
                let before = said.get(&record.number).and_then(|(_, data)| *data);
                said.insert(record.number, (record.without_data(), data.or(before)));
            })?;
        }
        self.extents = head.extents;
        let per_extent = self.geometry.blocks_per_extent;
        self.records = vec![Record::default(); (head.extents * per_extent) as usize];
        let (mut blocks, mut count) = (Vec::new(), 0);
        let mut table = vec![0; per_extent as usize * RECORD_LEN];
        for extent in 0..head.extents {
            self.storage.read_at(self.extent_at(extent), &mut table)?;
            for (place, bytes) in table.chunks_exact(RECORD_LEN).enumerate() {
                let number = (extent * per_extent) as u32 + place as u32;
                let record = match said.get(&number) {
                    Some((record, _)) => *record,
                    None => Record::read_from_bytes(bytes).expect("a chunk is a record long"),
                };
                if record.is_sound(number) {
                    self.keep_at(number, record);
                } else {
                    count += 1;
                    if blocks.len() < DAMAGED_MAX {
                        blocks.push(number);
                    }
                }
            }
        }
        if count > 0 {
            return Err(Fault::Damaged { blocks, count });
        }
        if self.digest != head.digest {
            return Err(Fault::Stale);
        }
        self.overlay = said.into_iter().map(|(number, (_, data))| (number, data)).collect();
        (self.cut, self.stamp) = (head.cut, head.stamp);
        self.active = active;
        Ok(())
    }

    fn keep_at(&mut self, number: u32, record: Record) {
        self.digest = self.digest.wrapping_add(record.digest());
        self.records[number as usize] = record;
    }

    /// The longest run of sound cuts with consecutive numbers, from the start of a log, and where
    /// their bodies are; and the highest number of a cut that was begun behind its end.
    fn scan(&self, log: usize) -> Result<(Vec<(CutHead, u64)>, u64), Fault> {
        let mut run: Vec<(CutHead, u64)> = Vec::new();
        let mut used = 0;
        loop {
            let at = self.log_at(log) + used;
            let Some(head) = self.read_head(at, used)? else { break };
            let follows = run.last().is_none_or(|(before, _)| before.cut + 1 == head.cut);
            if !follows || !self.is_body_sound(&head, at + CUT_HEAD_LEN as u64)? {
                break;
            }
            used += head.bytes;
            run.push((head, at + CUT_HEAD_LEN as u64));
        }
        // A cut is begun only when the one before it is durable. So if there is one behind
        // something unsound, that is no cut that was never completed, but damage.
        let mut beyond = 0;
        let end = (used + BEYOND_MAX).min(self.superblock.log_len);
        while used < end {
            match self.read_head(self.log_at(log) + used, used)? {
                Some(head) => {
                    beyond = beyond.max(head.cut);
                    used += head.bytes;
                }
                None => used += CUT_ALIGN,
            }
        }
        Ok((run, beyond))
    }

    fn read_head(&self, at: u64, used: u64) -> Result<Option<CutHead>, Fault> {
        let left = self.superblock.log_len - used;
        if left < CUT_ALIGN {
            return Ok(None);
        }
        let mut bytes = [0; CUT_HEAD_LEN];
        self.storage.read_at(at, &mut bytes)?;
        let head = CutHead::read_from_bytes(&bytes).expect("the head is as long as its bytes");
        let entries = head.entries.checked_mul(RECORD_LEN as u64);
        let sound = head.magic == CUT_MAGIC
            && head.checksum == head.sum()
            && head.file == self.superblock.short_id()
            && head.cut > 0
            && head.bytes <= left
            && head.bytes >= CUT_ALIGN
            && head.bytes.is_multiple_of(CUT_ALIGN)
            && head.body_len.checked_add(CUT_HEAD_LEN as u64).is_some_and(|len| len <= head.bytes)
            && entries.is_some_and(|len| len <= head.body_len)
            && head.extents <= self.geometry.extents_max;
        Ok(sound.then_some(head))
    }

    fn is_body_sound(&self, head: &CutHead, at: u64) -> Result<bool, Fault> {
        let mut sum = Crc64::new();
        let mut piece = vec![0; RUN_MAX.min(head.body_len as usize)];
        let mut done = 0;
        while done < head.body_len {
            let piece = &mut piece[..RUN_MAX.min((head.body_len - done) as usize)];
            self.storage.read_at(at + done, piece)?;
            sum.update(piece);
            done += piece.len() as u64;
        }
        Ok(sum.finish() == head.body_sum)
    }

    /// Calls `each` with the records of a cut whose body is sound, and where their data is.
    fn read_entries(
        &self,
        head: &CutHead,
        start: u64,
        mut each: impl FnMut(Record, Option<u64>),
    ) -> Result<(), Fault> {
        let wrong = Fault::NotOne("a cut does not fit the pool");
        let blocks = head.extents * self.geometry.blocks_per_extent;
        let data_len = self.geometry.block_size.next_multiple_of(8);
        let mut at = 0;
        for _ in 0..head.entries {
            let mut bytes = [0; RECORD_LEN];
            self.storage.read_at(start + at, &mut bytes)?;
            let record = Record::read_from_bytes(&bytes).expect("a record is as long as its bytes");
            at += RECORD_LEN as u64;
            let with_data = record.flags & WITH_DATA != 0;
            let end = at + if with_data { data_len } else { 0 };
            let fits = record.is_sound(record.number) && u64::from(record.number) < blocks;
            if !fits || end > head.body_len {
                return Err(wrong);
            }
            each(record, with_data.then_some(start + at));
            at = end;
        }
        Ok(())
    }

    /// Makes a file that was loaded ready to be written: all of its cuts go into the image, which
    /// is synced, and the next goes into the log that the last is not in.
    pub(crate) fn settle(&mut self) -> Result<(), Fault> {
        self.fold()?;
        if let Err(error) = self.storage.sync() {
            self.failed = true;
            return Err(error.into());
        }
        Ok(())
    }

    /// A block's record, as of the last cut; all zeros when it was never used.
    pub(crate) fn record(&self, number: u32) -> Record {
        self.records.get(number as usize).copied().unwrap_or_default()
    }

    /// Fills `data`, of the length of a block, with the data of a live block; false when it is
    /// damaged.
    pub(crate) fn read(&self, number: u32, data: &mut [u8]) -> Result<bool, Fault> {
        let in_log = self.overlay.get(&number).copied().flatten();
        self.storage.read_at(in_log.unwrap_or_else(|| self.data_at(number)), data)?;
        let (sums, record) = (Sums::of(data), self.record(number));
        Ok(sums.crc32c == record.data_crc && sums.crc64 == record.data_sum)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// The pool's id of the file.
    pub(crate) fn id(&self) -> [u8; 16] {
        self.superblock.id
    }

    #[cfg(test)]
    pub(crate) fn fold_min(&mut self, bytes: u64) {
        self.fold_min = bytes;
    }

    #[cfg(test)]
    pub(crate) fn into_storage(self) -> S {
        self.storage
    }

    fn extent_at(&self, extent: u64) -> u64 {
        IMAGE_OFFSET + extent * self.superblock.extent_len
    }

    fn data_at(&self, number: u32) -> u64 {
        let (extent, place) = self.geometry.locate(number);
        self.extent_at(extent) + self.superblock.records_len + place * self.geometry.stride
    }

    fn log_at(&self, log: usize) -> u64 {
        [self.superblock.log_a, self.superblock.log_b][log]
    }
}

/// Neighbouring writes, put together.
#[derive(Default)]
struct Run {
    at: u64,
    bytes: Vec<u8>,
}

impl Run {
    /// Adds bytes, and zeros up to the next place.
    fn add(
        &mut self,
        storage: &mut impl Storage,
        at: u64,
        bytes: &[u8],
        padding: usize,
    ) -> io::Result<()> {
        if self.at + self.bytes.len() as u64 != at || self.bytes.len() >= RUN_MAX {
            self.flush(storage)?;
            self.at = at;
        }
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len() + padding, 0);
        Ok(())
    }

    fn flush(&mut self, storage: &mut impl Storage) -> io::Result<()> {
        if !self.bytes.is_empty() {
            hook::step();
            storage.write_at(self.at, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }
}
