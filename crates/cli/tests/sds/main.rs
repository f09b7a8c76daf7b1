//! `mainstay sds` as its users run it: real processes, real datagrams.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]
#![cfg(feature = "sds")]

mod chat;
mod import;
mod inspect;
mod sim;
