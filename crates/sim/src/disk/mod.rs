//! Disks that keep what was synced, and of the rest whatever they like.
//!
//! D1. Reads see the newest write, as a page cache gives it, until the power is cut.
//! D2. After a power cut, a sector that was synced is as it was at the last sync, or as some later
//! write made it. Which of these is chosen for each sector on its own: unsynced writes are lost,
//! torn between sectors, and reordered.
//! A write that syncs itself saves the sectors it is in, the length, and nothing else.
//! D3. A sync that fails leaves what it was to save in doubt for good: later syncs succeed without
//! saving it, as on Linux (Rebello and others, "Can Applications Recover from fsync Failures?",
//! 2020), unless it is written again.
//! D4. A process that dies without a power cut loses nothing it wrote.
//! D5. Misdirected and shredded sectors happen only where they were asked for: no checksum-free
//! store survives them.
//! D6. Names of files are durable at once. Where `names_lost` was asked for, a name that was made or
//! removed since the last sync of the names may be as it was before, after a power cut, whether or
//! not its file was synced.

mod contents;
mod images;
mod names;

use crate::{Chance, limits::FILE_BYTES_MAX, random::stream, time::nanos_of};
use contents::Contents;
pub use images::CrashImages;
use mainstay_base::Rng;
use mainstay_storage::Storage;
use names::Files;
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What a disk writes as one: a power cut tears between sectors, not inside of one, unless told to.
///
/// ```
/// assert_eq!(mainstay_sim::SECTOR_BYTES, 512);
/// ```
pub const SECTOR_BYTES: usize = 512;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// What goes wrong on a disk, and how long things take there.
///
/// ```
/// use mainstay_sim::DiskFaults;
/// let full = DiskFaults { bytes_max: 1 << 20, ..DiskFaults::NONE };
/// assert_eq!(full.sync_error_ppm, 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFaults {
    /// How many of a million reads fail with EIO.
    pub read_error_ppm: u32,
    /// How many of a million writes fail with EIO, after part of the bytes were written.
    pub write_error_ppm: u32,
    /// How many of a million syncs fail with EIO; see D3 in [`Disk`].
    pub sync_error_ppm: u32,
    /// How many of a million writes fail with ENOSPC though there is room: others fill the disk too.
    pub no_space_ppm: u32,
    /// Bytes that all files together may have; a write that needs more fails with ENOSPC.
    pub bytes_max: u64,
    /// How many of a million unsynced sectors end up in another place of the file at a power cut.
    pub misdirect_ppm: u32,
    /// How many of a million unsynced sectors are torn inside, at 8 bytes, at a power cut.
    pub shred_ppm: u32,
    /// Names that were made or removed since the last
    /// [`sync_names`](mainstay_storage::Folder::sync_names), and since this is set, may be as they
    /// were before, after a power cut; see D6 in [`Disk`].
    pub names_lost: bool,
    /// How long a read or a write takes.
    pub access_time: Duration,
    /// How long a sync takes at most; it takes at least a quarter of that.
    pub sync_time: Duration,
}

impl DiskFaults {
    /// A disk that works at once and never fails. It still keeps only what was synced.
    ///
    /// Example: see [`DiskFaults`].
    pub const NONE: Self = Self {
        read_error_ppm: 0,
        write_error_ppm: 0,
        sync_error_ppm: 0,
        no_space_ppm: 0,
        bytes_max: u64::MAX,
        misdirect_ppm: 0,
        shred_ppm: 0,
        names_lost: false,
        access_time: Duration::ZERO,
        sync_time: Duration::ZERO,
    };
}

/// A simulated disk: a few files that outlive the processes that write them.
///
/// All clones are the same disk. A world gives one to every node; without a world it serves tests
/// of storage code, which can look at every state a power cut could leave:
///
/// ```
/// use mainstay_sim::{Disk, Storage};
/// let disk = Disk::new(7);
/// let file = disk.file("log");
/// file.write_at(0, b"old")?;
/// file.sync()?;
/// file.write_at(0, b"new")?;
/// for after in disk.crash_images(100) {
///     let mut found = [0; 3];
///     after.file("log").read_at(0, &mut found)?;
///     assert!(&found == b"old" || &found == b"new");
/// }
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Disk {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    files: Files,
    faults: DiskFaults,
    rng: Rng,
    /// Counts processes: a file opened by an earlier one is dead.
    process: u64,
    operations: u64,
    /// The process dies at this operation.
    dies_at: Option<u64>,
    dead: bool,
    busy: Duration,
}

