//! QUIC: one connection a peer, a stream a channel, so that one slow channel does not hold back
//! another. No early data.
//!
//! Q1. There is at most one connection that is being made to an address; whoever wants a channel
//!     meanwhile waits for it and shares it.
//! Q2. A connection over which a handshake got no answer is not used for another channel. Those it
//!     has keep it as long as they live. What was tried over it is tried once more over a new one.

use super::{
    Credentials, NetChannel, Settings,
    connect::peer,
    driver, in_full,
    listener::Door,
    meet,
    remains::{Guest, Remains},
    tell,
    tls::{cluster_name, vouch},
};
use crate::{
    Error, Result, Transport,
    handshake::{Reason, Vouch},
};
use quinn::{
    ClientConfig, Connecting, Connection, Endpoint, EndpointConfig, IdleTimeout, RecvStream,
    SendStream, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::CertificateDer;
use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Mutex as Turn, task::JoinHandle, time::timeout};

/// How many channels one peer may have over one connection.
const STREAMS_MAX: u32 = 4_096;
/// How many it may have at first: the library makes a place for each that there may be, and 4096 of
/// them take 140 to 280 KiB, also for a stranger whose handshake fails. There are more as they are
/// used.
const STREAMS_FIRST: u32 = 16;
/// A connection is not given up sooner than this, however short the silence of its channels may be:
/// they notice by themselves.
const IDLE_MIN: Duration = Duration::from_secs(3);
/// Over a connection that was there before, a handshake has only a part of its time: the peer may be
/// gone, and a new connection then needs the rest.
const REUSE_PART: u32 = 4;
/// How many packets that ask for a connection are kept while nobody more is let into a handshake.
const INCOMING_MAX: usize = 1_024;
/// How much may be on its way on one stream, and on all of a connection: so many channels may have
/// readers that pause before they hold up the others.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 256 * STREAM_WINDOW;
/// How much of what was sent is kept until the peer has it.
const UNACKNOWLEDGED_MAX: u64 = 16 << 20;

// What nobody reads yet, the library keeps in pieces as they arrived. Past 2048 of them it joins them,
// and if more than `PIECES_MAX` are left it ends the whole connection. What is left: pieces that are at
// least a 1024th of everything and fill five sixths of their packet, and between two of them one that
// was joined from all others. A piece ends where a write ended before the next one came; or where a
// packet was full, and then it fills it only if it is longer than any write that was filled up
// ([`driver`], D5). So at most one for each write stays, and one is between: with writes that are not
// shorter than this, a window never holds so many, whatever the messages and the packets were. (What
// is lost on its way makes one more at its place, for as long as it is not there again: there is room
// for some hundred in a window.)
const PIECES_MAX: u32 = 1_024;
const LOST_MAX: u32 = 100;
const WRITES_MAX: u32 = STREAM_WINDOW / driver::WRITE_LEN_MIN as u32 + 1;
const PIECES: u32 = WRITES_MAX + (WRITES_MAX + 1) + 2 * LOST_MAX;
const _: () = assert!(PIECES <= PIECES_MAX);

/// A node's end of QUIC: its credentials, and the connections that its channels share. A clone
/// shares them too.
///
/// ```no_run
/// use mainstay_channel::net::{Credentials, QuicEndpoint, Wire};
/// # fn f(credentials: Credentials) -> Result<(), mainstay_channel::Error> {
/// let wire = Wire::Quic(QuicEndpoint::new(credentials)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct QuicEndpoint {
    inner: Arc<Inner>,
}

struct Inner {
    server: Arc<QuicServerConfig>,
    client: Arc<QuicClientConfig>,
    /// One for each family of addresses, once it is used.
    diallers: Mutex<HashMap<bool, Endpoint>>,
    peers: Mutex<HashMap<SocketAddr, Shared>>,
}

/// Q1. The connection to an address, if there is one; locked while one is made.
type Shared = Arc<Turn<Option<Connection>>>;

impl std::fmt::Debug for QuicEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QuicEndpoint(..)")
    }
}

