//! A new store with all that is sound in one that is damaged.
//!
//! A shard that can be opened is taken as it is; of another one everything of which the checksums are
//! right (see `shard`). What was lost is told: where, which keys it was if that is known, and how
//! many records may be older than something that is lost if it is not.

mod shard;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::BTreeSet, sync::Arc};

use mainstay_storage::{Folder, Storage};

use self::shard::Rest;
use super::{
    format::{ANY_FILE, AnyHeader, Kind, LogHeader, Place, parse_name, record_bytes, value_of},
    frames::NOT_AS_WRITTEN,
    index::Index,
    options::LogOptions,
    raw::{RawLogStore, begin_any, check_header},
    recover::{How, any_header, load},
    survey::LogDamage,
};
use crate::{
    error::{Error, MISPLACED, Result},
    format::{Header, VERSION, read_headers},
    limits::{SEGMENT_BYTES_MAX, SHARDS_MAX},
    mark::{Maker, unmark},
    parts::is_missing,
    planted::{self, Fault},
    rank::{Ranked, Role},
    shard::Change,
};

/// What was saved of a damaged store, and what was not.
///
/// Example: see [`RawLogStore::salvage`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogSalvaged {
    /// Records of the new store.
    pub records: u64,
    /// Places that were damaged.
    pub damage: Vec<LogDamage>,
    /// Writes that are damaged or not there any more, as far as that can be counted.
    pub writes_lost: u64,
    /// Changes that were sound in damaged writes, and were saved.
    pub saved_from_them: u64,
    /// Keys whose last value is lost. The new store does not have them: what they had before is not
    /// shown in its place.
    pub lost: Vec<Box<[u8]>>,
    /// Places at which writes are lost of which nobody knows the keys, and shards with keys that belong
    /// to others.
    pub unknown: u64,
    /// Records of the new store that are older than such a write of their shard: it may have replaced
    /// or deleted them. So may deletes those that were found in another shard, which are saved where
    /// their own shard has nothing of the key. There are none where [`unknown`](Self::unknown) is 0.
    pub doubtful: u64,
    /// The header of the store is gone. How many shards there were is known from the files of logs, if
    /// the last of them has one; that whole keys choose their shards, that segments are as large as they
    /// can be, and that the store led and was whole, is a guess.
    pub is_guessed: bool,
    /// The damaged store followed a leader, and so the new one takes no writes until it is promoted.
    pub follows: bool,
    /// The damaged store was a follower's, or a copy, that was not finished, and so is the new one: it is
    /// refused as such until somebody says that it is all there is, see
    /// [`set_whole`](RawLogStore::set_whole).
    pub is_unfinished: bool,
}

impl LogSalvaged {
    /// Is every record there that was there, as far as checksums can tell?
    ///
    /// Example: see [`RawLogStore::salvage`].
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.unknown == 0
    }
}

/// A record in a file of a shard to which its key does not belong.
struct Stranger<S> {
    shard: u32,
    key: Box<[u8]>,
    place: Place,
    file: Arc<S>,
}

impl<S> Stranger<S> {
    fn damage(&self) -> LogDamage {
        let file = Kind::Log.name(self.shard, self.place.segment);
        LogDamage { file, offset: self.place.at.into(), what: MISPLACED, has_copy: false }
    }
}

/// Shards and segments as a damaged store has them.
pub(super) fn options_of(folder: &impl Folder) -> Result<LogOptions> {
    let header = LogSalvaged::default().header(folder)?;
    let (shards, segment_bytes) = (header.shards.get(), header.segment_bytes.get());
    let shard_bits = header.shard_bits.get();
    Ok(LogOptions { shards, shard_bits, segment_bytes, ..LogOptions::default() })
}

