//! One's own filter: bits in wire order, and a next filter that is filled while this one is used.

use std::collections::VecDeque;

use super::Params;
use crate::{
    error::Result,
    hash::FilterHashes,
    wire::{
        Profile,
        proto::{bytes_field_len, put_bytes_head, put_varint, put_varint_field, varint_len},
    },
};

/// How many ids of the backlog move to the next filter at each add: enough to be through long
/// before the filters change places.
const BACKLOG_PER_ADD: usize = 3;

/// The filter of a channel: the latest ids it was given, in the bytes that go on the wire.
///
/// When it holds more than it can, it keeps the newest. In the nim profile that is from 0.8 to 1.2
/// times its capacity, as its peers do it; in the lip profile from 0.8 times to its capacity, as
/// the size on the wire is fixed.
///
/// ```
/// use mainstay_sds::{bloom::{Params, RollingFilter}, hash::FilterHashes, wire::Profile};
/// let mut filter = RollingFilter::new(Profile::Nim, Params::new(10_000, 0.001)?);
/// let m1 = FilterHashes::of(Profile::Nim, b"m1");
/// assert!(!filter.contains(m1));
/// assert_eq!(filter.add(m1), 10, "all its bits were clear");
/// assert!(filter.contains(m1));
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RollingFilter {
    profile: Profile,
    /// What each filter after the first is sized for.
    rolled: Params,
    current: Image,
    /// The filter that comes after; has bits only from the point on where an id is sure to be in.
    next: Image,
    /// The ids in use, oldest first.
    ids: VecDeque<FilterHashes>,
    /// The first one that the next filter is still to get.
    backlog: usize,
    /// How many are left after rolling over, and how many are never exceeded.
    min: usize,
    max: usize,
    adds: u64,
}

impl RollingFilter {
    /// An empty filter. No memory is taken before the first add.
    ///
    /// Example: see [`RollingFilter`].
    #[must_use]
    pub fn new(profile: Profile, params: Params) -> Self {
        let capacity = params.capacity as usize;
        let min = (capacity * 4 / 5).max(1);
        let max = match profile {
            Profile::Nim => capacity * 6 / 5,
            Profile::Lip => capacity,
        };
        let rolled = match profile {
            Profile::Lip => params,
            Profile::Nim => Params::new(max as u32, params.error_rate)
                .expect("a fifth more than a capacity that was accepted is below twice the limit"),
        };
        Self {
            profile,
            rolled,
            current: Image::new(params),
            next: Image::new(rolled),
            ids: VecDeque::new(),
            backlog: 0,
            min,
            max,
            adds: 0,
        }
    }

    /// Adds an id and says how many of its bits were clear before: none of them says nothing about
    /// whether it was there, and many make a peer's filter that has them all good evidence.
    ///
    /// Example: see [`RollingFilter`].
    pub fn add(&mut self, id: FilterHashes) -> u8 {
        let fresh = self.current.set(self.profile, id);
        let position = self.ids.len();
        self.ids.push_back(id);
        self.adds += 1;
        // The ids that are left after the next roll are those from here on.
        let first_kept = self.max + 1 - self.min;
        if position >= first_kept {
            self.next.set(self.profile, id);
            self.catch_up(BACKLOG_PER_ADD);
        }
        if self.ids.len() > self.max {
            self.roll();
        }
        fresh
    }

    /// How many ids it holds.
    ///
    /// ```
    /// use mainstay_sds::{bloom::{Params, RollingFilter}, hash::FilterHashes, wire::Profile};
    /// let mut filter = RollingFilter::new(Profile::Nim, Params::new(5, 0.01)?);
    /// assert!(filter.is_empty());
    /// for id in 0..7 {
    ///     filter.add(FilterHashes::of(Profile::Nim, &[id]));
    /// }
    /// assert_eq!(filter.len(), 4, "it has rolled over at the seventh");
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it holds none.
    ///
    /// Example: see [`RollingFilter::len`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// How many ids it was ever given.
    pub(crate) fn adds(&self) -> u64 {
        self.adds
    }

    /// Whether all bits of `id` are set.
    ///
    /// Example: see [`RollingFilter`].
    #[must_use]
    pub fn contains(&self, id: FilterHashes) -> bool {
        let params = self.current.params;
        let bits = u64::from(params.bits);
        !self.current.bytes.is_empty()
            && Probe::new(id.a % bits, id.b % bits, bits, params.hashes)
                .all(|bit| self.current.bytes[byte_of(self.profile, bit)] & mask_of(bit) != 0)
    }

    /// The size of the filter in use now.
    ///
    /// ```
    /// use mainstay_sds::{bloom::{Params, RollingFilter}, wire::Profile};
    /// let params = Params::new(1000, 0.001)?;
    /// assert_eq!(RollingFilter::new(Profile::Nim, params).params(), params);
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn params(&self) -> Params {
        self.current.params
    }

