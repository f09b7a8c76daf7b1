//! Changing several states at once, or none.

use crate::{
    Commit, Error, Result, RetryPolicy,
    draft::{Draft, conflict, refused},
    limits::STATES_PER_TRANSACTION,
    protocol::{Outcome, Part, Words as _, commit_many},
    state::State,
    value::Value,
};
use mainstay_shm::hook;

/// A change of up to 16 states of one folder, of which all or none become visible, at one instant.
/// States that were only read must not have changed either, or the commit is refused: so what was
/// written on the ground of what was read stands. And all that it sees is from one instant: where
/// that is no longer possible, because one of its states has changed before it first used another,
/// that use is refused already.
///
/// A process that dies in the middle of a commit delays nobody: whoever meets what it has begun
/// finishes it, or undoes it.
///
/// ```
/// # use mainstay_state::{Domain, MultiTransaction, RetryPolicy};
/// # let dir = tempfile::tempdir()?;
/// # let domain = Domain::open(dir.path())?;
/// let (from, to) = (domain.writer::<[u8]>("from")?, domain.writer::<[u8]>("to")?);
/// from.replace(&[100])?;
/// to.replace(&[0])?;
/// MultiTransaction::transact(RetryPolicy::default(), |both| {
///     both.bytes_mut(&from)?[0] -= 10;
///     both.bytes_mut(&to)?[0] += 10;
///     Ok(())
/// })?;
/// assert_eq!((from.read()?[0], to.read()?[0]), (90, 10));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct MultiTransaction<'a> {
    drafts: [Option<Draft<'a>>; STATES_PER_TRANSACTION],
    count: usize,
}

