//! Checkpoints: what of a pool survives a power cut.
//!
//! The kernel writes pages of a mapped file to the disk whenever it likes, so after a power cut a
//! pool's own file is a mix of all times. Beside it stands a checkpoint file: a copy of the pool as
//! of the last *cut*, kept up to date by writing what changed, first to a log, then in place. A
//! pool that finds itself in another boot than the one it was last open in is made anew from that.
//! A plain crash of a process changes nothing: its memory is newer, and is kept.
//!
//! C1 to C4 are argued in `image.rs`. Here:
//!
//! C5. A cut holds each block as of one moment, and all batches whole. The pool is held up while
//!     changed blocks are copied in memory, and not while they are written to the disk.
//! C6. A pool is made anew in a new file, which takes the name when it is complete and durable. Of
//!     several processes that try, one does it.
//! C7. Live blocks come back as orphans, for `recover`; transient ones do not.
//!
//! ```
//! use mainstay_pool::{Kind, Offer, PoolOptions, Uuid};
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("calls.pool");
//! let options = PoolOptions::new("calls", 64);
//! let pool = options.clone().create(&path)?;
//! let call = pool.allocate(Kind::Recoverable)?;
//! call.write(0, b"ringing")?;
//! pool.checkpoint()?;
//! call.write(0, b"talking")?; // after the cut
//! # drop(call);
//! # pool.close()?;
//!
//! // A power cut: the next process finds another boot.
//! let pool = options.boot(Uuid::from_u128(7)).join(&path)?;
//! let call = pool.recover(Offer::Orphans)?.next().expect("it survived").keep()?;
//! assert_eq!(&call.to_vec()?[..7], b"ringing");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod format;
mod image;
mod restore;
mod storage;

#[cfg(test)]
mod disk_model;

pub use restore::{PowerCut, Survey, restore, survey};

pub(crate) use restore::{boot_id, last_boot, restore_beside};

use crate::{Cut, Error, Ground, Kind, Look, Pool, Result, layout::Header};
use format::{EXCLUSIVE, LIVE, Record};
use image::{Body, Fault, Image};
use mainstay_shm::{Atomic64, Backing, hook};
use rustix::fs::{self, FlockOperation, Mode, OFlags};
use std::{
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    sync::atomic::Ordering::{Relaxed, Release},
    time::{Duration, Instant, SystemTime},
};
use uuid::Uuid;

/// Which blocks may differ from the last cut.
///
/// Example: see [`Checkpointer::capture`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Changed<'a> {
    /// Any: each is compared.
    All,
    /// These, and those that were allocated or freed: a tracker has seen no write to any other.
    Blocks(&'a [u32]),
}

/// What a checkpoint has done.
///
/// Example: see [`Pool::checkpoint`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct CheckpointReport {
    /// The number of the cut: 1, and one more each time.
    pub cut: u64,
    /// Blocks that were written, freed ones included.
    pub blocks: u64,
    /// Bytes that were written to the log.
    pub bytes: u64,
    /// For how long batches were kept out, while changes were copied.
    pub held: Duration,
    /// How long it took to write and sync.
    pub wrote: Duration,
    /// Processes that were found to have died inside of a batch.
    pub broken_batches: u32,
}

/// Writes the checkpoints of one pool. There is one at a time, in all processes.
///
/// ```
/// use mainstay_pool::{Kind, PoolOptions};
/// # use std::time::Duration;
/// let dir = tempfile::tempdir()?;
/// let pool = PoolOptions::new("calls", 64).create(dir.path().join("calls.pool"))?;
/// let call = pool.allocate(Kind::Recoverable)?;
/// let mut checkpointer = pool.checkpointer()?;
/// assert!(pool.checkpointer().is_err(), "one at a time");
/// let wait = Duration::from_secs(1);
/// assert_eq!(checkpointer.checkpoint(wait)?.cut, 2, "the first was made at the start");
/// call.write(0, b"ringing")?;
/// let report = checkpointer.checkpoint(wait)?;
/// assert_eq!((report.cut, report.blocks), (3, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Checkpointer {
    pool: Pool,
    path: PathBuf,
    image: Image<File>,
}

/// The changes of one cut, copied and not yet written.
///
/// Example: see [`Checkpointer::capture`].
#[must_use = "it is not written yet"]
pub struct Captured {
    body: Body,
    extents: u64,
    stamp: u64,
    broken: u32,
    began: Instant,
}

impl Captured {
    /// How many blocks it has.
    ///
    /// Example: see [`Checkpointer::capture`].
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.body.entries()
    }
}

