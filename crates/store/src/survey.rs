//! What every checksum of a store's files says. Opening stops at the first damage; a survey goes
//! on, so that one knows what there is to mend.
//!
//! A place where no frame can be read is damage if a frame behind it, or the header of the segment,
//! says that a write which is missing was durable (A4), or if the next segment goes on after it. Otherwise it is the end of
//! the log: what a writer did not finish.

mod files;

use std::path::Path;

use mainstay_storage::{Folder, Storage};

pub(crate) use self::files::{MISSING, scrub_fixed};
use self::files::{file_report, store_report};
use crate::{
    error::{Error, MISPLACED, Result},
    format::{BAD_COPY, Header, StoreHeader, bad_copies, parse_name},
    keyed::Ring,
    mark::check_whole,
    parts::complete,
    rank::Ranked,
    read_only::ReadOnly,
    recover::{Loaded, load_apart, store_header},
    store::check_header,
    unwritten::Unwritten,
};

/// What kind of file a store has.
///
/// Example: see [`Survey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// The header of the store.
    Store,
    /// A segment of a shard's log.
    Segment,
    /// An image of a shard.
    Image,
    /// Something that no opening reads: unfinished, or replaced. The next one removes it.
    Leftover,
}

/// A place that is not as it was written.
///
/// Example: see [`Survey`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Where in the file.
    pub offset: u64,
    /// What is wrong.
    pub what: &'static str,
    /// Is there a sound copy of it, so that nothing is lost?
    pub has_copy: bool,
}

/// What was found in a file.
///
/// Example: see [`Survey`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileReport {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Of which shard; none for the header of the store.
    pub shard: Option<u32>,
    /// How long it is.
    pub bytes: u64,
    /// Sound frames, or chunks.
    pub parts: u64,
    /// Records in them, or changes.
    pub records: u64,
    /// The last sound write of a segment; what an image holds everything up to.
    pub sequence: u64,
    /// Bytes behind the end of the log that are no write: one that was not finished.
    pub unfinished: bool,
    /// What is not as it was written.
    pub damage: Vec<Damage>,
    /// Where writes are missing that nothing in the same file says were durable.
    gaps: Vec<u64>,
}

/// All files of a store, and what their checksums say.
///
/// ```
/// use mainstay_store::{Durability, FixedStore, Options, Survey};
/// let dir = tempfile::tempdir()?;
/// let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
/// store.put(&1, &2, Durability::Group)?;
/// store.close()?;
/// let survey = Survey::of(dir.path(), |_done, _total| {})?;
/// assert!(survey.is_sound());
/// assert_eq!(survey.files.iter().map(|file| file.records).sum::<u64>(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Survey {
    /// What tells the store from all others, and what its replicas have as well.
    pub id: [u8; 16],
    /// Bytes of a key.
    pub key_bytes: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Shards.
    pub shards: u32,
    /// Records that an opening finds; none in shards that cannot be opened.
    pub records: u64,
    /// Is it more than a part of what it is to be? See [`RawStore::is_whole`](crate::RawStore::is_whole).
    pub is_whole: bool,
    /// The files: the header first, then by shard and number.
    pub files: Vec<FileReport>,
}

impl Survey {
    /// Reads all files of a directory that nobody has open; changes nothing. `progress` is told
    /// how many of how many bytes are read.
    ///
    /// Example: see [`Survey`].
    ///
    /// # Errors
    /// [`Error::NotAStore`]; [`Error::Locked`]; [`Error::Damaged`] if neither copy of the store's
    /// header is sound, since without it nothing can be read; what the disk says.
    pub fn of(path: &Path, progress: impl FnMut(u64, u64)) -> Result<Self> {
        Self::of_as(path, Ring::NONE, progress)
    }

    /// The same of a store that is encrypted.
    ///
    /// ```
    /// # use mainstay_store::{Directory, Key, Keys, Options, RawStore, Survey};
    /// # let dir = tempfile::tempdir()?;
    /// let keys = Keys::new(Key::new(&[7; 32]));
    /// let folder = Directory::lock_with(dir.path(), &keys)?;
    /// RawStore::create(folder, 2, 3, &Options::default())?.close()?;
    /// assert!(Survey::of_with(dir.path(), &keys, |_, _| {})?.is_sound());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`of`](Self::of); [`Error::OtherKey`]; [`Error::NotEncrypted`].
    #[cfg(feature = "encryption")]
    pub fn of_with(
        path: &Path,
        keys: &crate::Keys,
        progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        Self::of_as(path, Ring::of(keys), progress)
    }

    pub(crate) fn of_as(
        path: &Path,
        ring: Ring<'_>,
        progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        Self::over(&ReadOnly::open(path, ring)?, progress)
    }

    /// The same over any folder, which must not be written to meanwhile.
    ///
    /// ```
    /// use mainstay_store::{Options, RawStore, Survey};
    /// let disk = mainstay_sim::Disk::new(7);
    /// RawStore::create(disk.clone(), 2, 3, &Options::default())?.close()?;
    /// assert!(Survey::over(&disk, |_, _| {})?.is_sound());
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn over<F: Folder>(folder: &F, progress: impl FnMut(u64, u64)) -> Result<Self> {
        check_whole(folder)?;
        Self::over_all(folder, progress)
    }

