//! A folder whose files are read within a budget, as long as somebody wants it, and are never written.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use mainstay_storage::{Folder, Storage};

/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// How long nobody is asked at most, while it is waited.
const PAUSE: Duration = Duration::from_millis(100);

/// How fast may be read, in all, and for how long.
pub(crate) struct Pace<'a> {
    bytes_per_second: u64,
    /// When the next piece may be read, and how much was read.
    next: Mutex<(Instant, u64)>,
    progress: Mutex<Progress<'a>>,
}

/// Who hears how many of how many bytes are behind, and says whether to go on.
pub(crate) type Told<'a> = &'a mut (dyn FnMut(u64, u64) -> bool + Send);

struct Progress<'a> {
    told: Told<'a>,
    all: u64,
    /// Before the present file, the bytes of that, and how much was read when it was begun.
    behind: u64,
    size: u64,
    begun: u64,
    is_stopped: bool,
}

impl<'a> Pace<'a> {
    /// So many bytes a second; 0: as fast as it goes. `all` are those of all files.
    pub(crate) fn new(bytes_per_second: u64, all: u64, told: Told<'a>) -> Self {
        let (behind, size, begun, is_stopped) = (0, 0, 0, false);
        let progress = Progress { told, all, behind, size, begun, is_stopped };
        let next = Mutex::new((Instant::now(), 0));
        Self { bytes_per_second, next, progress: Mutex::new(progress) }
    }

    fn progress(&self) -> MutexGuard<'_, Progress<'a>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file of so many bytes is next. Is it wanted?
    pub(crate) fn begin(&self, behind: u64, size: u64) -> bool {
        let begun = self.bytes();
        {
            let mut progress = self.progress();
            (progress.behind, progress.size, progress.begun) = (behind, size, begun);
        }
        self.go_on().is_ok()
    }

    /// Did somebody want no more?
    pub(crate) fn is_stopped(&self) -> bool {
        self.progress().is_stopped
    }

    fn go_on(&self) -> io::Result<()> {
        let read = self.bytes();
        let progress = &mut *self.progress();
        // Some of it is read more than once.
        let behind = progress.behind + (read - progress.begun).min(progress.size);
        progress.is_stopped = progress.is_stopped || !(progress.told)(behind, progress.all);
        if progress.is_stopped {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "nobody wants more of it"));
        }
        Ok(())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Waits until so many bytes may be read. What was not used of the time before is not made up for.
    fn take(&self, bytes: usize) -> io::Result<()> {
        self.go_on()?;
        let mut wait = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            next.1 += bytes as u64;
            if self.bytes_per_second == 0 {
                return Ok(());
            }
            let now = Instant::now();
            let begin = next.0.max(now);
            let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
            next.0 = begin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            begin - now
        };
        while !wait.is_zero() {
            let pause = wait.min(PAUSE);
            thread::sleep(pause);
            wait -= pause;
            self.go_on()?;
        }
        Ok(())
    }
}

pub(crate) struct Paced<'a, F> {
    pub(crate) inner: F,
    pub(crate) pace: &'a Pace<'a>,
}

pub(crate) struct PacedFile<'a, S> {
    inner: S,
    pace: &'a Pace<'a>,
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
            self.pace.take(piece.len())?;
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
