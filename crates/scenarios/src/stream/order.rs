//! What the story and its hosts tell each other, and the keys that clients write.

use super::shelf::Backup;
use mainstay_sim::NodeId;
use mainstay_store::{Change, Position};
use std::{cell::RefCell, rc::Rc, time::Duration};

/// A write: changes of one shard; none: a delete.
pub(super) type Wanted = Vec<(u8, Option<Vec<u8>>)>;

/// A write that was made, and from where to where it led.
pub(super) struct Wrote {
    pub(super) node: NodeId,
    pub(super) ticket: u64,
    pub(super) before: Position,
    pub(super) after: Position,
}

/// What the story knows at once, while reports wait for disks and die with their hosts.
pub(super) type Journal = Rc<RefCell<Vec<Wrote>>>;

/// What the story tells a host.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// A client writes.
    Write { ticket: u64, changes: Wanted },
    /// Follow that one.
    Follow(NodeId),
    /// Follow nobody.
    Halt,
    /// Lead, above all epochs that the operator knows of: of the last leader this host may not
    /// have heard.
    Promote { drawn: u16, above: u64 },
    /// Make a backup.
    BackUp,
    /// Put a backup in place of what is there.
    Restore(Backup),
    /// Take nothing in for a while: messages wait.
    StandStill(Duration),
}

/// What a host tells the story.
#[derive(Clone, Debug)]
pub(super) enum Report {
    /// The leader and enough followers have it durably.
    Acked {
        ticket: u64,
    },
    Halted,
    Promoted,
    /// It is not to lead: it is catching up.
    Declined,
    Replaced {
        epoch: u64,
    },
    BackedUp(Backup),
    Restored,
    /// A follower has joined a leader of this epoch, and knew of that one.
    Joined {
        epoch: u64,
        known: u64,
    },
    Wrong(String),
}

pub(super) fn change_of((key, value): &(u8, Option<Vec<u8>>)) -> Change<'_> {
    let key = std::slice::from_ref(&KEYS[*key as usize]);
    Change::of(key, value.as_deref())
}

/// All keys.
pub(super) static KEYS: [u8; 32] = {
    let mut keys = [0; 32];
    let mut at = 0;
    while at < keys.len() {
        keys[at] = at as u8;
        at += 1;
    }
    keys
};
