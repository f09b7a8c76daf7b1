//! Putting a copy of a store where a store is to be.

use std::path::Path;

use mainstay_storage::{Folder, Storage};

use crate::{
    any::{LogSurvey, RawLogStore, is_called_copy, restore_into},
    error::{Error, Result},
    folder::Directory,
    format::STORE_FILE,
    keyed::Ring,
    mark::{Maker, check_whole, unmark},
    planted::{self, Fault},
    rank::Ranked,
    read_only::ReadOnly,
    recover::store_header,
    store::{begin_fixed, check_header},
    survey::{FileKind, Survey},
    unwritten::Unwritten,
};

/// Bytes copied at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Copies a store that nobody has open, a [backup](crate::RawStore::backup) for one, or a copy of one
/// of any sizes ([`RawLogStore::backup`](crate::RawLogStore::backup)), into a directory in which there
/// is none, durably. Every checksum is checked, of what is read and of what was
/// written. `told` hears how many bytes were copied, and of how many. Returns how many records there
/// are.
///
/// ```
/// use mainstay_store::{Directory, Durability, FixedStore, Options, restore};
/// let (dir, kept, anew) = (tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?);
/// let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
/// store.put(&1, &2, Durability::Memory)?;
/// store.raw().backup(&Directory::lock(kept.path())?, |_, _| {})?;
///
/// assert_eq!(restore(kept.path(), anew.path(), |_, _| {})?, 1);
/// let store = FixedStore::<u64, u64>::open(anew.path(), &Options::default())?;
/// assert_eq!(store.get(&1)?, Some(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Damaged`] with the first place that is not as it was written; [`Error::NotWhole`] if it
/// was not copied to its end, and [`Error::NotCopied`] likewise; [`Error::NotClosed`] if writes of the
/// copy are in memory only; [`Error::Exists`]; what the disk says. Then there is no store in `to`, and
/// another restore to there begins anew.
pub fn restore(from: &Path, to: &Path, told: impl FnMut(u64, u64)) -> Result<u64> {
    restore_as(from, to, Ring::NONE, told)
}

/// The same of a copy that is encrypted, to a store that is encrypted under the newest of the keys.
///
/// ```
/// use mainstay_store::{Directory, Key, Keys, Options, RawStore, restore_with};
/// # let (dir, kept, anew) = (tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?);
/// let keys = Keys::new(Key::new(&[7; 32]));
/// let folder = Directory::lock_with(dir.path(), &keys)?;
/// let store = RawStore::create(folder, 2, 3, &Options::default())?;
/// store.backup(&Directory::lock_with(kept.path(), &keys)?, |_, _| {})?;
/// assert_eq!(restore_with(kept.path(), anew.path(), &keys, |_, _| {})?, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`restore`]; [`Error::OtherKey`]; [`Error::NotEncrypted`].
#[cfg(feature = "encryption")]
pub fn restore_with(
    from: &Path,
    to: &Path,
    keys: &crate::Keys,
    told: impl FnMut(u64, u64),
) -> Result<u64> {
    restore_as(from, to, Ring::of(keys), told)
}

/// Reads all of a copy of a store of any sizes, as
/// [`RawLogStore::check_copy`](crate::RawLogStore::check_copy) does, and writes nothing into its
/// directory, which may be on a medium that takes nothing.
///
/// ```
/// use mainstay_store::{Directory, LogOptions, RawLogStore, check_log_copy};
/// # let (dir, kept) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// let store = RawLogStore::create(Directory::lock(dir.path())?, &LogOptions::default())?;
/// store.backup(&Directory::lock(kept.path())?, |_, _| {})?;
/// check_log_copy(kept.path(), |_done, _all| {})?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::NotACopy`]; [`Error::Damaged`] with the first place that is not as it was written;
/// [`Error::Locked`]; what the disk says.
pub fn check_log_copy(copy: &Path, told: impl FnMut(u64, u64)) -> Result<()> {
    RawLogStore::check_copy(&ReadOnly::open(copy, Ring::NONE)?, told)
}

