//! A checksum of words in memory that another process may be writing, taken while they are copied.
//!
//! It is made for records that are read a million times a second, each from memory that no cache has:
//! there the processor should be able to begin the next read before this one has its answer, so what
//! counts is how many steps wait for that answer, and on which unit. Two steps for 16 bytes do, both
//! on the vector unit: the 16-bit parts are multiplied with weights, and added to four sums of 32 bits.
//! A CRC32C takes a unit of its own three cycles a word on some processors, and XXH3 three times as
//! many steps.
//!
//! Weights are odd and positive, and no two that go to the same sum are alike: so the sums tell any changed
//! part, and any two changed bits. In the end the third is added to the first, and the fourth to the second.
//! It is a checksum against damage, and no protection against somebody who wants to forge one.
//!
//! Pieces are two words; where a part that is added ends with one word, that is a piece as well. The
//! weights of 512 pieces (8 KiB) differ; behind them they begin anew.

use crate::Shared64;

/// Pieces after which the weights begin anew.
const ROUND: usize = 512;
/// Pieces that are taken at once.
const FOUR: usize = 4;
/// 16-bit parts of a piece.
const PARTS: usize = 8;

/// The first ones follow again at the end.
static WEIGHTS: Weights = Weights({
    let mut weights = [[0; PARTS]; ROUND + FOUR - 1];
    let mut at = 0;
    while at < weights.len() * PARTS {
        let (piece, part) = (at / PARTS, at % PARTS);
        // Four parts of a piece go to one sum in the end. An odd factor gives each number another one
        // below 2^14.
        let number = (4 * (piece % ROUND) + part / 4 * 2 + part % 2 + 1) as u32;
        let factor = if part / 2 % 2 == 0 { 0x2C1B } else { 0x1E37 };
        weights[piece][part] = (2 * (number * factor % (1 << 14)) + 1) as i16;
        at += 1;
    }
    weights
});

#[repr(align(64))]
struct Weights([[i16; PARTS]; ROUND + FOUR - 1]);

impl Weights {
    /// Those of four pieces from one on, at an address that is a multiple of 16.
    #[inline(always)]
    fn four(&self, from: usize) -> &[[i16; PARTS]; FOUR] {
        self.0[from..].first_chunk().expect("there are three more behind the last one of a round")
    }
}

/// A checksum that is being taken.
///
/// ```
/// use mainstay_shm::{Shared64, sum::Sum};
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
/// ```
#[derive(Clone, Copy)]
#[must_use]
pub struct Sum {
    state: State,
    /// Pieces that were added.
    pieces: usize,
}

impl Sum {
    /// One that begins with a number.
    #[inline(always)]
    pub fn new(seed: u64) -> Self {
        Self { state: State::new(seed), pieces: 0 }
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
        self.state.end()
    }

    #[inline(always)]
    fn each(&mut self, words: &[Shared64], mut show: impl FnMut(usize, &[u8])) {
        crate::hook::look();
        let (fours, rest) = words.as_chunks::<{ 2 * FOUR }>();
        for (number, four) in fours.iter().enumerate() {
            let pieces = self.take_four(four);
            for (place, piece) in pieces.iter().enumerate() {
                show((number * FOUR + place) * 2, &piece.bytes());
            }
        }
        let (pairs, last) = rest.as_chunks::<2>();
        let from = words.len() - rest.len();
        for (number, pair) in pairs.iter().enumerate() {
            let piece = Piece::of_two(pair);
            show(from + number * 2, &piece.bytes());
            self.take(piece);
        }
        if let [last] = last {
            let piece = Piece::of_one(last);
            show(words.len() - 1, &piece.bytes()[..size_of::<u64>()]);
            self.take(piece);
        }
    }

    /// Four pieces at once: fewer steps than one by one.
    #[inline(always)]
    fn take_four(&mut self, words: &[Shared64; 2 * FOUR]) -> [Piece; FOUR] {
        let from = self.pieces % ROUND;
        self.pieces += FOUR;
        self.state.add_four(words, WEIGHTS.four(from))
    }

