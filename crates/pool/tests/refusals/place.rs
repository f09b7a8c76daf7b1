//! A pool to be refused, and what every refusal has to be like.

use mainstay_base::crc32c;
use mainstay_pool::{Error, Kind, Pool, PoolOptions, PoolView};
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

pub(crate) const BLOCK_SIZE: usize = 100;

pub(crate) const VERSION: usize = 8;
pub(crate) const FLAGS: usize = 12;
pub(crate) const EXTENT_SIZE: usize = 56;
pub(crate) const EXTENTS_OFFSET: usize = 64;
pub(crate) const CHECKSUM: usize = 508;
pub(crate) const LIVE: usize = 1_024;

pub(crate) fn options() -> PoolOptions {
    PoolOptions::new("refused", BLOCK_SIZE).growth_step(8).max_blocks(80)
}

/// A folder with one pool of two extents and nine parked blocks in it, closed in an orderly way.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) bytes: Vec<u8>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("refused.pool");
        let pool = options().create(&path).unwrap();
        let blocks: Vec<_> = (0..9).map(|_| pool.allocate(Kind::Recoverable).unwrap()).collect();
        for block in &blocks {
            block.write(0, b"must stay").unwrap();
        }
        drop(blocks);
        pool.close().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(number(&bytes, LIVE, 8), 2, "two extents");
        Self { dir, bytes }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("refused.pool")
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(), bytes).unwrap();
        self.path()
    }

    /// The bytes with one number changed and the checksum made right.
    pub(crate) fn with(&self, at: usize, len: usize, value: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        let sum = crc32c(&bytes[..CHECKSUM]);
        bytes[CHECKSUM..CHECKSUM + 4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

pub(crate) fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Every way to open what is at `path`, each with its error.
pub(crate) fn every_refusal(path: &Path) -> Vec<Error> {
    let mut errors = vec![
        options().join(path).err(),
        options().open(path).err(),
        Pool::join_any(path).err(),
        PoolView::open(path).err(),
    ];
    if let Ok(file) = OpenOptions::new().read(true).write(true).open(path) {
        errors.push(options().join_fd(file.into()).err());
    }
    if let Ok(file) = File::open(path) {
        errors.push(PoolView::open_fd(file.into()).err());
    }
    errors.into_iter().map(|error| error.expect("it is refused")).collect()
}

/// All ways are refused with an error that `fits`, in words that help, and nothing changes.
#[track_caller]
pub(crate) fn refused(path: &Path, fits: impl Fn(&Error) -> bool) {
    let before = (fs::read(path).ok(), state_of(path));
    for error in every_refusal(path) {
        assert!(fits(&error), "{error:?}");
        helpful(&error);
    }
    let after = (fs::read(path).ok(), state_of(path));
    assert!(before == after, "a refusal changes nothing");
}

/// Length, mode, inode, and when it was last written.
pub(crate) fn state_of(path: &Path) -> Option<(u64, u32, u64, i64, i64)> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some((meta.len(), meta.mode(), meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

/// Behind the first colon, semicolon or comma some part of the message begins with what to do.
#[track_caller]
pub(crate) fn helpful(error: &Error) {
    const VERBS: [&str; 14] = [
        "ask for",
        "check",
        "choose",
        "create",
        "free space",
        "join",
        "mount",
        "name",
        "open",
        "pass",
        "remove",
        "restore",
        "run",
        "use",
    ];
    let text = error.to_string();
    let mut parts = text.split([';', ':', ',']).skip(1).map(str::trim_start);
    assert!(parts.any(|part| VERBS.iter().any(|verb| part.starts_with(verb))), "no hint: {text}");
}
