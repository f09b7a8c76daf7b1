//! Telling which records differ without sending them: hashes of records, sums of hashes.

use mainstay_base::{Crc64, crc64, mix64};

/// The part of a shard that a key belongs to, of 2^`bits`. The bits are others than those that
/// choose the shard.
pub(crate) fn part_of(key: &[u8], bits: u8) -> u32 {
    let hash = mix64(crc64(key));
    // A shift by all 64 bits would be none.
    (hash >> 32 >> (32 - u32::from(bits))) as u32
}

/// The hash of a record. That two records of a shard share one by chance is as likely as one in
/// 2^64 for each pair.
pub(crate) fn record_hash(key: &[u8], value: &[u8]) -> u64 {
    let mut sum = Crc64::new();
    sum.update(key);
    sum.update(value);
    mix64(sum.finish())
}

/// The sums of parts.
pub(crate) struct Sums {
    pub(crate) bits: u8,
    pub(crate) sums: Vec<u64>,
    pub(crate) counts: Vec<u64>,
}

impl Sums {
    pub(crate) fn new(bits: u8) -> Self {
        let parts = 1 << bits;
        Self { bits, sums: vec![0; parts], counts: vec![0; parts] }
    }

    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        let part = part_of(key, self.bits) as usize;
        self.sums[part] = self.sums[part].wrapping_add(record_hash(key, value));
        self.counts[part] += 1;
    }
}

/// A set of parts.
#[derive(Clone, Debug)]
pub(crate) struct Parts(pub(crate) Vec<u8>);

impl Parts {
    pub(crate) fn all(bits: u8) -> Self {
        let parts = 1_usize << bits;
        let mut bytes = vec![0xff; parts.div_ceil(8)];
        if parts < 8 {
            bytes[0] = (1 << parts) - 1;
        }
        Self(bytes)
    }

    pub(crate) fn none(bits: u8) -> Self {
        Self(vec![0; (1_usize << bits).div_ceil(8)])
    }

    pub(crate) fn insert(&mut self, part: u32) {
        self.0[part as usize / 8] |= 1 << (part % 8);
    }

    pub(crate) fn has(&self, part: u32) -> bool {
        self.0.get(part as usize / 8).is_some_and(|byte| byte >> (part % 8) & 1 == 1)
    }

    pub(crate) fn is_all(&self, bits: u8) -> bool {
        self.0 == Self::all(bits).0
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_evenly_filled_and_one_part_has_all() {
        let mut sums = Sums::new(4);
        for key in 0..16_000_u64 {
            assert_eq!(part_of(&key.to_le_bytes(), 0), 0);
            sums.add(&key.to_le_bytes(), b"");
        }
        assert!(sums.counts.iter().all(|count| (850..1_150).contains(count)), "{:?}", sums.counts);
    }

    #[test]
    fn a_sum_tells_another_value_and_one_record_less() {
        let sum = |records: &[(&[u8], &[u8])]| {
            let mut sums = Sums::new(0);
            records.iter().for_each(|(key, value)| sums.add(key, value));
            sums.sums[0]
        };
        let both = sum(&[(b"a", b"1"), (b"b", b"2")]);
        assert_eq!(both, sum(&[(b"b", b"2"), (b"a", b"1")]), "in any order");
        assert_ne!(both, sum(&[(b"a", b"2"), (b"b", b"1")]));
        assert_ne!(both, sum(&[(b"a", b"1")]));
    }

    #[test]
    fn a_set_of_parts_has_what_was_put_into_it() {
        for bits in [0, 2, 3, 13] {
            let (all, mut some) = (Parts::all(bits), Parts::none(bits));
            assert!(some.is_none() && (0..1 << bits).all(|part| all.has(part)));
            assert!(!all.has(1 << bits));
            some.insert((1 << bits) - 1);
            assert!(some.has((1 << bits) - 1) && !some.is_none());
        }
    }
}
