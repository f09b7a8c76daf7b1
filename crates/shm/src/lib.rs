//! Memory that several processes share, and who of them is alive.
//!
//! This room holds the project's unsafe code about memory, in small files that can be argued one
//! by one. It knows nothing of blocks or states. What it gives the rooms above:
//!
//! * [`Backing`]: a file or memfd, created complete or not at all, sealed against shrinking.
//! * [`Mapping`]: a reserved address range over a backing, past its end; views into it are checked
//!   against what the file really covers.
//! * [`lease`]: process slots; a slot is alive exactly as long as its process.
//! * [`Shared64`], [`Shared32`]: words in shared memory. Every store and load passes [`hook`].
//! * [`copy`]: copies to and from memory that others may be writing.
//! * [`mod@line`]: eight words of such memory looked at in one go.
//! * [`sum`]: a checksum of such memory, in little more time than it takes to read it.
//! * [`Record`]: plain data with a name, for typed blocks and states.
//! * [`Watch`], [`RemoteWatch`], [`FileEvents`]: which pages were written, by whom, past whom.
//! * [`fork`], [`OwnerLock`], [`futex`]: a fork detector, an asymmetric lock, a wake-up word.
//!
//! What it relies on: Linux 5.14 or newer, `/proc` mounted, a 64-bit little-endian machine.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!("mainstay-shm needs 64-bit little-endian Linux");

pub mod copy;
pub mod fork;
pub mod futex;
pub mod hook;
pub mod lease;
pub mod line;
pub mod sum;

mod atomic;
mod backing;
mod error;
mod file_events;
mod mapping;
mod owner_lock;
mod record;
mod watch;

pub use atomic::{Atomic64, Shared8, Shared32, Shared64, SharedLayout};
pub use backing::{Access, Backing, FileId, Unpublished};
pub use error::{Error, Result};
pub use file_events::FileEvents;
pub use mapping::Mapping;
pub use owner_lock::OwnerLock;
pub use record::{Record, fingerprint};
pub use watch::{RemoteWatch, Watch, page_faults};
