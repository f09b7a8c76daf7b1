//! A descriptor that becomes readable when a state changes.
//!
//! By an io_uring that waits on the change word; where that is refused (containers often do), by a
//! thread of `bridge.rs`, which writes to an eventfd.
//!
//! Source: io_uring_enter(2), `IORING_OP_FUTEX_WAIT` (Linux 6.7).

use crate::{
    Result,
    bridge::{Bell, Sleeper, refused},
    draft::now,
    memory::Memory,
    watch::arm,
};
use io_uring::{IoUring, opcode, types::Timespec};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

/// `FUTEX2_SIZE_U32` of futex_waitv(2), without `FUTEX2_PRIVATE`: the word is shared.
const FUTEX2_SIZE_U32: u32 = 2;
/// How often a ring is readable by itself, so that what was missed when a committer died is seen.
const RING_RECHECK: Timespec = Timespec::new().sec(1);

const WORD: u64 = 1;
const NOW: u64 = 2;
const CLOCK: u64 = 3;

pub(crate) enum Poller {
    Ring(Box<Ring>),
    Bridge(Bridged),
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.how())
    }
}

impl Poller {
    pub(crate) fn new(memory: &Arc<Memory>, seen: u64) -> Result<Self> {
        if let Ok(ring) = Ring::new(memory, seen) {
            return Ok(Self::Ring(Box::new(ring)));
        }
        Bridged::new(memory, seen).map(Self::Bridge)
    }

    pub(crate) fn how(&self) -> &'static str {
        match self {
            Self::Ring(_) => "io_uring",
            Self::Bridge(_) => "bridge thread",
        }
    }

    /// Takes what has come, and waits for what is newer than `seen`.
    pub(crate) fn rearm(&mut self, memory: &Arc<Memory>, seen: u64) -> Result<()> {
        match self {
            Self::Ring(ring) => ring.rearm(memory, seen).map_err(|source| refused("wait", source)),
            Self::Bridge(bridged) => {
                bridged.rearm(seen);
                Ok(())
            }
        }
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Ring(ring) => ring.fd.as_fd(),
            Self::Bridge(bridged) => bridged.event.as_fd(),
        }
    }
}

/// A ring that waits for one word.
pub(crate) struct Ring {
    ring: IoUring,
    /// The ring's own descriptor once more: a borrow of it that outlives none of `ring`.
    fd: OwnedFd,
    waiting: bool,
    ticking: bool,
    tick: Box<Timespec>,
    /// The word is read by the kernel, as long as the ring waits.
    _memory: Arc<Memory>,
}

impl Ring {
    fn new(memory: &Arc<Memory>, seen: u64) -> io::Result<Self> {
        let ring = IoUring::new(8)?;
        let fd = rustix::io::fcntl_dupfd_cloexec(
            // SAFETY: the ring's descriptor is open while `ring` lives, which is past this call.
            unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) },
            0,
        )?;
        let tick = Box::new(RING_RECHECK);
        let memory_kept = Arc::clone(memory);
        let mut ring =
            Self { ring, fd, waiting: false, ticking: false, tick, _memory: memory_kept };
        ring.rearm(memory, seen)?;
        // A kernel without the operation refuses it at once.
        match ring.completed() {
            Some((WORD, result)) if result == -libc::EINVAL => {
                Err(io::Error::from_raw_os_error(libc::EINVAL))
            }
            Some(_) => {
                ring.push(&opcode::Nop::new().build().user_data(NOW))?;
                Ok(ring)
            }
            None => Ok(ring),
        }
    }

    fn rearm(&mut self, memory: &Memory, seen: u64) -> io::Result<()> {
        while self.completed().is_some() {}
        let change = arm(memory);
        if now(memory).map_or(true, |plain| plain.version() != seen) {
            // Readable at once; also when the state cannot be read any more: that is news.
            return self.push(&opcode::Nop::new().build().user_data(NOW));
        }
        if !self.ticking {
            let tick: *const Timespec = &*self.tick;
            self.push(&opcode::Timeout::new(tick).build().user_data(CLOCK))?;
            self.ticking = true;
        }
        if !self.waiting {
            let word = memory.words().change.as_ptr();
            let wait = opcode::FutexWait::new(
                word,
                u64::from(change),
                u64::from(u32::MAX),
                FUTEX2_SIZE_U32,
            );
            self.push(&wait.build().user_data(WORD))?;
            self.waiting = true;
        }
        Ok(())
    }

    fn push(&mut self, entry: &io_uring::squeue::Entry) -> io::Result<()> {
        // SAFETY: the operations refer to the change word, which is mapped as long as `_memory`
        // is kept, and to the time in `tick`, whose address does not change; both outlive the
        // ring, since fields are dropped in order.
        unsafe { self.ring.submission().push(entry) }.map_err(io::Error::other)?;
        self.ring.submit().map(drop)
    }

    /// The next thing that has come.
    fn completed(&mut self) -> Option<(u64, i32)> {
        let next = self.ring.completion().next()?;
        match next.user_data() {
            WORD => self.waiting = false,
            CLOCK => self.ticking = false,
            _ => {}
        }
        Some((next.user_data(), next.result()))
    }
}

/// A watch that a bridge thread serves.
pub(crate) struct Bridged {
    /// Readable when there is news.
    event: Arc<OwnedFd>,
    sleeper: Sleeper,
}

impl Bridged {
    fn new(memory: &Arc<Memory>, seen: u64) -> Result<Self> {
        let bridged = Self { event: Bell::event()?, sleeper: Sleeper::new(memory)? };
        bridged.sleeper.wait_for(seen, None, Bell::Event(Arc::clone(&bridged.event)));
        Ok(bridged)
    }

    fn rearm(&self, seen: u64) {
        self.sleeper.cancel();
        let mut count = [0; 8];
        // Nothing to read is what is wanted.
        let _ = rustix::io::read(&self.event, &mut count);
        self.sleeper.wait_for(seen, None, Bell::Event(Arc::clone(&self.event)));
    }
}
