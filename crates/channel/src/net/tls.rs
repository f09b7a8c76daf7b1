//! TLS: who is there is proved by certificates of the cluster's own authority.
//!
//! A node's certificate is for two names: that of its cluster, by which a dialler that does not know
//! yet whom it will meet checks the chain, and that of the node, which has to be the node that the
//! handshake names. TLS 1.3 only; no early data, no resumption.

use super::{Settings, direct, tell};
use crate::{ClusterId, Error, NodeId, Result, handshake::Vouch};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use std::{io, net::SocketAddr, path::Path, sync::Arc};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// What is agreed on beside the version: so that a port with another protocol is told at once.
const ALPN: &[u8] = b"mainstay/1";

/// The name that every certificate of a cluster is for.
///
/// ```
/// use mainstay_channel::{ClusterId, net::cluster_name};
/// let name = cluster_name(ClusterId::default());
/// assert_eq!(name, "c-00000000000000000000000000000000.mainstay.internal");
/// ```
#[must_use]
pub fn cluster_name(cluster: ClusterId) -> String {
    format!("c-{}.mainstay.internal", cluster.0.simple())
}

/// The name that the certificate of a node is for, besides [`cluster_name`].
///
/// ```
/// use mainstay_channel::{ClusterId, NodeId, net::node_name};
/// let name = node_name(ClusterId::default(), NodeId(7));
/// assert_eq!(name, "n-7.c-00000000000000000000000000000000.mainstay.internal");
/// ```
#[must_use]
pub fn node_name(cluster: ClusterId, node: NodeId) -> String {
    format!("n-{node}.{}", cluster_name(cluster))
}

