//! What a channel does, seen from outside. One file an idea; `group.rs` owns the clock and the
//! network between channels.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

mod acknowledgement;
mod delivery;
mod ephemeral_and_sync;
mod format;
mod group;
mod hostile;
mod joining;
mod lamport;
mod limits;
mod lip_sequences;
mod nim_sequences;
mod persistence;
mod random_orders;
mod repair;
mod resend;
mod steady;
mod store_node;
