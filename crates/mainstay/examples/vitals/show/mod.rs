//! The show: one process writes this machine's vital signs into five states, four others read.
//!
//! ```text
//!                      vitals.cpu         poll     looks when it likes
//!            one       vitals.memory      woken    sleeps until something changes
//!   writer ---------->  vitals.pressure   limited  sees at most five changes a second
//!         transaction  vitals.disks       pair     two states, always from one instant
//!                      vitals.interfaces
//! ```
//!
//! `values` says what is in the states, `sample` where it comes from, `roles` what each process
//! does, `conduct` starts them, kills the writer in the middle and judges what the others saw.
//! The second act of `mainstay demo` is this module too.

mod child;
mod conduct;
mod panel;
mod report;
mod roles;
mod sample;
mod values;

use std::{env, error::Error, path::Path, process};

use tempfile::TempDir;

pub(crate) use conduct::{Plan, conduct};
pub(crate) use roles::{Role, play};

/// Whatever goes wrong ends the show: its message is for a person.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A folder for the states, in memory if there is a file system in memory; removed when dropped,
/// and by the processes of the show when this process is killed.
pub(crate) fn folder() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_path_buf() } else { env::temp_dir() };
    let prefix = format!("mainstay-vitals-{}-", process::id());
    Ok(tempfile::Builder::new().prefix(&prefix).tempdir_in(parent)?)
}
