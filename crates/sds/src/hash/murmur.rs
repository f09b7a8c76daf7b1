//! MurmurHash3_x86_32, as `@waku/sds` computes it.
//!
//! Source: Appleby, MurmurHash3 (2011). Its input there is not bytes but the first UTF-16 unit of
//! each character, and a unit over 255 is OR-ed unmasked into the 32-bit block. For ASCII that is
//! the published hash of the bytes; for other text it is what the peers do, and so what we do.

const C1: u32 = 0xcc9e_2d51;
const C2: u32 = 0x1b87_3593;

/// The hash of one id, with seed 0, as a signed number.
///
/// ```
/// assert_eq!(mainstay_sds::hash::murmur32(b""), 0);
/// assert_eq!(mainstay_sds::hash::murmur32(b"hello"), 0x248b_fa47);
/// ```
#[must_use]
pub fn murmur32(id: &[u8]) -> i32 {
    murmur32_pair(id).0
}

/// The hashes of `id` and of `id` followed by a space and the letter b, in one pass: the second
/// goes on from the state of the first.
///
/// ```
/// use mainstay_sds::hash::{murmur32, murmur32_pair};
/// assert_eq!(murmur32_pair(b"msg1"), (murmur32(b"msg1"), murmur32(b"msg1 b")));
/// ```
#[must_use]
pub fn murmur32_pair(id: &[u8]) -> (i32, i32) {
    let mut state = State::default();
    if id.is_ascii() {
        let (blocks, rest) = id.as_chunks::<4>();
        for block in blocks {
            state.mix(u32::from_le_bytes(*block));
        }
        state.len = 4 * blocks.len() as u32;
        for &byte in rest {
            state.push(u32::from(byte));
        }
    } else {
        for character in String::from_utf8_lossy(id).chars() {
            let mut units = [0; 2];
            state.push(u32::from(character.encode_utf16(&mut units)[0]));
        }
    }
    let mut second = state.clone();
    second.push(u32::from(b' '));
    second.push(u32::from(b'b'));
    (state.finish(), second.finish())
}

#[derive(Clone, Default)]
struct State {
    hash: u32,
    /// Units that do not fill a block yet, and how many.
    block: u32,
    len: u32,
}

impl State {
    #[inline]
    fn push(&mut self, unit: u32) {
        let shift = self.len % 4 * 8;
        // In the block units are OR-ed; an unmasked one spills into its neighbour.
        self.block |= unit << shift;
        self.len = self.len.wrapping_add(1);
        if shift == 24 {
            self.mix(self.block);
            self.block = 0;
        }
    }

    #[inline]
    fn mix(&mut self, block: u32) {
        self.hash ^= scramble(block);
        self.hash = self.hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }

    fn finish(self) -> i32 {
        let mut hash = self.hash;
        if !self.len.is_multiple_of(4) {
            hash ^= scramble(self.block);
        }
        hash ^= self.len;
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
        (hash ^ (hash >> 16)) as i32
    }
}

fn scramble(block: u32) -> u32 {
    block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2)
}
