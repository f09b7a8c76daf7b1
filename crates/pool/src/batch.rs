//! Batches: changes of several blocks that are seen all or none by whoever makes a cut (a tracker's
//! flush, a checkpoint).
//!
//! B1. While a cut is made, no batch is open: not in this process, not in another.
//! B2. A slot that is inside says so by its own bit; a cutter by its slot. So both are told from
//!     the dead, and taken back from them: neither a death inside of a batch nor one inside of a
//!     cut holds up anybody. The living are waited for, up to a limit.
//! B3. Without a batch a cut is one exchange, one load and one store; a batch that no other of its
//!     process overlaps is two exchanges and a load.
//!
//! Entering stores the bit and then looks for a cutter; a cutter stores itself and then looks for
//! bits: both sequentially consistent, so that one of the two sees the other (Dekker).
//!
//! A process that dies inside of a batch leaves half of it, as any death between two stores does;
//! a cut that finds such a one says so ([`Cut::broken`]).
//!
//! A pool of format version 1 has no words for this: its batches hold within one process.

use crate::{Error, Pool, Result, inner::Inner};
use mainstay_shm::{futex, hook, lease::Prober};
use std::{
    cell::RefCell,
    marker::PhantomData,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::{Duration, Instant},
};

/// How long one look at somebody else's word is slept over: it may have died without waking us.
const LOOK: Duration = Duration::from_millis(20);

/// Of one pool in one process.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Open batches of this process.
    inside: usize,
    /// A thread of this process makes a cut, or waits to.
    cutting: bool,
}

thread_local! {
    /// The pools of which this thread has a batch open, by their ids.
    static OPEN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Several changes that a flush or a checkpoint sees all or none of. Ends when it is dropped.
///
/// Keep it short: a cut waits for it. It stays in its thread.
///
/// ```
/// use mainstay_pool::{Kind, PoolOptions};
/// let pool = PoolOptions::new("accounts", 64).create_memfd()?;
/// let (from, to) = (pool.allocate(Kind::Recoverable)?, pool.allocate(Kind::Recoverable)?);
/// let batch = pool.batch()?;
/// from.write(0, &[90])?;
/// to.write(0, &[110])?;
/// batch.end();
/// # Ok::<(), mainstay_pool::Error>(())
/// ```
#[must_use = "it ends when it is dropped"]
pub struct Batch<'p> {
    inner: &'p Inner,
    _of_this_thread: PhantomData<*const ()>,
}

/// While it lives, no batch is open anywhere (B1).
///
/// Example: see [`Pool::cut`].
#[must_use = "it ends when it is dropped"]
pub struct Cut<'p> {
    inner: &'p Inner,
    broken: u32,
}

impl Pool {
    /// Begins a batch; waits while a cut is made.
    ///
    /// Example: see [`Batch`].
    ///
    /// # Errors
    /// `CutOpen` when a living process has been making a cut for ten seconds; `Forked`,
    /// `InsideMonitor`.
    pub fn batch(&self) -> Result<Batch<'_>> {
        self.batch_within(crate::limits::BATCH_WAIT)
    }

    /// As [`Pool::batch`], and waits at most `wait`.
    ///
    /// ```
    /// use std::time::Duration;
    /// let pool = mainstay_pool::PoolOptions::new("accounts", 64).create_memfd()?;
    /// let cut = pool.cut(Duration::ZERO)?;
    /// assert!(pool.batch_within(Duration::ZERO).is_err());
    /// drop(cut);
    /// assert!(pool.batch_within(Duration::ZERO).is_ok());
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Pool::batch`].
    pub fn batch_within(&self, wait: Duration) -> Result<Batch<'_>> {
        let inner = self.inner();
        inner.check()?;
        inner.enter_batch(wait)?;
        OPEN.with_borrow_mut(|open| open.push(inner.id));
        Ok(Batch { inner, _of_this_thread: PhantomData })
    }

    /// Waits, at most `wait`, until no batch is open, and keeps new ones out while the value lives:
    /// for those who read the pool as of one moment.
    ///
    /// ```
    /// use std::time::Duration;
    /// let pool = mainstay_pool::PoolOptions::new("accounts", 64).create_memfd()?;
    /// let batch = pool.batch()?;
    /// assert!(pool.cut(Duration::ZERO).is_err(), "this thread is inside of a batch");
    /// batch.end();
    /// let cut = pool.cut(Duration::from_secs(1))?;
    /// assert_eq!(cut.broken(), 0);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InsideBatch`, `BatchOpen`, `CutOpen`, `Forked`, `InsideMonitor`.
    pub fn cut(&self, wait: Duration) -> Result<Cut<'_>> {
        let inner = self.inner();
        inner.check()?;
        if OPEN.with_borrow(|open| open.contains(&inner.id)) {
            return Err(Error::InsideBatch { pool: inner.display() });
        }
        let broken = inner.begin_cut(wait)?;
        Ok(Cut { inner, broken })
    }
}

