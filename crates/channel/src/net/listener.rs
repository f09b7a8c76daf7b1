//! Waiting for peers.

#[cfg(feature = "tls")]
use super::tls;
use super::{
    NetChannel, Settings, Wire, connect::peer, connect::prepare, direct, meet, runtime,
    strangers::Strangers,
};
use crate::{Error, Result, Transport, limits::ACCEPTED_WAITING, park::Parker, waiters::Waiters};
use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::AbortHandle,
};

/// How long one waits when the system has no descriptor left, before asking again.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);
/// How many refusals are remembered.
const REFUSED_MAX: usize = 64;

/// Waits at an address for members of the cluster. Dropping it ends the waiting, and no channel.
///
/// Example: see [the module](super).
pub struct Listener {
    address: SocketAddr,
    door: Door,
    task: AbortHandle,
}

/// What has come to a listener.
///
/// ```
/// # use mainstay_channel::{ClusterId, NodeId, handshake::{Local, Purpose}};
/// # use mainstay_channel::net::{Listener, Settings, Wire};
/// # let local = Local::new(NodeId(1), ClusterId::default(), Purpose::new("calls")?);
/// let listener = Listener::bind(&Wire::Tcp, "127.0.0.1:0", Settings::new(local))?;
/// assert_eq!(listener.visits().accepted, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Visits {
    /// Those who proved to be members.
    pub accepted: u64,
    /// Those who were refused, or were no mainstay node.
    pub refused: u64,
    /// Those who were sent away in the middle of their handshakes, for newer ones.
    pub displaced: u64,
    /// Those who wanted a connection of QUIC and got no answer, as too much was left of handshakes that
    /// had failed. One that asks again is counted again.
    pub unanswered: u64,
}

/// Somebody who was not let in.
///
/// Example: see [`Listener::refused`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Refused {
    /// The how manieth of its listener it is, from 1.
    pub number: u64,
    /// From where.
    pub address: SocketAddr,
    /// Why.
    pub why: String,
}

/// What the listener's tasks share with its user.
#[derive(Clone)]
pub(super) struct Door {
    settings: Arc<Settings>,
    strangers: Strangers,
    inside: Arc<Inside>,
}

#[derive(Default)]
struct Inside {
    state: Mutex<State>,
    accepted: AtomicU64,
    /// Changed under the lock of the state.
    refused: AtomicU64,
    unanswered: AtomicU64,
    /// The listener was dropped. Changed under the lock of the state.
    gone: AtomicBool,
    /// One that waited was accepted, or nobody will be.
    freed: Notify,
}

#[derive(Default)]
struct State {
    ready: VecDeque<NetChannel>,
    waiters: Waiters,
    refused: VecDeque<Refused>,
}

impl Listener {
    /// Listens at `address`; port 0 lets the system choose one.
    ///
    /// Example: see [the module](super).
    ///
    /// # Errors
    /// `Network` when the address cannot be had; `Bounds`.
    pub fn bind(wire: &Wire, address: &str, settings: Settings) -> Result<Self> {
        settings.bounds.check()?;
        let refused = |source| Error::Network {
            address: address.to_owned(),
            action: "listen",
            source,
            hint: "choose an address of this host and a free port",
        };
        let door = Door {
            strangers: Strangers::new(settings.strangers),
            settings: Arc::new(settings),
            inside: Arc::default(),
        };
        let runtime = runtime::handle()?;
        let _entered = runtime.enter();
        #[cfg(feature = "quic")]
        if let Wire::Quic(endpoint) = wire {
            let (bound, task) = endpoint.listen(address, door.clone())?;
            return Ok(Self { address: bound, door, task: task.abort_handle() });
        }
        let listener = std::net::TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let listener = TcpListener::from_std(listener).map_err(refused)?;
        let bound = listener.local_addr().map_err(refused)?;
        let task = runtime.spawn(accept_all(listener, wire.clone(), door.clone()));
        Ok(Self { address: bound, door, task: task.abort_handle() })
    }

    /// Where it listens.
    ///
    /// Example: see [the module](super).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next member that has come; none within `timeout`, which may be zero.
    ///
    /// Example: see [the module](super).
    ///
    /// # Errors
    /// None at present: whoever is refused is no concern of the one who waits. See
    /// [`Listener::refused`].
    pub fn accept(&self, timeout: Duration) -> Result<Option<NetChannel>> {
        let deadline = Instant::now().checked_add(timeout);
        Parker::with(|parker| {
            loop {
                if let Poll::Ready(channel) = self.poll_accept(&mut parker.context()) {
                    return Ok(Some(channel));
                }
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    return Ok(None);
                }
                parker.park(deadline);
            }
        })
    }

    /// The same for tasks: the next member, or `cx` is woken when there is one.
    ///
    /// ```
    /// # use mainstay_channel::{ClusterId, NodeId, handshake::{Local, Purpose}};
    /// # use mainstay_channel::net::{Listener, Settings, Wire};
    /// # let local = Local::new(NodeId(1), ClusterId::default(), Purpose::new("calls")?);
    /// use std::task::{Context, Waker};
    /// let listener = Listener::bind(&Wire::Tcp, "127.0.0.1:0", Settings::new(local))?;
    /// assert!(listener.poll_accept(&mut Context::from_waker(Waker::noop())).is_pending());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<NetChannel> {
        let mut state = self.door.inside.state();
        match state.ready.pop_front() {
            Some(channel) => {
                drop(state);
                self.door.inside.freed.notify_waiters();
                Poll::Ready(channel)
            }
            None => {
                state.waiters.add(cx.waker());
                Poll::Pending
            }
        }
    }

    /// How many have come.
    ///
    /// Example: see [`Visits`].
    #[must_use]
    pub fn visits(&self) -> Visits {
        Visits {
            accepted: self.door.inside.accepted.load(Ordering::Relaxed),
            refused: self.door.inside.refused.load(Ordering::Relaxed),
            displaced: self.door.strangers.displaced(),
            unanswered: self.door.inside.unanswered.load(Ordering::Relaxed),
        }
    }

    /// The last ones that were not let in, oldest first.
    ///
    /// ```
    /// # use mainstay_channel::{ClusterId, NodeId, handshake::{Local, Purpose}};
    /// # use mainstay_channel::net::{Listener, Settings, Wire};
    /// # let local = Local::new(NodeId(1), ClusterId::default(), Purpose::new("calls")?);
    /// let listener = Listener::bind(&Wire::Tcp, "127.0.0.1:0", Settings::new(local))?;
    /// for refused in listener.refused() {
    ///     println!("{}: {}", refused.address, refused.why);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        self.door.inside.state().refused.iter().cloned().collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let inside = &self.door.inside;
        let mut state = inside.state();
        inside.gone.store(true, Ordering::Relaxed);
        let never_accepted = std::mem::take(&mut state.ready);
        drop(state);
        drop(never_accepted);
        self.task.abort();
        self.door.strangers.dismiss();
        inside.freed.notify_waiters();
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({}, {:?})", self.address, self.visits())
    }
}

