//! Process slots: which processes have a pool (or a folder of states) open, and which of them are
//! alive. How many slots there are is the caller's choice: a slot is a byte behind all data.
//!
//! I1. Slot `s` is alive exactly as long as an open-file-description write lock is held on byte
//!     2^60 + s of the file. The kernel drops it at any death, and never before.
//! I2. The lock is held by the *mapping*, which keeps the description it was made from; no
//!     descriptor of it exists. So closing descriptors cannot break it, and neither fork nor
//!     passing descriptors on can leak it.
//! I3. A reader lock on the byte proves that the slot is dead, keeps it from being leased again,
//!     and admits any number of reapers at once.
//! I4. No pid takes part in any decision; those in [`SlotEntry`] are for display.
//!
//! Source: fcntl_locking(2), "Open file description locks".
//!
//! Example: see [`acquire`].

use crate::{
    Access, Atomic64, Backing, Error, Mapping, Result, Shared8, Shared32, Shared64, SharedLayout,
    fork, hook,
};
use std::{
    io,
    ops::Range,
    os::fd::{AsRawFd, OwnedFd},
    sync::atomic::Ordering,
};

/// How many processes can have a pool open for writing at once.
///
/// ```
/// use mainstay_shm::{Backing, lease};
/// let backing = Backing::memfd("example")?;
/// let slots: Vec<u32> = (0..lease::LEASE_SLOTS as u32).collect();
/// let (_mapping, slot) = lease::acquire(&backing, 4096, &slots)?;
/// assert_eq!(slot, 0);
/// # Ok::<(), mainstay_shm::Error>(())
/// ```
pub const LEASE_SLOTS: usize = 32;

/// The byte of slot 0: far behind any data.
const LEASE_BASE: i64 = 1 << 60;

/// State word of a slot: orderly closed, or never used.
///
/// Example: see [`SlotEntry`].
pub const CLEAN: u32 = 0;
/// State word of a slot: may hold something.
///
/// Example: see [`SlotEntry`].
pub const IN_USE: u32 = 1;

/// What a slot says about itself in shared memory. All but `state` is for display.
///
/// ```
/// # use mainstay_shm::{Access, Backing, Mapping};
/// # use mainstay_shm::lease;
/// # use std::sync::atomic::Ordering::Relaxed;
/// # let backing = Backing::memfd("example")?;
/// # backing.allocate(0, 4096)?;
/// # let mapping = Mapping::new(&backing, 4096, Access::ReadWrite)?;
/// # mapping.refresh(&backing)?;
/// let slot = &mapping.view::<lease::SlotEntry>(0, 1)?[0];
/// assert_eq!(slot.state.load(Relaxed), lease::CLEAN);
/// slot.state.store(lease::IN_USE, Relaxed);
/// slot.introduce();
/// assert_eq!(slot.pid.load(Relaxed), std::process::id());
/// assert!(!slot.display_name().is_empty());
/// # Ok::<(), mainstay_shm::Error>(())
/// ```
#[repr(C)]
#[derive(Debug)]
pub struct SlotEntry {
    /// [`CLEAN`] or [`IN_USE`].
    pub state: Shared32,
    /// Process id of the last owner.
    pub pid: Shared32,
    /// How many times the slot was leased.
    pub epoch: Shared64,
    /// When the last owner started, in clock ticks after boot (field 22 of `/proc/PID/stat`).
    pub start_time: Shared64,
    /// Name of the last owner's program, zero padded (`/proc/PID/comm`).
    pub name: [Shared8; 32],
    /// Zero.
    pub reserved: Shared64,
}
const _: () = assert!(size_of::<SlotEntry>() == 64 && align_of::<SlotEntry>() == 8);

// SAFETY: made of shared words only.
unsafe impl SharedLayout for SlotEntry {}

impl SlotEntry {
    /// Writes down who has the slot now, for display.
    ///
    /// Example: see [`SlotEntry`].
    pub fn introduce(&self) {
        self.pid.store(std::process::id(), Ordering::Relaxed);
        self.start_time.store(start_time_of("self"), Ordering::Relaxed);
        let comm = std::fs::read("/proc/self/comm").unwrap_or_default();
        for (i, byte) in self.name.iter().enumerate() {
            byte.store(comm.get(i).copied().filter(|b| *b != b'\n').unwrap_or(0));
        }
        self.epoch.increment(Ordering::Relaxed);
    }