impl Pool {
    /// Makes one checkpoint, comparing every block with the last. After a power cut from now on the
    /// pool comes back as it is now, or as of a later checkpoint.
    ///
    /// Who makes many keeps a [`Checkpointer`], and lets a tracker find what changed.
    ///
    /// Example: see the [module](crate::checkpoint).
    ///
    /// # Errors
    /// `Checkpoint`; `BatchOpen` when a batch does not end within ten seconds.
    pub fn checkpoint(&self) -> Result<CheckpointReport> {
        self.checkpointer()?.checkpoint(crate::limits::BATCH_WAIT)
    }

    /// Opens the checkpoint file beside the pool's file: `NAME.checkpoint`. If there is none, makes
    /// one, which holds the pool as it is now when this returns.
    ///
    /// Example: see [`Checkpointer`].
    ///
    /// # Errors
    /// `Checkpoint` when the pool has no file or is of format version 1, when another process has
    /// the checkpoint file open, and when it is damaged; and what the system refuses.
    pub fn checkpointer(&self) -> Result<Checkpointer> {
        let inner = self.inner();
        inner.check()?;
        let refuse = |why: &str| Err(Error::checkpoint(&inner.display(), why));
        let Some(pool) = self.path() else {
            return refuse("the pool has no file; create it in one, or export it");
        };
        if inner.extents.checkpoints()?.is_none() {
            return refuse("the pool is of format version 1; export it, and import it anew");
        }
        let path = path_of(pool);
        match open(&path)? {
            None => Checkpointer::create(self, path),
            Some(file) => Checkpointer::open(self, path, file),
        }
    }
}

/// Where the checkpoints of the pool at `pool` are.
pub(crate) fn path_of(pool: &Path) -> PathBuf {
    let mut path = OsString::from(pool);
    path.push(".checkpoint");
    path.into()
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::options().read(true).write(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::checkpoint(&path.display().to_string(), &format!("open: {e}"))),
    }
}

impl Checkpointer {
    /// Makes a file that holds the pool as it is now, and gives it its name when it is durable.
    fn create(pool: &Pool, path: PathBuf) -> Result<Self> {
        let broken = |what: &str, e: std::io::Error| {
            Error::checkpoint(&path.display().to_string(), &format!("{what}: {e}"))
        };
        let inner = pool.inner();
        let ground = pool.ground()?;
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = fs::open(&new, flags, Mode::from_raw_mode(0o600))
            .map_err(|e| broken("create", e.into()))?;
        let file = File::from(file);
        // Whoever has the lock of the new file makes the checkpoint file.
        lock(&file, &path)?;
        file.set_len(0).map_err(|e| broken("empty", e))?;
        let id = Uuid::from_u64_pair(random(), random()).into_bytes();
        let header = Header::of(&inner.extents.backing)?;
        let geometry = inner.extents.geometry.clone();
        let fault = |fault| fault_at(&path, fault);
        let mut image = Image::create(file, id, header, geometry).map_err(fault)?;
        // Without holding anybody up: what changes meanwhile is in the first cut.
        let mut data = Vec::new();
        for number in 0..ground.extents()? * ground.blocks_per_extent() {
            data.clear();
            let look = ground.copy(number as u32, &mut data).unwrap_or_default();
            if let Some(record) = look.as_ref().and_then(record_of) {
                image.seed(record, &data).map_err(fault)?;
            }
        }
        let mut this = Self { pool: pool.clone(), path, image };
        let captured = {
            let cut = pool.cut(crate::limits::BATCH_WAIT)?;
            this.capture(ground, &cut, Changed::All)?
        };
        this.append(captured)?;
        hook::step();
        let broken = |what: &str, e: std::io::Error| {
            Error::checkpoint(&this.path.display().to_string(), &format!("{what}: {e}"))
        };
        fs::rename(&new, &this.path).map_err(|e| broken("name", e.into()))?;
        sync_folder(&this.path).map_err(|e| broken("sync the folder", e))?;
        this.enable()?;
        Ok(this)
    }

    fn open(pool: &Pool, path: PathBuf, file: File) -> Result<Self> {
        lock(&file, &path)?;
        // It may have been replaced between opening and locking.
        if !is_at(&file, &path) {
            return Err(Error::checkpoint(&path.display().to_string(), IN_USE));
        }
        let inner = pool.inner();
        let fault = |fault| fault_at(&path, fault);
        let mut image = match Image::load(file) {
            Ok(image) => image,
            // The pool is well, so it can be written anew.
            Err(Fault::NoCut) => return Self::create(pool, path),
            Err(e) => return Err(fault(e)),
        };
        if image.header.uuid != *inner.uuid.as_bytes() {
            let why = "it is of another pool; remove it, or name the right pool";
            return Err(Error::checkpoint(&path.display().to_string(), why));
        }
        image.settle().map_err(fault)?;
        let this = Self { pool: pool.clone(), path, image };
        this.enable()?;
        Ok(this)
    }

