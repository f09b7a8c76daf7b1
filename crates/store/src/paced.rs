//! A folder whose files are read within a budget, and are never written.

use std::{
    io,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use mainstay_storage::{Folder, Storage};

/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// How fast may be read, in all.
pub(crate) struct Pace {
    bytes_per_second: u64,
    /// When the next piece may be read, and how much was read.
    next: Mutex<(Instant, u64)>,
}

impl Pace {
    /// So many bytes a second; 0: as fast as it goes.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, next: Mutex::new((Instant::now(), 0)) }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Waits until so many bytes may be read. What was not used of the time before is not made up for.
    fn take(&self, bytes: usize) {
        let wait = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            next.1 += bytes as u64;
            if self.bytes_per_second == 0 {
                return;
            }
            let now = Instant::now();
            let begin = next.0.max(now);
            let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
            next.0 = begin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            begin - now
        };
        if !wait.is_zero() {
            thread::sleep(wait);
        }
    }
}

pub(crate) struct Paced<'a, F> {
    pub(crate) inner: F,
    pub(crate) pace: &'a Pace,
}

pub(crate) struct PacedFile<'a, S> {
    inner: S,
    pace: &'a Pace,
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the store was opened for looking only")
}

impl<'a, F: Folder> Folder for Paced<'a, F> {
    type File = PacedFile<'a, F::File>;

    fn file(&self, name: &str) -> io::Result<Self::File> {
        Ok(PacedFile { inner: self.inner.file(name)?, pace: self.pace })
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.inner.names()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(refused())
    }

    fn sync_names(&self) -> io::Result<()> {
        Err(refused())
    }
}

impl<S: Storage> Storage for PacedFile<'_, S> {
    fn read_at(&self, mut offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        for piece in bytes.chunks_mut(PIECE) {
            self.pace.take(piece.len());
            self.inner.read_at(offset, piece)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(refused())
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(refused())
    }

    fn sync(&self) -> io::Result<()> {
        Err(refused())
    }
}
