//! Looking at a pool from outside: mapped read-only, without a process slot.

use crate::{
    BlockInfo, ChecksumReport, Error, Holder, Info, Result, VerifyReport, extents::Extents,
    options::Joining,
};
use mainstay_base::Name;
use mainstay_shm::{Access, Backing, Mapping, fork::Epoch};
use std::{
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, SystemTime},
};
use uuid::Uuid;

/// A read-only look at a pool: needs only the right to read the file, takes no slot, and cannot
/// disturb anybody, also not by a wild store.
///
/// ```
/// use mainstay_pool::{Kind, PoolOptions, PoolView};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("calls.pool");
/// let pool = PoolOptions::new("calls", 64).create(&path)?;
/// let block = pool.allocate(Kind::Recoverable)?;
/// block.write(0, b"ringing")?;
///
/// let view = PoolView::open(&path)?;
/// let (info, data) = view.copy_block(block.number())?.expect("it is held");
/// assert_eq!(info.id, block.id());
/// assert_eq!(&data[..7], b"ringing");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PoolView {
    extents: Extents,
    name: Name,
    uuid: Uuid,
    created: u64,
    /// Of the process that opened it; a child made by fork has another.
    epoch: Epoch,
}

impl PoolView {
    /// Opens the pool in a file.
    ///
    /// Example: see [`PoolView`].
    ///
    /// # Errors
    /// As [`crate::PoolOptions::join`], but for mismatches: it shows what is there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::of(Backing::open(path.as_ref(), Access::ReadOnly)?)
    }

    /// Opens the pool behind a descriptor.
    ///
    /// Example: see [`PoolView::name`].
    ///
    /// # Errors
    /// As [`PoolView::open`].
    pub fn open_fd(fd: OwnedFd) -> Result<Self> {
        Self::of(Backing::from_fd(fd, Access::ReadOnly)?)
    }

    fn of(backing: Backing) -> Result<Self> {
        let Joining { backing, name, uuid, created, geometry } = Joining::of(backing)?;
        let mapping = Mapping::new(&backing, geometry.reservation(), Access::ReadOnly)?;
        let extents = Extents::new(mapping, backing, geometry, name.as_str())?;
        Ok(Self { extents, name, uuid, created, epoch: Epoch::now() })
    }

    /// Refuses a child made by fork, where nothing is mapped.
    fn check_fork(&self) -> Result<()> {
        if self.epoch.is_current() {
            return Ok(());
        }
        Err(Error::Forked { pool: format!("pool {}", self.name) })
    }

    /// The pool's name.
    ///
    /// ```
    /// use mainstay_pool::{PoolOptions, PoolView};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let view = PoolView::open_fd(pool.as_fd().try_clone_to_owned()?)?;
    /// assert_eq!((view.name(), view.block_size(), view.uuid()), ("calls", 64, pool.uuid()));
    /// assert!(view.created() <= std::time::SystemTime::now());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The pool's UUID.
    ///
    /// Example: see [`PoolView::name`].
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Bytes of data in a block.
    ///
    /// Example: see [`PoolView::name`].
    #[must_use]
    pub fn block_size(&self) -> usize {
        self.extents.geometry.block_size as usize
    }

    /// When the pool was created.
    ///
    /// Example: see [`PoolView::name`].
    #[must_use]
    pub fn created(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.created)
    }

    /// As [`crate::Pool::info`].
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions, PoolView};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let view = PoolView::open_fd(pool.as_fd().try_clone_to_owned()?)?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// assert_eq!(view.info()?.counts.held, 1);
    /// assert!(view.blocks()?.any(|seen| seen.id == block.id()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn info(&self) -> Result<Info> {
        self.check_fork()?;
        self.extents.info(self.name(), self.uuid)
    }

    /// As [`crate::Pool::blocks`].
    ///
    /// Example: see [`PoolView::info`].
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn blocks(&self) -> Result<impl Iterator<Item = BlockInfo>> {
        self.check_fork()?;
        Ok(self.extents.numbers()?.map(|number| self.extents.block_info(number)))
    }

    /// As [`crate::Pool::copy_block`].
    ///
    /// Example: see [`PoolView`].
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn copy_block(&self, number: u32) -> Result<Option<(BlockInfo, Vec<u8>)>> {
        self.check_fork()?;
        self.extents.copy_block(number)
    }

    /// As [`crate::Pool::holders`].
    ///
    /// Example: see [`PoolView::verify`].
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn holders(&self) -> Result<Vec<Holder>> {
        self.check_fork()?;
        self.extents.holders()
    }

    /// As [`crate::Pool::verify_checksums`].
    ///
    /// Example: see [`crate::Pool::verify_checksums`].
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn verify_checksums(&self) -> Result<ChecksumReport> {
        self.check_fork()?;
        self.extents.verify_checksums()
    }

    /// As [`crate::Pool::verify`].
    ///
    /// ```
    /// use mainstay_pool::{PoolOptions, PoolView};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let view = PoolView::open_fd(pool.as_fd().try_clone_to_owned()?)?;
    /// assert!(view.verify()?.is_sound());
    /// assert_eq!(view.holders()?[0].pid, std::process::id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.check_fork()?;
        self.extents.verify()
    }

    /// Sleeps until the pool has grown, or a process has come, gone or been reaped since `seen`
    /// was returned (0 at first), at most `timeout`.
    ///
    /// ```
    /// use mainstay_pool::{PoolOptions, PoolView};
    /// # use std::time::Duration;
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let view = PoolView::open_fd(pool.as_fd().try_clone_to_owned()?)?;
    /// let seen = view.wait(0, Duration::ZERO)?;
    /// assert_eq!(view.wait(seen, Duration::from_millis(1))?, seen, "nothing happened");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn wait(&self, seen: u32, timeout: Duration) -> Result<u32> {
        self.check_fork()?;
        self.extents.wait_notice(seen, timeout)
    }
}
