//! Ids, limits, checksums, hybrid clocks and seeded random numbers that every other room uses.
//!
//! No I/O, no clock, no unsafe code: whatever depends on the outside arrives as an argument.

#![forbid(unsafe_code)]

pub mod hlc;

mod fingerprint;
mod name;
mod rng;

pub use fingerprint::Fingerprint;
pub use mainstay_checksum::{Crc32c, Crc64, crc32c, crc64};
pub use name::{NAME_LEN_MAX, Name, NameError};
pub use rng::{Rng, mix64};
