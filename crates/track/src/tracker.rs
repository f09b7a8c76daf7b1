//! The tracker.

use crate::{
    Change, ChangeKind, Checkpoints, ClockVector, Edit, Error, Result, TrackerOptions, Waiter,
    Worker,
    limits::{LATENCY_MAX, LATENCY_MIN},
    marks::Marks,
    options::Find,
    state::State,
    waiter::{Signals, next_look},
    watched::Registration,
};
use mainstay_base::hlc::{Clock, NodeId, Stamp, Version};
use mainstay_pool::{
    Batch, Block, BlockId, Cut, Event, EventKind, Ground, Monitor, MonitorId, Pool, Record, Uuid,
};
use mainstay_shm::{Watch, hook, page_faults};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

/// By what a tracker finds changes.
///
/// Example: see [`Tracker::method`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Method {
    /// The kernel says which pages were written.
    Pages,
    /// Every block is compared with its checksum.
    Compare,
    /// Only blocks that were marked are looked at.
    Marks,
}

/// What a flush has found.
///
/// Example: see [`Tracker::flush`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Flush {
    /// The blocks that differ from the last flush, each once, in order of their numbers.
    pub changes: Vec<Change>,
    /// The version of all of them; none when there are none.
    pub version: Option<Version>,
    /// By what they were found.
    pub method: Method,
    /// Everything was compared: by the method, or because others wrote that nobody watches.
    pub compared: bool,
    /// Blocks looked at.
    pub examined: u64,
    /// Bytes of pages that the kernel said were written.
    pub written_bytes: u64,
    /// Processes that were found to have died inside of a batch.
    pub broken_batches: u32,
}

/// Tracks the changes of one pool.
///
/// Dropping it ends the tracking. A child made by fork is refused.
///
/// Example: see the [crate](crate).
pub struct Tracker {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) pool: Pool,
    options: TrackerOptions,
    watch: Option<Watch>,
    /// The watch was refused, or has failed.
    unwatched: AtomicBool,
    refusal: Option<String>,
    pub(crate) marks: Arc<Marks>,
    monitor: MonitorId,
    /// One flush at a time, its events included.
    flushing: Mutex<()>,
    state: Mutex<State>,
    pub(crate) signals: Signals,
    /// Page faults of the process when the last scan began.
    faults: AtomicU64,
    /// Others write, whose faults are not ours.
    others: AtomicBool,
    _registration: Registration,
}

/// Listens for what no page tells: a length that was changed, and a life that began or ended after
/// its page was scanned.
struct Listener {
    marks: Arc<Marks>,
}

impl Monitor for Listener {
    fn event(&self, event: &Event<'_>) {
        let Some(block) = event.block else { return };
        if matches!(
            event.kind,
            EventKind::BlockResize
                | EventKind::BlockAllocate
                | EventKind::BlockReserve
                | EventKind::BlockFree
        ) {
            self.marks.set(block.number);
        }
    }
}

impl Tracker {
    /// Begins to track the pool, by page faults if the kernel lets us, else by comparing.
    ///
    /// Reads all live blocks once. Those that differ from what their headers say are reported by
    /// the first flush: they changed while nobody tracked.
    ///
    /// Example: see the [crate](crate).
    ///
    /// # Errors
    /// `AlreadyTracked`; `Pool` for a child made by fork, or inside of a monitor.
    pub fn new(pool: &Pool) -> Result<Self> {
        TrackerOptions::default().track(pool)
    }

