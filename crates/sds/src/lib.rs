//! Causal, end-to-end reliable messages to a group, over something that loses, delays and repeats
//! them.
//!
//! Participants send messages to a [`Channel`]; in the end all of them have the same messages in
//! the same causal order, without a server. The protocol is Scalable Data Sync (LIP-109) with its
//! repair extension SDS-R, in the two dialects that are in the field ([`wire::Profile`]).
//!
//! The core is sans-IO. The contract is the same everywhere: give an object one input, poll its
//! outputs until there are none, and call it again with the next input or at the time that
//! `poll_timeout` says. Time arrives as an argument ([`Now`]), bytes leave as outputs
//! ([`Output`]). What holds is listed at the heads of the modules and, with its tests, in
//! `docs/invariants.md`; the bytes are in `docs/format/sds.md`.
//!
//! ```
//! use mainstay_sds::{Channel, Config, Now, Output};
//!
//! let now = Now { mono_ms: 0, wall_ms: 1_760_000_000_000 };
//! let mut alice = Channel::new("room", b"alice", Config::lip())?;
//! let mut bob = Channel::new("room", b"bob", Config::lip())?;
//!
//! // The network loses the first message and carries the second one.
//! alice.send(now, b"m1", b"hello")?;
//! while alice.poll_output().is_some() {}
//! alice.send(now, b"m2", b"are you there?")?;
//! while let Some(output) = alice.poll_output() {
//!     if let Output::Broadcast(broadcast) = output {
//!         bob.receive(now, broadcast.bytes)?;
//!     }
//! }
//! // The second one depends on the first one, which Bob knows he misses, and will ask for.
//! assert!(matches!(bob.poll_output(), Some(Output::Missing(missing)) if missing.id == b"m1"));
//! assert_eq!(bob.counts().buffered, 1);
//! # Ok::<(), mainstay_sds::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod bloom;
#[cfg(feature = "tokio")]
pub mod driver;
pub mod hash;
pub mod limits;
pub mod persist;
pub mod query;
pub mod repair;
pub mod wire;

mod archive;
mod channel;
mod config;
mod error;
mod nim_snapshot;
mod output;
mod participant;
mod store_node;
mod time;

#[cfg(feature = "pool")]
pub use archive::PoolArchive;
#[cfg(feature = "store")]
pub use archive::StoreArchive;
pub use archive::{Archive, MemoryArchive};
pub use channel::{Channel, Counts, Hibernated, LogEntry, Sent};
pub use config::{Config, FilterPolicy, Keep, Start};
pub use error::{Error, Result, shown};
pub use nim_snapshot::NimSnapshot;
pub use output::{Broadcast, Delivery, Missing, Output, Place, Reason, Received};
pub use participant::Participant;
pub use store_node::StoreNode;
pub use time::Now;

/// Whether the fault of this name is planted: a constant `false` in a normal build.
#[inline(always)]
fn planted(fault: &str) -> bool {
    #[cfg(feature = "hook")]
    return mainstay_shm::hook::planted(fault);
    #[cfg(not(feature = "hook"))]
    {
        let _ = fault;
        false
    }
}