    /// The program's name as printable text; whatever else stands there becomes `?`.
    ///
    /// Example: see [`SlotEntry`].
    #[must_use]
    pub fn display_name(&self) -> String {
        let bytes = self.name.iter().map(Shared8::load).take_while(|b| *b != 0);
        bytes.map(|b| if b.is_ascii_graphic() || b == b' ' { b as char } else { '?' }).collect()
    }
}

/// Takes the first free slot of those in `order` and maps `len` bytes of `backing` through the
/// description that holds it. The slot is ours until the mapping is dropped.
///
/// ```
/// use mainstay_shm::{Backing, lease};
/// let backing = Backing::memfd("example")?;
/// let (mapping, slot) = lease::acquire(&backing, 4096, &[3, 4])?;
/// assert!(lease::acquire(&backing, 4096, &[slot]).is_err(), "taken");
/// drop(mapping);
/// assert!(lease::acquire(&backing, 4096, &[slot]).is_ok());
/// # Ok::<(), mainstay_shm::Error>(())
/// ```
///
/// # Errors
/// `SlotsTaken`, and whatever opening and mapping can refuse.
pub fn acquire(backing: &Backing, len: u64, order: &[u32]) -> Result<(Mapping, u32)> {
    // No thread may fork while a descriptor of the leased description exists.
    let _hold = fork::Hold::new();
    let description = if hook::planted("inherited-description") {
        rustix::io::fcntl_dupfd_cloexec(backing, 0).map_err(|e| lock_refused(backing, e.into()))?
    } else {
        backing.reopen()?
    };
    for &slot in order {
        hook::step();
        if set_lock(&description, libc::F_WRLCK as _, slot)
            .map_err(|source| lock_refused(backing, source))?
        {
            let mapping = Mapping::new(&description, len, Access::ReadWrite)?;
            return Ok((mapping, slot));
        }
    }
    Err(Error::SlotsTaken { slots: order.len() })
}

/// Asks who is alive, and pins the dead, through a description of its own.
///
/// ```
/// # use mainstay_shm::{Backing, lease};
/// let backing = Backing::memfd("example")?;
/// let mut prober = lease::Prober::new(&backing)?;
/// assert!(!prober.is_alive(5)? && prober.pin_dead(5)?);
/// assert!(lease::acquire(&backing, 4096, &[5]).is_err(), "pinned");
/// prober.unpin(5);
/// assert!(lease::acquire(&backing, 4096, &[5]).is_ok());
/// # Ok::<(), mainstay_shm::Error>(())
/// ```
#[derive(Debug)]
pub struct Prober {
    description: OwnedFd,
    path: String,
    // Keeps the description, and with it the pins, out of children.
    _hold: fork::Hold,
}

impl Prober {
    /// Opens a description of its own.
    ///
    /// Example: see [`Prober`].
    ///
    /// # Errors
    /// As [`Backing::reopen`]; never one that could be mistaken for "dead".
    pub fn new(backing: &Backing) -> Result<Self> {
        let hold = fork::Hold::new();
        Ok(Self { description: backing.reopen()?, path: backing.describe(), _hold: hold })
    }

    /// Whether a living process holds `slot`; a reaper's pin does not count.
    ///
    /// Example: see [`Prober`].
    ///
    /// # Errors
    /// `System` when the file system has no such locks.
    pub fn is_alive(&self, slot: u32) -> Result<bool> {
        let mut query = lock_at(slot, libc::F_RDLCK as _);
        // SAFETY: the descriptor is open and the structure is valid.
        let done =
            unsafe { libc::fcntl(self.description.as_raw_fd(), libc::F_OFD_GETLK, &mut query) };
        if done == -1 {
            return Err(self.refused());
        }
        Ok(query.l_type != libc::F_UNLCK as libc::c_short)
    }

    /// The slots among `slots` that living processes hold, in order: two questions for each of
    /// them, and one for the rest.
    ///
    /// ```
    /// # use mainstay_shm::{Backing, lease};
    /// let backing = Backing::memfd("example")?;
    /// let (_late, _) = lease::acquire(&backing, 4096, &[9])?;
    /// let (_early, _) = lease::acquire(&backing, 4096, &[5])?;
    /// let prober = lease::Prober::new(&backing)?;
    /// assert_eq!(prober.alive_among(0..256)?, [5, 9]);
    /// assert_eq!(prober.alive_among(6..9)?, []);
    /// # Ok::<(), mainstay_shm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Prober::is_alive`].
    pub fn alive_among(&self, slots: Range<u32>) -> Result<Vec<u32>> {
        let mut alive = Vec::new();
        let mut unknown = vec![slots];
        while let Some(range) = unknown.pop() {
            if let Some(slot) = self.any_alive(&range)? {
                alive.push(slot);
                unknown.extend([range.start..slot, slot + 1..range.end]);
            }
        }
        alive.sort_unstable();
        Ok(alive)
    }

