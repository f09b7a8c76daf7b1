//! Blocks that somebody says have changed: a bitmap in private memory.
//!
//! U1. A mark set before [`Marks::take`] begins is returned by it; one set meanwhile by it or by the
//!     next. So whoever marks after writing is never missed.
//! U2. Setting a mark is one or two atomic operations, whatever the pool's size; memory is used for
//!     extents that have been marked only.

use std::sync::{
    OnceLock,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

pub(crate) struct Marks {
    shift: u32,
    extents: Box<[OnceLock<Extent>]>,
    any: AtomicBool,
}

struct Extent {
    any: AtomicBool,
    words: Box<[AtomicU64]>,
}

impl Marks {
    pub(crate) fn new(blocks_per_extent: u64, extents_max: u64) -> Self {
        let extents = (0..extents_max).map(|_| OnceLock::new()).collect();
        Self { shift: blocks_per_extent.ilog2(), extents, any: AtomicBool::new(false) }
    }

    pub(crate) fn set(&self, number: u32) {
        let (extent, place) = (number >> self.shift, number & ((1 << self.shift) - 1));
        let Some(extent) = self.extents.get(extent as usize) else { return };
        let extent = extent.get_or_init(|| Extent {
            any: AtomicBool::new(false),
            words: (0..(1_usize << self.shift).div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
        });
        // Who takes the mark sees what was written before it. The bit first, then the two flags that
        // lead to it, always: a flag that is only seen to be set may be cleared by now.
        extent.words[place as usize / 64].fetch_or(1 << (place % 64), Release);
        extent.any.store(true, Release);
        self.any.store(true, Release);
    }

    pub(crate) fn any(&self) -> bool {
        self.any.load(Acquire)
    }

    /// Calls `found` with each marked block, and forgets the marks.
    pub(crate) fn take(&self, mut found: impl FnMut(u32)) {
        if !self.any.swap(false, AcqRel) {
            return;
        }
        for (number, extent) in self.extents.iter().enumerate() {
            let Some(extent) = extent.get() else { continue };
            if !extent.any.swap(false, AcqRel) {
                continue;
            }
            for (at, word) in extent.words.iter().enumerate() {
                if word.load(Relaxed) == 0 {
                    continue;
                }
                let mut bits = word.swap(0, Acquire);
                while bits != 0 {
                    let place = at as u32 * 64 + bits.trailing_zeros();
                    found(((number as u32) << self.shift) + place);
                    bits &= bits - 1;
                }
            }
        }
    }
}
