//! A new store with all that is sound in one that is damaged.
//!
//! A shard that can be opened is taken as it is; of another one everything of which the checksums are
//! right (see `shard`). What was lost is told: where, how many records may be older than it, and which
//! keys the damaged places name.

mod blocks;
mod covered;
mod frames;
mod shard;
#[cfg(test)]
mod tests;

use mainstay_storage::Folder;

use self::shard::Rest;
use crate::{
    any::LogDamage,
    error::{Error, Result},
    format::{StoreHeader, segment_name},
    mark::{Maker, unmark},
    options::{Durability, Options},
    parts::{BEHIND_GAP, NOBODYS, Parts, is_missing},
    planted::{self, Fault},
    rank::{Ranked, Role},
    recover::{load_apart, store_header},
    reshard::write,
    store::{RawStore, begin_fixed, check_header},
    table::sequence_and_key,
};

/// What was saved of a damaged store, and what was not.
///
/// Example: see [`RawStore::salvage`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvaged {
    /// Records of the new store.
    pub records: u64,
    /// Places that were damaged.
    pub damage: Vec<LogDamage>,
    /// Writes that are damaged or not there any more, as far as that can be counted.
    pub writes_lost: u64,
    /// Records that were in damaged parts of images. Some of them may have been written again later,
    /// and are there.
    pub records_lost: u64,
    /// Keys that damaged places name, as they can be read there now: their last values are lost. What
    /// the new store has of them, if anything, is older: one that was deleted may be back. A key may
    /// itself be damaged, so these need not be all.
    pub named: Vec<Box<[u8]>>,
    /// Places at which writes or records are lost of which nobody knows the keys for sure.
    pub unknown: u64,
    /// Records of the new store that are older than such a write of their shard: it may have replaced
    /// or deleted them. There are none where [`unknown`](Self::unknown) is 0.
    pub doubtful: u64,
    /// The damaged store followed a leader, and so the new one takes no writes until it is promoted.
    pub follows: bool,
    /// The damaged store was a follower's, or a copy, that was not finished, and so is the new one: it is
    /// refused as such until somebody says that it is all there is, see
    /// [`set_whole`](RawStore::set_whole).
    pub is_unfinished: bool,
}

impl Salvaged {
    /// Is every record there that was there, as far as checksums can tell?
    ///
    /// Example: see [`RawStore::salvage`].
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.unknown == 0
    }

    /// Notes damage; another error ends it.
    fn note(&mut self, error: Error) -> Result<()> {
        let (file, offset, what) = error.into_damage()?;
        self.add(LogDamage { file, offset, what, has_copy: false });
        Ok(())
    }

    fn add_place(&mut self, file: &str, offset: u64, what: &'static str, has_copy: bool) {
        self.add(LogDamage { file: file.to_owned(), offset, what, has_copy });
    }

    /// Damage of a place that was not known yet.
    pub(crate) fn add(&mut self, damage: LogDamage) {
        let is_it =
            |known: &LogDamage| (&known.file, known.offset) == (&damage.file, damage.offset);
        if !planted::is(Fault::LossUntold) && !self.damage.iter().any(is_it) {
            self.damage.push(damage);
        }
    }

    fn shard<G: Folder>(&mut self, from: &G, store: &StoreHeader, shard: u32) -> Result<Rest> {
        let error = match load_apart(from, store, shard) {
            Ok(found) => return Ok(Rest::of(found.table, found.sequence, found.parts)),
            Err(error @ (Error::Damaged { .. } | Error::Misplaced { .. } | Error::Io { .. })) => {
                error
            }
            Err(error) => return Err(error),
        };
        let known = self.damage.len();
        let rest = self.damaged_shard(from, store, shard)?;
        if self.damage.len() == known && !matches!(error, Error::Io { .. }) {
            self.note(error)?;
        }
        Ok(rest)
    }
}

/// The header of a damaged store, without which the sizes of its records are not known.
fn header(from: &impl Folder) -> Result<StoreHeader> {
    let header = store_header(from)?;
    check_header(&header)?;
    Ok(header)
}

/// Shards and segments as a damaged store has them.
pub(crate) fn options_of(from: &impl Folder) -> Result<Options> {
    let header = header(from)?;
    let (shards, segment_bytes) = (header.shards.get(), header.segment_bytes.get());
    let shard_bits = header.shard_bits.get();
    Ok(Options { shards, shard_bits, segment_bytes, ..Options::default() })
}

