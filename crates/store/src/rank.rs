//! Whose writes a store takes, and which leaders it knows of.

use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use mainstay_storage::{Folder, Storage};

use crate::{
    any::{ANY_FILE, AnyHeader},
    error::{Error, Result},
    format::{COPY_AT, Header, STORE_FILE, StoreHeader, sealed},
    group::lock,
    history::{History, check_epoch, promoted},
    planted::{self, Fault},
};

/// Whose writes a store takes.
///
/// Example: see [`RawStore::create_replica`](crate::RawStore::create_replica).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// Those of its users.
    Leader = 0,
    /// Those of a leader.
    Follower = 1,
}

/// In the place of a role: a follower that has only a part of what its leader has.
const UNFINISHED: u32 = 2;

/// The role of a store in its header, when it is made: one that follows has nothing yet.
pub(crate) fn first_role(role: Role) -> u32 {
    match role {
        Role::Leader => Role::Leader as u32,
        Role::Follower => UNFINISHED,
    }
}

/// What the header of a store says of it.
#[derive(Clone, Copy)]
pub(crate) struct Rank {
    pub(crate) epoch: u64,
    known_epoch: u64,
    pub(crate) role: Role,
    /// It has had all that its leader had, and was not begun to be brought to something else since;
    /// see [`RawStore::set_whole`](crate::RawStore::set_whole).
    pub(crate) is_whole: bool,
}

impl Rank {
    /// The highest epoch of a leader that it knows of, itself included if it is one.
    pub(crate) fn known(&self) -> u64 {
        match self.role {
            Role::Leader => self.known_epoch.max(self.epoch),
            Role::Follower => self.known_epoch,
        }
    }

    /// It as a follower that knows of this epoch, if that is news.
    fn fenced(self, epoch: u64) -> Option<Self> {
        let fenced = Self { known_epoch: epoch, role: Role::Follower, ..self };
        (epoch > self.known()).then_some(fenced)
    }

    fn demoted(self) -> Self {
        Self { known_epoch: self.known(), role: Role::Follower, ..self }
    }

    /// It as the leader, with an epoch above all that it knows of; see
    /// [`RawStore::promote`](crate::RawStore::promote).
    fn promoted(self, above: u64, drawn: u16) -> Result<Self> {
        if !self.is_whole {
            return Err(Error::NotWhole);
        }
        let known_epoch = self.known_epoch.max(above);
        let epoch = promoted(known_epoch.max(self.epoch), drawn)?;
        Ok(Self { epoch, known_epoch, role: Role::Leader, ..self })
    }
}

/// A header of a store.
pub(crate) trait Ranked: Header {
    /// The file that it is in.
    const FILE: &str;

    fn rank(&self) -> Rank;
    fn set_rank(&mut self, rank: Rank);

    /// It has one more generation from now on, and this is which.
    fn next_generation(&mut self) -> u64;

    /// Are the numbers some that can be?
    fn has_rank(&self) -> bool;

    /// Refuses a copy that is not finished.
    fn check_finished(&self) -> Result<()> {
        if self.rank().is_whole { Ok(()) } else { Err(Error::NotWhole) }
    }
}

/// The fields have the same names in the headers of both kinds of stores.
macro_rules! ranked {
    ($header:ty, $file:expr) => {
        impl Ranked for $header {
            const FILE: &str = $file;

            fn rank(&self) -> Rank {
                let is_leader = self.role.get() == Role::Leader as u32;
                let role = if is_leader { Role::Leader } else { Role::Follower };
                let (epoch, known_epoch) = (self.epoch.get(), self.known_epoch.get());
                Rank { epoch, known_epoch, role, is_whole: self.role.get() != UNFINISHED }
            }

            fn set_rank(&mut self, rank: Rank) {
                self.epoch = rank.epoch.into();
                self.known_epoch = rank.known_epoch.into();
                self.role = if rank.is_whole { rank.role as u32 } else { UNFINISHED }.into();
            }

            fn next_generation(&mut self) -> u64 {
                self.generation = (self.generation.get() + 1).into();
                self.generation.get()
            }

            fn has_rank(&self) -> bool {
                self.epoch.get() < u64::MAX && self.role.get() <= UNFINISHED
            }
        }
    };
}

ranked!(StoreHeader, STORE_FILE);
ranked!(AnyHeader, ANY_FILE);

/// Writes the header of a store durably; the copy that is there stays until then.
pub(crate) fn write_next<H: Ranked>(folder: &impl Folder, header: &mut H) -> Result<()> {
    let generation = header.next_generation();
    let write = || {
        let file = folder.file(H::FILE)?;
        file.write_at(if generation.is_multiple_of(2) { 0 } else { COPY_AT }, &sealed(header))?;
        file.sync()
    };
    write().map_err(Error::io(H::FILE))
}

/// Is each shard as a write left it?
pub(crate) fn at_places(shards: impl IntoIterator<Item = (u32, History)>) -> Result<()> {
    let at_none = |(shard, at): (u32, History)| at.position().is_none().then_some(shard);
    match shards.into_iter().find_map(at_none) {
        Some(shard) => Err(Error::Mending { shard }),
        None => Ok(()),
    }
}

/// Whether an open store takes writes of its own, and its header as it is on the disk.
///
/// What becomes of it is written to both places of the header: one bad sector must not bring a leader
/// back that was replaced.
pub(crate) struct Standing<H> {
    kept: Mutex<H>,
    /// As it was opened, or made by a promotion; one that was fenced since leads no more.
    rank: Rank,
    /// The highest epoch that it was fenced by. Who is refused reads it without the lock of the
    /// header: whoever fences waits for writers under that.
    fenced_by: AtomicU64,
    is_closed: AtomicBool,
    /// Another store has its place.
    is_resharded: AtomicBool,
}

