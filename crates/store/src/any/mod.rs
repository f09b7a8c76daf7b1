//! A store for keys and values of any size: a log a shard, and an index in memory that points into
//! it. Values stay on the disk.
//!
//! What holds, argued and tested in `docs/invariants.md`; the bytes are in
//! `docs/format/log-store.md`:
//!
//! * V1. After a kill or a power cut a shard is as some write left it that is not older than the
//!   last one known to be durable: whole writes, whole batches, no gap, no mix.
//! * V2. A write is told to be durable only when the log up to it was synced without an error;
//!   after an error the shard takes no more writes until it is opened again.
//! * V3. What is read from the disk has a checksum, and is shown only if that is right and it is the
//!   record of the key that was asked for.
//! * V4. A segment is removed only when every record in it that is a key's newest, and every delete
//!   that hides an older one, is durable in a later segment, and so is what made the others dead. So
//!   compaction brings nothing back, and loses nothing that a power cut would bring back.
//! * V5. Which segments there are is written down: one that is missing is told from one that was
//!   removed.
//! * V6. A range shows in the order of keys what is there: a record that stays is shown exactly once,
//!   whatever others write.
//! * V7. A snapshot shows what the store was between two writes, with whole batches, as long as it is
//!   there, whatever is written, compacted and removed meanwhile.
//! * V8. Hooks and watches see the writes of a key in the order in which they were made, and nothing
//!   that is only moved.
//! * V9. A record that has ended is shown to nobody, also after a crash and a compaction; when it is
//!   removed, no older record of its key returns.
//! * V10. Of a batch across shards all is there after a kill or a power cut, or nothing.
//! * V11. A copy is the store as it was at one moment, durable when it is told to be there; one that
//!   is interrupted is what it was before, or what it was to be.
//! * V12. While shards become others the store is used; then each write that has returned is in the
//!   new one, with its end, and a kill leaves one of the two under its name.
//! * V13. A shard that is at a place has exactly the records that this place has in its leader's
//!   history; what compaction moves is no write of it.
//! * V14. Who reads a log is told where writes are missing.
//! * V15. What a follower needs of the log stays for as long as that is wanted.
//! * V16. A store that is made of a damaged one has the sound records and nothing else: where a key's
//!   last value is damaged, it has none, or it is told how many records may be older. Until it is whole
//!   it has a mark and is nobody's store, and the damaged one is not touched.
//! * V17. Scrubbing beside a writer finds what is damaged, and tells nothing that is sound to be damaged.
//! * V18. A hint that the disk cannot read is as good as none, and is told.
//! * V19. Keys in a file of a shard where they do not belong are told by who opens and reads them, and by
//!   who looks.
//! * V20. All that a hint says of its segment is what the frames say, or a survey tells it.

mod backup;
mod batch;
mod cache;
mod compact;
mod copy;
mod follow;
mod format;
mod frames;
mod index;
mod kept;
mod lines;
mod on_disk;
mod options;
mod parts;
#[cfg(test)]
mod power;
mod range;
mod raw;
mod recover;
mod repair;
mod reshard;
mod restore;
mod salvage;
mod scan;
mod scrub;
mod shard;
mod snapshot;
mod survey;
mod tail;
mod typed;

pub use backup::LogCopied;
pub use format::{read_records, write_records};
pub use on_disk::LogOnDisk;
pub use options::LogOptions;
pub use range::{LogRange, RawLogRange};
pub use raw::{LogShardStats, RawLogStore};
pub use repair::LogRepaired;
pub use reshard::{DirectoryLogResharding, LogResharding, LogStoreResharding};
pub use restore::is_log_copy;
pub use salvage::LogSalvaged;
pub use scan::LogScan;
pub use snapshot::LogSnapshot;
pub use survey::{LogDamage, LogSurvey};
pub use tail::{LogSeek, LogTail};
#[cfg(feature = "serde")]
pub use typed::Postcard;
pub use typed::{AsKey, Field, LogIter, LogStore, Plain};

pub(crate) use copy::is_called_copy;
pub(crate) use format::{ANY_FILE, AnyHeader, parse_name as any_parts};
pub(crate) use recover::any_header;
#[cfg(test)]
pub(crate) use repair::tests as dying;
pub(crate) use restore::restore_into;
#[cfg(test)]
pub(crate) use salvage::tests as damaging;
pub(crate) use scrub::scrub_any;
