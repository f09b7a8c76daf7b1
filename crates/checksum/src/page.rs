//! CRC32C of pages, two ways at once: by carry-less multiplication of vectors of 64 bytes and by the
//! `crc32` instruction.
//!
//! The message is a polynomial over GF(2). A part of it that lies D bits before another may be
//! replaced by its product with x^D mod P, added to the other: that is one *fold*. Lanes that do not
//! wait for each other keep the multiplier busy; they are then folded into one, that into 16 bytes,
//! and those by the `crc32` instruction into a sum. The multiplier is the bottleneck, and the `crc32`
//! instruction does not use it: so 1,280 bytes of each page are given to the latter, in four streams.
//! The two are written down turn by turn, without a loop: at the end of a loop the processor would
//! guess wrong once a page, which costs a tenth of it, and would not begin the next page early. The
//! compiler knows nothing of the balance, and would put one way behind the other: a fence that is no
//! instruction keeps what belongs together.
//!
//! Source: Gopal and others, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
//! Instruction" (Intel, 2009).

use core::arch::x86_64::{
    __m128i, __m512i, _mm_clmulepi64_si128, _mm_crc32_u8, _mm_crc32_u64, _mm_cvtsi64_si128,
    _mm_cvtsi128_si64, _mm_extract_epi64, _mm_ternarylogic_epi64, _mm_xor_si128,
    _mm512_castsi512_si128, _mm512_clmulepi64_epi128, _mm512_extracti32x4_epi32,
    _mm512_loadu_si512, _mm512_set_epi64, _mm512_ternarylogic_epi64, _mm512_xor_si512,
};
use core::sync::atomic::{
    AtomicU8,
    Ordering::{Relaxed, SeqCst},
    compiler_fence,
};

/// Bytes that are summed two ways at once.
const PAGE: usize = 4_096;

/// Above this the bytes come from memory rather than from the cache; there the library's way, which
/// goes through them in order, is the faster one.
const MOST: usize = 8 * PAGE;

/// Bytes of a vector.
const WIDE: usize = 64;

/// Accumulators of vectors: enough to hide the latency of a multiplication.
const LANES: usize = 4;

/// Turns of a page: each folds a vector into each lane, and adds some words to each stream.
const TURNS: usize = 10;

/// Streams of the `crc32` instruction: enough to hide its latency.
const STREAMS: usize = 4;

/// Words that a turn adds to each stream.
const WORDS: usize = 4;

/// Bytes of a page that a stream takes.
const STREAM: usize = TURNS * WORDS * 8;

/// Bytes of a page that are folded: each lane begins with a vector.
const FOLDED: usize = LANES * (TURNS + 1) * WIDE;

const _: () = assert!(FOLDED + STREAMS * STREAM == PAGE);

/// The polynomial of RFC 3720, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// CRC32C of `bytes`; `None` if they are less than a page or too many, or if this processor cannot
/// multiply vectors.
#[inline]
pub(crate) fn crc32c(bytes: &[u8]) -> Option<u32> {
    if !(PAGE..=MOST).contains(&bytes.len()) || !is_able() {
        return None;
    }
    #[expect(unsafe_code, reason = "only the caller can know what the processor is able to do")]
    // SAFETY: the two functions need the processor features that their attributes name and nothing
    // else of their caller; `is_able` has asked the processor for each of them.
    Some(!unsafe {
        match bytes.try_into() {
            Ok(bytes) => page(!0, bytes),
            Err(_) => pages(!0, bytes),
        }
    })
}

/// Whether the processor has what the functions below need, found out once: a page takes so little
/// that asking for five features each time would be felt.
#[inline]
fn is_able() -> bool {
    static ABLE: AtomicU8 = AtomicU8::new(UNKNOWN);
    const UNKNOWN: u8 = 0;
    const NO: u8 = 1;
    const YES: u8 = 2;
    #[cold]
    fn find_out() -> bool {
        let able = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("sse4.2");
        ABLE.store(if able { YES } else { NO }, Relaxed);
        able
    }
    // Whoever comes first at the same time finds the same.
    match ABLE.load(Relaxed) {
        UNKNOWN => find_out(),
        known => known == YES,
    }
}

