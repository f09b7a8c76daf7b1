//! Being told of commits.
//!
//! O1. Of one [`Hooked`], a hook is told of every commit that succeeded, by whichever thread, and of
//!     each once; of a state in the order of its versions. Calls do not overlap.
//! O2. What a hook is shown is the version itself, whole, whatever was committed since.
//! O3. A hook never has part in whether a commit succeeds: by then it is visible to everybody.

use crate::{MultiTransaction, Publisher, Result, RetryPolicy, State, Transaction, value::Value};
use mainstay_shm::fork::Epoch;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A commit that has succeeded.
///
/// Example: see [`CommitHook`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Commit<'a> {
    /// The name of the state.
    pub state: &'a str,
    /// The version that the commit has made.
    pub version: u64,
    /// That version, whole.
    pub value: &'a [u8],
}

impl<'a> Commit<'a> {
    pub(crate) fn new(state: &'a str, version: u64, value: &'a [u8]) -> Self {
        Self { state, version, value }
    }
}

/// What is to happen when a commit has succeeded: a message on a bus, a line in a log, a count.
///
/// There are two ways to have it called. A [`Hooked`] calls it in the thread that commits, for each
/// commit that goes through it. [`State::follow`] calls it in a thread of its own, for commits of all
/// processes, but no more often than wanted, with the newest version each time.
///
/// ```
/// use mainstay_state::{Commit, CommitHook, Domain, Hooked};
///
/// struct Log;
/// impl CommitHook for Log {
///     fn committed(&mut self, commit: &Commit<'_>) {
///         println!("{} is {:?} since version {}", commit.state, commit.value, commit.version);
///     }
/// }
///
/// # let dir = tempfile::tempdir()?;
/// # let domain = Domain::open(dir.path())?;
/// let speed = domain.writer::<[u8]>("speed")?;
/// Hooked::new(Log).replace(&speed, b"80")?; // prints: speed is [56, 48] since version 1
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait CommitHook: Send {
    /// Called when a commit has succeeded. What it does takes the time of whoever calls it.
    ///
    /// Example: see [`CommitHook`].
    fn committed(&mut self, commit: &Commit<'_>);
}

impl<F: FnMut(&Commit<'_>) + Send> CommitHook for F {
    fn committed(&mut self, commit: &Commit<'_>) {
        self(commit);
    }
}

/// Commits, and tells a hook of each commit that succeeded, before the call returns.
///
/// One is enough for any number of states and threads: clone it. To keep its calls in the order of
/// the commits, those that go through it take turns; a transaction is worked on outside of that, so
/// only the commit itself and the hook are waited for. Who commits past it, or in another process,
/// neither waits nor is told of: see [`State::follow`] for that. A hook must not commit through the
/// `Hooked` that calls it, which would wait for itself.
///
/// ```
/// use mainstay_state::{Commit, Domain, Hooked, RetryPolicy};
/// use std::sync::mpsc;
///
/// # let dir = tempfile::tempdir()?;
/// # let domain = Domain::open(dir.path())?;
/// let (from, to) = (domain.writer::<[u8]>("from")?, domain.writer::<[u8]>("to")?);
/// let (sender, told) = mpsc::channel();
/// let hooked = Hooked::new(move |commit: &Commit<'_>| {
///     let _ = sender.send((commit.state.to_owned(), commit.version, commit.value[0]));
/// });
/// hooked.replace(&from, &[100])?;
/// hooked.transact_many(RetryPolicy::default(), |both| {
///     both.bytes_mut(&from)?[0] -= 10;
///     both.bytes_mut(&to)?[0] += 10;
///     Ok(())
/// })?;
/// assert_eq!(told.recv()?, ("from".into(), 1, 100));
/// // Of those that change together the order is not told.
/// let mut both = [told.recv()?, told.recv()?];
/// both.sort();
/// assert_eq!(both, [("from".into(), 2, 90), ("to".into(), 1, 10)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Hooked {
    hook: Arc<Mutex<Box<dyn CommitHook>>>,
    epoch: Epoch,
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooked").finish_non_exhaustive()
    }
}

impl Hooked {
    /// With this hook.
    ///
    /// Example: see [`Hooked`].
    #[must_use]
    pub fn new(hook: impl CommitHook + 'static) -> Self {
        Self { hook: Arc::new(Mutex::new(Box::new(hook))), epoch: Epoch::now() }
    }