    pub(crate) fn with(pool: &Pool, options: TrackerOptions) -> Result<Self> {
        let registration = Registration::new(pool)?;
        let ground = pool.ground()?;
        let (watch, refusal) = match options.find {
            Find::Pages => match Watch::new(ground.mapping()) {
                Ok(watch) => (Some(watch), None),
                Err(refused) => (None, Some(refused.to_string())),
            },
            Find::Compare | Find::Marks => (None, None),
        };
        let marks = Arc::new(Marks::new(ground.blocks_per_extent(), ground.extents_max()));
        let clock = Clock::new(options.node).ahead_ns_max(options.ahead_ns_max);
        let mut state = State::new(clock);
        state.neighbours.begin(ground)?;
        // The watch is on: what is written while the headers are read is reported twice, not never.
        state.learn(ground, (options.wall)())?;
        let monitor = pool.add_monitor(Arc::new(Listener { marks: marks.clone() }))?;
        let shared = Shared {
            pool: pool.clone(),
            unwatched: AtomicBool::new(watch.is_none()),
            options,
            watch,
            refusal,
            marks,
            monitor,
            flushing: Mutex::new(()),
            state: Mutex::new(state),
            signals: Signals::default(),
            faults: AtomicU64::new(0),
            others: AtomicBool::new(false),
            _registration: registration,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// By what it finds changes now.
    ///
    /// ```
    /// use mainstay_track::{Method, Tracker};
    /// let pool = mainstay_pool::PoolOptions::new("calls", 64).create_memfd()?;
    /// let tracker = Tracker::new(&pool)?;
    /// match tracker.method() {
    ///     Method::Compare => println!("slow: {}", tracker.refusal().unwrap_or("asked for")),
    ///     method => println!("{method:?}"),
    /// }
    /// # Ok::<(), mainstay_track::Error>(())
    /// ```
    #[must_use]
    pub fn method(&self) -> Method {
        self.shared.method()
    }

    /// Why the kernel does not tell which pages are written, if it was asked and refused.
    ///
    /// Example: see [`Tracker::method`].
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.shared.refusal.as_deref()
    }

    /// The pool.
    ///
    /// ```
    /// # let pool = mainstay_pool::PoolOptions::new("calls", 64).create_memfd()?;
    /// assert_eq!(mainstay_track::Tracker::new(&pool)?.pool().name(), "calls");
    /// # Ok::<(), mainstay_track::Error>(())
    /// ```
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    /// Finds what changed since the last flush, and reports it: to the caller, and to the pool's
    /// monitors as `ShareChange` for each extent with written pages, `BlockChange` for each block,
    /// and `FlushCommit` when all is told.
    ///
    /// Waits for open batches, so it sees each all or not at all. Writers outside of batches are
    /// not held up, and may write meanwhile: what they write is reported now, or by the next flush,
    /// or by both.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions};
    /// use mainstay_track::Tracker;
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let tracker = Tracker::new(&pool)?;
    /// let call = pool.allocate(Kind::Recoverable)?;
    /// let flush = tracker.flush()?;
    /// assert_eq!(flush.changes[0].uuid, call.uuid());
    /// assert_eq!(flush.version, Some(flush.changes[0].version));
    /// assert!(flush.examined >= 1 && flush.broken_batches == 0);
    /// # Ok::<(), mainstay_track::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Pool` with `InsideBatch`, `BatchOpen`, `CutOpen`, `Forked`, `InsideMonitor`, `Corrupt`.
    /// Nothing is lost (T4).
    pub fn flush(&self) -> Result<Flush> {
        self.shared.flush_and(|_, _, _| Ok(())).map(|(flush, ())| flush)
    }

    /// Says that a block was written. Needed only where page faults do not tell
    /// ([`TrackerOptions::marks_only`]); call it after the write.
    ///
    /// Example: see [`TrackerOptions::marks_only`].
    ///
    /// # Errors
    /// `OtherPool`.
    pub fn mark_dirty<T: ?Sized>(&self, block: &Block<T>) -> Result<()> {
        self.check_own(block)?;
        self.mark(block.number());
        Ok(())
    }

    /// A copy of a block's value, to be changed, written back and marked.
    ///
    /// Example: see [`Edit`].
    ///
    /// # Errors
    /// `OtherPool`.
    pub fn edit<'t, T: Record>(&'t self, block: &'t Block<T>) -> Result<Edit<'t, T>> {
        Edit::new(self, block)
    }

    pub(crate) fn mark(&self, number: u32) {
        self.shared.marks.set(number);
    }

    pub(crate) fn check_own<T: ?Sized>(&self, block: &Block<T>) -> Result<()> {
        if self.shared.pool.owns(block) {
            return Ok(());
        }
        Err(Error::OtherPool {
            number: block.number(),
            found: block.pool_name().to_owned(),
            wanted: self.shared.pool.name().to_owned(),
        })
    }

    /// Holds flushes off while a batch of changes is made: a flush sees all of it or nothing. The
    /// same as [`Pool::batch`], which processes without a tracker use.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions};
    /// use mainstay_track::Tracker;
    /// let pool = PoolOptions::new("accounts", 64).create_memfd()?;
    /// let tracker = Tracker::new(&pool)?;
    /// let (from, to) = (pool.allocate(Kind::Recoverable)?, pool.allocate(Kind::Recoverable)?);
    /// let share = tracker.lock_share()?;
    /// from.write(0, &[90])?;
    /// to.write(0, &[110])?;
    /// tracker.unlock_share(share);
    /// assert_eq!(tracker.flush()?.changes.len(), 2);
    /// # Ok::<(), mainstay_track::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Pool::batch`].
    pub fn lock_share(&self) -> Result<Batch<'_>> {
        Ok(self.shared.pool.batch()?)
    }

