//! What a copy of a store has: a file that names its segments, with where each ends. It is written
//! when all of them are durable, under a new name each time; the newest sound one counts. The table is
//! in `docs/format/log-store.md`.

use mainstay_base::crc32c;
use mainstay_storage::{Folder, Storage};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use super::{
    format::{AnyHeader, Frame, Kind, LogHeader},
    frames::{NOT_AS_WRITTEN, Stretch},
    raw::check_header,
};
use crate::{
    error::{Error, Result},
    format::{
        DATA_AT, HEADER_LEN, Header, NUMBERS_END, VERSION, chain_start, read_headers, sealed,
        write_header,
    },
};

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct CopyHeader {
    magic: [u8; 8],
    version: U32,
    flags: U32,
    id: [u8; 16],
    count: U32,
    body_sum: U32,
    generation: U64,
    pub(super) records: U64,
    reserved: [u8; 68],
    checksum: U32,
}

/// A segment of the copy.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct CopyEntry {
    pub(super) shard: U32,
    /// The checksum of its last frame.
    pub(super) chain: U32,
    pub(super) number: U64,
    pub(super) first: U64,
    pub(super) last: U64,
    /// Where it ends in the copy.
    pub(super) bytes: U64,
}

const ENTRY_LEN: usize = size_of::<CopyEntry>();

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<CopyHeader>() == HEADER_LEN);
    assert!(offset_of!(CopyHeader, count) == 32);
    assert!(offset_of!(CopyHeader, generation) == 40);
    assert!(offset_of!(CopyHeader, checksum) == 124);
    assert!(ENTRY_LEN == 40);
    assert!(offset_of!(CopyEntry, number) == 8);
    assert!(offset_of!(CopyEntry, bytes) == 32);
};

impl Header for CopyHeader {
    const MAGIC: [u8; 8] = *b"MAINSCPY";
}

impl CopyEntry {
    pub(super) fn name(&self) -> String {
        Kind::Log.name(self.shard.get(), self.number.get())
    }

    pub(super) fn place(&self) -> (u32, u64) {
        (self.shard.get(), self.number.get())
    }

    fn is_plausible(&self) -> bool {
        let (first, last) = (self.first.get(), self.last.get());
        let is_empty = self.bytes.get() == DATA_AT;
        (1..NUMBERS_END).contains(&first)
            && last < NUMBERS_END
            && self.number.get() < NUMBERS_END
            && (DATA_AT..=crate::limits::SEGMENT_BYTES_MAX).contains(&self.bytes.get())
            && if is_empty { last + 1 == first } else { last >= first }
    }