    /// A slot among `slots` that a living process holds. The kernel tells of any of them, not of
    /// the first.
    fn any_alive(&self, slots: &Range<u32>) -> Result<Option<u32>> {
        if slots.is_empty() {
            return Ok(None);
        }
        let mut query = lock_at(slots.start, libc::F_RDLCK as _);
        query.l_len = i64::from(slots.end - slots.start);
        // SAFETY: the descriptor is open and the structure is valid.
        let done =
            unsafe { libc::fcntl(self.description.as_raw_fd(), libc::F_OFD_GETLK, &mut query) };
        if done == -1 {
            return Err(self.refused());
        }
        if query.l_type == libc::F_UNLCK as libc::c_short {
            return Ok(None);
        }
        // The lock found may begin before the range, and must not lead out of it.
        let found = u32::try_from(query.l_start - LEASE_BASE).unwrap_or(0);
        Ok(Some(found.clamp(slots.start, slots.end - 1)))
    }

    /// Proves that `slot` is dead and keeps it so until [`Prober::unpin`] or drop; false when it
    /// is alive. Never waits.
    ///
    /// Example: see [`Prober`].
    ///
    /// # Errors
    /// `System` when the file system has no such locks.
    pub fn pin_dead(&mut self, slot: u32) -> Result<bool> {
        hook::step();
        set_lock(&self.description, libc::F_RDLCK as _, slot).map_err(|_| self.refused())
    }

    /// Lets `slot` be leased again.
    ///
    /// Example: see [`Prober`].
    pub fn unpin(&mut self, slot: u32) {
        hook::step();
        // Dropping the description unlocks it as well, so a refusal is not a leak.
        let _ = set_lock(&self.description, libc::F_UNLCK as _, slot);
    }

    fn refused(&self) -> Error {
        Error::System {
            path: self.path.clone(),
            action: "ask for a lock",
            source: io::Error::last_os_error(),
            hint: "use a local file system with open-file-description locks",
        }
    }
}

/// The right of one process at a time to do something rare with a file: a write lock on a byte,
/// dropped with the value and by any death. Never on a data path.
///
/// ```
/// # use mainstay_shm::{Backing, lease};
/// let backing = Backing::memfd("example")?;
/// let gate = lease::Gate::try_close(&backing, 0)?.expect("nobody has it");
/// assert!(lease::Gate::try_close(&backing, 0)?.is_none(), "it is closed");
/// assert!(lease::Gate::try_close(&backing, 1)?.is_some(), "another one");
/// drop(gate);
/// assert!(lease::Gate::try_close(&backing, 0)?.is_some());
/// # Ok::<(), mainstay_shm::Error>(())
/// ```
#[derive(Debug)]
pub struct Gate {
    _description: OwnedFd,
    // Keeps the description, and with it the lock, out of children.
    _hold: fork::Hold,
}

/// How far behind the slots the gates begin.
const GATES: u32 = 1 << 16;

impl Gate {
    /// Closes gate `number` unless another has closed it. Never waits.
    ///
    /// Example: see [`Gate`].
    ///
    /// # Errors
    /// As [`Backing::reopen`], and `System` when the file system has no such locks.
    pub fn try_close(backing: &Backing, number: u32) -> Result<Option<Self>> {
        let hold = fork::Hold::new();
        let description = backing.reopen()?;
        hook::step();
        let closed = set_lock(&description, libc::F_WRLCK as _, GATES + number)
            .map_err(|source| lock_refused(backing, source))?;
        Ok(closed.then_some(Self { _description: description, _hold: hold }))
    }
}