    /// Ends what [`Tracker::lock_share`] began, as dropping it does.
    ///
    /// Example: see [`Tracker::lock_share`].
    pub fn unlock_share(&self, share: Batch<'_>) {
        share.end();
    }

    /// All that is later than what `seen` has: what a peer that asks "what changed since" has to be
    /// told. In the order of versions; of a block only its last change.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions};
    /// use mainstay_track::{ClockVector, Tracker};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let tracker = Tracker::new(&pool)?;
    /// let (one, two) = (pool.allocate(Kind::Recoverable)?, pool.allocate(Kind::Recoverable)?);
    /// tracker.flush()?;
    /// assert_eq!(tracker.changes_since(&ClockVector::default()).len(), 2);
    /// let seen = tracker.vector()?;
    /// two.write(0, b"ringing")?;
    /// tracker.flush()?;
    /// let later = tracker.changes_since(&seen);
    /// assert_eq!(later.iter().map(|change| change.id).collect::<Vec<_>>(), [two.id()]);
    /// # drop(one);
    /// # Ok::<(), mainstay_track::Error>(())
    /// ```
    #[must_use]
    pub fn changes_since(&self, seen: &ClockVector) -> Vec<Change> {
        self.shared.state().since(seen)
    }

    /// The latest version of each node among all that this tracker knows.
    ///
    /// Example: see [`Tracker::changes_since`].
    ///
    /// # Errors
    /// `Limit` when they are of too many nodes.
    pub fn vector(&self) -> Result<ClockVector> {
        let mut vector = ClockVector::default();
        let state = self.shared.state();
        state.versions().try_for_each(|version| vector.include(version))?;
        Ok(vector)
    }

    /// Takes note of what a peer has: [`Tracker::changes_for`] leaves that out from now on.
    ///
    /// ```
    /// use mainstay_base::hlc::NodeId;
    /// # use mainstay_pool::{Kind, PoolOptions};
    /// # use mainstay_track::Tracker;
    /// # let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// # let tracker = Tracker::new(&pool)?;
    /// # let call = pool.allocate(Kind::Recoverable)?;
    /// let peer = NodeId::new(7);
    /// tracker.flush()?;
    /// assert_eq!(tracker.changes_for(peer).len(), 1);
    /// tracker.acknowledge(peer, &tracker.vector()?)?; // the peer says it has got it
    /// assert!(tracker.changes_for(peer).is_empty());
    /// # Ok::<(), mainstay_track::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Limit` when there are too many peers, or nodes.
    pub fn acknowledge(&self, peer: NodeId, has: &ClockVector) -> Result<()> {
        let mut state = self.shared.state();
        let peers = state.acknowledged.len() as u64;
        let max = crate::limits::NODES_MAX as u64;
        if peers >= max && !state.acknowledged.contains_key(&peer) {
            return Err(Error::Limit { what: "number of peers", value: peers + 1, min: 0, max });
        }
        state.acknowledged.entry(peer).or_default().merge(has)
    }

