//! Finding blocks by UUID and pools by name, in nanoseconds.
//!
//! X1. A found block was live and had that UUID at the moment of the look: every answer is checked
//!     against the block's own header, so a stale entry can only be a miss.
//! X2. A block that was allocated has its number in its UUID and needs no entry, whoever allocated
//!     it. For those that were reserved or restored the index has a table, which is this
//!     process's: it learns by events of what this process does, and of what others did when
//!     asked to [`PoolIndex::refresh`].
//! X3. What other processes freed unseen is forgotten at the latest when a shard holds twice as
//!     many entries as it can have blocks, so the index is bounded by the pool.
//! X4. The age of a block counts from its allocation if its process had a monitor, else from the
//!     first time an index saw it: never from earlier, so nothing is removed too soon.

use crate::{
    BlockId, Error, Event, EventKind, Monitor, MonitorId, Offer, Pool, Result, State, Uuid,
    allocate::coarse_now, extents::Extents, magazine::number_in,
};
use arc_swap::ArcSwap;
use hashbrown::HashTable;
use mainstay_base::mix64;
use mainstay_shm::Atomic64;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

const SHARDS: usize = 64;

/// Which blocks [`PoolIndex::collect`] looks for.
///
/// Example: see [`PoolIndex::collect`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// Somebody holds them.
    InUse,
    /// They are live, and nobody holds them.
    Unused,
    /// Either.
    Any,
}

/// An index over pools: name -> pool, and UUID -> block in each.
///
/// It keeps its pools open; detach a pool before closing it.
///
/// ```
/// use mainstay_pool::{Index, Kind, PoolOptions};
/// let index = Index::default();
/// let pool = PoolOptions::new("calls", 64).create_memfd()?;
/// index.attach(&pool)?;
/// let block = pool.allocate(Kind::Recoverable)?;
/// let calls = index.pool("calls").expect("just attached");
/// assert_eq!(calls.find(block.uuid()), Some(block.id()));
/// # Ok::<(), mainstay_pool::Error>(())
/// ```
#[derive(Default)]
pub struct Index {
    /// Read without a lock; replaced when a pool comes or goes.
    pools: ArcSwap<HashMap<String, Arc<PoolIndex>>>,
    changing: Mutex<()>,
}

/// The index of one pool.
///
/// Example: see [`Index`].
pub struct PoolIndex {
    pool: Pool,
    table: Arc<Table>,
    monitor: MonitorId,
}

