//! A checksum of words in memory that another process may be writing, taken while they are copied.
//!
//! It is made for records that are read a million times a second, each from memory that no cache has:
//! there the processor should be able to begin the next read before this one has its answer, so what
//! counts is how many steps there are in all, and that they need no unit that has none to spare. A
//! round of AES is one step for 16 bytes, on what a copy has loaded anyway. A CRC32C takes a unit of its own
//! three cycles a word on some processors, and XXH3 six times as many steps.
//!
//! Pieces of two words go to two lanes in turn, so that a round need not wait for the one before; where
//! a part that is added ends with one word, that is a piece as well. The seed is where the first lane
//! begins. One lane has rounds of encryption and the other such of decryption: so what differs in both by few
//! bits never is the same difference. In the end one more round adds the other lane to the first, two spread
//! what differs, and the lower half is the sum. A round is a bijection of the lane, and the piece is added
//! behind it: so what differs in one piece, however much, leaves another lane; that a lane is as before takes changes
//! of five bytes at least, in pieces that it has one after the other; and contents that differ have the same
//! sum with the odds of 2^-64. It is a checksum against damage, and no protection against somebody who
//! wants to forge one.
//!
//! Source of a round: FIPS 197, `MixColumns(ShiftRows(SubBytes(lane)))`, and of one of decryption there too,
//! `InvMixColumns(InvSubBytes(InvShiftRows(lane)))`.

mod rounds;

use crate::Shared64;

pub use self::rounds::{Anywhere, Instruction, Rounds};

use self::rounds::{Lanes, Piece};

/// Pieces that are taken at once.
const FOUR: usize = 4;
/// Words of a piece.
const PIECE_WORDS: usize = 2;

/// A checksum that is being taken.
///
/// ```
/// use mainstay_shm::{Shared64, sum::{Instruction, Sum}};
/// let words = [1, 2, 3].map(Shared64::new);
/// let sum = |seed: u64, words: &[Shared64]| Sum::new(seed).take_in(words).end();
/// assert_eq!(sum(7, &words), sum(7, &words));
/// assert_ne!(sum(7, &words), sum(8, &words));
/// assert_ne!(sum(7, &words), sum(7, &words[..2]));
///
/// let mut bytes = [0; 17];
/// let copied = Sum::new(7).copy(&words, &mut bytes).expect("as many words as that takes").end();
/// assert_eq!(copied, sum(7, &words));
/// assert_eq!((bytes[0], bytes[8], bytes[16]), (1, 2, 3));
///
/// // Whoever has asked the processor already needs not do it for each sum.
/// if let Some(instruction) = Instruction::here() {
///     assert_eq!(Sum::by(instruction, 7).take_in(&words).end(), copied);
/// }
/// ```
#[derive(Clone, Copy)]
#[must_use]
pub struct Sum<R = Anywhere> {
    rounds: R,
    lanes: Lanes,
    /// Is the next piece the odd lane's?
    is_odd: bool,
}

impl Sum {
    /// One that begins with a number.
    ///
    /// Example: see [`Sum`].
    #[inline]
    pub fn new(seed: u64) -> Self {
        Self::by(Anywhere::here(), seed)
    }
}

impl<R: Rounds> Sum<R> {
    /// One that begins with a number, and takes its rounds in this way.
    ///
    /// Example: see [`Sum`].
    #[inline(always)]
    pub fn by(rounds: R, seed: u64) -> Self {
        let lanes = Lanes { even: Piece::of_number(seed), odd: Piece::of_number(0) };
        Self { rounds, lanes, is_odd: false }
    }

    /// Goes on with words. They may be a mix of old and new ones if somebody writes: telling that is
    /// the caller's business, as with [`copy`](mod@crate::copy).
    ///
    /// Example: see [`Sum`].
    #[inline(always)]
    pub fn take_in(mut self, words: &[Shared64]) -> Self {
        self.each(words, |_, _| {});
        self
    }

    /// The same, and copies the bytes of the words as far as `target` goes, which is no more than a word
    /// shorter than they are. What is copied is what is added. `None` if it is longer or shorter.
    ///
    /// Example: see [`Sum`].
    #[inline(always)]
    pub fn copy(mut self, words: &[Shared64], target: &mut [u8]) -> Option<Self> {
        if target.len().div_ceil(size_of::<u64>()) != words.len() {
            return None;
        }
        let end = target.len();
        self.each(words, |at, piece| {
            let from = at * size_of::<u64>();
            match target.get_mut(from..from + piece.len()) {
                Some(target) => target.copy_from_slice(piece),
                None => target[from..].copy_from_slice(&piece[..end - from]),
            }
        });
        Some(self)
    }

    /// The checksum.
    ///
    /// Example: see [`Sum`].
    #[inline(always)]
    #[must_use]
    pub fn end(self) -> u64 {
        let (Lanes { even, odd }, rounds) = (self.lanes, self.rounds);
        let nothing = Piece::of_number(0);
        let both = rounds.round(even, odd);
        rounds.round(rounds.round(both, nothing), nothing).lower()
    }

