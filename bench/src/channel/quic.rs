//! QUIC on the loopback interface, beside a bare stream of quinn with the same chunks.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use mainstay_channel::Channel;
use mainstay_channel::net::{QuicEndpoint, Wire, cluster_name};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig,
};
use tokio::runtime::{Builder, Runtime};

use super::tls::Authority;
use super::{CLUSTER, SIZES, connected, message, next, one_way, rounds_of};
use crate::Outcome;
use crate::clock::Span;
use crate::method::{Plan, Round, rounds};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

const RATE: [&str; 3] = ["channel.quic_rate_64", "channel.quic_rate_1k", "channel.quic_rate_64k"];
const ASKED: f64 = 0.85;
/// Bytes in one sample of a stream of messages, and the most messages.
const STREAM_BYTES: u64 = 120 * (64 << 10);
const STREAM_MAX: u64 = 20_000;

pub(super) const GROUP: Group = Group { figures: &RATE, measure };

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let authority = Authority::new()?;
    let wire = |node| Outcome::Ok(Wire::Quic(QuicEndpoint::new(authority.credentials(node)?)?));
    let (a, b) = connected(&wire(1)?, &wire(2)?, false)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut bare = runtime.block_on(Bare::new(&authority))?;
    for (size, (len, _)) in SIZES.into_iter().enumerate() {
        let messages = (STREAM_BYTES / len as u64).min(STREAM_MAX);
        let mut sides = vec![
            Round::new("mainstay", || {
                one_way(messages, || Ok(a.send(message(len))?), || next(&b).map(drop))
            }),
            Round::new("quinn", || bare.stream(&runtime, len, messages)),
        ];
        let timings = rounds(rounds_of(plan), &mut sides)?;
        report.ask(Ratio::of_wall(RATE[size], Unit::Us, &timings[0], &timings[1]), ASKED);
    }
    Ok(())
}

/// A stream between two endpoints, with windows so wide that they do not hold it up (ours are narrower).
struct Bare {
    _endpoints: [Endpoint; 2],
    _connections: [Connection; 2],
    streams: Option<(SendStream, RecvStream)>,
}

impl Bare {
    async fn new(authority: &Authority) -> Outcome<Bare> {
        let (client, server) = authority.configurations(1)?;
        let mut transport = TransportConfig::default();
        transport.stream_receive_window((4_u32 << 20).into());
        transport.receive_window((16_u32 << 20).into());
        transport.send_window(16 << 20);
        let transport = Arc::new(transport);
        let server = QuicServerConfig::try_from(server)?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(Arc::clone(&transport));
        let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
        client.transport_config(transport);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (there, here) = (Endpoint::server(server, any)?, Endpoint::client(any)?);
        let connecting = here.connect_with(client, there.local_addr()?, &cluster_name(CLUSTER))?;
        let accepting = async {
            let incoming = there.accept().await.ok_or("the endpoint is closed")?;
            Outcome::Ok(incoming.await?)
        };
        let (dialled, accepted) = tokio::join!(connecting, accepting);
        let (dialled, accepted) = (dialled?, accepted?);
        let (mut sender, _) = dialled.open_bi().await?;
        // A stream is seen by the peer once something was sent on it.
        sender.write_all(b"x").await?;
        let (_, mut receiver) = accepted.accept_bi().await?;
        receiver.read_exact(&mut [0]).await?;
        Ok(Bare {
            _endpoints: [there, here],
            _connections: [dialled, accepted],
            streams: Some((sender, receiver)),
        })
    }

    fn stream(&mut self, runtime: &Runtime, len: usize, messages: u64) -> Outcome<Span> {
        let (mut sender, mut receiver) = self.streams.take().ok_or("a stream failed before")?;
        let (span, streams) = Span::of(|| {
            runtime.block_on(async {
                let sending = tokio::spawn(async move {
                    for _ in 0..messages {
                        sender.write_all(&message(len)).await?;
                    }
                    Outcome::Ok(sender)
                });
                let receiving = tokio::spawn(async move {
                    let mut bytes = vec![0; len];
                    for _ in 0..messages {
                        receiver.read_exact(&mut bytes).await?;
                    }
                    Outcome::Ok(receiver)
                });
                Outcome::Ok((sending.await??, receiving.await??))
            })
        });
        self.streams = Some(streams?);
        Ok(span.per(messages))
    }
}
