//! Which pages of a mapping were written: asked of the kernel, without a signal or a thread.
//!
//! The mapping is registered with userfaultfd for *asynchronous* write protection: a store to a
//! protected page costs one fault, which the kernel resolves by itself and remembers. PAGEMAP_SCAN
//! reads that memory and protects the pages again, in one step for each page.
//!
//! G1. [`Watch::take`] reports every page written through the mapping since the last `take` that
//!     covered it: by stores, and by system calls that fill a buffer there. A store that happens
//!     beside it is reported by it or by the next; if by it alone, whoever reads the page after
//!     `take` sees the store.
//! G2. It may report pages that were not written: those it never covered before and that were
//!     touched, and those the kernel dropped in between. So the page bits are an optimisation.
//! G3. What goes another way is not seen: `pwrite` on the file, other mappings of it, other
//!     processes. See [`RemoteWatch`], and [`FileEvents`](crate::FileEvents).
//! G4. An error of `take` may have lost bits: after one, every page has to count as written.
//! G5. A child made by fork is refused: its descriptors speak of its parent's memory.
//!
//! Sources: ioctl_userfaultfd(2), UFFD_FEATURE_WP_ASYNC; the kernel's documentation of
//! `/proc/PID/pagemap`, PAGEMAP_SCAN. Both exist from Linux 6.7 on; the memory may be of a memfd, a
//! file, or huge pages. Nothing asks for a privilege (UFFD_USER_MODE_ONLY): the restriction to
//! faults of user mode concerns messages, of which asynchronous protection has none.

use crate::{Backing, Error, Mapping, Result, fork::Epoch};
use linux_raw_sys::{
    general::{
        PAGE_IS_WRITTEN, PM_SCAN_CHECK_WPASYNC, PM_SCAN_WP_MATCHING, UFFD_API,
        UFFD_FEATURE_WP_ASYNC, UFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFD_FEATURE_WP_UNPOPULATED,
        UFFD_USER_MODE_ONLY, UFFDIO_REGISTER_MODE_WP, page_region, pm_scan_arg, uffdio_api,
        uffdio_range, uffdio_register,
    },
    ioctl::{UFFDIO_API, UFFDIO_REGISTER},
};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    fs::File,
    io,
    ops::Range,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// `_IOWR('f', 16, struct pm_scan_arg)`, from linux/fs.h.
const PAGEMAP_SCAN: u64 = 0xC060_6610;
const _: () = assert!(size_of::<pm_scan_arg>() == 0x60);
/// Regions fetched by one system call: 24 KiB.
const REGIONS: usize = 1_024;

/// The pages of one mapping of this process, watched.
///
/// ```
/// use mainstay_shm::{Access, Backing, Mapping, Watch};
/// let backing = Backing::memfd("example")?;
/// let mapping = Mapping::new(&backing, 1 << 20, Access::ReadWrite)?;
/// backing.allocate(0, 1 << 20)?;
/// mapping.refresh(&backing)?;
/// let Ok(watch) = Watch::new(&mapping) else { return Ok(()) }; // an old kernel, a sandbox
///
/// let mut written = Vec::new();
/// watch.take(0..1 << 20, &mut written)?; // from here on, only what is written
/// written.clear();
/// mapping.write(5 * 4096, b"ringing")?;
/// assert!(watch.any(0..1 << 20)?);
/// watch.take(0..1 << 20, &mut written)?;
/// assert_eq!(written, [5 * 4096..6 * 4096]);
/// assert!(!watch.any(0..1 << 20)?);
/// # Ok::<(), mainstay_shm::Error>(())
/// ```
#[derive(Debug)]
pub struct Watch {
    /// The registration ends with it.
    _uffd: OwnedFd,
    scan: Scan,
    epoch: Epoch,
}

impl Watch {
    /// Registers the whole mapping. It can have one registration at a time.
    ///
    /// Example: see [`Watch`].
    ///
    /// # Errors
    /// `WatchRefused`, with the step that failed: the kernel is too old, a seccomp filter forbids
    /// it, `/proc` is missing, or the mapping has a registration already.
    pub fn new(mapping: &Mapping) -> Result<Self> {
        let epoch = Epoch::now();
        let uffd = open_uffd().map_err(|source| refused("call userfaultfd", source))?;
        let features =
            UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
        let mut api = uffdio_api { api: UFFD_API.into(), features: features.into(), ioctls: 0 };
        // SAFETY: the kernel reads and writes the structure, which it is made for.
        unsafe { ioctl(&uffd, UFFDIO_API.into(), &mut api) }
            .map_err(|source| refused("ask for asynchronous write protection", source))?;
        let base = mapping.base().addr().get() as u64;
        let len = mapping.reserved() as u64;
        let mut register = uffdio_register {
            range: uffdio_range { start: base, len },
            mode: UFFDIO_REGISTER_MODE_WP.into(),
            ioctls: 0,
        };
        // SAFETY: as above. The range is one mapping of ours; being watched changes neither what
        // loads nor what stores do, only what the kernel remembers of them.
        unsafe { ioctl(&uffd, UFFDIO_REGISTER.into(), &mut register) }
            .map_err(|source| refused("register the mapping", source))?;
        let pagemap = File::open("/proc/self/pagemap")
            .map_err(|source| refused("open /proc/self/pagemap", source))?;
        let watch = Self { _uffd: uffd, scan: Scan { pagemap, base, len }, epoch };
        // Whether the kernel has PAGEMAP_SCAN shows only when it is called.
        watch.scan.any(0..len.min(4_096)).map_err(|source| refused("scan the page map", source))?;
        Ok(watch)
    }

