//! Ids, limits, checksums and seeded random numbers that every other room uses.
//!
//! No I/O, no clock, no unsafe code: whatever depends on the outside arrives as an argument.

#![forbid(unsafe_code)]

mod crc;
mod fingerprint;
mod name;
mod rng;

pub use crc::{Crc32c, crc32c};
pub use fingerprint::Fingerprint;
pub use name::{NAME_LEN_MAX, Name, NameError};
pub use rng::{Rng, mix64};
