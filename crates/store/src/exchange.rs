//! Another number of shards for the store of a directory: the new one is made in a directory beside
//! it, and when it is complete and durable the two change their names in one step.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use mainstay_shm::hook;
use rustix::fs::{AtFlags, CWD, RenameFlags, StatxAttributes, StatxFlags, renameat_with, statx};

use crate::{
    error::{Error, Result},
    folder::{Directory, GONE},
    making::{check_ours, remove_ours},
    mark::{Maker, UNFINISHED, mark, unmark},
    options::Options,
    reshard::Resharding,
    store::RawStore,
};

/// A store of a directory that is being given another number of shards; see [`RawStore::reshard`].
///
/// Dropped before [`finish`](Self::finish) it leaves the store as it is.
pub struct DirectoryResharding<'a> {
    from: &'a RawStore<Directory>,
    inner: Resharding<'a, Directory, Directory>,
    beside: Beside,
}

/// The directory beside that of a store, in which another one is made. It is removed when this is
/// dropped. It has a mark: what has none is somebody's, and is never removed.
pub(crate) struct Beside(PathBuf);

impl Beside {
    /// Makes one, beside a store of either kind; what an attempt that was killed left there is
    /// removed. The other one is encrypted as this one is.
    pub(crate) fn of(folder: &Directory) -> Result<(Self, Directory)> {
        check_place(&folder.path())?;
        let path = beside(&folder.path());
        // Only what nobody uses; the lock of a store that was replaced is held as long as it is open.
        remove_gone(&path)?;
        if check_ours(&path, UNFINISHED)? {
            drop(Directory::lock(&path)?);
            remove_ours(&path, UNFINISHED)?;
        }
        let other = folder.lock_alike(&path)?;
        let beside = Self(path);
        mark(&other, Maker::Replacing)?;
        Ok((beside, other))
    }

    /// Gives the store in it the name of the old one, whose files are removed when it is dropped.
    /// Where that is refused `go_on` is called: the old one is where it was.
    pub(crate) fn take_place(
        mut self,
        old: &Directory,
        new: &Directory,
        go_on: impl FnOnce(),
    ) -> Result<()> {
        let path = old.path();
        // It is to be removed, whoever is killed meanwhile. In its place the mark means nothing.
        let marked = mark(old, Maker::Replacing).and_then(|()| exchange(&path, &self.0));
        if let Err(error) = marked {
            go_on();
            let _means_nothing = unmark(old);
            return Err(error);
        }
        // What has its name now is removed by whoever has it open.
        let beside = std::mem::take(&mut self.0);
        // If that fails nobody knows which name either of them has after a power cut: then neither
        // is removed, and the old one takes no more writes.
        sync_parent(&path)?;
        new.moved(path);
        old.moved(beside);
        old.remove_in_the_end();
        if let Err(error) = unmark(new) {
            tracing::warn!(%error, "the mark of a store that is in its place stays, and means nothing");
        }
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.0.as_os_str().is_empty() {
            return;
        }
        if let Err(error) = remove_ours(&self.0, UNFINISHED) {
            tracing::warn!(%error, "what was begun of another number of shards stays");
        }
    }
}

/// Where the other store is made.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".resharding");
    path.with_file_name(name)
}

/// Removes what was being removed when somebody was killed.
fn remove_gone(beside: &Path) -> Result<()> {
    let parent = beside.parent().unwrap_or(Path::new("/"));
    let failed = |error| Error::io(parent.display().to_string())(error);
    let mut begins = beside.file_name().unwrap_or_default().to_owned();
    begins.push(GONE);
    for entry in fs::read_dir(parent).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name.as_encoded_bytes().starts_with(begins.as_encoded_bytes()) {
            match remove_ours(&parent.join(name), UNFINISHED) {
                // It is not in the way of anything.
                Err(Error::InTheWay { .. }) => {}
                removed => removed?,
            }
        }
    }
    Ok(())
}

