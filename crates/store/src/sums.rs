//! The checksums of many ranges of the same bytes, in a time that hardly depends on how long these are.
//!
//! Whoever looks for frames in bytes that may be anything has to ask the checksum of as many bytes as
//! these say. A value can say so every few bytes, and each time of all that is behind: nobody else's
//! value may make an opening take hours. The checksum of a range follows from those of what is before
//! its beginning and before its end, which are taken once.

use std::sync::LazyLock;

use mainstay_base::Crc32c;

/// The polynomial of CRC32C, the lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82F6_3B78;
/// x^0.
const ONE: u32 = 1 << 31;
/// x^8: what a checksum is multiplied with when a byte is added behind.
const BYTE: u32 = ONE >> 8;
/// Ranges begin and end at multiples of it.
const UNIT: usize = 8;
/// After how many bytes the checksum of all before is kept.
const EVERY: usize = 64;

/// What a checksum is multiplied with when units are added: for each of the four bytes of their
/// number, and each value that it can have.
static POWERS: LazyLock<[[u32; 256]; 4]> = LazyLock::new(|| {
    let mut power = (0..UNIT).fold(ONE, |power, _| times(power, BYTE));
    let mut powers = [[ONE; 256]; 4];
    for table in &mut powers {
        for number in 1..256 {
            table[number] = times(table[number - 1], power);
        }
        power = times(table[255], power);
    }
    powers
});

/// The product of two polynomials, modulo the one of the checksum.
fn times(one: u32, mut other: u32) -> u32 {
    let mut product = 0;
    for bit in (0..32).rev() {
        product ^= other & (one >> bit & 1).wrapping_neg();
        other = (other >> 1) ^ (POLYNOMIAL & (other & 1).wrapping_neg());
    }
    product
}

/// What a checksum adds to that of so many more bytes.
fn before(sum: u32, bytes: usize) -> u32 {
    let units = ((bytes / UNIT) as u32).to_le_bytes();
    let used = POWERS.iter().zip(units).filter(|(_, number)| *number > 0);
    used.fold(sum, |sum, (table, number)| times(table[usize::from(number)], sum))
}

/// The checksums of ranges of some bytes.
pub(crate) struct Sums<'a> {
    bytes: &'a [u8],
    /// What is taken for being in front of each range, and its checksum.
    front: Vec<u8>,
    front_sum: u32,
    /// How many bytes were read for ranges one by one. It costs less as long as these are few.
    singly: usize,
    /// The checksum of what is before each multiple of [`EVERY`], as far as it was asked for.
    marks: Vec<u32>,
}

impl<'a> Sums<'a> {
    pub(crate) fn new(bytes: &'a [u8], front: &[u8]) -> Self {
        let front_sum = sum_of(&[front]);
        Self { bytes, front: front.to_vec(), front_sum, singly: 0, marks: vec![0] }
    }

    /// The checksum of what is in front, and of a range, which has to be one of the bytes, and begin
    /// and end at multiples of 8.
    pub(crate) fn of(&mut self, from: usize, to: usize) -> u32 {
        if self.singly + (to - from) <= self.bytes.len() {
            self.singly += to - from;
            return sum_of(&[&self.front, &self.bytes[from..to]]);
        }
        let (at_from, at_to) = (self.up_to(from), self.up_to(to));
        before(self.front_sum ^ at_from, to - from) ^ at_to
    }

    /// The checksum of all before a place.
    fn up_to(&mut self, at: usize) -> u32 {
        let mark = at / EVERY;
        while self.marks.len() <= mark {
            let from = (self.marks.len() - 1) * EVERY;
            let sum = before(self.marks[self.marks.len() - 1], EVERY);
            self.marks.push(sum ^ sum_of(&[&self.bytes[from..from + EVERY]]));
        }
        let rest = &self.bytes[mark * EVERY..at];
        before(self.marks[mark], rest.len()) ^ sum_of(&[rest])
    }
}

fn sum_of(pieces: &[&[u8]]) -> u32 {
    let mut sum = Crc32c::new();
    for piece in pieces {
        count(piece.len());
        sum.update(piece);
    }
    sum.finish()
}

#[cfg(not(test))]
pub(crate) const fn count(_: usize) {}

#[cfg(test)]
pub(crate) use counting::{count, counted};

#[cfg(test)]
mod counting {
    use std::cell::Cell;

    thread_local! {
        static COUNTED: Cell<u64> = const { Cell::new(0) };
    }

    /// So many bytes go into a checksum.
    pub(crate) fn count(bytes: usize) {
        COUNTED.set(COUNTED.get() + bytes as u64);
    }

    /// How many went into checksums of frames while this thread did something.
    pub(crate) fn counted<T>(what: impl FnOnce() -> T) -> (T, u64) {
        let before = COUNTED.get();
        (what(), COUNTED.get() - before)
    }
}

#[cfg(test)]
mod tests {
    use mainstay_base::crc32c;
    use proptest::prelude::*;

    use super::*;

    /// Bytes made to look like the beginning of a frame every 16 bytes, each of all that is behind.
    pub(crate) fn hostile(magic: [u8; 4], len: usize) -> Vec<u8> {
        let piece = |at: usize| {
            let said = ((len - at) as u32).to_le_bytes();
            [magic, [0; 4], said, 1_u32.to_le_bytes()].concat()
        };
        (0..len).step_by(16).flat_map(piece).collect()
    }

    proptest! {
        #[test]
        fn each_range_has_its_checksum(
            bytes in proptest::collection::vec(any::<u8>(), 1..2_000),
            front in proptest::collection::vec(any::<u8>(), 0..9),
            ranges in proptest::collection::vec((0..250_usize, 0..250_usize), 1..50),
        ) {
            let mut sums = Sums::new(&bytes, &front);
            let units = bytes.len() / UNIT + 1;
            for (one, other) in ranges {
                let (one, other) = (one % units * UNIT, other % units * UNIT);
                let (from, to) = (one.min(other), one.max(other));
                let whole = [&front, &bytes[from..to]].concat();
                prop_assert_eq!(sums.of(from, to), crc32c(&whole));
            }
        }
    }

    #[test]
    fn long_ranges_have_their_checksums() {
        let bytes: Vec<u8> = (0..3_u32 << 20).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
        let mut sums = Sums::new(&bytes, b"seed");
        sums.singly = bytes.len();
        for (from, to) in [(0, bytes.len()), (8, bytes.len() - 8), (1 << 20, (3 << 20) - 800)] {
            assert_eq!(sums.of(from, to), crc32c(&[b"seed", &bytes[from..to]].concat()));
        }
    }
}

#[cfg(test)]
pub(crate) use tests::hostile;
