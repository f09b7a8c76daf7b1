//! The bytes of a store's files. The tables are in `docs/format/store.md`.
//!
//! Headers have 128 bytes, the magic first and a CRC32C of all before it last, in every version,
//! and lie in two copies in different sectors.

use mainstay_base::{Crc32c, crc32c};
use mainstay_storage::Storage;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U32, U64},
};

use crate::{
    error::{Error, Result},
    limits::{RECORDS_MAX, SHARD_BITS_MAX},
    route::Route,
    sums,
};

/// The version of all formats here.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a header.
pub(crate) const HEADER_LEN: usize = 128;
/// Where the second copy of a header is.
pub(crate) const COPY_AT: u64 = 512;
/// Where frames and chunks begin.
pub(crate) const DATA_AT: u64 = 4096;
/// The file that makes a directory a store.
pub(crate) const STORE_FILE: &str = "store";

/// The flag of a store with so many bits that choose.
pub(crate) fn first_bits(shard_bits: u32) -> u32 {
    if shard_bits > 0 { FIRST_BITS } else { 0 }
}

/// Can a header with these flags say this of the bits that choose?
pub(crate) fn are_shard_bits(shard_bits: u32, flags: u32) -> bool {
    shard_bits <= SHARD_BITS_MAX && flags & FIRST_BITS == first_bits(shard_bits)
}

/// The header of a kind of file.
pub(crate) trait Header: FromBytes + IntoBytes + Immutable + KnownLayout + Copy {
    const MAGIC: [u8; 8];
    /// The flags that are known.
    const FLAGS: u32 = 0;
}

/// A flag of a store: its values begin with the time at which the record ends.
pub(crate) const ENDS: u32 = 1;
/// A flag of a store of either kind: the first bits of a key choose its shard, not all of them. Who
/// does not know the flag would look for keys where they are not.
pub(crate) const FIRST_BITS: u32 = 2;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct StoreHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) flags: U32,
    pub(crate) id: [u8; 16],
    pub(crate) key_len: U32,
    pub(crate) value_len: U32,
    pub(crate) shards: U32,
    pub(crate) shard_bits: U32,
    pub(crate) segment_bytes: U64,
    pub(crate) epoch: U64,
    pub(crate) generation: U64,
    pub(crate) known_epoch: U64,
    pub(crate) role: U32,
    pub(crate) reserved: [u8; 40],
    pub(crate) checksum: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct SegmentHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) flags: U32,
    pub(crate) id: [u8; 16],
    pub(crate) shard: U32,
    pub(crate) chain: U32,
    pub(crate) number: U64,
    pub(crate) epoch: U64,
    pub(crate) first_sequence: U64,
    pub(crate) bytes: U64,
    pub(crate) origin: HistoryBytes,
    /// A write up to which all is known to be durable; 0 says nothing. Only the second copy of the
    /// header is ever written with another one, so that the first stays whatever comes of it.
    pub(crate) vouched: U64,
    pub(crate) reserved: [u8; 16],
    pub(crate) checksum: U32,
}

