//! Watching a pool's blocks come and go: a chain of monitors, added and removed at run time.
//!
//! N1. A monitor is told after the fact; it cannot veto. Monitors are called in the order they were
//!     added, in the thread that did the work; at the end of a pool, in the thread that ended it.
//! N2. While it is called, a monitor may look at the pool but not change it: every operation that
//!     would is refused with `InsideMonitor`. A guard that it happens to drop, or the last handle of
//!     another pool, is dropped, and the events of that are delivered when the current one is
//!     through.
//! N3. Without monitors an operation pays one load.

use crate::{BlockId, extents::Extents, inner::Inner};
use arc_swap::ArcSwap;
use mainstay_base::hlc::Version;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use uuid::Uuid;

/// What happened.
///
/// Example: see [`Monitor`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// The monitor was added to a pool, which may have blocks already.
    PoolCreate,
    /// The pool ends in this process; nothing comes after.
    PoolRelease,
    /// The pool has grown by one extent, seen by the process that did it.
    ExtentCreate,
    /// An extent goes away, with the pool: one event for each, before `PoolRelease`.
    ExtentDestroy,
    /// A block was allocated; it is zeroed.
    BlockAllocate,
    /// A block was attached.
    BlockAttach,
    /// A guard was dropped, and others remain.
    BlockRelease,
    /// The last guard was dropped; the block is kept.
    BlockPark,
    /// The block was freed. Its identity is still told, its data may be gone.
    BlockFree,
    /// A block was made without a holder, under a given UUID.
    BlockReserve,
    /// A block was recovered: somebody keeps it now.
    BlockRecover,
    /// A holder has noted how many bytes of the block are in use.
    BlockResize,
    /// A tracker found writes in this extent: a wake-up.
    ShareChange,
    /// A tracker found that this block differs from the last flush.
    BlockChange,
    /// A tracker has reported all that it found: the barrier of a flush.
    FlushCommit,
}

/// One event, as a monitor sees it.
///
/// Example: see [`Monitor`].
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// What happened.
    pub kind: EventKind,
    /// The pool's name.
    pub pool_name: &'a str,
    /// The pool's UUID.
    pub pool_uuid: Uuid,
    /// The block it is about; for extents, the first block of it. None for events of the pool.
    pub block: Option<BlockId>,
    /// The block's UUID; nil where there is none.
    pub block_uuid: Uuid,
    /// Of a tracker's `BlockChange` and `FlushCommit`: the version it gave.
    pub version: Option<Version>,
    pub(crate) extents: &'a Extents,
}

/// Somebody who wants to know. Called in the middle of the pool's work: be quick.
///
/// ```
/// use mainstay_pool::{Event, EventKind, Kind, Monitor, PoolOptions};
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
///
/// #[derive(Default)]
/// struct Count(AtomicU32);
/// impl Monitor for Count {
///     fn event(&self, event: &Event<'_>) {
///         if event.kind == EventKind::BlockAllocate {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let pool = PoolOptions::new("watched", 64).create_memfd()?;
/// let count = Arc::new(Count::default());
/// let id = pool.add_monitor(count.clone())?;
/// let block = pool.allocate(Kind::Transient)?;
/// pool.remove_monitor(id)?;
/// let unseen = pool.allocate(Kind::Transient)?;
/// assert_eq!(count.0.load(Ordering::Relaxed), 1);
/// # Ok::<(), mainstay_pool::Error>(())
/// ```
pub trait Monitor: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

/// Names a monitor of a pool, to remove it.
///
/// Example: see [`Monitor`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MonitorId(pub(crate) u64);

type Chain = Vec<(MonitorId, Arc<dyn Monitor>)>;

#[derive(Default)]
pub(crate) struct Monitors {
    any: AtomicBool,
    next: AtomicU64,
    chain: ArcSwap<Chain>,
    changing: Mutex<()>,
}

/// An event that waits until the current one is through.
struct Deferred {
    inner: Arc<Inner>,
    kind: EventKind,
    block: Option<BlockId>,
    uuid: Uuid,
    version: Option<Version>,
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static DEFERRED: RefCell<VecDeque<Deferred>> =
        const { RefCell::new(VecDeque::new()) };
}

impl Monitors {
    #[inline(always)]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    fn add(&self, monitor: Arc<dyn Monitor>) -> MonitorId {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let id = MonitorId(self.next.fetch_add(1, Ordering::Relaxed));
        let mut chain = Chain::clone(&self.chain.load());
        chain.push((id, monitor));
        self.chain.store(Arc::new(chain));
        self.any.store(true, Ordering::Release);
        id
    }

    pub(crate) fn remove(&self, id: MonitorId) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chain = Chain::clone(&self.chain.load());
        let before = chain.len();
        chain.retain(|(other, _)| *other != id);
        let removed = chain.len() < before;
        self.any.store(!chain.is_empty(), Ordering::Release);
        self.chain.store(Arc::new(chain));
        removed
    }
}

/// Whether this thread is inside of a monitor's callback.
pub(crate) fn inside() -> bool {
    INSIDE.get()
}

/// Adds a monitor at the end of the chain, and tells it alone that the pool is there.
pub(crate) fn add(inner: &Inner, monitor: Arc<dyn Monitor>) -> MonitorId {
    // From here on operations look whether they are called from inside of a callback (N2).
    inner.monitors.any.store(true, Ordering::Release);
    let event = event(inner, EventKind::PoolCreate, None, Uuid::nil(), None);
    within(|| monitor.event(&event));
    deliver_deferred();
    inner.monitors.add(monitor)
}

/// Tells the chain; from inside of a callback, later.
#[cold]
pub(crate) fn emit(inner: &Inner, kind: EventKind, block: Option<BlockId>, uuid: Uuid) {
    emit_version(inner, kind, block, uuid, None);
}

/// As `emit`, with a version.
pub(crate) fn emit_version(
    inner: &Inner,
    kind: EventKind,
    block: Option<BlockId>,
    uuid: Uuid,
    version: Option<Version>,
) {
    if inside() {
        if let Some(inner) = inner.this.upgrade() {
            let event = Deferred { inner, kind, block, uuid, version };
            // A thread that is ending and has no list any more tells nobody.
            let _ = DEFERRED.try_with(|list| list.borrow_mut().push_back(event));
        }
        return;
    }
    deliver(inner, kind, block, uuid, version);
    deliver_deferred();
}

fn deliver_deferred() {
    let next = || DEFERRED.try_with(|list| list.borrow_mut().pop_front()).ok().flatten();
    while let Some(Deferred { inner, kind, block, uuid, version }) = next() {
        deliver(&inner, kind, block, uuid, version);
    }
}

fn deliver(
    inner: &Inner,
    kind: EventKind,
    block: Option<BlockId>,
    uuid: Uuid,
    version: Option<Version>,
) {
    let event = event(inner, kind, block, uuid, version);
    let chain = inner.monitors.chain.load();
    within(|| chain.iter().for_each(|(_, monitor)| monitor.event(&event)));
}

fn event(
    inner: &Inner,
    kind: EventKind,
    block: Option<BlockId>,
    block_uuid: Uuid,
    version: Option<Version>,
) -> Event<'_> {
    let (pool_name, pool_uuid) = (inner.name.as_str(), inner.uuid);
    Event { kind, pool_name, pool_uuid, block, block_uuid, version, extents: &inner.extents }
}

/// Runs `call` with the flag set, also when it panics.
fn within(call: impl FnOnce()) {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            INSIDE.set(self.0);
        }
    }
    let _reset = Reset(INSIDE.replace(true));
    call();
}