    /// Shows the frames of the segment, with their bytes and where they begin: those behind `from`,
    /// which follow a write and the checksum of its frame. They must be what this says.
    pub(super) fn read_behind(
        &self,
        file: &impl Storage,
        store: &AnyHeader,
        (from, sequence, chain): (u64, u64, u32),
        show: impl FnMut(u64, &Frame<'_>, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let (name, shard) = (self.name(), self.shard.get());
        let (seed, end) = (chain_start(&store.id, shard), self.bytes.get());
        let stretch = Stretch { file, name: &name, seed, shard, from, end, sequence, chain };
        let found = stretch.each(show)?;
        let is_it = found == (self.last.get(), self.chain.get());
        if is_it { Ok(()) } else { Err(Error::damaged(&name, end, NOT_AS_WRITTEN)) }
    }

    /// The same of all of them.
    pub(super) fn read(
        &self,
        file: &impl Storage,
        store: &AnyHeader,
        head: &LogHeader,
        show: impl FnMut(u64, &Frame<'_>, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let before = (DATA_AT, head.first_sequence.get() - 1, head.chain.get());
        self.read_behind(file, store, before, show)
    }

    /// The header of the segment, in a file that is to be it.
    pub(super) fn header_in(&self, file: &impl Storage, store: &AnyHeader) -> Result<LogHeader> {
        let name = self.name();
        let damaged = |what| Error::damaged(&name, 0, what);
        let head = read_headers::<LogHeader>(file, &name)?.pop();
        let head = head.ok_or_else(|| damaged("neither copy of the header is sound"))?;
        let is_it = head.id == store.id
            && (head.shard.get(), head.number.get()) == self.place()
            && head.first_sequence == self.first;
        let what = "the file belongs to another store, shard or place";
        if is_it { Ok(head) } else { Err(damaged(what)) }
    }
}

/// What a copy has.
pub(super) struct Copied {
    /// Of the store that was copied, as it was then.
    pub(super) store: AnyHeader,
    pub(super) generation: u64,
    pub(super) records: u64,
    /// By shard and number; the last of each shard was the one in use.
    pub(super) entries: Vec<CopyEntry>,
}

/// The generation of the file, an empty one, that says that a copy was begun.
const BEGUN: u64 = 0;

fn name_of(generation: u64) -> String {
    format!("copy-{generation:016x}")
}

/// The generation in the name of such a file.
fn parse(name: &str) -> Option<u64> {
    let generation = u64::from_str_radix(name.strip_prefix("copy-")?, 16).ok()?;
    (name_of(generation) == name && generation < NUMBERS_END).then_some(generation)
}

impl Copied {
    /// What the newest sound file in a folder says, if there is one.
    pub(super) fn read(folder: &impl Folder) -> Result<Option<Self>> {
        let names = folder.names().map_err(Error::io("the directory"))?;
        let mut generations: Vec<u64> =
            names.iter().filter_map(|name| parse(name)).filter(|one| *one != BEGUN).collect();
        generations.sort_unstable();
        for generation in generations.into_iter().rev() {
            if let Some(found) = Self::read_one(folder, generation)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The same of a copy that is to be read: all segments are there. To ask for one that is not
    /// would make it.
    pub(super) fn complete(folder: &impl Folder) -> Result<Self> {
        let names = folder.names().map_err(Error::io("the directory"))?;
        let names: std::collections::BTreeSet<String> = names.into_iter().collect();
        let is_begun = names.contains(&name_of(BEGUN));
        let none = if is_begun { Error::NotWhole } else { Error::NotACopy };
        let copied = Self::read(folder)?.ok_or(none)?;
        let mut wanted = copied.entries.iter().map(CopyEntry::name);
        match wanted.find(|name| !names.contains(name)) {
            Some(name) => Err(Error::damaged(&name, 0, "the segment is missing")),
            None => Ok(copied),
        }
    }

    fn read_one(folder: &impl Folder, generation: u64) -> Result<Option<Self>> {
        let name = name_of(generation);
        let file = folder.file(&name).map_err(Error::io(&*name))?;
        let Some(head) = read_headers::<CopyHeader>(&file, &name)?.pop() else { return Ok(None) };
        let len = file.len().map_err(Error::io(&*name))?;
        let body_len = HEADER_LEN as u64 + u64::from(head.count.get()) * ENTRY_LEN as u64;
        if head.generation.get() != generation || DATA_AT + body_len != len {
            return Ok(None);
        }
        let mut body = vec![0; body_len as usize];
        file.read_at(DATA_AT, &mut body).map_err(Error::io(&*name))?;
        let (front, rest) = body.split_at(HEADER_LEN);
        let (Ok(store), true) =
            (AnyHeader::read_from_bytes(front), crc32c(&body) == head.body_sum.get())
        else {
            return Ok(None);
        };
        check_header(&store)?;
        let entries = rest.chunks_exact(ENTRY_LEN).map(CopyEntry::read_from_bytes);
        let entries: Vec<CopyEntry> = entries.filter_map(std::result::Result::ok).collect();
        let found = Self { store, generation, records: head.records.get(), entries };
        if !found.is_plausible() || head.id != store.id {
            let what = crate::format::IMPLAUSIBLE;
            return Err(Error::damaged(&name, 0, what));
        }
        Ok(Some(found))
    }

    fn is_plausible(&self) -> bool {
        let shards: std::collections::BTreeSet<u32> =
            self.entries.iter().map(|entry| entry.shard.get()).collect();
        shards.iter().copied().eq(0..self.store.shards.get())
            && self.entries.iter().all(CopyEntry::is_plausible)
            && self.entries.windows(2).all(|two| two[0].place() < two[1].place())
    }

    /// Writes it durably, under the name of its generation.
    pub(super) fn write(&self, folder: &impl Folder) -> Result<()> {
        let mut body = sealed(&self.store).to_vec();
        body.extend_from_slice(self.entries.as_bytes());
        let header = CopyHeader {
            magic: CopyHeader::MAGIC,
            version: VERSION.into(),
            flags: 0.into(),
            id: self.store.id,
            count: (self.entries.len() as u32).into(),
            body_sum: crc32c(&body).into(),
            generation: self.generation.into(),
            records: self.records.into(),
            reserved: [0; 68],
            checksum: 0.into(),
        };
        let name = name_of(self.generation);
        let write = || {
            let file = folder.file(&name)?;
            file.set_len(0)?;
            file.set_len(DATA_AT + body.len() as u64)?;
            file.write_at(DATA_AT, &body)?;
            write_header(&file, &header)?;
            file.sync()?;
            folder.sync_names()
        };
        write().map_err(Error::io(&*name))
    }

    /// The segment of a shard with a number.
    pub(super) fn find(&self, place: (u32, u64)) -> Option<&CopyEntry> {
        let found = self.entries.binary_search_by_key(&place, CopyEntry::place).ok()?;
        self.entries.get(found)
    }

    /// Removes the files that older copies had and this one has not.
    pub(super) fn tidy(&self, folder: &impl Folder) -> Result<()> {
        for name in folder.names().map_err(Error::io("the directory"))? {
            let is_old_list = parse(&name).is_some_and(|generation| generation != self.generation);
            let is_old_file =
                super::format::parse_name(&name).is_some_and(|(shard, number, kind)| {
                    kind != Kind::Log || self.find((shard, number)).is_none()
                });
            if is_old_list || is_old_file {
                folder.remove(&name).map_err(Error::io(name))?;
            }
        }
        folder.sync_names().map_err(Error::io("the directory"))
    }
}

/// Says durably, before the first file of a copy is made, that there is to be one.
pub(super) fn begin(folder: &impl Folder) -> Result<()> {
    let name = name_of(BEGUN);
    folder.file(&name).and_then(|_empty| folder.sync_names()).map_err(Error::io(name))
}

/// Is there a file that says of a copy what it has, sound or not, and encrypted or not?
pub(crate) fn is_called_copy(folder: &impl Folder) -> Result<bool> {
    let names = folder.names().map_err(Error::io("the directory"))?;
    Ok(names.iter().any(|name| parse(name).is_some()))
}
