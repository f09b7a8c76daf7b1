//! `mainstay store serve`, `follow`, `promote` and `repair --from` from outside: real processes that
//! are killed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod damaged;
mod following;
mod play;
mod refused;
mod starting;