impl Disk {
    /// An empty disk; `seed` decides what it loses.
    ///
    /// Example: see [`Disk`].
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(BTreeMap::new(), stream(seed, "disk"))
    }

    fn with(files: BTreeMap<String, Contents>, rng: Rng) -> Self {
        let inner = Inner {
            files: Files::of(files),
            faults: DiskFaults::NONE,
            rng,
            process: 0,
            operations: 0,
            dies_at: None,
            dead: false,
            busy: Duration::ZERO,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Opens a file; one that is not there yet is made, empty.
    ///
    /// Example: see [`Disk`].
    #[must_use]
    pub fn file(&self, name: &str) -> DiskFile {
        let mut inner = self.lock();
        let identity = inner.open(name);
        DiskFile { disk: self.clone(), name: name.into(), identity, process: inner.process }
    }

    /// The names of all files.
    ///
    /// ```
    /// let disk = mainstay_sim::Disk::new(7);
    /// let _ = disk.file("log");
    /// assert_eq!(disk.names(), ["log"]);
    /// ```
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lock().files.named.keys().cloned().collect()
    }

    /// Removes a file, at once and, where no names are lost, durably; whoever has it open can go on using it, as unlink(2) says.
    /// False if there was none.
    ///
    /// ```
    /// let disk = mainstay_sim::Disk::new(7);
    /// let _ = disk.file("log");
    /// assert!(disk.remove("log"));
    /// assert!(!disk.remove("log"));
    /// ```
    pub fn remove(&self, name: &str) -> bool {
        self.lock().remove(name)
    }

    /// Sets what goes wrong from now on.
    ///
    /// ```
    /// use mainstay_sim::{Disk, DiskFaults, Storage};
    /// let disk = Disk::new(7);
    /// disk.set_faults(DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::NONE });
    /// assert!(disk.file("log").sync().is_err());
    /// ```
    pub fn set_faults(&self, faults: DiskFaults) {
        let mut inner = self.lock();
        inner.faults = faults;
        if !faults.names_lost {
            inner.files.sync_names();
        }
    }

    /// What goes wrong at present.
    ///
    /// ```
    /// use mainstay_sim::{Disk, DiskFaults};
    /// assert_eq!(Disk::new(7).faults(), DiskFaults::NONE);
    /// ```
    #[must_use]
    pub fn faults(&self) -> DiskFaults {
        self.lock().faults
    }

    /// Ends the process that uses the disk: files it has open fail from now on. The disk keeps all
    /// that was written, synced or not.
    ///
    /// ```
    /// use mainstay_sim::{Disk, Storage};
    /// let disk = Disk::new(7);
    /// let file = disk.file("log");
    /// file.write_at(0, b"not synced")?;
    /// disk.kill();
    /// assert!(file.len().is_err());
    /// assert_eq!(disk.file("log").len()?, 10);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn kill(&self) {
        let mut inner = self.lock();
        inner.process += 1;
        inner.files.are_closed();
        inner.dead = false;
        inner.dies_at = None;
        inner.busy = Duration::ZERO;
    }

    /// Ends the process, and cuts the power: of what was not synced, some is lost.
    ///
    /// ```
    /// use mainstay_sim::{Disk, Storage};
    /// let disk = Disk::new(7);
    /// disk.file("log").write_at(0, &[1; 512])?;
    /// disk.power_cut();
    /// assert!([0, 512].contains(&disk.file("log").len()?));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn power_cut(&self) {
        self.kill();
        let inner = &mut *self.lock();
        let left = inner.files.in_doubt().after_power_cut(&inner.faults, &mut inner.rng);
        inner.files = Files::of(left);
    }

    /// The disks that a power cut at this moment could leave: all of them if there are at most
    /// `max`, else `max` that are drawn from them. The disk itself goes on.
    ///
    /// Example: see [`Disk`].
    #[must_use]
    pub fn crash_images(&self, max: usize) -> CrashImages {
        let mut inner = self.lock();
        let rng = Rng::seeded(inner.rng.next_u64());
        CrashImages::new(inner.files.in_doubt(), inner.faults, rng, max)
    }

    /// Lets the process die in the middle: `operations` more calls on files succeed or fail as
    /// ever, all after that fail.
    ///
    /// ```
    /// use mainstay_sim::{Disk, Storage};
    /// let disk = Disk::new(7);
    /// disk.die_after(1);
    /// let file = disk.file("log");
    /// assert!(file.write_at(0, b"1").is_ok());
    /// assert!(file.write_at(0, b"2").is_err());
    /// assert!(disk.is_dead());
    /// ```
    pub fn die_after(&self, operations: u64) {
        let mut inner = self.lock();
        inner.dies_at = Some(inner.operations + operations);
    }

    /// Has the process died, as [`Disk::die_after`] says?
    ///
    /// Example: see [`Disk::die_after`].
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// How many calls were made on files so far.
    ///
    /// ```
    /// use mainstay_sim::{Disk, Storage};
    /// let disk = Disk::new(7);
    /// disk.file("log").sync()?;
    /// assert_eq!(disk.operations(), 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// The process that was to die does not.
    pub(crate) fn spare(&self) {
        self.lock().dies_at = None;
    }

    /// How long the disk was busy since this was last asked, and whether its process has died.
    pub(crate) fn look(&self) -> (Duration, bool) {
        // Nobody but the world has it: nothing can have happened.
        if Arc::strong_count(&self.inner) == 1 {
            return (Duration::ZERO, false);
        }
        let mut inner = self.lock();
        (std::mem::take(&mut inner.busy), inner.dead)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file on a simulated disk, as one process has it open.
///
/// Example: see [`Storage`].
#[derive(Clone)]
pub struct DiskFile {
    disk: Disk,
    name: Box<str>,
    identity: Arc<()>,
    process: u64,
}

/// What a call finds when it may go on.
struct Access<'a> {
    contents: &'a mut Contents,
    faults: DiskFaults,
    rng: &'a mut Rng,
    number: u64,
    others_bytes: u64,
    busy: &'a mut Duration,
}

