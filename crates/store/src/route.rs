//! Which shard a key belongs to: it is chosen by the hash of the whole key, or of its first bits, so
//! that keys that begin alike are in one shard.

use crate::{
    limits::{KEY_BYTES_MAX, SHARD_BITS_MAX},
    planted::{Fault, is},
    shard::Change,
    span::Span,
    table::{hash_of, shard_of},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// A power of two.
    shards: u32,
    /// How many bits of a key count, from the highest of its first byte on; 0: all.
    bits: u32,
}

impl Route {
    pub(crate) fn new(shards: u32, bits: u32) -> Self {
        debug_assert!(shards.is_power_of_two() && bits <= SHARD_BITS_MAX, "headers are checked");
        Self { shards, bits }
    }

    pub(crate) fn has(self, shard: u32) -> bool {
        shard < self.shards
    }

    /// The hash of a key, and its shard.
    #[inline(always)]
    pub(crate) fn find(self, key: &[u8]) -> (u64, usize) {
        let hash = hash_of(key);
        let deciding = if self.bits == 0 { hash } else { hash_of_first(key, self.bits) };
        (hash, shard_of(deciding, self.shards as usize))
    }

    #[inline]
    pub(crate) fn shard(self, key: &[u8]) -> u32 {
        self.find(key).1 as u32
    }

    /// Where a key belongs that was found in a file of a shard, if that is another one.
    #[inline]
    pub(crate) fn elsewhere(self, shard: u32, key: &[u8]) -> Option<u32> {
        if self.shards == 1 {
            return None;
        }
        Some(self.shard(key)).filter(|belongs| *belongs != shard && !is(Fault::StrangersTaken))
    }

    /// Do all of these belong to a shard?
    pub(crate) fn leads_to(self, shard: u32, changes: &[Change<'_>]) -> bool {
        changes.iter().all(|change| self.shard(change.key()) == shard)
    }

    /// The shard of all keys of a span; none if they may be in several.
    pub(crate) fn only_shard(self, span: &Span) -> Option<u32> {
        let start = span.start_of_all(self.bits).filter(|_| self.bits > 0)?;
        Some(self.shard(start))
    }
}

/// The hash of as many bytes as the bits fill, the rest of the last one being zero; of a key that is
/// shorter, of all of it.
#[inline(never)]
fn hash_of_first(key: &[u8], bits: u32) -> u64 {
    let (whole, rest) = ((bits / 8) as usize, bits % 8);
    let mut head = [0; KEY_BYTES_MAX];
    match key.get(whole) {
        Some(last) if rest > 0 && whole < head.len() => {
            head[..whole].copy_from_slice(&key[..whole]);
            head[whole] = last & !(0xff >> rest);
            hash_of(&head[..=whole])
        }
        _ => hash_of(&key[..whole.min(key.len())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first bits of a key, one by one.
    fn first(key: &[u8], bits: u32) -> Vec<bool> {
        let all = key.iter().flat_map(|byte| (0..8).map(move |bit| byte >> (7 - bit) & 1 == 1));
        all.take(bits as usize).collect()
    }

    /// Few of them, so that keys meet, and such as carry.
    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![0_u8..3, Just(0x80), Just(0xc0), Just(0xff)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn all_keys_of_a_span_are_where_it_says(
            keys in prop::collection::vec(prop::collection::vec(byte(), 1..4), 1..40),
            from in prop::collection::vec(byte(), 0..4),
            to in prop::option::of(prop::collection::vec(byte(), 0..4)),
            bits in 1_u32..25,
        ) {
            let span = Span::ALL.from(&from);
            let span = if let Some(to) = &to { span.before(to) } else { span };
            let route = Route::new(1024, bits);
            if let Some(shard) = route.only_shard(&span) {
                for key in keys.iter().filter(|key| span.has(key)) {
                    prop_assert_eq!(route.shard(key), shard);
                }
            }
        }

        #[test]
        fn keys_that_begin_alike_are_in_one_shard(
            key in prop::collection::vec(any::<u8>(), 1..20),
            mut other in prop::collection::vec(any::<u8>(), 1..20),
            bits in 1_u32..120,
            shared in 0_usize..16,
        ) {
            let shared = shared.min(key.len()).min(other.len());
            other[..shared].copy_from_slice(&key[..shared]);
            let is_whole = |key: &[u8]| key.len() * 8 >= bits as usize;
            if is_whole(&key) && is_whole(&other) && first(&key, bits) == first(&other, bits) {
                let route = Route::new(1024, bits);
                prop_assert_eq!(route.shard(&key), route.shard(&other));
            }
        }

        #[test]
        fn one_bit_within_the_first_ones_tells_keys_apart(
            key in prop::collection::vec(any::<u8>(), 8),
            bit in 0_u32..64,
            bits in 1_u32..=64,
        ) {
            let mut other = key.clone();
            other[(bit / 8) as usize] ^= 0x80 >> (bit % 8);
            let is_same = hash_of_first(&key, bits) == hash_of_first(&other, bits);
            prop_assert_eq!(is_same, bit >= bits);
        }

        #[test]
        fn all_bits_are_the_whole_key(key in prop::collection::vec(any::<u8>(), 1..300)) {
            let whole = Route::new(64, 0);
            let bits = (key.len() as u32 * 8).min(SHARD_BITS_MAX);
            if key.len() <= KEY_BYTES_MAX {
                prop_assert_eq!(whole.find(&key), Route::new(64, bits).find(&key));
                prop_assert_eq!(whole.find(&key), Route::new(64, SHARD_BITS_MAX).find(&key));
            }
        }
    }

    #[test]
    fn a_prefix_of_enough_bits_is_in_one_shard() {
        let route = Route::new(256, 12);
        let shard_of = |prefix: &[u8]| route.only_shard(&Span::ALL.prefix(prefix));
        assert_eq!(shard_of(b"a"), None);
        let shard = shard_of(b"ab").unwrap();
        assert_eq!((route.shard(b"abc"), route.shard(b"ad")), (shard, route.shard(b"ao")));
        // "b" is one of these keys, and begins otherwise.
        let span = Span::ALL.from(b"a\xc3").before(b"b\0");
        assert!(span.has(b"b"));
        assert_eq!(Route::new(1024, 9).only_shard(&span), None);
        assert_eq!(Route::new(256, 0).only_shard(&Span::ALL.prefix(b"ab")), None);
    }
}
