//! Numbers that nobody else has.

use std::hash::{BuildHasher, Hasher, RandomState};

/// 64 bits from the system's source, by way of the standard library's hash keys: not even two processes
/// with the same number, in two containers, draw the same.
pub(crate) fn drawn() -> u64 {
    RandomState::new().build_hasher().finish()
}
