//! The show: one process leads a store of all packages that this machine knows of, two others
//! follow it, and everything that can happen to them happens.
//!
//! ```text
//!                    cable          the leader gets all packages from the machine's own index;
//!            +-------------------+  both followers copy them; one is cut off; an update of some
//!   leader --+                   |  thousands begins; the leader is killed in the middle; the
//!            +---x----------+    |  follower that stayed is promoted; the other two follow it,
//!                cable      |    |  the killed one included; the update is done to its end.
//!                        second  first
//! ```
//!
//! Then all three copies are compared, record by record, with what they have to have:
//!
//! * Whatever was acknowledged as durable on a follower is on the promoted one.
//! * Each copy has the packages of the index with the update made, and nothing else.
//!
//! `index` reads the machine's package index, `records` says how a package is a record and what the
//! update does, `roles` what each process does, `cable` is a wire that can be cut, `conduct` tells
//! the story and judges. The fourth act of `mainstay demo` is this module too.

mod cable;
mod child;
mod compare;
mod conduct;
mod forgetful;
mod index;
mod records;
mod roles;

use std::{error::Error, process};

use tempfile::TempDir;

pub(crate) use conduct::{Plan, conduct};
pub(crate) use index::Index;
pub(crate) use roles::{Role, play};

/// Whatever goes wrong ends the show: its message is for a person.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A folder for the three stores; removed when dropped, and by the processes of the show when this
/// process is killed.
pub(crate) fn folder() -> Result<TempDir> {
    let prefix = format!("mainstay-packages-{}-", process::id());
    Ok(tempfile::Builder::new().prefix(&prefix).tempdir()?)
}
