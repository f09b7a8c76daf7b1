//! The bytes of a pool file. `docs/format/pool.md` has the same tables; a test compares them.
//!
//! I1. Little-endian, the same for every compiler and flag; sizes and offsets are asserted below.
//! I2. The header proper (512 bytes) is written once, before the file has a name, and carries a
//!     CRC32C; everything that changes later lies outside of it.

use crate::{Error, Result, error::Corruption, geometry::Geometry};
use mainstay_base::{Name, crc32c};
use mainstay_shm::{Shared32, Shared64, SharedLayout};
use std::mem::offset_of;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First eight bytes of every pool.
pub(crate) const MAGIC: [u8; 8] = *b"MAINPOOL";
/// The format version that is written.
pub(crate) const VERSION: u32 = 2;
/// The oldest version that is read: it has neither batches, nor checkpoints, nor watch entries.
pub(crate) const VERSION_MIN: u32 = 1;

/// Where the words that change with growth start.
pub(crate) const LIVE_OFFSET: usize = 1_024;
/// Where the 32 slot entries of 64 bytes start.
pub(crate) const SLOTS_OFFSET: usize = 2_048;
/// Where the place of checkpoints and watches starts.
pub(crate) const CHECKPOINT_OFFSET: u64 = 4_096;
/// How many bytes it has.
pub(crate) const CHECKPOINT_LEN: u64 = 4_096;
/// Where the watch entries start, one a slot.
pub(crate) const WATCHES_OFFSET: usize = 5_120;
/// Where extents start, at the earliest.
pub(crate) const HEAD_LEN_MIN: u64 = CHECKPOINT_OFFSET + CHECKPOINT_LEN;

/// The header: what never changes after creation.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    pub(crate) flags: u32,
    pub(crate) uuid: [u8; 16],
    pub(crate) block_size: u64,
    pub(crate) stride: u64,
    pub(crate) blocks_per_extent: u64,
    pub(crate) extent_size: u64,
    pub(crate) extents_offset: u64,
    pub(crate) extents_max: u64,
    pub(crate) align: u64,
    pub(crate) created: u64,
    pub(crate) checkpoint_offset: u64,
    pub(crate) checkpoint_len: u64,
    pub(crate) reserved_a: [u8; 16],
    pub(crate) name_len: u64,
    pub(crate) name: [u8; 248],
    pub(crate) reserved_b: [u8; 124],
    pub(crate) checksum: u32,
}
pub(crate) const HEADER_LEN: usize = 512;
const _: () = assert!(size_of::<Header>() == HEADER_LEN);
const _: () = assert!(offset_of!(Header, uuid) == 16);
const _: () = assert!(offset_of!(Header, block_size) == 32);
const _: () = assert!(offset_of!(Header, extents_max) == 72);
const _: () = assert!(offset_of!(Header, checkpoint_offset) == 96);
const _: () = assert!(offset_of!(Header, name_len) == 128);
const _: () = assert!(offset_of!(Header, name) == 136);
const _: () = assert!(offset_of!(Header, checksum) == 508);

/// What changes while the pool lives, apart from slots and extents.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Live {
    /// How many extents there are; only grows, only by compare-and-swap.
    pub(crate) extents: Shared64,
    /// Changes whenever the pool grows or a process joins, leaves or is reaped; a futex word.
    pub(crate) notice: Shared32,
    pub(crate) reserved_a: Shared32,
    /// The slots that are inside of a batch, one bit each (version 2).
    pub(crate) batches: Shared32,
    /// Who makes a cut: slot + 1, 0 nobody; a futex word (version 2).
    pub(crate) cutter: Shared32,
    pub(crate) reserved_b: [Shared64; 5],
}
const _: () = assert!(size_of::<Live>() == 64 && offset_of!(Live, notice) == 8);
// SAFETY: made of shared words only.
unsafe impl SharedLayout for Live {}