    /// All that a peer has not acknowledged.
    ///
    /// Example: see [`Tracker::acknowledge`].
    #[must_use]
    pub fn changes_for(&self, peer: NodeId) -> Vec<Change> {
        let state = self.shared.state();
        state.since(state.acknowledged.get(&peer).unwrap_or(&ClockVector::default()))
    }

    /// Takes a block as it is now for known, with the version that another node gave it: for those
    /// who write what they received, so that it is not reported as a change of this node.
    ///
    /// ```
    /// use mainstay_base::hlc::{NodeId, Stamp, Version};
    /// use mainstay_pool::{Kind, PoolOptions};
    /// use mainstay_track::{Error, TrackerOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let tracker = TrackerOptions::default().wall(|| 1 << 40).track(&pool)?;
    /// let call = pool.allocate(Kind::Recoverable)?;
    /// call.write(0, b"from afar")?;
    /// let received = Version { stamp: Stamp::from_ns(1 << 40), node: NodeId::new(7) };
    /// tracker.adopt(&call, received)?;
    /// assert!(tracker.flush()?.changes.is_empty());
    ///
    /// let wrong_clock = Version { stamp: Stamp::from_ns(1 << 50), ..received };
    /// assert!(matches!(tracker.adopt(&call, wrong_clock), Err(Error::Clock(_))));
    /// # Ok::<(), mainstay_track::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Clock` when the version is too far ahead of this node's clock; `OtherPool`; `Pool`.
    pub fn adopt<T: ?Sized>(&self, block: &Block<T>, version: Version) -> Result<()> {
        self.check_own(block)?;
        let ground = self.shared.pool.ground()?;
        let _flushing = self.shared.flushing();
        let mut state = self.shared.state();
        state.clock.observe((self.shared.options.wall)(), version.stamp)?;
        state.adopt(ground, block.number(), version)
    }

    /// The last stamp of this tracker's clock.
    ///
    /// ```
    /// # let pool = mainstay_pool::PoolOptions::new("calls", 64).create_memfd()?;
    /// use mainstay_base::hlc::Stamp;
    /// assert_eq!(mainstay_track::Tracker::new(&pool)?.last(), Stamp::ZERO);
    /// # Ok::<(), mainstay_track::Error>(())
    /// ```
    #[must_use]
    pub fn last(&self) -> Stamp {
        self.shared.state().clock.last()
    }

    /// Waits for something to flush; wakes at the latest `latency` after the first write.
    ///
    /// Example: see [`Waiter`].
    ///
    /// # Errors
    /// `Limit` for a latency outside of [`LATENCY_MIN`] to [`LATENCY_MAX`]; `System`.
    pub fn waiter(&self, latency: Duration) -> Result<Waiter> {
        if !(LATENCY_MIN..=LATENCY_MAX).contains(&latency) {
            let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            let (min, max) = (ns(LATENCY_MIN), ns(LATENCY_MAX));
            return Err(Error::Limit { what: "latency in ns", value: ns(latency), min, max });
        }
        Waiter::new(self.shared.clone(), latency)
    }

    /// Makes checkpoints of what this tracker sees change. Blocks that changed are remembered from
    /// now on for one of these: have one at a time, which the lock of its file sees to.
    ///
    /// Example: see [`Checkpoints`].
    ///
    /// # Errors
    /// As [`Pool::checkpointer`].
    pub fn checkpoints(&self) -> Result<Checkpoints> {
        let tracker = Self { shared: self.shared.clone() };
        Checkpoints::new(tracker)
    }

    /// Flushes in a thread of its own, at the latest `latency` after the first write, and hands
    /// what it found to `each`.
    ///
    /// Example: see [`Worker`].
    ///
    /// # Errors
    /// As [`Tracker::waiter`].
    pub fn spawn(
        &self,
        latency: Duration,
        each: impl FnMut(Result<Flush>) + Send + 'static,
    ) -> Result<Worker> {
        let waiter = self.waiter(latency)?;
        Worker::new(Self { shared: self.shared.clone() }, waiter, each)
    }
}

impl Shared {
    fn flushing(&self) -> MutexGuard<'_, ()> {
        self.flushing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn method(&self) -> Method {
        match self.options.find {
            Find::Pages if !self.unwatched.load(Relaxed) => Method::Pages,
            Find::Pages | Find::Compare => Method::Compare,
            Find::Marks => Method::Marks,
        }
    }

