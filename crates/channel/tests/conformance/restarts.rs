//! What a node does about a peer whose process was killed, and started again at the same address.

use crate::{
    certificates::Authority,
    rig::{CLUSTER, NetRig, PATIENCE, Quic, Tcp, Tls},
};
use mainstay_channel::{
    Channel, NodeId,
    net::{self, Credentials, Listener, NetChannel, QuicEndpoint, Wire},
};
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What tells a copy of this program that it is to listen, over what and as whom.
const ROLE: &str = "MAINSTAY_TEST_LISTEN";

/// The part that other processes play: node 1 listens at the address in the folder, or writes it
/// there; it echoes, and waits to be killed.
#[test]
fn a_process_that_listens_and_echoes() {
    let Some(folder) = std::env::var_os(ROLE) else {
        // Run by the others as a process of its own; by itself it has nowhere to listen.
        assert!(Listener::bind(&Wire::Tcp, "nowhere at all", Tcp::settings(1)).is_err());
        return;
    };
    let folder = Path::new(&folder);
    let file = |name: &str| fs::read(folder.join(name)).unwrap();
    let credentials =
        || Credentials::from_pem(&file("authority"), &file("certificate"), &file("key")).unwrap();
    let (wire, settings) = match &file("over")[..] {
        b"tcp" => (Wire::Tcp, Tcp::settings(1)),
        b"tls" => (Wire::Tls(credentials()), Tls::settings(1)),
        _ => (Wire::Quic(QuicEndpoint::new(credentials()).unwrap()), Quic::settings(1)),
    };
    let known = fs::read_to_string(folder.join("address"));
    let at = known.as_deref().unwrap_or("127.0.0.1:0");
    let listener = Listener::bind(&wire, at, settings).unwrap();
    fs::write(folder.join("address.new"), listener.address().to_string()).unwrap();
    fs::rename(folder.join("address.new"), folder.join("address")).unwrap();
    fs::write(folder.join("listening"), "").unwrap();
    while let Ok(Some(channel)) = listener.accept(PATIENCE) {
        thread::spawn(move || {
            while let Ok(Some(message)) = channel.receive(PATIENCE) {
                if channel.send(message).is_err() {
                    break;
                }
            }
        });
    }
}

/// A process that is killed when its test ends, however it ends.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(folder: &Path) -> Process {
    let _ = fs::remove_file(folder.join("listening"));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "restarts::a_process_that_listens_and_echoes", "--nocapture"])
        .env(ROLE, folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !folder.join("listening").exists() {
        assert!(start.elapsed() < PATIENCE, "it listens");
        thread::sleep(Duration::from_millis(5));
    }
    Process(child)
}

fn answers(channel: &NetChannel) -> bool {
    channel.send("anybody?".into()).unwrap();
    channel.receive(PATIENCE).unwrap().is_some_and(|answer| answer == "anybody?")
}

fn is_found_again<R: NetRig>(over: &str) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::shared();
    let papers = authority.papers(CLUSTER, NodeId(1));
    let (certificate, key) = (&papers.certificate, &papers.key);
    for (name, text) in [
        ("over", over),
        ("authority", &authority.pem()),
        ("certificate", certificate),
        ("key", key),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let first = spawn(folder.path());
    let address = fs::read_to_string(folder.path().join("address")).unwrap();
    // It hears of nothing by silence within this test.
    let mut settings = R::settings(2);
    settings.handshake_time = PATIENCE / 3;
    let wire = R::wire(2);
    let before = net::connect(&wire, &address, &settings).unwrap();
    assert!(answers(&before));
    drop(first);
    let _second = spawn(folder.path());
    let start = Instant::now();
    let after = net::connect(&wire, &address, &settings).unwrap();
    assert!(answers(&after), "over {over}");
    assert!(start.elapsed() < PATIENCE / 2, "over {over}: {:?}", start.elapsed());
    // The next one does not begin with the dead connection again.
    let start = Instant::now();
    assert!(answers(&net::connect(&wire, &address, &settings).unwrap()));
    assert!(start.elapsed() < PATIENCE / 12, "over {over}: {:?}", start.elapsed());
}

#[test]
fn a_peer_that_was_killed_and_started_again_is_found_again() {
    let _turn = crate::turn::take();
    is_found_again::<Tcp>("tcp");
    is_found_again::<Tls>("tls");
    is_found_again::<Quic>("quic");
}

#[test]
fn those_who_dial_at_the_same_time_share_one_connection_of_quic() {
    let _turn = crate::turn::take();
    let listener = Listener::bind(&Quic::wire(1), "127.0.0.1:0", Quic::settings(1)).unwrap();
    let credentials = Authority::shared().credentials(CLUSTER, NodeId(2));
    let endpoint = QuicEndpoint::new(credentials).unwrap();
    let (wire, address) = (Wire::Quic(endpoint.clone()), listener.address().to_string());
    let channels = thread::scope(|scope| {
        let dial = || net::connect(&wire, &address, &Quic::settings(2)).unwrap();
        let dialling: Vec<_> = (0..8).map(|_| scope.spawn(dial)).collect();
        dialling.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!((channels.len(), endpoint.connections()), (8, 1));
}
