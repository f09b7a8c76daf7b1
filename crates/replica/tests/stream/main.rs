//! The stream between leaders and followers, of stores of both kinds.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

mod any;
mod both;
mod catching_up;
mod ends;
mod epochs;
mod hostile;
mod leading;
mod levels;
mod long;
mod pair;
mod rotten;
mod slow;
mod slowed;
mod unfinished;
mod update;
