//! Rounds of AES, by the processor's instruction for them where there is one.

use super::FOUR;
use crate::Shared64;

/// A way to take rounds.
///
/// Example: see [`Sum`](super::Sum).
pub trait Rounds: Copy + sealed::Steps {}

impl<R: Copy + sealed::Steps> Rounds for R {}

pub(super) mod sealed {
    use super::{FOUR, Lanes, Piece};
    use crate::Shared64;

    pub trait Steps: Copy {
        /// A lane after a round, with a piece added.
        fn round(self, lane: Piece, piece: Piece) -> Piece;

        /// A lane after a round of decryption, with a piece added.
        fn inverse(self, lane: Piece, piece: Piece) -> Piece;

        /// Four pieces to the lanes in turn, to the odd one first or not; they are what was loaded.
        fn four(
            self,
            lanes: &mut Lanes,
            odd_first: bool,
            words: &[Shared64; 2 * FOUR],
        ) -> [Piece; FOUR];
    }
}

/// What pieces are added to.
#[derive(Clone, Copy)]
pub struct Lanes {
    pub(super) even: Piece,
    pub(super) odd: Piece,
}

use sealed::Steps;

/// The processor's instruction, on one that has it.
///
/// Example: see [`Sum`](super::Sum).
#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    #[cfg_attr(
        not(all(target_arch = "x86_64", not(miri))),
        expect(dead_code, reason = "there is none")
    )]
    is_here: Proof,
}

/// Whatever the processor can do.
///
/// Example: see [`Sum`](super::Sum).
#[derive(Clone, Copy, Debug)]
pub struct Anywhere(Option<Instruction>);

impl Anywhere {
    /// What this one can do.
    ///
    /// Example: see [`Sum`](super::Sum).
    #[inline]
    #[must_use]
    pub fn here() -> Self {
        Self(Instruction::here())
    }
}

impl Steps for Anywhere {
    #[inline(always)]
    fn round(self, lane: Piece, piece: Piece) -> Piece {
        match self.0 {
            Some(instruction) => instruction.round(lane, piece),
            None => Software.round(lane, piece),
        }
    }

    #[inline(always)]
    fn inverse(self, lane: Piece, piece: Piece) -> Piece {
        match self.0 {
            Some(instruction) => instruction.inverse(lane, piece),
            None => Software.inverse(lane, piece),
        }
    }

    #[inline(always)]
    fn four(
        self,
        lanes: &mut Lanes,
        odd_first: bool,
        words: &[Shared64; 2 * FOUR],
    ) -> [Piece; FOUR] {
        match self.0 {
            Some(instruction) => instruction.four(lanes, odd_first, words),
            None => Software.four(lanes, odd_first, words),
        }
    }
}

/// For processors that have none.
#[derive(Clone, Copy)]
pub(super) struct Software;

impl Steps for Software {
    #[cold]
    #[inline(never)]
    fn round(self, lane: Piece, piece: Piece) -> Piece {
        let mut block = aes::Block::from(lane.bytes());
        aes::hazmat::cipher_round(&mut block, &aes::Block::from(piece.bytes()));
        Piece::of_bytes(block.into())
    }

    #[cold]
    #[inline(never)]
    fn inverse(self, lane: Piece, piece: Piece) -> Piece {
        let mut block = aes::Block::from(lane.bytes());
        aes::hazmat::equiv_inv_cipher_round(&mut block, &aes::Block::from(piece.bytes()));
        Piece::of_bytes(block.into())
    }