    #[inline(always)]
    fn take(&mut self, piece: Piece) {
        self.state.add(piece, &WEIGHTS.four(self.pieces % ROUND)[0]);
        self.pieces += 1;
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
use by_vectors::{Piece, State};
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
use by_words::{Piece, State};

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod by_vectors {
    use core::arch::{asm, x86_64::*};

    use super::{FOUR, PARTS};
    use crate::Shared64;

    /// Two words that were loaded in one go, or one and a zero.
    #[derive(Clone, Copy)]
    pub(super) struct Piece(__m128i);

    impl Piece {
        #[inline(always)]
        pub(super) fn of_two(words: &[Shared64; 2]) -> Self {
            let piece;
            // SAFETY: it reads the 16 bytes of `words`, which a reference makes readable, in two halves
            // that are each read as a whole, as `copy` does; every x86-64 has SSE2.
            unsafe {
                asm!("movups {piece}, xmmword ptr [{words}]", words = in(reg) words.as_ptr(),
                    piece = out(xmm_reg) piece, options(nostack, preserves_flags, readonly));
            }
            Self(piece)
        }

        #[inline(always)]
        pub(super) fn of_one(word: &Shared64) -> Self {
            let piece;
            // SAFETY: as above, of the 8 bytes of `word`.
            unsafe {
                asm!("movq {piece}, qword ptr [{word}]", word = in(reg) std::ptr::from_ref(word),
                    piece = out(xmm_reg) piece, options(nostack, preserves_flags, readonly));
            }
            Self(piece)
        }

        #[inline(always)]
        pub(super) fn bytes(self) -> [u8; 16] {
            // SAFETY: both are 16 bytes without a rule for their content.
            unsafe { std::mem::transmute::<__m128i, [u8; 16]>(self.0) }
        }
    }

    /// Four sums.
    #[derive(Clone, Copy)]
    pub(super) struct State(__m128i);

    impl State {
        #[inline(always)]
        pub(super) fn new(seed: u64) -> Self {
            // SAFETY: every x86-64 has SSE2.
            unsafe { Self(_mm_cvtsi64_si128(seed as i64)) }
        }

        #[inline(always)]
        pub(super) fn add(&mut self, piece: Piece, weights: &[i16; PARTS]) {
            // SAFETY: the weights are 16 bytes that a reference makes readable, wherever they are; every
            // x86-64 has SSE2.
            unsafe {
                let weights = _mm_loadu_si128(weights.as_ptr().cast());
                self.0 = _mm_add_epi32(self.0, _mm_madd_epi16(piece.0, weights));
            }
        }

        /// As one by one, with the sums taken where the words are loaded: the compiler would put that off
        /// until it has no registers left.
        #[inline(always)]
        pub(super) fn add_four(
            &mut self,
            words: &[Shared64; 2 * FOUR],
            weights: &[[i16; PARTS]; FOUR],
        ) -> [Piece; FOUR] {
            let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
            debug_assert!(weights.as_ptr().addr().is_multiple_of(16));
            // SAFETY: it reads the 64 bytes of `words`, as `of_two` does, and the 64 of `weights`, which
            // references make readable. Those of `weights` are at a multiple of 16, as `pmaddwd` wants:
            // `WEIGHTS` is aligned to 64 and an array of 16 bytes each, and nothing else is handed over.
            // The registers that it changes are declared.
            unsafe {
                asm!(
                    "movups {a}, xmmword ptr [{words}]",
                    "movups {b}, xmmword ptr [{words} + 16]",
                    "movups {c}, xmmword ptr [{words} + 32]",
                    "movups {d}, xmmword ptr [{words} + 48]",
                    "movdqa {t}, {a}",
                    "pmaddwd {t}, xmmword ptr [{weights}]",
                    "paddd {sums}, {t}",
                    "movdqa {t}, {b}",
                    "pmaddwd {t}, xmmword ptr [{weights} + 16]",
                    "paddd {sums}, {t}",
                    "movdqa {t}, {c}",
                    "pmaddwd {t}, xmmword ptr [{weights} + 32]",
                    "paddd {sums}, {t}",
                    "movdqa {t}, {d}",
                    "pmaddwd {t}, xmmword ptr [{weights} + 48]",
                    "paddd {sums}, {t}",
                    words = in(reg) words.as_ptr(),
                    weights = in(reg) weights.as_ptr(),
                    sums = inout(xmm_reg) self.0,
                    a = out(xmm_reg) a,
                    b = out(xmm_reg) b,
                    c = out(xmm_reg) c,
                    d = out(xmm_reg) d,
                    t = out(xmm_reg) _,
                    options(nostack, preserves_flags, readonly),
                );
            }
            [Piece(a), Piece(b), Piece(c), Piece(d)]
        }

        #[inline(always)]
        pub(super) fn end(self) -> u64 {
            // SAFETY: every x86-64 has SSE2.
            unsafe {
                let crossed = _mm_shuffle_epi32::<0b01_00_11_10>(self.0);
                _mm_cvtsi128_si64(_mm_add_epi32(self.0, crossed)) as u64
            }
        }
    }
}

/// The same, word by word.
#[cfg(any(test, not(all(target_arch = "x86_64", not(miri)))))]
mod by_words {
    use std::sync::atomic::Ordering::Relaxed;

    use super::PARTS;
    use crate::{Atomic64, Shared64};

    #[derive(Clone, Copy)]
    pub(super) struct Piece([u64; 2]);

    impl Piece {
        pub(super) fn of_two([first, second]: &[Shared64; 2]) -> Self {
            Self([first.load(Relaxed), second.load(Relaxed)])
        }

        pub(super) fn of_one(word: &Shared64) -> Self {
            Self([word.load(Relaxed), 0])
        }

        pub(super) fn bytes(self) -> [u8; 16] {
            (u128::from(self.0[1]) << 64 | u128::from(self.0[0])).to_le_bytes()
        }
    }

    /// Four sums.
    #[derive(Clone, Copy)]
    pub(super) struct State([u32; 4]);

    impl State {
        pub(super) fn new(seed: u64) -> Self {
            Self([seed as u32, (seed >> 32) as u32, 0, 0])
        }

        pub(super) fn add(&mut self, piece: Piece, weights: &[i16; PARTS]) {
            for (part, weight) in weights.iter().enumerate() {
                let value = (piece.0[part / 4] >> (part % 4 * 16)) as u16 as i16;
                let product = (i32::from(value) * i32::from(*weight)) as u32;
                let sum = &mut self.0[part / 2];
                *sum = sum.wrapping_add(product);
            }
        }

        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        pub(super) fn add_four(
            &mut self,
            words: &[Shared64; 2 * super::FOUR],
            weights: &[[i16; PARTS]; super::FOUR],
        ) -> [Piece; super::FOUR] {
            let mut pieces = [Piece([0; 2]); super::FOUR];
            for (number, (piece, words)) in pieces.iter_mut().zip(words.as_chunks().0).enumerate() {
                *piece = Piece::of_two(words);
                self.add(*piece, &weights[number]);
            }
            pieces
        }

        pub(super) fn end(self) -> u64 {
            let [a, b, c, d] = self.0;
            u64::from(b.wrapping_add(d)) << 32 | u64::from(a.wrapping_add(c))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(numbers: &[u64]) -> Vec<Shared64> {
        numbers.iter().copied().map(Shared64::new).collect()
    }

    fn some(count: u64) -> Vec<u64> {
        (1..=count).map(|n| n.wrapping_mul(0xD1B5_4A32_D192_ED03)).collect()
    }

    fn of(numbers: &[u64]) -> u64 {
        Sum::new(3).take_in(&shared(numbers)).end()
    }

    /// As the head of the file says it.
    fn by_words(seed: u64, words: &[Shared64]) -> u64 {
        let mut state = by_words::State::new(seed);
        for (number, piece) in words.chunks(2).enumerate() {
            let piece = match piece {
                [word] => by_words::Piece::of_one(word),
                piece => by_words::Piece::of_two(piece.try_into().unwrap()),
            };
            state.add(piece, &WEIGHTS.0[number % ROUND]);
        }
        state.end()
    }

    #[test]
    fn vectors_and_words_come_to_the_same() {
        let words = shared(&some(550));
        for count in (0..40).chain([127, 128, 129, 130, 131, 511, 512, 513, 550]) {
            let words = &words[..count];
            assert_eq!(Sum::new(5).take_in(words).end(), by_words(5, words), "{count}");
        }
        for pair in words.as_chunks::<2>().0 {
            assert_eq!(Piece::of_two(pair).bytes(), by_words::Piece::of_two(pair).bytes());
            assert_eq!(Piece::of_one(&pair[0]).bytes(), by_words::Piece::of_one(&pair[0]).bytes());
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
        assert_eq!(Sum::new(0).end(), 0);
        assert_eq!(WEIGHTS.0[0], [22_583, 12_397, 15_471, 30_941, 2_211, 24_793, 13_643, 29_113]);
        assert_eq!(Sum::new(9).take_in(&words).end(), 0x10EA_F7DC_D85C_E3C4);
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

    #[test]
    fn no_two_weights_of_a_sum_are_alike() {
        for sum in 0..2 {
            let parts = [0, 1, 4, 5].map(|part| part + 2 * sum);
            let of_piece = |weights: &[i16; PARTS]| parts.map(|part| weights[part]);
            let mut weights: Vec<i16> = WEIGHTS.0[..ROUND].iter().flat_map(of_piece).collect();
            weights.sort_unstable();
            weights.dedup();
            // The weight of the seed is 1.
            assert!(weights.len() == 4 * ROUND && weights[0] > 1, "{sum}");
            assert!(weights.iter().all(|weight| weight % 2 != 0));
        }
        assert_eq!(WEIGHTS.0[ROUND..], WEIGHTS.0[..FOUR - 1]);
    }
}
