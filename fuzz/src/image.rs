//! A valid pool as bytes, and what can be done to it.
//!
//! The offsets are those of `docs/format/pool.md`, written down again here: what is fuzzed must
//! not decide where it is hit.

use crate::world;
use arbitrary::Arbitrary;
use mainstay_base::{Rng, crc32c};
use mainstay_pool::{Kind, Pool, PoolBox, PoolOptions, Record};
use std::sync::OnceLock;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const HEADER_FIELDS: [(usize, usize); 18] = [
    (0, 8),
    (8, 4),
    (12, 4),
    (16, 8),
    (32, 8),
    (40, 8),
    (48, 8),
    (56, 8),
    (64, 8),
    (72, 8),
    (80, 8),
    (88, 8),
    (96, 8),
    (104, 8),
    (112, 8),
    (128, 8),
    (136, 8),
    (508, 4),
];
const CHECKSUM: usize = 508;
const LIVE: usize = 1_024;
const SLOTS: usize = 2_048;
const EXTENTS: usize = 8_192;
const COLD_LEN: usize = 48;

/// The type of the typed and boxed blocks in an image.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Sample {
    /// Anything.
    pub first: u64,
    /// Anything.
    pub second: u64,
}

impl Record for Sample {
    const NAME: &'static str = "mainstay-fuzz.sample/1";
}

/// A change to the bytes of a pool.
#[derive(Arbitrary, Clone, Debug)]
pub enum Change {
    /// A header field becomes another number.
    Field(u8, Number),
    /// The count of extents becomes another number.
    Extents(Number),
    /// A slot entry: state, and the rest noise.
    Slot(u8, u32, u64),
    /// An owner word, put together from its parts.
    Owner(u8, Owner),
    /// A word of hints.
    Hints(u8, u64),
    /// A word of a cold header.
    Cold(u8, u8, Number),
    /// One byte anywhere.
    Byte(u32, u8),
    /// One aligned word anywhere.
    Word(u32, Number),
    /// Some bytes stand elsewhere as well.
    Copy(u32, u32, u16),
    /// Noise over some bytes.
    Noise(u32, u16, u64),
    /// The file ends early.
    Truncate(u32),
    /// The file goes on with zeros.
    Extend(u32),
}

/// A number as it may stand in a damaged file: near a limit more often than not.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Number {
    /// What stood there, and a little.
    Near(i8),
    /// What stood there, with one bit turned.
    Flip(u8),
    /// A power of two, and a little.
    Power(u8, i8),
    /// Any.
    Any(u64),
}

/// The parts of an owner word.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Owner {
    owners: u32,
    /// Mostly one owner or none is of interest.
    few: bool,
    kind: u8,
    multi: bool,
    doomed: bool,
    tag: u32,
}

impl Number {
    fn instead_of(self, old: u64) -> u64 {
        match self {
            Self::Near(step) => old.wrapping_add_signed(step.into()),
            Self::Flip(bit) => old ^ 1 << (bit % 64),
            Self::Power(exponent, step) => {
                (1_u64 << (exponent % 64)).wrapping_add_signed(step.into())
            }
            Self::Any(value) => value,
        }
    }
}

impl Owner {
    fn word(self) -> u64 {
        let owners = match (self.few, self.owners % 33) {
            (true, 32) => 0,
            (true, slot) => 1 << slot,
            (false, _) => u64::from(self.owners),
        };
        owners
            | u64::from(self.kind & 3) << 32
            | u64::from(self.multi) << 34
            | u64::from(self.doomed) << 35
            | u64::from(self.tag) << 36
    }
}

/// A pool's bytes.
#[derive(Clone, Debug)]
pub struct Image {
    /// The file.
    pub bytes: Vec<u8>,
    per_extent: usize,
    extent_size: usize,
    stride: usize,
}

impl Image {
    /// A valid pool: parked, typed, boxed, held and orphaned blocks, blocks at hand of a process
    /// that died, two extents. `large` has several groups to an extent.
    #[must_use]
    pub fn valid(large: bool) -> Self {
        static IMAGES: OnceLock<[Image; 2]> = OnceLock::new();
        let images = IMAGES.get_or_init(|| {
            [Self::make(64, 8).expect("a pool"), Self::make(200, 128).expect("a pool")]
        });
        images[usize::from(large)].clone()
    }

