//! The checksums themselves: which way a piece of memory goes.

use crc_fast::{CrcAlgorithm, Digest, crc32_iscsi, crc64_nvme};

/// CRC32C of `bytes`.
///
/// ```
/// assert_eq!(mainstay_checksum::crc32c(b"123456789"), 0xE306_9283);
/// ```
#[must_use]
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if let Some(sum) = crate::page::crc32c(bytes) {
        return sum;
    }
    crc32_iscsi(bytes)
}

/// CRC32C of bytes that arrive in pieces.
///
/// ```
/// use mainstay_checksum::{crc32c, Crc32c};
/// let mut crc = Crc32c::new();
/// crc.update(b"1234");
/// crc.update(b"56789");
/// assert_eq!(crc.finish(), crc32c(b"123456789"));
/// ```
pub struct Crc32c(Digest);

impl Crc32c {
    /// The checksum of no bytes at all.
    ///
    /// Example: see [`Crc32c`].
    #[must_use]
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Adds `bytes` behind what was added before.
    ///
    /// Example: see [`Crc32c`].
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes added.
    ///
    /// Example: see [`Crc32c`].
    #[must_use]
    pub fn finish(self) -> u32 {
        narrow(self.0.finalize())
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

/// CRC-64/NVME of `bytes`.
///
/// Two different contents of which the difference spans at most 64 bits never have the same; any
/// other two have by a chance of 2^-64. It is no guard against malice.
///
/// ```
/// assert_eq!(mainstay_checksum::crc64(b"123456789"), 0xAE8B_1486_0A79_9888);
/// ```
#[must_use]
pub fn crc64(bytes: &[u8]) -> u64 {
    crc64_nvme(bytes)
}

/// CRC-64/NVME of bytes that arrive in pieces.
///
/// ```
/// use mainstay_checksum::{crc64, Crc64};
/// let mut crc = Crc64::new();
/// crc.update(b"1234");
/// crc.update(b"56789");
/// assert_eq!(crc.finish(), crc64(b"123456789"));
/// ```
pub struct Crc64(Digest);

impl Crc64 {
    /// The checksum of no bytes at all.
    ///
    /// Example: see [`Crc64`].
    #[must_use]
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Nvme))
    }

    /// Adds `bytes` behind what was added before.
    ///
    /// Example: see [`Crc64`].
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes added.
    ///
    /// Example: see [`Crc64`].
    #[must_use]
    pub fn finish(self) -> u64 {
        self.0.finalize()
    }
}

impl Default for Crc64 {
    fn default() -> Self {
        Self::new()
    }
}

fn narrow(crc: u64) -> u32 {
    u32::try_from(crc).expect("the library returns a 32-bit CRC in the low half of a u64")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_vectors_of_rfc_3720_hold() {
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46DD_794E);
        assert_eq!(crc32c(b""), 0);
    }

    /// The polynomial, a bit at a time.
    fn by_the_book(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0_u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                (sum >> 1) ^ (0x82F6_3B78 & (sum & 1).wrapping_neg())
            })
        })
    }

    #[test]
    fn each_single_bit_of_a_page_counts() {
        let mut page = [0_u8; 4_096];
        let empty = crc32c(&page);
        let mut seen = std::collections::HashSet::from([empty]);
        for bit in 0..page.len() * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(crc32c(&page)), "bit {bit}");
            page[bit / 8] = 0;
        }
        page[4_095] = 1;
        assert_eq!(crc32c(&page), by_the_book(&page));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn any_length_at_any_address_is_summed_as_the_polynomial_says(
            seed in any::<u64>(),
            len in prop_oneof![0_usize..20_000, 4_090_usize..4_200, 32_700_usize..32_900],
            offset in 0_usize..64,
        ) {
            let mut word = seed | 1;
            let bytes: Vec<u8> = (0..offset + len)
                .map(|_| {
                    word = word.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
                    (word >> 56) as u8
                })
                .collect();
            let bytes = &bytes[offset..];
            prop_assert_eq!(crc32c(bytes), by_the_book(bytes));
            let mut pieces = Crc32c::new();
            bytes.chunks(1_000).for_each(|piece| pieces.update(piece));
            prop_assert_eq!(pieces.finish(), by_the_book(bytes));
        }
    }
}