    /// Flushes; while still no batch is open, `also` may look at the same state of the pool.
    pub(crate) fn flush_and<T>(
        &self,
        also: impl FnOnce(Ground<'_>, &Cut<'_>, &mut State) -> Result<T>,
    ) -> Result<(Flush, T)> {
        let ground = self.pool.ground()?;
        let _flushing = self.flushing();
        let cut = self.pool.cut(self.options.batch_wait)?;
        let broken_batches = cut.broken();
        let mut state = self.state();
        // From here on a write is a new one.
        self.signals.reset();
        self.faults.store(page_faults(), Release);
        let method = self.method();
        let by_others = match method {
            Method::Marks => false,
            _ if hook::planted("others-unseen") => false,
            Method::Pages | Method::Compare => state.neighbours.survey(ground)?,
        };
        state.everything |= by_others || method == Method::Compare;
        self.others.store(state.neighbours.any(), Release);
        let mut compared = state.everything;
        let watch = self.watch.as_ref().filter(|_| method == Method::Pages);
        let collected = state.collect(ground, watch, &self.marks)?;
        if collected.watch_failed {
            self.unwatched.store(true, Relaxed);
            compared = true;
        }
        let examined = state.examine(ground, (self.options.wall)())?;
        let done = also(ground, &cut, &mut state)?;
        // Not before: had anything failed, the next flush would have to tell it (T4).
        let changes = state.found();
        drop(state);
        drop(cut);
        let flush = Flush {
            version: changes.last().map(|change| change.version),
            changes,
            method: self.method(),
            compared,
            examined,
            written_bytes: collected.bytes,
            broken_batches,
        };
        tell(ground, &collected.extents, &flush);
        Ok((flush, done))
    }

    /// Whether there may be something to flush. `faults` is what the last look saw of them.
    pub(crate) fn may_have_changed(&self, faults: &mut u64) -> bool {
        if self.marks.any() || self.others.load(Acquire) {
            return true;
        }
        match self.method() {
            Method::Marks => false,
            // Nobody tells: it may be.
            Method::Compare => true,
            Method::Pages => {
                let now = page_faults();
                let known = next_look(*faults, self.faults.load(Acquire));
                if now == known {
                    return false;
                }
                *faults = now;
                self.any_page_written()
            }
        }
    }

    /// Rather yes than no.
    fn any_page_written(&self) -> bool {
        let (Some(watch), Ok(ground)) = (&self.watch, self.pool.ground()) else { return true };
        let Ok(extents) = ground.extents() else { return true };
        (0..extents).any(|extent| watch.any(ground.data(extent)).unwrap_or(true))
    }
}

fn tell(ground: Ground<'_>, extents: &[u64], flush: &Flush) {
    for extent in extents {
        let number = (extent * ground.blocks_per_extent()) as u32;
        let first = BlockId { number, generation: 0 };
        ground.tell(EventKind::ShareChange, Some(first), Uuid::nil(), None);
    }
    for change in &flush.changes {
        let version = Some(change.version);
        ground.tell(EventKind::BlockChange, Some(change.id), change.uuid, version);
    }
    if flush.version.is_some() {
        ground.tell(EventKind::FlushCommit, None, Uuid::nil(), flush.version);
    }
}

impl Flush {
    /// How many of the changes are of this kind.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions};
    /// # use mainstay_track::{ChangeKind, Tracker};
    /// # let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// # let tracker = Tracker::new(&pool)?;
    /// let call = pool.allocate(Kind::Recoverable)?;
    /// assert_eq!(tracker.flush()?.count(ChangeKind::New), 1);
    /// # Ok::<(), mainstay_track::Error>(())
    /// ```
    #[must_use]
    pub fn count(&self, kind: ChangeKind) -> usize {
        self.changes.iter().filter(|change| change.kind == kind).count()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Refused in a child made by fork, whose pool is not mapped; and inside of a monitor, which
        // then stays in the chain and marks what nobody takes.
        let _ = self.pool.remove_monitor(self.monitor);
    }
}
