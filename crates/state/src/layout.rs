//! The bytes of a folder of states. `docs/format/state.md` has the same tables; a test compares
//! them.
//!
//! I1. Little-endian, the same for every compiler and flag; sizes and offsets are asserted below.
//! I2. A header is written once, before its file has a name, and carries a CRC32C; everything that
//!     changes later lies outside of it.

use crate::{
    Error, Result,
    limits::{
        FIELDS_MAX, LEASES, PATH_MAX, PIN_LINES, RECORDS, SLOTS_MAX, STATES_PER_TRANSACTION,
        TYPE_NAME_MAX,
    },
};
use mainstay_base::crc32c;
use mainstay_shm::{Shared32, Shared64, SharedLayout, lease::SlotEntry};
use std::mem::offset_of;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The one format version there is.
pub(crate) const VERSION: u32 = 1;
/// First eight bytes of a state's file.
pub(crate) const STATE_MAGIC: [u8; 8] = *b"MAINSTAT";
/// First eight bytes of a state's pin table.
pub(crate) const PINS_MAGIC: [u8; 8] = *b"MAINPINS";
/// First eight bytes of a folder's leases.
pub(crate) const LEASES_MAGIC: [u8; 8] = *b"MAINLEAS";
/// First eight bytes of a folder's records.
pub(crate) const RECORDS_MAGIC: [u8; 8] = *b"MAINRECS";

/// Bytes of every header: one page, so that what changes is on other pages.
pub(crate) const HEADER_LEN: usize = 4_096;

/// The head of a state's file: what never changes.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Debug)]
pub(crate) struct StateHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    pub(crate) slots_max: u32,
    pub(crate) id: u64,
    pub(crate) domain: u64,
    pub(crate) fingerprint: u64,
    pub(crate) type_size: u64,
    pub(crate) stride: u64,
    pub(crate) size_limit: u64,
    pub(crate) created: u64,
    pub(crate) name_len: u64,
    pub(crate) name: [u8; 248],
    pub(crate) type_name_len: u64,
    pub(crate) type_name: [u8; TYPE_NAME_MAX],
    pub(crate) fields_len: u64,
    pub(crate) fields: [u8; FIELDS_MAX],
    pub(crate) reserved: [u8; 1_568],
    pub(crate) checksum: u32,
    pub(crate) reserved_end: [u8; 4],
}
const _: () = assert!(size_of::<StateHeader>() == HEADER_LEN);
const _: () = assert!(offset_of!(StateHeader, id) == 16 && offset_of!(StateHeader, name) == 80);
const _: () = assert!(offset_of!(StateHeader, type_name) == 336);
const _: () = assert!(offset_of!(StateHeader, fields) == 472);
const _: () = assert!(offset_of!(StateHeader, checksum) == 4_088);

/// The head of the other three files.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Debug)]
pub(crate) struct TableHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    /// How many lines, leases or records.
    pub(crate) count: u32,
    /// The state or the folder that it belongs to.
    pub(crate) id: u64,
    pub(crate) checksum: u32,
    pub(crate) reserved: [u8; 4],
}
const _: () = assert!(size_of::<TableHeader>() == 32 && offset_of!(TableHeader, checksum) == 24);

/// Where a state's words start.
pub(crate) const WORDS_OFFSET: usize = HEADER_LEN;
/// Where a state's path starts.
pub(crate) const PATH_OFFSET: usize = WORDS_OFFSET + 256;
/// Where the lines of a state's slots start.
pub(crate) const SLOT_LINES_OFFSET: usize = WORDS_OFFSET + 4_352;
/// Where a state's data starts.
pub(crate) const DATA_OFFSET: usize = 16_384;
const _: () = assert!(PATH_OFFSET + PATH_MAX <= SLOT_LINES_OFFSET);
const _: () = assert!(SLOT_LINES_OFFSET + SLOTS_MAX as usize * 64 <= DATA_OFFSET);

