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
//! What C has to promise (that a pointer which is not null points to as many bytes as said) nobody
//! can check; each unsafe block here rests on that promise, in [`raw`], and on nothing else.

mod compat;
mod node;
mod raw;
mod registry;
