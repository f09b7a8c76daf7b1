//! Memory for records: words of a file that keeps them when the process dies, or private ones.
//!
//! Whatever is in it may have been written by anybody: offsets are checked here at each use, and
//! what the words say by whoever reads them.

use std::{fs::File, io, os::fd::AsFd};

use mainstay_shm::{Access, Backing, Mapping, Shared64, hook};

use crate::error::{Error, Result};

/// A file that reaches to the end of one can have it.
const HUGE_PAGE: u64 = 2 << 20;

/// Mapped once, over a file that grows into it.
pub(crate) struct Memory {
    mapping: Mapping,
    /// None for private memory, all of which is there from the beginning.
    backing: Option<Backing>,
}

fn refused(what: &'static str) -> impl FnOnce(mainstay_shm::Error) -> Error {
    move |error| Error::io(what)(io::Error::other(error))
}

impl Memory {
    /// Zeros of this process alone. Pages are taken when they are first touched.
    pub(crate) fn private(bytes: u64) -> Result<Self> {
        let what = "private memory for records";
        let backing = Backing::memfd("mainstay store").map_err(refused(what))?;
        let file = File::from(backing.as_fd().try_clone_to_owned().map_err(Error::io(what))?);
        file.set_len(bytes).map_err(Error::io(what))?;
        let mapping = Mapping::new(&backing, bytes, Access::ReadWrite).map_err(refused(what))?;
        mapping.prefer_huge_pages();
        mapping.refresh(&backing).map_err(refused(what))?;
        Ok(Self { mapping, backing: None })
    }

    /// What a file covers of `bytes`, from its beginning on.
    pub(crate) fn over(file: File, bytes: u64, access: Access) -> Result<Self> {
        let what = "a file with the memory of a shard";
        let backing = Backing::from_fd(file.into(), access).map_err(refused(what))?;
        let mapping = Mapping::new(&backing, bytes, access).map_err(refused(what))?;
        mapping.prefer_huge_pages();
        mapping.refresh(&backing).map_err(refused(what))?;
        Ok(Self { mapping, backing: Some(backing) })
    }

    /// Bytes there are.
    pub(crate) fn covered(&self) -> Result<u64> {
        let Some(backing) = &self.backing else { return Ok(self.mapping.reserved() as u64) };
        let covered = self.mapping.refresh(backing).map_err(refused("the length of a file"))?;
        Ok(covered as u64)
    }

    /// Makes sure that there are `bytes`; what is new is zero. False if they are more than what was
    /// mapped.
    pub(crate) fn grow(&self, bytes: u64) -> Result<bool> {
        if bytes > self.mapping.reserved() as u64 {
            return Ok(false);
        }
        let covered = self.covered()?;
        if let Some(backing) = &self.backing
            && covered < bytes
        {
            let what = "room for records";
            let whole = if bytes < HUGE_PAGE { bytes } else { bytes.next_multiple_of(HUGE_PAGE) };
            let bytes = whole.min(self.mapping.reserved() as u64);
            backing.allocate(covered, bytes - covered).map_err(refused(what))?;
            self.covered()?;
        }
        Ok(true)
    }

    /// `count` words from byte `at` on, if they are there.
    #[inline]
    pub(crate) fn words(&self, at: usize, count: usize) -> Option<&[Shared64]> {
        self.mapping.view(at, count).ok()
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
