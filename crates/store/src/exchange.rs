//! Another number of shards for the store of a directory: the new one is made in a directory beside
//! it, and when it is complete and durable the two change their names in one step.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use mainstay_shm::hook;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{
    error::{Error, Result},
    folder::{Directory, GONE},
    options::Options,
    reshard::Resharding,
    store::RawStore,
};

/// A store of a directory that is being given another number of shards; see [`RawStore::reshard`].
///
/// Dropped before [`finish`](Self::finish) it leaves the store as it is.
pub struct DirectoryResharding<'a> {
    from: &'a RawStore<Directory>,
    // None once it is finished.
    inner: Option<Resharding<'a, Directory, Directory>>,
    beside: PathBuf,
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
            remove(&parent.join(name))?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(path.display().to_string())(error))
        }
        _ => Ok(()),
    }
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
    /// As [`reshard_into`](Self::reshard_into), and [`Error::Locked`] if the directory beside it is
    /// in use.
    pub fn reshard(&self, options: &Options) -> Result<DirectoryResharding<'_>> {
        self.check_open()?;
        let beside = beside(&self.folder.path());
        // Only what nobody uses; the lock of a store that was replaced is held as long as it is open.
        remove_gone(&beside)?;
        if beside.is_dir() {
            drop(Directory::lock(&beside)?);
            remove(&beside)?;
        }
        let inner = self.reshard_into(self.folder.lock_alike(&beside)?, options).map(Some)?;
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
        self.inner.as_mut().map_or(Ok(true), |inner| inner.advance(records))
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
        self.inner.as_ref().map_or(0, Resharding::copied)
    }

    /// Copies the rest, gives the new store the name of the old one, and returns it; see
    /// [`Resharding::finish`]. The files of the old one are removed when it is dropped.
    ///
    /// Example: see [`RawStore::reshard`].
    ///
    /// # Errors
    /// What either store or the disk says; then the old one is where it was, and takes writes.
    pub fn finish(mut self) -> Result<RawStore<Directory>> {
        let Some(inner) = self.inner.take() else { return Err(Error::Resharded) };
        let new = inner.finish()?;
        let path = self.from.folder.path();
        if let Err(error) = exchange(&path, &self.beside) {
            self.from.go_on();
            return Err(error);
        }
        // What has its name now is removed by whoever has it open.
        let beside = std::mem::take(&mut self.beside);
        // If that fails nobody knows which name either of them has after a power cut: then neither
        // is removed, and the old one takes no more writes.
        sync_parent(&path)?;
        new.folder.moved(path);
        self.from.folder.moved(beside);
        self.from.folder.remove_in_the_end();
        self.from.retire()?;
        Ok(new)
    }
}

impl Drop for DirectoryResharding<'_> {
    fn drop(&mut self) {
        drop(self.inner.take());
        if self.beside.as_os_str().is_empty() {
            return;
        }
        if let Err(error) = remove(&self.beside) {
            tracing::warn!(%error, "what was begun of another number of shards stays");
        }
    }
}

/// Changes two names in one step.
fn exchange(path: &Path, beside: &Path) -> Result<()> {
    hook::step();
    renameat_with(CWD, path, CWD, beside, RenameFlags::EXCHANGE)
        .map_err(|error| Error::io(path.display().to_string())(error.into()))
}

/// Makes it durable.
fn sync_parent(path: &Path) -> Result<()> {
    hook::step();
    let parent = path.parent().unwrap_or(Path::new("/"));
    let synced = File::open(parent).and_then(|parent| parent.sync_all());
    synced.map_err(Error::io(parent.display().to_string()))
}
