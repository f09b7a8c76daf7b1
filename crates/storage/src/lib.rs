//! What code that keeps things on disk needs of it, so that the same code runs over a real
//! directory and over a simulated disk that loses, tears and refuses.
//!
//! [`Storage`] is a file, [`Folder`] a flat set of named ones.

#![forbid(unsafe_code)]

mod folder;
mod real;
mod storage;

pub use folder::Folder;
pub use storage::Storage;
