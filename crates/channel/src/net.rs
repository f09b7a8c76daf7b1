//! Channels over a network: TCP, TLS and QUIC.
//!
//! A [`Listener`] waits for members of the cluster, [`connect`] goes to one, a [`Dialler`] goes
//! again and again. A handshake proves on both sides who is there before a channel exists; see
//! [`crate::handshake`].
//!
//! The work is done on a runtime of its own, with two threads, that starts when it is first needed:
//! the blocking face needs no runtime of the user's, and the asynchronous face works on any.
//!
//! ```
//! use mainstay_channel::{Channel, ClusterId, NodeId, Secret};
//! use mainstay_channel::handshake::{Local, Purpose};
//! use mainstay_channel::net::{self, Listener, Settings, Wire};
//! use std::time::Duration;
//! let cluster: ClusterId = "6f8a4b1e-0d0c-4a3e-9a51-3f2d3b7f9c10".parse()?;
//! let settings = |node| -> Result<Settings, Box<dyn std::error::Error>> {
//!     let local = Local::new(NodeId(node), cluster, Purpose::new("calls")?)
//!         .with_secret(Secret::new(*b"0123456789abcdef")?);
//!     Ok(Settings::new(local))
//! };
//! let listener = Listener::bind(&Wire::Tcp, "127.0.0.1:0", settings(1)?)?;
//! let there = net::connect(&Wire::Tcp, &listener.address().to_string(), &settings(2)?)?;
//! let here = listener.accept(Duration::from_secs(5))?.expect("it has come");
//! there.send("ringing".into())?;
//! assert_eq!(here.receive(Duration::from_secs(5))?.unwrap(), "ringing");
//! assert_eq!((here.peer().node, there.peer().node), (NodeId(2), NodeId(1)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod connect;
mod dialler;
mod direct;
#[cfg(feature = "quic")]
mod driver;
#[cfg(test)]
mod handover;
mod listener;
mod meet;
#[cfg(feature = "quic")]
mod quic;
#[cfg(feature = "tls")]
mod records;
#[cfg(feature = "quic")]
mod remains;
mod runtime;
mod socket;
mod strangers;
mod tasks;
mod tell;
#[cfg(feature = "tls")]
mod tls;

pub use connect::{connect, connecting};
pub use dialler::Dialler;
pub use listener::{Listener, Refused, Visits};
#[cfg(feature = "quic")]
pub use quic::QuicEndpoint;
#[cfg(feature = "tls")]
pub use tls::{Credentials, cluster_name, node_name};

use crate::{
    Bounds, Bytes, Channel, Payload, Peer, Result, Statistics,
    endpoint::Endpoint,
    handshake::Local,
    limits::{HANDSHAKE_TIME_DEFAULT, STRANGERS_DEFAULT},
    park::Parker,
};
use direct::Direct;
use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// Over what to listen and to connect.
///
/// Example: see [the module](self).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Wire {
    /// TCP: the secret proves who is there, and nothing is hidden from the network.
    Tcp,
    /// TLS 1.3 over TCP: certificates prove who is there.
    #[cfg(feature = "tls")]
    Tls(Credentials),
    /// QUIC: certificates prove who is there; one connection a peer, a stream a channel.
    #[cfg(feature = "quic")]
    Quic(QuicEndpoint),
}

/// Who we are, and how much of everything is allowed.
///
/// ```
/// use mainstay_channel::{ClusterId, NodeId, handshake::{Local, Purpose}, net::Settings};
/// use std::time::Duration;
/// let local = Local::new(NodeId(1), ClusterId::default(), Purpose::new("calls")?);
/// let mut settings = Settings::new(local);
/// settings.silence = Duration::from_secs(5);
/// settings.strangers = 64;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Who we are, and what we demand.
    pub local: Local,
    /// What a channel holds in each direction at this end, and the longest message we take.
    pub bounds: Bounds,
    /// How long connecting may take, for each address.
    pub connect_time: Duration,
    /// How long a handshake may take, all in all.
    pub handshake_time: Duration,
    /// After how long without a message a sign of life is sent.
    pub keep_alive: Duration,
    /// After how long without anything the peer counts as lost. Time in which we did not read,
    /// because our user did not, is not counted.
    pub silence: Duration,
    /// How many may be in the middle of their handshakes with a listener.
    pub strangers: usize,
}

impl Settings {
    /// Default bounds; 10 s for connecting, 5 s for a handshake, a sign of life every 10 s, and 30 s
    /// of silence.
    ///
    /// Example: see [`Settings`].
    #[must_use]
    pub fn new(local: Local) -> Self {
        Self {
            local,
            bounds: Bounds::default(),
            connect_time: Duration::from_secs(10),
            handshake_time: HANDSHAKE_TIME_DEFAULT,
            keep_alive: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            strangers: STRANGERS_DEFAULT,
        }
    }

