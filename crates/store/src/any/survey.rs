//! What the files of a store of any sizes say, for who only looks: every frame is read, nothing is
//! changed.

use std::path::Path;

use mainstay_storage::{Folder, Storage as _};

use super::{
    format::{ANY_FILE, AnyHeader, Kind, ListHeader, LogHeader, Record, parse_name},
    parts::{Missing, Parts},
    raw::check_header,
    recover::{Found, How, UNREAD_HINT, any_header, load, wrong_with},
    shard::note,
};
use crate::{
    error::{Error, Result},
    format::{BAD_COPY, Header, bad_copies},
    keyed::Ring,
    mark::check_whole,
    rank::Ranked,
    read_only::ReadOnly,
};

/// A place that is not as it was written.
///
/// Example: see [`LogSurvey`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogDamage {
    /// The file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: &'static str,
    /// Is there a sound copy of it, so that nothing is lost? Then the store can be opened.
    pub has_copy: bool,
}

/// What a store of any sizes has, and what its checksums say.
///
/// ```
/// use mainstay_store::{Durability, LogOptions, LogStore, LogSurvey};
/// let dir = tempfile::tempdir()?;
/// let store = LogStore::<u64, String>::create(dir.path(), &LogOptions::default())?;
/// store.put(&1, &"one".into(), Durability::Group)?;
/// store.close()?;
/// let survey = LogSurvey::of(dir.path(), |_done, _total| {})?;
/// assert!(survey.damage.is_empty());
/// assert_eq!((survey.records, survey.shards), (1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogSurvey {
    /// What tells the store from all others.
    pub id: [u8; 16],
    /// Shards.
    pub shards: u32,
    /// Records that an opening finds; none in shards that cannot be opened.
    pub records: u64,
    /// Is it more than a part of what it is to be? See
    /// [`RawLogStore::is_whole`](crate::RawLogStore::is_whole).
    pub is_whole: bool,
    /// Segments.
    pub segments: u64,
    /// Bytes of their frames.
    pub log_bytes: u64,
    /// Bytes of records that are some key's newest.
    pub live_bytes: u64,
    /// What keeps shards from being opened, the first place in each, and what is damaged and has a
    /// copy.
    pub damage: Vec<LogDamage>,
}

impl LogSurvey {
    /// Reads all files of a directory that nobody has open. `progress` is told how many of how many
    /// bytes are read.
    ///
    /// Example: see [`LogSurvey`].
    ///
    /// # Errors
    /// [`Error::NotAStore`]; [`Error::OtherKind`]; [`Error::Unfinished`]; [`Error::Locked`];
    /// [`Error::Damaged`] if neither copy of the store's header is sound; what the disk says.
    pub fn of(path: &Path, progress: impl FnMut(u64, u64)) -> Result<Self> {
        Self::over(&ReadOnly::open(path, Ring::NONE)?, progress)
    }