impl RawStore<Directory> {
    /// Begins to give the store another number of shards, and segments of another size, as `options`
    /// say, while it is used; see [`reshard_into`](Self::reshard_into). The new one is made in a
    /// directory beside it, `NAME.resharding`; what one that was killed left there is removed. It
    /// takes as much room on the disk, and as much memory, as the store does.
    ///
    /// ```
    /// use mainstay_store::{Directory, Durability::Memory, Options, RawStore};
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("countries");
    /// let store = RawStore::create(Directory::lock(&path)?, 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Memory)?;
    /// let more = Options { shards: 8, ..Options::default() };
    /// let mut resharding = store.reshard(&more)?;
    /// while !resharding.advance(1_000)? {}
    /// let new = resharding.finish()?;
    /// drop(store);
    /// drop(new);
    /// let store = RawStore::open(Directory::lock(&path)?, &Options::default())?;
    /// assert_eq!((store.identity().shards, store.get(b"de")?), (8, Some(b"049".to_vec())));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`reshard_into`](Self::reshard_into), [`Error::Locked`] if the directory beside it is in use,
    /// and [`Error::MountPoint`].
    pub fn reshard(&self, options: &Options) -> Result<DirectoryResharding<'_>> {
        self.standing.check_open()?;
        let (beside, other) = Beside::of(&self.folder)?;
        let inner = self.reshard_into(other, options)?;
        Ok(DirectoryResharding { from: self, inner, beside })
    }
}

impl RawStore<Directory> {
    /// Tells whoever reads its memory in place that it is no more.
    fn retire(&self) -> Result<()> {
        self.shards.iter().try_for_each(|shard| shard.table().control().map(|it| it.retire()))
    }
}

impl DirectoryResharding<'_> {
    /// Copies some more records; see [`Resharding::advance`].
    ///
    /// Example: see [`RawStore::reshard`].
    ///
    /// # Errors
    /// As there.
    pub fn advance(&mut self, records: u64) -> Result<bool> {
        self.inner.advance(records)
    }

    /// How many records were copied.
    ///
    /// ```
    /// # use mainstay_store::{Directory, Durability::Memory, Options, RawStore};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("countries");
    /// let store = RawStore::create(Directory::lock(&path)?, 2, 3, &Options::default())?;
    /// store.put(b"de", b"049", Memory)?;
    /// let mut resharding = store.reshard(&Options::default())?;
    /// resharding.advance(1)?;
    /// assert_eq!(resharding.copied(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn copied(&self) -> u64 {
        self.inner.copied()
    }

    /// Copies the rest, gives the new store the name of the old one, and returns it; see
    /// [`Resharding::finish`]. The files of the old one are removed when it is dropped.
    ///
    /// Example: see [`RawStore::reshard`].
    ///
    /// # Errors
    /// What either store or the disk says; then the old one is where it was, and takes writes.
    pub fn finish(self) -> Result<RawStore<Directory>> {
        let Self { from, inner, beside } = self;
        let new = inner.finish()?;
        beside.take_place(&from.folder, &new.folder, || from.standing.go_on())?;
        from.retire()?;
        Ok(new)
    }
}

/// Can another directory take the place of this one? Not of one that a file system is mounted on: that
/// is refused at the very end, when all is done.
pub(crate) fn check_place(path: &Path) -> Result<()> {
    let failed = |error: io::Error| Error::io(path.display().to_string())(error);
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS);
    let found = found.map_err(|error| failed(error.into()))?;
    let is_mounted = if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    } else {
        // An older kernel tells it only where the other file system is another one.
        let parent = path.parent().unwrap_or(path);
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).map_err(failed);
        path.parent().is_none() || device(path)? != device(parent)?
    };
    if is_mounted {
        return Err(Error::MountPoint { path: path.display().to_string() });
    }
    Ok(())
}

/// Changes two names in one step.
pub(crate) fn exchange(path: &Path, beside: &Path) -> Result<()> {
    hook::step();
    renameat_with(CWD, path, CWD, beside, RenameFlags::EXCHANGE)
        .map_err(|error| Error::io(path.display().to_string())(error.into()))
}

/// Makes it durable.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    hook::step();
    let parent = path.parent().unwrap_or(Path::new("/"));
    let synced = File::open(parent).and_then(|parent| parent.sync_all());
    synced.map_err(Error::io(parent.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Replacing;

    /// Every machine has one.
    const MOUNTED: &str = "/proc";

    #[test]
    fn the_place_of_a_mount_point_is_refused_before_anything_is_done() {
        let refused = check_place(Path::new(MOUNTED));
        assert!(
            matches!(&refused, Err(Error::MountPoint { path }) if path == MOUNTED),
            "{refused:?}"
        );
        let refused = check_place(Path::new("/"));
        assert!(matches!(refused, Err(Error::MountPoint { .. })), "{refused:?}");
        let place = tempfile::tempdir().unwrap();
        assert!(check_place(place.path()).is_ok());
        let within = place.path().join("within");
        drop(Replacing::begin(Directory::lock(&within).unwrap()).unwrap());
        assert!(check_place(&place.path().join("missing")).is_err());
    }
}