impl<F: Folder> RawLogStore<F> {
    /// Makes a store in another folder, with all that is sound of one that is damaged, and says what
    /// is not. Nothing is changed in the damaged one, which nobody may have open. The new one is
    /// another store, with an identity and a history of its own, of `options`; it leads or follows as
    /// the damaged one does, and is whole or not. While it is being made, there is a file `unfinished`
    /// with it, and nobody can open it; whoever salvages into the same folder again removes what one that
    /// was killed has left there, and begins anew. `told` hears how many shards were read, and of how many.
    ///
    /// A record is taken if its own checksum is right. A key of which the last value is damaged is not
    /// there, and is told; a full segment, and all of a store that was closed, has a hint, which knows the
    /// keys. Where there is none, a key may have what it had before a write that is lost: how many may,
    /// is told. Of a batch a part may be lost.
    ///
    /// ```
    /// use mainstay_sim::{Disk, Storage};
    /// use mainstay_store::{Durability::Group, LogOptions, RawLogStore};
    /// let (disk, options) = (Disk::new(7), LogOptions { shards: 1, ..LogOptions::default() });
    /// let store = RawLogStore::create(disk.clone(), &options)?;
    /// for key in ["de", "es", "fr"] {
    ///     store.put(key.as_bytes(), b"in Europe", Group)?;
    /// }
    /// store.close()?;
    /// // A byte of the second value.
    /// disk.file("any-0000-0000000000000001.log").write_at(4096 + 72 + 64, b"?")?;
    /// assert!(RawLogStore::open(disk.clone(), &options)?.get(b"es").is_err());
    ///
    /// let (store, told) = RawLogStore::salvage(&disk, Disk::new(8), &options, |_, _| {})?;
    /// assert!(store.contains(b"de")? && store.contains(b"fr")? && !store.contains(b"es")?);
    /// assert_eq!((told.records, told.damage.len(), told.doubtful), (2, 1, 0));
    /// assert!(!told.is_whole() && *told.lost[0] == *b"es");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotAStore`] if there is not even a file of a log; [`Error::Encrypted`] and others of
    /// keys; as [`create`](Self::create); what the disk says.
    pub fn salvage<G: Folder>(
        from: &G,
        to: F,
        options: &LogOptions,
        mut told: impl FnMut(u64, u64),
    ) -> Result<(Self, LogSalvaged)> {
        options.check()?;
        // Before anything is done to the other folder.
        LogSalvaged::default().header(from)?;
        let is_ours = begin_any(Maker::Salvage, &to)?;
        let (to, salvaged) = Self::salvage_marked(from, to, options, &mut told)?;
        if is_ours {
            unmark(&to.folder)?;
        }
        Ok((to, salvaged))
    }

    /// The same in a folder with a mark, which is left there, and nothing else.
    pub(super) fn salvage_marked<G: Folder>(
        from: &G,
        to: F,
        options: &LogOptions,
        told: &mut dyn FnMut(u64, u64),
    ) -> Result<(Self, LogSalvaged)> {
        let mut salvaged = LogSalvaged::default();
        let header = salvaged.header(from)?;
        let mut to = Self::create_begun(to, options)?;
        let rank = header.rank();
        (salvaged.follows, salvaged.is_unfinished) = (rank.role == Role::Follower, !rank.is_whole);
        let shards = header.shards.get();
        let (mut written, mut batches) = (Vec::new(), Vec::new());
        let mut counted = Vec::new();
        let mut strangers = Vec::new();
        for shard in 0..shards {
            let rest = salvaged.shard(from, &header, shard)?;
            counted.push((rest.doubtful(), rest.index.len()));
            let found = to.put_all(shard, &rest.index, (&header, salvaged.is_guessed))?;
            if let Some(first) = found.first() {
                salvaged.add(first.damage());
                salvaged.unknown += 1;
            }
            strangers.extend(found);
            written.push(rest.sequence);
            batches.extend(rest.parts.map(|parts| (shard, parts)));
            salvaged.lost.extend(rest.lost);
            to.write_hints()?;
            told(u64::from(shard) + 1, shards.into());
        }
        for (home, parts) in &batches {
            for part in parts.each(header.route(), *home, !salvaged.is_guessed) {
                let (sequence, part) = match part {
                    Ok(part) => part,
                    // Nobody knows what it was to do, and to which shard.
                    Err(error) => {
                        salvaged.unknown += 1;
                        salvaged.note(error)?;
                        continue;
                    }
                };
                let shard = part.shard as usize;
                let before = written.get(shard).copied().unwrap_or(0);
                match is_missing(before, sequence) {
                    Some(false) => continue,
                    Some(true) => {}
                    // Writes that the batch came after are gone, and whatever its shard has is older.
                    None => {
                        salvaged.note(parts.behind_gap(*home))?;
                        salvaged.unknown += 1;
                        salvaged.writes_lost += (sequence - 1).saturating_sub(before);
                        if let Some((doubtful, records)) = counted.get_mut(shard) {
                            *doubtful = *records;
                        }
                    }
                }
                to.mirror(&part.changes, part.end)?;
            }
        }
        salvaged.doubtful = counted.iter().map(|(doubtful, _)| doubtful).sum();
        salvaged.doubtful += to.put_strangers(&strangers, &salvaged.lost)?;
        if !planted::is(Fault::SalvageUnsynced) {
            to.finish()?;
        }
        to.header = to.standing.stand_as(&to.folder, rank)?;
        salvaged.records = to.stats().iter().map(|shard| shard.records).sum();
        Ok((to, salvaged))
    }

