//! Memory for records: words of a file that keeps them when the process dies, or private ones.
//!
//! Whatever is in it may have been written by anybody: offsets are checked here at each use, and
//! what the words say by whoever reads them.

use std::{fs::File, io, os::fd::AsFd, sync::atomic::Ordering::Relaxed};

use mainstay_shm::{Access, Atomic64, Backing, Mapping, Shared64, hook, line::LINE_WORDS};

use crate::error::{Error, Result};

/// A file that reaches to the end of one can have it.
const HUGE_PAGE: u64 = 2 << 20;

/// Mapped once, over a file that grows into it.
pub(crate) struct Memory {
    mapping: Mapping,
    backing: Backing,
    /// Nobody else has it, and all of it is there from the beginning.
    is_private: bool,
}

fn refused(what: &'static str) -> impl FnOnce(mainstay_shm::Error) -> Error {
    move |error| {
        let is_full = matches!(error, mainstay_shm::Error::NoSpace { .. });
        let kind = if is_full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        Error::io(what)(io::Error::new(kind, error))
    }
}

impl Memory {
    /// Zeros of this process alone. Pages are taken when they are first touched.
    pub(crate) fn private(bytes: u64) -> Result<Self> {
        let what = "private memory for records";
        let backing = Backing::memfd("mainstay store").map_err(refused(what))?;
        let file = File::from(backing.as_fd().try_clone_to_owned().map_err(Error::io(what))?);
        file.set_len(bytes).map_err(Error::io(what))?;
        Self::mapped(backing, bytes, Access::ReadWrite, true).map_err(refused(what))
    }

    /// What a file covers of `bytes`, from its beginning on.
    pub(crate) fn over(file: File, bytes: u64, access: Access) -> Result<Self> {
        Backing::from_fd(file.into(), access)
            .and_then(|backing| Self::mapped(backing, bytes, access, false))
            .map_err(refused("a file with the memory of a shard"))
    }

    fn mapped(
        backing: Backing,
        bytes: u64,
        access: Access,
        is_private: bool,
    ) -> mainstay_shm::Result<Self> {
        let mapping = Mapping::new(&backing, bytes, access)?;
        mapping.prefer_huge_pages();
        mapping.refresh(&backing)?;
        Ok(Self { mapping, backing, is_private })
    }

    /// The same, divided into rows of so many words from a byte on.
    pub(crate) fn in_rows(self, first: usize, words: usize) -> Result<Self> {
        let Self { mapping, backing, is_private } = self;
        let mapping = mapping.in_rows(first, words).map_err(refused("the slots of a shard"))?;
        Ok(Self { mapping, backing, is_private })
    }

    /// Bytes there are.
    pub(crate) fn covered(&self) -> Result<u64> {
        let covered = self.mapping.refresh(&self.backing);
        Ok(covered.map_err(refused("the length of a file"))? as u64)
    }

    /// Makes sure that there are `bytes`; what is new is zero. False if they are more than what was
    /// mapped.
    pub(crate) fn grow(&self, bytes: u64) -> Result<bool> {
        if bytes > self.mapping.reserved() as u64 {
            return Ok(false);
        }
        let covered = self.covered()?;
        if covered < bytes {
            let whole = if bytes < HUGE_PAGE { bytes } else { bytes.next_multiple_of(HUGE_PAGE) };
            self.allocate(covered, whole.min(self.mapping.reserved() as u64) - covered)?;
        }
        Ok(true)
    }

    fn allocate(&self, at: u64, len: u64) -> Result<()> {
        if !self.is_private {
            self.backing.allocate(at, len).map_err(refused("room for records"))?;
            self.covered()?;
        }
        Ok(())
    }

    /// Makes sure that there are `len` bytes at `at`, and that they are zeros; nothing has to be
    /// there before them. False if they are beyond what was mapped.
    pub(crate) fn make(&self, at: usize, len: usize) -> Result<bool> {
        if at.saturating_add(len) > self.mapping.reserved() {
            return Ok(false);
        }
        let is_zero = self.backing.release(at as u64, len as u64).is_ok();
        self.allocate(at as u64, len as u64)?;
        if !is_zero {
            // A file system without holes.
            let words = self.words(at, len / size_of::<u64>()).unwrap_or_default();
            words.iter().for_each(|word| word.store(0, Relaxed));
        }
        Ok(true)
    }

    /// Gives bytes back that nobody needs any more; then they are zeros. Where that cannot be done
    /// they only take room.
    pub(crate) fn release(&self, at: usize, len: usize) {
        // To make a hole where there is one already takes a file system's locks all the same.
        if self.backing.is_hole(at as u64, len as u64) {
            return;
        }
        if let Err(error) = self.backing.release(at as u64, len as u64) {
            tracing::debug!(%error, "the memory of an old index stays");
        }
    }

    /// Has the bytes from `at` on ready before they are written.
    pub(crate) fn make_ready(&self, at: usize, len: usize) {
        self.mapping.make_ready(at, len);
    }

    /// `count` words from byte `at` on, if they are there.
    #[inline(always)]
    pub(crate) fn words(&self, at: usize, count: usize) -> Option<&[Shared64]> {
        self.mapping.get(at, count)
    }

    /// So many words of a row, if it is there and has them.
    #[inline(always)]
    pub(crate) fn row(&self, number: usize, count: usize) -> Option<&[Shared64]> {
        self.mapping.row(number, count)
    }

    /// A line, by its number, if it is there.
    #[inline(always)]
    pub(crate) fn line(&self, number: usize) -> Option<&[Shared64; LINE_WORDS]> {
        self.mapping.line(number)
    }

    /// Copies bytes out; they may be a mix if somebody writes. False if they are not there.
    #[inline]
    pub(crate) fn read(&self, at: usize, bytes: &mut [u8]) -> bool {
        self.mapping.read(at, bytes).is_ok()
    }

    /// Copies bytes in. False if there is no room for them.
    #[inline]
    #[track_caller]
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) -> bool {
        hook::step();
        self.mapping.write(at, bytes).is_ok()
    }
}
