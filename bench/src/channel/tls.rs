//! TLS on the loopback interface, beside bare rustls over the same stream with the same chunks.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use mainstay_channel::net::{Credentials, Wire, cluster_name, node_name};
use mainstay_channel::{Channel, NodeId};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::tcp::raw;
use super::{CLUSTER, SIZES, connected, message, next, one_way, rounds_of};
use crate::Outcome;
use crate::method::{Plan, Round, rounds};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

const RATE: [&str; 3] = ["channel.tls_rate_64", "channel.tls_rate_1k", "channel.tls_rate_64k"];
const ASKED: f64 = 0.85;
/// Bytes in one sample of a stream of messages, and the most messages.
const STREAM_BYTES: u64 = 300 * (64 << 10);
const STREAM_MAX: u64 = 20_000;

pub(super) const GROUP: Group = Group { figures: &RATE, measure };

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let authority = Authority::new()?;
    let wire = |node| Outcome::Ok(Wire::Tls(authority.credentials(node)?));
    let (a, b) = connected(&wire(1)?, &wire(2)?, false)?;
    let (mut client, mut server) = bare(&authority)?;
    for (size, (len, _)) in SIZES.into_iter().enumerate() {
        let messages = (STREAM_BYTES / len as u64).min(STREAM_MAX);
        let mut bytes = vec![0; len];
        let mut sides = vec![
            Round::new("mainstay", || {
                one_way(messages, || Ok(a.send(message(len))?), || next(&b).map(drop))
            }),
            Round::new("rustls", || {
                let receive = || Ok(server.read_exact(&mut bytes)?);
                one_way(messages, || Ok(client.write_all(&message(len))?), receive)
            }),
        ];
        let timings = rounds(rounds_of(plan), &mut sides)?;
        report.ask(Ratio::of_wall(RATE[size], Unit::Us, &timings[0], &timings[1]), ASKED);
    }
    Ok(())
}

type Client = rustls::StreamOwned<ClientConnection, std::net::TcpStream>;
type Server = rustls::StreamOwned<ServerConnection, std::net::TcpStream>;

fn bare(authority: &Authority) -> Outcome<(Client, Server)> {
    let (one, other) = raw()?;
    let (client, server) = authority.configurations(1)?;
    let name = ServerName::try_from(cluster_name(CLUSTER))?;
    let client = ClientConnection::new(Arc::new(client), name)?;
    let mut client = rustls::StreamOwned::new(client, one);
    let mut server = rustls::StreamOwned::new(ServerConnection::new(Arc::new(server))?, other);
    // The handshake, before anything is timed.
    let greeting = std::thread::spawn(move || -> Outcome<Client> {
        client.write_all(b"x")?;
        client.flush()?;
        Ok(client)
    });
    server.read_exact(&mut [0])?;
    let client = greeting.join().map_err(|_| "a thread panicked")??;
    Ok((client, server))
}

/// A cluster's authority, for both sides of the comparison.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Outcome<Authority> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    pub(super) fn credentials(&self, node: u64) -> Outcome<Credentials> {
        let (certificate, key) = self.signed(node)?;
        Ok(Credentials::from_pem(
            self.issuer.pem().as_bytes(),
            certificate.pem().as_bytes(),
            key.serialize_pem().as_bytes(),
        )?)
    }

    fn signed(&self, node: u64) -> Outcome<(rcgen::Certificate, KeyPair)> {
        let names = vec![cluster_name(CLUSTER), node_name(CLUSTER, NodeId(node))];
        let key = KeyPair::generate()?;
        Ok((CertificateParams::new(names)?.signed_by(&key, &self.issuer)?, key))
    }

    /// What bare rustls and bare quinn are set up with: the same suites, the same kind of keys.
    pub(super) fn configurations(&self, node: u64) -> Outcome<(ClientConfig, ServerConfig)> {
        let (certificate, key) = self.signed(node)?;
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der())?;
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.issuer.der().to_vec()))?;
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok((client, server))
    }
}
