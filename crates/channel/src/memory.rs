//! Channels between nodes in one process: a pair, and a full mesh of a group.
//!
//! A production transport, and the ground on which protocols are tested.
//!
//! Example: see [`pair`] and [`group`].

mod group;

pub use group::{Group, group, group_with, try_group};

use crate::{
    Bounds, Bytes, Channel, NodeId, Payload, Peer, Proof, Result, Statistics, Transport,
    endpoint::{Endpoint, Spins},
    queue::Queue,
};
use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// One end of a channel in memory. A clone is the same end; the last one dropped closes it.
///
/// Example: see [`pair`].
#[derive(Clone)]
pub struct MemoryChannel {
    endpoint: Arc<Endpoint>,
}

/// Both ends of a channel: node 1 and node 2. Where a node has several, each to another one, use
/// [`group`], so that the ends say whose they are.
///
/// ```
/// use mainstay_channel::{Channel, NodeId, memory};
/// use std::time::Duration;
/// let (a, b) = memory::pair();
/// a.send("ringing".into())?;
/// assert_eq!(b.receive(Duration::from_secs(1))?.unwrap(), "ringing");
/// assert_eq!((b.peer().node, a.peer().node), (NodeId(1), NodeId(2)));
/// # Ok::<(), mainstay_channel::Error>(())
/// ```
#[must_use]
pub fn pair() -> (MemoryChannel, MemoryChannel) {
    pair_between(Bounds::default(), NodeId(1), NodeId(2))
}

/// The same with bounds of one's own.
///
/// ```
/// use mainstay_channel::{Bounds, Channel, memory};
/// let (a, _b) = memory::pair_with(Bounds { messages: 2, ..Bounds::default() })?;
/// assert!(a.try_send("1".into())?.is_none() && a.try_send("2".into())?.is_none());
/// assert!(a.try_send("3".into())?.is_some(), "full");
/// # Ok::<(), mainstay_channel::Error>(())
/// ```
///
/// # Errors
/// `Bounds`, when no channel can have them.
pub fn pair_with(bounds: Bounds) -> Result<(MemoryChannel, MemoryChannel)> {
    Ok(pair_between(bounds.check()?, NodeId(1), NodeId(2)))
}

/// The ends at `first` and at `second`.
fn pair_between(bounds: Bounds, first: NodeId, second: NodeId) -> (MemoryChannel, MemoryChannel) {
    let (there, back) = (Arc::new(Queue::new(bounds)), Arc::new(Queue::new(bounds)));
    let end = |outgoing: &Arc<Queue>, incoming: &Arc<Queue>, node| MemoryChannel {
        endpoint: Arc::new(Endpoint {
            outgoing: Arc::clone(outgoing),
            incoming: Arc::clone(incoming),
            peer: Peer::new(node, Proof::SameProcess, Transport::Memory),
            spins: Some(Spins::new()),
        }),
    };
    (end(&there, &back, second), end(&back, &there, first))
}

impl std::fmt::Debug for MemoryChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryChannel(to {}, open: {})", self.peer().node, self.is_open())
    }
}

crate::endpoint::delegate!(MemoryChannel);
