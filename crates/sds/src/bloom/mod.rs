//! Bloom filters: how a participant says which messages it has.
//!
//! Source: LIP-109, Participant state ("a bloom filter for received message IDs"), which leaves
//! hash, size and bytes open; here they are those of the peers of each profile.
//!
//! Guarantees:
//!
//! * B1. A filter is held as the bytes it has on the wire, so sending it is one copy.
//! * B2. Rolling over costs the same few steps at every add and gives, bit for bit, the filter that
//!   rebuilding it at once would give.
//! * B3. Of a filter from the wire nothing is believed: its parameters are range-checked against
//!   its bytes before a bit is looked up, and one that is too full says nothing.

mod params;
mod peer;
mod rolling;

pub use params::Params;
pub use peer::PeerFilter;
pub(crate) use peer::Spots;
pub use rolling::RollingFilter;
pub(crate) use rolling::checked;
