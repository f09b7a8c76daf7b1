//! A filter from the wire.

use super::{
    Params,
    rolling::{Probe, byte_of, mask_of},
};
use crate::{
    limits::{FILTER_BITS_MAX, FILTER_HASHES_MAX},
    planted,
    wire::{
        Profile,
        proto::{Reader, Value},
    },
};

/// A filter fuller than this says nothing: neither of the peers' own implementations fills one
/// beyond 0.55 before it rolls, and one of them never rolls.
const FILL_MAX: f64 = 0.6;

/// A filter that takes more than this share of absent ids for present says nothing.
const FALSE_MAX: f64 = 0.02;

/// The bits of a filter that came with a message, and how to look one up (B3).
///
/// ```
/// use mainstay_sds::{bloom::{Params, PeerFilter, RollingFilter}, hash::FilterHashes, wire::Profile};
/// let params = Params::new(1000, 0.001)?;
/// let mut theirs = RollingFilter::new(Profile::Nim, params);
/// theirs.add(FilterHashes::of(Profile::Nim, b"m1"));
/// let bytes = theirs.to_bytes();
/// let filter = PeerFilter::parse(Profile::Nim, &bytes, params).unwrap();
/// assert!(filter.contains(FilterHashes::of(Profile::Nim, b"m1")));
/// assert!(!filter.contains(FilterHashes::of(Profile::Nim, b"m2")));
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PeerFilter<'a> {
    profile: Profile,
    bytes: &'a [u8],
    hashes: u32,
    bits: u64,
}

/// Where the first bits of an id are in the filters of one size: each is a byte's number and a
/// bit's within it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spots([u32; 4]);

impl Spots {
    /// Those of an id by its hashes, reduced to filters of `bits` bits and `hashes` hashes.
    pub(crate) fn of(profile: Profile, (a, b): (u64, u64), (bits, hashes): (u64, u32)) -> Self {
        let probe = Probe::new(a, b, bits, hashes);
        let mut all = probe.map(|bit| (byte_of(profile, bit) << 3 | bit & 7) as u32).cycle();
        // With fewer than four hashes some are looked at twice.
        Self(std::array::from_fn(|_| all.next().unwrap_or_default()))
    }
}

impl<'a> PeerFilter<'a> {
    /// Reads a filter; `None` if there is none or it makes no sense. `own` is what a filter
    /// without parameters has (lip profile).
    ///
    /// Example: see [`PeerFilter`].
    #[must_use]
    pub fn parse(profile: Profile, bytes: &'a [u8], own: Params) -> Option<Self> {
        match profile {
            Profile::Lip => {
                let fits = bytes.len() == own.image_len();
                fits.then_some(Self {
                    profile,
                    bytes,
                    hashes: own.hashes,
                    bits: u64::from(own.bits),
                })
            }
            Profile::Nim => Self::parse_blob(bytes),
        }
    }

    fn parse_blob(blob: &'a [u8]) -> Option<Self> {
        let profile = Profile::Nim;
        let (mut image, mut numbers) = (None, [None; 4]);
        let mut reader = Reader::new(blob, profile.varints());
        while let Some((number, value)) = reader.field().ok()? {
            match (number, value) {
                (1, Value::Bytes(bytes)) => image = Some(bytes),
                (2..=5, Value::Varint(value)) => numbers[number as usize - 2] = Some(value),
                _ => {}
            }
        }
        let [Some(_capacity), Some(_error), Some(hashes), Some(bits)] = numbers else {
            return None;
        };
        let bytes = image?;
        // Whole words only: what is beyond does not count.
        let words = bytes.len() / 8;
        let bits_there = words as u64 * 64;
        let sane = (1..=FILTER_HASHES_MAX).contains(&hashes)
            && (1..=FILTER_BITS_MAX.min(bits_there)).contains(&bits);
        sane.then_some(Self { profile, bytes: &bytes[..words * 8], hashes: hashes as u32, bits })
    }

    /// Whether all bits of an id are set.
    ///
    /// Example: see [`PeerFilter`].
    #[must_use]
    pub fn contains(&self, id: crate::hash::FilterHashes) -> bool {
        self.has(id.a % self.bits, id.b % self.bits)
    }

    /// The same with hashes that were reduced already.
    #[inline]
    pub(crate) fn has(&self, a: u64, b: u64) -> bool {
        let mut probe = Probe::new(a, b, self.bits, self.hashes);
        probe.all(|bit| self.bytes[byte_of(self.profile, bit)] & mask_of(bit) != 0)
    }

    /// Whether the bits at these spots are set, which the filter's size was taken for.
    ///
    /// Without a branch between them: whether one of four is clear can be foretold nearly always,
    /// whether a given one is cannot.
    #[inline]
    pub(crate) fn has_first(&self, spots: Spots) -> bool {
        let set = |spot: u32| self.bytes[spot as usize >> 3] >> (spot & 7) & 1;
        let [a, b, c, d] = spots.0;
        set(a) & set(b) & set(c) & set(d) != 0
    }

    /// Bits and hashes: filters that agree in these make the same mistakes.
    pub(crate) fn geometry(&self) -> (u64, u32) {
        (self.bits, self.hashes)
    }

    /// The share of absent ids that this very filter takes for present, by how many of its bits
    /// are set; `None` if that is so many that it says nothing.
    ///
    /// Looks at every byte: to be asked once a message, and only after a first hit.
    ///
    /// ```
    /// use mainstay_sds::{bloom::{Params, PeerFilter}, wire::Profile};
    /// let own = Params::new(10_000, 0.001)?;
    /// let ones = vec![0xff; 18_752];
    /// let filter = PeerFilter::parse(Profile::Lip, &ones, own).unwrap();
    /// assert_eq!(filter.error_rate(), None);
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn error_rate(&self) -> Option<f64> {
        let fill = self.ones() as f64 / self.bits as f64;
        let rate = fill.powi(self.hashes as i32);
        let says_something = fill <= FILL_MAX && rate <= FALSE_MAX;
        (says_something || planted("filter-saturated")).then_some(rate)
    }

    /// The bits set among those that count.
    fn ones(&self) -> u64 {
        let whole = self.bits as usize / 64;
        let (full, rest) = self.bytes.split_at(whole * 8);
        let words = full.as_chunks::<8>().0;
        let ones: u64 =
            words.iter().map(|word| u64::from(u64::from_le_bytes(*word).count_ones())).sum();
        let left = self.bits as usize % 64;
        let bit = |bit: usize| rest[byte_of(self.profile, bit)] & mask_of(bit) != 0;
        ones + (0..left).filter(|&at| bit(at)).count() as u64
    }
}
