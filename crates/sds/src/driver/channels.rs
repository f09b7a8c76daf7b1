//! A mesh of Mainstay channels: each member listens, dials the others, and sends everything to each.
//!
//! Two members need one channel between them, whoever dialled. A channel that is lost is dialled
//! again by the member that dialled it, with pauses that grow; what was said meanwhile is repaired
//! by SDS. A member that does not read loses what does not fit into its channel, and holds nobody
//! up. Strangers are kept out by the channels' handshake: a shared secret over TCP, certificates
//! over TLS and QUIC.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    task::{Context, Poll},
    time::Instant,
};

use mainstay_channel::{
    Bytes, Channel, Error as ChannelError,
    dial::{Action, Backoff, Dial, Event},
    handshake::Reason,
    net::{Listener, NetChannel, Settings, Wire, connecting},
};
use tokio::{sync::oneshot, task::JoinSet, time::sleep_until};

use super::{
    error::{Error, Result},
    mesh::{Door, Link, Mesh},
    node::random,
    transport::{Heard, Transport},
};
use crate::limits::MESSAGE_LEN_MAX;

/// A Mainstay channel to one other member, over whatever: see [`mainstay_channel::Channel`].
///
/// ```
/// use mainstay_channel::memory;
/// use mainstay_sds::{Config, driver::{Event, Mesh, Node, channels::ChannelLink}};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let (a, b) = memory::pair();
/// let (alice, _) = Node::new(b"alice", Mesh::new([ChannelLink::new(a)]))?.spawn();
/// let (bob, mut events) = Node::new(b"bob", Mesh::new([ChannelLink::new(b)]))?.spawn();
/// alice.join("room", Config::lip()).await?;
/// bob.join("room", Config::lip()).await?;
/// alice.send("room", b"hello").await?;
/// let Some(Event::Delivered(delivered)) = events.next().await else { panic!() };
/// assert_eq!(delivered.content, b"hello");
/// # Ok::<(), mainstay_sds::driver::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct ChannelLink<C: Channel> {
    channel: C,
    /// Tells, when the link is dropped, whether anything had arrived over it.
    dropped: Option<oneshot::Sender<bool>>,
}

impl<C: Channel> ChannelLink<C> {
    /// A link over `channel`.
    ///
    /// Example: see [`ChannelLink`].
    #[must_use]
    pub fn new(channel: C) -> Self {
        Self { channel, dropped: None }
    }
}

impl<C: Channel> Link for ChannelLink<C> {
    fn try_send(&mut self, message: &[u8]) -> io::Result<bool> {
        match self.channel.try_send(Bytes::copy_from_slice(message)) {
            Ok(left) => Ok(left.is_none()),
            // A peer that takes no message of this length loses it, and hears the others.
            Err(ChannelError::TooLong { .. }) => Ok(false),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let received = self.channel.poll_receive(cx);
        received.map(|message| message.map(Vec::from).map_err(io::Error::other))
    }

    fn member(&self) -> Option<u64> {
        Some(self.channel.peer().node.0)
    }
}

impl<C: Channel> Drop for ChannelLink<C> {
    fn drop(&mut self) {
        if let Some(dropped) = self.dropped.take() {
            // Nobody waits any more if the member is leaving.
            let _leaving = dropped.send(self.channel.statistics().messages_received > 0);
        }
    }
}

/// Over what the members talk, where one listens, and whom it dials.
///
/// Example: see [`Channels`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelsOptions {
    /// TCP, TLS or QUIC.
    pub wire: Wire,
    /// Who this member is, what proves it, and how much a channel holds. No message longer than
    /// SDS has them is taken.
    pub settings: Settings,
    /// Where to listen; port 0 lets the system choose one. A member that only dials needs none.
    pub listen: Option<String>,
    /// Addresses of other members. One's own does no harm.
    pub dial: Vec<String>,
    /// The pauses between attempts.
    pub backoff: Backoff,
}

impl ChannelsOptions {
    /// Neither listens nor dials yet; pauses of 1 to 30 seconds.
    ///
    /// Example: see [`Channels`].
    #[must_use]
    pub fn new(wire: Wire, settings: Settings) -> Self {
        Self { wire, settings, listen: None, dial: Vec::new(), backoff: Backoff::default() }
    }
}