impl Index {
    /// Takes in a pool: all its live blocks now, and from now on what this process does.
    ///
    /// Example: see [`Index`].
    ///
    /// # Errors
    /// `NameTaken` when a pool of this name is in it.
    pub fn attach(&self, pool: &Pool) -> Result<Arc<PoolIndex>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let pools = self.pools.load();
        if pools.contains_key(pool.name()) {
            return Err(Error::NameTaken { name: pool.name().to_owned() });
        }
        let table = Arc::new(Table::default());
        // First the monitor, then the scan: what happens between is seen twice, not never.
        let monitor = pool.add_monitor(Arc::new(Learner { table: table.clone() }))?;
        let index = Arc::new(PoolIndex { pool: pool.clone(), table, monitor });
        index.refresh()?;
        let mut changed = HashMap::clone(&pools);
        changed.insert(pool.name().to_owned(), index.clone());
        self.pools.store(Arc::new(changed));
        Ok(index)
    }

    /// Lets go of a pool; returns whether there was one of this name.
    ///
    /// ```
    /// # use mainstay_pool::{Index, PoolOptions};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let index = Index::default();
    /// index.attach(&pool)?;
    /// assert!(index.detach("calls")?);
    /// assert!(index.pool("calls").is_none() && !index.detach("calls")?);
    /// pool.close()?;
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InsideMonitor`.
    pub fn detach(&self, name: &str) -> Result<bool> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let pools = self.pools.load();
        let Some(index) = pools.get(name) else { return Ok(false) };
        index.pool.remove_monitor(index.monitor)?;
        let mut changed = HashMap::clone(&pools);
        changed.remove(name);
        self.pools.store(Arc::new(changed));
        Ok(true)
    }

    /// The pool of this name, and its index. Keep it for many finds.
    ///
    /// Example: see [`Index`].
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<Arc<PoolIndex>> {
        self.pools.load().get(name).cloned()
    }
}

impl PoolIndex {
    /// The pool.
    ///
    /// Example: see [`Index`].
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The live block of this UUID, if the index knows it.
    ///
    /// Example: see [`Index`].
    #[must_use]
    #[inline]
    pub fn find(&self, uuid: Uuid) -> Option<BlockId> {
        let inner = self.pool.inner();
        if inner.is_forked() {
            return None;
        }
        // A block that was allocated, rather than restored or reserved, has its number in its UUID.
        if let Some(id) = inner.extents.life_of(number_in(uuid), uuid) {
            return Some(id);
        }
        let hash = Hash::of(uuid);
        let shard = self.table.shard(hash);
        let mut found = None;
        shard.find(hash.in_table(), |entry| {
            if entry.hash == hash.high {
                found = inner.extents.life_of(entry.number, uuid);
            }
            found.is_some()
        });
        found
    }

    /// Looks at every block: learns what other processes allocated, forgets what they freed.
    ///
    /// ```
    /// # use mainstay_pool::{Index, Pool, PoolOptions, Uuid};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// # let same = Pool::join_any_fd(pool.as_fd().try_clone_to_owned()?)?;
    /// let calls = Index::default().attach(&pool)?;
    /// same.reserve(Uuid::from_u128(7))?; // `same` as in another process
    /// calls.refresh()?;
    /// assert_eq!(calls.len(), 1);
    /// assert!(calls.find(Uuid::from_u128(7)).is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn refresh(&self) -> Result<()> {
        self.pool.inner().check_fork()?;
        self.forget_stale();
        let extents = &self.pool.inner().extents;
        for number in extents.numbers()?.filter(|number| extents.load(*number).is_live()) {
            self.table.learn(extents.uuid(number), number, extents);
        }
        Ok(())
    }

    fn forget_stale(&self) {
        let extents = &self.pool.inner().extents;
        for shard in &self.table.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|entry| is_fresh(extents, entry));
        }
    }

    /// How many entries the table has; some may be stale. Only blocks that were restored or
    /// reserved need one.
    ///
    /// ```
    /// # use mainstay_pool::{Index, Kind, PoolOptions, Uuid};
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let calls = Index::default().attach(&pool)?;
    /// let held = pool.allocate(Kind::Recoverable)?;
    /// assert!(calls.is_empty(), "an allocated block needs no entry");
    /// pool.reserve(Uuid::from_u128(7))?;
    /// assert_eq!(calls.len(), 1);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        let len = |shard: &Shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.table.shards.iter().map(len).sum()
    }

    /// Whether there are no entries.
    ///
    /// Example: see [`PoolIndex::len`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Live blocks by use, allocated (or first seen by an index) at least `age` ago.
    ///
    /// ```
    /// use mainstay_pool::{Index, Kind, PoolOptions, Use};
    /// use std::time::Duration;
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let index = Index::default();
    /// let calls = index.attach(&pool)?;
    /// let held = pool.allocate(Kind::Recoverable)?;
    /// drop(pool.allocate(Kind::Recoverable)?);
    /// assert_eq!(calls.collect(Use::InUse, Duration::ZERO)?, [held.id()]);
    /// assert_eq!(calls.collect(Use::Any, Duration::ZERO)?.len(), 2);
    /// assert_eq!(calls.remove_unused(Duration::ZERO)?, 1);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn collect(&self, of: Use, age: Duration) -> Result<Vec<BlockId>> {
        let latest = SystemTime::now().checked_sub(age);
        let wanted = self.pool.blocks()?.filter(|block| {
            let used = block.state == State::Held;
            is_live(block.state)
                && (of == Use::Any || used == (of == Use::InUse))
                && is_of_age(block.version, age, latest)
        });
        Ok(wanted.map(|block| block.id).collect())
    }

    /// Frees the live blocks that nobody holds and that were allocated at least `age` ago; returns
    /// how many. What somebody takes in the meantime is not freed.
    ///
    /// Example: see [`PoolIndex::collect`].
    ///
    /// # Errors
    /// `Forked`, and what the system refuses.
    pub fn remove_unused(&self, age: Duration) -> Result<u64> {
        let latest = SystemTime::now().checked_sub(age);
        let mut removed = 0;
        for offered in self.pool.recover(Offer::Unheld)? {
            let version = self.pool.inner().extents.block_info(offered.number()).version;
            if is_of_age(version, age, latest) {
                match offered.free() {
                    Ok(()) => removed += 1,
                    Err(Error::NoSuchBlock { .. }) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(removed)
    }
}

/// Whether a block of this version is `age` old, which is so if it is not later than `latest`. One
/// that nobody has looked at in this life is of no known age.
fn is_of_age(version: Option<SystemTime>, age: Duration, latest: Option<SystemTime>) -> bool {
    age.is_zero() || version.zip(latest).is_some_and(|(version, latest)| version <= latest)
}

/// Whether an entry still says what the block's header says.
fn is_fresh(extents: &Extents, entry: &Entry) -> bool {
    extents.contains(entry.number).unwrap_or(false)
        && extents.load(entry.number).is_live()
        && Hash::of(extents.uuid(entry.number)).high == entry.hash
}

fn is_live(state: State) -> bool {
    matches!(state, State::Held | State::Parked | State::Orphan)
}

/// Half of the hash, and the number. The UUID itself stands in the block's header: 8 bytes an
/// entry, and one for the table's own use, over a load of 44 to 88 %: 10 to 21 bytes a block.
#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    number: u32,
}
const _: () = assert!(size_of::<Entry>() == 8);

type Shard = Mutex<HashTable<Entry>>;

struct Table {
    shards: [Shard; SHARDS],
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Shard::default()) }
    }
}

