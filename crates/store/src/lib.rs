//! A key-value store with keys and values of fixed sizes: read at the speed of memory, durable by
//! an append-only log, sharded by a hash of the key.
//!
//! [`LogStore`] is for keys and values of any size: keys in memory, values in a log on the disk.
//!
//! [`FixedStore`] is typed and keeps itself in order by threads of its own; [`RawStore`] beneath
//! it is over bytes, over any [`Folder`], and does nothing by itself. [`Reader`] reads a store in
//! place from any process of the host, while its owner works or after it.
//!
//! What holds, argued and tested in `docs/invariants.md`; the bytes are in `docs/format/store.md`:
//!
//! * A1. After a kill or a power cut a shard is as some write left it that is not older than the
//!   last one known to be durable: whole writes, whole batches, no gap, no mix.
//! * A2. A write is told to be durable only when the log up to it was synced without an error.
//! * A3. After an error of a write or a sync of the log the shard takes no more writes until it is
//!   opened again; what it cannot vouch for is not acknowledged.
//! * A4. Damage of what was durable, in logs and images and in the slots of memory, is an error that names
//!   the place, and nothing is served from it. Memory that was damaged is made anew by the next opening.
//! * A5. A directory is open once.
//! * A6. Compaction deletes a part of the log only when an image that holds all of it is durable.
//! * A7. A replica at a [`Position`] has the records that this place in the history has; while it
//!   is on its way from one to another it says so, also after a crash.
//! * A8. A replica takes no local writes, and a leader none once it knows of a newer one.
//! * A9. Readers wait for nobody, and see for each key a value that it had while they looked.
//! * A10. In a directory, a write survives the death of the process as soon as it has returned. The
//!   memory that records are in is believed by whoever finds it as long as the machine runs, and
//!   never after.
//! * A11. A range shows in the order of keys what is there: a record that stays is shown exactly once,
//!   whatever others do meanwhile.
//! * A12. Of a batch across shards all is there after a kill or a power cut, or nothing.
//! * A13. A snapshot shows what the store, or the shard, was between two writes, with whole batches,
//!   as long as it is there.
//! * A14. Hooks and watches see the writes of a key in the order in which they were made.
//! * A15. A record that has ended is shown to nobody, also after a crash and at a replica, and is
//!   removed by its leader alone.
//! * A16. A copy made by [`RawStore::backup`] is the store as it was at one moment, durable when it is
//!   told to be there; one that did not come to its end is no store.
//! * A17. While a store is given another number of shards it is used as before; then each write that has
//!   returned is in the new one, and a kill at any moment leaves one of the two under its name.
//! * A18. A store that is made of a damaged one has the newest sound record of each key and nothing else,
//!   and what may be older than it was is told. Until it is whole it has a mark and is nobody's store,
//!   and the damaged one is not touched.
//! * A19. A follower that is [whole](RawStore::is_whole) has had all that its leader had. One that is not
//!   says so durably before that, and is neither promoted, copied, restored nor looked at.
//!
//! ```
//! use mainstay_store::{Durability, FixedStore, Options};
//! let dir = tempfile::tempdir()?;
//! let store = FixedStore::<[u8; 16], [u8; 8]>::create(dir.path(), &Options::default())?;
//! store.put(b"subscriber-00042", &7_u64.to_le_bytes(), Durability::Group)?;
//! drop(store);
//! let store = FixedStore::<[u8; 16], [u8; 8]>::open(dir.path(), &Options::default())?;
//! assert_eq!(store.get(b"subscriber-00042")?, Some(7_u64.to_le_bytes()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod limits;

mod any;
mod aside;
mod backup;
mod batch;
#[cfg(test)]
mod cut;
mod ends;
mod error;
mod exchange;
mod expiring;
#[cfg(test)]
mod faulty;
mod fixed;
mod fixed_expiring;
mod fixed_pages;
mod fixed_range;
mod fixed_reshard;
#[cfg(test)]
mod flipped;
mod folder;
mod follow;
mod format;
mod group;
#[cfg(test)]
mod histories;
mod history;
mod home;
mod hooks;
mod image;
mod index;
mod keeper;
mod kept;
mod keyed;
#[cfg(test)]
mod killed;
mod known;
mod live;
mod log;
mod log_end;
#[cfg(test)]
mod machine;
mod making;
mod mark;
mod memory;
mod merge;
mod mirror;
mod on_disk;
mod open_files;
mod options;
mod order;
mod paced;
mod pages;
mod parts;
mod planted;
#[cfg(test)]
mod power;
mod progress;
mod range;
mod rank;
mod read_only;
mod reader;
mod recover;
#[cfg(feature = "encryption")]
mod rekey;
mod repair;
mod replacing;
mod reshard;
mod restore;
mod route;
mod salvage;
mod scrub;
mod shard;
mod slot;
mod snapshot;
mod span;
mod store;
#[cfg(test)]
mod strangers;
mod sums;
mod survey;
mod table;
mod tail;
mod unwritten;
mod view;
mod watch;

#[cfg(feature = "serde")]
pub use any::Postcard;
pub use any::{
    AsKey, DirectoryLogResharding, Field, LogCopied, LogDamage, LogIter, LogOnDisk, LogOptions,
    LogRange, LogRepaired, LogResharding, LogSalvaged, LogScan, LogSeek, LogShardStats,
    LogSnapshot, LogStore, LogStoreResharding, LogSurvey, LogTail, Plain, RawLogRange, RawLogStore,
    is_log_copy, read_records, write_records,
};
pub use aside::{Aside, AsideFile};
pub use error::{Error, Result};
pub use exchange::DirectoryResharding;
pub use expiring::{ExpiringRange, ExpiringWatch, RawExpiring, split_end};
pub use fixed::FixedStore;
pub use fixed_expiring::{ExpiringStore, FixedExpiringRange};
pub use fixed_pages::FixedIter;
pub use fixed_range::FixedRange;
pub use fixed_reshard::FixedResharding;
pub use folder::{Directory, DirectoryFile};
pub use follow::Identity;
pub use history::{History, Position, read_changes, write_changes};
pub use hooks::{Commit, Hook};
pub use keyed::encrypted_under;
pub use known::Known;
pub use log::Written;
pub use mainstay_storage::Folder;
#[cfg(feature = "encryption")]
pub use mainstay_storage::{Encrypted, Key, KeyError, KeyId, Keys, Rekeyed};
pub use making::Making;
pub use on_disk::{OnDisk, ShardFiles};
pub use options::{Durability, Options, Token};
pub use range::Range;
pub use rank::Role;
pub use reader::Reader;
#[cfg(feature = "encryption")]
pub use rekey::rekey;
pub use repair::Repaired;
pub use replacing::Replacing;
pub use reshard::Resharding;
pub use restore::{check_log_copy, restore};
#[cfg(feature = "encryption")]
pub use restore::{check_log_copy_with, restore_with};
pub use salvage::Salvaged;
#[cfg(feature = "encryption")]
pub use scrub::scrub_with;
pub use scrub::{ScrubOptions, Scrubbed, scrub};
pub use shard::{Change, ShardStats};
pub use snapshot::Snapshot;
pub use span::Span;
pub use store::{Cursor, RawStore};
pub use survey::{Damage, FileKind, FileReport, Survey};
pub use tail::{Found, Reached, Seek, Tail};
pub use watch::{News, Watch};