impl Inside {
    // No code that could panic runs in the middle of a change.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Door {
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Counts somebody who gets no answer.
    #[cfg(feature = "quic")]
    pub(super) fn leave_unanswered(&self) {
        self.inside.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether nobody waits at it any more.
    pub(super) fn is_gone(&self) -> bool {
        self.inside.gone.load(Ordering::Relaxed)
    }

    #[cfg(feature = "quic")]
    pub(super) fn strangers(&self) -> &Strangers {
        &self.strangers
    }

    /// Waits while as many wait to be accepted as may: meanwhile nobody is let into a handshake.
    pub(super) async fn room(&self) {
        loop {
            let mut freed = pin!(self.inside.freed.notified());
            // From here on, nothing that happens is missed.
            freed.as_mut().enable();
            if self.is_gone() || self.inside.state().ready.len() < ACCEPTED_WAITING {
                return;
            }
            freed.await;
        }
    }

    /// Shows a newcomer in, or notes why it was not let in. It does not wait: whoever has proved
    /// to be a member is no stranger any more, whom another could displace.
    pub(super) fn show_in(&self, from: SocketAddr, outcome: Result<NetChannel>) {
        match outcome {
            Ok(channel) => {
                let mut state = self.inside.state();
                if self.is_gone() {
                    return;
                }
                self.inside.accepted.fetch_add(1, Ordering::Relaxed);
                state.ready.push_back(channel);
                let waiters = state.waiters.take();
                drop(state);
                if let Some(waiters) = waiters {
                    waiters.wake();
                }
            }
            Err(error) => {
                tracing::debug!(%from, %error, "not let in");
                let refused = &mut self.inside.state().refused;
                let number = self.inside.refused.fetch_add(1, Ordering::Relaxed) + 1;
                if refused.len() == REFUSED_MAX {
                    refused.pop_front();
                }
                refused.push_back(Refused { number, address: from, why: error.to_string() });
            }
        }
    }
}

async fn accept_all(listener: TcpListener, wire: Wire, door: Door) {
    let runtime = tokio::runtime::Handle::current();
    loop {
        door.room().await;
        match listener.accept().await {
            Ok((stream, from)) => {
                let (wire, inside) = (wire.clone(), door.clone());
                door.strangers.admit(&runtime, from.ip(), async move {
                    let outcome = welcome(stream, from, &wire, inside.settings()).await;
                    inside.show_in(from, outcome);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

async fn welcome(
    stream: TcpStream,
    from: SocketAddr,
    wire: &Wire,
    settings: &Settings,
) -> Result<NetChannel> {
    prepare(&stream, settings.silence).map_err(|source| lost(from, source))?;
    match wire {
        Wire::Tcp => {
            let mut stream = stream;
            let (mut reader, mut writer) = stream.split();
            let (agreement, decoder) =
                meet::accept(&mut reader, &mut writer, settings, None, &from.to_string()).await?;
            let peer = peer(&agreement, Transport::Tcp, from, false);
            direct::Stream::plain(stream)
                .and_then(|stream| {
                    direct::start(stream, decoder, peer, agreement.message_len_max, settings)
                })
                .map_err(|source| direct::unusable(from, source))
        }
        #[cfg(feature = "tls")]
        Wire::Tls(credentials) => {
            let (stream, vouch) = tls::accept(stream, credentials, settings, from).await?;
            let (mut reader, mut writer) = tokio::io::split(stream);
            let (agreement, decoder) =
                meet::accept(&mut reader, &mut writer, settings, Some(vouch), &from.to_string())
                    .await?;
            let peer = peer(&agreement, Transport::Tls, from, true);
            tls::taken_apart(reader.unsplit(writer))
                .and_then(|stream| {
                    direct::start(stream, decoder, peer, agreement.message_len_max, settings)
                })
                .map_err(|source| direct::unusable(from, source))
        }
        #[cfg(feature = "quic")]
        Wire::Quic(_) => Err(lost(from, io::ErrorKind::Unsupported.into())),
    }
}

fn lost(from: SocketAddr, source: io::Error) -> Error {
    let hint = "the peer may have gone already";
    Error::Network { address: from.to_string(), action: "prepare the connection", source, hint }
}
