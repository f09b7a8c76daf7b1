//! CRC32C (Castagnoli), the checksum of everything Mainstay stores or sends, and CRC-64/NVME, for
//! telling two contents apart where one in 2^32 is too often.
//!
//! Sources: RFC 3720 appendix B.4 (iSCSI); NVM Express NVM Command Set Specification 1.0d, 5.2.1.3.4
//! (64b CRC). The work is done in hardware by the `crc-fast` crate; pages that lie in the cache go a
//! way of their own where the processor allows it, since a page is what blocks are made of.
//!
//! ```
//! assert_eq!(mainstay_checksum::crc32c(b"123456789"), 0xE306_9283);
//! ```

#![deny(unsafe_code)]

mod crc;
#[cfg(target_arch = "x86_64")]
mod page;

pub use crc::{Crc32c, Crc64, crc32c, crc64};
