//! What can go wrong between the core and the world.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

/// The result of everything in this module.
///
/// Example: see [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Each variant says what was wrong, where, and what to do.
///
/// ```
/// use mainstay_sds::driver::{Bus, Error, Transport, Lossy, Faults};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let mut end = Bus::new().join();
/// let refused = end.broadcast(&vec![0; end.message_len_max() + 1]).await;
/// assert!(matches!(refused, Err(Error::TooLong { .. })));
/// # });
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The core refused something.
    #[error(transparent)]
    Sds(#[from] crate::Error),
    /// A message does not fit into what the transport carries.
    #[error(
        "a message of {len} bytes over a transport that carries {max}: send less content at once, \
         or make the channel's filter smaller"
    )]
    TooLong {
        /// How long the message is, or would be.
        len: usize,
        /// The most that the transport carries.
        max: usize,
    },
    /// An address that is no IPv4 multicast group.
    #[error("{group} is no multicast group: choose one from 224.0.0.0 to 239.255.255.255")]
    NotAGroup {
        /// The address.
        group: Ipv4Addr,
    },
    /// Text that is no address of libp2p.
    #[error("{address:?} is no libp2p address: {why}; write it like /ip4/127.0.0.1/tcp/7731")]
    Address {
        /// The text.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// A channel to another member, or the place to wait for such, cannot be had.
    #[cfg(feature = "channel")]
    #[error(transparent)]
    Channel(#[from] mainstay_channel::Error),
    /// A store node does not serve a channel.
    #[error("the store node at {address} does not serve channel {channel:?}: ask another one")]
    Refused {
        /// Which store node.
        address: SocketAddr,
        /// Which channel.
        channel: String,
    },
    /// The operating system refused something.
    #[error("cannot {action}: {source}; check the addresses and the network")]
    Io {
        /// What was tried, and where.
        action: String,
        /// Its answer.
        source: io::Error,
    },
    /// The node, or the transport, is no longer there.
    #[error("the node has ended: start another one")]
    Ended,
}

impl Error {
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

/// Refuses what a transport cannot carry.
pub(super) fn fits(len: usize, max: usize) -> Result<()> {
    if len > max { Err(Error::TooLong { len, max }) } else { Ok(()) }
}