    fn make(block_size: usize, step: u32) -> mainstay_pool::Result<Self> {
        // A round extent count, so that no number in the header is a special one.
        let blocks_max = u64::from(step) * 10;
        let options = PoolOptions::new("fuzzed", block_size).growth_step(step).seed(1);
        let pool = options.max_blocks(blocks_max).create_memfd()?;
        for number in 0..u64::from(step) {
            let block = pool.allocate(Kind::Recoverable)?;
            block.write(0, number.to_le_bytes().as_slice())?;
            block.set_used_len(8)?;
            if number % 4 == 3 && number < 16 {
                block.free()?;
            }
        }
        let typed = pool.allocate_typed::<Sample>(Kind::Recoverable)?;
        typed.set(&Sample { first: 1, second: 2 });
        let boxed = PoolBox::new(&pool, &Sample { first: 3, second: 4 })?;
        pool.reserve(uuid::Uuid::from_u128(7))?;
        let held = pool.allocate(Kind::Recoverable)?;
        let twice = held.try_clone()?;
        let transient = pool.allocate(Kind::Transient)?;
        let doomed = pool.attach(held.id())?;
        doomed.free()?;
        // As a process that dies now would leave it: the slot in use, blocks held and at hand.
        let bytes = Self::bytes_of(&pool);
        drop((typed, boxed, held, twice, transient));
        let number = |at: usize| read(&bytes, at, 8) as usize;
        let (per_extent, extent_size, stride) = (number(48), number(56), number(40));
        assert!(read(&bytes, LIVE, 8) >= 2, "the image has two extents");
        assert_eq!(number(64), EXTENTS, "extents start where the format says");
        Ok(Self { bytes, per_extent, extent_size, stride })
    }

    fn bytes_of(pool: &Pool) -> Vec<u8> {
        let fd = pool.as_fd().try_clone_to_owned().expect("descriptors are left");
        world::contents(&fd.into())
    }

    /// Makes one change.
    pub fn change(&mut self, change: &Change) {
        match *change {
            Change::Field(field, number) => {
                let (at, len) = HEADER_FIELDS[usize::from(field) % HEADER_FIELDS.len()];
                self.number(at, len, number);
            }
            Change::Extents(number) => self.number(LIVE, 8, number),
            Change::Slot(slot, state, rest) => {
                let at = SLOTS + usize::from(slot % 32) * 64;
                self.put(at, &state.to_le_bytes());
                self.put(at + 8 * (1 + rest as usize % 7), &rest.to_le_bytes());
            }
            Change::Owner(block, owner) => {
                let at = self.extent_of(block) + self.place_of(block) * 8;
                self.put(at, &owner.word().to_le_bytes());
            }
            Change::Hints(group, hints) => {
                let groups = self.per_extent.div_ceil(64);
                let group = usize::from(group);
                let extent = EXTENTS + group / groups % 2 * self.extent_size;
                self.put(extent + self.per_extent * 8 + group % groups * 8, &hints.to_le_bytes());
            }
            Change::Cold(block, word, number) => {
                let cold = (self.per_extent * 8 + self.per_extent.div_ceil(64) * 8)
                    .next_multiple_of(64)
                    + self.place_of(block) * COLD_LEN;
                self.number(self.extent_of(block) + cold + usize::from(word) % 6 * 8, 8, number);
            }
            Change::Byte(at, value) => self.put(self.within(at), &[value]),
            Change::Word(at, number) => self.number(self.within(at) & !7, 8, number),
            Change::Copy(from, to, len) => {
                let from = self.within(from);
                let end = (from + usize::from(len)).min(self.bytes.len());
                let piece = self.bytes[from..end].to_vec();
                self.put(self.within(to), &piece);
            }
            Change::Noise(at, len, seed) => {
                let mut rng = Rng::seeded(seed);
                let noise: Vec<u8> = (0..len % 600).map(|_| rng.next_u64() as u8).collect();
                self.put(self.within(at), &noise);
            }
            Change::Truncate(len) => self.bytes.truncate(self.within(len)),
            Change::Extend(len) => {
                let more = len as usize % (2 * self.extent_size + 2 * self.stride);
                let longer = (self.bytes.len() + more).min(world::FILE_LEN_MAX as usize / 2);
                self.bytes.resize(longer.max(self.bytes.len()), 0);
            }
        }
    }

    /// Makes the header's checksum right, so that what lies behind it is reached.
    pub fn fix_checksum(&mut self) {
        if let Some(header) = self.bytes.get(..CHECKSUM) {
            let sum = crc32c(header);
            self.put(CHECKSUM, &sum.to_le_bytes());
        }
    }

    fn extent_of(&self, block: u8) -> usize {
        EXTENTS + usize::from(block) / self.per_extent % 2 * self.extent_size
    }

    fn place_of(&self, block: u8) -> usize {
        usize::from(block) % self.per_extent
    }

    fn within(&self, at: u32) -> usize {
        at as usize % (self.bytes.len() + 1)
    }

    fn number(&mut self, at: usize, len: usize, number: Number) {
        let new = number.instead_of(read(&self.bytes, at, len));
        self.put(at, &new.to_le_bytes()[..len]);
    }

    /// Writes as far as the file reaches.
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = (at + bytes.len()).min(self.bytes.len());
        if let Some(target) = self.bytes.get_mut(at..end) {
            target.copy_from_slice(&bytes[..target.len()]);
        }
    }
}

/// A little-endian number; what lies past the end counts as zero.
fn read(bytes: &[u8], at: usize, len: usize) -> u64 {
    (0..len).rev().fold(0, |sum, i| sum << 8 | u64::from(bytes.get(at + i).copied().unwrap_or(0)))
}
