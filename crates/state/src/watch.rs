//! Waiting for a state to change.
//!
//! N1. A waiter notes the change word, arms the state for that value, looks at the version, and
//!     only then sleeps on the word. A committer makes its version visible, then looks whether the
//!     state is armed for the present value, and if so changes the word and wakes everybody. All
//!     of these are in one order, so no change is slept through.
//! N2. "Armed" names a value and only grows, so a waiter that died leaves at most one wake-up too
//!     many; a writer that nobody waits for makes no system call.
//! N3. A committer that dies between making its version visible and waking leaves sleepers; they
//!     look again by themselves, every [`RECHECK`].

use crate::{
    Result, Snapshot, draft::now, memory::Memory, poller::Poller, state::State, value::Value,
};
use mainstay_shm::futex;
use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

/// How often a sleeper looks by itself (N3).
pub(crate) const RECHECK: Duration = Duration::from_millis(100);

/// Waits for new versions of a state: blocking, or by a descriptor for poll, epoll or a runtime.
///
/// It tells *that* there is a newer version, not how many there were in between: reading gives the
/// newest.
///
/// ```
/// # use mainstay_state::Domain;
/// # use std::time::Duration;
/// # let dir = tempfile::tempdir()?;
/// # let domain = Domain::open(dir.path())?;
/// let state = domain.writer::<[u8]>("speed")?;
/// let mut watch = domain.reader::<[u8]>("speed")?.watch()?;
/// assert_eq!(watch.wait(Duration::from_millis(1))?, None);
/// state.replace(b"80")?;
/// assert_eq!(watch.wait(Duration::from_secs(10))?, Some(1));
/// assert_eq!(&*watch.read()?, b"80");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Watch<T: Value + ?Sized> {
    state: State<T>,
    seen: u64,
    poller: Option<Poller>,
}

impl<T: Value + ?Sized> Watch<T> {
    pub(crate) fn new(state: State<T>) -> Result<Self> {
        let seen = state.version()?;
        Ok(Self { state, seen, poller: None })
    }

    /// Waits until there is a version that this watch has not told of, at most `timeout`; returns
    /// its number, or none when the time was over.
    ///
    /// Example: see [`Watch`].
    ///
    /// # Errors
    /// `Deleted`, `Forked`, `Corrupt`.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<u64>> {
        let mut deadline = None;
        loop {
            // Before it is armed: a state that is armed costs its next writer a system call.
            if let Some(version) = self.news()? {
                return Ok(Some(version));
            }
            let change = arm(self.state.memory());
            if let Some(version) = self.news()? {
                return Ok(Some(version));
            }
            let now_is = Instant::now();
            let deadline = *deadline.get_or_insert_with(|| now_is.checked_add(timeout));
            let left = deadline.map_or(RECHECK, |at| at.saturating_duration_since(now_is));
            if left.is_zero() {
                return Ok(None);
            }
            futex::wait(&self.state.memory().words().change, change, left.min(RECHECK));
        }
    }

    /// The newest version that this watch has told of.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// A version that this watch has not told of, if there is one; never waits.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// let mut watch = state.watch()?;
    /// state.replace(b"80")?;
    /// state.replace(b"90")?;
    /// assert_eq!((watch.news()?, watch.news()?), (Some(2), None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Watch::wait`].
    pub fn news(&mut self) -> Result<Option<u64>> {
        self.state.memory().tenant.check_process(self.state.name())?;
        let version = now(self.state.memory())?.version();
        if version == self.seen {
            return Ok(None);
        }
        self.seen = version;
        Ok(Some(version))
    }

    /// The current version.
    ///
    /// Example: see [`Watch`].
    ///
    /// # Errors
    /// As [`State::read`].
    pub fn read(&self) -> Result<Snapshot<'_, T>> {
        self.state.read()
    }

    /// The handle it waits on.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// assert_eq!(state.watch()?.state().name(), "speed");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn state(&self) -> &State<T> {
        &self.state
    }

    /// A descriptor that is readable when there may be something new: then call
    /// [`Watch::acknowledge`]. It can be readable although nothing has changed.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # use rustix::event::{PollFd, PollFlags, poll};
    /// # let dir = tempfile::tempdir()?;
    /// # let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// let mut watch = state.watch()?;
    /// watch.descriptor()?;
    /// state.replace(b"80")?;
    /// let fd = watch.descriptor()?;
    /// poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], None)?;
    /// assert_eq!(watch.acknowledge()?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Watch` when the kernel allows neither way of waiting; `Forked`.
    pub fn descriptor(&mut self) -> Result<BorrowedFd<'_>> {
        if self.poller.is_none() {
            let memory = self.state.memory();
            memory.tenant.check_process(&memory.name)?;
            self.poller = Some(Poller::new(memory, self.seen)?);
        }
        Ok(self.poller.as_ref().expect("made above").as_fd())
    }

    /// Takes note of what the descriptor has told: returns the newest version, if there is one that
    /// this watch has not told of, and gets ready for the next.
    ///
    /// Example: see [`Watch::descriptor`].
    ///
    /// # Errors
    /// As [`Watch::wait`], and `Watch`.
    pub fn acknowledge(&mut self) -> Result<Option<u64>> {
        let news = self.news()?;
        if let Some(poller) = &mut self.poller {
            poller.rearm(self.state.memory(), self.seen)?;
        }
        Ok(news)
    }

    /// How the descriptor waits: `io_uring`, or `bridge thread` where that is refused; none before
    /// it was asked for.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// # let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// let mut watch = state.watch()?;
    /// assert_eq!(watch.how(), None);
    /// watch.descriptor()?;
    /// assert!(matches!(watch.how(), Some("io_uring" | "bridge thread")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn how(&self) -> Option<&'static str> {
        self.poller.as_ref().map(Poller::how)
    }
}

impl<T: Value + ?Sized> AsRawFd for Watch<T> {
    /// -1 before [`Watch::descriptor`] was called.
    fn as_raw_fd(&self) -> RawFd {
        self.poller.as_ref().map_or(-1, |poller| poller.as_fd().as_raw_fd())
    }
}

/// Notes the change word and arms the state for it (N1); returns its value.
pub(crate) fn arm(memory: &Memory) -> u32 {
    let change = memory.words().change.load(SeqCst);
    let wanted = change.wrapping_add(1);
    let armed = &memory.pin_words().armed;
    // SeqCst also where it is armed already: the look at the version must not come first (N1).
    let mut seen = armed.load(SeqCst);
    // N2: only grows, round the end.
    while wanted.wrapping_sub(seen) as i32 > 0 {
        match armed.compare_exchange(seen, wanted, SeqCst, SeqCst) {
            Ok(_) => break,
            Err(found) => seen = found,
        }
    }
    change
}
