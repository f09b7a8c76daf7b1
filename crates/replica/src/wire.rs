//! The messages between a leader and its followers, as bytes. The tables are in
//! `docs/format/stream.md`.
//!
//! * V1. What is decoded is within its limits, and exactly as long as it says; nothing is copied or
//!   allocated for it.

mod decode;
mod encode;
mod layout;
mod lists;
mod message;

pub use decode::decode;
pub(crate) use decode::decode_joined;
pub use encode::encode;
pub use lists::{Write, acks, hashes, put_write, writes};
pub use message::{Acked, Hello, Message, Reason, Refusal, Way, WireError};

#[cfg(test)]
mod tests;
