//! What the tests write into blocks: 24 words that follow from one number, so that any part of
//! another number's words, and any byte left from before, is seen.

use mainstay_base::mix64;
use mainstay_pool::Record;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of data in a block: three cache lines.
pub(crate) const BLOCK_SIZE: usize = 192;

/// The contents as a type.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(crate) struct Contents([u64; BLOCK_SIZE / 8]);

impl Record for Contents {
    const NAME: &'static str = "mainstay.crash.contents/1";
}

impl Contents {
    /// All that follows from `seed`; zeros for 0, as in a new block.
    pub(crate) fn of(seed: u64) -> Self {
        let word = |i| if seed == 0 { 0 } else { mix64(seed.wrapping_mul(64) + i as u64) };
        Self(std::array::from_fn(word))
    }

    /// What a block holds.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self::read_from_bytes(bytes).expect("blocks of this suite have this size")
    }

    /// Whether each word is that of `old` or of `new`: all that a death in the middle of a write
    /// can leave.
    pub(crate) fn is_mix_of(&self, old: u64, new: u64) -> bool {
        let (old, new) = (Self::of(old), Self::of(new));
        self.0.iter().zip(old.0.iter().zip(new.0)).all(|(is, (old, new))| *is == *old || *is == new)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    /// For messages.
    pub(crate) fn describe(&self) -> String {
        let zeros = self.0.iter().filter(|word| **word == 0).count();
        format!("first word {:#x}, {zeros} of {} words zero", self.0[0], self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_follow_from_their_seed_and_a_mix_is_told_from_a_third() {
        let (a, b) = (Contents::of(1), Contents::of(2));
        assert_ne!(a, b);
        assert_eq!(Contents::of(0).bytes(), [0; BLOCK_SIZE]);
        let mut mix = a;
        mix.0[5] = b.0[5];
        assert!(mix.is_mix_of(1, 2) && !mix.is_mix_of(1, 3));
        assert_eq!(Contents::from_bytes(a.bytes()), a);
    }
}