    #[inline]
    fn four(
        self,
        lanes: &mut Lanes,
        odd_first: bool,
        words: &[Shared64; 2 * FOUR],
    ) -> [Piece; FOUR] {
        let mut pieces = [Piece::of_number(0); FOUR];
        for ((number, piece), words) in pieces.iter_mut().enumerate().zip(words.as_chunks().0) {
            *piece = Piece::of_two(words);
            match number.is_multiple_of(2) == odd_first {
                false => lanes.even = self.round(lanes.even, *piece),
                true => lanes.odd = self.inverse(lanes.odd, *piece),
            }
        }
        pieces
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(super) use by_words::Piece;
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) use on_vectors::Piece;

#[cfg(all(target_arch = "x86_64", not(miri)))]
type Proof = ();
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
type Proof = std::convert::Infallible;

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod on_vectors {
    use super::{FOUR, Instruction, Lanes, Steps};
    use crate::Shared64;
    use core::arch::{asm, x86_64::*};

    /// Two words that were loaded in one go, one and a zero, or a lane.
    #[derive(Clone, Copy)]
    pub struct Piece(__m128i);

    impl Piece {
        #[inline(always)]
        pub(in super::super) fn of_two(words: &[Shared64; 2]) -> Self {
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
        pub(in super::super) fn of_one(word: &Shared64) -> Self {
            let piece;
            // SAFETY: as above, of the 8 bytes of `word`.
            unsafe {
                asm!("movq {piece}, qword ptr [{word}]", word = in(reg) std::ptr::from_ref(word),
                    piece = out(xmm_reg) piece, options(nostack, preserves_flags, readonly));
            }
            Self(piece)
        }

        /// A number, and a zero.
        #[inline(always)]
        pub(in super::super) fn of_number(number: u64) -> Self {
            // SAFETY: every x86-64 has SSE2.
            unsafe { Self(_mm_cvtsi64_si128(number as i64)) }
        }

        #[inline(always)]
        pub(in super::super) fn bytes(self) -> [u8; 16] {
            // SAFETY: both are 16 bytes without a rule for their content.
            unsafe { std::mem::transmute::<__m128i, [u8; 16]>(self.0) }
        }

        #[inline(always)]
        pub(super) fn of_bytes(bytes: [u8; 16]) -> Self {
            // SAFETY: as above.
            Self(unsafe { std::mem::transmute::<[u8; 16], __m128i>(bytes) })
        }

        /// The first eight bytes.
        #[inline(always)]
        pub(in super::super) fn lower(self) -> u64 {
            // SAFETY: every x86-64 has SSE2.
            unsafe { _mm_cvtsi128_si64(self.0) as u64 }
        }
    }

    macro_rules! one {
        ($lane:ident, $piece:ident, $step:literal) => {{
            let mut lane = $lane.0;
            // SAFETY: whoever has an `Instruction` has asked the processor for it; it has that of
            // encryption and that of decryption, or none. It changes the one register that is declared,
            // and reads no memory.
            unsafe {
                asm!(
                    concat!($step, " {lane}, {piece}"),
                    lane = inout(xmm_reg) lane,
                    piece = in(xmm_reg) $piece.0,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            Piece(lane)
        }};
    }

    /// As one by one, with the rounds where the words are loaded: the compiler would put them off until it
    /// has no registers left.
    macro_rules! four {
        ($lanes:ident, $words:ident, $first:literal, $second:literal) => {{
            let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
            let (mut even, mut odd) = ($lanes.even.0, $lanes.odd.0);
            // SAFETY: it reads the 64 bytes of `words`, as `of_two` does; whoever has an `Instruction` has
            // asked the processor for it. The registers that it changes are declared.
            unsafe {
                asm!(
                    "movups {a}, xmmword ptr [{words}]",
                    "movups {b}, xmmword ptr [{words} + 16]",
                    "movups {c}, xmmword ptr [{words} + 32]",
                    "movups {d}, xmmword ptr [{words} + 48]",
                    concat!($first, ", {a}"),
                    concat!($second, ", {b}"),
                    concat!($first, ", {c}"),
                    concat!($second, ", {d}"),
                    words = in(reg) $words.as_ptr(),
                    even = inout(xmm_reg) even,
                    odd = inout(xmm_reg) odd,
                    a = out(xmm_reg) a,
                    b = out(xmm_reg) b,
                    c = out(xmm_reg) c,
                    d = out(xmm_reg) d,
                    options(nostack, preserves_flags, readonly),
                );
            }
            *$lanes = Lanes { even: Piece(even), odd: Piece(odd) };
            [Piece(a), Piece(b), Piece(c), Piece(d)]
        }};
    }

    impl Instruction {
        /// Proof that this processor has it; `None` if it has not.
        ///
        /// Example: see [`Sum`](super::super::Sum).
        #[inline(always)]
        #[must_use]
        pub fn here() -> Option<Self> {
            std::arch::is_x86_feature_detected!("aes").then_some(Self { is_here: () })
        }
    }

    impl Steps for Instruction {
        #[inline(always)]
        fn round(self, lane: Piece, piece: Piece) -> Piece {
            let Instruction { is_here: () } = self;
            one!(lane, piece, "aesenc")
        }

        #[inline(always)]
        fn inverse(self, lane: Piece, piece: Piece) -> Piece {
            let Instruction { is_here: () } = self;
            one!(lane, piece, "aesdec")
        }

        #[inline(always)]
        fn four(
            self,
            lanes: &mut Lanes,
            odd_first: bool,
            words: &[Shared64; 2 * FOUR],
        ) -> [Piece; FOUR] {
            let Instruction { is_here: () } = self;
            if odd_first {
                four!(lanes, words, "aesdec {odd}", "aesenc {even}")
            } else {
                four!(lanes, words, "aesenc {even}", "aesdec {odd}")
            }
        }
    }
}

/// The same where there are no such vectors.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod by_words {
    use std::sync::atomic::Ordering::Relaxed;

    use super::{FOUR, Instruction, Lanes, Steps};
    use crate::{Atomic64, Shared64};

    #[derive(Clone, Copy)]
    pub struct Piece([u8; 16]);

    impl Piece {
        pub(in super::super) fn of_two([first, second]: &[Shared64; 2]) -> Self {
            let both = u128::from(second.load(Relaxed)) << 64 | u128::from(first.load(Relaxed));
            Self(both.to_le_bytes())
        }

        pub(in super::super) fn of_one(word: &Shared64) -> Self {
            Self::of_number(word.load(Relaxed))
        }

        pub(in super::super) fn of_number(number: u64) -> Self {
            Self(u128::from(number).to_le_bytes())
        }

        pub(in super::super) fn bytes(self) -> [u8; 16] {
            self.0
        }

        pub(super) fn of_bytes(bytes: [u8; 16]) -> Self {
            Self(bytes)
        }

        pub(in super::super) fn lower(self) -> u64 {
            u128::from_le_bytes(self.0) as u64
        }
    }

    impl Instruction {
        /// There is none here that is known.
        #[must_use]
        pub fn here() -> Option<Self> {
            None
        }
    }

    impl Steps for Instruction {
        fn round(self, _: Piece, _: Piece) -> Piece {
            match self.is_here {}
        }

        fn inverse(self, _: Piece, _: Piece) -> Piece {
            match self.is_here {}
        }

        fn four(self, _: &mut Lanes, _: bool, _: &[Shared64; 2 * FOUR]) -> [Piece; FOUR] {
            match self.is_here {}
        }
    }
}
