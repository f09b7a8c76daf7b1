//! A full mesh of nodes in one process.
//!
//! N1. Between any two live nodes there is one channel, with an end at each; it comes into being
//!     when one of its ends is first asked for.
//! N2. A node that crashed has no channel until it is reconnected; what it had is aborted, whoever
//!     holds a handle.
//! N3. Whether a node is up is a fact of that node alone: the crash of another changes nothing.

use super::{MemoryChannel, pair_between};
use crate::{Bounds, Channel, Error, NodeId, Result, limits::GROUP_SIZE_MAX};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A full mesh of `n` nodes, with n(n-1) directed channels: see [`group`].
///
/// Dropping it closes every channel in it; a handle that outlives it reports that it is closed.
pub struct Group {
    bounds: Bounds,
    size: usize,
    mesh: Mutex<Mesh>,
}

/// For how many channels there is room in the table of a new group, at most.
const PAIRS_AT_FIRST: usize = 512;

struct Mesh {
    down: Vec<bool>,
    /// Both ends of each channel that was used, by its lower and its higher node.
    pairs: HashMap<(u32, u32), (MemoryChannel, MemoryChannel)>,
}

/// A group of `size` nodes, all of them up.
///
/// ```
/// use mainstay_channel::{Channel, memory};
/// use std::time::Duration;
/// let group = memory::group(3);
/// group.channel(0, 2).send("ringing".into())?;
/// assert_eq!(group.channel(2, 0).receive(Duration::from_secs(1))?.unwrap(), "ringing");
///
/// let old = group.channel(0, 2);
/// group.simulate_crash(2);
/// assert!(!group.is_node_live(2) && group.is_node_live(0));
/// assert!(old.send("anybody?".into()).is_err());
/// group.reconnect(2);
/// group.channel(0, 2).send("welcome back".into())?;
/// # Ok::<(), mainstay_channel::Error>(())
/// ```
///
/// # Panics
/// When `size` is zero or over the limit: a bug of the caller. [`try_group`] returns an error.
#[must_use]
pub fn group(size: usize) -> Group {
    try_group(size).unwrap_or_else(|error| panic!("{error}"))
}

/// The same, with an error in place of a panic.
///
/// ```
/// use mainstay_channel::{Error, memory};
/// assert!(matches!(memory::try_group(0), Err(Error::GroupSize { size: 0, .. })));
/// assert_eq!(memory::try_group(1)?.size(), 1);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// `GroupSize`.
pub fn try_group(size: usize) -> Result<Group> {
    group_with(size, Bounds::default())
}

/// The same with bounds of one's own.
///
/// ```
/// use mainstay_channel::{Bounds, memory};
/// let group = memory::group_with(3, Bounds { messages: 16, ..Bounds::default() })?;
/// assert_eq!(group.size(), 3);
/// # Ok::<(), mainstay_channel::Error>(())
/// ```
///
/// # Errors
/// `GroupSize`, `Bounds`.
pub fn group_with(size: usize, bounds: Bounds) -> Result<Group> {
    if !(1..=GROUP_SIZE_MAX).contains(&size) {
        return Err(Error::GroupSize { size, max: GROUP_SIZE_MAX });
    }
    // Most nodes talk to one other at least; a large group is not made to pay for it in advance.
    let pairs = HashMap::with_capacity(size.min(PAIRS_AT_FIRST));
    let mesh = Mutex::new(Mesh { down: vec![false; size], pairs });
    Ok(Group { bounds: bounds.check()?, size, mesh })
}