/// 38 bits of hash: 6 choose the shard, 32 are kept.
#[derive(Clone, Copy)]
struct Hash {
    shard: usize,
    high: u32,
}

impl Hash {
    #[inline]
    fn of(uuid: Uuid) -> Self {
        let (high, low) = uuid.as_u64_pair();
        let mixed = mix64(high.rotate_left(32) ^ low);
        Self { shard: mixed as usize % SHARDS, high: (mixed >> 32) as u32 }
    }

    /// What the table is given; it can be computed again from what is kept.
    #[inline]
    fn in_table(self) -> u64 {
        spread(self.high)
    }
}

/// The table takes its position from the low bits and its tag from the top seven.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Table {
    #[inline]
    fn shard(&self, hash: Hash) -> MutexGuard<'_, HashTable<Entry>> {
        self.shards[hash.shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, uuid: Uuid, number: u32, extents: &Extents) {
        // X4: the age of a block counts from the first look at the latest.
        let version = &extents.cold(number).version;
        if version.load(Relaxed) == 0 {
            let _ = version.compare_exchange(0, coarse_now(), Relaxed, Relaxed);
        }
        if number_in(uuid) == number {
            return;
        }
        let hash = Hash::of(uuid);
        let mut shard = self.shard(hash);
        let known = shard
            .find(hash.in_table(), |entry| entry.number == number && entry.hash == hash.high)
            .is_some();
        if known {
            return;
        }
        if shard.len() == shard.capacity() {
            // X3: only what is not stale counts towards growth. If that is most of it, make room
            // for as much again, so that the next look is far away.
            shard.retain(|entry| is_fresh(extents, entry));
            if shard.len() > shard.capacity() / 2 {
                let more = shard.len().max(4);
                shard.reserve(more, |entry| spread(entry.hash));
            }
        }
        let entry = Entry { hash: hash.high, number };
        shard.insert_unique(hash.in_table(), entry, |entry| spread(entry.hash));
    }

    fn forget(&self, uuid: Uuid, number: u32) {
        if number_in(uuid) == number {
            return;
        }
        let hash = Hash::of(uuid);
        let mut shard = self.shard(hash);
        if let Ok(entry) = shard
            .find_entry(hash.in_table(), |entry| entry.number == number && entry.hash == hash.high)
        {
            entry.remove();
        }
    }
}

/// The monitor that keeps a table up to date. It has no handle of the pool, which holds it.
struct Learner {
    table: Arc<Table>,
}

impl Monitor for Learner {
    fn event(&self, event: &Event<'_>) {
        let Some(block) = event.block else { return };
        match event.kind {
            EventKind::BlockAllocate
            | EventKind::BlockReserve
            | EventKind::BlockAttach
            | EventKind::BlockRecover => {
                self.table.learn(event.block_uuid, block.number, event.extents);
            }
            EventKind::BlockFree => self.table.forget(event.block_uuid, block.number),
            _ => {}
        }
    }
}
