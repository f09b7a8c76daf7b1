//! A directory whose calls are counted: at one of them the process dies, a write half done.
//!
//! Here the faults are planted as well. They are those of a store that tells of writes which the
//! operating system does not have, or removes what it still needs: the suite has to see that,
//! whatever the engine is.

use crate::child;
use mainstay_shm::hook;
use mainstay_sim::Storage;
use mainstay_store::{Directory, DirectoryFile, Folder};
use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// Calls until the process dies, this one included; 0: it does not.
#[derive(Clone)]
pub(crate) struct Countdown(Arc<AtomicU64>);

impl Countdown {
    pub(crate) fn from(calls: u64) -> Self {
        Self(Arc::new(AtomicU64::new(calls)))
    }

    fn is_over(&self) -> bool {
        let count = |left: u64| (left > 0).then(|| left - 1);
        self.0.fetch_update(SeqCst, SeqCst, count) == Ok(1)
    }

    fn call(&self) {
        if self.is_over() {
            child::kill_myself();
        }
    }
}

pub(crate) struct Counted {
    directory: Directory,
    countdown: Countdown,
    /// Has it files that can be mapped? Without them each write is in the log when it returns.
    is_mapped: bool,
}

impl Counted {
    pub(crate) fn new(directory: Directory, countdown: Countdown, is_mapped: bool) -> Self {
        Self { directory, countdown, is_mapped }
    }
}

impl Folder for Counted {
    type File = CountedFile;

    fn file(&self, name: &str) -> io::Result<CountedFile> {
        self.countdown.call();
        let is_list = name.ends_with(".image") || name.ends_with(".list");
        if hook::planted("log-cut-early") && is_list {
            let is_of_shard =
                |other: &&String| other[..10] == name[..10] && other.ends_with(".log");
            let names = self.directory.names()?;
            let mut logs: Vec<_> =
                names.iter().filter(|name| name.len() > 10).filter(is_of_shard).collect();
            logs.sort_unstable();
            if let [first, _, ..] = logs[..] {
                self.directory.remove(first)?;
            }
        }
        let file = self.directory.file(name)?;
        Ok(CountedFile { file, countdown: self.countdown.clone(), held: Mutex::new(None) })
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.directory.names()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.countdown.call();
        self.directory.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.countdown.call();
        self.directory.sync_names()
    }

    fn mapped(&self, name: &str) -> io::Result<Option<File>> {
        if !self.is_mapped {
            return Ok(None);
        }
        self.countdown.call();
        self.directory.mapped(name)
    }

    fn boot(&self) -> io::Result<[u8; 16]> {
        self.directory.boot()
    }
}

pub(crate) struct CountedFile {
    file: DirectoryFile,
    countdown: Countdown,
    /// What a planted fault has not written yet.
    held: Mutex<Option<(u64, Vec<u8>)>>,
}

impl CountedFile {
    /// Holds the end of a write back until the next one.
    fn hold(&self, offset: u64, bytes: &[u8], from: usize) -> io::Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((offset, bytes)) = held.take() {
            self.file.write_at(offset, &bytes)?;
        }
        self.file.write_at(offset, &bytes[..from])?;
        *held = Some((offset + from as u64, bytes[from..].to_vec()));
        Ok(())
    }
}

impl Storage for CountedFile {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.countdown.is_over() {
            // Whether all, half or nothing of it is there is not for the dead to say.
            self.file.write_at(offset, &bytes[..bytes.len() / 2])?;
            child::kill_myself();
        }
        // Segments are made in writes of a page or more.
        let is_frame = bytes.len() < 4_096 && offset >= 4_096;
        if is_frame && hook::planted("write-held-back") {
            return self.hold(offset, bytes, 0);
        }
        if is_frame && hook::planted("half-written") {
            return self.hold(offset, bytes, bytes.len() / 2);
        }
        self.file.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.countdown.call();
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.countdown.call();
        self.file.sync()
    }
}
