//! Eight words in shared memory that are looked at in one go.
//!
//! A table that keeps part of a hash in the upper half of each word is searched by this without a
//! branch for each of them: a branch that goes wrong would have to wait for memory.

use crate::Shared64;

/// Words of a line: as many as a cache line has.
///
/// Example: see [`find_upper`].
pub const LINE_WORDS: usize = 8;

/// Which words have `half` as their upper 32 bits: the lowest bit stands for the first word. Each word
/// is seen as it was at some moment of the call, not all of them at the same one: whoever acts on it
/// loads the word again.
///
/// ```
/// use mainstay_shm::{Shared64, line::find_upper};
/// let words = [7, 3 << 32, 0, 3 << 32 | 1, 3, 9 << 32, 0, 0].map(Shared64::new);
/// assert_eq!(find_upper(&words, 3), 0b1010);
/// ```
#[inline(always)]
#[must_use]
pub fn find_upper(words: &[Shared64; LINE_WORDS], half: u32) -> u8 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        crate::hook::look();
        let found: u32;
        // SAFETY: the assembly reads the 64 bytes of `words` and nothing else, which a reference
        // makes readable, in pieces of 16 bytes whose halves are each read as a whole, as `copy`
        // does; it writes only the registers that are declared. Every x86-64 has SSE2.
        unsafe {
            core::arch::asm!(
                "movups {a}, xmmword ptr [{words}]",
                "movups {b}, xmmword ptr [{words} + 16]",
                "movups {c}, xmmword ptr [{words} + 32]",
                "movups {d}, xmmword ptr [{words} + 48]",
                // Of two words each, the upper halves of both pairs.
                "shufps {a}, {b}, 0xDD",
                "shufps {c}, {d}, 0xDD",
                "movd {b}, {half:e}",
                "pshufd {b}, {b}, 0",
                "pcmpeqd {a}, {b}",
                "pcmpeqd {c}, {b}",
                // Four lanes of 32 bits and four become eight of 16, and then of 8.
                "packssdw {a}, {c}",
                "packsswb {a}, {a}",
                "pmovmskb {found:e}, {a}",
                words = in(reg) words.as_ptr(),
                half = in(reg) half,
                found = lateout(reg) found,
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                options(nostack, preserves_flags, readonly),
            );
        }
        found as u8
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    {
        use crate::Atomic64;
        let load = |word: &Shared64| word.load(std::sync::atomic::Ordering::Relaxed);
        let has_it = |word: &Shared64| (load(word) >> 32) as u32 == half;
        let bits = words.iter().enumerate().map(|(at, word)| u8::from(has_it(word)) << at);
        bits.fold(0, |all, bit| all | bit)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::Atomic64;

    #[test]
    fn every_word_is_found_by_its_upper_half_and_by_nothing_else() {
        let halves = [0_u32, 1, 2, 0x7FFF_FFFF, 0x8000_0000, 0x8000_8000, u32::MAX - 1, u32::MAX];
        for turn in 0..64_usize {
            let words: [Shared64; LINE_WORDS] = std::array::from_fn(|at| {
                let upper = u64::from(halves[(at * turn + turn / 8) % halves.len()]);
                Shared64::new(upper << 32 | u64::from(halves[(at + turn) % halves.len()]))
            });
            for half in halves.into_iter().chain([0x1234_5678]) {
                let found = find_upper(&words, half);
                for (at, word) in words.iter().enumerate() {
                    let is_it = (word.load(Relaxed) >> 32) as u32 == half;
                    assert_eq!(found >> at & 1 == 1, is_it, "word {at} of {words:?}, {half:x}");
                }
            }
        }
    }
}
