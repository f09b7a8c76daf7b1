//! A damaged store of a directory becomes one with all that is sound of it, and its files are kept
//! beside.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use mainstay_shm::hook;
use mainstay_storage::{Folder, Storage};

use super::{
    format::{ANY_FILE, AnyHeader, Kind, ListHeader, LogHeader, parse_name},
    options::LogOptions,
    raw::RawLogStore,
    salvage::{LogSalvaged, UNFINISHED, mark, options_of, unmark},
    survey::{LogDamage, LogSurvey},
};
use crate::{
    error::{Error, Result},
    exchange::{exchange, remove, sync_parent},
    folder::Directory,
    format::{Header, bad_copies, sealed},
};

/// What became of a store that was to be repaired.
///
/// Example: see [`RawLogStore::repair`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogRepaired {
    /// What was saved, and what was not.
    pub salvaged: LogSalvaged,
    /// Where the damaged files are now; none if nothing was damaged, or all of it had a copy.
    pub kept: Option<PathBuf>,
}

impl RawLogStore<Directory> {
    /// Looks at every checksum of a store, and mends what is damaged. Nobody may have it open.
    ///
    /// What has a copy is made anew of that, and it is the same store as before. If anything else is
    /// damaged, a new store is made of all that is sound ([`salvage`](Self::salvage)), with as many
    /// shards, in `NAME.repairing` beside it, and takes its place in one step when all of it is
    /// durable. Up to then the damaged files are not touched, and then they are kept in
    /// `NAME.damaged-1`. What an attempt that was killed left is removed. `told` hears how many bytes
    /// were looked at, and then how many shards were read, and of how many.
    ///
    /// ```
    /// use mainstay_store::{Directory, Durability::Group, LogOptions, LogStore, RawLogStore};
    /// use std::os::unix::fs::FileExt;
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("names");
    /// let one = LogOptions { shards: 1, ..LogOptions::default() };
    /// let store = LogStore::<u64, String>::create(&path, &one)?;
    /// (0..3).try_for_each(|key| store.put(&key, &"a name".into(), Group).map(drop))?;
    /// store.close()?;
    /// let log = path.join("any-0000-0000000000000001.log");
    /// std::fs::OpenOptions::new().write(true).open(log)?.write_all_at(b"?", 4096 + 60)?;
    ///
    /// let repaired = RawLogStore::repair(Directory::lock(&path)?, |_, _| {})?;
    /// assert_eq!((repaired.salvaged.records, repaired.salvaged.damage.len()), (2, 1));
    /// assert!(repaired.kept.unwrap().ends_with("names.damaged-1"));
    /// let store = LogStore::<u64, String>::open(&path, &one)?;
    /// assert_eq!((store.get(&0)?, store.get(&2)?), (None, Some("a name".into())));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`salvage`](Self::salvage); what the disk says. Then the damaged store is where it was.
    pub fn repair(folder: Directory, mut told: impl FnMut(u64, u64)) -> Result<LogRepaired> {
        let path = folder.path();
        // One that was put here, and whose mark could not be removed any more.
        if folder.names().map_err(Error::io("the directory"))?.iter().any(|it| it == UNFINISHED) {
            unmark(&folder)?;
        }
        let beside = clear_beside(&path)?;
        let mut found = match LogSurvey::over(&folder, &mut told) {
            Ok(survey) if survey.damage.iter().all(|damage| damage.has_copy) => {
                let damage = survey.damage;
                let records = survey.records;
                if !damage.is_empty() {
                    mend_copies(&folder)?;
                    Self::open(folder, &LogOptions::default())?.close()?;
                }
                let salvaged = LogSalvaged { records, damage, ..LogSalvaged::default() };
                return Ok(LogRepaired { salvaged, kept: None });
            }
            Ok(survey) => survey.damage,
            // Of what the disk cannot read as much as it can is read.
            Err(Error::Damaged { .. } | Error::Io { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        let options = options_of(&folder)?;
        let kept = free_name(&path)?;
        let other = folder.lock_alike(&beside)?;
        mark(&other)?;
        let (new, mut salvaged) = Self::salvage_marked(&folder, other, &options, &mut told)?;
        // What a salvage does not look at.
        found.drain(..).for_each(|damage| salvaged.add(damage));
        exchange(&path, &beside)?;
        sync_parent(&path)?;
        new.folder.moved(path);
        unmark(&new.folder)?;
        rename(&beside, &kept)?;
        folder.moved(kept.clone());
        Ok(LogRepaired { salvaged, kept: Some(kept) })
    }
}

/// Writes the copies of headers again that are not sound, of which the other one is, and removes hints
/// that are not sound: an opening makes them anew.
fn mend_copies(folder: &Directory) -> Result<()> {
    for LogDamage { file, .. } in LogSurvey::over(folder, |_, _| {})?.damage {
        match parse_name(&file).map(|(_, _, kind)| kind) {
            Some(Kind::Hint) => folder.remove(&file).map_err(Error::io(&*file))?,
            Some(Kind::Log) => mend_copy::<LogHeader>(folder, &file)?,
            Some(Kind::List) => mend_copy::<ListHeader>(folder, &file)?,
            None if file == ANY_FILE => mend_copy::<AnyHeader>(folder, &file)?,
            None => {}
        }
    }
    folder.sync_names().map_err(Error::io("the directory"))
}

fn mend_copy<H: Header>(folder: &Directory, name: &str) -> Result<()> {
    let file = folder.file(name).map_err(Error::io(name))?;
    let (sound, bad) = bad_copies::<H>(&file, name)?;
    for at in bad {
        if let Some(sound) = &sound {
            file.write_at(at, &sealed(sound)).map_err(Error::io(name))?;
        }
    }
    file.sync().map_err(Error::io(name))
}

/// Where the new store is made. What is there of an attempt that was killed is removed if that was
/// before it took its place; if it was later, these are the files of the damaged one, and are kept.
fn clear_beside(path: &Path) -> Result<PathBuf> {
    let beside = named(path, ".repairing");
    if beside.is_dir() {
        drop(Directory::lock(&beside)?);
        let is_new = beside.join(UNFINISHED).is_file();
        let is_empty = fs::read_dir(&beside)
            .map_err(Error::io(beside.display().to_string()))?
            .all(|entry| entry.is_ok_and(|entry| entry.file_name() == crate::folder::LOCK));
        if is_new || is_empty {
            remove_marked(&beside)?;
        } else {
            let kept = free_name(path)?;
            rename(&beside, &kept)?;
        }
    }
    Ok(beside)
}

/// Removes what has a mark, and the mark at the very end.
fn remove_marked(beside: &Path) -> Result<()> {
    let failed = |error| Error::io(beside.display().to_string())(error);
    for entry in fs::read_dir(beside).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name() != UNFINISHED {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    remove(beside)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    hook::step();
    fs::rename(from, to).map_err(Error::io(to.display().to_string()))?;
    sync_parent(to)
}

fn named(path: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// A name for the damaged files that nothing has.
fn free_name(path: &Path) -> Result<PathBuf> {
    for number in 1_u32.. {
        let kept = named(path, &format!(".damaged-{number}"));
        match fs::symlink_metadata(&kept) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(kept),
            Err(error) => return Err(Error::io(kept.display().to_string())(error)),
        }
    }
    Err(Error::Exists)
}

#[cfg(test)]
mod tests;