impl QuicEndpoint {
    /// With a node's credentials.
    ///
    /// Example: see [`QuicEndpoint`].
    ///
    /// # Errors
    /// `Credentials`, when they cannot be used for QUIC.
    pub fn new(credentials: Credentials) -> Result<Self> {
        let unusable = |error: &dyn std::fmt::Display| Error::Credentials {
            what: "credentials for QUIC",
            problem: error.to_string(),
        };
        let server = QuicServerConfig::try_from(credentials.server).map_err(|e| unusable(&e))?;
        let client = QuicClientConfig::try_from(credentials.client).map_err(|e| unusable(&e))?;
        let (server, client) = (Arc::new(server), Arc::new(client));
        let (diallers, peers) = (Mutex::default(), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { server, client, diallers, peers }) })
    }

    /// How many connections it has to those it has dialled: one a peer, however many channels.
    ///
    /// ```no_run
    /// # fn f(endpoint: mainstay_channel::net::QuicEndpoint) {
    /// println!("{} connections", endpoint.connections());
    /// # }
    /// ```
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.inner.diallers).values().map(Endpoint::open_connections).sum()
    }

    /// A channel to the node at `at`, over the connection there is, or a new one. On the runtime.
    pub(super) async fn connect(&self, at: SocketAddr, settings: &Settings) -> Result<NetChannel> {
        let shared = self.shared(at);
        let (connection, is_new) = self.connection(&shared, at, settings).await?;
        if is_new {
            return channel_over(&connection, at, settings).await;
        }
        let mut hurried = settings.clone();
        hurried.connect_time /= REUSE_PART;
        hurried.handshake_time /= REUSE_PART;
        match channel_over(&connection, at, &hurried).await {
            Err(error) if is_no_answer(&error) => {}
            answered => return answered,
        }
        // Q2, unless somebody else has done so meanwhile.
        let mut known = shared.lock().await;
        if known.as_ref().is_some_and(|known| known.stable_id() == connection.stable_id()) {
            *known = None;
        }
        drop(known);
        let (connection, _) = self.connection(&shared, at, settings).await?;
        channel_over(&connection, at, settings).await
    }

    fn shared(&self, at: SocketAddr) -> Shared {
        let mut peers = lock(&self.inner.peers);
        peers.retain(|_, shared| {
            // Whoever is about to use it holds it as well.
            let is_used = Arc::strong_count(shared) > 1;
            is_used || shared.try_lock().is_ok_and(|known| known.as_ref().is_some_and(is_alive))
        });
        Arc::clone(peers.entry(at).or_default())
    }

    /// The connection there is, or a new one, and then true.
    async fn connection(
        &self,
        shared: &Shared,
        at: SocketAddr,
        settings: &Settings,
    ) -> Result<(Connection, bool)> {
        let time = settings.connect_time;
        let connect = async {
            let mut known = shared.lock().await;
            if let Some(connection) = known.as_ref().filter(|known| is_alive(known)) {
                return Ok((connection.clone(), false));
            }
            let dialler = self.dialler(at).map_err(|error| failed(at, "open a socket", error))?;
            let name = cluster_name(settings.local.cluster);
            let mut config = ClientConfig::new(Arc::clone(&self.inner.client) as _);
            // Channels are opened by the one who dials.
            config.transport_config(Arc::new(transport(settings, 0)));
            let connection = dialler
                .connect_with(config, at, &name)
                .map_err(|error| failed(at, "connect", error))?
                .await
                .map_err(|error| failed(at, "agree on QUIC", error))?;
            *known = Some(connection.clone());
            Ok((connection, true))
        };
        let late = |_| Error::Late { address: at.to_string(), action: "connect", time };
        timeout(time, connect).await.map_err(late)?
    }

    fn dialler(&self, at: SocketAddr) -> io::Result<Endpoint> {
        let mut diallers = lock(&self.inner.diallers);
        if let Some(endpoint) = diallers.get(&at.is_ipv6()) {
            return Ok(endpoint.clone());
        }
        let any = if at.is_ipv6() {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
        } else {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
        };
        let endpoint = Endpoint::client(any)?;
        diallers.insert(at.is_ipv6(), endpoint.clone());
        Ok(endpoint)
    }

    /// Listens at `address`. On the runtime.
    pub(super) fn listen(&self, address: &str, door: Door) -> Result<(SocketAddr, JoinHandle<()>)> {
        let refused = |source| Error::Network {
            address: address.to_owned(),
            action: "listen",
            source,
            hint: "choose an address of this host and a free port",
        };
        let socket = UdpSocket::bind(address).map_err(refused)?;
        let bound = socket.local_addr().map_err(refused)?;
        let mut config = ServerConfig::with_crypto(Arc::clone(&self.inner.server) as _);
        config.transport_config(Arc::new(transport(door.settings(), STREAMS_FIRST)));
        config.max_incoming(INCOMING_MAX);
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime)
            .map_err(refused)?;
        Ok((bound, tokio::spawn(accept_all(endpoint, door))))
    }
}

