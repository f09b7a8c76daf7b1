//! FarmHash64, variant "na", which is also Google's Fingerprint64.
//!
//! Source: Pike and Alakuijala, FarmHash, `farmhashna::Hash64`. Written here because the published
//! crate answers wrongly at every multiple of 64 from 128 bytes on, and the hash of a participant
//! and a message id of 64 characters each is just that long.

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;
const SEED: u64 = 81;
const BLOCK: usize = 64;

/// FarmHash64 "na" of `bytes`.
///
/// ```
/// assert_eq!(mainstay_sds::hash::farm64(b"abc"), 0x24a5_b3a0_74e7_f369);
/// ```
#[must_use]
pub fn farm64(bytes: &[u8]) -> u64 {
    match bytes.len() {
        0..=16 => up_to_16(bytes),
        17..=32 => up_to_32(bytes),
        33..=64 => up_to_64(bytes),
        _ => long(bytes),
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

fn half_word(bytes: &[u8], at: usize) -> u64 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u64::from(u32::from_le_bytes(four))
}

fn shift_mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

fn mix(u: u64, v: u64, mul: u64) -> u64 {
    let a = shift_mix((u ^ v).wrapping_mul(mul));
    let b = shift_mix((v ^ a).wrapping_mul(mul));
    b.wrapping_mul(mul)
}

fn multiplier(len: usize) -> u64 {
    K2.wrapping_add(len as u64 * 2)
}

fn up_to_16(s: &[u8]) -> u64 {
    let len = s.len();
    let mul = multiplier(len);
    match len {
        8.. => {
            let a = word(s, 0).wrapping_add(K2);
            let b = word(s, len - 8);
            let c = b.rotate_right(37).wrapping_mul(mul).wrapping_add(a);
            let d = a.rotate_right(25).wrapping_add(b).wrapping_mul(mul);
            mix(c, d, mul)
        }
        4..8 => {
            let a = (len as u64).wrapping_add(half_word(s, 0) << 3);
            mix(a, half_word(s, len - 4), mul)
        }
        1..4 => {
            let (a, b, c) = (u64::from(s[0]), u64::from(s[len >> 1]), u64::from(s[len - 1]));
            let y = a.wrapping_add(b << 8);
            let z = (len as u64).wrapping_add(c << 2);
            shift_mix(y.wrapping_mul(K2) ^ z.wrapping_mul(K0)).wrapping_mul(K2)
        }
        0 => K2,
    }
}

fn up_to_32(s: &[u8]) -> u64 {
    let len = s.len();
    let mul = multiplier(len);
    let a = word(s, 0).wrapping_mul(K1);
    let b = word(s, 8);
    let c = word(s, len - 8).wrapping_mul(mul);
    let d = word(s, len - 16).wrapping_mul(K2);
    let u = a.wrapping_add(b).rotate_right(43).wrapping_add(c.rotate_right(30)).wrapping_add(d);
    let v = a.wrapping_add(b.wrapping_add(K2).rotate_right(18)).wrapping_add(c);
    mix(u, v, mul)
}

fn up_to_64(s: &[u8]) -> u64 {
    let len = s.len();
    let mul = multiplier(len);
    let a = word(s, 0).wrapping_mul(K2);
    let b = word(s, 8);
    let c = word(s, len - 8).wrapping_mul(mul);
    let d = word(s, len - 16).wrapping_mul(K2);
    let y = a.wrapping_add(b).rotate_right(43).wrapping_add(c.rotate_right(30)).wrapping_add(d);
    let z = mix(y, a.wrapping_add(b.wrapping_add(K2).rotate_right(18)).wrapping_add(c), mul);
    let e = word(s, 16).wrapping_mul(mul);
    let f = word(s, 24);
    let g = y.wrapping_add(word(s, len - 32)).wrapping_mul(mul);
    let h = z.wrapping_add(word(s, len - 24)).wrapping_mul(mul);
    let u = e.wrapping_add(f).rotate_right(43).wrapping_add(g.rotate_right(30)).wrapping_add(h);
    let v = e.wrapping_add(f.wrapping_add(a).rotate_right(18)).wrapping_add(g);
    mix(u, v, mul)
}

/// The hash of 32 bytes at `at`, mixed into a pair.
fn weak(s: &[u8], at: usize, a: u64, b: u64) -> (u64, u64) {
    let z = word(s, at + 24);
    let start = a.wrapping_add(word(s, at));
    let b = b.wrapping_add(start).wrapping_add(z).rotate_right(21);
    let a = start.wrapping_add(word(s, at + 8)).wrapping_add(word(s, at + 16));
    let b = b.wrapping_add(a.rotate_right(44));
    (a.wrapping_add(z), b.wrapping_add(start))
}

fn long(s: &[u8]) -> u64 {
    let len = s.len();
    let mut y = SEED.wrapping_mul(K1).wrapping_add(113);
    let mut z = shift_mix(y.wrapping_mul(K2).wrapping_add(113)).wrapping_mul(K2);
    let mut x = SEED.wrapping_mul(K2).wrapping_add(word(s, 0));
    let (mut v, mut w) = ((0_u64, 0_u64), (0_u64, 0_u64));

    // All whole blocks but the last one, which may be whole too and is done below.
    let end = (len - 1) / BLOCK * BLOCK;
    let mut at = 0;
    while at < end {
        round(s, at, K1, 1, &mut x, &mut y, &mut z, &mut v, &mut w);
        at += BLOCK;
    }

    let mul = K1.wrapping_add((z & 0xff) << 1);
    let rest = ((len - 1) % BLOCK) as u64;
    w.0 = w.0.wrapping_add(rest);
    v.0 = v.0.wrapping_add(w.0);
    w.0 = w.0.wrapping_add(v.0);
    round(s, len - BLOCK, mul, 9, &mut x, &mut y, &mut z, &mut v, &mut w);

    let first = mix(v.0, w.0, mul).wrapping_add(shift_mix(y).wrapping_mul(K0)).wrapping_add(z);
    let second = mix(v.1, w.1, mul).wrapping_add(x);
    mix(first, second, mul)
}

/// One block of 64 bytes; `weight` is 1 in the loop and 9 at the end.
#[allow(clippy::too_many_arguments, reason = "the hash has seven words of state")]
#[inline(always)]
fn round(
    s: &[u8],
    at: usize,
    mul: u64,
    weight: u64,
    x: &mut u64,
    y: &mut u64,
    z: &mut u64,
    v: &mut (u64, u64),
    w: &mut (u64, u64),
) {
    *x = x.wrapping_add(*y).wrapping_add(v.0).wrapping_add(word(s, at + 8));
    *x = x.rotate_right(37).wrapping_mul(mul);
    *y = y.wrapping_add(v.1).wrapping_add(word(s, at + 48)).rotate_right(42).wrapping_mul(mul);
    *x ^= w.1.wrapping_mul(weight);
    *y = y.wrapping_add(v.0.wrapping_mul(weight)).wrapping_add(word(s, at + 40));
    *z = z.wrapping_add(w.0).rotate_right(33).wrapping_mul(mul);
    *v = weak(s, at, v.1.wrapping_mul(mul), x.wrapping_add(w.0));
    *w = weak(s, at + 32, z.wrapping_add(w.1), y.wrapping_add(word(s, at + 16)));
    std::mem::swap(z, x);
}