    /// The same with bounds of one's own.
    ///
    /// ```
    /// use mainstay_channel::{Bounds, ClusterId, NodeId, net::Settings};
    /// use mainstay_channel::handshake::{Local, Purpose};
    /// let local = Local::new(NodeId(1), ClusterId::default(), Purpose::new("calls")?);
    /// let bounds = Bounds { messages: 16, ..Bounds::default() };
    /// assert_eq!(Settings::new(local).with_bounds(bounds).bounds.messages, 16);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// What is said in the handshake.
    fn said(&self) -> Local {
        Local { message_len_max: self.bounds.message_len, ..self.local.clone() }
    }
}

/// With what is behind it: of a lost connection QUIC says only there why it was lost.
fn in_full(error: io::Error) -> io::Error {
    let mut text = error.to_string();
    let mut behind = std::error::Error::source(&error);
    if behind.is_none() {
        return error;
    }
    while let Some(cause) = behind {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        behind = cause.source();
    }
    io::Error::new(error.kind(), text)
}

/// One end of a channel over a network. A clone is the same end; the last one dropped closes it.
///
/// Example: see [the module](self).
#[derive(Clone)]
pub struct NetChannel {
    endpoint: Arc<NetEnd>,
}

/// The queues, the tasks that move them, and the way past both.
struct NetEnd {
    endpoint: Endpoint,
    tasks: tasks::Tasks,
    direct: Option<Arc<Direct>>,
}

/// What is not simply that of the queues.
impl NetEnd {
    fn close(&self) {
        self.endpoint.close();
        if let Some(direct) = &self.direct {
            direct.ring();
        }
    }

    /// What is on its way is dropped, also where a task is in the middle of writing it.
    fn abort(&self) {
        self.endpoint.abort();
        if let Some(direct) = &self.direct {
            direct.ring();
            direct.hang_up();
        }
        self.tasks.abort();
    }

    fn send(&self, message: Bytes) -> Result<()> {
        self.send_payload(Payload::One(message))
    }

    fn send_vectored(&self, parts: &[Bytes]) -> Result<()> {
        self.send_payload(Payload::of_parts(parts)?)
    }

    fn send_payload(&self, payload: Payload) -> Result<()> {
        let mut message = Some(payload);
        if let Some(direct) = &self.direct
            && direct.send(&mut message)?
        {
            return Ok(());
        }
        self.endpoint.wait_to_send(&mut message)
    }

    fn receive(&self, timeout: Duration) -> Result<Option<Bytes>> {
        if let Some(message) = self.endpoint.incoming.pop()? {
            return Ok(Some(message.into_bytes()));
        }
        let Some(direct) = &self.direct else { return self.endpoint.receive(timeout) };
        let deadline = Instant::now().checked_add(timeout);
        Parker::with(|parker| {
            loop {
                if let Some(received) = direct.receive(deadline) {
                    return received;
                }
                #[cfg(test)]
                handover::meanwhile(direct);
                let polled = self.endpoint.incoming.poll_pop(&mut parker.context());
                if let Poll::Ready(popped) = polled {
                    return popped.map(|message| Some(message.into_bytes()));
                }
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    return Ok(None);
                }
                // Only now would this thread be woken; who could read meanwhile would have to wait
                // for a message that nobody reads.
                if !direct.can_read() {
                    parker.park(deadline);
                }
            }
        })
    }

    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
        let polled = self.endpoint.poll_receive(cx);
        if let (Poll::Pending, Some(direct)) = (&polled, &self.direct) {
            direct.want_driven();
        }
        polled
    }

    fn statistics(&self) -> Statistics {
        let mut statistics = self.endpoint.statistics();
        if let Some(direct) = &self.direct {
            direct.counters.add_to(&mut statistics);
        }
        statistics
    }
}

impl Drop for NetEnd {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::ops::Deref for NetEnd {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl NetChannel {
    /// Waits until the network has taken everything after a `close`, or the channel has ended in
    /// another way; false when the time is over first. A program that ends right after closing
    /// calls it, or what is on its way ends with it.
    ///
    /// ```no_run
    /// # fn f(channel: mainstay_channel::net::NetChannel) {
    /// use mainstay_channel::Channel;
    /// channel.close();
    /// assert!(channel.wait_ended(std::time::Duration::from_secs(10)));
    /// # }
    /// ```
    #[must_use]
    pub fn wait_ended(&self, timeout: Duration) -> bool {
        self.endpoint.tasks.wait(timeout)
    }
}

impl std::fmt::Debug for NetChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let peer = self.peer();
        write!(f, "NetChannel({} to {}, open: {})", peer.transport, peer.node, self.is_open())
    }
}

crate::endpoint::delegate!(NetChannel);