    /// The same, whether it is finished or not.
    pub(crate) fn over_all<F: Folder>(
        folder: &F,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        let header = store_header(folder)?;
        check_header(&header)?;
        let mut names = folder.names().map_err(Error::io("the directory"))?;
        names.retain(|name| parse_name(name).is_some());
        names.sort_unstable_by_key(|name| {
            parse_name(name).map(|(shard, number, _)| (shard, number))
        });
        let mut total = 0;
        for name in &names {
            let len = folder.file(name).and_then(|file| file.len());
            total += len.map_err(Error::io(&**name))?;
        }
        let lengths = (header.key_len.get() as usize, header.value_len.get() as usize);
        let mut survey = Self {
            id: header.id,
            key_bytes: lengths.0,
            value_bytes: lengths.1,
            shards: header.shards.get(),
            records: 0,
            is_whole: header.rank().is_whole,
            files: vec![store_report(folder)?],
        };
        let mut done = 0;
        let unwritten = (0..survey.shards).map(|shard| Unwritten::find(folder, &header, shard));
        let unwritten: Vec<_> = unwritten.collect::<Result<_>>()?;
        for name in &names {
            let report = file_report(folder, &header, &unwritten, name)?;
            done += report.bytes;
            progress(done, total);
            survey.files.push(report);
        }
        survey.close_gaps();
        let mut has_parts = false;
        for shard in 0..survey.shards {
            has_parts |= survey.judge(folder, &header, shard)?;
        }
        if has_parts && survey.can_be_opened() {
            survey.complete(folder, &header)?;
        }
        Ok(survey)
    }

    /// Is everything as it was written?
    ///
    /// Example: see [`Survey`].
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.files.iter().all(|file| file.damage.is_empty())
    }

    /// Can the store be opened: has all damage a sound copy?
    ///
    /// Example: see [`Survey`].
    #[must_use]
    pub fn can_be_opened(&self) -> bool {
        self.files.iter().flat_map(|file| &file.damage).all(|damage| damage.has_copy)
    }

    /// Before a segment is begun, the one before it is synced: only the last can have an end that
    /// was not durable.
    fn close_gaps(&mut self) {
        let mut after = None;
        for file in self.files.iter_mut().rev().filter(|file| file.kind == FileKind::Segment) {
            if after == file.shard {
                let damage =
                    |offset: &u64| Damage { offset: *offset, what: MISSING, has_copy: false };
                file.damage.extend(file.gaps.iter().map(damage));
                file.damage.sort_by_key(|damage| damage.offset);
            } else {
                file.unfinished = !file.gaps.is_empty();
            }
            after = file.shard;
        }
    }

    /// Asks what an opening would ask: which files count, and whether they fit together. Does the log
    /// end with a batch that may have to be finished?
    fn judge<F: Folder>(&mut self, folder: &F, header: &StoreHeader, shard: u32) -> Result<bool> {
        let ours = |file: &&mut FileReport| file.shard == Some(shard);
        match load_apart(folder, header, shard) {
            Ok(loaded) => {
                self.records += loaded.table.len();
                self.is_whole &= loaded.history.position().is_some();
                for file in self.files.iter_mut().filter(ours) {
                    if loaded.leftovers.contains(&file.name) {
                        file.kind = FileKind::Leftover;
                        file.damage.clear();
                    }
                    // It was opened all the same: whatever is damaged was not needed.
                    file.damage.iter_mut().for_each(|damage| damage.has_copy = true);
                }
                Ok(loaded.parts.is_some())
            }
            Err(error) => {
                let (file, offset, what) = error.into_damage()?;
                self.add(&file, offset, what, shard);
                Ok(false)
            }
        }
    }

    /// Counts the records that an opening finds when it has finished batches.
    fn complete<F: Folder>(&mut self, folder: &F, header: &StoreHeader) -> Result<()> {
        let shards = (0..self.shards).map(|shard| load_apart(folder, header, shard));
        let shards: Vec<Loaded> = shards.collect::<Result<_>>()?;
        match complete(header, &shards.iter().collect::<Vec<_>>()) {
            Ok(()) => self.records = shards.iter().map(|loaded| loaded.table.len()).sum(),
            Err(error) => {
                let (file, offset, what) = error.into_damage()?;
                let shard = parse_name(&file).map_or(0, |(shard, ..)| shard);
                self.add(&file, offset, what, shard);
            }
        }
        Ok(())
    }

    /// Adds damage with which the store cannot be opened.
    fn add(&mut self, name: &str, offset: u64, what: &'static str, shard: u32) {
        let damage = Damage { offset, what, has_copy: false };
        match self.files.iter_mut().find(|file| file.name == name) {
            Some(file) if file.damage.iter().all(|damage| damage.has_copy) => {
                file.damage.push(damage);
            }
            Some(_) => {}
            // A shard without a single file.
            None => self.files.push(FileReport {
                kind: FileKind::Segment,
                shard: Some(shard),
                damage: vec![damage],
                ..FileReport::new(name, 0)
            }),
        }
    }
}

impl FileReport {
    fn new(name: &str, bytes: u64) -> Self {
        Self {
            name: name.to_owned(),
            kind: FileKind::Store,
            shard: None,
            bytes,
            parts: 0,
            records: 0,
            sequence: 0,
            unfinished: false,
            damage: Vec::new(),
            gaps: Vec::new(),
        }
    }

    fn add(&mut self, offset: u64, what: &'static str) {
        self.damage.push(Damage { offset, what, has_copy: false });
    }

    /// A key does not belong here. The first place of a file is told: there may be as many as keys.
    fn strange(&mut self, offset: u64, is_strange: bool) {
        if is_strange && self.damage.iter().all(|damage| damage.what != MISPLACED) {
            self.add(offset, MISPLACED);
        }
    }

    /// A header has two copies. One that was never written is zeros, and no damage.
    fn check_copies<H: Header>(&mut self, file: &impl Storage) -> Result<Option<H>> {
        let (sound, bad) = bad_copies::<H>(file, &self.name)?;
        if sound.is_some() {
            let damage = |offset| Damage { offset, what: BAD_COPY, has_copy: true };
            self.damage.extend(bad.into_iter().map(damage));
        }
        Ok(sound)
    }
}
