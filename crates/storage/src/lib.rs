//! What code that keeps things on disk needs of it, so that the same code runs over a real
//! directory and over a simulated disk that loses, tears and refuses.
//!
//! [`Storage`] is a file, [`Folder`] a flat set of named ones. With the feature `encryption`,
//! `Encrypted` makes of any folder one whose files are encrypted.

#![forbid(unsafe_code)]

pub mod limits;

#[cfg(feature = "encryption")]
mod encrypted;
mod folder;
mod real;
mod storage;

#[cfg(all(feature = "encryption", any(test, feature = "hook")))]
pub use encrypted::planted;
#[cfg(feature = "encryption")]
pub use encrypted::{Encrypted, EncryptedFile, Key, KeyError, KeyId, Keys, Rekeyed, rekey};
pub use folder::Folder;
pub use storage::{Storage, write_zeros};
