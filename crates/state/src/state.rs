//! A subscription to a state.

use crate::{
    Changes, CommitHook, Error, Follower, Publisher, Result, RetryPolicy, Scavenged, Snapshot,
    StateInfo, Transaction, View, Watch,
    copied::Copied,
    draft::{self, Draft, check_size, ensure_capacity, now, replace, shrinks},
    line::{Line, Pin, len_of},
    list,
    memory::Memory,
    persist::{self, Durable, Grade},
    protocol, subscribe,
    value::Value,
    word::VERSION_NEVER,
};
use mainstay_shm::Atomic64;
use std::{
    cell::Cell,
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    time::Duration,
};

/// A subscription to a state: to read it, and, if it was asked for and the file allows it, to write
/// it. Dropping it ends it; a transient state ends with its last subscriber.
///
/// A handle is for one thread at a time; each thread takes one of its own
/// ([`State::try_clone`]).
///
/// ```
/// use mainstay_state::Domain;
/// # let dir = tempfile::tempdir()?;
/// # let domain = Domain::open(dir.path())?;
/// let state = domain.writer::<[u8]>("speed")?;
/// let mut transaction = state.begin()?;
/// transaction.bytes_mut()?[..2].copy_from_slice(b"80");
/// assert_eq!(transaction.commit()?, 1);
/// assert_eq!(&state.read()?[..2], b"80");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A handle that was dropped is no subscription any more, and the compiler sees to it that nothing is
/// begun on it,
///
/// ```compile_fail,E0382
/// # let state = mainstay_state::Domain::open("x")?.writer::<[u8]>("speed")?;
/// drop(state);
/// state.begin()?;
/// # Ok::<(), mainstay_state::Error>(())
/// ```
///
/// and that nothing read through it is looked at any longer.
///
/// ```compile_fail,E0505
/// # let state = mainstay_state::Domain::open("x")?.writer::<[u8]>("speed")?;
/// let snapshot = state.read()?;
/// drop(state);
/// assert_eq!(snapshot[0], 0);
/// # Ok::<(), mainstay_state::Error>(())
/// ```
#[derive(Debug)]
pub struct State<T: Value + ?Sized> {
    /// Before the memory: it is given back through it.
    pub(crate) line: Line,
    memory: Arc<Memory>,
    pub(crate) copied: Cell<Copied>,
    _value: PhantomData<fn() -> Box<T>>,
}

impl<T: Value + ?Sized> State<T> {
    pub(crate) fn new(memory: Arc<Memory>) -> Result<Self> {
        let line = Line::take(&memory)?;
        let copied = Cell::new(Copied::first::<T>(line.near())?);
        Ok(Self { line, memory, copied, _value: PhantomData })
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    #[inline(always)]
    pub(crate) fn begin_draft(&self) -> Result<Draft<'_>> {
        Draft::begin(&self.memory, &self.line)
    }

    /// Another handle of the same subscription, for another thread.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// # let domain = Domain::open(dir.path())?;
    /// let state = domain.writer::<[u8]>("speed")?;
    /// let other = state.try_clone()?;
    /// std::thread::spawn(move || other.replace(b"80").map(drop)).join().unwrap()?;
    /// assert_eq!(&*state.read()?, b"80");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `NoFreeLine`, `Forked`.
    pub fn try_clone(&self) -> Result<Self> {
        self.memory.tenant.check_process(&self.memory.name)?;
        Self::new(Arc::clone(&self.memory))
    }

