//! The sound blocks of an image that is damaged.
//!
//! Blocks have no fixed places. Behind one that is not sound the next is looked for at each byte: one
//! is believed if it is of this image, comes later, and its checksum is right. A record is longer than
//! a value, so no value has in it what looks like one.

use mainstay_storage::Storage;
use zerocopy::FromBytes;

use crate::{
    format::{CHUNK_LEN, CHUNK_RECORDS, ChunkHeader, DATA_AT, ImageHeader, chunk_sum},
    pages::read_pages,
    planted::{self, Fault},
};

/// Bytes that are looked through at a time.
const WINDOW: usize = 1 << 20;

/// What is found of an image, one after the other.
pub(super) enum Piece {
    /// Records.
    Sound(Vec<u8>),
    /// Bytes that are none, and where they begin.
    Damaged(u64, Vec<u8>),
}

/// Goes through an image.
pub(super) struct Blocks<'a, S> {
    file: &'a S,
    number: u32,
    /// Bytes of a record.
    record: usize,
    /// Where the next one is to be, and its number.
    at: u64,
    index: u32,
    /// How many there are, if that is known, and where they end.
    count: u32,
    end: u64,
    /// Where the disk cannot read.
    pub(super) unread: Vec<u64>,
}

impl<'a, S: Storage> Blocks<'a, S> {
    /// Those of an image with this number. One without a header has as many as the file.
    pub(super) fn of(
        (file, len): (&'a S, u64),
        number: u64,
        header: Option<&ImageHeader>,
        record: usize,
    ) -> Self {
        let count = header.map_or(u32::MAX, |header| header.chunks.get());
        let end = header.map_or(len, |header| header.bytes.get().min(len));
        let (at, index, unread) = (DATA_AT, 0, Vec::new());
        Self { file, number: number as u32, record, at, index, count, end, unread }
    }

    /// Where the last one ended, and how many there were.
    pub(super) fn reached(&self) -> (u64, u32) {
        (self.at, self.index)
    }

    fn read(&mut self, at: u64, len: usize) -> Vec<u8> {
        let len = len.min(self.end.saturating_sub(at) as usize);
        let unread = &mut self.unread;
        read_pages(self.file, at, len, |at| {
            if unread.last() != Some(&at) {
                unread.push(at);
            }
        })
    }

    /// The number of the block at the front of some bytes, and its records.
    fn sound<'b>(&self, bytes: &'b [u8]) -> Option<(u32, &'b [u8])> {
        let (header, rest) = ChunkHeader::read_from_prefix(bytes).ok()?;
        let (count, index) = (header.count.get() as usize, header.index.get());
        let can_be = header.image.get() == self.number
            && (1..=CHUNK_RECORDS).contains(&count)
            && (self.index..self.count).contains(&index);
        if !can_be {
            return None;
        }
        let records = rest.get(..count * self.record)?;
        let is_sound = chunk_sum(&header, records) == header.checksum.get();
        (is_sound || planted::is(Fault::SalvageUnchecked)).then_some((index, records))
    }

    /// Where the first sound block behind this place is, and its number.
    fn next_sound(&mut self) -> Option<(u64, u32)> {
        let longest = CHUNK_LEN + CHUNK_RECORDS * self.record;
        let mut from = self.at + 1;
        while from < self.end {
            let bytes = self.read(from, WINDOW + longest);
            let found = (0..bytes.len().min(WINDOW)).find_map(|at| {
                let (index, _) = self.sound(&bytes[at..])?;
                (index > self.index).then_some((from + at as u64, index))
            });
            if found.is_some() {
                return found;
            }
            from += WINDOW as u64;
        }
        None
    }
}

impl<S: Storage> Iterator for Blocks<'_, S> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.at >= self.end || self.index >= self.count {
            return None;
        }
        let bytes = self.read(self.at, CHUNK_LEN + CHUNK_RECORDS * self.record);
        if let Some((_, records)) = self.sound(&bytes).filter(|(index, _)| *index == self.index) {
            self.at += (CHUNK_LEN + records.len()) as u64;
            self.index += 1;
            return Some(Piece::Sound(records.to_vec()));
        }
        let start = self.at;
        (self.at, self.index) = self.next_sound().unwrap_or((self.end, self.count));
        let len = (self.at - start).min(WINDOW as u64) as usize;
        let bytes = self.read(start, len);
        Some(Piece::Damaged(start, bytes))
    }
}