/// The state behind a page or more, from the state before them.
#[target_feature(enable = "avx512f,avx512vl,vpclmulqdq,pclmulqdq,sse4.2")]
fn pages(state: u32, bytes: &[u8]) -> u32 {
    let (pages, rest) = bytes.as_chunks::<PAGE>();
    let state = pages.iter().fold(state, |state, bytes| page(state, bytes));
    let (words, rest) = rest.as_chunks::<8>();
    let state = words
        .iter()
        .fold(u64::from(state), |state, word| _mm_crc32_u64(state, u64::from_le_bytes(*word)));
    rest.iter().fold(half(state), |state, byte| _mm_crc32_u8(state, *byte))
}

/// The state behind a page, from the state before it.
#[target_feature(enable = "avx512f,avx512vl,vpclmulqdq,pclmulqdq,sse4.2")]
#[inline(never)]
fn page(state: u32, bytes: &[u8; PAGE]) -> u32 {
    let (vectors, _) = bytes.as_chunks::<WIDE>();
    let (words, _) = bytes.as_chunks::<8>();
    let over = factors::<{ LANES * WIDE }>();
    let mut lanes = [load(&vectors[0]), load(&vectors[1]), load(&vectors[2]), load(&vectors[3])];
    let mut sums = [0_u64; STREAMS];
    macro_rules! turns {
        ($($turn:literal)*) => {
            const { assert!([$($turn),*].len() == TURNS) };
            $(for lane in 0..LANES {
 compiler_fence(SeqCst);
                lanes[lane] = fold(lanes[lane], over, load(&vectors[LANES * ($turn + 1) + lane]));
                for stream in 0..STREAMS {
                    let at = (FOLDED + stream * STREAM) / 8 + $turn * WORDS + lane;
                    sums[stream] = _mm_crc32_u64(sums[stream], u64::from_le_bytes(words[at]));
                }
            })*
        };
    }
    const { assert!(WORDS == LANES, "a word of each stream goes with each lane") };
    turns!(0 1 2 3 4 5 6 7 8 9);

    // The state before the page is moved over all of it instead of being added to its first bytes:
    // so a page does not wait for the one before it.
    let moved = _mm_ternarylogic_epi64::<XOR>(
        moved::<{ 3 * STREAM }>(sums[0]),
        moved::<{ 2 * STREAM }>(sums[1]),
        _mm_xor_si128(moved::<STREAM>(sums[2]), moved::<PAGE>(u64::from(state))),
    );
    let [first, second, third, fourth] = lanes;
    let near = factors::<WIDE>();
    let early = fold(first, near, second);
    let folded = within_streams(fold(early, factors::<{ 2 * WIDE }>(), fold(third, near, fourth)));
    state_of(folded, _mm_cvtsi128_si64(moved)) ^ half(sums[3])
}

/// The state behind 16 bytes, with `add` added to the last eight of them.
#[target_feature(enable = "sse4.2")]
fn state_of(bytes: __m128i, add: i64) -> u32 {
    let state = _mm_crc32_u64(0, _mm_cvtsi128_si64(bytes).cast_unsigned());
    half(_mm_crc32_u64(state, (_mm_extract_epi64::<1>(bytes) ^ add).cast_unsigned()))
}

/// A state of 32 bits, moved over `DISTANCE` bytes; 64 bits that are to be taken modulo P.
#[target_feature(enable = "pclmulqdq,sse4.2")]
fn moved<const DISTANCE: usize>(state: u64) -> __m128i {
    let over = const { Factors::over(DISTANCE).high };
    _mm_clmulepi64_si128::<0x00>(_mm_cvtsi64_si128(state.cast_signed()), _mm_cvtsi64_si128(over))
}

