//! Which blocks of a pool changed since they were last asked for, without a call on each write.
//!
//! Writers store through plain pointers. A [`Tracker`] asks the kernel which pages were written,
//! finds the blocks on them, and reports those that differ: to its caller, and to the pool's
//! monitors. What the kernel cannot tell, it finds by comparing checksums.
//!
//! T1. No write goes unnoticed: one that races with a flush is reported by it or by the next; one by
//!     a system call, through another mapping or by another process is found too, by that process's
//!     page map or by comparing everything; so is a new block of zeros, and a change that keeps the
//!     CRC32C. The exceptions are in the guide's caveats.
//! T2. A block is reported only when its content, its length or its life differs from the last
//!     report.
//! T3. What one flush reports has one version, above all versions before.
//! T4. A flush that fails loses nothing: what it had found is reported by the next.
//! T5. Page bits are an optimisation. What a new tracker reports first is decided by the checksums
//!     in the block headers, so changes that nobody tracked are found as well.
//!
//! ```
//! use mainstay_pool::{Kind, PoolOptions};
//! use mainstay_track::Tracker;
//!
//! let pool = PoolOptions::new("calls", 4096).create_memfd()?;
//! let call = pool.allocate(Kind::Recoverable)?;
//! let tracker = Tracker::new(&pool)?;
//! tracker.flush()?;
//!
//! call.write(100, b"ringing")?;
//! let found = tracker.flush()?;
//! assert_eq!(found.changes.len(), 1);
//! assert_eq!(found.changes[0].id, call.id());
//! assert!(tracker.flush()?.changes.is_empty());
//! # Ok::<(), mainstay_track::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod limits;

mod checkpoints;
mod edit;
mod error;
mod marks;
mod neighbours;
mod options;
mod state;
mod tracker;
mod vector;
mod waiter;
mod watched;
mod worker;

pub use checkpoints::{Background, Checkpoints};
pub use edit::Edit;
pub use error::{Error, Result};
pub use options::TrackerOptions;
pub use state::{Change, ChangeKind};
pub use tracker::{Flush, Method, Tracker};
pub use vector::ClockVector;
pub use waiter::{Wait, Waiter};
pub use watched::Watched;
pub use worker::Worker;
