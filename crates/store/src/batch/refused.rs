//! A batch whose home cannot be synced, while others wait for the logs that it has locked.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use mainstay_sim::{Disk, DiskFile, Storage};
use mainstay_storage::Folder;

use crate::{Change, Error, Result};

/// A disk that does not sync the first shard's log when told so.
#[derive(Clone)]
pub(crate) struct Failing {
    pub(crate) disk: Disk,
    fails: Arc<AtomicBool>,
    has_failed: Arc<AtomicBool>,
}

pub(crate) struct FailingFile {
    file: DiskFile,
    of: Option<Failing>,
}

impl Failing {
    pub(crate) fn new(seed: u64) -> Self {
        Self { disk: Disk::new(seed), fails: Arc::default(), has_failed: Arc::default() }
    }
}

impl Folder for Failing {
    type File = FailingFile;

    fn file(&self, name: &str) -> io::Result<FailingFile> {
        let is_home = name.starts_with("shard-0000-") || name.starts_with("any-0000-");
        Ok(FailingFile { file: Folder::file(&self.disk, name)?, of: is_home.then(|| self.clone()) })
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

impl Storage for FailingFile {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(of) = &self.of
            && of.fails.load(SeqCst)
        {
            of.has_failed.store(true, SeqCst);
            // Who writes to another shard comes as far as that one's lock.
            thread::sleep(Duration::from_millis(20));
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.file.sync()
    }
}

/// Makes a batch of these changes, whose first is of the first shard; it fails, and `put` writes to the
/// second shard while it does. Was that write taken?
pub(crate) fn takes_the_place(
    folder: &Failing,
    batch: impl FnOnce() -> Result<()>,
    put: impl FnOnce() -> Result<()> + Send,
) -> bool {
    folder.fails.store(true, SeqCst);
    thread::scope(|scope| {
        let beside = scope.spawn(|| {
            while !folder.has_failed.load(SeqCst) {
                thread::yield_now();
            }
            put()
        });
        let done = batch();
        // Whatever came of it, nobody waits for it any longer.
        folder.has_failed.store(true, SeqCst);
        assert!(done.is_err(), "the batch is durable on a disk that does not sync");
        match beside.join().expect("a put does not panic") {
            Ok(()) => true,
            Err(Error::Poisoned { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    })
}

/// One change for each shard, whose value is long enough for no other.
pub(crate) fn of_all<'a>(keys: &'a [Vec<Vec<u8>>], value: &'a [u8]) -> Vec<Change<'a>> {
    keys.iter().map(|of| Change::Put(&of[0], value)).collect()
}
