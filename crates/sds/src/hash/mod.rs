//! The hashes of both profiles.
//!
//! The specification names none of them, so they are part of what a profile is: peers that hash
//! otherwise see noise in each other's filters and answer each other's requests wrongly.
//!
//! * nim: FarmHash64 "na" of the bytes ([`farm64`]), for filters and for repair.
//! * lip: MurmurHash3 of UTF-16 units ([`murmur32`]) for filters, the first eight bytes of SHA-256
//!   ([`sha64`]) for repair.

mod farm;
mod murmur;

pub use farm::farm64;
pub use murmur::{murmur32, murmur32_pair};

use sha2::{Digest, Sha256};

use crate::wire::Profile;

/// The first eight bytes of the SHA-256 of `bytes`, big-endian.
///
/// ```
/// assert_eq!(mainstay_sds::hash::sha64(b"alice"), 3_159_282_601_090_220_207);
/// ```
#[must_use]
pub fn sha64(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

/// What a filter needs to know of an id: two hashes that all its bits are made of.
///
/// ```
/// use mainstay_sds::{hash::FilterHashes, wire::Profile};
/// let hashes = FilterHashes::of(Profile::Nim, b"msg1");
/// assert_eq!(hashes.a % 150_000, 72_816);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterHashes {
    /// Of the id.
    pub a: u64,
    /// Of the id followed by a space and the letter b.
    pub b: u64,
}

impl FilterHashes {
    /// Both hashes of `id`, as `profile` takes them.
    ///
    /// Example: see [`FilterHashes`].
    #[must_use]
    pub fn of(profile: Profile, id: &[u8]) -> Self {
        match profile {
            Profile::Nim => {
                // Ids are at most 256 bytes; whatever is longer was refused before it came here,
                // and is hashed all the same.
                let mut stack = [0; 320];
                let second = if let Some(room) = stack.get_mut(..id.len() + 2) {
                    room[..id.len()].copy_from_slice(id);
                    room[id.len()..].copy_from_slice(b" b");
                    farm64(room)
                } else {
                    farm64(&[id, b" b"].concat())
                };
                Self { a: absolute(farm64(id)), b: absolute(second) }
            }
            Profile::Lip => {
                let (a, b) = murmur32_pair(id);
                Self { a: u64::from(a.unsigned_abs()), b: u64::from(b.unsigned_abs()) }
            }
        }
    }
}

/// The hash of the parts, one after the other without a separator, that SDS-R spreads its back-off
/// and its response groups with.
///
/// ```
/// use mainstay_sds::{hash::repair_hash, wire::Profile};
/// assert_eq!(repair_hash(Profile::Lip, &[b"alice", b"m1"]), 8_743_241_292_634_311_014);
/// ```
#[must_use]
pub fn repair_hash(profile: Profile, parts: &[&[u8]]) -> u64 {
    match profile {
        Profile::Lip => {
            let mut hasher = Sha256::new();
            for part in parts {
                hasher.update(part);
            }
            let digest = hasher.finalize();
            let mut first = [0; 8];
            first.copy_from_slice(&digest[..8]);
            u64::from_be_bytes(first)
        }
        Profile::Nim => absolute(farm64(&parts.concat())),
    }
}

/// The absolute value of the hash as a signed number; that of the smallest one does not overflow.
pub(crate) fn absolute(hash: u64) -> u64 {
    (hash as i64).unsigned_abs()
}