    /// Appends to `written` the byte ranges of `range` (offsets into the mapping, in whole pages)
    /// that were written since the last call, in order, and forgets them (G1).
    ///
    /// Example: see [`Watch`].
    ///
    /// # Errors
    /// `Forked`, and `System` for what the kernel refuses; then see G4.
    pub fn take(&self, range: Range<u64>, written: &mut Vec<Range<u64>>) -> Result<()> {
        self.check_fork()?;
        self.scan.take(range, written).map_err(|source| scan_failed("this process", source))
    }

    /// Whether anything in `range` was written since the last [`Watch::take`]. Forgets nothing.
    ///
    /// Example: see [`Watch`].
    ///
    /// # Errors
    /// `Forked`, and `System` for what the kernel refuses.
    pub fn any(&self, range: Range<u64>) -> Result<bool> {
        self.check_fork()?;
        self.scan.any(range).map_err(|source| scan_failed("this process", source))
    }

    fn check_fork(&self) -> Result<()> {
        if self.epoch.is_current() { Ok(()) } else { Err(Error::Forked { what: "a watch" }) }
    }
}

/// The pages of a mapping that another process watches for us, of the same user.
///
/// It is the other process that registers its mapping, by a [`Watch`] that it keeps and never
/// takes from; this end scans. The bits of one mapping are forgotten by whoever takes them, so only
/// one may.
///
/// Example: see the tests of this module; it takes two processes.
#[derive(Debug)]
pub struct RemoteWatch {
    pidfd: OwnedFd,
    pid: u32,
    scan: Scan,
    epoch: Epoch,
}

impl RemoteWatch {
    /// Opens the page map of process `pid`, after checking that it is the one that started at
    /// `start_time` (field 22 of `/proc/PID/stat`), and that its memory from address `base` on is
    /// a mapping of `backing` from its first byte on.
    ///
    /// Example: see [`RemoteWatch`].
    ///
    /// # Errors
    /// `RemoteRefused`, with the reason.
    pub fn new(backing: &Backing, pid: u32, start_time: u64, base: u64) -> Result<Self> {
        let refuse = |why: String| Error::RemoteRefused { pid, why };
        let io = |what: &str, e: io::Error| refuse(format!("{what}: {e}"));
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or_else(|| refuse("it is no process id".into()))?;
        let pidfd =
            pidfd_open(raw, PidfdFlags::empty()).map_err(|e| io("open the process", e.into()))?;
        let pagemap = File::open(format!("/proc/{pid}/pagemap"))
            .map_err(|e| io("open its page map (it has to be of the same user)", e))?;
        // From here on the page map is of the memory of whatever process had the number. If that
        // is the right one, and lives now, it was the right one then: a number is given again only
        // after the process is gone.
        let started = crate::lease::start_time_of(&pid.to_string());
        if started != start_time {
            return Err(refuse("another process has its number by now".into()));
        }
        let len = mapped_len(backing, pid, base).map_err(|e| io("read its mappings", e))?;
        let len = len.ok_or_else(|| refuse(format!("has no mapping of it at {base:#x}")))?;
        let scan = Scan { pagemap, base, len };
        let remote = Self { pidfd, pid, scan, epoch: Epoch::now() };
        if !remote.is_alive() {
            return Err(refuse("it has ended".into()));
        }
        Ok(remote)
    }

    /// As [`Watch::take`], of the other process. None when it has ended, before or meanwhile: then
    /// what was appended means nothing, and every page has to count as written.
    ///
    /// Example: see [`RemoteWatch`].
    ///
    /// # Errors
    /// `Forked`; `System`, also when the other process watches the mapping no longer.
    pub fn take(&self, range: Range<u64>, written: &mut Vec<Range<u64>>) -> Result<Option<()>> {
        if !self.epoch.is_current() {
            return Err(Error::Forked { what: "a watch" });
        }
        if !self.is_alive() {
            return Ok(None);
        }
        let range = range.start..range.end.min(self.scan.len);
        let taken = self.scan.take(range, written);
        // The page tables of a dead process say "nothing", and no error.
        if !self.is_alive() {
            return Ok(None);
        }
        taken.map(Some).map_err(|source| scan_failed(&format!("process {}", self.pid), source))
    }

    fn is_alive(&self) -> bool {
        let mut poll = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        // A pidfd is readable once its process has ended.
        matches!(rustix::event::poll(&mut poll, Some(&now)), Ok(0))
    }
}

