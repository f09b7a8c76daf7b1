//! UDP multicast: everybody who listens to a group's address hears everything, without a server.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdSocket};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{
    error::{Error, Result, fits},
    transport::{Heard, Transport},
};

/// The longest content of a UDP datagram over IPv4 (RFC 768, RFC 791: 65,535 less both headers).
const DATAGRAM_LEN_MAX: usize = 65_507;

/// What the system is asked to keep for a node that is busy. It may give less.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Which group, and how far its messages go.
///
/// Example: see [`Multicast`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MulticastOptions {
    /// The group's address, 224.0.0.0 to 239.255.255.255; those that begin with 239 are free for
    /// everybody (RFC 2365).
    pub group: SocketAddrV4,
    /// The address of the interface that is used; 127.0.0.1 stays on this host.
    pub interface: Ipv4Addr,
    /// How many routers a message may pass; 1 stays in the local network.
    pub hops: u32,
}

impl MulticastOptions {
    /// The group at `group`, on this host only.
    ///
    /// Example: see [`Multicast`].
    #[must_use]
    pub fn on_this_host(group: SocketAddrV4) -> Self {
        Self { group, interface: Ipv4Addr::LOCALHOST, hops: 1 }
    }
}

/// A member of a multicast group.
///
/// A message is one datagram of at most 65,507 bytes: content of about 40 KB beside the default
/// filter. What is longer is refused and not cut into pieces: each piece would be lost by itself,
/// and the chance that all arrive sinks with every one of them; whoever has more to say says it in
/// several messages. Over a network a datagram above the packet size (1,500 bytes on most) is cut
/// by IP, with the same effect; a smaller filter ([`Config::filter_capacity`]
/// with [`only_own_peers`]) helps.
///
/// [`Config::filter_capacity`]: crate::Config::filter_capacity
/// [`only_own_peers`]: crate::Config::only_own_peers
///
/// ```no_run
/// use mainstay_sds::driver::{Multicast, MulticastOptions, Node};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let options = MulticastOptions::on_this_host("239.77.3.1:7731".parse().unwrap());
/// let (handle, events) = Node::new(b"alice", Multicast::join(options)?)?.spawn();
/// # Ok::<(), mainstay_sds::driver::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Multicast {
    socket: UdpSocket,
    group: SocketAddr,
    buffer: Box<[u8]>,
}

impl Multicast {
    /// Joins a group. Any number of processes of a host may.
    ///
    /// Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// [`Error::NotAGroup`] or [`Error::Io`].
    ///
    /// Example: see [`Multicast`].
    pub fn join(options: MulticastOptions) -> Result<Self> {
        let MulticastOptions { group, interface, .. } = options;
        if !group.ip().is_multicast() {
            return Err(Error::NotAGroup { group: *group.ip() });
        }
        let failed = Error::io(format!("join the group {group} at interface {interface}"));
        let socket = Self::socket(options)
            .and_then(|socket| UdpSocket::from_std(StdSocket::from(socket)))
            .map_err(failed)?;
        let buffer = vec![0; DATAGRAM_LEN_MAX + 1].into();
        Ok(Self { socket, group: group.into(), buffer })
    }

    fn socket(options: MulticastOptions) -> std::io::Result<Socket> {
        let MulticastOptions { group, interface, hops } = options;
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // All members on a host use the same port.
        socket.set_reuse_address(true)?;
        // Less than was asked for is no reason to stop.
        let _as_much_as_there_is = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        // Bound to the group, it hears nothing that is sent to this host alone.
        socket.bind(&SocketAddr::from(group).into())?;
        socket.join_multicast_v4(group.ip(), &interface)?;
        socket.set_multicast_if_v4(&interface)?;
        socket.set_multicast_loop_v4(true)?;
        socket.set_multicast_ttl_v4(hops)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

impl Transport for Multicast {
    fn message_len_max(&self) -> usize {
        DATAGRAM_LEN_MAX
    }

    async fn broadcast(&mut self, message: &[u8]) -> Result<()> {
        fits(message.len(), DATAGRAM_LEN_MAX)?;
        let failed = Error::io(format!("send to the group {}", self.group));
        self.socket.send_to(message, self.group).await.map(drop).map_err(failed)
    }

    async fn receive(&mut self, message: &mut Vec<u8>) -> Result<Heard> {
        let failed = Error::io(format!("receive from the group {}", self.group));
        let (len, _) = self.socket.recv_from(&mut self.buffer).await.map_err(failed)?;
        message.clear();
        message.extend_from_slice(&self.buffer[..len]);
        Ok(Heard::Message)
    }
}
