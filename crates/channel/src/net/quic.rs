//! QUIC: one connection a peer, a stream a channel, so that one slow channel does not hold back
//! another. No early data.

use super::{
    Credentials, Settings,
    connect::peer,
    driver,
    listener::Door,
    meet,
    tls::{cluster_name, vouch},
};
use crate::{Error, Result, Transport, handshake::Vouch};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, RecvStream,
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
use tokio::{task::JoinHandle, time::timeout};

/// How many channels one peer may have over one connection.
const STREAMS_MAX: u32 = 4_096;
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const IDLE_MAX: Duration = Duration::from_secs(30);
/// How much may be on its way on one stream, and on all of a connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 16 << 20;

// What nobody reads yet, the library keeps in pieces as they arrived. Past 2048 of them it joins what
// is shorter than a limit of at least `JOINED`, and if more than `PIECES_MAX` are left it ends the
// whole connection. Pieces that stay are at least that long, and between two of them is at most one
// that was joined: a window as narrow as this never holds so many, whatever the packets were.
const JOINED: u32 = 128;
const PIECES_MAX: u32 = 1_024;
const _: () = assert!(2 * STREAM_WINDOW / (JOINED + 1) <= PIECES_MAX);

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
    server: ServerConfig,
    client: ClientConfig,
    /// One for each family of addresses, once it is used.
    diallers: Mutex<HashMap<bool, Endpoint>>,
    connections: Mutex<HashMap<SocketAddr, Connection>>,
}

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
        let transport = Arc::new(transport());
        let server = QuicServerConfig::try_from(credentials.server).map_err(|e| unusable(&e))?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(Arc::clone(&transport));
        let client = QuicClientConfig::try_from(credentials.client).map_err(|e| unusable(&e))?;
        let mut client = ClientConfig::new(Arc::new(client));
        client.transport_config(transport);
        let (diallers, connections) = (Mutex::default(), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { server, client, diallers, connections }) })
    }

    /// A stream to the node at `at`, over the connection there is, or a new one. On the runtime.
    pub(super) async fn open(
        &self,
        at: SocketAddr,
        settings: &Settings,
    ) -> Result<(SendStream, RecvStream, Vouch)> {
        let time = settings.connect_time;
        let late = |_| Error::Late { address: at.to_string(), action: "connect", time };
        // A connection may end between being found and being used: then a new one is made.
        if let Some(connection) = self.connection_to(at)
            && let Ok(Ok((writer, reader))) = timeout(time, connection.open_bi()).await
        {
            return Ok((writer, reader, vouch_for(&connection, settings)));
        }
        let dialler = self.dialler(at).map_err(|error| failed(at, "open a socket", error))?;
        let name = cluster_name(settings.local.cluster);
        let connecting = dialler
            .connect_with(self.inner.client.clone(), at, &name)
            .map_err(|error| failed(at, "connect", error))?;
        let connection = timeout(time, connecting)
            .await
            .map_err(late)?
            .map_err(|error| failed(at, "agree on QUIC", error))?;
        let (writer, reader) = timeout(time, connection.open_bi())
            .await
            .map_err(late)?
            .map_err(|error| failed(at, "open a stream", error))?;
        let vouch = vouch_for(&connection, settings);
        lock(&self.inner.connections).insert(at, connection);
        Ok((writer, reader, vouch))
    }

    fn connection_to(&self, at: SocketAddr) -> Option<Connection> {
        let mut connections = lock(&self.inner.connections);
        connections.retain(|_, connection| connection.close_reason().is_none());
        connections.get(&at).cloned()
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
        let config = Some(self.inner.server.clone());
        let runtime = Arc::new(TokioRuntime);
        let endpoint =
            Endpoint::new(EndpointConfig::default(), config, socket, runtime).map_err(refused)?;
        Ok((bound, tokio::spawn(accept_all(endpoint, door))))
    }
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config.max_concurrent_bidi_streams(STREAMS_MAX.into());
    config.max_concurrent_uni_streams(VarInt::from_u32(0));
    config.keep_alive_interval(Some(KEEP_ALIVE));
    config.max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok());
    config.stream_receive_window(STREAM_WINDOW.into());
    config.receive_window(CONNECTION_WINDOW.into());
    config.send_window(CONNECTION_WINDOW.into());
    config.datagram_receive_buffer_size(None);
    config
}

async fn accept_all(endpoint: Endpoint, door: Door) {
    let runtime = tokio::runtime::Handle::current();
    while let Some(incoming) = endpoint.accept().await {
        let from = incoming.remote_address();
        // Whoever cannot be reached at its address gets one packet, and nothing here is kept.
        if !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        let inside = door.clone();
        door.strangers().admit(&runtime, from.ip(), connected(incoming, from, inside));
    }
}

/// Finishes the handshake of QUIC; then each stream is a stranger of its own.
async fn connected(incoming: Incoming, from: SocketAddr, door: Door) {
    let time = door.settings().handshake_time;
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => return door.show_in(from, Err(failed(from, "agree on QUIC", error))).await,
    };
    match timeout(time, connecting).await {
        Ok(Ok(connection)) => {
            tokio::spawn(streams(connection, from, door));
        }
        Ok(Err(error)) => door.show_in(from, Err(failed(from, "agree on QUIC", error))).await,
        Err(_) => {
            let late = Error::Late { address: from.to_string(), action: "agree on QUIC", time };
            door.show_in(from, Err(late)).await;
        }
    }
}

/// Runs as long as the connection: it is what keeps it.
async fn streams(connection: Connection, from: SocketAddr, door: Door) {
    let runtime = tokio::runtime::Handle::current();
    while let Ok((mut writer, mut reader)) = connection.accept_bi().await {
        if door.is_gone() {
            // The connection stays for the channels it has, and gets no more of them.
            let _ = (writer.reset(VarInt::from_u32(1)), reader.stop(VarInt::from_u32(1)));
            continue;
        }
        let (inside, vouch) = (door.clone(), vouch_for(&connection, door.settings()));
        door.strangers().admit(&runtime, from.ip(), async move {
            let outcome = welcome(writer, reader, from, vouch, inside.settings()).await;
            inside.show_in(from, outcome).await;
        });
    }
}

async fn welcome(
    mut writer: SendStream,
    mut reader: RecvStream,
    from: SocketAddr,
    vouch: Vouch,
    settings: &Settings,
) -> Result<super::NetChannel> {
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
    let source = io::Error::other(error);
    tracing::warn!(%address, action, error = %source, "no connection by QUIC");
    let hint = "check that both certificates are of this cluster and in their time";
    Error::Network { address: address.to_string(), action, source, hint }
}

// What these locks guard is whole whenever somebody could panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
