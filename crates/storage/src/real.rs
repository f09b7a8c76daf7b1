//! Files of the operating system.

use std::{
    fs::File,
    io::{self, IoSlice},
    os::unix::fs::FileExt,
};

use rustix::{
    fs::{Advice, FallocateFlags, fadvise, fallocate},
    io::{Errno, ReadWriteFlags, retry_on_intr},
};

use crate::{Storage, write_zeros};

impl Storage for File {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    /// One system call (`pwritev2` with `RWF_DSYNC`) instead of two, and it syncs no more than it
    /// writes; where a file system has no such call, two.
    fn write_synced_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut offset, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let slices = [IoSlice::new(rest)];
            match rustix::io::pwritev2(self, &slices, offset, ReadWriteFlags::DSYNC) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    self.write_all_at(rest, offset)?;
                    return self.sync_data();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    /// Where a file system cannot do it otherwise, zeros are written.
    fn allocate(&self, len: u64) -> io::Result<()> {
        match retry_on_intr(|| fallocate(self, FallocateFlags::empty(), 0, len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => write_zeros(self, len),
            done => Ok(done?),
        }
    }

    fn forget(&self) {
        // It is a hint.
        let _refused = fadvise(self, 0, None, Advice::DontNeed);
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synced_write_arrives_whole_at_its_place() {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| at as u8).collect();
        file.write_synced_at(7, &bytes).unwrap();
        let mut found = vec![0; bytes.len()];
        Storage::read_at(&file, 7, &mut found).unwrap();
        assert!(found == bytes && Storage::len(&file).unwrap() == 7 + bytes.len() as u64);
    }

    /// In the process whose files may not be long: where its file is to be.
    const SHORT: &str = "MAINSTAY_SHORT_FILE";

    #[test]
    fn a_write_that_is_cut_short_in_its_middle_is_an_error() {
        let bytes = [7; 100_000];
        if let Some(place) = std::env::var_os(SHORT) {
            for synced in [true, false] {
                let file = File::create(&place).unwrap();
                let write =
                    if synced { File::write_synced_at } else { <File as Storage>::write_at };
                assert!(write(&file, 0, &bytes).is_err(), "synced: {synced}");
                let written = Storage::len(&file).unwrap();
                assert!(0 < written && written < bytes.len() as u64, "{written}");
            }
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        // The kernel writes up to the limit, and says how much that was; the next write fails.
        let limited = r#"trap "" XFSZ; ulimit -f 20; exec "$@""#;
        let test = "real::tests::a_write_that_is_cut_short_in_its_middle_is_an_error";
        let mut child = std::process::Command::new("sh");
        child.args(["-c", limited, "sh"]).arg(std::env::current_exe().unwrap());
        child.args([test, "--exact", "--nocapture"]).env(SHORT, scratch.path().join("file"));
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    }

    #[test]
    fn a_synced_write_that_is_refused_says_so() {
        let (read_end, _write_end) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(read_end));
        assert!(pipe.write_synced_at(0, b"1").is_err());
    }
}
