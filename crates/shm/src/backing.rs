//! Files and memfds that memory is mapped from.
//!
//! I1. A name only ever appears complete: the file is made nameless, filled, then linked.
//! I2. A description that holds a lease is never this one: [`Backing::reopen`] makes a fresh one
//!     each time and checks that it is the same file. So the kept descriptor may be passed on.

use crate::{Error, Result, hook};
use rustix::fs::{self, AtFlags, FallocateFlags, FileType, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use std::{
    ffi::OsString,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

/// How a backing is opened.
///
/// Example: see [`Backing::open`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Loads only; needs no right to write, takes no lease.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// Which file it is, whatever its name: device and inode.
///
/// Example: see [`Backing::reopen`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileId {
    dev: u64,
    ino: u64,
}

/// A file or memfd.
///
/// ```
/// use mainstay_shm::Backing;
/// let backing = Backing::memfd("example")?;
/// backing.allocate(0, 4096)?;
/// assert_eq!(backing.len()?, 4096);
/// # Ok::<(), mainstay_shm::Error>(())
/// ```
#[derive(Debug)]
pub struct Backing {
    fd: OwnedFd,
    path: Option<PathBuf>,
    id: FileId,
    access: Access,
}

impl Backing {
    /// Opens an existing file.
    ///
    /// ```
    /// use mainstay_shm::{Access, Backing};
    /// let file = tempfile::NamedTempFile::new()?;
    /// let backing = Backing::open(file.path(), Access::ReadOnly)?;
    /// assert_eq!((backing.path(), backing.access()), (Some(file.path()), Access::ReadOnly));
    /// assert!(backing.is_empty()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, `NotAFile`, `System`. The file is not changed.
    pub fn open(path: &Path, access: Access) -> Result<Self> {
        let fd =
            fs::open(path, flags(access) | OFlags::NONBLOCK, Mode::empty()).map_err(
                |e| match e {
                    Errno::NOENT => Error::NotFound { path: path.into() },
                    Errno::ISDIR => {
                        Error::NotAFile { path: path.display().to_string(), found: "folder" }
                    }
                    e => refused(&path.display().to_string(), access, e),
                },
            )?;
        Self::checked(fd, Some(path.into()), access)
    }

    /// Takes a descriptor that was inherited, received or taken from a descriptor store.
    ///
    /// Example: see [`Backing::reopen`].
    ///
    /// # Errors
    /// `NotAFile` when it is not a file, `PermissionDenied` when it is not open for `access`.
    pub fn from_fd(fd: OwnedFd, access: Access) -> Result<Self> {
        let backing = Self::checked(fd, None, access)?;
        // The descriptor itself may be read-only although the file is writable: what counts is
        // whether this process may open it anew.
        backing.reopen()?;
        Ok(backing)
    }

    /// Makes a memfd, sealed against shrinking. `name` is for display in `/proc`.
    ///
    /// Example: see [`Backing`].
    ///
    /// # Errors
    /// `System` when the kernel has no memfd or no descriptor is left.
    pub fn memfd(name: &str) -> Result<Self> {
        // The kernel's limit is 249 bytes behind its own prefix.
        let fd = fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(|e| system("memfd", "create a memfd", e, "raise the limit on open files"))?;
        fs::fcntl_add_seals(&fd, SealFlags::SHRINK)
            .map_err(|e| system("memfd", "seal against shrinking", e, "use a newer kernel"))?;
        let mut backing = Self::checked(fd, None, Access::ReadWrite)?;
        // The kernel tells of writes through descriptions that were opened, and not of those
        // through the one that `memfd_create` returned.
        if let Ok(opened) = backing.reopen() {
            backing.fd = opened;
        }
        Ok(backing)
    }

    fn checked(fd: OwnedFd, path: Option<PathBuf>, access: Access) -> Result<Self> {
        let stat = fs::fstat(&fd)
            .map_err(|e| system("descriptor", "stat", e, "pass an open descriptor"))?;
        let found = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => None,
            FileType::Directory => Some("folder"),
            FileType::Socket => Some("socket"),
            FileType::Fifo => Some("pipe"),
            FileType::CharacterDevice | FileType::BlockDevice => Some("device"),
            _ => Some("special file"),
        };
        let id = FileId { dev: stat.st_dev, ino: stat.st_ino };
        let backing = Self { fd, path, id, access };
        match found {
            None => Ok(backing),
            Some(found) => Err(Error::NotAFile { path: backing.describe(), found }),
        }
    }

    /// Commits `len` bytes from `offset` on: extends the file when needed, never shrinks it,
    /// changes nothing that is there already.
    ///
    /// Example: see [`Backing`].
    ///
    /// # Errors
    /// `NoSpace` when disk, memory or quota do not suffice; `System` when the file system has no
    /// `fallocate`; `DescriptorLost` when the descriptor is no longer this file.
    pub fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        // The number may stand for another file by now, and that one must not grow.
        self.len()?;
        hook::step();
        loop {
            return match fs::fallocate(&self.fd, FallocateFlags::empty(), offset, len) {
                Ok(()) => Ok(()),
                Err(Errno::INTR) => continue,
                Err(e @ (Errno::NOSPC | Errno::DQUOT | Errno::NOMEM | Errno::FBIG)) => {
                    Err(Error::NoSpace { path: self.describe(), bytes: len, source: e.into() })
                }
                Err(e) => Err(system(
                    &self.describe(),
                    "reserve space",
                    e,
                    "use a file system with fallocate: ext4, xfs, btrfs or tmpfs",
                )),
            };
        }
    }

    /// Gives back what `len` bytes from `offset` on take: they are zeros from then on, also for
    /// whoever has them mapped. The file stays as long as it is.
    ///
    /// ```
    /// # use mainstay_shm::{Access, Backing, Mapping};
    /// let backing = Backing::memfd("example")?;
    /// backing.allocate(0, 8192)?;
    /// let mapping = Mapping::new(&backing, 8192, Access::ReadWrite)?;
    /// mapping.refresh(&backing)?;
    /// mapping.write(100, b"a")?;
    /// backing.release(0, 4096)?;
    /// let mut byte = [7];
    /// mapping.read(100, &mut byte)?;
    /// assert_eq!((byte, backing.len()?), ([0], 8192));
    /// # Ok::<(), mainstay_shm::Error>(())
    /// ```
    ///
    /// # Errors
    /// `System` when the file system has no holes; `DescriptorLost` when the descriptor is no longer
    /// this file.
    pub fn release(&self, offset: u64, len: u64) -> Result<()> {
        self.len()?;
        hook::step();
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        loop {
            return match fs::fallocate(&self.fd, flags, offset, len) {
                Ok(()) => Ok(()),
                Err(Errno::INTR) => continue,
                Err(e) => Err(system(
                    &self.describe(),
                    "give space back",
                    e,
                    "use a file system with holes: ext4, xfs, btrfs or tmpfs",
                )),
            };
        }
    }

    /// Is nothing written in `len` bytes from `offset` on? False also where that cannot be found out.
    ///
    /// ```
    /// # use mainstay_shm::{Access, Backing, Mapping};
    /// let backing = Backing::memfd("example")?;
    /// backing.allocate(0, 8192)?;
    /// let mapping = Mapping::new(&backing, 8192, Access::ReadWrite)?;
    /// mapping.refresh(&backing)?;
    /// backing.release(0, 8192)?;
    /// assert!(backing.is_hole(0, 8192));
    /// mapping.write(5000, b"a")?;
    /// assert_eq!((backing.is_hole(0, 4096), backing.is_hole(4096, 4096)), (true, false));
    /// # Ok::<(), mainstay_shm::Error>(())
    /// ```
    #[must_use]
    pub fn is_hole(&self, offset: u64, len: u64) -> bool {
        match fs::seek(&self.fd, fs::SeekFrom::Data(offset)) {
            Ok(at) => at >= offset.saturating_add(len),
            // There is no data behind the offset.
            Err(error) => error == Errno::NXIO,
        }
    }

    /// How many bytes the file has now.
    ///
    /// Example: see [`Backing`].
    ///
    /// # Errors
    /// `DescriptorLost` when the descriptor is no longer this file.
    pub fn len(&self) -> Result<u64> {
        let lost = || Error::DescriptorLost { path: self.describe() };
        let stat = fs::fstat(&self.fd).map_err(|_| lost())?;
        if (FileId { dev: stat.st_dev, ino: stat.st_ino }) != self.id {
            return Err(lost());
        }
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// Whether the file has no bytes.
    ///
    /// Example: see [`Backing::open`].
    ///
    /// # Errors
    /// As [`Backing::len`].
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// A new description of the same file: locks taken through it are its own, also when the kept
    /// descriptor was inherited from another process.
    ///
    /// ```
    /// use mainstay_shm::{Access, Backing};
    /// let backing = Backing::memfd("example")?;
    /// let same = Backing::from_fd(backing.reopen()?, Access::ReadWrite)?;
    /// assert_eq!(same.id(), backing.id());
    /// assert!(same.describe().starts_with("descriptor "));
    /// # Ok::<(), mainstay_shm::Error>(())
    /// ```
    ///
    /// # Errors
    /// `DescriptorLost` when neither the descriptor nor the path leads to the file any more;
    /// `PermissionDenied`; `System` when `/proc` is not mounted.
    pub fn reopen(&self) -> Result<OwnedFd> {
        let link = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        match fs::open(&link, flags(self.access), Mode::empty()) {
            Ok(fd) if self.is_same_file(&fd) => return Ok(fd),
            Err(e @ (Errno::ACCESS | Errno::PERM | Errno::ROFS)) => {
                return Err(refused(&self.describe(), self.access, e));
            }
            Err(e @ (Errno::MFILE | Errno::NFILE)) => {
                let hint = "raise the limit on open files (ulimit -n)";
                return Err(system(&self.describe(), "open the file again", e, hint));
            }
            Ok(_) | Err(_) => {}
        }
        if let Some(path) = &self.path
            && let Ok(fd) = fs::open(path, flags(self.access), Mode::empty())
            && self.is_same_file(&fd)
        {
            return Ok(fd);
        }
        if !Path::new("/proc/self/fd").exists() {
            let hint = "mount /proc, or open the pool by its path";
            return Err(system(&self.describe(), "open the file again", Errno::NOENT, hint));
        }
        Err(Error::DescriptorLost { path: self.describe() })
    }

    fn is_same_file(&self, fd: &OwnedFd) -> bool {
        fs::fstat(fd).is_ok_and(|s| FileId { dev: s.st_dev, ino: s.st_ino } == self.id)
    }

    /// How the backing was opened.
    ///
    /// Example: see [`Backing::open`].
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Which file it is.
    ///
    /// Example: see [`Backing::reopen`].
    #[must_use]
    pub fn id(&self) -> FileId {
        self.id
    }

    /// The path it was opened by, if it was.
    ///
    /// Example: see [`Backing::open`].
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The path, or which descriptor it is: for messages.
    ///
    /// Example: see [`Backing::reopen`].
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => format!("descriptor {}", self.fd.as_raw_fd()),
        }
    }
}