/// Where a shard is in the history that it shares with its replicas.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct HistoryBytes {
    pub(crate) epoch: U64,
    pub(crate) sequence: U64,
    pub(crate) sum: U64,
    pub(crate) is_mending: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ImageHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: U32,
    pub(crate) flags: U32,
    pub(crate) id: [u8; 16],
    pub(crate) shard: U32,
    pub(crate) chunks: U32,
    pub(crate) number: U64,
    pub(crate) epoch: U64,
    pub(crate) from: U64,
    pub(crate) through: U64,
    pub(crate) records: U64,
    pub(crate) bytes: U64,
    pub(crate) reserved: [u8; 36],
    pub(crate) checksum: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct FrameHeader {
    pub(crate) magic: [u8; 4],
    pub(crate) checksum: U32,
    pub(crate) len: U32,
    pub(crate) count: U32,
    pub(crate) chain: U32,
    pub(crate) shard: U32,
    pub(crate) epoch: U64,
    pub(crate) sequence: U64,
    pub(crate) durable: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ChunkHeader {
    pub(crate) checksum: U32,
    pub(crate) count: U32,
    pub(crate) index: U32,
    pub(crate) image: U32,
}

pub(crate) const FRAME_LEN: usize = size_of::<FrameHeader>();
pub(crate) const CHUNK_LEN: usize = size_of::<ChunkHeader>();
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"MSLF";
/// The first byte of a change in a frame.
pub(crate) const PUT: u8 = 1;
pub(crate) const DELETE: u8 = 2;
/// The same, of a frame that says where in its history the shard is.
pub(crate) const NOTE: u8 = 0x81;
/// The same, of a frame that has the parts of a batch that other shards get.
pub(crate) const PARTS: u8 = 0x82;
/// Bytes of their length, behind that byte.
pub(crate) const PARTS_LEN: usize = size_of::<u32>();
/// Bytes of a note, behind its first byte.
pub(crate) const HISTORY_LEN: usize = size_of::<HistoryBytes>();
/// Records of a chunk, at most.
pub(crate) const CHUNK_RECORDS: usize = 256;

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<StoreHeader>() == HEADER_LEN);
    assert!(offset_of!(StoreHeader, id) == 16);
    assert!(offset_of!(StoreHeader, key_len) == 32);
    assert!(offset_of!(StoreHeader, shard_bits) == 44);
    assert!(offset_of!(StoreHeader, segment_bytes) == 48);
    assert!(offset_of!(StoreHeader, generation) == 64);
    assert!(offset_of!(StoreHeader, known_epoch) == 72);
    assert!(offset_of!(StoreHeader, role) == 80);
    assert!(offset_of!(StoreHeader, checksum) == 124);
    assert!(size_of::<SegmentHeader>() == HEADER_LEN);
    assert!(offset_of!(SegmentHeader, shard) == 32);
    assert!(offset_of!(SegmentHeader, number) == 40);
    assert!(offset_of!(SegmentHeader, first_sequence) == 56);
    assert!(offset_of!(SegmentHeader, origin) == 72);
    assert!(offset_of!(SegmentHeader, vouched) == 100);
    assert!(HISTORY_LEN == 28);
    assert!(offset_of!(HistoryBytes, sum) == 16);
    assert!(offset_of!(HistoryBytes, is_mending) == 24);
    assert!(offset_of!(SegmentHeader, checksum) == 124);
    assert!(size_of::<ImageHeader>() == HEADER_LEN);
    assert!(offset_of!(ImageHeader, shard) == 32);
    assert!(offset_of!(ImageHeader, number) == 40);
    assert!(offset_of!(ImageHeader, from) == 56);
    assert!(offset_of!(ImageHeader, bytes) == 80);
    assert!(offset_of!(ImageHeader, checksum) == 124);
    assert!(FRAME_LEN == 48);
    assert!(offset_of!(FrameHeader, len) == 8);
    assert!(offset_of!(FrameHeader, chain) == 16);
    assert!(offset_of!(FrameHeader, epoch) == 24);
    assert!(offset_of!(FrameHeader, durable) == 40);
    assert!(CHUNK_LEN == 16);
};

impl Header for StoreHeader {
    const MAGIC: [u8; 8] = *b"MAINSTOR";
    const FLAGS: u32 = ENDS | FIRST_BITS;
}
impl StoreHeader {
    /// Do its values begin with the time at which the record ends?
    pub(crate) fn has_ends(&self) -> bool {
        self.flags.get() & ENDS != 0
    }

    /// How the shard of a key is found.
    pub(crate) fn route(&self) -> Route {
        Route::new(self.shards.get(), self.shard_bits.get())
    }
}
impl Header for SegmentHeader {
    const MAGIC: [u8; 8] = *b"MAINSLOG";
}
impl Header for ImageHeader {
    const MAGIC: [u8; 8] = *b"MAINSIMG";
}

/// Sequences, numbers and generations stay below this, so that one can be added without a thought.
pub(crate) const NUMBERS_END: u64 = 1 << 62;

/// Whoever wrote a header had its checksum right, and may not have been a store all the same.
pub(crate) trait Plausible {
    /// Can its numbers be?
    fn is_plausible(&self) -> bool;
}

impl Plausible for SegmentHeader {
    fn is_plausible(&self) -> bool {
        let first = self.first_sequence.get();
        (1..NUMBERS_END).contains(&first)
            && self.number.get() < NUMBERS_END
            && self.vouched.get() < NUMBERS_END
    }
}

impl Plausible for ImageHeader {
    fn is_plausible(&self) -> bool {
        let (from, through) = (self.from.get(), self.through.get());
        // A record has 9 bytes at least.
        let room = self.bytes.get() / 9;
        from <= through
            && through < NUMBERS_END
            && self.number.get() < NUMBERS_END
            && self.records.get() <= room.min(RECORDS_MAX.into())
    }
}

/// What is said of a header that is not plausible.
pub(crate) const IMPLAUSIBLE: &str = "the header has numbers outside of their limits";

