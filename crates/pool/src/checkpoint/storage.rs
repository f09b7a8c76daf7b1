//! What a checkpoint file is written to: five operations, so that a model of a disk that fails can
//! stand in for the file.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, FileTypeExt},
};

/// Bytes that are durable after a [`Storage::sync`], and until then may be there, or not, or in
/// part.
pub(crate) trait Storage {
    /// Fills `target` from `offset` on; what was never written is zero.
    fn read_at(&self, offset: u64, target: &mut [u8]) -> io::Result<()>;
    /// Writes `source` to `offset`.
    fn write_at(&mut self, offset: u64, source: &[u8]) -> io::Result<()>;
    /// Makes sure that there is room for these bytes, which change nothing.
    fn allocate(&mut self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes all that was written durable. After an error nothing is known about any of it.
    fn sync(&mut self) -> io::Result<()>;
}

impl Storage for File {
    fn read_at(&self, offset: u64, mut target: &mut [u8]) -> io::Result<()> {
        let mut at = offset;
        while !target.is_empty() {
            match FileExt::read_at(self, target, at) {
                Ok(0) => {
                    target.fill(0);
                    return Ok(());
                }
                Ok(read) => {
                    target = &mut target[read..];
                    at += read as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, source: &[u8]) -> io::Result<()> {
        self.write_all_at(source, offset)
    }

    fn allocate(&mut self, offset: u64, len: u64) -> io::Result<()> {
        if self.metadata()?.file_type().is_block_device() || len == 0 {
            return Ok(());
        }
        Ok(rustix::fs::fallocate(&*self, rustix::fs::FallocateFlags::KEEP_SIZE, offset, len)?)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