    /// Says in the pool's file that there are checkpoints, and makes that durable.
    fn enable(&self) -> Result<()> {
        let inner = self.pool.inner();
        let Some(words) = inner.extents.checkpoints()? else { return Ok(()) };
        let pair = |words: &[mainstay_shm::Shared64; 2], (high, low): (u64, u64)| {
            words[0].store(high, Relaxed);
            words[1].store(low, Relaxed);
        };
        let boot = inner.boot.map_or_else(boot_id, Ok)?;
        pair(&words.boot, boot.as_u64_pair());
        pair(&words.file, Uuid::from_bytes(self.image.id()).as_u64_pair());
        words.state.store(1, Release);
        let synced = fs::fsync(&inner.extents.backing).map_err(std::io::Error::from);
        let synced = synced.and_then(|()| self.pool.path().map_or(Ok(()), sync_folder));
        synced
            .map_err(|e| Error::checkpoint(&inner.display(), &format!("sync the pool's file: {e}")))
    }

    /// Makes a checkpoint, comparing every block with the last. Waits at most `wait` for batches.
    ///
    /// Example: see [`Checkpointer`].
    ///
    /// # Errors
    /// `Checkpoint`, `BatchOpen`, `CutOpen`, `InsideBatch`. The last completed cut stays.
    pub fn checkpoint(&mut self, wait: Duration) -> Result<CheckpointReport> {
        let pool = self.pool.clone();
        let captured = {
            let cut = pool.cut(wait)?;
            self.capture(pool.ground()?, &cut, Changed::All)?
        };
        self.write(captured)
    }