/// How many page faults this process has had: as long as it stays the same, nobody has written to a
/// protected page, since that is a fault. Costs a fraction of a microsecond.
///
/// ```
/// let before = mainstay_shm::page_faults();
/// std::hint::black_box(vec![1_u8; 1 << 24]);
/// assert!(mainstay_shm::page_faults() > before);
/// ```
#[must_use]
pub fn page_faults() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the structure is what the call fills; zeros are a value of it, should it fail.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    (usage.ru_minflt as u64).wrapping_add(usage.ru_majflt as u64)
}

/// How long the mapping of `backing` at `base` is in process `pid`; none when there is none.
fn mapped_len(backing: &Backing, pid: u32, base: u64) -> io::Result<Option<u64>> {
    use std::os::unix::fs::MetadataExt;
    let file = File::from(rustix::io::fcntl_dupfd_cloexec(backing, 0)?).metadata()?;
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let device = format!("{major:02x}:{minor:02x}");
    let inode = file.ino().to_string();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let found = maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (from, to) = fields.next()?.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let offset = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
        let same = fields.next()? == device && fields.next()? == inode;
        (from == base && offset == 0 && same).then_some(to - from)
    });
    Ok(found)
}

/// One mapping, as the page map of its process shows it.
#[derive(Debug)]
struct Scan {
    pagemap: File,
    base: u64,
    len: u64,
}

impl Scan {
    fn take(&self, range: Range<u64>, written: &mut Vec<Range<u64>>) -> io::Result<()> {
        assert!(range.end <= self.len, "the range is inside of the mapping");
        let mut regions = [EMPTY; REGIONS];
        let end = self.base + range.end;
        let mut start = self.base + range.start;
        let flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC;
        while start < end {
            let (count, walked) = self.call(start..end, flags.into(), &mut regions, 0)?;
            for region in &regions[..count] {
                let (from, to) = (region.start - self.base, region.end - self.base);
                match written.last_mut() {
                    Some(last) if last.end == from => last.end = to,
                    _ => written.push(from..to),
                }
            }
            if walked <= start {
                return Err(io::Error::other("the scan does not get on"));
            }
            start = walked;
        }
        Ok(())
    }

    fn any(&self, range: Range<u64>) -> io::Result<bool> {
        assert!(range.end <= self.len, "the range is inside of the mapping");
        let range = self.base + range.start..self.base + range.end;
        let (count, _) = self.call(range, PM_SCAN_CHECK_WPASYNC.into(), &mut [EMPTY; 1], 1)?;
        Ok(count > 0)
    }

    /// Returns how many regions there are, and how far the kernel has walked.
    fn call(
        &self,
        range: Range<u64>,
        flags: u64,
        regions: &mut [page_region],
        pages_max: u64,
    ) -> io::Result<(usize, u64)> {
        let mut arg = pm_scan_arg {
            size: size_of::<pm_scan_arg>() as u64,
            flags,
            start: range.start,
            end: range.end,
            walk_end: 0,
            vec: regions.as_mut_ptr().expose_provenance() as u64,
            vec_len: regions.len() as u64,
            max_pages: pages_max,
            category_inverted: 0,
            // Exactly this, in both: any more, and the kernel takes a way 10 times as long.
            category_mask: PAGE_IS_WRITTEN.into(),
            category_anyof_mask: 0,
            return_mask: PAGE_IS_WRITTEN.into(),
        };
        // SAFETY: the kernel reads and writes the structure, which it is made for, and writes at
        // most `vec_len` regions to `vec`, a slice of ours.
        let count = unsafe { ioctl(&self.pagemap, PAGEMAP_SCAN, &mut arg) }?;
        Ok((usize::try_from(count).unwrap_or(0).min(regions.len()), arg.walk_end))
    }
}

const EMPTY: page_region = page_region { start: 0, end: 0, categories: 0 };

/// A userfaultfd for faults of user mode: what everybody may have.
fn open_uffd() -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | UFFD_USER_MODE_ONLY as libc::c_int;
    // SAFETY: takes flags, returns a new descriptor or an error; rustix knows not this flag.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just given to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// `request` is one that reads and writes a `T`, and whatever the `T` points to is as it demands.
unsafe fn ioctl<T>(fd: &impl AsRawFd, request: u64, arg: &mut T) -> io::Result<i32> {
    loop {
        // SAFETY: the caller's promise.
        let done = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, &raw mut *arg) };
        if done >= 0 {
            return Ok(done);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(Errno::INTR.raw_os_error()) {
            return Err(error);
        }
    }
}

fn refused(step: &'static str, source: io::Error) -> Error {
    Error::WatchRefused { step, source }
}

fn scan_failed(whose: &str, source: io::Error) -> Error {
    Error::System {
        path: format!("the page map of {whose}"),
        action: "scan for written pages",
        source,
        hint: "every page counts as written now; is the process still watching its mapping?",
    }
}

#[cfg(test)]
#[path = "watch/tests.rs"]
mod tests;