/// What the file says of its checkpoints (version 2).
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// 0: has none. 1: has; after another boot than `boot` the memory in the file means nothing.
    pub(crate) state: Shared32,
    pub(crate) reserved_a: Shared32,
    /// The boot in which the pool was last open.
    pub(crate) boot: [Shared64; 2],
    /// Which checkpoint file belongs to it.
    pub(crate) file: [Shared64; 2],
    /// The last cut that was completed, for display.
    pub(crate) cut: Shared64,
    /// When, for display.
    pub(crate) stamp: Shared64,
    pub(crate) reserved_b: Shared64,
}
const _: () = assert!(size_of::<Checkpoints>() == 64 && offset_of!(Checkpoints, boot) == 8);
const _: () = assert!(offset_of!(Checkpoints, cut) == 40);
// SAFETY: made of shared words only.
unsafe impl SharedLayout for Checkpoints {}

/// What a slot says about who watches its writes (version 2).
#[repr(C)]
#[derive(Debug)]
pub(crate) struct WatchEntry {
    /// The slot's epoch when the entry was written: of another epoch it means nothing.
    pub(crate) epoch: Shared64,
    /// Where the pool is mapped in that process; 0 when its writes are not watched.
    pub(crate) base: Shared64,
    /// Who takes the bits: slot + 1, 0 nobody yet.
    pub(crate) taker: Shared32,
    pub(crate) reserved_a: Shared32,
    pub(crate) reserved_b: Shared64,
}
const _: () = assert!(size_of::<WatchEntry>() == 32 && offset_of!(WatchEntry, taker) == 16);
// SAFETY: made of shared words only.
unsafe impl SharedLayout for WatchEntry {}

/// What is written at allocation: identity and type of a block.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Cold {
    /// Type of the data; 0 none.
    pub(crate) fingerprint: Shared64,
    /// Counts the lives of the block; its low 27 bits are the tag in the owner word.
    pub(crate) generation: Shared64,
    pub(crate) uuid: [Shared64; 2],
    /// How many bytes of the data are in use.
    pub(crate) length: Shared32,
    /// CRC32C of the data as of `version`; kept for the tracker.
    pub(crate) checksum: Shared32,
    /// When the block was allocated or last seen changed, in ns after 1970 (clock: coarse); 0
    /// until a monitor looks.
    pub(crate) version: Shared64,
}
pub(crate) const COLD_LEN: u64 = 48;
const _: () = assert!(size_of::<Cold>() as u64 == COLD_LEN);
const _: () = assert!(offset_of!(Cold, uuid) == 16 && offset_of!(Cold, length) == 32);
const _: () = assert!(offset_of!(Cold, version) == 40);
// SAFETY: made of shared words only.
unsafe impl SharedLayout for Cold {}