impl<F: Folder> RawStore<F> {
    /// Makes a store in another folder, with all that is sound of one that is damaged, and says what
    /// is not. Nothing is changed in the damaged one, which nobody may have open. The new one is
    /// another store, with an identity and a history of its own, of `options`; it leads or follows as
    /// the damaged one does, and is whole or not. While it is being made, there is a file `unfinished`
    /// with it, and nobody can open it; whoever salvages into the same folder again removes what one that
    /// was killed has left there, and begins anew. `told` hears how many shards were read, and of how many.
    ///
    /// A write or a part of an image is taken if its checksum is right, and of the values of a key the
    /// newest that is left. Nobody knows which keys a damaged write had: how many records are older
    /// than it is told, and which keys it names as it is now. One that it deleted may be back. Of a
    /// batch a part may be lost.
    ///
    /// ```
    /// use mainstay_sim::{Disk, Storage};
    /// use mainstay_store::{Durability::Group, Options, RawStore};
    /// let (disk, options) = (Disk::new(7), Options { shards: 1, ..Options::default() });
    /// let store = RawStore::create(disk.clone(), 2, 3, &options)?;
    /// for (key, value) in [(b"de", b"049"), (b"es", b"034"), (b"fr", b"033")] {
    ///     store.put(key, value, Group)?;
    /// }
    /// store.close()?;
    /// // A byte of the second value.
    /// disk.file("shard-0000-0000000000000001.log").write_at(4096 + 56 + 48 + 3, b"?")?;
    /// assert!(RawStore::open(disk.clone(), &options).is_err());
    ///
    /// let (store, told) = RawStore::salvage(&disk, Disk::new(8), &options, |_, _| {})?;
    /// assert_eq!((store.get(b"de")?.is_some(), store.get(b"es")?), (true, None));
    /// assert_eq!((told.records, told.damage.len(), told.writes_lost), (2, 1, 1));
    /// // That of the first key is older than what is lost.
    /// assert!(!told.is_whole() && *told.named[0] == *b"es" && told.doubtful == 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotAStore`]; [`Error::Damaged`] if neither copy of the store's header is sound, since
    /// without it nothing can be read; [`Error::Encrypted`] and others of keys; as
    /// [`create`](Self::create); what the disk says.
    pub fn salvage<G: Folder>(
        from: &G,
        to: F,
        options: &Options,
        mut told: impl FnMut(u64, u64),
    ) -> Result<(Self, Salvaged)> {
        options.check()?;
        // Before anything is done to the other folder.
        header(from)?;
        let is_ours = begin_fixed(Maker::Salvage, &to)?;
        let (to, salvaged) = Self::salvage_marked(from, to, options, &mut told)?;
        if is_ours {
            unmark(&to.folder)?;
        }
        Ok((to, salvaged))
    }

    /// The same in a folder with a mark, which is left there, and nothing else.
    pub(crate) fn salvage_marked<G: Folder>(
        from: &G,
        to: F,
        options: &Options,
        told: &mut dyn FnMut(u64, u64),
    ) -> Result<(Self, Salvaged)> {
        let header = header(from)?;
        let lengths = (header.key_len.get() as usize, header.value_len.get() as usize);
        let mut to = Self::create_begun(to, lengths, header.has_ends(), options)?;
        let shards = header.shards.get();
        let rank = header.rank();
        let (follows, is_unfinished) = (rank.role == Role::Follower, !rank.is_whole);
        let mut salvaged = Salvaged { follows, is_unfinished, ..Salvaged::default() };
        // Of each shard: the last write, how many records are in doubt, and how many there are.
        let (mut counted, mut batches) = (Vec::new(), Vec::new());
        for shard in 0..shards {
            let rest = salvaged.shard(from, &header, shard)?;
            rest.table.each(|record| {
                let (key, value) = sequence_and_key(record).1.split_at(lengths.0);
                to.put(key, value, Durability::Memory).map(drop)
            })?;
            counted.push((rest.sequence, rest.doubtful()?, rest.table.len()));
            batches.extend(rest.parts.map(|parts| (shard, parts)));
            told(u64::from(shard) + 1, shards.into());
        }
        for (home, parts) in &batches {
            to.make_parts(&header, (*home, parts), &mut counted, &mut salvaged)?;
        }
        salvaged.doubtful = counted.iter().map(|(_, doubtful, _)| doubtful).sum();
        if !planted::is(Fault::SalvageUnsynced) {
            to.sync()?;
        }
        to.header = to.standing.stand_as(&to.folder, rank)?;
        salvaged.records = to.stats().iter().map(|shard| shard.records).sum();
        Ok((to, salvaged))
    }

    /// Makes what other shards have yet to get of the last batch of a shard.
    fn make_parts(
        &self,
        of: &StoreHeader,
        (home, parts): (u32, &Parts),
        counted: &mut [(u64, u64, u64)],
        salvaged: &mut Salvaged,
    ) -> Result<()> {
        let name = segment_name(home, parts.segment);
        let Some(found) = parts.read(of, home) else {
            // Nobody knows what it was to do, and to which shard.
            salvaged.unknown += 1;
            return salvaged.note(Error::damaged(&name, parts.at, NOBODYS));
        };
        for part in found {
            let Some((before, doubtful, records)) = counted.get_mut(part.shard as usize) else {
                continue;
            };
            match is_missing(*before, part.sequence) {
                Some(false) => continue,
                Some(true) => {}
                // Writes that the batch came after are gone, and whatever its shard has is older.
                None => {
                    salvaged.note(Error::damaged(&name, parts.at, BEHIND_GAP))?;
                    salvaged.unknown += 1;
                    salvaged.writes_lost += (part.sequence - 1).saturating_sub(*before);
                    *doubtful = *records;
                }
            }
            write(self, &part.changes)?;
        }
        Ok(())
    }
}
