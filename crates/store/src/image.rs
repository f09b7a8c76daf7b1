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
    table::{Table, Writing},
};

/// Writes chunks; returns how many, how many records, and where the data ends.
pub(crate) fn write_chunks(
    file: &impl Storage,
    number: u64,
    name: &str,
    mut next: impl FnMut(u32, usize, &mut Vec<u8>) -> Result<(usize, Option<u32>)>,
) -> Result<(u32, u64, u64)> {
    let (mut index, mut records, mut at, mut slot) = (0, 0, DATA_AT, Some(0));
    let mut chunk = Vec::new();
    while let Some(from) = slot {
        chunk.clear();
        chunk.resize(CHUNK_LEN, 0);
        let (count, following) = next(from, CHUNK_RECORDS, &mut chunk)?;
        slot = following;
        if count == 0 {
            continue;
        }
        let mut header = ChunkHeader {
            checksum: 0.into(),
            count: (count as u32).into(),
            index: index.into(),
            image: (number as u32).into(),
        };
        header.checksum = chunk_sum(&header, &chunk[CHUNK_LEN..]).into();
        chunk[..CHUNK_LEN].copy_from_slice(header.as_bytes());
        file.write_at(at, &chunk).map_err(Error::io(name))?;
        at += chunk.len() as u64;
        index += 1;
        records += count as u64;
    }
    if index == 0 {
        // An image of no records has the length its header says, too.
        file.set_len(at).map_err(Error::io(name))?;
    }
    Ok((index, records, at))
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
        for record in bytes.chunks_exact(table.record()) {
            if !Table::load(writing, record)? {
                return Err(Error::Full { shard: header.shard.get(), max: RECORDS_MAX });
            }
        }
        records += count as u64;
        at = from + bytes.len() as u64;
    }
    if at != end || records != header.records.get() {
        return Err(Error::damaged(&name, at, "the image is not as long as its header says"));
    }
    Ok(())
}
