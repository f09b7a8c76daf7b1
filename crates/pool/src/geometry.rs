//! Where everything is in a pool file, computed from block size, growth step and reservation.

use crate::{
    Error, Result,
    layout::{CHECKPOINT_LEN, CHECKPOINT_OFFSET, COLD_LEN, HEAD_LEN_MIN, Header, VERSION},
    limits::{
        BLOCK_SIZE_MAX, BLOCKS_MAX, BLOCKS_PER_EXTENT_DEFAULT, BLOCKS_PER_EXTENT_MAX,
        EXTENT_DATA_AIM, RESERVE_MAX,
    },
};

/// Offsets and sizes of a pool, in bytes unless a name says otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Geometry {
    /// Of the format.
    pub(crate) version: u32,
    pub(crate) block_size: u64,
    pub(crate) stride: u64,
    pub(crate) blocks_per_extent: u64,
    pub(crate) extent_size: u64,
    pub(crate) extents_offset: u64,
    pub(crate) extents_max: u64,
    pub(crate) align: u64,
    /// log2 of `blocks_per_extent`.
    pub(crate) shift: u32,
    /// Offsets inside an extent; the owner words are at 0.
    pub(crate) bitmap_offset: u64,
    pub(crate) cold_offset: u64,
    pub(crate) data_offset: u64,
}

impl Geometry {
    /// `step`: blocks a growth step adds, rounded up to a power of two; `blocks_max`: a limit.
    pub(crate) fn plan(
        block_size: usize,
        step: Option<u32>,
        reserve: u64,
        blocks_max: Option<u64>,
        page: u64,
    ) -> Result<Self> {
        let refuse = |what, value, min, max| Err(Error::Limit { what, value, min, max });
        if block_size == 0 || block_size > BLOCK_SIZE_MAX {
            return refuse("block size", block_size as u64, 1, BLOCK_SIZE_MAX as u64);
        }
        if let Some(step) = step
            && (step == 0 || step > BLOCKS_PER_EXTENT_MAX)
        {
            return refuse("growth step", step.into(), 1, BLOCKS_PER_EXTENT_MAX.into());
        }
        if let Some(max) = blocks_max
            && (max == 0 || max > BLOCKS_MAX)
        {
            return refuse("limit on blocks", max, 1, BLOCKS_MAX);
        }
        let stride = (block_size as u64).next_multiple_of(64);
        let blocks_per_extent = match step {
            Some(step) => u64::from(step).next_power_of_two(),
            None => {
                let aimed = (EXTENT_DATA_AIM / stride).clamp(1, BLOCKS_PER_EXTENT_DEFAULT);
                let capped = aimed.min(blocks_max.map_or(u64::MAX, u64::next_power_of_two));
                1 << capped.ilog2()
            }
        };
        let mut geometry = Self::derive(block_size as u64, blocks_per_extent, page.max(4_096), 0);
        let smallest = geometry.extents_offset + geometry.extent_size;
        if reserve < smallest || reserve > RESERVE_MAX {
            return refuse("reservation in bytes", reserve, smallest, RESERVE_MAX);
        }
        let by_reserve = (reserve - geometry.extents_offset) / geometry.extent_size;
        let by_limit = blocks_max.unwrap_or(BLOCKS_MAX).div_ceil(blocks_per_extent);
        geometry.extents_max = by_reserve.min(by_limit).min(BLOCKS_MAX / blocks_per_extent);
        Ok(geometry)
    }

    /// Everything that follows from the four numbers; they must be within their limits.
    fn derive(block_size: u64, blocks_per_extent: u64, align: u64, extents_max: u64) -> Self {
        let stride = block_size.next_multiple_of(64);
        let bitmap_offset = blocks_per_extent * 8;
        let cold_offset = (bitmap_offset + blocks_per_extent.div_ceil(64) * 8).next_multiple_of(64);
        let data_offset = (cold_offset + blocks_per_extent * COLD_LEN).next_multiple_of(align);
        Self {
            version: VERSION,
            block_size,
            stride,
            blocks_per_extent,
            extent_size: (data_offset + blocks_per_extent * stride).next_multiple_of(align),
            extents_offset: HEAD_LEN_MIN.next_multiple_of(align),
            extents_max,
            align,
            shift: blocks_per_extent.ilog2(),
            bitmap_offset,
            cold_offset,
            data_offset,
        }
    }

