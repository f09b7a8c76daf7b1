//! Changing one state, optimistically.

use crate::{Commit, Result, draft::Draft, value::Value};
use std::marker::PhantomData;

/// A change of one state in the making: a private copy of the version it began with.
///
/// Nobody waits and nobody is kept waiting: several transactions may be open on one state, nested
/// or not, in one process or in several. Of those that began with the same version the first to
/// commit succeeds, and the others are told [`Conflict`](crate::Error::Conflict). Dropping a
/// transaction aborts it.
///
/// ```
/// # use mainstay_state::{Domain, Error};
/// # let dir = tempfile::tempdir()?;
/// # let domain = Domain::open(dir.path())?;
/// let state = domain.writer::<[u8]>("speed")?;
/// let (mut first, mut second) = (state.begin()?, state.begin()?);
/// first.bytes_mut()?[0] = 1;
/// second.bytes_mut()?[0] = 2;
/// assert_eq!(second.commit()?, 1);
/// assert!(matches!(first.commit(), Err(Error::Conflict { .. })));
/// assert_eq!(state.read()?[0], 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// What was committed or aborted is gone, so neither can be done twice; nor to one that was never
/// begun, as only `begin` makes one. The compiler refuses a commit after a commit,
///
/// ```compile_fail,E0382
/// # let state = mainstay_state::Domain::open("x")?.writer::<[u8]>("speed")?;
/// let transaction = state.begin()?;
/// transaction.commit()?;
/// transaction.commit()?;
/// # Ok::<(), mainstay_state::Error>(())
/// ```
///
/// an abort after an abort,
///
/// ```compile_fail,E0382
/// # let state = mainstay_state::Domain::open("x")?.writer::<[u8]>("speed")?;
/// let transaction = state.begin()?;
/// transaction.abort();
/// transaction.abort();
/// # Ok::<(), mainstay_state::Error>(())
/// ```
///
/// and a transaction that would outlive its handle, for which there is
/// [`begin_kept`](crate::State::begin_kept).
///
/// ```compile_fail,E0505
/// # let state = mainstay_state::Domain::open("x")?.writer::<[u8]>("speed")?;
/// let transaction = state.begin()?;
/// drop(state);
/// transaction.commit()?;
/// # Ok::<(), mainstay_state::Error>(())
/// ```
#[derive(Debug)]
pub struct Transaction<'a, T: Value + ?Sized> {
    draft: Draft<'a>,
    _value: PhantomData<fn() -> Box<T>>,
}

impl<'a, T: Value + ?Sized> Transaction<'a, T> {
    #[inline(always)]
    pub(crate) fn new(draft: Draft<'a>) -> Self {
        Self { draft, _value: PhantomData }
    }

    /// The version it began with.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// # let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// assert_eq!(state.begin()?.base_version(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn base_version(&self) -> u64 {
        self.draft.base.version()
    }

    /// The value as this transaction sees it: with its own changes, without anybody else's.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// # let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// let mut transaction = state.begin()?;
    /// transaction.bytes_mut()?[0] = 1;
    /// assert_eq!(transaction.get()?[0], 1);
    /// assert_eq!(state.read()?[0], 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Corrupt`.
    #[inline(always)]
    pub fn get(&self) -> Result<&T> {
        self.draft.value()
    }

    /// The value, to be changed. The first call copies it to a slot of its own; from then on the
    /// commit makes a new version.
    ///
    /// ```
    /// # use mainstay_state::{Domain, Record};
    /// # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
    /// #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
    /// #[repr(C)]
    /// struct Pose { x: f64, y: f64 }
    /// impl Record for Pose { const NAME: &'static str = "example.pose/1"; }
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let domain = Domain::open(dir.path())?;
    /// let state = domain.writer::<Pose>("pose")?;
    /// let mut transaction = state.begin()?;
    /// transaction.get_mut()?.x = 1.5;
    /// transaction.commit()?;
    /// assert_eq!(state.read()?.x, 1.5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `NoFreeSlot`, `Memory` when there is no room, `Corrupt`.
    #[inline(always)]
    pub fn get_mut(&mut self) -> Result<&mut T> {
        self.draft.value_mut()
    }

    /// Its bytes, to be changed.
    ///
    /// Example: see [`Transaction`].
    ///
    /// # Errors
    /// As [`Transaction::get_mut`].
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        self.draft.bytes_mut()
    }

    /// Makes the new version `len` bytes long; what is added is zeros.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// # let state = Domain::open(dir.path())?.writer::<[u8]>("log")?;
    /// let mut transaction = state.begin()?;
    /// transaction.resize(10_000)?;
    /// transaction.bytes_mut()?[9_999] = 1;
    /// transaction.commit()?;
    /// assert_eq!(state.read()?.len(), 10_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Size`, and as [`Transaction::get_mut`].
    pub fn resize(&mut self, len: usize) -> Result<()> {
        self.draft.resize(len)
    }

    /// How many bytes the version has as it stands.
    pub(crate) fn raw_len(&self) -> Result<usize> {
        Ok(self.draft.bytes()?.len())
    }

    /// Makes the new version the current one; returns its number. A transaction that has changed
    /// nothing always succeeds, whoever committed meanwhile: it makes no new version, wakes nobody,
    /// and returns the version it began with.
    ///
    /// Example: see [`Transaction`].
    ///
    /// # Errors
    /// `Conflict` when something was changed here and another commit came first, by version and not
    /// by content; `Deleted`, `Forked`, `Corrupt`.
    #[inline(always)]
    pub fn commit(self) -> Result<u64> {
        self.draft.commit()
    }

    /// The same, and tells of it.
    pub(crate) fn commit_told(self, tell: impl FnOnce(&Commit<'_>)) -> Result<u64> {
        self.draft.commit_told(tell)
    }

    /// The name of its state.
    pub(crate) fn name(&self) -> &str {
        &self.draft.memory().name
    }

    /// Throws the changes away; dropping does the same.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// # let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// let mut transaction = state.begin()?;
    /// transaction.bytes_mut()?[0] = 1;
    /// transaction.abort();
    /// assert_eq!(state.version()?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn abort(self) {}
}
