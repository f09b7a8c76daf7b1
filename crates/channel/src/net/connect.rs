//! Going to a peer.

#[cfg(feature = "tls")]
use super::tls;
use super::{NetChannel, Settings, Wire, direct, meet, runtime};
use crate::{Error, Peer, Proof, Result, Transport, handshake::Agreement};
use socket2::{SockRef, TcpKeepalive};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpStream, lookup_host},
    task::JoinHandle,
    time::timeout,
};

/// Connects to `address` (a name or an IP address, and a port), and shakes hands. All addresses of
/// a name are tried, one after the other.
///
/// Example: see [the module](super).
///
/// # Errors
/// `Refused` when either end does not want the other; `Late`, `Network`, `Handshake`.
pub fn connect(wire: &Wire, address: &str, settings: &Settings) -> Result<NetChannel> {
    let (wire, to, settings) = (wire.clone(), address.to_owned(), settings.clone());
    runtime::run(async move { connect_on(&wire, &to, &settings).await })?
        .unwrap_or_else(|| Err(given_up(address)))
}

/// The same for tasks, on any runtime. When the future is dropped before it is done, the attempt is
/// given up.
///
/// ```
/// # use mainstay_channel::{ClusterId, NodeId, handshake::{Local, Purpose}};
/// # use mainstay_channel::net::{self, Settings, Wire};
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// # let settings = Settings::new(Local::new(NodeId(1), ClusterId::default(), Purpose::new("x")?));
/// # let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
/// assert!(net::connecting(&Wire::Tcp, &free, &settings).await.is_err(), "nobody listens there");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// Those of [`connect`].
pub async fn connecting(wire: &Wire, address: &str, settings: &Settings) -> Result<NetChannel> {
    /// A task that nobody waits for is ended.
    struct Attempt<T>(JoinHandle<T>);

    impl<T> Drop for Attempt<T> {
        fn drop(&mut self) {
            self.0.abort();
        }
    }

    let (wire, to, settings) = (wire.clone(), address.to_owned(), settings.clone());
    let attempt = async move { connect_on(&wire, &to, &settings).await };
    let mut attempt = Attempt(runtime::handle()?.spawn(attempt));
    (&mut attempt.0).await.unwrap_or_else(|_| Err(given_up(address)))
}

fn given_up(address: &str) -> Error {
    let source = io::Error::other("the attempt was given up");
    let hint = "the program is ending";
    Error::Network { address: address.to_owned(), action: "connect", source, hint }
}

/// The same, on the runtime.
pub(super) async fn connect_on(
    wire: &Wire,
    address: &str,
    settings: &Settings,
) -> Result<NetChannel> {
    settings.bounds.check()?;
    let found = lookup_host(address).await.map_err(|source| Error::Network {
        address: address.to_owned(),
        action: "find the address",
        source,
        hint: "give a name or an IP address, and a port, as in calls-1:7400",
    })?;
    let mut last = None;
    for at in found {
        match connect_to(wire, at, settings).await {
            Ok(channel) => return Ok(channel),
            // Whoever answers there has decided; another address is the same node.
            Err(error @ (Error::Refused { .. } | Error::Handshake { .. })) => return Err(error),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::Network {
        address: address.to_owned(),
        action: "find the address",
        source: io::ErrorKind::NotFound.into(),
        hint: "check the name",
    }))
}

async fn connect_to(wire: &Wire, at: SocketAddr, settings: &Settings) -> Result<NetChannel> {
    match wire {
        Wire::Tcp => {
            let mut stream = open(at, settings).await?;
            let (mut reader, mut writer) = stream.split();
            let (agreement, decoder) =
                meet::dial(&mut reader, &mut writer, settings, None, &at.to_string()).await?;
            let peer = peer(&agreement, Transport::Tcp, at, false);
            direct::Stream::plain(stream)
                .and_then(|stream| {
                    direct::start(stream, decoder, peer, agreement.message_len_max, settings)
                })
                .map_err(|source| direct::unusable(at, source))
        }
        #[cfg(feature = "tls")]
        Wire::Tls(credentials) => {
            let stream = open(at, settings).await?;
            let (stream, vouch) = tls::connect(stream, credentials, settings, at).await?;
            let (mut reader, mut writer) = tokio::io::split(stream);
            let (agreement, decoder) =
                meet::dial(&mut reader, &mut writer, settings, Some(vouch), &at.to_string())
                    .await?;
            let peer = peer(&agreement, Transport::Tls, at, true);
            tls::taken_apart(reader.unsplit(writer))
                .and_then(|stream| {
                    direct::start(stream, decoder, peer, agreement.message_len_max, settings)
                })
                .map_err(|source| direct::unusable(at, source))
        }
        #[cfg(feature = "quic")]
        Wire::Quic(endpoint) => endpoint.connect(at, settings).await,
    }
}

async fn open(at: SocketAddr, settings: &Settings) -> Result<TcpStream> {
    let time = settings.connect_time;
    let refused = |source| Error::Network {
        address: at.to_string(),
        action: "connect",
        source,
        hint: "check that the peer listens there and that the network lets it through",
    };
    let late = |_| Error::Late { address: at.to_string(), action: "connect", time };
    let stream = timeout(time, TcpStream::connect(at)).await.map_err(late)?.map_err(refused)?;
    prepare(&stream, settings.silence).map_err(refused)?;
    Ok(stream)
}

/// No delay for small frames; and the system finds a peer that is gone also where nothing is sent.
pub(super) fn prepare(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new()
        .with_time(silence.max(Duration::from_secs(1)))
        .with_interval((silence / 3).max(Duration::from_secs(1)));
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

pub(super) fn peer(
    agreement: &Agreement,
    transport: Transport,
    address: SocketAddr,
    certified: bool,
) -> Peer {
    let proof = match (certified, agreement.proved) {
        (true, _) => Proof::Certificate,
        (false, true) => Proof::SharedSecret,
        (false, false) => Proof::Nothing,
    };
    Peer {
        address: Some(address),
        features: agreement.features,
        ..Peer::new(agreement.node, proof, transport)
    }
}