impl Group {
    /// How many nodes there are, up or down.
    ///
    /// Example: see [`try_group`].
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The end at node `from` of its channel to node `to`.
    ///
    /// Example: see [`group`].
    ///
    /// # Panics
    /// When there is no such node, the two are the same, or one of them has crashed: a bug of the
    /// caller. [`Group::try_channel`] returns an error.
    #[must_use]
    pub fn channel(&self, from: usize, to: usize) -> MemoryChannel {
        self.try_channel(from, to).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, with an error in place of a panic.
    ///
    /// ```
    /// use mainstay_channel::{Error, memory};
    /// let group = memory::group(3);
    /// assert!(matches!(group.try_channel(0, 3), Err(Error::NoSuchNode { node: 3, .. })));
    /// assert!(matches!(group.try_channel(1, 1), Err(Error::SelfLoop { node: 1 })));
    /// group.simulate_crash(2);
    /// assert!(matches!(group.try_channel(0, 2), Err(Error::NodeDown { crashed: 2, .. })));
    /// ```
    ///
    /// # Errors
    /// `NoSuchNode`, `SelfLoop`, `NodeDown`.
    pub fn try_channel(&self, from: usize, to: usize) -> Result<MemoryChannel> {
        self.check(from)?;
        self.check(to)?;
        if from == to {
            return Err(Error::SelfLoop { node: from });
        }
        let mut mesh = self.mesh();
        if let Some(crashed) = [from, to].into_iter().find(|node| mesh.down[*node]) {
            return Err(Error::NodeDown { from, to, crashed });
        }
        let (low, high) = (from.min(to), from.max(to));
        let (at_low, at_high) = mesh
            .pairs
            .entry(key(low, high))
            .or_insert_with(|| pair_between(self.bounds, node_id(low), node_id(high)));
        Ok(if from == low { at_low.clone() } else { at_high.clone() })
    }

    /// Ends every channel of `node`, at both ends and for every handle, and leaves it down. Nothing
    /// happens to a node that is down already.
    ///
    /// Example: see [`group`].
    ///
    /// # Panics
    /// When there is no such node. [`Group::try_simulate_crash`] returns an error.
    pub fn simulate_crash(&self, node: usize) {
        self.try_simulate_crash(node).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The same, with an error in place of a panic.
    ///
    /// ```
    /// use mainstay_channel::{Error, memory};
    /// let group = memory::group(3);
    /// assert!(matches!(group.try_simulate_crash(3), Err(Error::NoSuchNode { .. })));
    /// ```
    ///
    /// # Errors
    /// `NoSuchNode`.
    pub fn try_simulate_crash(&self, node: usize) -> Result<()> {
        self.check(node)?;
        let mut mesh = self.mesh();
        mesh.down[node] = true;
        let number = u32_of(node);
        let touches = |(low, high): &(u32, u32)| *low == number || *high == number;
        let ended: Vec<_> = mesh.pairs.extract_if(|pair, _| touches(pair)).collect();
        drop(mesh);
        for (_, (at_low, _at_high)) in ended {
            at_low.abort();
        }
        Ok(())
    }

    /// Brings `node` up again: it gets fresh channels to every node that is up. Nodes that are down
    /// stay down, and channels between others are not touched. Nothing happens to a node that is up.
    ///
    /// Example: see [`group`].
    ///
    /// # Panics
    /// When there is no such node. [`Group::try_reconnect`] returns an error.
    pub fn reconnect(&self, node: usize) {
        self.try_reconnect(node).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The same, with an error in place of a panic.
    ///
    /// ```
    /// use mainstay_channel::{Error, memory};
    /// let group = memory::group(3);
    /// assert!(matches!(group.try_reconnect(3), Err(Error::NoSuchNode { .. })));
    /// ```
    ///
    /// # Errors
    /// `NoSuchNode`.
    pub fn try_reconnect(&self, node: usize) -> Result<()> {
        self.check(node)?;
        self.mesh().down[node] = false;
        Ok(())
    }

    /// Whether `node` is up; false for a node that does not exist.
    ///
    /// Example: see [`group`].
    #[must_use]
    pub fn is_node_live(&self, node: usize) -> bool {
        self.mesh().down.get(node) == Some(&false)
    }

    fn check(&self, node: usize) -> Result<()> {
        if node < self.size { Ok(()) } else { Err(Error::NoSuchNode { node, size: self.size }) }
    }

    // Nothing under this lock can leave the mesh half changed.
    fn mesh(&self) -> MutexGuard<'_, Mesh> {
        self.mesh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for (at_low, at_high) in self.mesh().pairs.values() {
            at_low.close();
            at_high.close();
        }
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Group({} nodes, {} channels used)", self.size, self.mesh().pairs.len())
    }
}

/// As peers are told: the number in the group.
fn node_id(node: usize) -> NodeId {
    NodeId(node as u64)
}

fn key(low: usize, high: usize) -> (u32, u32) {
    (u32_of(low), u32_of(high))
}

fn u32_of(node: usize) -> u32 {
    u32::try_from(node).expect("a group has at most 65,536 nodes")
}
