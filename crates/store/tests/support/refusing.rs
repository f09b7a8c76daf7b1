//! A folder that refuses one call of all that are made to it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use mainstay_sim::{Disk, DiskFile, Storage};
use mainstay_store::Folder;

/// What a call is refused with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// No room: asked of writes only, which then write nothing.
    NoSpace,
    /// An error of the device: of a write half is done, of a sync nobody knows.
    Device,
}

impl Refusal {
    fn error(self) -> io::Error {
        match self {
            Self::NoSpace => io::ErrorKind::StorageFull.into(),
            Self::Device => io::Error::other("input/output error"),
        }
    }
}

/// Counts calls, and refuses one of them.
#[derive(Clone)]
pub(crate) struct Plan {
    refusal: Refusal,
    pub(crate) calls: Arc<AtomicU64>,
    /// Which call; the first is 1.
    pub(crate) refused: Arc<AtomicU64>,
}

impl Plan {
    pub(crate) fn new(refusal: Refusal) -> Self {
        let (calls, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        Self { refusal, calls, refused }
    }

    fn is_refused(&self) -> bool {
        self.calls.fetch_add(1, SeqCst) + 1 == self.refused.load(SeqCst)
    }

    fn call(&self) -> io::Result<()> {
        if self.is_refused() { Err(self.refusal.error()) } else { Ok(()) }
    }

    fn device_call(&self) -> io::Result<()> {
        if self.refusal == Refusal::Device { self.call() } else { Ok(()) }
    }
}

#[derive(Clone)]
pub(crate) struct Refusing {
    pub(crate) disk: Disk,
    pub(crate) plan: Plan,
}

pub(crate) struct RefusingFile {
    file: DiskFile,
    plan: Plan,
}

impl Folder for Refusing {
    type File = RefusingFile;

    fn file(&self, name: &str) -> io::Result<RefusingFile> {
        self.plan.device_call()?;
        Ok(RefusingFile { file: self.disk.file(name), plan: self.plan.clone() })
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.plan.device_call()?;
        Ok(self.disk.names())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.plan.device_call()?;
        self.disk.remove(name);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.plan.device_call()
    }
}

impl Storage for RefusingFile {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.plan.device_call()?;
        self.file.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.plan.is_refused() {
            if self.plan.refusal == Refusal::Device {
                self.file.write_at(offset, &bytes[..bytes.len() / 2])?;
            }
            return Err(self.plan.refusal.error());
        }
        self.file.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.plan.device_call()?;
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.plan.call()?;
        self.file.set_len(len)
    }

    /// One that fails saves nothing, here.
    fn sync(&self) -> io::Result<()> {
        self.plan.device_call()?;
        self.file.sync()
    }
}
