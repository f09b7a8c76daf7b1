//! How a tracker is made.

use crate::{Result, Tracker, limits::BATCH_WAIT};
use mainstay_base::hlc::{AHEAD_NS_MAX, NodeId};
use mainstay_pool::Pool;
use std::time::{Duration, SystemTime};

/// Where the time comes from, in ns after 1970.
pub(crate) type Wall = Box<dyn Fn() -> u64 + Send + Sync>;

/// How a tracker is made.
///
/// ```
/// use mainstay_base::hlc::NodeId;
/// use mainstay_track::{Method, TrackerOptions};
/// let pool = mainstay_pool::PoolOptions::new("calls", 64).create_memfd()?;
/// let tracker = TrackerOptions::default().node(NodeId::new(7)).compare().track(&pool)?;
/// assert_eq!(tracker.method(), Method::Compare);
/// # Ok::<(), mainstay_track::Error>(())
/// ```
#[must_use]
pub struct TrackerOptions {
    pub(crate) node: NodeId,
    pub(crate) ahead_ns_max: u64,
    pub(crate) wall: Wall,
    pub(crate) find: Find,
    pub(crate) batch_wait: Duration,
}

/// What a tracker is asked to find changes by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Find {
    Pages,
    Compare,
    Marks,
}

impl Default for TrackerOptions {
    fn default() -> Self {
        let wall = || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
        };
        Self {
            node: NodeId::default(),
            ahead_ns_max: AHEAD_NS_MAX,
            wall: Box::new(wall),
            find: Find::Pages,
            batch_wait: BATCH_WAIT,
        }
    }
}

impl TrackerOptions {
    /// Which node gives the versions. Needed when they are compared with those of other nodes.
    ///
    /// Example: see [`TrackerOptions`].
    pub fn node(mut self, node: NodeId) -> Self {
        self.node = node;
        self
    }

    /// How far the clock of another node may run ahead; a quarter of a second unless told
    /// otherwise.
    ///
    /// Example: see [`Tracker::adopt`].
    pub fn ahead_max(mut self, ahead: Duration) -> Self {
        self.ahead_ns_max = u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX);
        self
    }

    /// Where the time comes from, in ns after 1970: the system's clock unless told otherwise.
    ///
    /// ```
    /// # use mainstay_track::TrackerOptions;
    /// # let pool = mainstay_pool::PoolOptions::new("calls", 64).create_memfd()?;
    /// let tracker = TrackerOptions::default().wall(|| 1 << 60).track(&pool)?;
    /// let block = pool.allocate(mainstay_pool::Kind::Recoverable)?;
    /// assert_eq!(tracker.flush()?.changes[0].version.stamp.time_ns(), 1 << 60);
    /// # Ok::<(), mainstay_track::Error>(())
    /// ```
    pub fn wall(mut self, now_ns: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.wall = Box::new(now_ns);
        self
    }

    /// Compares every block at each flush, without asking the kernel: slow, and sees everything.
    ///
    /// Example: see [`TrackerOptions`].
    pub fn compare(mut self) -> Self {
        self.find = Find::Compare;
        self
    }

    /// Looks only at blocks that were marked ([`Tracker::mark_dirty`], [`Tracker::edit`]),
    /// allocated or freed, and does not protect pages: for those who write through calls and
    /// want no page faults. Writes that nobody marks are not noticed.
    ///
    /// ```
    /// # use mainstay_pool::{Kind, PoolOptions};
    /// # use mainstay_track::TrackerOptions;
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let block = pool.allocate(Kind::Recoverable)?;
    /// let tracker = TrackerOptions::default().marks_only().track(&pool)?;
    /// tracker.flush()?;
    /// block.write(0, b"ringing")?;
    /// assert!(tracker.flush()?.changes.is_empty(), "nobody said so");
    /// tracker.mark_dirty(&block)?;
    /// assert_eq!(tracker.flush()?.changes.len(), 1);
    /// # Ok::<(), mainstay_track::Error>(())
    /// ```
    pub fn marks_only(mut self) -> Self {
        self.find = Find::Marks;
        self
    }

    /// How long a flush waits for open batches; ten seconds unless told otherwise.
    ///
    /// Example: see [`crate::limits::BATCH_WAIT`].
    pub fn batch_wait(mut self, wait: Duration) -> Self {
        self.batch_wait = wait;
        self
    }

    /// Begins to track the pool.
    ///
    /// Example: see [`TrackerOptions`].
    ///
    /// # Errors
    /// `AlreadyTracked`; `Pool` for a child made by fork, or inside of a monitor.
    pub fn track(self, pool: &Pool) -> Result<Tracker> {
        Tracker::with(pool, self)
    }
}
