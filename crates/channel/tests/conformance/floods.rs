//! Floods over QUIC: of streams by a member, and of handshakes by those who are none. Each is measured
//! by what the listener's process has in memory.

use crate::{
    hostile::by_hand,
    restarts::Process,
    rig::{CLUSTER, NetRig, PATIENCE, Quic},
    strangers::{assert_serves, listen},
};
use mainstay_channel::{
    NodeId,
    handshake::{Handshake, Local, Purpose},
    net::cluster_name,
};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::{RootCertStore, crypto::ring, version::TLS13};
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);

/// What this process has in memory that is not a file, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn a_member_that_floods_a_listener_with_streams_of_quic_displaces_itself_and_fills_no_memory() {
    /// As many as one connection may have, and how much of a hello without an end it says on each.
    const STREAMS: usize = 4_096;
    const SAID: usize = 150;
    /// In this process, which has both ends, and those of the members that are served meanwhile.
    const GROWTH_MAX: usize = 64 << 20;
    let _turn = crate::turn::take();
    let mut settings = Quic::settings(1);
    settings.strangers = 64;
    let listener = listen::<Quic>(settings);
    assert_serves::<Quic>(&listener);
    let before = (resident(), listener.visits());

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let local = Local::new(NodeId(2), CLUSTER, Purpose::new("test").unwrap());
    let (_, hello) = Handshake::dial(local, None, [5; 32]);
    let at = listener.address();
    let flood = runtime.spawn(async move {
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 2], 0).into()).unwrap();
        let config = QuicClientConfig::try_from(by_hand()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(config));
        let name = cluster_name(CLUSTER);
        let connection = endpoint.connect_with(config, at, &name).unwrap().await.unwrap();
        // What no channel needs there is none of.
        assert_eq!(connection.max_datagram_size(), None);
        let one_way = tokio::time::timeout(200 * MS, connection.open_uni()).await;
        assert!(one_way.is_err(), "{one_way:?}");
        let mut held = Vec::new();
        for _ in 0..STREAMS {
            let (mut writer, reader) = connection.open_bi().await.unwrap();
            writer.write_all(&hello[..SAID]).await.unwrap();
            held.push((writer, reader));
        }
        let one_more = tokio::time::timeout(500 * MS, connection.open_bi()).await;
        assert!(one_more.is_err(), "{one_more:?}");
        (connection, hello, held)
    });
    let mut served = 0;
    while !flood.is_finished() {
        assert_serves::<Quic>(&listener);
        served += 1;
        thread::sleep(50 * MS);
    }
    let (connection, hello, held) = runtime.block_on(flood).unwrap();
    let grown = resident().saturating_sub(before.0);
    let flooded = listener.visits();
    let displaced = flooded.displaced - before.1.displaced;
    assert!(displaced >= (STREAMS - 64) as u64, "{displaced} of {STREAMS} were displaced");
    assert!(served > 1, "members were served meanwhile: {served}");
    assert!(grown <= GROWTH_MAX, "{grown} bytes more in memory");

    // Streams that are given up make room for others, each of which is refused.
    drop(held);
    runtime.block_on(async {
        for _ in 0..STREAMS {
            let (mut writer, _reader) = connection.open_bi().await.unwrap();
            writer.write_all(&hello[..SAID]).await.unwrap();
        }
    });
    let start = Instant::now();
    let turned_away = || {
        let now = listener.visits();
        (now.refused - flooded.refused) + (now.displaced - flooded.displaced)
    };
    while turned_away() < STREAMS as u64 {
        assert!(start.elapsed() < PATIENCE, "{} of {STREAMS}", turned_away());
        thread::sleep(MS);
    }
    let grown = resident().saturating_sub(before.0);
    assert!(grown <= GROWTH_MAX, "{grown} bytes more in memory");
    assert!(connection.close_reason().is_none(), "channels that it had would live");
    assert_serves::<Quic>(&listener);
}

/// What tells a copy of this program which listener it is to flood, and where to write how far it is.
const FLOOD: &str = "MAINSTAY_TEST_FLOOD";

/// The part that another process plays: handshakes without end that get as far as the certificates
/// and fail there, since it trusts nobody; some hundreds at once, until it is killed.
#[test]
fn a_process_whose_handshakes_fail_at_the_certificates() {
    const AT_ONCE: usize = 400;
    let Ok(orders) = std::env::var(FLOOD) else {
        // Run by another as a process of its own; by itself it has nobody to flood.
        assert!("nobody".parse::<SocketAddr>().is_err());
        return;
    };
    let (address, folder) = orders.split_once(' ').unwrap();
    let (address, folder) = (address.parse::<SocketAddr>().unwrap(), Path::new(folder));
    let mut crypto =
        rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
    crypto.alpn_protocols = vec![b"mainstay/1".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto).unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 2], 0).into()).unwrap();
        let (mut tasks, mut failed) = (tokio::task::JoinSet::new(), 0);
        loop {
            while tasks.len() < AT_ONCE {
                let name = cluster_name(CLUSTER);
                tasks.spawn(
                    endpoint.connect_with(config.clone(), address, &name).unwrap().into_future(),
                );
            }
            // What it holds against the listener's certificate it can only know from it.
            let ended = tasks.join_next().await.unwrap().unwrap();
            failed += u32::from(matches!(ended, Err(quinn::ConnectionError::TransportError(_))));
            fs::write(folder.join("failed.new"), failed.to_string()).unwrap();
            fs::rename(folder.join("failed.new"), folder.join("failed")).unwrap();
        }
    });
}

#[test]
fn handshakes_that_fail_at_the_certificates_cost_a_listener_little_however_many_there_are() {
    /// How many of them the listener goes into before it is looked at for the last time.
    const FAILED: u32 = 500;
    /// It was 2 MiB; and 22 MiB when nothing bounded how many were left.
    const GROWTH_MAX: usize = 8 << 20;
    let _turn = crate::turn::take();
    let mut settings = Quic::settings(1);
    settings.strangers = 16;
    let listener = listen::<Quic>(settings);
    assert_serves::<Quic>(&listener);
    let before = resident();
    let folder = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "floods::a_process_whose_handshakes_fail_at_the_certificates"])
        .env(FLOOD, format!("{} {}", listener.address(), folder.path().display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _child = Process(child);
    let (start, mut failed, mut most) = (Instant::now(), 0, 0);
    while failed < FAILED {
        assert!(start.elapsed() < 4 * PATIENCE, "{failed} handshakes so far");
        assert_serves::<Quic>(&listener);
        most = most.max(resident().saturating_sub(before));
        // What is left of a member's own connections, of both ends, is in this process as well.
        thread::sleep(250 * MS);
        let said = fs::read_to_string(folder.path().join("failed"));
        failed = said.map_or(0, |said| said.parse().unwrap());
    }
    assert!(most <= GROWTH_MAX, "{most} bytes more in memory");
    let visits = listener.visits();
    // One place leaves no more behind than its part, so most of a flood had to ask again and again.
    assert!(visits.unanswered > 0, "{visits:?}");
}
