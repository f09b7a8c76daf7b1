//! A disk some of whose calls fail, by a closure that is told which.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use mainstay_sim::{Disk, DiskFile, Storage};
use mainstay_storage::Folder;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Write,
    Sync,
}

type Fails = Arc<dyn Fn(Call, &str) -> io::Result<()> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Faulty {
    pub(crate) disk: Disk,
    fails: Arc<Mutex<Fails>>,
}

impl Faulty {
    pub(crate) fn new(seed: u64) -> Self {
        let nothing: Fails = Arc::new(|_, _| Ok(()));
        Self { disk: Disk::new(seed), fails: Arc::new(Mutex::new(nothing)) }
    }

    /// From now on calls for a file of this name end as `fails` says, if that is an error.
    pub(crate) fn fail(
        &self,
        fails: impl Fn(Call, &str) -> io::Result<()> + Send + Sync + 'static,
    ) {
        *self.fails.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(fails);
    }

    fn ask(&self, call: Call, name: &str) -> io::Result<()> {
        // Other calls go on while this one takes its time.
        let fails = Arc::clone(&self.fails.lock().unwrap_or_else(PoisonError::into_inner));
        fails(call, name)
    }
}

impl Folder for Faulty {
    type File = File;

    fn file(&self, name: &str) -> io::Result<File> {
        let file = Folder::file(&self.disk, name)?;
        Ok(File { file, name: name.to_owned(), of: self.clone() })
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Folder::names(&self.disk)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Folder::remove(&self.disk, name)
    }

    fn sync_names(&self) -> io::Result<()> {
        Folder::sync_names(&self.disk)
    }
}

pub(crate) struct File {
    file: DiskFile,
    name: String,
    of: Faulty,
}

impl Storage for File {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.of.ask(Call::Write, &self.name)?;
        self.file.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.of.ask(Call::Sync, &self.name)?;
        self.file.sync()
    }
}
