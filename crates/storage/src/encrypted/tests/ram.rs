//! A folder in memory whose writes can be made to fail half-way.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use crate::{Folder, Storage};

/// Files in memory. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Ram(pub(super) Arc<Mutex<Inner>>);

#[derive(Default)]
pub(super) struct Inner {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// The next write fails after so many bytes.
    pub(super) fails_after: Option<usize>,
}

pub(super) struct RamFile(Ram, String);

impl Ram {
    pub(super) fn with<T>(&self, name: &str, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        act(self.0.lock().unwrap().files.entry(name.to_owned()).or_default())
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        self.with(name, |bytes| bytes.clone())
    }
}

impl Folder for Ram {
    type File = RamFile;

    fn file(&self, name: &str) -> io::Result<RamFile> {
        self.with(name, |_| ());
        Ok(RamFile(self.clone(), name.to_owned()))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().files.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().files.remove(name);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for RamFile {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let from = offset as usize;
        self.0.with(&self.1, |all| {
            let found = all.get(from..from + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            bytes.copy_from_slice(found);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let failed = self.0.0.lock().unwrap().fails_after.take();
        let count = failed.map_or(bytes.len(), |after| after.min(bytes.len()));
        let (from, to) = (offset as usize, offset as usize + count);
        self.0.with(&self.1, |all| {
            if count > 0 {
                all.resize(all.len().max(to), 0);
                all[from..to].copy_from_slice(&bytes[..count]);
            }
        });
        failed.map_or(Ok(()), |_| Err(io::ErrorKind::StorageFull.into()))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.with(&self.1, |all| all.len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.with(&self.1, |all| all.resize(len as usize, 0));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
