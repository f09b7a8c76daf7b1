//! Copies to and from memory that another process may be writing.
//!
//! A plain `memcpy` from such memory is a data race in the language's terms. These functions are
//! not: on x86-64 the bytes are moved by assembly, which the compiler must treat as opaque and the
//! machine performs as single-copy-atomic pieces; elsewhere (and under Miri) by relaxed atomics.
//! What arrives may still be a mix of old and new bytes: telling that is the caller's business
//! (a version word before and after, a checksum).
//!
//! Example: see [`load`].

use crate::Shared64;
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Copies `len` bytes out of shared memory.
///
/// ```
/// let (from, mut to) = ([1_u8, 2, 3], [0_u8; 3]);
/// // SAFETY: two arrays of three bytes, both ours.
/// unsafe { mainstay_shm::copy::load(from.as_ptr(), to.as_mut_ptr(), 3) };
/// assert_eq!(to, from);
/// ```
///
/// # Safety
/// `src..src + len` is mapped and readable, `dst..dst + len` is writable and the caller's own, and
/// the two do not overlap.
#[inline(always)]
pub unsafe fn load(src: *const u8, dst: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len > WIDE_MIN && std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX, and the caller's promise is passed on.
        unsafe { wide_copy(src, dst, len) }
    } else {
        // SAFETY: the caller's promise is passed on.
        unsafe { narrow_load(src, dst, len) }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: the caller's promise; each access is inside of the two ranges.
    unsafe {
        let mut at = 0;
        while at < len {
            if len - at >= 8 && src.add(at).addr().is_multiple_of(8) {
                let word = (*src.add(at).cast::<AtomicU64>()).load(Ordering::Relaxed);
                dst.add(at).cast::<u64>().write_unaligned(word);
                at += 8;
            } else {
                dst.add(at).write((*src.add(at).cast::<AtomicU8>()).load(Ordering::Relaxed));
                at += 1;
            }
        }
    }
}

/// Copies the bytes of words from the first on. False if they are too few.
///
/// ```
/// use mainstay_shm::{Shared64, copy};
/// let words = [1, 2].map(Shared64::new);
/// let mut bytes = [0; 9];
/// assert!(copy::words(&words, &mut bytes));
/// assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0, 0, 2]);
/// assert!(!copy::words(&words, &mut [0; 17]));
/// ```
#[inline(always)]
#[must_use]
pub fn words(from: &[Shared64], target: &mut [u8]) -> bool {
    if target.len() > size_of_val(from) {
        return false;
    }
    // SAFETY: the words have as many bytes, which a reference makes readable; the target is a slice of
    // the caller's own.
    unsafe { load(from.as_ptr().cast(), target.as_mut_ptr(), target.len()) };
    true
}

