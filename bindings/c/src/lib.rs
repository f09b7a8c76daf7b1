//! The C interface of SDS: `libsds.h`, which existing programs know, and `mainstay_sds.h`.
//!
//! Guarantees:
//!
//! * F1. No input ends the host: every entry catches panics, checks pointers for null and lengths
//!   against limits, and gives an error instead.
//! * F2. A manager or node is a number to its caller, looked up in a table: one that was closed, or
//!   never was, is an error.
//! * F3. Whatever is given is copied before a function returns; what is handed out is valid as long
//!   as the header says.
//!
//! What C has to promise (that a pointer which is not null points to as many bytes as said, that a
//! function is of the type that the header gives) nobody can check. Each unsafe block here rests on
//! that promise and on nothing else: memory of the host is read in `raw`, its functions are called
//! in `raw` and `node::backend`, and the exported functions pass on what they are given.

mod compat;
mod node;
mod raw;
mod registry;