    /// Puts what an index has of another store, but for keys that do not belong there: those are
    /// returned. Where that is a guess all of them do.
    fn put_all<S: Storage>(
        &self,
        shard: u32,
        index: &Index<S>,
        (store, is_guessed): (&AnyHeader, bool),
    ) -> Result<Vec<Stranger<S>>> {
        let route = store.route();
        let mut strangers = Vec::new();
        let mut places: Vec<_> = index.lines.iter().map(|(key, place)| (place, key)).collect();
        places.sort_unstable_by_key(|(place, _)| (place.segment, place.at));
        for (place, key) in places {
            let name = || Kind::Log.name(shard, place.segment);
            let damaged = || Error::damaged(&name(), place.at.into(), NOT_AS_WRITTEN);
            let file = &index.segments.get(&place.segment).ok_or_else(damaged)?.file;
            if !is_guessed && route.elsewhere(shard, key).is_some() {
                let (key, file) = (key.into(), Arc::clone(file));
                strangers.push(Stranger { shard, key, place, file });
                continue;
            }
            self.put_one(shard, key, place, &**file)?;
        }
        Ok(strangers)
    }

    fn put_one(&self, shard: u32, key: &[u8], place: Place, file: &impl Storage) -> Result<()> {
        let name = Kind::Log.name(shard, place.segment);
        let mut record = vec![0; record_bytes(key.len(), place.value_len) as usize];
        file.read_at(place.at.into(), &mut record).map_err(Error::io(&*name))?;
        let damaged = || Error::damaged(&name, place.at.into(), NOT_AS_WRITTEN);
        let value = value_of(&record, key).ok_or_else(damaged)?;
        self.mirror(&[Change::Put(key, value)], place.end)
    }

    /// Puts those of which their own shards have nothing, and have lost nothing. How many that were:
    /// they may be older than a delete there.
    fn put_strangers<S: Storage>(
        &self,
        strangers: &[Stranger<S>],
        lost: &[Box<[u8]>],
    ) -> Result<u64> {
        let lost: BTreeSet<&[u8]> = lost.iter().map(|key| &**key).collect();
        let mut count = 0;
        for Stranger { shard, key, place, file } in strangers {
            let is_there = self.shard_of(key)?.index().find(key).is_some();
            if !is_there && !lost.contains(&**key) {
                self.put_one(*shard, key, *place, &**file)?;
                count += 1;
            }
        }
        Ok(count)
    }
}

impl LogSalvaged {
    /// Notes damage; another error ends it.
    fn note(&mut self, error: Error) -> Result<()> {
        let (file, offset, what) = error.into_damage()?;
        self.add(LogDamage { file, offset, what, has_copy: false });
        Ok(())
    }

    /// Damage that was not known yet.
    pub(super) fn add(&mut self, damage: LogDamage) {
        if !planted::is(Fault::LossUntold) && !self.damage.contains(&damage) {
            self.damage.push(damage);
        }
    }

    /// The header of the store; if it is damaged, what the files of its log say instead.
    fn header(&mut self, from: &impl Folder) -> Result<AnyHeader> {
        match any_header(from).and_then(|header| check_header(&header).map(|()| header)) {
            Ok(header) => return Ok(header),
            Err(Error::NotAStore | Error::HeaderGone { .. }) => {
                self.note(Error::damaged(ANY_FILE, 0, "the header of the store is missing"))?;
            }
            Err(error) => self.note(error)?,
        }
        self.is_guessed = true;
        let (mut id, mut shards) = (None, 0);
        for name in from.names().map_err(Error::io("the directory"))? {
            let Some((shard, _, Kind::Log)) = parse_name(&name) else { continue };
            if shard >= SHARDS_MAX {
                continue;
            }
            shards = shards.max(shard + 1);
            if id.is_none() {
                id = match from.file(&name).map_err(Error::io(&*name)) {
                    Err(error) => self.note(error).map(|()| None)?,
                    Ok(file) => read_headers::<LogHeader>(&file, &name)?.pop().map(|it| it.id),
                };
            }
        }
        let header = AnyHeader {
            magic: AnyHeader::MAGIC,
            version: VERSION.into(),
            flags: 0.into(),
            id: id.ok_or(Error::NotAStore)?,
            shards: shards.next_power_of_two().into(),
            // Not known, and for the records of a shard no matter.
            shard_bits: 0.into(),
            segment_bytes: SEGMENT_BYTES_MAX.into(),
            epoch: 0.into(),
            generation: 1.into(),
            known_epoch: 0.into(),
            role: (Role::Leader as u32).into(),
            reserved: [0; 48],
            checksum: 0.into(),
        };
        check_header(&header)?;
        Ok(header)
    }

    fn shard<G: Folder>(
        &mut self,
        from: &G,
        store: &AnyHeader,
        shard: u32,
    ) -> Result<Rest<G::File>> {
        match load(from, store, shard, How::Save, &mut |_| {}) {
            Ok(found) => Ok(Rest::of(found.index, found.log.sequence, found.parts)),
            Err(error) => {
                if !matches!(error, Error::Io { .. }) {
                    self.note(error)?;
                }
                self.damaged_shard(from, store, shard)
            }
        }
    }
}