    /// Checks the free fields of a header and compares the derived ones with what they should be;
    /// on failure names the field.
    pub(crate) fn from_header(header: &Header) -> Result<Self, (&'static str, u64)> {
        let ok = |field, value, good: bool| if good { Ok(()) } else { Err((field, value)) };
        let block_size = header.block_size;
        ok("block_size", block_size, (1..=BLOCK_SIZE_MAX as u64).contains(&block_size))?;
        let per_extent = header.blocks_per_extent;
        let sane = per_extent.is_power_of_two() && per_extent <= BLOCKS_PER_EXTENT_MAX.into();
        ok("blocks_per_extent", per_extent, sane)?;
        let align = header.align;
        ok("align", align, align.is_power_of_two() && (4_096..=1 << 21).contains(&align))?;
        let mut geometry = Self::derive(block_size, per_extent, align, header.extents_max);
        geometry.version = header.version;
        ok("stride", header.stride, header.stride == geometry.stride)?;
        ok("extent_size", header.extent_size, header.extent_size == geometry.extent_size)?;
        let offset = header.extents_offset;
        ok("extents_offset", offset, offset == geometry.extents_offset)?;
        let most = (BLOCKS_MAX / per_extent)
            .min((RESERVE_MAX - geometry.extents_offset) / geometry.extent_size);
        ok("extents_max", header.extents_max, (1..=most).contains(&header.extents_max))?;
        let place = (header.checkpoint_offset, header.checkpoint_len);
        ok("checkpoint_offset", place.0, place == (CHECKPOINT_OFFSET, CHECKPOINT_LEN))?;
        Ok(geometry)
    }

    /// Bytes of address space for all extents there can ever be.
    pub(crate) fn reservation(&self) -> u64 {
        self.file_len(self.extents_max)
    }

    /// Bytes of a file with `extents` extents.
    pub(crate) fn file_len(&self, extents: u64) -> u64 {
        self.extents_offset + extents * self.extent_size
    }

    /// Where extent `extent` starts.
    #[inline(always)]
    pub(crate) fn extent_offset(&self, extent: u64) -> u64 {
        self.extents_offset + extent * self.extent_size
    }

    /// Which extent block `number` is in, and which of its blocks it is.
    #[inline(always)]
    pub(crate) fn locate(&self, number: u32) -> (u64, u64) {
        (u64::from(number) >> self.shift, u64::from(number) & (self.blocks_per_extent - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(block_size: usize) -> Geometry {
        Geometry::plan(block_size, None, 64 << 30, None, 4_096).unwrap()
    }

    #[test]
    fn a_block_costs_at_most_64_bytes_beyond_its_data() {
        for block_size in [64, 128, 256] {
            let g = plan(block_size);
            let overhead = g.extent_size - g.blocks_per_extent * g.stride;
            assert!(overhead <= 64 * g.blocks_per_extent, "{block_size}: {overhead}");
        }
    }

    #[test]
    fn p4_headers_and_data_never_share_a_page() {
        for block_size in [1, 64, 100, 4_096, 1 << 20] {
            let g = plan(block_size);
            assert_eq!(g.data_offset % 4_096, 0);
            assert_eq!(g.extent_size % 4_096, 0);
            assert_eq!(g.extents_offset % 4_096, 0);
        }
    }

    #[test]
    fn limits_hold_at_the_limit_and_refuse_one_past_it() {
        let reserve = 1 << 45;
        assert!(Geometry::plan(BLOCK_SIZE_MAX, None, reserve, None, 4_096).is_ok());
        let past = Geometry::plan(BLOCK_SIZE_MAX + 1, None, reserve, None, 4_096);
        assert!(matches!(past, Err(Error::Limit { what: "block size", .. })));
        assert!(Geometry::plan(0, None, reserve, None, 4_096).is_err());
        assert!(Geometry::plan(64, Some(BLOCKS_PER_EXTENT_MAX), reserve, None, 4_096).is_ok());
        let past = Geometry::plan(64, Some(BLOCKS_PER_EXTENT_MAX + 1), reserve, None, 4_096);
        assert!(matches!(past, Err(Error::Limit { what: "growth step", .. })));
        assert!(Geometry::plan(64, None, RESERVE_MAX, None, 4_096).is_ok());
        assert!(Geometry::plan(64, None, RESERVE_MAX + 1, None, 4_096).is_err());
        assert!(Geometry::plan(64, None, reserve, Some(BLOCKS_MAX), 4_096).is_ok());
        assert!(Geometry::plan(64, None, reserve, Some(BLOCKS_MAX + 1), 4_096).is_err());
        assert!(Geometry::plan(64, None, 4_096, None, 4_096).is_err());
    }

    proptest! {
        #[test]
        fn the_parts_of_an_extent_never_overlap(
            block_size in 1_usize..100_000,
            step in 1_u32..5_000,
        ) {
            let g = Geometry::plan(block_size, Some(step), 1 << 40, None, 4_096).unwrap();
            prop_assert!(g.blocks_per_extent >= step.into());
            prop_assert!(g.bitmap_offset >= g.blocks_per_extent * 8);
            prop_assert!(g.cold_offset >= g.bitmap_offset + g.blocks_per_extent.div_ceil(64) * 8);
            prop_assert!(g.data_offset >= g.cold_offset + g.blocks_per_extent * COLD_LEN);
            prop_assert!(g.extent_size >= g.data_offset + g.blocks_per_extent * g.stride);
            prop_assert!(g.stride >= block_size as u64 && g.stride.is_multiple_of(64));
            prop_assert!(g.reservation() <= 1 << 40);
        }
    }
}
