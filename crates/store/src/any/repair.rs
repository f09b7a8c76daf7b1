//! A damaged store of a directory becomes one with all that is sound of it, and its files are kept
//! beside.

use std::path::PathBuf;

use mainstay_storage::{Folder, Storage};

use super::{
    format::{ANY_FILE, AnyHeader, Kind, ListHeader, LogHeader, parse_name},
    options::LogOptions,
    raw::RawLogStore,
    salvage::{LogSalvaged, options_of},
    survey::{LogDamage, LogSurvey},
};
use crate::{
    error::{Error, Result},
    folder::Directory,
    format::{Header, bad_copies, sealed},
    mark::check_whole,
    replacing::{clear_marks, made_anew},
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
    /// As [`salvage`](Self::salvage); [`Error::Unfinished`] if a salvage was to make it and did not come
    /// to its end, as what it is to be made of is elsewhere; what the disk says. Then the damaged store is where it was.
    pub fn repair(folder: Directory, mut told: impl FnMut(u64, u64)) -> Result<LogRepaired> {
        check_whole(&folder)?;
        clear_marks(&folder)?;
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
        let (mut salvaged, kept) = made_anew(folder, |old, other| {
            Self::salvage_marked(old, other, &options, &mut told).map(|(_, salvaged)| salvaged)
        })?;
        // What a salvage does not look at.
        found.drain(..).for_each(|damage| salvaged.add(damage));
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

#[cfg(test)]
pub(crate) mod tests;