impl AsFd for Backing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A new file that nobody can see yet: fill it, then [`Unpublished::publish`] it.
///
/// Dropping it leaves nothing behind (except, on a file system without nameless files, when the
/// process is killed: then a file of the name `.NAME.new-PID-N` stays, which nobody opens).
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("calls");
/// let new = mainstay_shm::Unpublished::create(&path, 0o600)?;
/// new.backing().allocate(0, 4096)?;
/// assert!(!path.exists());
/// new.publish()?;
/// assert!(path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Unpublished {
    backing: Backing,
    path: PathBuf,
    scratch: Option<PathBuf>,
}

impl Unpublished {
    /// Makes a nameless file in the folder that `path` is in, with mode `mode`.
    ///
    /// Example: see [`Unpublished`].
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` (the folder), `PermissionDenied`, `System`.
    pub fn create(path: &Path, mode: u32) -> Result<Self> {
        if fs::lstat(path).is_ok() {
            return Err(Error::AlreadyExists { path: path.into() });
        }
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mode = Mode::from_raw_mode(mode);
        let nameless = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let (fd, scratch) = match fs::open(folder, nameless, mode) {
            Ok(fd) => (fd, None),
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
                let scratch = scratch_name(folder, path);
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
                let fd = fs::open(&scratch, flags, mode).map_err(|e| create_refused(path, e))?;
                (fd, Some(scratch))
            }
            Err(e) => return Err(create_refused(path, e)),
        };
        let mut backing = Backing::checked(fd, None, Access::ReadWrite)?;
        backing.path = Some(path.into());
        Ok(Self { backing, path: path.into(), scratch })
    }

    /// The file, to be filled.
    ///
    /// Example: see [`Unpublished`].
    #[must_use]
    pub fn backing(&self) -> &Backing {
        &self.backing
    }

    /// Gives the file its name, in one step, unless another has it.
    ///
    /// Example: see [`Unpublished`].
    ///
    /// # Errors
    /// `AlreadyExists` when somebody was faster; the file is then gone.
    pub fn publish(self) -> Result<Backing> {
        hook::step();
        let from = match &self.scratch {
            Some(scratch) => scratch.clone(),
            None => PathBuf::from(format!("/proc/self/fd/{}", self.backing.fd.as_raw_fd())),
        };
        fs::linkat(fs::CWD, &from, fs::CWD, &self.path, AtFlags::SYMLINK_FOLLOW).map_err(|e| {
            match e {
                Errno::EXIST => Error::AlreadyExists { path: self.path.clone() },
                e => create_refused(&self.path, e),
            }
        })?;
        let Self { backing, scratch, .. } = self;
        if let Some(scratch) = scratch {
            // The file has its name; a second one left behind would harm nobody.
            let _ = fs::unlink(scratch);
        }
        Ok(backing)
    }
}

fn scratch_name(folder: &Path, path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".new-{}-{count}", std::process::id()));
    folder.join(name)
}

fn flags(access: Access) -> OFlags {
    OFlags::CLOEXEC
        | match access {
            Access::ReadOnly => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
        }
}

fn refused(path: &str, access: Access, e: Errno) -> Error {
    let wanted = match access {
        Access::ReadOnly => "read",
        Access::ReadWrite => "read and write",
    };
    match e {
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            Error::PermissionDenied { path: path.into(), wanted, source: e.into() }
        }
        e => system(path, "open", e, "check the path"),
    }
}

fn create_refused(path: &Path, e: Errno) -> Error {
    let shown = path.display().to_string();
    match e {
        Errno::NOENT => Error::NotFound { path: path.parent().unwrap_or(path).into() },
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            Error::PermissionDenied { path: shown, wanted: "create", source: e.into() }
        }
        Errno::NOSPC | Errno::DQUOT => Error::NoSpace { path: shown, bytes: 0, source: e.into() },
        e => system(&shown, "create", e, "check the path and the folder it is in"),
    }
}

fn system(path: &str, action: &'static str, e: Errno, hint: &'static str) -> Error {
    Error::System { path: path.into(), action, source: e.into(), hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_name_before_it_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let new = Unpublished::create(&path, 0o600).unwrap();
        new.backing().allocate(0, 100).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        new.publish().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 100);
    }

    #[test]
    fn of_two_creators_one_wins_and_the_other_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let first = Unpublished::create(&path, 0o600).unwrap();
        let second = Unpublished::create(&path, 0o600).unwrap();
        first.publish().unwrap();
        assert!(matches!(second.publish(), Err(Error::AlreadyExists { .. })));
        assert!(matches!(Unpublished::create(&path, 0o600), Err(Error::AlreadyExists { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_memfd_cannot_be_shrunk_by_anybody() {
        let backing = Backing::memfd("test").unwrap();
        backing.allocate(0, 8_192).unwrap();
        assert_eq!(fs::ftruncate(&backing, 4_096), Err(Errno::PERM));
    }

    #[test]
    fn a_reopened_description_is_the_same_file_but_has_its_own_locks() {
        let backing = Backing::memfd("test").unwrap();
        let fd = backing.reopen().unwrap();
        assert!(backing.is_same_file(&fd));
        assert_ne!(fd.as_raw_fd(), backing.fd.as_raw_fd());
    }

    #[test]
    fn what_is_not_a_file_is_refused_by_its_kind() {
        let found = |e| match e {
            Err(Error::NotAFile { found, .. }) => found,
            other => panic!("{other:?}"),
        };
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(found(Backing::open(dir.path(), Access::ReadOnly)), "folder");
        assert_eq!(found(Backing::open(dir.path(), Access::ReadWrite)), "folder");
        assert_eq!(found(Backing::open(Path::new("/dev/null"), Access::ReadWrite)), "device");
        let missing = dir.path().join("missing");
        let error = Backing::open(&missing, Access::ReadOnly);
        assert!(matches!(error, Err(Error::NotFound { .. })));
    }
}