    /// A turn to commit (O1). A child made by fork gets none: another thread of its parent may have
    /// had one then, and would never give it back.
    fn turn(&self, state: &str) -> Result<MutexGuard<'_, Box<dyn CommitHook>>> {
        if !self.epoch.is_current() {
            return Err(crate::domain::forked(state));
        }
        // A hook that has panicked is called again: it was told of that commit.
        Ok(self.hook.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// As [`State::replace`].
    ///
    /// Example: see [`Hooked`].
    ///
    /// # Errors
    /// As [`State::replace`].
    pub fn replace<T: Value + ?Sized>(&self, state: &State<T>, value: &T) -> Result<u64> {
        let mut hook = self.turn(state.name())?;
        let version = state.replace(value)?;
        hook.committed(&Commit::new(state.name(), version, value.bytes()));
        Ok(version)
    }

    /// As [`Publisher::publish`].
    ///
    /// ```
    /// # use mainstay_state::{Commit, Domain, Hooked};
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// let mut publisher = state.publisher()?;
    /// let hooked = Hooked::new(|commit: &Commit<'_>| println!("{}", commit.version));
    /// for speed in [80, 90, 100] {
    ///     hooked.publish(&mut publisher, &[speed])?; // prints 1, 2, 3
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub fn publish<T: Value + ?Sized>(
        &self,
        publisher: &mut Publisher<T>,
        value: &T,
    ) -> Result<u64> {
        let mut hook = self.turn(publisher.name())?;
        let version = publisher.publish(value)?;
        hook.committed(&Commit::new(publisher.name(), version, value.bytes()));
        Ok(version)
    }

    /// As [`Transaction::commit`]. A transaction that has changed nothing is not told of.
    ///
    /// ```
    /// # use mainstay_state::{Commit, Domain, Hooked};
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// let hooked = Hooked::new(|commit: &Commit<'_>| println!("{}", commit.version));
    /// let mut transaction = state.begin()?;
    /// transaction.bytes_mut()?[0] = 80;
    /// assert_eq!(hooked.commit(transaction)?, 1); // prints 1
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub fn commit<T: Value + ?Sized>(&self, transaction: Transaction<'_, T>) -> Result<u64> {
        let mut hook = self.turn(transaction.name())?;
        transaction.commit_told(|commit| hook.committed(commit))
    }

    /// As [`MultiTransaction::commit`]; the hook is told of each state that was changed, before it is
    /// told of anything later.
    ///
    /// ```
    /// # use mainstay_state::{Commit, Domain, Hooked, MultiTransaction};
    /// # let dir = tempfile::tempdir()?;
    /// # let domain = Domain::open(dir.path())?;
    /// let (from, to) = (domain.writer::<[u8]>("from")?, domain.writer::<[u8]>("to")?);
    /// let hooked = Hooked::new(|commit: &Commit<'_>| println!("{}", commit.state));
    /// let mut both = MultiTransaction::new();
    /// both.bytes_mut(&from)?[0] = 1;
    /// both.bytes_mut(&to)?[0] = 1;
    /// hooked.commit_many(both)?; // prints both names
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`MultiTransaction::commit`].
    pub fn commit_many(&self, transaction: MultiTransaction<'_>) -> Result<()> {
        let mut hook = self.turn("several states")?;
        transaction.commit_told(|commit| hook.committed(commit))
    }

    /// As [`State::transact`].
    ///
    /// ```
    /// # use mainstay_state::{Commit, Domain, Hooked, RetryPolicy};
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("count")?;
    /// let hooked = Hooked::new(|commit: &Commit<'_>| println!("{}", commit.value[0]));
    /// hooked.transact(&state, RetryPolicy::default(), |transaction| {
    ///     transaction.bytes_mut()?[0] += 1;
    ///     Ok(())
    /// })?; // prints 1
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`State::transact`].
    pub fn transact<T: Value + ?Sized, R>(
        &self,
        state: &State<T>,
        policy: RetryPolicy,
        mut change: impl FnMut(&mut Transaction<'_, T>) -> Result<R>,
    ) -> Result<R> {
        policy.run(|| {
            let mut transaction = state.begin()?;
            let result = change(&mut transaction)?;
            self.commit(transaction)?;
            Ok(result)
        })
    }

    /// As [`MultiTransaction::transact`].
    ///
    /// Example: see [`Hooked`].
    ///
    /// # Errors
    /// As [`MultiTransaction::transact`].
    pub fn transact_many<'a, R>(
        &self,
        policy: RetryPolicy,
        mut change: impl FnMut(&mut MultiTransaction<'a>) -> Result<R>,
    ) -> Result<R> {
        policy.run(|| {
            let mut transaction = MultiTransaction::new();
            let result = change(&mut transaction)?;
            self.commit_many(transaction)?;
            Ok(result)
        })
    }
}