/// A node's certificate and key, and the authority of its cluster.
///
/// ```no_run
/// use mainstay_channel::net::Credentials;
/// # fn f() -> Result<(), mainstay_channel::Error> {
/// let credentials =
///     Credentials::from_files("ca.pem".as_ref(), "node-1.pem".as_ref(), "node-1.key".as_ref())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Credentials {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// From PEM files: the cluster's authority, the node's certificate (with what is between the
    /// two), and the node's key.
    ///
    /// Example: see [`Credentials`].
    ///
    /// # Errors
    /// `Credentials`, with the file and what is wrong with it.
    pub fn from_files(authority: &Path, chain: &Path, key: &Path) -> Result<Self> {
        let read = |what, path: &Path| {
            std::fs::read(path)
                .map_err(|error| unusable(what, format!("{}: {error}", path.display())))
        };
        Self::from_pem(
            &read("authority's certificate", authority)?,
            &read("node's certificate", chain)?,
            &read("node's key", key)?,
        )
    }

    /// From texts in PEM.
    ///
    /// ```
    /// use mainstay_channel::{Error, net::Credentials};
    /// let refused = Credentials::from_pem(b"", b"", b"");
    /// assert!(matches!(refused, Err(Error::Credentials { .. })));
    /// ```
    ///
    /// # Errors
    /// `Credentials`, with the part and what is wrong with it.
    pub fn from_pem(authority: &[u8], chain: &[u8], key: &[u8]) -> Result<Self> {
        let authority = certificates("authority's certificate", authority)?;
        let chain = certificates("node's certificate", chain)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| unusable("node's key", error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in authority {
            roots
                .add(certificate)
                .map_err(|error| unusable("authority's certificate", error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let pair = |error: rustls::Error| unusable("node's certificate and key", error.to_string());

        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|error| unusable("authority's certificate", error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(pair)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(pair)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(pair)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(pair)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| unusable(what, error.to_string()))?;
    if found.is_empty() {
        return Err(unusable(what, "there is no certificate in it".to_owned()));
    }
    Ok(found)
}

fn unusable(what: &'static str, problem: String) -> Error {
    Error::Credentials { what, problem }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The name a dialler checks the chain against.
pub(super) fn server_name(cluster: ClusterId) -> ServerName<'static> {
    ServerName::try_from(cluster_name(cluster))
        .expect("the name is made of letters, digits, dashes and dots, and its labels are short")
}

/// A judge of whether the certificate that was shown is that of a node of the cluster.
pub(super) fn vouch(certificates: Option<&[CertificateDer<'_>]>, cluster: ClusterId) -> Vouch {
    let leaf = certificates.and_then(<[_]>::first).map(|leaf| leaf.clone().into_owned());
    Arc::new(move |node| {
        let Some(leaf) = &leaf else { return false };
        let Ok(name) = ServerName::try_from(node_name(cluster, node)) else { return false };
        webpki::EndEntityCert::try_from(leaf)
            .is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(&name).is_ok())
    })
}

pub(super) async fn connect(
    stream: TcpStream,
    credentials: &Credentials,
    settings: &Settings,
    at: SocketAddr,
) -> Result<(TlsStream<TcpStream>, Vouch)> {
    let cluster = settings.local.cluster;
    let connector = TlsConnector::from(Arc::clone(&credentials.client));
    let work = async { connector.connect(server_name(cluster), stream).await.map(TlsStream::from) };
    finish(work, settings, at).await
}

pub(super) async fn accept(
    stream: TcpStream,
    credentials: &Credentials,
    settings: &Settings,
    from: SocketAddr,
) -> Result<(TlsStream<TcpStream>, Vouch)> {
    let acceptor = TlsAcceptor::from(Arc::clone(&credentials.server));
    let work = async { acceptor.accept(stream).await.map(TlsStream::from) };
    finish(work, settings, from).await
}

async fn finish(
    work: impl Future<Output = io::Result<TlsStream<TcpStream>>>,
    settings: &Settings,
    address: SocketAddr,
) -> Result<(TlsStream<TcpStream>, Vouch)> {
    let time = settings.handshake_time;
    let late = |_| Error::Late { address: address.to_string(), action: "agree on TLS", time };
    let stream = timeout(time, work).await.map_err(late)?.map_err(|source| {
        if let Some(untold) = tell::turn() {
            tracing::warn!(%address, error = %source, untold, "no agreement on TLS");
        }
        Error::Network {
            address: address.to_string(),
            action: "agree on TLS",
            source,
            hint: "check that both certificates are of this cluster and in their time",
        }
    })?;
    let vouch = vouch(stream.get_ref().1.peer_certificates(), settings.local.cluster);
    Ok((stream, vouch))
}

/// The session and the socket of a stream whose handshake is through.
pub(super) fn taken_apart(stream: TlsStream<TcpStream>) -> io::Result<direct::Stream> {
    let (socket, session) = match stream {
        TlsStream::Client(stream) => {
            let (socket, session) = stream.into_inner();
            (socket, session.into())
        }
        TlsStream::Server(stream) => {
            let (socket, session) = stream.into_inner();
            (socket, session.into())
        }
    };
    Ok(direct::Stream { socket: socket.into_std()?, session: Some(session) })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::{ClientConnection, HandshakeKind, ServerConnection};

    pub(in crate::net) fn credentials(node: u64) -> Credentials {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let cluster = ClusterId::default();
        let names = vec![cluster_name(cluster), node_name(cluster, NodeId(node))];
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let (authority, leaf, key) = (authority.pem(), leaf.pem(), key.serialize_pem());
        Credentials::from_pem(authority.as_bytes(), leaf.as_bytes(), key.as_bytes()).unwrap()
    }

    /// Hands everything over until nobody has anything to say.
    fn talk(client: &mut ClientConnection, server: &mut ServerConnection) {
        loop {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            server.read_tls(&mut &bytes[..]).unwrap();
            server.process_new_packets().unwrap();
            let mut answer = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut answer).unwrap();
            }
            client.read_tls(&mut &answer[..]).unwrap();
            client.process_new_packets().unwrap();
            if bytes.is_empty() && answer.is_empty() {
                return;
            }
        }
    }

    #[test]
    fn no_session_is_resumed_and_no_data_goes_out_before_the_handshake_is_through() {
        let Credentials { server, client } = credentials(1);
        // What the first one could have left behind, the second one could use.
        for round in 0..2 {
            let name = server_name(ClusterId::default());
            let mut client = ClientConnection::new(Arc::clone(&client), name).unwrap();
            let mut server = ServerConnection::new(Arc::clone(&server)).unwrap();
            assert!(client.early_data().is_none(), "round {round}");
            talk(&mut client, &mut server);
            assert!(!client.is_handshaking() && !server.is_handshaking());
            for kind in [client.handshake_kind(), server.handshake_kind()] {
                let full = [HandshakeKind::Full, HandshakeKind::FullWithHelloRetryRequest];
                assert!(kind.is_some_and(|kind| full.contains(&kind)), "round {round}: {kind:?}");
            }
            assert!(server.early_data().is_none(), "round {round}");
            assert_eq!(client.tls13_tickets_received(), 0);
        }
    }
}
