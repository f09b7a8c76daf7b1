//! `mainstay state ...` from outside: the real program, real files, real processes.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

mod bus;
mod dying;
mod keeping;
mod looking;
mod pose;
#[path = "../support/sandbox.rs"]
mod sandbox;
mod setting;
mod watching;

/// What the commands are about.
const NOUN: &str = "state";
