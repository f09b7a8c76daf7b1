//! A damaged store of a directory is written anew where that costs nothing; otherwise it becomes one
//! with all that is sound of it, and its files are kept beside.

use std::path::PathBuf;

use crate::{
    any::LogDamage,
    error::{Error, Result},
    folder::Directory,
    mark::check_whole,
    options::Options,
    replacing::{clear_marks, made_anew},
    salvage::{Salvaged, options_of},
    store::RawStore,
    survey::Survey,
};

/// What became of a store that was to be repaired.
///
/// Example: see [`RawStore::repair`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// What was saved, and what was not.
    pub salvaged: Salvaged,
    /// Where the damaged files are now; none if nothing was damaged, or all of it had a copy.
    pub kept: Option<PathBuf>,
}

impl RawStore<Directory> {
    /// Looks at every checksum of a store, and mends what is damaged. Nobody may have it open.
    ///
    /// If the store can be opened all the same, its records are written anew, and it is the same store
    /// as before. Otherwise a new store is made of all that is sound ([`salvage`](Self::salvage)), with
    /// as many shards, in `NAME.repairing` beside it, and takes its place in one step when all of it is
    /// durable. Up to then the damaged files are not touched, and then they are kept in
    /// `NAME.damaged-1`. What an attempt that was killed left is removed. `told` hears how many bytes
    /// were looked at, and then how many shards were read, and of how many.
    ///
    /// ```
    /// use mainstay_store::{Directory, Durability::Group, FixedStore, Options, RawStore};
    /// use std::os::unix::fs::FileExt;
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("ages");
    /// let one = Options { shards: 1, ..Options::default() };
    /// let store = FixedStore::<u64, u64>::create(&path, &one)?;
    /// (0..3).try_for_each(|key| store.put(&key, &30, Group).map(drop))?;
    /// store.close()?;
    /// let log = path.join("shard-0000-0000000000000001.log");
    /// std::fs::OpenOptions::new().write(true).open(log)?.write_all_at(b"?", 4096 + 60)?;
    ///
    /// let repaired = RawStore::repair(Directory::lock(&path)?, |_, _| {})?;
    /// assert_eq!((repaired.salvaged.records, repaired.salvaged.damage.len()), (2, 1));
    /// assert!(repaired.kept.unwrap().ends_with("ages.damaged-1"));
    /// let store = FixedStore::<u64, u64>::open(&path, &one)?;
    /// assert_eq!((store.get(&0)?, store.get(&2)?), (None, Some(30)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`salvage`](Self::salvage); [`Error::Unfinished`] if a salvage was to make it and did not come
    /// to its end, as what it is to be made of is elsewhere; what the disk says. Then the damaged store
    /// is where it was.
    pub fn repair(folder: Directory, mut told: impl FnMut(u64, u64)) -> Result<Repaired> {
        check_whole(&folder)?;
        clear_marks(&folder)?;
        let found = match Survey::over(&folder, &mut told) {
            Ok(survey) if survey.can_be_opened() => {
                let (records, damage) = (survey.records, places(&survey).collect::<Vec<_>>());
                if !damage.is_empty() {
                    write_anew(folder)?;
                }
                let salvaged = Salvaged { records, damage, ..Salvaged::default() };
                return Ok(Repaired { salvaged, kept: None });
            }
            Ok(survey) => places(&survey).collect(),
            // Of what the disk cannot read as much as it can is read.
            Err(Error::Damaged { .. } | Error::Misplaced { .. } | Error::Io { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        let options = options_of(&folder)?;
        let (mut salvaged, kept) = made_anew(folder, |old, other| {
            let (new, salvaged) = Self::salvage_marked(old, other, &options, &mut told)?;
            new.close().map(|()| salvaged)
        })?;
        // What a salvage does not look at.
        found.into_iter().for_each(|damage| salvaged.add(damage));
        Ok(Repaired { salvaged, kept: Some(kept) })
    }
}

fn places(survey: &Survey) -> impl Iterator<Item = LogDamage> + '_ {
    survey.files.iter().flat_map(|file| {
        file.damage.iter().map(|damage| LogDamage {
            file: file.name.clone(),
            offset: damage.offset,
            what: damage.what,
            has_copy: damage.has_copy,
        })
    })
}

/// Writes the records of a store that can be opened into new files, and looks whether that was all.
fn write_anew(folder: Directory) -> Result<()> {
    let store = RawStore::open(folder, &Options::default())?;
    store.compact()?;
    store.note_durable()?;
    let after = Survey::over(&store.folder, |_, _| {})?;
    match places(&after).next() {
        Some(LogDamage { file, offset, what, .. }) => Err(Error::Damaged { file, offset, what }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