/// Copies `len` bytes into shared memory.
///
/// ```
/// let (from, mut to) = ([1_u8, 2, 3], [0_u8; 3]);
/// // SAFETY: two arrays of three bytes, both ours.
/// unsafe { mainstay_shm::copy::store(from.as_ptr(), to.as_mut_ptr(), 3) };
/// assert_eq!(to, from);
/// ```
///
/// # Safety
/// `dst..dst + len` is mapped and writable, `src..src + len` is readable and the caller's own, and
/// the two do not overlap.
#[inline(always)]
pub unsafe fn store(src: *const u8, dst: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the caller's promise is exactly what the assembly needs.
    unsafe {
        asm_copy(src, dst, len);
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: as above; each access is inside of the two ranges.
    unsafe {
        let mut at = 0;
        while at < len {
            if len - at >= 8 && dst.add(at).addr().is_multiple_of(8) {
                let word = src.add(at).cast::<u64>().read_unaligned();
                (*dst.add(at).cast::<AtomicU64>()).store(word, Ordering::Relaxed);
                at += 8;
            } else {
                (*dst.add(at).cast::<AtomicU8>()).store(src.add(at).read(), Ordering::Relaxed);
                at += 1;
            }
        }
    }
}

/// Clears `len` bytes of shared memory, in pieces of 64 bytes.
///
/// ```
/// #[repr(align(64))]
/// struct Line([u8; 64]);
/// let mut line = Line([7; 64]);
/// // SAFETY: 64 bytes of ours, aligned to 64.
/// unsafe { mainstay_shm::copy::zero(line.0.as_mut_ptr(), 64) };
/// assert_eq!(line.0, [0; 64]);
/// ```
///
/// # Safety
/// `dst..dst + len` is mapped and writable, `dst` is a multiple of 64, `len` is a multiple of 64 and not
/// 0.
#[inline(always)]
pub unsafe fn zero(dst: *mut u8, len: usize) {
    debug_assert!(dst.addr().is_multiple_of(64) && len.is_multiple_of(64) && len > 0);
    // A call of memset costs 5 to 10 ns, which small blocks would notice.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the caller's promise covers every byte that is stored to; the flags and registers
    // that the assembly changes are declared.
    unsafe {
        if len <= ZERO_INLINE_MAX {
            let mut at = 0;
            loop {
                core::arch::asm!(
                    "movaps xmmword ptr [{dst}], {zero}",
                    "movaps xmmword ptr [{dst} + 16], {zero}",
                    "movaps xmmword ptr [{dst} + 32], {zero}",
                    "movaps xmmword ptr [{dst} + 48], {zero}",
                    dst = in(reg) dst.add(at),
                    zero = in(xmm_reg) core::arch::x86_64::_mm_setzero_si128(),
                    options(nostack, preserves_flags),
                );
                at += 64;
                if at >= len {
                    break;
                }
            }
        } else {
            core::arch::asm!(
                "rep stosb",
                inout("rcx") len => _,
                inout("rdi") dst => _,
                in("al") 0_u8,
                options(nostack, preserves_flags),
            );
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: as above.
    unsafe {
        let mut at = 0;
        while at < len {
            (*dst.add(at).cast::<AtomicU64>()).store(0, Ordering::Relaxed);
            at += 8;
        }
    }
}

/// Up to this size 16-byte stores beat `rep stosb`, whose start-up costs some 30 cycles.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const ZERO_INLINE_MAX: usize = 1_024;

/// From this size on 32-byte moves pay, where the processor has them.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const WIDE_MIN: usize = 256;

/// # Safety
/// Both ranges are valid for the access and do not overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn asm_copy(src: *const u8, dst: *mut u8, len: usize) {
    if len >= WIDE_MIN && std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX, and the caller's promise is passed on.
        unsafe { wide_copy(src, dst, len) }
    } else {
        // SAFETY: the caller's promise is passed on.
        unsafe { narrow_copy(src, dst, len) }
    }
}

/// Moves 128 bytes at a time. `rep movsb` is as fast only where source and target are aligned
/// alike, and three times slower elsewhere (measured on Zen 4).
///
/// # Safety
/// The processor has AVX; both ranges are valid for the access and do not overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx")]
unsafe fn wide_copy(src: *const u8, dst: *mut u8, len: usize) {
    let whole = len & !127;
    // SAFETY: the loop touches the first `whole` bytes of each range and nothing else; registers
    // and flags that it changes are declared, and the upper halves are cleared as the ABI wants.
    unsafe {
        core::arch::asm!(
            "2:",
            "vmovdqu ymm0, ymmword ptr [{src} + {at}]",
            "vmovdqu ymm1, ymmword ptr [{src} + {at} + 32]",
            "vmovdqu ymm2, ymmword ptr [{src} + {at} + 64]",
            "vmovdqu ymm3, ymmword ptr [{src} + {at} + 96]",
            "vmovdqu ymmword ptr [{dst} + {at}], ymm0",
            "vmovdqu ymmword ptr [{dst} + {at} + 32], ymm1",
            "vmovdqu ymmword ptr [{dst} + {at} + 64], ymm2",
            "vmovdqu ymmword ptr [{dst} + {at} + 96], ymm3",
            "add {at}, 128",
            "cmp {at}, {whole}",
            "jb 2b",
            "vzeroupper",
            src = in(reg) src,
            dst = in(reg) dst,
            at = inout(reg) 0_usize => _,
            whole = in(reg) whole,
            // All sixteen: `vzeroupper` clears the upper half of each.
            out("ymm0") _,
            out("ymm1") _,
            out("ymm2") _,
            out("ymm3") _,
            out("ymm4") _,
            out("ymm5") _,
            out("ymm6") _,
            out("ymm7") _,
            out("ymm8") _,
            out("ymm9") _,
            out("ymm10") _,
            out("ymm11") _,
            out("ymm12") _,
            out("ymm13") _,
            out("ymm14") _,
            out("ymm15") _,
            options(nostack),
        );
        narrow_copy(src.add(whole), dst.add(whole), len - whole);
    }
}

/// # Safety
/// Both ranges are valid for the access and do not overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn narrow_copy(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: the steps below touch `len` bytes of each range and nothing else; the registers that
    // the assembly changes are declared.
    unsafe {
        let mut at = 0;
        while len - at >= 64 {
            core::arch::asm!(
                "movups {a}, xmmword ptr [{src}]",
                "movups {b}, xmmword ptr [{src} + 16]",
                "movups {c}, xmmword ptr [{src} + 32]",
                "movups {d}, xmmword ptr [{src} + 48]",
                "movups xmmword ptr [{dst}], {a}",
                "movups xmmword ptr [{dst} + 16], {b}",
                "movups xmmword ptr [{dst} + 32], {c}",
                "movups xmmword ptr [{dst} + 48], {d}",
                src = in(reg) src.add(at),
                dst = in(reg) dst.add(at),
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                options(nostack, preserves_flags),
            );
            at += 64;
        }
        while len - at >= 16 {
            core::arch::asm!(
                "movups {t}, xmmword ptr [{src}]",
                "movups xmmword ptr [{dst}], {t}",
                src = in(reg) src.add(at),
                dst = in(reg) dst.add(at),
                t = out(xmm_reg) _,
                options(nostack, preserves_flags),
            );
            at += 16;
        }
        if len - at >= 8 {
            core::arch::asm!(
                "mov {t}, qword ptr [{src}]",
                "mov qword ptr [{dst}], {t}",
                src = in(reg) src.add(at),
                dst = in(reg) dst.add(at),
                t = out(reg) _,
                options(nostack, preserves_flags),
            );
            at += 8;
        }
        while at < len {
            core::arch::asm!(
                "mov {t}, byte ptr [{src}]",
                "mov byte ptr [{dst}], {t}",
                src = in(reg) src.add(at),
                dst = in(reg) dst.add(at),
                t = out(reg_byte) _,
                options(nostack, preserves_flags),
            );
            at += 1;
        }
    }
}