impl Header {
    pub(crate) fn new(name: &Name, uuid: [u8; 16], geometry: &Geometry, created: u64) -> Self {
        let mut header = Self {
            magic: MAGIC,
            version: VERSION,
            flags: 0,
            uuid,
            block_size: geometry.block_size,
            stride: geometry.stride,
            blocks_per_extent: geometry.blocks_per_extent,
            extent_size: geometry.extent_size,
            extents_offset: geometry.extents_offset,
            extents_max: geometry.extents_max,
            align: geometry.align,
            created,
            checkpoint_offset: CHECKPOINT_OFFSET,
            checkpoint_len: CHECKPOINT_LEN,
            reserved_a: [0; 16],
            name_len: name.as_str().len() as u64,
            name: [0; 248],
            reserved_b: [0; 124],
            checksum: 0,
        };
        header.name[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
        header.checksum = header.sum();
        header
    }

    fn sum(&self) -> u32 {
        crc32c(&self.as_bytes()[..offset_of!(Header, checksum)])
    }

    /// Reads a header from the first bytes of `file` (of which there may be too few), which is
    /// `file_len` bytes long. Nothing in it is believed before the checksum is right, and nothing
    /// derived is believed at all: it is computed again and compared.
    pub(crate) fn parse(pool: &str, file: &[u8], file_len: u64) -> Result<(Self, Name, Geometry)> {
        let corrupt = |what| Error::corrupt(pool, what);
        if file_len == 0 {
            return Err(Error::Empty { pool: pool.into() });
        }
        let Ok((header, _)) = Self::ref_from_prefix(file) else {
            return Err(Error::NotAPool {
                pool: pool.into(),
                reason: "it is shorter than a header",
            });
        };
        if header.magic != MAGIC {
            let zero = file.iter().all(|b| *b == 0);
            let reason =
                if zero { "it starts with zeros" } else { "it does not start with the magic" };
            return Err(Error::NotAPool { pool: pool.into(), reason });
        }
        if !(VERSION_MIN..=VERSION).contains(&header.version) {
            return Err(Error::FormatVersion {
                pool: pool.into(),
                found: header.version,
                known: VERSION,
            });
        }
        let sum = header.sum();
        if sum != header.checksum {
            return Err(corrupt(Corruption::HeaderChecksum {
                stored: header.checksum,
                computed: sum,
            }));
        }
        if header.flags != 0 {
            return Err(Error::UnknownFeatures { pool: pool.into(), flags: header.flags });
        }
        let field = |field, value| corrupt(Corruption::HeaderField { field, value });
        let name = usize::try_from(header.name_len)
            .ok()
            .and_then(|len| header.name.get(..len))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .and_then(|text| Name::new(text).ok())
            .ok_or_else(|| field("name", header.name_len))?;
        let geometry = Geometry::from_header(header).map_err(|(name, value)| field(name, value))?;
        if file_len < geometry.extents_offset {
            return Err(corrupt(Corruption::Truncated {
                file_len,
                needed: geometry.extents_offset,
            }));
        }
        Ok((header.clone(), name, geometry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of `docs/format/pool.md` that start with an offset, a size and a field name.
    fn documented(table: &str) -> Vec<(usize, usize, String)> {
        let text = include_str!("../../../docs/format/pool.md");
        let start = text.find(&format!("### {table}")).unwrap();
        let section = text[start + 4..].split("\n#").next().unwrap();
        section
            .lines()
            .filter_map(|line| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                let offset = cells.get(1)?.parse().ok()?;
                Some((offset, cells[2].parse().unwrap(), cells[3].trim_matches('`').to_owned()))
            })
            .collect()
    }

    macro_rules! fields {
        ($type:ident: $($field:ident $size:literal),*) => {
            vec![$((offset_of!($type, $field), $size, stringify!($field).to_owned())),*]
        };
    }

    #[test]
    fn p5_the_byte_tables_of_the_format_document_are_those_of_the_code() {
        assert_eq!(
            documented("Header"),
            fields!(Header: magic 8, version 4, flags 4, uuid 16, block_size 8, stride 8,
                blocks_per_extent 8, extent_size 8, extents_offset 8, extents_max 8, align 8,
                created 8, checkpoint_offset 8, checkpoint_len 8, reserved_a 16, name_len 8,
                name 248, reserved_b 124, checksum 4)
        );
        assert_eq!(
            documented("Live words"),
            fields!(Live: extents 8, notice 4, reserved_a 4, batches 4, cutter 4, reserved_b 40)
        );
        assert_eq!(
            documented("Checkpoint words"),
            fields!(Checkpoints: state 4, reserved_a 4, boot 16, file 16, cut 8, stamp 8,
                reserved_b 8)
        );
        assert_eq!(
            documented("Watch entry"),
            fields!(WatchEntry: epoch 8, base 8, taker 4, reserved_a 4, reserved_b 8)
        );
        use mainstay_shm::lease::SlotEntry;
        assert_eq!(
            documented("Slot entry"),
            fields!(SlotEntry: state 4, pid 4, epoch 8, start_time 8, name 32, reserved 8)
        );
        assert_eq!(
            documented("Cold header"),
            fields!(Cold: fingerprint 8, generation 8, uuid 16, length 4, checksum 4, version 8)
        );
    }
}