    /// Its name.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// assert_eq!((state.name(), state.is_writable()), ("speed", true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.memory.name
    }

    /// Whether this subscription may write.
    ///
    /// Example: see [`State::name`].
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.memory.is_writable()
    }

    /// The current version, pinned: no copy, and nobody is waited for. A state never written reads
    /// as zeros, version 0.
    ///
    /// Example: see [`Snapshot`].
    ///
    /// # Errors
    /// `Deleted`, `Forked`, `Corrupt`; `NoFreeLine` for a snapshot beside others of this handle.
    #[inline(always)]
    pub fn read(&self) -> Result<Snapshot<'_, T>> {
        Snapshot::new(Pin::new(&self.line)?)
    }

    /// The number of the current version, without pinning it.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// assert_eq!(state.version()?, 0);
    /// assert_eq!(state.replace(b"120")?, 1);
    /// assert_eq!(state.version()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`State::read`].
    #[inline]
    pub fn version(&self) -> Result<u64> {
        self.memory.tenant.check_process(&self.memory.name)?;
        Ok(now(&self.memory)?.version())
    }

    /// Begins a transaction on what is current now.
    ///
    /// Example: see [`State`].
    ///
    /// # Errors
    /// `NotPermitted` when this subscription may only read; else as [`State::read`].
    #[inline(always)]
    pub fn begin(&self) -> Result<Transaction<'_, T>> {
        Ok(Transaction::new(self.begin_draft()?))
    }

    /// Begins a transaction that may outlive this handle.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// # let domain = Domain::open(dir.path())?;
    /// let state = domain.writer::<[u8]>("speed")?;
    /// let witness = domain.reader::<[u8]>("speed")?;
    /// let mut transaction = state.begin_kept()?;
    /// drop(state);
    /// transaction.bytes_mut()?[0] = 7;
    /// transaction.commit()?;
    /// assert_eq!(witness.read()?[0], 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`State::begin`], and `NoFreeLine`.
    pub fn begin_kept(&self) -> Result<Transaction<'static, T>> {
        Ok(Transaction::new(Draft::begin_kept(&self.memory)?))
    }

    /// Makes `value` the next version, whatever the current one is; returns its number. One copy,
    /// and never a conflict.
    ///
    /// Example: see [`State::version`].
    ///
    /// # Errors
    /// `NotPermitted`, `Size`, `NoFreeSlot`, `Deleted`, `Forked`, `Corrupt`, `Memory` when there is
    /// no room.
    #[inline]
    pub fn replace(&self, value: &T) -> Result<u64> {
        replace(&self.memory, value.bytes())
    }

    /// What replaces whole values again and again, faster than [`State::replace`].
    ///
    /// Example: see [`Publisher`].
    ///
    /// # Errors
    /// `NotPermitted`, `Forked`.
    pub fn publisher(&self) -> Result<Publisher<T>> {
        Publisher::new(&self.memory)
    }

    /// Begins a transaction, calls `change` with it, commits; on a conflict waits a little and
    /// begins again, as `policy` says. Returns what `change` returned in the try that was
    /// committed.
    ///
    /// ```
    /// # use mainstay_state::{Domain, RetryPolicy};
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("count")?;
    /// let count = state.transact(RetryPolicy::default(), |transaction| {
    ///     let bytes = transaction.bytes_mut()?;
    ///     bytes[0] += 1;
    ///     Ok(bytes[0])
    /// })?;
    /// assert_eq!(count, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Whatever `change` returns, at once, except `Conflict`; `RetriesExhausted`; as
    /// [`State::begin`].
    pub fn transact<R>(
        &self,
        policy: RetryPolicy,
        mut change: impl FnMut(&mut Transaction<'_, T>) -> Result<R>,
    ) -> Result<R> {
        policy.run(|| {
            let mut transaction = self.begin()?;
            let result = change(&mut transaction)?;
            transaction.commit()?;
            Ok(result)
        })
    }

    /// How many bytes it has: what a version begun from one never written has, and what
    /// [`State::set_size`] and longer values have made of it since.
    ///
    /// Example: see [`crate::StateOptions`].
    ///
    /// # Errors
    /// `Corrupt`, `Deleted`, `Forked`.
    pub fn size(&self) -> Result<usize> {
        let current = {
            let plain = now(&self.memory)?;
            if plain.version() == VERSION_NEVER { 0 } else { len_of(&self.memory, plain)? }
        };
        let size = self.memory.words().size.load(Acquire);
        Ok(usize::try_from(size).unwrap_or(usize::MAX).max(current))
    }

    /// Changes its size: to any until the first commit, later only to a larger one, which makes a
    /// new version with zeros at its end.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("frames")?;
    /// state.set_size(16)?;
    /// state.set_size(8)?;
    /// state.replace(b"12345678")?;
    /// state.set_size(10)?;
    /// assert_eq!(&*state.read()?, b"12345678\0\0");
    /// assert!(state.set_size(9).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Size`, `NotPermitted`, and as [`State::transact`].
    pub fn set_size(&self, bytes: usize) -> Result<()> {
        let memory = &*self.memory;
        if !memory.is_writable() {
            return Err(Error::NotPermitted { state: memory.name.clone() });
        }
        memory.tenant.check_process(&memory.name)?;
        check_size(memory, bytes)?;
        ensure_capacity(memory, bytes)?;
        if now(memory)?.version() == VERSION_NEVER {
            memory.words().size.store(bytes as u64, Release);
            return Ok(());
        }
        if bytes < self.size()? {
            return Err(shrinks(memory, bytes));
        }
        let size = &memory.words().size;
        let mut seen = size.load(Relaxed);
        while seen < bytes as u64 {
            match size.compare_exchange(seen, bytes as u64, AcqRel, Relaxed) {
                Ok(_) => break,
                Err(found) => seen = found,
            }
        }
        self.transact(RetryPolicy::default(), |transaction| {
            if transaction.raw_len()? < bytes {
                transaction.resize(bytes)?;
            }
            Ok(())
        })
    }

    /// Waits for changes.
    ///
    /// Example: see [`Watch`].
    ///
    /// # Errors
    /// `Forked`, `NoFreeLine`, and as [`State::read`].
    pub fn watch(&self) -> Result<Watch<T>> {
        Watch::new(self.try_clone()?)
    }

    /// A view that changes no more often than every `interval`.
    ///
    /// Example: see [`View`].
    ///
    /// # Errors
    /// As [`State::read`].
    pub fn view(&self, interval: Duration) -> Result<View<T>> {
        View::new(self.try_clone()?, interval)
    }

    /// Its changes, as an asynchronous stream.
    ///
    /// Example: see [`Changes`].
    ///
    /// # Errors
    /// As [`State::watch`].
    pub fn changes(&self) -> Result<Changes<T>> {
        Ok(Changes::new(self.watch()?))
    }

    /// Calls a hook for commits of all processes, from now on and as long as what is returned lives:
    /// in a thread of its own, with the newest version each time, and no more often than every
    /// `interval`. Writers pay what a waiter costs them, a wake-up a call. While the hook runs, the
    /// version that it is shown keeps its slot.
    ///
    /// Example: see [`Follower`].
    ///
    /// # Errors
    /// As [`State::watch`], and `Watch` when no thread can be started.
    pub fn follow(&self, interval: Duration, hook: impl CommitHook + 'static) -> Result<Follower>
    where
        T: 'static,
    {
        Follower::start(self.watch()?, interval, hook)
    }

    /// Keeps the state in the file at `path` from now on: it no longer ends with its last
    /// subscriber. With [`Grade::Machine`] its newest versions are written to the disk in the
    /// background, by this process and by all that commit to it, so it survives a power cut; with [`Grade::Process`] it
    /// survives all processes, and the file is written when a subscriber leaves in good order.
    ///
    /// ```
    /// # use mainstay_state::{Domain, Grade, StateOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let domain = Domain::open(dir.path().join("states"))?;
    /// let file = dir.path().join("speed.durable");
    /// let state = domain.writer::<[u8]>("speed")?;
    /// state.set_persistent(&file, Grade::Machine)?;
    /// state.replace(b"120")?;
    /// state.sync()?;
    ///
    /// // After a power cut the folder in memory is empty:
    /// let later = Domain::open(dir.path().join("other"))?;
    /// let options = StateOptions::new().persistent(&file, Grade::Machine);
    /// assert_eq!(&*options.writer::<[u8]>(&later, "speed")?.read()?, b"120");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `OtherPath` when it is kept elsewhere, or is to go back to a lesser grade; `Path`, `Durable`,
    /// `NotPermitted`.
    pub fn set_persistent(&self, path: impl AsRef<Path>, grade: Grade) -> Result<()> {
        if !self.memory.is_writable() {
            return Err(Error::NotPermitted { state: self.memory.name.clone() });
        }
        self.memory.tenant.check_process(&self.memory.name)?;
        let durable = Durable::at(path.as_ref())?;
        persist::set(&self.memory, &durable, grade)
    }

    /// Where it is kept, and how; none while it is transient.
    ///
    /// Example: see [`State::set_persistent`].
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn persistence(&self) -> Result<Option<(PathBuf, Grade)>> {
        persist::of(&self.memory)
    }

    /// Writes the current versions of all states of the folder that survive the machine to the
    /// disk, as of one instant; returns when they are there.
    ///
    /// Example: see [`State::set_persistent`].
    ///
    /// # Errors
    /// `Durable`; `NotPermitted` when this state is transient or read-only.
    pub fn sync(&self) -> Result<()> {
        if self.persistence()?.is_none() || !self.memory.is_writable() {
            return Err(Error::NotPermitted { state: self.memory.name.clone() });
        }
        self.memory.tenant.check_process(&self.memory.name)?;
        persist::sync(&self.memory.tenant)
    }

    /// Deletes the state, if no other living process is subscribed. Afterwards every use of it
    /// fails with `Deleted`; a file that it was kept in is removed.
    ///
    /// ```
    /// # use mainstay_state::{Domain, Error};
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// state.delete()?;
    /// assert!(matches!(state.read(), Err(Error::Deleted { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `InUse`, `NotPermitted`, `Deleted`.
    pub fn delete(&self) -> Result<()> {
        let memory = &*self.memory;
        if !memory.is_writable() {
            return Err(Error::NotPermitted { state: memory.name.clone() });
        }
        let tenant = &memory.tenant;
        tenant.check_process(&memory.name)?;
        let _gate = subscribe::gate(tenant, &memory.name)?;
        let others = subscribe::subscribers(tenant, memory.header.id)?;
        if let Some(other) = others.into_iter().find(|lease| *lease != tenant.lease()) {
            let pid = tenant.lease_entry(other).map_or(0, |entry| entry.pid.load(Relaxed));
            return Err(Error::InUse { state: memory.name.clone(), pid });
        }
        let kept = self.persistence()?;
        if !draft::delete(memory)? {
            return Err(Error::Deleted { state: memory.name.clone() });
        }
        subscribe::remove(tenant, &memory.name, memory.header.id);
        if let Some((path, _)) = kept {
            persist::remove(&path)?;
        }
        Ok(())
    }

    /// Frees what dead processes hold of it: slots they were writing, versions they were reading,
    /// commits they had begun. Whoever needs any of that takes it anyway; this does it at once.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// let freed = state.scavenge()?;
    /// assert_eq!((freed.claims, freed.pins, freed.handles), (0, 0, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `NotPermitted`, `Forked`.
    pub fn scavenge(&self) -> Result<Scavenged> {
        let memory = &*self.memory;
        if !memory.is_writable() {
            return Err(Error::NotPermitted { state: memory.name.clone() });
        }
        memory.tenant.check_process(&memory.name)?;
        memory.cover()?;
        let done = protocol::scavenge(&*memory.tenant, memory);
        memory.tenant.tally(|c| &c.scavenged_claims, done.claims.into());
        memory.tenant.tally(|c| &c.scavenged_pins, done.pins.into());
        Ok(done)
    }

    /// What there is to say about it: sizes, versions, subscribers.
    ///
    /// Example: see [`StateInfo`].
    ///
    /// # Errors
    /// `Corrupt`, `Memory`.
    pub fn info(&self) -> Result<StateInfo> {
        self.memory.tenant.check_process(&self.memory.name)?;
        list::of(&self.memory)
    }
}

impl<T: Value + ?Sized> Drop for State<T> {
    fn drop(&mut self) {
        const PROCESS: u64 = Grade::Process as u64;
        const MACHINE: u64 = Grade::Machine as u64;
        let memory = &*self.memory;
        if !memory.is_writable() || !memory.tenant.epoch.is_current() {
            return;
        }
        // What fails is as before: not written.
        match memory.words().grade.load(Acquire) {
            // The last handle of this process (the line has the other reference): a state that only
            // survives processes gets its file written.
            PROCESS if Arc::strong_count(&self.memory) <= 2 => drop(persist::sync(&memory.tenant)),
            // This process may be about to end, with a version that the thread has not written yet.
            MACHINE => drop(persist::sync_news(&memory.tenant)),
            _ => {}
        }
    }
}