/// What changes in a state's file, apart from slots.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct StateWords {
    /// The word: which version is current, and where it is.
    pub(crate) current: Shared64,
    pub(crate) reserved_a: [Shared64; 7],
    /// Changes after a commit that somebody waits for; a futex word.
    pub(crate) change: Shared32,
    pub(crate) reserved_b: [Shared32; 15],
    /// How many slots there are; only grows, after their space was allocated.
    pub(crate) slots: Shared64,
    /// How many bytes each slot has space for; only grows, after the space was allocated.
    pub(crate) capacity: Shared64,
    /// How many bytes a version has that is begun from one never written.
    pub(crate) size: Shared64,
    pub(crate) reserved_c: [Shared64; 5],
    /// 0 transient, else a [`Grade`](crate::Grade); set once, after the path.
    pub(crate) grade: Shared64,
    /// Bytes of the path; set once.
    pub(crate) path_len: Shared64,
    /// CRC32C of the state's id and the path; set with it.
    pub(crate) path_checksum: Shared64,
    pub(crate) reserved_d: [Shared64; 5],
}
const _: () = assert!(size_of::<StateWords>() == 256);
const _: () = assert!(offset_of!(StateWords, change) == 64 && offset_of!(StateWords, slots) == 128);
const _: () = assert!(offset_of!(StateWords, grade) == 192);
const _: () = assert!(offset_of!(StateWords, path_checksum) == 208);
// SAFETY: made of shared words only.
unsafe impl SharedLayout for StateWords {}

/// A slot of a state.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct SlotLine {
    /// Who writes it; 0 nobody.
    pub(crate) owner: Shared64,
    /// Which version is in it.
    pub(crate) version: Shared64,
    /// How many bytes that version has.
    pub(crate) len: Shared64,
    pub(crate) reserved: [Shared64; 5],
}
const _: () = assert!(size_of::<SlotLine>() == 64 && offset_of!(SlotLine, len) == 16);
// SAFETY: made of shared words only.
unsafe impl SharedLayout for SlotLine {}

/// Where the words of a pin table start.
pub(crate) const PIN_WORDS_OFFSET: usize = 64;
/// Where the lines of a pin table start.
pub(crate) const PIN_LINES_OFFSET: usize = 192;
/// Bytes of a pin table.
pub(crate) const PINS_LEN: usize = 20_480;
const _: () = assert!(PIN_LINES_OFFSET + PIN_LINES as usize * 64 <= PINS_LEN);

/// What changes in a pin table, apart from its lines.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct PinWords {
    /// How many lines were ever used.
    pub(crate) used: Shared32,
    pub(crate) reserved_a: [Shared32; 15],
    /// One more than the value of the change word that the newest waiter sleeps on.
    pub(crate) armed: Shared32,
    pub(crate) reserved_b: [Shared32; 15],
}
const _: () = assert!(size_of::<PinWords>() == 128 && offset_of!(PinWords, armed) == 64);
// SAFETY: made of shared words only.
unsafe impl SharedLayout for PinWords {}

/// A line of a pin table: what one handle reads.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct PinLine {
    /// The version and slot that is pinned, or nothing.
    pub(crate) announced: Shared64,
    /// Who keeps the line; 0 nobody.
    pub(crate) keeper: Shared64,
    pub(crate) reserved: [Shared64; 6],
}
const _: () = assert!(size_of::<PinLine>() == 64 && offset_of!(PinLine, keeper) == 8);
// SAFETY: made of shared words only.
unsafe impl SharedLayout for PinLine {}

/// Where the leases start: 64 bytes each.
pub(crate) const LEASES_OFFSET: usize = 64;
/// Where the counters of each lease start.
pub(crate) const COUNTERS_OFFSET: usize = LEASES_OFFSET + LEASES as usize * 64;
/// Bytes of a folder's leases.
pub(crate) const LEASES_LEN: usize = COUNTERS_OFFSET + LEASES as usize * 64 + 4_032;
const _: () = assert!(size_of::<SlotEntry>() == 64);

/// What a process has counted, in a line of its own: for display.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) conflicts: Shared64,
    pub(crate) scavenged_claims: Shared64,
    pub(crate) scavenged_pins: Shared64,
    pub(crate) ended_records: Shared64,
    pub(crate) wakes: Shared64,
    pub(crate) reserved: [Shared64; 3],
}
const _: () = assert!(size_of::<Counters>() == 64);
// SAFETY: made of shared words only.
unsafe impl SharedLayout for Counters {}

/// Where the records start.
pub(crate) const RECORDS_OFFSET: usize = 64;
/// Bytes of a folder's records.
pub(crate) const RECORDS_LEN: usize = RECORDS_OFFSET + RECORDS as usize * size_of::<RecordLine>();

/// A record: what one commit of several states is about.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct RecordLine {
    pub(crate) status: Shared64,
    pub(crate) count: Shared64,
    pub(crate) reserved: [Shared64; 6],
    /// Base word; state id in the upper 58 bits, new slot in the lower 6.
    pub(crate) entries: [[Shared64; 2]; STATES_PER_TRANSACTION],
}
const _: () = assert!(size_of::<RecordLine>() == 320 && offset_of!(RecordLine, entries) == 64);
// SAFETY: made of shared words only.
unsafe impl SharedLayout for RecordLine {}

