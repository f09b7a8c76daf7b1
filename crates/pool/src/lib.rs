//! Blocks of memory at stable addresses, shared by processes, that outlive all of them.
//!
//! A [`Pool`] is a growing mapping of a memfd or file, cut into blocks of one size. A [`Block`]
//! is the guard of one: its address never changes while it is held. When a process dies, whatever
//! it held is taken back exactly: recoverable blocks are offered to whoever recovers, transient
//! ones are freed, and nobody has to wait.
//!
//! The properties that hold, and where they are argued and tested: P1 to P7 in
//! `docs/invariants.md`; the bytes: `docs/format/pool.md`.
//!
//! ```
//! use mainstay_pool::{Kind, Offer, PoolOptions};
//!
//! let dir = tempfile::tempdir()?;
//! let pool = PoolOptions::new("sessions", 256).open(dir.path().join("sessions.pool"))?;
//!
//! // What the last run of this service left behind:
//! for session in pool.recover(Offer::Unheld)? {
//!     let session = session.keep()?;
//!     println!("still there: {}", session.id());
//! }
//!
//! let session = pool.allocate(Kind::Recoverable)?;
//! session.write(0, b"user 42, logged in")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod handover;
pub mod limits;

mod allocate;
mod batch;
mod block;
pub mod checkpoint;
mod error;
mod extents;
mod freelist;
mod geometry;
mod ground;
mod hold;
mod id;
mod index;
mod inner;
mod inspect;
mod layout;
mod magazine;
mod monitor;
mod multi;
mod options;
mod pool;
mod pool_box;
mod reap;
mod recover;
mod restore;
mod set;
mod steps;
mod typed;
mod verify;
mod view;
mod word;

#[cfg(test)]
mod model;

pub use batch::{Batch, Cut};
pub use block::Block;
pub use error::{Corruption, Error, Result};
pub use ground::{Ground, Look, Neighbour, Sums};
pub use id::{BlockId, ParseBlockIdError};
pub use index::{Index, PoolIndex, Use};
pub use inspect::{BlockInfo, Counts, Holder, Info};
pub use mainstay_base::hlc;
pub use mainstay_shm::{Record, lease::LEASE_SLOTS};
pub use monitor::{Event, EventKind, Monitor, MonitorId};
pub use options::PoolOptions;
pub use pool::Pool;
pub use pool_box::PoolBox;
pub use reap::ReapReport;
pub use recover::{Decision, Offer, Offered, Recovery, RecoveryReport};
pub use restore::Restored;
pub use set::{PoolSet, SetBlockId};
pub use uuid::Uuid;
pub use verify::{ChecksumReport, RepairReport, VerifyReport};
pub use view::PoolView;
pub use word::{Kind, State};
