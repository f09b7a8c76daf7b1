//! Followers of a sharded store: read copies and warm standbys that never fall silent.
//!
//! [`Leader`] and [`Follower`] are cores without I/O: fed with messages and time, they say what to
//! send. What they need of a store is in the traits [`Source`] and [`Sink`], which a
//! [`RawStore`](mainstay_store::RawStore) has, and a [`RawLogStore`](mainstay_store::RawLogStore). [`drive`] runs them over channels; [`update`] runs both in
//! one call, for backups. The messages are in `docs/format/stream.md`.
//!
//! What holds, argued and tested in `docs/invariants.md`:
//!
//! * N1. A follower's shard that is at a place has exactly the records that this place has in the
//!   leader's history; while it is on its way by comparing records, it is at none, and says so.
//! * N2. Whatever was lost on the way, once messages pass again every follower comes to where the
//!   leader is, deletes included; what is equal is not sent.
//! * N3. A follower acknowledges a write as durable only when it survives a power cut.
//! * N4. Once a follower knows of an epoch, it takes nothing of a leader of a lower one, and tells
//!   it; the leader then takes no more writes.
//! * N5. What a follower has and its leader does not is set aside before it is given up.
//! * N6. What a leader holds for a follower is bounded, however slow that is.
//! * N7. Nobody takes a part of a store for all of it: what was interrupted says that it is not finished.
//!
//! ```
//! use mainstay_replica::{FollowSettings, Follower, LeadSettings, Leader, follower, leader};
//! use mainstay_sim::Disk;
//! use mainstay_store::{Durability, Options, RawStore};
//! use std::{sync::Arc, time::Duration};
//! let options = Options::default();
//! let ours = Arc::new(RawStore::create(Disk::new(1), 2, 3, &options)?);
//! let copy = Arc::new(RawStore::create_replica(Disk::new(2), &ours.identity(), &options)?);
//! ours.put(b"de", b"049", Durability::Memory)?;
//!
//! let now = Duration::ZERO;
//! let mut leader = Leader::new(Arc::clone(&ours), LeadSettings::default(), now);
//! let mut follower = Follower::new(Arc::clone(&copy), FollowSettings::default(), 7, now)?;
//! leader.handle(now, leader::Input::Connected { peer: 1 });
//! follower.handle(now, follower::Input::Tick);
//! follower.handle(now, follower::Input::Connected);
//! for _ in 0..10 {
//!     while let Some(output) = follower.poll(now) {
//!         if let follower::Output::Send(bytes) = output {
//!             leader.handle(now, leader::Input::Message { peer: 1, bytes: &bytes });
//!         }
//!     }
//!     while let Some(output) = leader.poll(now) {
//!         if let leader::Output::Send { bytes, .. } = output {
//!             follower.handle(now, follower::Input::Message(&bytes));
//!         }
//!     }
//! }
//! assert_eq!(copy.get(b"de")?, Some(b"049".to_vec()));
//! # Ok::<(), mainstay_replica::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod drive;
pub mod follower;
pub mod leader;
pub mod limits;
pub mod wire;

mod digest;
mod error;
mod log;
mod records;
mod store;
mod traits;
mod update;

pub use error::{Error, Result};
pub use follower::{FollowSettings, Follower};
pub use leader::{Lag, LeadSettings, Leader};
pub use traits::{Chunk, Found, Level, Mended, Show, Sink, Source};
pub use update::{Updated, update};
