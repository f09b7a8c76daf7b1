//! Images: all records of a shard in a file of their own, so that the log before them can go.
//!
//! An image is written beside the writers, a chunk at a time. It holds all writes up to `from`, and
//! of later ones, up to `through`, some: replaying the log behind `from` makes it right, since a
//! frame says what a record becomes and not how it changes.
//!
//! Data is synced before the header is written (a sound header means that all of it was durable),
//! and the log up to `through` before that: an image is never ahead of the log.

use mainstay_shm::hook;
use mainstay_storage::{Folder, Storage};
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    error::{Error, Result},
    format::{CHUNK_LEN, CHUNK_RECORDS, ChunkHeader, DATA_AT, ImageHeader, chunk_sum, image_name},
    limits::RECORDS_MAX,
    route::Route,
    table::{Table, Writing},
};

/// The chunks of an image that is being written.
pub(crate) struct Chunks {
    number: u64,
    name: String,
    /// The next one, with room for its header.
    chunk: Vec<u8>,
    /// Records in it.
    count: usize,
    index: u32,
    records: u64,
    at: u64,
}

impl Chunks {
    pub(crate) fn new(number: u64, name: String) -> Self {
        let chunk = vec![0; CHUNK_LEN];
        Self { number, name, chunk, count: 0, index: 0, records: 0, at: DATA_AT }
    }

    /// Adds a record.
    pub(crate) fn record(
        &mut self,
        file: &impl Storage,
        sequence: u64,
        (key, value): (&[u8], &[u8]),
    ) -> Result<()> {
        self.chunk.extend_from_slice(&sequence.to_le_bytes());
        self.chunk.extend_from_slice(key);
        self.chunk.extend_from_slice(value);
        self.count += 1;
        if self.count == CHUNK_RECORDS { self.write(file) } else { Ok(()) }
    }

    /// Writes the next records, of `bytes_each`, some `bytes_max` at most and at least one: `next` adds
    /// those of a chunk from a slot on, and says how many they are and where to go on. Returns where to
    /// go on from, if there is more.
    pub(crate) fn write_some(
        &mut self,
        file: &impl Storage,
        from: u32,
        (bytes_max, bytes_each): (u64, usize),
        mut next: impl FnMut(u32, usize, &mut Vec<u8>) -> Result<(usize, Option<u32>)>,
    ) -> Result<Option<u32>> {
        let end = self.at.saturating_add(bytes_max);
        let mut slot = Some(from);
        while let Some(from) = slot {
            let records = (end.saturating_sub(self.at) / bytes_each as u64).max(1);
            let records = records.min(CHUNK_RECORDS as u64) as usize;
            (self.count, slot) = next(from, records, &mut self.chunk)?;
            self.write(file)?;
            if self.at >= end {
                break;
            }
        }
        Ok(slot)
    }

    /// Writes what was added.
    fn write(&mut self, file: &impl Storage) -> Result<()> {
        if self.count > 0 {
            let mut header = ChunkHeader {
                checksum: 0.into(),
                count: (self.count as u32).into(),
                index: self.index.into(),
                image: (self.number as u32).into(),
            };
            header.checksum = chunk_sum(&header, &self.chunk[CHUNK_LEN..]).into();
            self.chunk[..CHUNK_LEN].copy_from_slice(header.as_bytes());
            file.write_at(self.at, &self.chunk).map_err(Error::io(&*self.name))?;
            self.at += self.chunk.len() as u64;
            self.index += 1;
            self.records += self.count as u64;
        }
        self.chunk.clear();
        self.chunk.resize(CHUNK_LEN, 0);
        self.count = 0;
        Ok(())
    }

    /// Where the next chunk goes.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// How many chunks were written, how many records, and where the data ends.
    pub(crate) fn finish(&mut self, file: &impl Storage) -> Result<(u32, u64, u64)> {
        self.write(file)?;
        if self.index == 0 {
            // An image of no records has the length its header says, too.
            file.set_len(self.at).map_err(Error::io(&*self.name))?;
        }
        Ok((self.index, self.records, self.at))
    }
}

/// Is the file as long as its header says?
pub(crate) fn check_len<F: Folder>(folder: &F, header: &ImageHeader) -> Result<()> {
    let name = image_name(header.shard.get(), header.number.get());
    let len = folder.file(&name).and_then(|file| file.len()).map_err(Error::io(&*name))?;
    if header.bytes.get() > len {
        return Err(Error::damaged(&name, len, "the image ends too early"));
    }
    Ok(())
}

/// Reads the chunks of an image into a table.
pub(crate) fn load(
    file: &impl Storage,
    header: &ImageHeader,
    table: &Table,
    writing: &mut Writing<'_>,
    (route, key_len): (Route, usize),
    told: &dyn Fn(u64),
) -> Result<()> {
    let name = image_name(header.shard.get(), header.number.get());
    let end = header.bytes.get();
    let (mut at, mut records) = (DATA_AT, 0);
    let mut bytes = Vec::new();
    for index in 0..header.chunks.get() {
        let damaged = || Error::damaged(&name, at, "a chunk of the image is not as it was written");
        let mut head = [0; CHUNK_LEN];
        if at + CHUNK_LEN as u64 > end {
            return Err(damaged());
        }
        file.read_at(at, &mut head).map_err(Error::io(&*name))?;
        let chunk = ChunkHeader::read_from_bytes(&head).map_err(|_| damaged())?;
        let count = chunk.count.get() as usize;
        if count > CHUNK_RECORDS {
            return Err(damaged());
        }
        let from = at + CHUNK_LEN as u64;
        bytes.resize(count * table.record(), 0);
        if from + bytes.len() as u64 > end {
            return Err(damaged());
        }
        file.read_at(from, &mut bytes).map_err(Error::io(&*name))?;
        let is_it = chunk.index.get() == index && chunk.image.get() == header.number.get() as u32;
        let is_sound = chunk_sum(&chunk, &bytes) == chunk.checksum.get()
            || hook::planted("store-chunk-unchecked");
        if !is_it || !is_sound {
            return Err(damaged());
        }
        for (number, record) in bytes.chunks_exact(table.record()).enumerate() {
            let shard = header.shard.get();
            if let Some(belongs) = route.elsewhere(shard, &record[8..8 + key_len]) {
                let (file, offset) = (name.clone(), from + (number * table.record()) as u64);
                return Err(Error::Misplaced { file, offset, shard, belongs });
            }
            if !Table::load(writing, record)? {
                return Err(Error::Full { shard: header.shard.get(), max: RECORDS_MAX });
            }
        }
        records += count as u64;
        told(from + bytes.len() as u64 - at);
        at = from + bytes.len() as u64;
    }
    if at != end || records != header.records.get() {
        return Err(Error::damaged(&name, at, "the image is not as long as its header says"));
    }
    Ok(())
}
