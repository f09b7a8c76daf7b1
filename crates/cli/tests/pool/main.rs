//! `mainstay pool ...` from outside: the real program, real files, real processes.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

mod checkpoints;
mod damage;
mod looking;
mod moving;
mod processes;
mod sandbox;