/// The bytes of a header, its checksum filled in.
pub(crate) fn sealed<H: Header>(header: &H) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes.copy_from_slice(header.as_bytes());
    let sum = crc32c(&bytes[..HEADER_LEN - 4]);
    bytes[HEADER_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Writes both copies of a header.
pub(crate) fn write_header<H: Header>(file: &impl Storage, header: &H) -> std::io::Result<()> {
    let bytes = sealed(header);
    file.write_at(0, &bytes)?;
    file.write_at(COPY_AT, &bytes)
}

/// The sound copies of a header, the first first.
///
/// # Errors
/// If a sound copy is of another version, or the disk refuses.
pub(crate) fn read_headers<H: Header>(file: &impl Storage, name: &str) -> Result<Vec<H>> {
    let len = file.len().map_err(Error::io(name))?;
    let mut sound = Vec::new();
    for at in [0, COPY_AT] {
        if at + HEADER_LEN as u64 > len {
            continue;
        }
        let mut bytes = [0; HEADER_LEN];
        file.read_at(at, &mut bytes).map_err(Error::io(name))?;
        let sum = crc32c(&bytes[..HEADER_LEN - 4]).to_le_bytes();
        if bytes[..8] != H::MAGIC || bytes[HEADER_LEN - 4..] != sum {
            continue;
        }
        let version = u32_at(&bytes, 8);
        if version != VERSION || u32_at(&bytes, 12) & !H::FLAGS != 0 {
            return Err(Error::Version { file: name.to_owned(), version });
        }
        sound.extend(H::read_from_bytes(&bytes));
    }
    Ok(sound)
}

/// The last sound copy of a header, and where there is one that is not sound. One that was never
/// written is zeros, and not meant.
pub(crate) fn bad_copies<H: Header>(
    file: &impl Storage,
    name: &str,
) -> Result<(Option<H>, Vec<u64>)> {
    let len = file.len().map_err(Error::io(name))?;
    let mut sound = read_headers::<H>(file, name)?;
    let mut bad = Vec::new();
    for at in [0, COPY_AT] {
        let mut bytes = [0; HEADER_LEN];
        if at + HEADER_LEN as u64 <= len {
            file.read_at(at, &mut bytes).map_err(Error::io(name))?;
        }
        let is_sound = sound.iter().any(|header| bytes == sealed(header));
        if !is_sound && bytes != [0; HEADER_LEN] {
            bad.push(at);
        }
    }
    Ok((sound.pop(), bad))
}

/// What is said of such a copy.
pub(crate) const BAD_COPY: &str = "this copy of the header is not as it was written";

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

/// The checksum of a frame: of everything behind the checksum itself.
pub(crate) fn frame_sum(frame: &[u8]) -> u32 {
    sums::count(frame.len());
    crc32c(&frame[8..])
}

/// The checksum of a chunk, likewise.
pub(crate) fn chunk_sum(header: &ChunkHeader, records: &[u8]) -> u32 {
    let mut sum = Crc32c::new();
    sum.update(&header.as_bytes()[4..]);
    sum.update(records);
    sum.finish()
}

/// What the chain of a shard's log begins with.
pub(crate) fn chain_start(id: &[u8; 16], shard: u32) -> u32 {
    let mut sum = Crc32c::new();
    sum.update(id);
    sum.update(&shard.to_le_bytes());
    sum.finish()
}

/// The name of a segment.
pub(crate) fn segment_name(shard: u32, number: u64) -> String {
    format!("shard-{shard:04}-{number:016x}.log")
}

/// The name of an image.
pub(crate) fn image_name(shard: u32, number: u64) -> String {
    format!("shard-{shard:04}-{number:016x}.image")
}

/// The name of the file with the memory of a shard.
pub(crate) fn live_name(shard: u32) -> String {
    format!("shard-{shard:04}.live")
}

/// The name of the file with the index of a shard.
pub(crate) fn index_name(shard: u32) -> String {
    format!("shard-{shard:04}.index")
}

/// Is this a file with the memory of a shard?
pub(crate) fn is_memory_name(name: &str) -> bool {
    let stem = name.strip_suffix(".live").or_else(|| name.strip_suffix(".index"));
    let shard = stem.and_then(|stem| stem.strip_prefix("shard-")).and_then(|it| it.parse().ok());
    shard.is_some_and(|shard| [live_name(shard), index_name(shard)].iter().any(|its| its == name))
}

/// What a name says: the shard, the number, and whether it is an image.
pub(crate) fn parse_name(name: &str) -> Option<(u32, u64, bool)> {
    let (shard, rest) = name.strip_prefix("shard-")?.split_once('-')?;
    let (number, kind) = rest.split_once('.')?;
    let shard = shard.parse().ok()?;
    let number = u64::from_str_radix(number, 16).ok()?;
    let parsed = (shard, number, kind == "image");
    let again = if parsed.2 { image_name(shard, number) } else { segment_name(shard, number) };
    (again == name).then_some(parsed)
}