    /// Copies what changed since the last cut, while `cut` keeps batches out. Nothing is written.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions, checkpoint::Changed};
    /// # use std::time::Duration;
    /// # let dir = tempfile::tempdir()?;
    /// # let pool = PoolOptions::new("calls", 64).create(dir.path().join("calls.pool"))?;
    /// let call = pool.allocate(Kind::Recoverable)?;
    /// let mut checkpointer = pool.checkpointer()?;
    /// call.write(0, b"ringing")?;
    /// let cut = pool.cut(Duration::from_secs(1))?;
    /// let changed = Changed::Blocks(&[call.number()]);
    /// let captured = checkpointer.capture(pool.ground()?, &cut, changed)?;
    /// drop(cut); // batches go on
    /// assert_eq!(captured.blocks(), 1);
    /// assert_eq!(checkpointer.write(captured)?.blocks, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Corrupt` when the pool says what cannot be; `Checkpoint` when a block changes hands all the
    /// time.
    pub fn capture(
        &mut self,
        ground: Ground<'_>,
        cut: &Cut<'_>,
        changed: Changed<'_>,
    ) -> Result<Captured> {
        let began = Instant::now();
        let extents = ground.extents()?;
        let per_extent = ground.blocks_per_extent();
        let mut marked = vec![0_u64; (extents * per_extent).div_ceil(64) as usize];
        match changed {
            Changed::All => marked.fill(u64::MAX),
            Changed::Blocks(numbers) => numbers.iter().for_each(|number| {
                if let Some(word) = marked.get_mut(*number as usize / 64) {
                    *word |= 1 << (number % 64);
                }
            }),
        }
        let mut body = Body::new();
        let mut lives = Vec::new();
        for extent in 0..extents {
            ground.life_marks(extent, &mut lives);
            for (place, life) in lives.iter().enumerate() {
                let number = (extent * per_extent) as u32 + place as u32;
                let before = self.image.record(number);
                let is_marked = marked[number as usize / 64] & 1 << (number % 64) != 0;
                // A transient block is live, and is no life of a record.
                let same = if before.is_live() { life_of(&before) == *life } else { *life == 0 };
                if is_marked && (*life != 0 || before.is_live()) || !same {
                    self.add(&mut body, ground, number, before)?;
                }
            }
        }
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let stamp = u64::try_from(since_1970.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
        Ok(Captured { body, extents, stamp, broken: cut.broken(), began })
    }

    fn add(&self, body: &mut Body, ground: Ground<'_>, number: u32, before: Record) -> Result<()> {
        body.add(|bytes| {
            let look = match ground.copy(number, bytes) {
                Ok(look) => look,
                Err(Error::NoSuchBlock { why, .. }) => {
                    let why = format!("block {number}: {why}; try again");
                    return Err(Error::checkpoint(&self.path.display().to_string(), &why));
                }
                Err(e) => return Err(e),
            };
            let record = match look.as_ref().and_then(record_of) {
                Some(record) => record,
                // Freed, or transient: what remains is which life it was.
                None if before.is_live() => Record {
                    number,
                    generation: look.map_or(before.generation, |look| look.id.generation),
                    ..Record::default()
                },
                None => return Ok(None),
            };
            let record = record.sealed();
            if record == before {
                return Ok(None);
            }
            let same_data = before.is_live()
                && (before.data_sum, before.data_crc) == (record.data_sum, record.data_crc);
            Ok(Some((record, record.is_live() && !same_data)))
        })
    }

    /// Writes and syncs what was captured: completes the cut. If the disk refuses, the last
    /// completed cut stays, and the next checkpoint makes a new file.
    ///
    /// Example: see [`Checkpointer::capture`].
    ///
    /// # Errors
    /// `Checkpoint`.
    pub fn write(&mut self, captured: Captured) -> Result<CheckpointReport> {
        if self.image.has_failed() {
            // What was captured is in the new file as well.
            let new = Self::create(&self.pool, self.path.clone())?;
            *self = new;
            return Ok(CheckpointReport { cut: self.image.cut, ..CheckpointReport::default() });
        }
        let report = self.append(captured)?;
        if let Some(words) = self.pool.inner().extents.checkpoints()? {
            words.cut.store(self.image.cut, Relaxed);
            words.stamp.store(self.image.stamp, Relaxed);
        }
        Ok(report)
    }

    fn append(&mut self, captured: Captured) -> Result<CheckpointReport> {
        let Captured { body, extents, stamp, broken, began } = captured;
        let held = began.elapsed();
        let start = Instant::now();
        let (blocks, bytes) = (body.entries() as u64, body.len());
        let appended = self.image.append(body, extents, stamp);
        appended.map_err(|fault| fault_at(&self.path, fault))?;
        Ok(CheckpointReport {
            cut: self.image.cut,
            blocks,
            bytes,
            held,
            wrote: start.elapsed(),
            broken_batches: broken,
        })
    }

    /// The checkpoint file.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let pool = mainstay_pool::PoolOptions::new("calls", 64).create(dir.path().join("calls.pool"))?;
    /// let checkpointer = pool.checkpointer()?;
    /// assert!(checkpointer.path().ends_with("calls.pool.checkpoint"));
    /// assert_eq!(checkpointer.last_cut(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the last completed cut.
    ///
    /// Example: see [`Checkpointer::path`].
    #[must_use]
    pub fn last_cut(&self) -> u64 {
        self.image.cut
    }
}

/// What a cut says of a live block; nothing of a transient one.
fn record_of(look: &Look) -> Option<Record> {
    if look.kind == Kind::Transient {
        return None;
    }
    let (high, low) = look.uuid.as_u64_pair();
    Some(Record {
        number: look.id.number,
        flags: LIVE | if look.exclusive { EXCLUSIVE } else { 0 },
        generation: look.id.generation,
        fingerprint: look.fingerprint,
        uuid: [high, low],
        length: look.length,
        data_crc: look.sums.crc32c,
        data_sum: look.sums.crc64,
        version: look.version,
        reserved: 0,
        checksum: 0,
    })
}

/// As `Ground::life_marks` tells it of a live block.
fn life_of(record: &Record) -> u32 {
    (record.generation as u32 & ((1 << 27) - 1)) << 1 | 1
}

const IN_USE: &str = "another checkpointer has it open; there is one at a time";

fn lock(file: &File, path: &Path) -> Result<()> {
    fs::flock(file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Error::checkpoint(&path.display().to_string(), IN_USE))
}

/// Whether the file still has this name.
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |found: std::io::Result<std::fs::Metadata>| found.map(|it| (it.dev(), it.ino())).ok();
    let file = id(file.metadata());
    file.is_some() && file == id(path.metadata())
}

/// Makes the names in the folder of `path` durable.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    hook::step();
    File::open(folder)?.sync_all()
}

fn random() -> u64 {
    getrandom::u64().expect("getrandom(2) works on every Linux that runs this")
}

fn fault_at(path: &Path, fault: Fault) -> Error {
    let file = path.display().to_string();
    let why = match fault {
        Fault::Io(e) => format!("{e}; the last completed cut stays"),
        Fault::NotOne(why) => format!("{why}; restore a copy, or remove it to make a new one"),
        Fault::NoCut => "no cut was ever completed; remove it".into(),
        Fault::Damaged { blocks, count } => {
            let names: Vec<String> = blocks.iter().take(10).map(u32::to_string).collect();
            let names = names.join(", ");
            format!("{count} blocks are damaged (first: {names}); restore a copy of the file")
        }
        Fault::Stale => "the disk kept something old: its digest does not fit its records; \
                         restore a copy of the file"
            .into(),
        Fault::Broken { later } => {
            format!("a cut before number {later} is damaged; restore a copy of the file")
        }
        Fault::TooLarge => "the cut is larger than a log can be".into(),
        Fault::Failed => "a sync has failed before; make a new checkpointer".into(),
    };
    Error::checkpoint(&file, &why)
}

impl Header {
    /// As it stands in the pool's file.
    fn of(backing: &Backing) -> Result<Self> {
        Ok(crate::options::Joining::header(backing)?.0)
    }
}