/// A member of a mesh of channels over a network.
///
/// ```
/// use mainstay_channel::{ClusterId, NodeId, Secret, handshake::{Local, Purpose}};
/// use mainstay_channel::net::{Settings, Wire};
/// use mainstay_sds::driver::channels::{Channels, ChannelsOptions};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let options = |node| -> Result<ChannelsOptions, Box<dyn std::error::Error>> {
///     let local = Local::new(NodeId(node), ClusterId::default(), Purpose::new("room")?)
///         .with_secret(Secret::new(*b"0123456789abcdef")?);
///     Ok(ChannelsOptions::new(Wire::Tcp, Settings::new(local)))
/// };
/// let mut first = options(1)?;
/// first.listen = Some("127.0.0.1:0".to_owned());
/// let first = Channels::join(first)?;
/// let mut second = options(2)?;
/// second.dial.push(first.address().expect("it listens").to_string());
/// let second = Channels::join(second)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Channels {
    mesh: Mesh<ChannelLink<NetChannel>>,
    address: Option<SocketAddr>,
    /// Open as long as the member is there: it does not end when it is alone.
    _door: Door<ChannelLink<NetChannel>>,
    /// What listens and dials ends with the member.
    _tasks: JoinSet<()>,
}

impl Channels {
    /// Listens, and begins to dial. Has to be called from a tokio runtime with timers.
    ///
    /// # Errors
    /// [`Error::Channel`] if it cannot listen there.
    ///
    /// Example: see [`Channels`].
    pub fn join(options: ChannelsOptions) -> Result<Self> {
        let ChannelsOptions { wire, mut settings, listen, dial, backoff } = options;
        settings.bounds.message_len = settings.bounds.message_len.min(MESSAGE_LEN_MAX);
        let listener = match listen {
            Some(address) => Some(Listener::bind(&wire, &address, settings.clone())?),
            None => None,
        };
        let address = listener.as_ref().map(Listener::address);
        let (mesh, door) = Mesh::with_door();
        let mut tasks = JoinSet::new();
        if let Some(listener) = listener {
            tasks.spawn(accept(listener, door.clone()));
        }
        for address in dial {
            let dialler = Dialler { wire: wire.clone(), settings: settings.clone(), address };
            tasks.spawn(dialler.run(Dial::new(backoff.clone()), door.clone()));
        }
        Ok(Self { mesh, address, _door: door, _tasks: tasks })
    }

    /// Where it listens, if it does.
    ///
    /// Example: see [`Channels`].
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// How many channels there are, as far as is known by the last receive or broadcast.
    ///
    /// Example: see [`Mesh::links`].
    #[must_use]
    pub fn links(&self) -> usize {
        self.mesh.links()
    }
}

impl Transport for Channels {
    fn message_len_max(&self) -> usize {
        self.mesh.message_len_max()
    }

    fn broadcast(&mut self, message: &[u8]) -> impl Future<Output = Result<()>> + Send {
        self.mesh.broadcast(message)
    }

    fn receive(&mut self, message: &mut Vec<u8>) -> impl Future<Output = Result<Heard>> + Send {
        self.mesh.receive(message)
    }
}

async fn accept(listener: Listener, door: Door<ChannelLink<NetChannel>>) {
    loop {
        let channel = poll_fn(|cx| listener.poll_accept(cx)).await;
        if door.admit(ChannelLink::new(channel)).await.is_err() {
            return;
        }
    }
}

/// Goes to one address again and again.
struct Dialler {
    wire: Wire,
    settings: Settings,
    address: String,
}

impl Dialler {
    async fn run(self, mut dial: Dial, door: Door<ChannelLink<NetChannel>>) {
        let mut event = Event::Tick;
        loop {
            event = match dial.handle(Instant::now(), event, random()) {
                Action::Dial => match self.attempt(&mut dial, &door).await {
                    Ok(event) => event,
                    // The mesh is gone, or the address is this member's own.
                    Err(_) => return,
                },
                Action::WaitUntil(until) => {
                    sleep_until(until.into()).await;
                    Event::Tick
                }
                // There is no attempt under way: this is the only place that makes one.
                Action::Nothing => return,
            };
        }
    }

    /// One attempt, and the channel's life if it succeeds.
    async fn attempt(
        &self,
        dial: &mut Dial,
        door: &Door<ChannelLink<NetChannel>>,
    ) -> Result<Event> {
        let channel = match connecting(&self.wire, &self.address, &self.settings).await {
            Ok(channel) => channel,
            Err(error @ ChannelError::Refused { reason: Reason::SameNode, .. }) => {
                return Err(Error::Channel(error));
            }
            Err(_) => return Ok(Event::Failed),
        };
        dial.handle(Instant::now(), Event::Connected, 0);
        let (dropped, is_dropped) = oneshot::channel();
        door.admit(ChannelLink { channel, dropped: Some(dropped) }).await?;
        // A channel that has brought something was worth dialling.
        if is_dropped.await.unwrap_or(false) {
            dial.settle();
        }
        Ok(Event::Lost)
    }
}