impl Batch<'_> {
    /// Ends it, as dropping it does.
    ///
    /// Example: see [`Batch`].
    pub fn end(self) {}
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        OPEN.with_borrow_mut(|open| {
            if let Some(at) = open.iter().rposition(|id| *id == self.inner.id) {
                open.swap_remove(at);
            }
        });
        if self.inner.is_forked() {
            return;
        }
        let mut state = self.inner.gate.lock();
        state.inside -= 1;
        if state.inside == 0 {
            self.inner.set_batch(false);
            self.inner.gate.changed.notify_all();
        }
    }
}

impl Cut<'_> {
    /// How many processes were found to have died inside of a batch: that much of the pool may be
    /// half done.
    ///
    /// Example: see [`Pool::cut`].
    #[must_use]
    pub fn broken(&self) -> u32 {
        self.broken
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        if !self.inner.is_forked() {
            self.inner.end_cut();
        }
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready`, at most until `end`; whether it is.
    fn wait<'g>(
        &'g self,
        mut state: MutexGuard<'g, State>,
        end: Instant,
        ready: impl Fn(&State) -> bool,
    ) -> (MutexGuard<'g, State>, bool) {
        while !ready(&state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return (state, false);
            }
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        (state, true)
    }
}

impl Inner {
    fn enter_batch(&self, wait: Duration) -> Result<()> {
        let end = Instant::now() + wait;
        let (mut state, free) = self.gate.wait(self.gate.lock(), end, |state| !state.cutting);
        if !free {
            return Err(self.cut_is_open(self.slot, wait));
        }
        if state.inside == 0 && self.extents.geometry.version >= 2 {
            let live = self.extents.live()?;
            loop {
                self.set_batch(true);
                let cutter = live.cutter.load(SeqCst);
                if cutter == 0 {
                    break;
                }
                self.set_batch(false);
                if !self.is_other_alive(cutter.wrapping_sub(1))? {
                    let _ = live.cutter.compare_exchange(cutter, 0, SeqCst, Relaxed);
                } else if Instant::now() >= end {
                    return Err(self.cut_is_open(cutter - 1, wait));
                } else {
                    futex::wait(&live.cutter, cutter, LOOK.min(end - Instant::now()));
                }
            }
        }
        state.inside += 1;
        Ok(())
    }

    /// Returns how many processes had died inside of a batch.
    fn begin_cut(&self, wait: Duration) -> Result<u32> {
        let end = Instant::now() + wait;
        let (mut state, free) = self.gate.wait(self.gate.lock(), end, |state| !state.cutting);
        if !free {
            return Err(self.cut_is_open(self.slot, wait));
        }
        state.cutting = true;
        let (state, free) = self.gate.wait(state, end, |state| state.inside == 0);
        drop(state);
        let begun = if free { self.keep_others_out(end, wait) } else { Err(None) };
        begun.map_err(|error| {
            self.end_cut();
            error.unwrap_or_else(|| self.batch_is_open(self.slot, wait))
        })
    }

    fn keep_others_out(&self, end: Instant, wait: Duration) -> Result<u32, Option<Error>> {
        if self.extents.geometry.version < 2 {
            return Ok(0);
        }
        let live = self.extents.live()?;
        let me = self.slot + 1;
        while let Err(other) = live.cutter.compare_exchange(0, me, SeqCst, SeqCst) {
            // Nobody else of this process cuts: a word that names us is garbage.
            if other == me || !self.is_other_alive(other.wrapping_sub(1))? {
                let _ = live.cutter.compare_exchange(other, 0, SeqCst, Relaxed);
            } else if Instant::now() >= end {
                return Err(Some(self.cut_is_open(other - 1, wait)));
            } else {
                futex::wait(&live.cutter, other, LOOK.min(end - Instant::now()));
            }
        }
        let mut broken = 0;
        loop {
            let inside = live.batches.load(SeqCst);
            if inside == 0 || hook::planted("cut-without-waiting") {
                return Ok(broken);
            }
            let slot = inside.trailing_zeros();
            if slot == self.slot || !self.is_other_alive(slot)? {
                broken += u32::from(slot != self.slot);
                live.batches.fetch_and(!(1 << slot), SeqCst);
            } else if Instant::now() >= end {
                return Err(Some(self.batch_is_open(slot, wait)));
            } else {
                // Nobody is woken when a batch ends: that would be a system call for each.
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    fn end_cut(&self) {
        if self.extents.geometry.version >= 2
            && let Ok(live) = self.extents.live()
            && live.cutter.compare_exchange(self.slot + 1, 0, SeqCst, Relaxed).is_ok()
        {
            futex::wake_all(&live.cutter);
        }
        self.gate.lock().cutting = false;
        self.gate.changed.notify_all();
    }

    fn set_batch(&self, inside: bool) {
        if self.extents.geometry.version < 2 {
            return;
        }
        if let Ok(live) = self.extents.live() {
            let bit = 1 << self.slot;
            if inside {
                live.batches.fetch_or(bit, SeqCst);
            } else {
                live.batches.fetch_and(!bit, SeqCst);
            }
        }
    }

    /// Takes the slots in `dead`, which are pinned or leased, out of batches and cuts (B2).
    pub(crate) fn leave_batches(&self, dead: u32) -> Result<()> {
        if self.extents.geometry.version < 2 || hook::planted("the-dead-cut-on") {
            return Ok(());
        }
        let live = self.extents.live()?;
        if live.batches.load(SeqCst) & dead != 0 {
            live.batches.fetch_and(!dead, SeqCst);
        }
        let cutter = live.cutter.load(SeqCst);
        if (1..=32).contains(&cutter) && dead & 1 << (cutter - 1) != 0 {
            let _ = live.cutter.compare_exchange(cutter, 0, SeqCst, Relaxed);
        }
        Ok(())
    }

    /// Whether another process than this one holds `slot`; no slot at all is nobody's.
    fn is_other_alive(&self, slot: u32) -> Result<bool> {
        if slot == self.slot || slot >= 32 {
            return Ok(false);
        }
        if hook::planted("the-dead-cut-on") {
            return Ok(true);
        }
        Ok(Prober::new(&self.extents.backing)?.is_alive(slot)?)
    }

    fn cut_is_open(&self, slot: u32, waited: Duration) -> Error {
        let (pid, name) = self.who(slot);
        let waited_ms = waited.as_millis() as u64;
        Error::CutOpen { pool: self.display(), pid, name, waited_ms }
    }

    fn batch_is_open(&self, slot: u32, waited: Duration) -> Error {
        let (pid, name) = self.who(slot);
        let waited_ms = waited.as_millis() as u64;
        Error::BatchOpen { pool: self.display(), pid, name, waited_ms }
    }

    fn who(&self, slot: u32) -> (u32, String) {
        let slots = self.extents.slots().unwrap_or_default();
        let entry = slots.get(slot as usize);
        entry.map_or_else(Default::default, |e| (e.pid.load(Relaxed), e.display_name()))
    }
}