fn set_lock(fd: &OwnedFd, kind: libc::c_short, slot: u32) -> io::Result<bool> {
    let request = lock_at(slot, kind);
    let waits = hook::planted("reap-waits");
    let command = if waits { libc::F_OFD_SETLKW } else { libc::F_OFD_SETLK };
    loop {
        // SAFETY: the descriptor is open and the structure is valid.
        if unsafe { libc::fcntl(fd.as_raw_fd(), command, &request) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => return Ok(false),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}

fn lock_at(slot: u32, kind: libc::c_short) -> libc::flock {
    libc::flock {
        l_type: kind,
        l_whence: libc::SEEK_SET as _,
        l_start: LEASE_BASE + i64::from(slot),
        l_len: 1,
        l_pid: 0,
    }
}

fn lock_refused(backing: &Backing, source: io::Error) -> Error {
    Error::System {
        path: backing.describe(),
        action: "take a lock",
        source,
        hint: "use a local file system with open-file-description locks",
    }
}

/// Field 22 of `/proc/PROCESS/stat`; 0 when it cannot be read.
pub(crate) fn start_time_of(process: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is the program's name in brackets and may contain anything.
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    behind_name.split_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [u32; LEASE_SLOTS] = {
        let mut all = [0; LEASE_SLOTS];
        let mut i = 0;
        while i < LEASE_SLOTS {
            all[i] = i as u32;
            i += 1;
        }
        all
    };

    fn file() -> Backing {
        let backing = Backing::memfd("test").unwrap();
        backing.allocate(0, 4_096).unwrap();
        backing
    }

    #[test]
    fn the_33rd_process_is_refused_and_a_freed_slot_is_taken_again() {
        let backing = file();
        let mut leases: Vec<_> = (0..32).map(|_| acquire(&backing, 4_096, &ALL).unwrap()).collect();
        let slots: Vec<u32> = leases.iter().map(|(_, slot)| *slot).collect();
        assert_eq!(slots, (0..32).collect::<Vec<u32>>());
        assert!(matches!(acquire(&backing, 4_096, &ALL), Err(Error::SlotsTaken { slots: 32 })));
        leases.remove(7);
        assert_eq!(acquire(&backing, 4_096, &ALL).unwrap().1, 7);
    }

    #[test]
    fn a_slot_is_alive_as_long_as_its_mapping() {
        let backing = file();
        let (mapping, slot) = acquire(&backing, 4_096, &ALL).unwrap();
        let mut prober = Prober::new(&backing).unwrap();
        assert!(prober.is_alive(slot).unwrap());
        assert!(!prober.pin_dead(slot).unwrap());
        drop(mapping);
        assert!(!prober.is_alive(slot).unwrap());
        assert!(prober.pin_dead(slot).unwrap());
    }

    #[test]
    fn a_pinned_slot_is_not_leased_again_and_admits_other_reapers() {
        let backing = file();
        let mut prober = Prober::new(&backing).unwrap();
        assert!(prober.pin_dead(0).unwrap());
        assert_eq!(acquire(&backing, 4_096, &ALL).unwrap().1, 1);
        drop(prober);
        let description = backing.reopen().unwrap();
        assert!(set_lock(&description, libc::F_RDLCK as _, 0).unwrap());
        let mut other = Prober::new(&backing).unwrap();
        assert!(other.pin_dead(0).unwrap());
        other.unpin(0);
        assert_eq!(acquire(&backing, 4_096, &ALL).unwrap().1, 1);
        drop(description);
        assert_eq!(acquire(&backing, 4_096, &ALL).unwrap().1, 0);
    }

    #[test]
    fn a_child_made_by_fork_holds_no_lease() {
        let backing = file();
        let (mapping, slot) = acquire(&backing, 4_096, &ALL).unwrap();
        // SAFETY: the child only sleeps and is killed.
        let child = unsafe { libc::fork() };
        if child == 0 {
            loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            }
        }
        drop(mapping);
        let alive = Prober::new(&backing).unwrap().is_alive(slot).unwrap();
        // SAFETY: ends the child just made.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        assert!(!alive, "the child must not keep its parent's lease");
    }

    #[test]
    fn a_process_can_be_told_by_pid_and_name() {
        let entry: SlotEntry = SlotEntry {
            state: Shared32::new(CLEAN),
            pid: Shared32::new(0),
            epoch: Shared64::new(4),
            start_time: Shared64::new(0),
            name: Default::default(),
            reserved: Shared64::new(0),
        };
        entry.introduce();
        assert_eq!(entry.pid.load(Ordering::Relaxed), std::process::id());
        assert_eq!(entry.epoch.load(Ordering::Relaxed), 5);
        assert!(entry.start_time.load(Ordering::Relaxed) > 0);
        assert!(!entry.display_name().is_empty());
        entry.name[0].store(7);
        assert!(entry.display_name().starts_with('?'));
    }

    #[test]
    fn closing_every_descriptor_does_not_end_a_lease() {
        let backing = file();
        let keeper = backing.reopen().unwrap();
        let (mapping, slot) = acquire(&backing, 4_096, &ALL).unwrap();
        drop(backing);
        let backing = Backing::from_fd(keeper, Access::ReadWrite).unwrap();
        assert!(Prober::new(&backing).unwrap().is_alive(slot).unwrap());
        drop(mapping);
    }
}