fn is_alive(connection: &Connection) -> bool {
    connection.close_reason().is_none()
}

/// Whether the peer may be gone: what it has decided is not tried again.
fn is_no_answer(error: &Error) -> bool {
    match error {
        Error::Refused { by, reason, .. } => *by == "here" && *reason == Reason::Late,
        Error::Network { .. } | Error::Late { .. } | Error::Handshake { .. } => true,
        _ => false,
    }
}

async fn channel_over(
    connection: &Connection,
    at: SocketAddr,
    settings: &Settings,
) -> Result<NetChannel> {
    let time = settings.connect_time;
    let late = |_| Error::Late { address: at.to_string(), action: "open a stream", time };
    let (mut writer, mut reader) = timeout(time, connection.open_bi())
        .await
        .map_err(late)?
        .map_err(|error| failed(at, "open a stream", error))?;
    let vouch = vouch_for(connection, settings);
    let (agreement, decoder) =
        meet::dial(&mut reader, &mut writer, settings, Some(vouch), &at.to_string()).await?;
    let peer = peer(&agreement, Transport::Quic, at, true);
    let limit = agreement.message_len_max;
    Ok(driver::start(reader, writer, decoder, peer, limit, settings))
}

/// `streams` is how many the other end may open.
fn transport(settings: &Settings, streams: u32) -> TransportConfig {
    let idle = settings.silence.max(IDLE_MIN);
    let mut config = TransportConfig::default();
    config.max_concurrent_bidi_streams(streams.into());
    config.max_concurrent_uni_streams(VarInt::from_u32(0));
    config.keep_alive_interval(Some(settings.keep_alive.min(idle / 3)));
    // A time that is too long for the protocol is none.
    config.max_idle_timeout(IdleTimeout::try_from(idle).ok());
    config.stream_receive_window(STREAM_WINDOW.into());
    config.receive_window(CONNECTION_WINDOW.into());
    config.send_window(UNACKNOWLEDGED_MAX);
    config.datagram_receive_buffer_size(None);
    config
}

async fn accept_all(endpoint: Endpoint, door: Door) {
    let runtime = tokio::runtime::Handle::current();
    let remains = Remains::default();
    loop {
        door.room().await;
        let Some(incoming) = endpoint.accept().await else { return };
        let from = incoming.remote_address();
        // Whoever cannot be reached at its address gets one packet, and nothing here is kept.
        if !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        let Some(guest) = remains.admit(from.ip(), endpoint.open_connections()) else {
            incoming.ignore();
            door.leave_unanswered();
            continue;
        };
        // At once, so that the library counts it as well.
        match incoming.accept() {
            Ok(connecting) => {
                let connected = connected(connecting, from, door.clone(), guest);
                door.strangers().admit(&runtime, from.ip(), connected);
            }
            Err(error) => door.show_in(from, Err(failed(from, "agree on QUIC", error))),
        }
    }
}

/// Finishes the handshake of QUIC; then each stream is a stranger of its own.
async fn connected(connecting: Connecting, from: SocketAddr, door: Door, mut guest: Guest) {
    let time = door.settings().handshake_time;
    match timeout(time, connecting).await {
        Ok(Ok(connection)) => {
            guest.is_member();
            tokio::spawn(streams(connection, from, door, guest));
        }
        Ok(Err(error)) => door.show_in(from, Err(failed(from, "agree on QUIC", error))),
        Err(_) => {
            let late = Error::Late { address: from.to_string(), action: "agree on QUIC", time };
            door.show_in(from, Err(late));
        }
    }
}