    /// The filter as its bytes on the wire, without the field around them.
    ///
    /// ```
    /// use mainstay_sds::{bloom::{Params, RollingFilter}, wire::Profile};
    /// let filter = RollingFilter::new(Profile::Nim, Params::new(10_000, 0.001)?);
    /// assert_eq!(filter.to_bytes().len(), 18_768);
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.blob_len());
        self.write_blob(&mut out);
        out
    }

    /// Writes the filter as field `number` of a message (B1).
    pub(crate) fn write_field(&self, out: &mut Vec<u8>, number: u64) {
        put_bytes_head(out, number, self.blob_len());
        self.write_blob(out);
    }

    /// The bytes that the filter takes as field `number` of a message.
    pub(crate) fn field_len(&self, number: u64) -> usize {
        bytes_field_len(number, self.blob_len())
    }

    /// The same, and whatever it will take: it grows by a fifth when it rolls for the first time.
    pub(crate) fn field_len_max(&self, number: u64) -> usize {
        self.field_len(number) * 6 / 5 + 16
    }

    fn blob_len(&self) -> usize {
        let params = &self.current.params;
        match self.profile {
            Profile::Lip => params.image_len(),
            Profile::Nim => {
                let numbers = [
                    u64::from(params.capacity),
                    params.error_millionths(),
                    u64::from(params.hashes),
                    u64::from(params.bits),
                ];
                let numbers: usize = numbers.map(|number| 1 + varint_len(number)).iter().sum();
                bytes_field_len(1, params.image_len()) + numbers
            }
        }
    }

    fn write_blob(&self, out: &mut Vec<u8>) {
        let params = &self.current.params;
        if self.profile == Profile::Nim {
            put_bytes_head(out, 1, params.image_len());
        }
        if self.current.bytes.is_empty() {
            out.resize(out.len() + params.image_len(), 0);
        } else {
            out.extend_from_slice(&self.current.bytes);
        }
        if self.profile == Profile::Nim {
            put_varint_field(out, 2, u64::from(params.capacity));
            put_varint(out, 3 << 3);
            put_varint(out, params.error_millionths());
            put_varint_field(out, 4, u64::from(params.hashes));
            put_varint_field(out, 5, u64::from(params.bits));
        }
    }

    /// Gives the next filter up to `count` of the ids that are left over from the last roll.
    fn catch_up(&mut self, count: usize) {
        let first_kept = self.max + 1 - self.min;
        // What was added since stands behind `min` and went in at once.
        for _ in 0..count {
            let at = first_kept + self.backlog;
            if at >= self.min.min(self.ids.len()) || self.adds <= self.max as u64 {
                return;
            }
            self.next.set(self.profile, self.ids[at]);
            self.backlog += 1;
        }
    }

    /// Changes places with the next filter, which holds just the newest `min` ids (B2).
    fn roll(&mut self) {
        self.catch_up(self.ids.len());
        self.ids.drain(..self.ids.len() - self.min);
        std::mem::swap(&mut self.current, &mut self.next);
        self.next.clear(self.rolled);
        self.backlog = 0;
    }

    /// Bytes of memory beside the struct itself.
    pub(crate) fn memory(&self) -> usize {
        self.current.bytes.capacity()
            + self.next.bytes.capacity()
            + self.ids.capacity() * size_of::<FilterHashes>()
    }
}

/// The bits of one filter, in wire order. Empty until the first bit is set.
#[derive(Clone, Debug)]
struct Image {
    params: Params,
    bytes: Vec<u8>,
}

impl Image {
    fn new(params: Params) -> Self {
        Self { params, bytes: Vec::new() }
    }

    /// Sets the bits of an id and says how many were clear.
    fn set(&mut self, profile: Profile, id: FilterHashes) -> u8 {
        if self.bytes.is_empty() {
            self.bytes.resize(self.params.image_len(), 0);
        }
        let bits = u64::from(self.params.bits);
        let mut fresh = 0;
        for bit in Probe::new(id.a % bits, id.b % bits, bits, self.params.hashes) {
            let byte = &mut self.bytes[byte_of(profile, bit)];
            fresh += u8::from(*byte & mask_of(bit) == 0);
            *byte |= mask_of(bit);
        }
        fresh
    }

    fn clear(&mut self, params: Params) {
        self.params = params;
        self.bytes.clear();
        self.bytes.resize(params.image_len(), 0);
    }
}

/// The bits of an id: (A + n·B) mod m for n from 0 on, without a division.
#[derive(Clone)]
pub(super) struct Probe {
    at: u64,
    step: u64,
    bits: u64,
    left: u32,
}

impl Probe {
    /// `a` and `b` are below `bits`.
    #[inline]
    pub(super) fn new(a: u64, b: u64, bits: u64, hashes: u32) -> Self {
        Self { at: a, step: b, bits, left: hashes }
    }
}

impl Iterator for Probe {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let bit = self.at;
        self.at += self.step;
        if self.at >= self.bits {
            self.at -= self.bits;
        }
        Some(bit as usize)
    }
}

/// In which byte a bit is: words are little-endian in the nim profile, big-endian in the other.
#[inline]
pub(super) fn byte_of(profile: Profile, bit: usize) -> usize {
    match profile {
        Profile::Nim => bit >> 3,
        Profile::Lip => (bit >> 3) ^ 7,
    }
}

#[inline]
pub(super) fn mask_of(bit: usize) -> u8 {
    1 << (bit & 7)
}

/// A filter of `params` that takes part in `profile`, checked.
pub(crate) fn checked(profile: Profile, params: Params, only_own: bool) -> Result<RollingFilter> {
    if !only_own {
        params.check_profile(profile)?;
    }
    Ok(RollingFilter::new(profile, params))
}
