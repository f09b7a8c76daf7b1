//! Somebody who uses states as a program would: reads that look at every byte, commits of one state
//! and of several, each version written so that it can be told from every other.

use super::{
    contents::{Contents, SIZE, garbage},
    site::options,
};
use crate::{
    finding::{Check, Finding, ensure},
    verdict::Harm::Torn,
};
use mainstay_shm::Access;
use mainstay_state::{
    Domain, Error, MultiTransaction, Publisher, Snapshot, State, Transaction, together,
};
use std::path::Path;

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The library says so.
    Library(Error),
    /// Something is wrong.
    Found(Finding),
}

pub(crate) type Act<T = ()> = Result<T, Refusal>;

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

impl From<Finding> for Refusal {
    fn from(finding: Finding) -> Self {
        Self::Found(finding)
    }
}

impl From<Refusal> for Finding {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Library(error) => error.into(),
            Refusal::Found(finding) => finding,
        }
    }
}

impl Refusal {
    pub(crate) fn is_conflict(&self) -> bool {
        self.is(|error| matches!(error, Error::Conflict { .. }))
    }

    pub(crate) fn is(&self, such: impl FnOnce(&Error) -> bool) -> bool {
        matches!(self, Self::Library(error) if such(error))
    }
}

/// States by number, and which of them are accounts: their amounts add up to nothing.
pub(crate) trait Plan {
    const NAMES: &'static [&'static str];
    const ACCOUNTS: usize;
}

/// One process's handles, by the number of the state.
pub(crate) struct Actor {
    pub(crate) domain: Domain,
    states: Vec<Option<State<[u8]>>>,
    accounts: usize,
}

impl Actor {
    /// Makes all the states, with this many slots each.
    pub(crate) fn make<P: Plan>(folder: &Path, slots: u32) -> Act<Self> {
        let domain = Domain::open(folder)?;
        let make = |name: &&str| options(slots).writer(&domain, name).map(Some);
        let states = P::NAMES.iter().map(make).collect::<Result<_, _>>()?;
        Ok(Self { domain, states, accounts: P::ACCOUNTS })
    }

    /// Subscribes to the states `maps`, which are there.
    pub(crate) fn open<P: Plan>(folder: &Path, maps: &[usize], access: Access) -> Act<Self> {
        let domain = Domain::open(folder)?;
        let subscribe = |(at, name): (usize, &&str)| -> Result<Option<State<[u8]>>, Error> {
            match access {
                _ if !maps.contains(&at) => Ok(None),
                Access::ReadWrite => domain.writer(name).map(Some),
                Access::ReadOnly => domain.reader(name).map(Some),
            }
        };
        let states = P::NAMES.iter().enumerate().map(subscribe).collect::<Result<_, _>>()?;
        Ok(Self { domain, states, accounts: P::ACCOUNTS })
    }

    /// Other handles of the same subscriptions, for another thread.
    pub(crate) fn try_clone(&self) -> Act<Self> {
        let clone = |state: &Option<State<[u8]>>| state.as_ref().map(State::try_clone).transpose();
        let states = self.states.iter().map(clone).collect::<Result<_, _>>()?;
        Ok(Self { domain: self.domain.clone(), states, accounts: self.accounts })
    }

    pub(crate) fn state(&self, at: usize) -> &State<[u8]> {
        self.states[at].as_ref().expect("an actor uses what it has subscribed to")
    }

    /// Commits the next version of one state. Before it can commit, `about_to` is told what was
    /// read.
    pub(crate) fn single(&self, at: usize, author: u64, about_to: impl FnOnce(u64)) -> Act {
        let mut transaction = self.state(at).begin()?;
        let old = Contents::of(transaction.get()?, transaction.base_version())?;
        let len = transaction.get()?.len();
        transaction.bytes_mut()?.copy_from_slice(&old.next(0, author).bytes(len));
        about_to(old.version);
        let made = transaction.commit()?;
        let wanted = old.version + 1;
        Ok(ensure(made == wanted, Torn, || format!("a commit made version {made}, not {wanted}"))?)
    }

    /// Publishes one version of a state that is `old` as far as its author knows; returns its number.
    pub(crate) fn publish(publisher: &mut Publisher<[u8]>, old: Contents, author: u64) -> Act<u64> {
        let new = old.published(author);
        let made = publisher.publish(&new.bytes(SIZE))?;
        ensure(made >= new.version, Torn, || {
            format!("version {} was there, and version {made} was published", old.version)
        })?;
        Ok(made)
    }

    /// Commits the next version of several states, among which `amount` moves from the first to the
    /// last, if none of `checks` has changed meanwhile. Before it can commit, `about_to` is told
    /// what was read.
    pub(crate) fn transfer(
        &self,
        states: &[usize],
        checks: &[usize],
        (amount, author): (i64, u64),
        about_to: impl FnOnce(&[(usize, u64)]),
    ) -> Act {
        let mut transaction = MultiTransaction::new();
        let mut read = Vec::with_capacity(states.len() + checks.len());
        for at in checks {
            let old = Contents::whole(transaction.get(self.state(*at))?)?;
            read.push((*at, old.version));
        }
        for (place, at) in states.iter().enumerate() {
            let bytes = transaction.bytes_mut(self.state(*at))?;
            let old = Contents::whole(bytes)?;
            let amount = match place {
                0 => -amount,
                last if last == states.len() - 1 => amount,
                _ => 0,
            };
            let len = bytes.len();
            bytes.copy_from_slice(&old.next(amount, author).bytes(len));
            read.push((*at, old.version));
        }
        about_to(&read);
        Ok(transaction.commit()?)
    }

    /// What these states hold at one instant.
    pub(crate) fn look(&self, states: &[usize]) -> Act<Vec<Contents>> {
        let handles: Vec<&State<[u8]>> = states.iter().map(|at| self.state(*at)).collect();
        let snapshots = together(&handles[..])?;
        Ok(self.weigh(states, &snapshots)?)
    }

    /// The same of snapshots that were taken together.
    pub(crate) fn weigh(
        &self,
        states: &[usize],
        snapshots: &[Snapshot<'_, [u8]>],
    ) -> Check<Vec<Contents>> {
        let of = |snapshot: &Snapshot<'_, [u8]>| Contents::of(snapshot, snapshot.version());
        let contents: Vec<Contents> = snapshots.iter().map(of).collect::<Check<_>>()?;
        let accounts = states.iter().filter(|at| **at < self.accounts).count();
        let sum: i64 = states
            .iter()
            .zip(&contents)
            .filter(|(at, _)| **at < self.accounts)
            .map(|(_, contents)| contents.amount)
            .sum();
        ensure(accounts < self.accounts || sum == 0, Torn, || {
            format!("the accounts add up to {sum}, seen as of one instant: {contents:?}")
        })?;
        Ok(contents)
    }

    /// Claims every slot of a state that can be had, and writes garbage there.
    pub(crate) fn claim_all(&self, at: usize) -> Act<Vec<Transaction<'_, [u8]>>> {
        let mut claimed = Vec::new();
        loop {
            let mut transaction = self.state(at).begin()?;
            match transaction.bytes_mut() {
                Ok(bytes) => garbage(bytes),
                Err(Error::NoFreeSlot { .. }) => return Ok(claimed),
                Err(error) => return Err(error.into()),
            }
            claimed.push(transaction);
        }
    }
}