    /// The same of a store that is encrypted.
    ///
    /// ```
    /// # use mainstay_store::{Directory, Key, Keys, LogOptions, LogSurvey, RawLogStore};
    /// # let dir = tempfile::tempdir()?;
    /// let keys = Keys::new(Key::new(&[7; 32]));
    /// let folder = Directory::lock_with(dir.path(), &keys)?;
    /// RawLogStore::create(folder, &LogOptions::default())?.close()?;
    /// assert!(LogSurvey::of_with(dir.path(), &keys, |_, _| {})?.damage.is_empty());
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
        Self::over(&ReadOnly::open(path, Ring::of(keys))?, progress)
    }

    /// How many records a store has, if all of it is as it was written.
    pub(crate) fn sound(path: &Path, ring: Ring<'_>) -> Result<u64> {
        let survey = Self::over(&ReadOnly::open(path, ring)?, |_, _| {})?;
        match survey.damage.first() {
            Some(LogDamage { file, offset, what, .. }) => Err(Error::damaged(file, *offset, what)),
            None => Ok(survey.records),
        }
    }

    /// The same over any folder, which must not be written to meanwhile.
    ///
    /// ```
    /// use mainstay_store::{LogOptions, LogSurvey, RawLogStore};
    /// let disk = mainstay_sim::Disk::new(7);
    /// RawLogStore::create(disk.clone(), &LogOptions::default())?.close()?;
    /// assert!(LogSurvey::over(&disk, |_, _| {})?.damage.is_empty());
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn over<F: Folder>(folder: &F, mut progress: impl FnMut(u64, u64)) -> Result<Self> {
        check_whole(folder)?;
        let header = any_header(folder)?;
        check_header(&header)?;
        let mut total = 0;
        for name in folder.names().map_err(Error::io("the directory"))? {
            if matches!(parse_name(&name), Some((_, _, Kind::Log))) {
                let len = folder.file(&name).and_then(|file| file.len());
                total += len.map_err(Error::io(name))?;
            }
        }
        let mut survey = Self {
            id: header.id,
            shards: header.shards.get(),
            records: 0,
            is_whole: header.rank().is_whole,
            segments: 0,
            log_bytes: 0,
            live_bytes: 0,
            damage: Vec::new(),
        };
        survey.check_copies(folder, &header)?;
        let (mut done, mut batches) = (0, Vec::new());
        for shard in 0..survey.shards {
            let mut told = |bytes| {
                done += bytes;
                progress(done, total);
            };
            match load(folder, &header, shard, How::Look, &mut told) {
                Ok(mut found) => {
                    survey.complete(&header, &batches, shard, &mut found)?;
                    if let Some(parts) = found.parts.take() {
                        match parts.missing(&header, shard, |_| None) {
                            Ok(_) => batches.push((shard, parts)),
                            Err(error) => survey.note(error)?,
                        }
                    }
                    survey.add(&found);
                    survey.add_hints(shard, &found);
                }
                Err(error) => survey.note(error)?,
            }
        }
        Ok(survey)
    }

    /// Notes damage; another error ends it.
    fn note(&mut self, error: Error) -> Result<()> {
        let (file, offset, what) = error.into_damage()?;
        self.damage.push(LogDamage { file, offset, what, has_copy: false });
        Ok(())
    }

    /// Of headers there are two copies, and of what a hint says there are the frames.
    fn check_copies<F: Folder>(&mut self, folder: &F, header: &AnyHeader) -> Result<()> {
        let mut names = folder.names().map_err(Error::io("the directory"))?;
        names.sort_unstable();
        for name in names {
            let of = parse_name(&name);
            let bad = match of.map(|(.., kind)| kind) {
                Some(Kind::Hint) => Vec::new(),
                Some(Kind::Log) => bad_copies_of::<LogHeader>(folder, &name)?,
                Some(Kind::List) => bad_copies_of::<ListHeader>(folder, &name)?,
                None if name == ANY_FILE => bad_copies_of::<AnyHeader>(folder, &name)?,
                None => continue,
            };
            for offset in bad {
                let file = name.clone();
                self.damage.push(LogDamage { file, offset, what: BAD_COPY, has_copy: true });
            }
            let Some((shard, number, Kind::Hint)) = of else { continue };
            if let Some(what) = wrong_with(folder, header, shard, number)? {
                self.damage.push(LogDamage { file: name, offset: 0, what, has_copy: true });
            }
        }
        Ok(())
    }

    /// Counts what an opening makes of batches whose first shards are looked at already.
    fn complete<F: Folder>(
        &mut self,
        header: &AnyHeader,
        batches: &[(u32, Parts)],
        shard: u32,
        found: &mut Found<F>,
    ) -> Result<()> {
        let sequence = found.log.sequence;
        let written = |of| (of == shard).then_some(sequence);
        for (home, parts) in batches {
            let missing = match parts.missing(header, *home, written) {
                Ok(missing) => missing,
                Err(error) => {
                    self.note(error)?;
                    continue;
                }
            };
            for Missing { changes, end, .. } in missing {
                for change in changes {
                    let record = Record { change, end, at: 0 };
                    note(&mut found.index, &mut found.log, &record);
                }
            }
        }
        Ok(())
    }

    fn add<F: Folder>(&mut self, found: &Found<F>) {
        let segments = found.index.segments.values();
        self.records += found.index.len();
        self.segments += found.index.segments.len() as u64;
        self.log_bytes += segments.clone().map(|segment| segment.end).sum::<u64>();
        self.live_bytes += segments.map(|segment| segment.live).sum::<u64>();
    }

    /// What a hint says must be what the frames say: an opening believes it.
    fn add_hints<F: Folder>(&mut self, shard: u32, found: &Found<F>) {
        const OTHER: &str = "the hint says something else than the segment";
        let wrong = found.wrong_hints.iter().map(|(at, is_believed)| (*at, OTHER, !is_believed));
        // It could be read a moment ago.
        let unread = found.unread_hints.iter().map(|at| (*at, UNREAD_HINT, true));
        for (number, what, has_copy) in wrong.chain(unread) {
            let file = Kind::Hint.name(shard, number);
            let damage = LogDamage { file, offset: 0, what, has_copy };
            if !self.damage.contains(&damage) {
                self.damage.push(damage);
            }
        }
    }
}

/// Where copies of a header are not sound though there is one that is.
pub(super) fn bad_copies_of<H: Header>(folder: &impl Folder, name: &str) -> Result<Vec<u64>> {
    let file = match folder.file(name).map_err(Error::io(name)) {
        // Whether the file is needed is for the opening to say.
        Err(Error::Damaged { .. }) => return Ok(Vec::new()),
        file => file?,
    };
    let (sound, bad) = bad_copies::<H>(&file, name)?;
    Ok(if sound.is_some() { bad } else { Vec::new() })
}
