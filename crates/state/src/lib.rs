//! Named values in shared memory: read without waiting, changed by optimistic transactions, over
//! processes that may die at any instruction.
//!
//! A [`Domain`] is a folder of states. A [`State`] is a subscription to one of them: to read it (a
//! [`Snapshot`] is one version, whole, without a copy), to change it (a [`Transaction`], or a
//! [`MultiTransaction`] over several at once), to wait for changes ([`Watch`]), or to look at it no
//! more often than wanted ([`View`]). A state is bytes or a plain type ([`Record`]).
//!
//! What holds, and where it is argued and tested: S1 to S7 in `docs/invariants.md`; the bytes:
//! `docs/format/state.md`.
//!
//! ```
//! use mainstay_state::{Domain, RetryPolicy};
//!
//! # let dir = tempfile::tempdir()?;
//! let domain = Domain::open(dir.path())?;
//! let visitors = domain.writer::<[u8]>("visitors")?;
//! visitors.transact(RetryPolicy::default(), |transaction| {
//!     transaction.bytes_mut()?[0] += 1;
//!     Ok(())
//! })?;
//!
//! // In any other process:
//! let reader = domain.reader::<[u8]>("visitors")?;
//! assert_eq!(reader.read()?[0], 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod limits;

mod bridge;
mod changes;
mod commit_hook;
mod copied;
#[cfg(feature = "dbus")]
pub mod dbus;
mod domain;
mod draft;
mod error;
mod follow;
mod layout;
mod line;
mod list;
mod memory;
mod multi;
mod near;
mod options;
mod persist;
mod poller;
mod protocol;
mod publisher;
mod records;
mod retry;
mod snapshot;
mod state;
mod subscribe;
mod transaction;
mod value;
mod view;
mod watch;
mod word;

#[cfg(test)]
mod model;

pub use changes::Changes;
pub use commit_hook::{Commit, CommitHook, Hooked};
pub use domain::Domain;
pub use error::{Error, Result};
pub use follow::Follower;
pub use list::{Counted, StateInfo, Subscriber};
pub use mainstay_shm::Record;
pub use multi::MultiTransaction;
pub use options::StateOptions;
pub use persist::Grade;
pub use protocol::Scavenged;
pub use publisher::Publisher;
pub use retry::RetryPolicy;
pub use snapshot::{Snapshot, Snapshots, together};
pub use state::State;
pub use transaction::Transaction;
pub use value::Value;
pub use view::View;
pub use watch::Watch;
