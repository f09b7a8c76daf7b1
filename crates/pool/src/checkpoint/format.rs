//! The bytes of a checkpoint file. `docs/format/checkpoint.md` has the same tables; a test compares
//! them.

use crate::geometry::Geometry;
use mainstay_base::{crc32c, crc64, mix64};
use std::mem::offset_of;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) const MAGIC: [u8; 8] = *b"MAINCKPT";
pub(crate) const CUT_MAGIC: [u8; 8] = *b"MAINCUT\0";
pub(crate) const VERSION: u32 = 1;
/// Cuts start at multiples of this: a write of one never touches a sector, or page, of another.
pub(crate) const CUT_ALIGN: u64 = 4_096;
/// Where the copy of the pool's header is.
pub(crate) const HEADER_COPY_OFFSET: u64 = 512;
/// Where the image starts.
pub(crate) const IMAGE_OFFSET: u64 = 4_096;

/// Written once, before anything else.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Debug)]
pub(crate) struct Superblock {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    pub(crate) flags: u32,
    pub(crate) id: [u8; 16],
    pub(crate) image_offset: u64,
    pub(crate) extent_len: u64,
    pub(crate) records_len: u64,
    pub(crate) log_a: u64,
    pub(crate) log_b: u64,
    pub(crate) log_len: u64,
    pub(crate) reserved: [u8; 44],
    pub(crate) checksum: u32,
}
pub(crate) const SUPERBLOCK_LEN: usize = 128;
const _: () = assert!(size_of::<Superblock>() == SUPERBLOCK_LEN);
const _: () = assert!(offset_of!(Superblock, image_offset) == 32);
const _: () = assert!(offset_of!(Superblock, checksum) == 124);

/// What a cut says of one block.
#[repr(C)]
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, PartialEq, Eq, Default, Debug,
)]
pub(crate) struct Record {
    pub(crate) number: u32,
    pub(crate) flags: u32,
    pub(crate) generation: u64,
    pub(crate) fingerprint: u64,
    pub(crate) uuid: [u64; 2],
    pub(crate) length: u32,
    pub(crate) data_crc: u32,
    pub(crate) data_sum: u64,
    pub(crate) version: u64,
    pub(crate) reserved: u32,
    pub(crate) checksum: u32,
}
pub(crate) const RECORD_LEN: usize = 72;
const _: () = assert!(size_of::<Record>() == RECORD_LEN);
const _: () = assert!(offset_of!(Record, data_sum) == 48 && offset_of!(Record, checksum) == 68);

/// The block is live, and recoverable.
pub(crate) const LIVE: u32 = 1;
/// It is exclusive.
pub(crate) const EXCLUSIVE: u32 = 2;
/// Its data follows: in a log only.
pub(crate) const WITH_DATA: u32 = 4;

/// The head of a cut in a log.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Debug)]
pub(crate) struct CutHead {
    pub(crate) magic: [u8; 8],
    pub(crate) cut: u64,
    pub(crate) file: u64,
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    pub(crate) extents: u64,
    pub(crate) stamp: u64,
    pub(crate) digest: u64,
    pub(crate) body_len: u64,
    pub(crate) body_sum: u64,
    pub(crate) reserved: u64,
    pub(crate) checksum: u64,
}
pub(crate) const CUT_HEAD_LEN: usize = 96;
const _: () = assert!(size_of::<CutHead>() == CUT_HEAD_LEN);
const _: () = assert!(offset_of!(CutHead, digest) == 56 && offset_of!(CutHead, checksum) == 88);

impl Superblock {
    pub(crate) fn new(id: [u8; 16], geometry: &Geometry) -> Self {
        let round = |bytes: u64| bytes.next_multiple_of(CUT_ALIGN);
        let records_len = round(geometry.blocks_per_extent * RECORD_LEN as u64);
        let extent_len = records_len + round(geometry.blocks_per_extent * geometry.stride);
        let image_len = extent_len * geometry.extents_max;
        // When a log has room for less than the largest cut, it is folded.
        let log_len = 2 * Self::cut_max(geometry) + image_len;
        let log_a = IMAGE_OFFSET + image_len;
        let mut superblock = Self {
            magic: MAGIC,
            version: VERSION,
            flags: 0,
            id,
            image_offset: IMAGE_OFFSET,
            extent_len,
            records_len,
            log_a,
            log_b: log_a + log_len,
            log_len,
            reserved: [0; 44],
            checksum: 0,
        };
        superblock.checksum = superblock.sum();
        superblock
    }