/// The 16 bytes that stand for a vector behind which the streams come.
#[target_feature(enable = "avx512f,avx512vl,vpclmulqdq")]
fn within_streams(sum: __m512i) -> __m128i {
    const DISTANCE: usize = STREAMS * STREAM;
    const FIRST: Factors = Factors::over(DISTANCE + 48);
    const SECOND: Factors = Factors::over(DISTANCE + 32);
    const THIRD: Factors = Factors::over(DISTANCE + 16);
    const FOURTH: Factors = Factors::over(DISTANCE);
    let over = _mm512_set_epi64(
        FOURTH.high,
        FOURTH.low,
        THIRD.high,
        THIRD.low,
        SECOND.high,
        SECOND.low,
        FIRST.high,
        FIRST.low,
    );
    let moved = product(sum, over);
    _mm_xor_si128(
        _mm512_extracti32x4_epi32::<3>(moved),
        _mm_ternarylogic_epi64::<XOR>(
            _mm512_castsi512_si128(moved),
            _mm512_extracti32x4_epi32::<1>(moved),
            _mm512_extracti32x4_epi32::<2>(moved),
        ),
    )
}

/// A truth table: the sum of three bits.
const XOR: i32 = 0x96;

/// `sum`, moved over the distance of `over`.
#[target_feature(enable = "avx512f,avx512vl,vpclmulqdq")]
fn product(sum: __m512i, over: __m512i) -> __m512i {
    _mm512_xor_si512(
        _mm512_clmulepi64_epi128::<0x00>(sum, over),
        _mm512_clmulepi64_epi128::<0x11>(sum, over),
    )
}

/// `sum`, moved over the distance of `over`, and `next` added.
#[target_feature(enable = "avx512f,avx512vl,vpclmulqdq")]
fn fold(sum: __m512i, over: __m512i, next: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<XOR>(
        _mm512_clmulepi64_epi128::<0x00>(sum, over),
        _mm512_clmulepi64_epi128::<0x11>(sum, over),
        next,
    )
}

#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; WIDE]) -> __m512i {
    #[expect(unsafe_code, reason = "the instruction takes a pointer")]
    // SAFETY: the reference covers the 64 bytes that are read; the instruction asks for no alignment.
    unsafe {
        _mm512_loadu_si512(bytes.as_ptr().cast())
    }
}

/// What moves each 16 bytes of a vector over `DISTANCE` bytes.
#[target_feature(enable = "avx512f")]
fn factors<const DISTANCE: usize>() -> __m512i {
    let Factors { low, high } = const { Factors::over(DISTANCE) };
    _mm512_set_epi64(high, low, high, low, high, low, high, low)
}

/// What the two halves of 16 bytes are multiplied with to move them over a distance.
struct Factors {
    low: i64,
    high: i64,
}

impl Factors {
    /// The lower half lies 64 bits farther. A product of reflected factors comes out a bit too high,
    /// and a factor of 32 bits stands 32 too low in its 64: 33 less.
    const fn over(distance: usize) -> Self {
        let bits = distance * 8 - 33;
        Self { low: power(bits + 64) as i64, high: power(bits) as i64 }
    }
}

/// x^`exponent` mod P, lowest power in the highest bit.
const fn power(exponent: usize) -> u32 {
    let mut value: u32 = 1 << 31;
    let mut at = 0;
    while at < exponent {
        value = (value >> 1) ^ (POLYNOMIAL & (value & 1).wrapping_neg());
        at += 1;
    }
    value
}

/// The `crc32` instruction leaves the upper half of its word zero.
fn half(state: u64) -> u32 {
    u32::try_from(state).expect("the instruction gives 32 bits in 64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_those_of_the_literature() {
        // Distances of 16 and of 64 bytes, as other implementations of CRC32C have them.
        assert_eq!((Factors::over(16).low, Factors::over(16).high), (0xF20C_0DFE, 0x493C_7D27));
        assert_eq!((Factors::over(64).low, Factors::over(64).high), (0x740E_EF02, 0x9E4A_DDF8));
    }

    #[test]
    fn pages_go_this_way_where_the_processor_can_and_nothing_else_does() {
        println!("vectors are multiplied here: {}", is_able());
        for (len, own) in [(PAGE - 1, false), (PAGE, true), (MOST, true), (MOST + 1, false)] {
            assert_eq!(crc32c(&vec![7; len]).is_some(), own && is_able(), "{len} bytes");
        }
    }
}