    #[inline(always)]
    fn each(&mut self, words: &[Shared64], mut show: impl FnMut(usize, &[u8])) {
        crate::hook::look();
        let (fours, rest) = words.as_chunks::<{ PIECE_WORDS * FOUR }>();
        for (number, four) in fours.iter().enumerate() {
            let pieces = self.take_four(four);
            for (place, piece) in pieces.iter().enumerate() {
                show((number * FOUR + place) * PIECE_WORDS, &piece.bytes());
            }
        }
        let (pairs, last) = rest.as_chunks::<PIECE_WORDS>();
        let from = words.len() - rest.len();
        for (number, pair) in pairs.iter().enumerate() {
            let piece = Piece::of_two(pair);
            show(from + number * PIECE_WORDS, &piece.bytes());
            self.take(piece);
        }
        if let [last] = last {
            let piece = Piece::of_one(last);
            show(words.len() - 1, &piece.bytes()[..size_of::<u64>()]);
            self.take(piece);
        }
    }

    #[inline(always)]
    fn take_four(&mut self, words: &[Shared64; PIECE_WORDS * FOUR]) -> [Piece; FOUR] {
        self.rounds.four(&mut self.lanes, self.is_odd, words)
    }

    #[inline(always)]
    fn take(&mut self, piece: Piece) {
        let Lanes { even, odd } = &mut self.lanes;
        match self.is_odd {
            false => *even = self.rounds.round(*even, piece),
            true => *odd = self.rounds.inverse(*odd, piece),
        }
        self.is_odd = !self.is_odd;
    }
}

#[cfg(test)]
mod tests {
    use super::{rounds::Software, *};

    fn shared(numbers: &[u64]) -> Vec<Shared64> {
        numbers.iter().copied().map(Shared64::new).collect()
    }

    fn some(count: u64) -> Vec<u64> {
        (1..=count).map(|n| n.wrapping_mul(0xD1B5_4A32_D192_ED03)).collect()
    }

    fn of(numbers: &[u64]) -> u64 {
        Sum::new(3).take_in(&shared(numbers)).end()
    }

    #[test]
    fn every_processor_comes_to_the_same() {
        let words = shared(&some(550));
        for count in (0..40).chain([127, 128, 129, 130, 131, 511, 512, 513, 550]) {
            let words = &words[..count];
            let by_software = Sum::by(Software, 5).take_in(words).end();
            assert_eq!(Sum::new(5).take_in(words).end(), by_software, "{count}");
            if let Some(instruction) = Instruction::here() {
                assert_eq!(Sum::by(instruction, 5).take_in(words).end(), by_software, "{count}");
            }
        }
    }

    #[test]
    fn a_copy_is_what_was_summed_up() {
        let numbers = some(40);
        let words = shared(&numbers);
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        for len in 0..=320_usize {
            let words = &words[..len.div_ceil(8)];
            let mut target = vec![0; len];
            let sum = Sum::new(5).copy(words, &mut target).map(Sum::end);
            assert_eq!(sum, Some(Sum::new(5).take_in(words).end()), "{len}");
            assert_eq!(target, bytes[..len]);
        }
        assert!(Sum::new(5).copy(&words[..2], &mut [0; 17]).is_none());
        assert!(Sum::new(5).copy(&words[..2], &mut [0; 8]).is_none());
    }

    #[test]
    fn the_sum_is_the_one_that_the_format_says() {
        let words = shared(&[0x0123_4567_89AB_CDEF, u64::MAX, 1]);
        assert_eq!(Sum::new(0).end(), 1_085_102_592_571_150_095);
        assert_eq!(Sum::new(9).take_in(&words).end(), 5_741_662_161_112_090_179);
    }

    #[test]
    fn each_bit_that_flips_is_told_and_so_are_any_two() {
        for numbers in [some(9), vec![0; 9], vec![u64::MAX; 9], vec![1 << 63; 9]] {
            let sum = of(&numbers);
            let bits = numbers.len() * 64;
            let flipped = |numbers: &mut Vec<u64>, bit: usize| numbers[bit / 64] ^= 1 << (bit % 64);
            let mut other = numbers.clone();
            for first in 0..bits {
                flipped(&mut other, first);
                assert_ne!(of(&other), sum, "{first}");
                for second in first + 1..bits {
                    flipped(&mut other, second);
                    assert_ne!(of(&other), sum, "{first} and {second}");
                    flipped(&mut other, second);
                }
                flipped(&mut other, first);
            }
        }
    }

    #[test]
    fn words_that_change_places_or_are_left_out_are_told() {
        let numbers = some(20);
        let sum = of(&numbers);
        for first in 0..numbers.len() {
            for second in 0..first {
                let mut other = numbers.clone();
                other.swap(first, second);
                assert_ne!(of(&other), sum, "{first} and {second}");
            }
            let mut other = numbers.clone();
            other[first] = 0;
            assert_ne!(of(&other), sum, "{first}");
        }
    }

    /// Half of the bits of a sum change with any bit of the content, wherever it is.
    #[test]
    fn each_bit_is_spread_over_the_whole_sum() {
        let numbers = some(9);
        let sum = of(&numbers);
        let mut changed = [0_u32; 64];
        for bit in 0..numbers.len() * 64 {
            let mut other = numbers.clone();
            other[bit / 64] ^= 1 << (bit % 64);
            let difference = of(&other) ^ sum;
            (0..64).for_each(|at| changed[at] += (difference >> at & 1) as u32);
        }
        // Of 576 fair coins; the odds of one that is outside are below 2^-30.
        assert!(changed.iter().all(|count| (200..376).contains(count)), "{changed:?}");
    }
}