    /// Bytes of a cut in which every block changes.
    pub(crate) fn cut_max(geometry: &Geometry) -> u64 {
        let entry = RECORD_LEN as u64 + geometry.stride;
        let blocks = geometry.blocks_per_extent * geometry.extents_max;
        (CUT_HEAD_LEN as u64 + entry * blocks).next_multiple_of(CUT_ALIGN)
    }

    pub(crate) fn sum(&self) -> u32 {
        crc32c(&self.as_bytes()[..offset_of!(Self, checksum)])
    }

    /// Which half of the id stands in the cuts.
    pub(crate) fn short_id(&self) -> u64 {
        let (half, _) = u64::read_from_prefix(&self.id).expect("16 bytes are more than 8");
        half
    }
}

impl Record {
    /// With the checksum that it must have.
    pub(crate) fn sealed(mut self) -> Self {
        self.checksum = self.sum();
        self
    }

    fn sum(&self) -> u32 {
        crc32c(&self.as_bytes()[..offset_of!(Self, checksum)])
    }

    /// What was never written is a free block.
    pub(crate) fn is_sound(&self, number: u32) -> bool {
        self.is_unused()
            || (self.number == number && self.checksum == self.sum() && self.flags & !7 == 0)
    }

    /// Of a block that never had a life.
    pub(crate) fn is_unused(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn is_live(&self) -> bool {
        self.flags & LIVE != 0
    }

    /// As it stands in the image.
    pub(crate) fn without_data(mut self) -> Self {
        self.flags &= !WITH_DATA;
        self.sealed()
    }

    /// Its part of the digest: nothing for what was never written.
    pub(crate) fn digest(&self) -> u64 {
        if self.is_unused() {
            return 0;
        }
        mix64(crc64(self.without_data().as_bytes()))
    }
}

impl CutHead {
    pub(crate) fn sealed(mut self) -> Self {
        self.checksum = self.sum();
        self
    }

    pub(crate) fn sum(&self) -> u64 {
        crc64(&self.as_bytes()[..offset_of!(Self, checksum)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documented(table: &str) -> Vec<(usize, usize, String)> {
        let text = include_str!("../../../../docs/format/checkpoint.md");
        let start = text.find(&format!("## {table}")).unwrap();
        let section = text[start + 3..].split("\n#").next().unwrap();
        let row = |line: &str| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let offset = cells.get(1)?.parse().ok()?;
            Some((offset, cells[2].parse().unwrap(), cells[3].trim_matches('`').to_owned()))
        };
        section.lines().filter_map(row).collect()
    }

    macro_rules! fields {
        ($type:ident: $($field:ident $size:literal),*) => {
            vec![$((offset_of!($type, $field), $size, stringify!($field).to_owned())),*]
        };
    }

    #[test]
    fn the_byte_tables_of_the_checkpoint_format_are_those_of_the_code() {
        assert_eq!(
            documented("Superblock"),
            fields!(Superblock: magic 8, version 4, flags 4, id 16, image_offset 8, extent_len 8,
                records_len 8, log_a 8, log_b 8, log_len 8, reserved 44, checksum 4)
        );
        assert_eq!(
            documented("Record"),
            fields!(Record: number 4, flags 4, generation 8, fingerprint 8, uuid 16, length 4,
                data_crc 4, data_sum 8, version 8, reserved 4, checksum 4)
        );
        assert_eq!(
            documented("Cut"),
            fields!(CutHead: magic 8, cut 8, file 8, bytes 8, entries 8, extents 8, stamp 8,
                digest 8, body_len 8, body_sum 8, reserved 8, checksum 8)
        );
    }
}
