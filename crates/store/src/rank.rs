//! Whose writes a store takes, and which leaders it knows of.

use crate::{any::AnyHeader, error::Result, format::StoreHeader, history::promoted};

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

/// What the header of a store says of it.
#[derive(Clone, Copy)]
pub(crate) struct Rank {
    pub(crate) epoch: u64,
    known_epoch: u64,
    pub(crate) role: Role,
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
    pub(crate) fn fenced(self, epoch: u64) -> Option<Self> {
        let fenced = Self { known_epoch: epoch, role: Role::Follower, ..self };
        (epoch > self.known()).then_some(fenced)
    }

    pub(crate) fn demoted(self) -> Self {
        Self { known_epoch: self.known(), role: Role::Follower, ..self }
    }

    /// It as the leader, with an epoch above all that it knows of; see
    /// [`RawStore::promote`](crate::RawStore::promote).
    pub(crate) fn promoted(self, drawn: u16) -> Result<Self> {
        let epoch = promoted(self.known_epoch.max(self.epoch), drawn)?;
        Ok(Self { epoch, role: Role::Leader, ..self })
    }
}

/// A header of a store.
pub(crate) trait Ranked {
    fn rank(&self) -> Rank;
    fn set_rank(&mut self, rank: Rank);

    /// Are the numbers some that can be?
    fn has_rank(&self) -> bool;
}

/// The fields have the same names in the headers of both kinds of stores.
macro_rules! ranked {
    ($header:ty) => {
        impl Ranked for $header {
            fn rank(&self) -> Rank {
                let is_leader = self.role.get() == Role::Leader as u32;
                let role = if is_leader { Role::Leader } else { Role::Follower };
                let (epoch, known_epoch) = (self.epoch.get(), self.known_epoch.get());
                Rank { epoch, known_epoch, role }
            }

            fn set_rank(&mut self, rank: Rank) {
                self.epoch = rank.epoch.into();
                self.known_epoch = rank.known_epoch.into();
                self.role = (rank.role as u32).into();
            }

            fn has_rank(&self) -> bool {
                self.epoch.get() < u64::MAX && self.role.get() <= Role::Follower as u32
            }
        }
    };
}

ranked!(StoreHeader);
ranked!(AnyHeader);
