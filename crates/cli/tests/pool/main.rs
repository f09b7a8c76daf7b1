//! `mainstay pool ...` from outside: the real program, real files, real processes.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

mod calls;
mod checkpoints;
mod damage;
mod looking;
mod moving;
mod processes;
#[path = "../support/sandbox.rs"]
mod sandbox;

/// What the commands are about.
const NOUN: &str = "pool";