/// Runs as long as the connection: it is what keeps it.
async fn streams(connection: Connection, from: SocketAddr, door: Door, _guest: Guest) {
    let runtime = tokio::runtime::Handle::current();
    let mut allowed = STREAMS_FIRST;
    loop {
        door.room().await;
        let Ok((mut writer, mut reader)) = connection.accept_bi().await else { return };
        if reader.id().index() >= u64::from(allowed / 2) && allowed < STREAMS_MAX {
            allowed *= 2;
            connection.set_max_concurrent_bi_streams(allowed.into());
        }
        if door.is_gone() {
            // The connection stays for the channels it has, and gets no more of them.
            let _ = (writer.reset(VarInt::from_u32(1)), reader.stop(VarInt::from_u32(1)));
            continue;
        }
        let (inside, vouch) = (door.clone(), vouch_for(&connection, door.settings()));
        door.strangers().admit(&runtime, from.ip(), async move {
            let outcome = welcome(writer, reader, from, vouch, inside.settings()).await;
            inside.show_in(from, outcome);
        });
    }
}

async fn welcome(
    mut writer: SendStream,
    mut reader: RecvStream,
    from: SocketAddr,
    vouch: Vouch,
    settings: &Settings,
) -> Result<NetChannel> {
    let (agreement, decoder) =
        meet::accept(&mut reader, &mut writer, settings, Some(vouch), &from.to_string()).await?;
    let peer = peer(&agreement, Transport::Quic, from, true);
    let limit = agreement.message_len_max;
    Ok(driver::start(reader, writer, decoder, peer, limit, settings))
}

fn vouch_for(connection: &Connection, settings: &Settings) -> Vouch {
    let identity = connection.peer_identity();
    let shown = identity
        .as_ref()
        .and_then(|identity| identity.downcast_ref::<Vec<CertificateDer<'static>>>());
    vouch(shown.map(Vec::as_slice), settings.local.cluster)
}

fn failed(
    address: SocketAddr,
    action: &'static str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    let source = in_full(io::Error::other(error));
    if let Some(untold) = tell::turn() {
        tracing::warn!(%address, action, error = %source, untold, "no connection by QUIC");
    }
    let hint = "check that both certificates are of this cluster and in their time";
    Error::Network { address: address.to_string(), action, source, hint }
}

// What these locks guard is whole whenever somebody could panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{super::tls::tests::credentials, *};
    use crate::{
        ClusterId, NodeId,
        handshake::{Local, Purpose},
    };

    fn settings() -> Settings {
        let purpose = Purpose::new("test").unwrap();
        Settings::new(Local::new(NodeId(1), ClusterId::default(), purpose))
    }

    #[test]
    fn a_second_connection_sends_nothing_before_its_handshake_is_through_either() {
        let endpoint = QuicEndpoint::new(credentials(1)).unwrap();
        super::super::runtime::handle().unwrap().block_on(async {
            let mut config = ServerConfig::with_crypto(Arc::clone(&endpoint.inner.server) as _);
            config.transport_config(Arc::new(transport(&settings(), STREAMS_FIRST)));
            let server = Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap();
            let at = server.local_addr().unwrap();
            let accepting = tokio::spawn(async move {
                while let Some(incoming) = server.accept().await {
                    let connection = incoming.await.unwrap();
                    tokio::spawn(async move { connection.closed().await });
                }
            });
            let dialler = endpoint.dialler(at).unwrap();
            for _ in 0..2 {
                let config = ClientConfig::new(Arc::clone(&endpoint.inner.client) as _);
                let name = cluster_name(ClusterId::default());
                let connecting = dialler.connect_with(config, at, &name).unwrap();
                let Err(connecting) = connecting.into_0rtt() else { panic!("early data") };
                let connection = connecting.await.unwrap();
                // Time for a ticket to come, if there were one.
                tokio::time::sleep(Duration::from_millis(100)).await;
                connection.close(VarInt::from_u32(0), b"");
            }
            accepting.abort();
        });
    }
}
