//! A copy of a store as it was at one moment, made while writers go on.
//!
//! What comes of it is a store like any other: for each shard an image with all of its records and the
//! empty segment that follows it, and a header. The header is written last, when all else is durable,
//! and up to then there is a mark: a copy that did not come to its end is no store, and says what it is.

use mainstay_storage::{Folder, Storage};

use crate::{
    error::{Error, Result},
    format::{Header, ImageHeader, STORE_FILE, StoreHeader, VERSION, image_name, write_header},
    history::History,
    image::Chunks,
    kept::Kept,
    mark::{Maker, unmark},
    planted::{self, Fault},
    rank::{Ranked, at_places},
    shard::{Shard, create_behind},
    snapshot::Snapshot,
    store::{RawStore, begin_fixed},
};

/// Numbers of the files of a copied shard.
const IMAGE: u64 = 1;
const SEGMENT: u64 = 2;

/// Where a shard was at the moment of the copy.
pub(crate) struct End {
    pub(crate) sequence: u64,
    pub(crate) chain: u32,
    pub(crate) history: History,
}

impl<F: Folder> RawStore<F> {
    /// Copies the store, as it is at this moment, into a folder in which there is none, durably. In
    /// the copy batches are whole, also those across shards. Writers are held up for a moment only,
    /// and what they change meanwhile is kept in memory up to
    /// [`snapshot_bytes_max`](crate::Options::snapshot_bytes_max). `told` hears how many records were
    /// copied, and of how many. Returns how many there are.
    ///
    /// While it is being made there is a file `unfinished` with it, and nobody can open it: one that was
    /// interrupted is [`Error::NotCopied`] to whoever tries, and another backup to there begins anew.
    ///
    /// The copy is the same store at that place of its history: it can be opened, followed, and made
    /// a follower of the first one, which it is told from by what both write later.
    ///
    /// ```
    /// use mainstay_sim::Disk;
    /// use mainstay_store::{Durability::Memory, Options, RawStore};
    /// let store = RawStore::create(Disk::new(7), 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Memory)?;
    /// let other = Disk::new(8);
    /// assert_eq!(store.backup(&other, |_, _| {})?, 1);
    /// store.put(b"de", b"+49", Memory)?;
    /// let copy = RawStore::open(other, &Options::default())?;
    /// assert_eq!(copy.get(b"de")?, Some(b"049".to_vec()));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::NotWhole`] or [`Error::Mending`] of a follower that has not caught
    /// up; [`Error::SnapshotLost`] if too much is changed meanwhile; what the disk
    /// says. Then there is no copy, and the store is as it was.
    pub fn backup<G: Folder>(&self, to: &G, mut told: impl FnMut(u64, u64)) -> Result<u64> {
        self.standing.header().check_finished()?;
        let is_ours = begin_fixed(Maker::Copy, to)?;
        let (header, (snapshot, ends)) = loop {
            let header = self.standing.header();
            header.check_finished()?;
            let found = self.snapshot_with(0, &self.shards, |log| End {
                sequence: log.sequence,
                chain: log.chain,
                history: log.history,
            });
            // Meanwhile a follower may have become another one, and what it was is not known.
            if self.standing.header().generation == header.generation {
                break (header, found);
            }
        };
        at_places((0..).zip(ends.iter().map(|end| end.history)))?;
        let all: u64 = self.shards.iter().map(|shard| shard.table().len()).sum();
        let mut done = 0;
        for ((shard, kept), end) in snapshot.parts().zip(&ends) {
            let of = Copied { to, header: &header, shard: shard.number() };
            create_behind(to, &header, (of.shard, SEGMENT), end)?;
            if end.sequence > 0 {
                of.write_image(&snapshot, (shard, kept), end, &mut |count| {
                    done += count;
                    told(done, all.max(done));
                })?;
            }
        }
        let publish = || {
            to.sync_names()?;
            let file = to.file(STORE_FILE)?;
            write_header(&file, &header)?;
            file.sync()?;
            to.sync_names()
        };
        publish().map_err(Error::io(STORE_FILE))?;
        if is_ours {
            unmark(to)?;
        }
        Ok(done)
    }
}

/// A shard that is copied.
struct Copied<'a, G> {
    to: &'a G,
    header: &'a StoreHeader,
    shard: u32,
}

impl<G: Folder> Copied<'_, G> {
    fn write_image<F: Folder>(
        &self,
        snapshot: &Snapshot<'_, F>,
        (shard, kept): (&Shard<F>, &Kept),
        end: &End,
        told: &mut impl FnMut(u64),
    ) -> Result<()> {
        let name = image_name(self.shard, IMAGE);
        let file = self.to.file(&name).map_err(Error::io(&*name))?;
        let mut chunks = Chunks::new(IMAGE, name.clone());
        let mut failed = None;
        snapshot.for_each_of(shard, kept, &mut |key, value| {
            if failed.is_none() {
                failed = chunks.record(&file, end.sequence, (key, value)).err();
                told(1);
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let (chunks, records, bytes) = chunks.finish(&file)?;
        let finish = || {
            if !planted::is(Fault::CopyUnsynced) {
                file.sync()?;
            }
            write_header(
                &file,
                &ImageHeader {
                    magic: ImageHeader::MAGIC,
                    version: VERSION.into(),
                    flags: 0.into(),
                    id: self.header.id,
                    shard: self.shard.into(),
                    chunks: chunks.into(),
                    number: IMAGE.into(),
                    epoch: self.header.epoch,
                    from: end.sequence.into(),
                    through: end.sequence.into(),
                    records: records.into(),
                    bytes: bytes.into(),
                    reserved: [0; 36],
                    checksum: 0.into(),
                },
            )?;
            if planted::is(Fault::CopyUnsynced) { Ok(()) } else { file.sync() }
        };
        finish().map_err(Error::io(&*name))
    }
}

#[cfg(test)]
mod tests;
