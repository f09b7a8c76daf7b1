//! What the tests write into states: a few words that say which version this is and who made it,
//! then words that follow from these, so that any part of another version, and any byte left from
//! before, is seen.

use crate::{
    finding::{Check, ensure},
    verdict::Harm::Torn,
};
use mainstay_base::mix64;

/// Bytes of a state in most tests: four cache lines.
pub(crate) const SIZE: usize = 256;

/// Bytes in front of what follows from them. Contents are longer: a head alone says nothing wrong.
const HEAD: usize = 32;

/// One version of one state.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Contents {
    /// The number under which it is to be seen; 0 is a state never written.
    pub(crate) version: u64,
    /// What transfers move about.
    pub(crate) amount: i64,
    /// The transaction that made it.
    pub(crate) author: u64,
}

/// In the number of an author: the version was published, whatever was there. So its author could
/// only guess its number, which may have come to be a later one.
const BLIND: u64 = 1 << 63;

impl Contents {
    /// The next version of this, by `author`.
    pub(crate) fn next(self, amount: i64, author: u64) -> Self {
        Self { version: self.version + 1, amount: self.amount.wrapping_add(amount), author }
    }

    /// What is published after this, by `author`.
    pub(crate) fn published(self, author: u64) -> Self {
        self.next(0, author | BLIND)
    }

    /// All bytes of a version of this many.
    pub(crate) fn bytes(self, len: usize) -> Vec<u8> {
        if self.version == 0 {
            return vec![0; len];
        }
        let head = [self.version, self.amount as u64, self.author, len as u64];
        let seed = head.iter().fold(0, |seed, word| mix64(seed ^ word));
        let tail = (HEAD / 8..).map(|at| mix64(seed.wrapping_add(at as u64)));
        let words = head.into_iter().chain(tail);
        let mut bytes: Vec<u8> = words.take(len.div_ceil(8)).flat_map(u64::to_le_bytes).collect();
        bytes.truncate(len);
        bytes
    }

    /// What these bytes are, whatever version that is.
    pub(crate) fn whole(bytes: &[u8]) -> Check<Self> {
        let version = bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        Self::of(bytes, version)
    }

    /// What these bytes are, which the library calls version `version`.
    pub(crate) fn of(bytes: &[u8], version: u64) -> Check<Self> {
        let word = |at: usize| {
            let word = bytes.get(8 * at..8 * at + 8).and_then(|word| word.try_into().ok());
            u64::from_le_bytes(word.unwrap_or_default())
        };
        let found = Self { version: word(0), amount: word(1) as i64, author: word(2) };
        let is_blind = found.author & BLIND != 0 && (1..=version).contains(&found.version);
        ensure(found.version == version || is_blind, Torn, || {
            format!("version {version} holds the contents of version {}", found.version)
        })?;
        let right = found.bytes(bytes.len());
        ensure(right == bytes, Torn, || {
            let bad = right.iter().zip(bytes).filter(|(right, is)| right != is).count();
            format!("{bad} of {} bytes of version {version} are not its own", bytes.len())
        })?;
        Ok(Self { version, ..found })
    }
}

/// What a transaction that is never committed leaves in its private version.
pub(crate) fn garbage(bytes: &mut [u8]) {
    bytes.fill(0xD7);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_come_back_and_any_other_byte_or_version_is_seen() {
        let first = Contents::default().next(5, 77);
        let second = first.next(-7, 78);
        assert_eq!((second.version, second.amount, second.author), (2, -2, 78));
        for len in [HEAD + 8, SIZE, SIZE + 3, 4_096] {
            let bytes = second.bytes(len);
            assert_eq!(Contents::of(&bytes, 2).unwrap(), second);
            assert_eq!(Contents::whole(&bytes).unwrap(), second);
            assert!(Contents::of(&bytes, 3).is_err());
            for at in [0, 9, 17, HEAD - 1, len - 1] {
                let mut torn = bytes.clone();
                torn[at] ^= 1;
                assert!(Contents::of(&torn, 2).is_err(), "byte {at} of {len}");
            }
        }
    }

    #[test]
    fn what_was_published_may_have_come_later_than_its_author_thought_and_not_earlier() {
        let published = Contents { version: 4, ..Contents::default() }.published(77);
        let bytes = published.bytes(SIZE);
        assert_eq!(Contents::of(&bytes, 5).unwrap().version, 5);
        assert_eq!(Contents::of(&bytes, 9).unwrap().version, 9);
        assert!(Contents::of(&bytes, 4).is_err());
        let next = Contents::of(&bytes, 9).unwrap().next(0, 78);
        assert_eq!(Contents::of(&next.bytes(SIZE), 10).unwrap(), next);
    }

    #[test]
    fn a_state_never_written_is_zeros() {
        assert_eq!(Contents::of(&[0; SIZE], 0).unwrap(), Contents::default());
        assert!(Contents::of(&[1; SIZE], 0).is_err());
        let mut bytes = Contents::default().bytes(SIZE);
        garbage(&mut bytes);
        assert!(Contents::of(&bytes, 0).is_err());
    }
}
