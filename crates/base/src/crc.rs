//! CRC32C (Castagnoli), the checksum of everything Mainstay stores or sends, and CRC-64/NVME, for
//! telling two contents apart where one in 2^32 is too often.
//!
//! Sources: RFC 3720 appendix B.4 (iSCSI); NVM Express NVM Command Set Specification 1.0d, 5.2.1.3.4
//! (64b CRC). The work is done in hardware by the `crc-fast` crate.

use crc_fast::{CrcAlgorithm, Digest, crc32_iscsi, crc64_nvme};

/// CRC32C of `bytes`.
///
/// ```
/// assert_eq!(mainstay_base::crc32c(b"123456789"), 0xE306_9283);
/// ```
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32_iscsi(bytes)
}

/// CRC32C of bytes that arrive in pieces.
///
/// ```
/// use mainstay_base::{crc32c, Crc32c};
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
/// assert_eq!(mainstay_base::crc64(b"123456789"), 0xAE8B_1486_0A79_9888);
/// ```
#[must_use]
pub fn crc64(bytes: &[u8]) -> u64 {
    crc64_nvme(bytes)
}

/// CRC-64/NVME of bytes that arrive in pieces.
///
/// ```
/// use mainstay_base::{crc64, Crc64};
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
    use super::*;

    #[test]
    fn the_vectors_of_rfc_3720_hold() {
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46DD_794E);
        assert_eq!(crc32c(b""), 0);
    }
}