impl StateHeader {
    /// Sets the checksum.
    pub(crate) fn sealed(mut self) -> Self {
        self.checksum = crc32c(&self.as_bytes()[..offset_of!(Self, checksum)]);
        self
    }

    /// The header of a file of `file_len` bytes, after every check that needs no other file.
    pub(crate) fn read(place: &str, bytes: &[u8; HEADER_LEN], file_len: u64) -> Result<Self> {
        let header = Self::read_from_bytes(bytes)
            .map_err(|_| corrupt(place, "header", "of another length"))?;
        check(place, &header.magic, &STATE_MAGIC, header.version)?;
        let checksum = crc32c(&bytes[..offset_of!(Self, checksum)]);
        if checksum != header.checksum {
            return Err(corrupt(place, "checksum", format!("{:#010x}", header.checksum)));
        }
        let checks = [
            ("slots_max", (1..=SLOTS_MAX).contains(&header.slots_max)),
            ("id", header.id != 0 && header.id < 1 << 58),
            ("stride", header.stride.is_multiple_of(4_096) && header.stride >= header.size_limit),
            ("size_limit", header.size_limit <= crate::limits::SIZE_LIMIT_MAX as u64),
            ("type_size", header.type_size <= header.size_limit),
            ("name_len", header.name_len <= 247),
            ("type_name_len", header.type_name_len <= TYPE_NAME_MAX as u64),
            ("fields_len", header.fields_len <= FIELDS_MAX as u64),
            ("length of the file", file_len >= DATA_OFFSET as u64),
        ];
        match checks.into_iter().find(|(_, good)| !good) {
            None => Ok(header),
            Some((field, _)) => Err(corrupt(place, field, "out of range")),
        }
    }

    pub(crate) fn name(&self) -> String {
        text(&self.name, self.name_len)
    }

    pub(crate) fn type_name(&self) -> String {
        text(&self.type_name, self.type_name_len)
    }

    pub(crate) fn fields(&self) -> String {
        text(&self.fields, self.fields_len)
    }

    /// Where the data of a slot starts.
    pub(crate) fn data_offset(&self, slot: u32) -> u64 {
        DATA_OFFSET as u64 + u64::from(slot) * self.stride
    }
}

impl TableHeader {
    pub(crate) fn new(magic: [u8; 8], count: u32, id: u64) -> Self {
        let mut header = Self { magic, version: VERSION, count, id, checksum: 0, reserved: [0; 4] };
        header.checksum = crc32c(&header.as_bytes()[..offset_of!(Self, checksum)]);
        header
    }

    /// The header of a file of `file_len` bytes that should have `count` lines in `len` bytes.
    pub(crate) fn read(
        place: &str,
        bytes: &[u8; size_of::<Self>()],
        magic: [u8; 8],
        count: u32,
        (file_len, len): (u64, usize),
    ) -> Result<Self> {
        let header = Self::read_from_bytes(bytes)
            .map_err(|_| corrupt(place, "header", "of another length"))?;
        check(place, &header.magic, &magic, header.version)?;
        if crc32c(&bytes[..offset_of!(Self, checksum)]) != header.checksum {
            return Err(corrupt(place, "checksum", format!("{:#010x}", header.checksum)));
        }
        if header.count != count {
            return Err(corrupt(place, "count", header.count.to_string()));
        }
        if file_len < len as u64 {
            return Err(corrupt(place, "length of the file", file_len.to_string()));
        }
        Ok(header)
    }
}

fn check(place: &str, magic: &[u8; 8], wanted: &[u8; 8], version: u32) -> Result<()> {
    if magic != wanted {
        return Err(corrupt(place, "magic", format!("{:?}", String::from_utf8_lossy(magic))));
    }
    if version != VERSION {
        return Err(Error::Version { place: place.into(), found: version, known: VERSION });
    }
    Ok(())
}

pub(crate) fn corrupt(place: &str, field: &'static str, found: impl Into<String>) -> Error {
    Error::Corrupt { place: place.into(), field, found: found.into() }
}

/// Fills a fixed field.
pub(crate) fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let len = text.len().min(N);
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
    field
}

fn text(field: &[u8], len: u64) -> String {
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(field.len());
    String::from_utf8_lossy(&field[..len]).into_owned()
}