impl<H: Ranked> Standing<H> {
    pub(crate) fn of(header: H) -> Self {
        let rank = header.rank();
        Self {
            kept: Mutex::new(header),
            rank,
            fenced_by: AtomicU64::new(rank.known()),
            is_closed: AtomicBool::new(rank.role == Role::Follower),
            is_resharded: AtomicBool::new(false),
        }
    }

    fn kept(&self) -> MutexGuard<'_, H> {
        lock(&self.kept)
    }

    pub(crate) fn header(&self) -> H {
        *self.kept()
    }

    pub(crate) fn rank(&self) -> Rank {
        self.kept().rank()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(SeqCst)
    }

    /// Are writes of its own taken? Who is about to write asks under the lock of the log.
    pub(crate) fn check_open(&self) -> Result<()> {
        if !self.is_closed() {
            return Ok(());
        }
        if self.is_resharded.load(SeqCst) {
            return Err(Error::Resharded);
        }
        match self.rank.role {
            Role::Leader => {
                let by = self.fenced_by.load(SeqCst);
                Err(Error::Replaced { epoch: self.rank.epoch, by })
            }
            Role::Follower => Err(Error::Follows),
        }
    }

    pub(crate) fn check_follows(&self) -> Result<()> {
        match self.rank().role {
            Role::Follower => Ok(()),
            Role::Leader => Err(Error::Leads),
        }
    }

    /// Notes of a follower whether it has all that its leader had; not if a shard is at no place.
    pub(crate) fn set_whole(
        &self,
        folder: &impl Folder,
        is_whole: bool,
        shards: impl IntoIterator<Item = (u32, History)>,
    ) -> Result<()> {
        let mut kept = self.kept();
        let rank = kept.rank();
        if rank.role == Role::Leader {
            return Err(Error::Leads);
        }
        if rank.is_whole == is_whole {
            return Ok(());
        }
        if is_whole && !planted::is(Fault::WholeAtNoPlace) {
            at_places(shards)?;
        }
        let mut header = *kept;
        header.set_rank(Rank { is_whole, ..rank });
        write_next(folder, &mut header)?;
        *kept = header;
        if planted::is(Fault::MarkedOnce) {
            return Ok(());
        }
        // Neither place says the other thing any more.
        write_next(folder, &mut header)?;
        *kept = header;
        Ok(())
    }

    /// There is a leader of this epoch. `wait` is until whoever got in before has written.
    pub(crate) fn fence(
        &self,
        folder: &impl Folder,
        epoch: u64,
        wait: impl FnOnce(),
    ) -> Result<()> {
        let mut kept = self.kept();
        let Some(fenced) = kept.rank().fenced(epoch) else { return Ok(()) };
        check_epoch(epoch)?;
        self.fenced_by.store(epoch, SeqCst);
        self.is_closed.store(true, SeqCst);
        wait();
        let mut header = *kept;
        header.set_rank(fenced);
        // Only what is on the disk is known: where that failed, the next one tries again.
        write_next(folder, &mut header)?;
        *kept = header;
        write_next(folder, &mut header)?;
        *kept = header;
        Ok(())
    }

    /// Makes it a follower, and returns the header.
    pub(crate) fn demote(&mut self, folder: &impl Folder) -> Result<H> {
        let rank = self.rank().demoted();
        self.become_of(folder, rank)
    }

    /// Makes it what another store was: who follows takes no writes, and stays a part of what its leader
    /// had if it was that.
    pub(crate) fn stand_as(&mut self, folder: &impl Folder, other: Rank) -> Result<H> {
        if other.role == Role::Leader || planted::is(Fault::MadeLeader) {
            return Ok(self.header());
        }
        let is_whole = other.is_whole || planted::is(Fault::MadeWhole);
        self.become_of(folder, Rank { is_whole, ..self.rank().demoted() })
    }

    /// Makes it the leader, if all of its shards are at a place, and returns the header.
    pub(crate) fn promote(
        &mut self,
        folder: &impl Folder,
        (above, drawn): (u64, u16),
        shards: impl IntoIterator<Item = (u32, History)>,
    ) -> Result<H> {
        at_places(shards)?;
        let rank = self.rank().promoted(above, drawn)?;
        self.become_of(folder, rank)
    }

    fn become_of(&mut self, folder: &impl Folder, rank: Rank) -> Result<H> {
        if self.is_resharded.load(SeqCst) {
            return Err(Error::Resharded);
        }
        let mut header = self.header();
        header.set_rank(rank);
        write_next(folder, &mut header)?;
        write_next(folder, &mut header)?;
        *self = Self::of(header);
        Ok(header)
    }

    /// Another store has its place, and it takes no more writes.
    pub(crate) fn give_way(&self) {
        self.is_resharded.store(true, SeqCst);
        self.is_closed.store(true, SeqCst);
    }

    /// It keeps its place, and takes writes as before.
    pub(crate) fn go_on(&self) {
        // Nobody fences it between the look and the word.
        let kept = self.kept();
        let is_fenced = self.fenced_by.load(SeqCst) > kept.rank().known();
        self.is_resharded.store(false, SeqCst);
        self.is_closed.store(is_fenced || kept.rank().role == Role::Follower, SeqCst);
    }
}

#[cfg(test)]
mod tests;