impl<'a> MultiTransaction<'a> {
    /// One without any state; each is added by its first use.
    ///
    /// Example: see [`crate::together`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins, calls `change`, commits, and on a conflict begins again, as `policy` says.
    ///
    /// Example: see [`MultiTransaction`].
    ///
    /// # Errors
    /// Whatever `change` returns, at once, except `Conflict`; `RetriesExhausted`; as
    /// [`MultiTransaction::commit`].
    pub fn transact<R>(
        policy: RetryPolicy,
        mut change: impl FnMut(&mut MultiTransaction<'a>) -> Result<R>,
    ) -> Result<R> {
        policy.run(|| {
            let mut transaction = MultiTransaction::new();
            let result = change(&mut transaction)?;
            transaction.commit()?;
            Ok(result)
        })
    }

    /// The value of a state as this transaction sees it.
    ///
    /// ```
    /// # use mainstay_state::{Domain, MultiTransaction};
    /// # let dir = tempfile::tempdir()?;
    /// # let domain = Domain::open(dir.path())?;
    /// let state = domain.writer::<[u8]>("speed")?;
    /// let mut transaction = MultiTransaction::new();
    /// assert_eq!(transaction.get(&state)?[0], 0);
    /// transaction.bytes_mut(&state)?[0] = 1;
    /// assert_eq!(transaction.get(&state)?[0], 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Conflict` when this is the first use of the state here, and one used before has changed;
    /// `NotPermitted` when the handle may only read (to find out that nothing has changed, a commit
    /// must be able to hold the state for an instant); `TooManyStates`, `OtherDomain`; as
    /// [`State::begin`].
    #[inline]
    pub fn get<T: Value + ?Sized>(&mut self, state: &'a State<T>) -> Result<&T> {
        self.draft(state)?.value()
    }

    /// The value of a state, to be changed.
    ///
    /// ```
    /// # use mainstay_state::{Domain, MultiTransaction};
    /// # let dir = tempfile::tempdir()?;
    /// # let domain = Domain::open(dir.path())?;
    /// let state = domain.writer::<[u8]>("speed")?;
    /// let mut transaction = MultiTransaction::new();
    /// transaction.get_mut(&state)?[0] = 1;
    /// transaction.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`MultiTransaction::get`], and `NoFreeSlot`. After an error drop the transaction: that
    /// lets go of all it has claimed.
    #[inline]
    pub fn get_mut<T: Value + ?Sized>(&mut self, state: &'a State<T>) -> Result<&mut T> {
        self.draft(state)?.value_mut()
    }

    /// The bytes of a state, to be changed.
    ///
    /// Example: see [`MultiTransaction`].
    ///
    /// # Errors
    /// As [`MultiTransaction::get_mut`].
    #[inline]
    pub fn bytes_mut<T: Value + ?Sized>(&mut self, state: &'a State<T>) -> Result<&mut [u8]> {
        self.draft(state)?.bytes_mut()
    }

    /// Makes the new version of a state `len` bytes long; what is added is zeros.
    ///
    /// ```
    /// # use mainstay_state::{Domain, MultiTransaction};
    /// # let dir = tempfile::tempdir()?;
    /// # let domain = Domain::open(dir.path())?;
    /// let state = domain.writer::<[u8]>("log")?;
    /// let mut transaction = MultiTransaction::new();
    /// transaction.resize(&state, 3)?;
    /// transaction.commit()?;
    /// assert_eq!(state.read()?.len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Size`, and as [`MultiTransaction::get_mut`].
    pub fn resize<T: Value + ?Sized>(&mut self, state: &'a State<T>, len: usize) -> Result<()> {
        self.draft(state)?.resize(len)
    }

    /// This transaction's view of a state, begun when it has none.
    #[inline]
    fn draft<T: Value + ?Sized>(&mut self, state: &'a State<T>) -> Result<&mut Draft<'a>> {
        let memory = state.memory();
        let id = memory.id();
        let known = self.drafts[..self.count]
            .iter()
            .position(|draft| draft.as_ref().is_some_and(|draft| draft.memory().id() == id));
        let index = match known {
            Some(index) => index,
            None => self.add(state.begin_draft()?)?,
        };
        Ok(self.drafts[index].as_mut().expect("the first `count` places have a draft"))
    }

    fn add(&mut self, draft: Draft<'a>) -> Result<usize> {
        let index = self.count;
        if index == STATES_PER_TRANSACTION {
            return Err(Error::TooManyStates { max: STATES_PER_TRANSACTION });
        }
        let memory = draft.memory();
        if let Some(Some(first)) = self.drafts.first()
            && first.memory().header.domain != memory.header.domain
        {
            return Err(Error::OtherDomain { state: memory.name.clone() });
        }
        // Behind its pin: what is still current was current when that was made, so all that this
        // transaction sees is of that instant, and it may end there if it changes nothing.
        if !hook::planted("add-without-look") {
            self.check_current()?;
        }
        self.drafts[index] = Some(draft);
        self.count += 1;
        Ok(index)
    }

    /// Makes all new versions current at one instant, if none of the states has changed since it was
    /// first used here. Without changes it always succeeds, makes nothing and wakes nobody: all that
    /// was read is from one instant, see [`MultiTransaction::get`].
    ///
    /// Example: see [`MultiTransaction`].
    ///
    /// # Errors
    /// `Conflict`, which names a state that has changed; `Deleted`, `Forked`, `Corrupt`.
    pub fn commit(mut self) -> Result<()> {
        self.publish()
    }

    /// The same; tells of each state that was changed, while what it has published is still in slots
    /// of ours.
    pub(crate) fn commit_told(mut self, mut tell: impl FnMut(&Commit<'_>)) -> Result<()> {
        if self.count == 1 {
            let only = self.drafts[0].take();
            return only.map_or(Ok(()), |draft| draft.commit_told(tell).map(drop));
        }
        self.publish()?;
        for draft in self.drafts.iter().flatten().filter(|draft| draft.slot().is_some()) {
            // It was written through this very call, so it does not fail now.
            let Ok(value) = draft.bytes() else { continue };
            tell(&Commit::new(&draft.memory().name, draft.base.version() + 1, value));
        }
        Ok(())
    }

    /// What `commit` does; the drafts keep their slots until they are dropped.
    fn publish(&mut self) -> Result<()> {
        let drafts = &mut self.drafts[..self.count];
        // In the order of ids: references are installed in one order everywhere.
        drafts.sort_unstable_by_key(|draft| draft.as_ref().map(|draft| draft.memory().id()));
        let Some(Some(first)) = drafts.first() else { return Ok(()) };
        let tenant = first.memory().tenant.clone();
        tenant.check_process(&first.memory().name)?;
        if drafts.iter().flatten().all(|draft| draft.slot().is_none()) {
            return drafts.iter().flatten().try_for_each(|draft| draft.confirm().map(drop));
        }
        if drafts.len() == 1 {
            let only = drafts[0].take();
            return only.map_or(Ok(()), |draft| draft.commit().map(drop));
        }
        drafts.iter().flatten().try_for_each(Draft::seal)?;
        let record = tenant.own_record()?;
        let part = |index: usize| {
            // Behind the last there are only fillers, which are cut off below.
            let draft = drafts[index.min(drafts.len() - 1)].as_ref();
            let draft = draft.expect("the first `count` places have a draft");
            let slot = draft.slot().unwrap_or(draft.base.slot());
            Part { state: draft.memory(), base: draft.base, slot }
        };
        let parts: [Part<'_, _>; STATES_PER_TRANSACTION] = std::array::from_fn(part);
        match commit_many(&*tenant, record.number, &parts[..drafts.len()]) {
            Outcome::Committed => Ok(()),
            Outcome::Conflict => Err(self.conflict()),
            outcome => Err(refused(parts[0].state, outcome)),
        }
    }

    /// Whether all that was read is still current. Versions only grow, so one pass shows it for the
    /// instant at its beginning.
    #[inline]
    fn check_current(&self) -> Result<()> {
        for draft in self.drafts.iter().flatten() {
            if !draft.is_current()? {
                return Err(conflict(draft.memory()));
            }
        }
        Ok(())
    }

    /// Which state has changed.
    fn conflict(&self) -> Error {
        let changed =
            self.drafts.iter().flatten().find(|draft| !draft.is_current().unwrap_or(false));
        let first = self.drafts.iter().flatten().next();
        let draft = changed.or(first).expect("a commit of no states cannot conflict");
        conflict(draft.memory())
    }
}