/// As [`narrow_copy`], but only what reads shared memory is assembly: the compiler sees what is
/// written, and where a copy of a size it knows goes on to another place it goes there at once.
///
/// # Safety
/// Both ranges are valid for the access and do not overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn narrow_load(src: *const u8, dst: *mut u8, len: usize) {
    use core::arch::x86_64::__m128i;

    // SAFETY: each step reads from the first range and writes to the second what it has read, all of
    // it below `len`; the registers that the assembly changes are declared.
    unsafe {
        let mut at = 0;
        while len - at >= 64 {
            let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
            core::arch::asm!(
                "movups {a}, xmmword ptr [{src}]",
                "movups {b}, xmmword ptr [{src} + 16]",
                "movups {c}, xmmword ptr [{src} + 32]",
                "movups {d}, xmmword ptr [{src} + 48]",
                src = in(reg) src.add(at),
                a = out(xmm_reg) a,
                b = out(xmm_reg) b,
                c = out(xmm_reg) c,
                d = out(xmm_reg) d,
                options(nostack, preserves_flags, readonly),
            );
            for (number, piece) in [a, b, c, d].into_iter().enumerate() {
                dst.add(at + 16 * number).cast::<__m128i>().write_unaligned(piece);
            }
            at += 64;
        }
        while len - at >= 16 {
            let piece: __m128i;
            core::arch::asm!(
                "movups {piece}, xmmword ptr [{src}]",
                src = in(reg) src.add(at),
                piece = out(xmm_reg) piece,
                options(nostack, preserves_flags, readonly),
            );
            dst.add(at).cast::<__m128i>().write_unaligned(piece);
            at += 16;
        }
        if len - at >= 8 {
            let piece: u64;
            core::arch::asm!(
                "mov {piece}, qword ptr [{src}]",
                src = in(reg) src.add(at),
                piece = out(reg) piece,
                options(nostack, preserves_flags, readonly),
            );
            dst.add(at).cast::<u64>().write_unaligned(piece);
            at += 8;
        }
        while at < len {
            let piece: u8;
            core::arch::asm!(
                "mov {piece}, byte ptr [{src}]",
                src = in(reg) src.add(at),
                piece = out(reg_byte) piece,
                options(nostack, preserves_flags, readonly),
            );
            dst.add(at).write(piece);
            at += 1;
        }
    }
}

/// Asks for memory that will be read soon, so that it is on its way while something else is done. A
/// hint: any address will do, and where there is no such instruction nothing happens.
///
/// ```
/// let bytes = [7_u8; 4_096];
/// mainstay_shm::copy::prefetch(bytes.as_ptr(), bytes.len());
/// ```
#[inline]
pub fn prefetch(src: *const u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for line in (0..len).step_by(64) {
        // SAFETY: the instruction reads nothing into the program and does not fault, whatever the
        // address (Intel SDM volume 2, PREFETCHh); every x86-64 has it.
        unsafe {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(
                src.wrapping_add(line).cast(),
            );
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (src, len);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_alignment_arrives_whole_and_touches_nothing_else() {
        let source: Vec<u8> = (0..2_100_u32).map(|i| (i % 251) as u8 + 1).collect();
        for len in (0..200).chain([1_023, 1_024, 1_025, 2_047, 2_048]) {
            for shift in 0..9 {
                let mut target = vec![0; len + 32];
                // SAFETY: `source` has 2,100 bytes, `target` has len + 32, shift is under 9.
                unsafe { load(source.as_ptr().add(shift), target.as_mut_ptr().add(16), len) };
                assert_eq!(target[16..16 + len], source[shift..shift + len]);
                // SAFETY: as above.
                unsafe { store(source.as_ptr(), target.as_mut_ptr().add(shift), len) };
                assert_eq!(target[shift..shift + len], source[..len]);
                assert!(target[len + 16.max(shift)..].iter().all(|b| *b == 0));
            }
        }
    }

    #[test]
    fn zeroing_clears_exactly_the_range() {
        #[repr(align(64))]
        struct Aligned([u8; 4_096]);
        for len in [64, 128, 1_024, 1_088, 2_048] {
            let mut memory = Box::new(Aligned([7; 4_096]));
            // SAFETY: 64 + len is within 4,096; the array is aligned to 64.
            unsafe { zero(memory.0.as_mut_ptr().add(64), len) };
            assert!(memory.0[..64].iter().all(|b| *b == 7));
            assert!(memory.0[64..64 + len].iter().all(|b| *b == 0));
            assert!(memory.0[64 + len..].iter().all(|b| *b == 7));
        }
    }
}