/// The same of a copy that is encrypted.
///
/// ```
/// use mainstay_store::{Directory, Key, Keys, LogOptions, RawLogStore, check_log_copy_with};
/// # let (dir, kept) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// let keys = Keys::new(Key::new(&[7; 32]));
/// let folder = Directory::lock_with(dir.path(), &keys)?;
/// let store = RawLogStore::create(folder, &LogOptions::default())?;
/// store.backup(&Directory::lock_with(kept.path(), &keys)?, |_, _| {})?;
/// check_log_copy_with(kept.path(), &keys, |_done, _all| {})?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`check_log_copy`]; [`Error::OtherKey`]; [`Error::NotEncrypted`].
#[cfg(feature = "encryption")]
pub fn check_log_copy_with(
    copy: &Path,
    keys: &crate::Keys,
    told: impl FnMut(u64, u64),
) -> Result<()> {
    RawLogStore::check_copy(&ReadOnly::open(copy, Ring::of(keys))?, told)
}

fn restore_as(from: &Path, to: &Path, ring: Ring<'_>, told: impl FnMut(u64, u64)) -> Result<u64> {
    // Nobody opens it until all is copied.
    let source = ReadOnly::open(from, ring)?;
    if is_called_copy(&source)? {
        let target = Directory::lock_as(to, ring)?;
        restore_into(&source, &target, told)?;
        drop(target);
        return LogSurvey::sound(to, ring);
    }
    // What is refused of it is refused before there is another directory.
    let copied = Copied::of(&source)?;
    copied.restore(&Directory::lock_as(to, ring)?, told)
}

/// A copy of a store of fixed sizes, in which all is as it was written.
struct Copied<'a, G> {
    from: &'a G,
    survey: Survey,
}

impl<'a, G: Folder> Copied<'a, G> {
    fn of(from: &'a G) -> Result<Self> {
        check_whole(from)?;
        let header = store_header(from)?;
        check_header(&header)?;
        header.check_finished()?;
        for shard in 0..header.shards.get() {
            if Unwritten::find(from, &header, shard)?.is_some_and(|frames| !frames.is_empty()) {
                return Err(Error::NotClosed);
            }
        }
        Ok(Self { from, survey: sound(from)? })
    }

    /// Makes a store of it in a folder in which there is none, and says how many records it has.
    fn restore<F: Folder>(&self, to: &F, mut told: impl FnMut(u64, u64)) -> Result<u64> {
        let is_ours = begin_fixed(Maker::Copy, to)?;
        let needed = |kind| matches!(kind, FileKind::Segment | FileKind::Image);
        let files: Vec<_> = self.survey.files.iter().filter(|file| needed(file.kind)).collect();
        let all = files.iter().map(|file| file.bytes).sum();
        let mut done = 0;
        for file in files {
            copy(self.from, to, &file.name, &mut |bytes| {
                done += bytes;
                told(done, all);
            })?;
        }
        // The header last: from then on it is a store, as soon as the mark is gone.
        to.sync_names().map_err(Error::io("the directory"))?;
        copy(self.from, to, STORE_FILE, &mut |_| {})?;
        to.sync_names().map_err(Error::io("the directory"))?;
        let records = sound(to)?.records;
        if is_ours {
            unmark(to)?;
        }
        Ok(records)
    }
}

/// What the files of a store say, if all of them are as they were written.
fn sound(folder: &impl Folder) -> Result<Survey> {
    let survey = Survey::over_all(folder, |_, _| {})?;
    for file in &survey.files {
        if let Some(damage) = file.damage.first() {
            return Err(Error::damaged(&file.name, damage.offset, damage.what));
        }
    }
    Ok(survey)
}

fn copy(
    from: &impl Folder,
    to: &impl Folder,
    name: &str,
    told: &mut impl FnMut(u64),
) -> Result<()> {
    let mut run = || {
        let (source, target) = (from.file(name)?, to.file(name)?);
        let len = source.len()?;
        let (mut piece, mut at) = (vec![0; PIECE_BYTES], 0);
        while at < len {
            piece.truncate((len - at).min(PIECE_BYTES as u64) as usize);
            source.read_at(at, &mut piece)?;
            target.write_at(at, &piece)?;
            at += piece.len() as u64;
            told(piece.len() as u64);
        }
        if planted::is(Fault::CopyUnsynced) {
            return Ok(());
        }
        target.sync()
    };
    run().map_err(Error::io(name))
}

#[cfg(test)]
mod tests;