impl DiskFile {
    fn access<T>(&self, act: impl FnOnce(Access<'_>) -> io::Result<T>) -> io::Result<T> {
        let inner = &mut *self.disk.lock();
        if inner.process != self.process {
            return Err(io::Error::other("the process that opened the file is dead"));
        }
        inner.operate()?;
        inner.busy += inner.faults.access_time;
        let all = inner.files.bytes();
        let Some(contents) = inner.files.find(&self.name, &self.identity) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such file any more"));
        };
        let others_bytes = all - contents.len();
        act(Access {
            contents,
            faults: inner.faults,
            rng: &mut inner.rng,
            number: inner.operations,
            others_bytes,
            busy: &mut inner.busy,
        })
    }
}

impl Access<'_> {
    fn errno(&self, number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    /// Room for the file to have `len` bytes?
    fn check_room(&self, len: u64) -> io::Result<()> {
        let grows = len > self.contents.len();
        let is_full = self.others_bytes.saturating_add(len) > self.faults.bytes_max;
        if grows && (is_full || len > FILE_BYTES_MAX) { Err(self.errno(ENOSPC)) } else { Ok(()) }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).ok_or_else(|| self.errno(ENOSPC))?;
        let failed = if self.rng.chance(self.faults.write_error_ppm) {
            Err(self.errno(EIO))
        } else if self.rng.chance(self.faults.no_space_ppm) {
            Err(self.errno(ENOSPC))
        } else {
            self.check_room(end)
        };
        let Err(error) = failed else {
            self.contents.write(self.number, offset, bytes);
            return Ok(());
        };
        // Part of it may have got through: whole sectors, from the front. Of one that lacks room, not
        // all: the call would have succeeded.
        let written = bytes.len().min(self.rng.below(bytes.len() as u64 + 1) as usize);
        let mut written = written - written % SECTOR_BYTES;
        if written == bytes.len() && error.raw_os_error() == Some(ENOSPC) {
            written = written.saturating_sub(SECTOR_BYTES);
        }
        if written > 0 && self.check_room(offset + written as u64).is_ok() {
            self.contents.write(self.number, offset, &bytes[..written]);
        }
        Err(error)
    }

    /// Of the bytes from `start` to `end`.
    fn sync(&mut self, start: u64, end: u64) -> io::Result<()> {
        let most = nanos_of(self.faults.sync_time);
        *self.busy += Duration::from_nanos(self.rng.between(most / 4, most));
        if self.rng.chance(self.faults.sync_error_ppm) {
            self.contents.fail_sync(start, end);
            return Err(self.errno(EIO));
        }
        self.contents.sync(start, end);
        Ok(())
    }
}

impl Storage for DiskFile {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.access(|access| {
            if access.rng.chance(access.faults.read_error_ppm) {
                return Err(access.errno(EIO));
            }
            access.contents.read(offset, bytes)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.access(|mut access| access.write(offset, bytes))
    }

    fn len(&self) -> io::Result<u64> {
        self.access(|access| Ok(access.contents.len()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.access(|access| {
            access.check_room(len)?;
            access.contents.set_len(access.number, len);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.access(|mut access| access.sync(0, u64::MAX))
    }

    fn write_synced_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.access(|mut access| {
            access.write(offset, bytes)?;
            access.sync(offset, offset + bytes.len() as u64)
        })
    }
}

#[cfg(test)]
mod tests;
