//! Peers that hold a good certificate, or half of an address, and mean no good: garbage within a
//! session of TLS, and forged addresses on QUIC. Each test does the honest thing
//! by the same hands first, so that it is the harm that is refused.

use crate::{
    certificates::Authority,
    rig::{CLUSTER, NetRig, PATIENCE, Quic, Tls},
    strangers::{assert_serves, listen, words_of},
};
use mainstay_channel::{
    Bounds, Channel, Error, NodeId, Why,
    frame::{Decoder, Frame, Kind, encode},
    handshake::{Handshake, Local, Purpose, Step},
    net::{self, Listener, NetChannel, cluster_name},
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::TLS13,
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);

type Session = StreamOwned<ClientConnection, TcpStream>;

/// What a member brings who speaks TLS by hand: node 2's certificate is a good one.
pub(crate) fn by_hand() -> ClientConfig {
    let authority = Authority::shared();
    let papers = authority.papers(CLUSTER, NodeId(2));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(papers.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(papers.key.as_bytes()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"mainstay/1".to_vec()];
    config
}

/// A session of TLS with the listener, and nothing said in it.
fn session(listener: &Listener) -> Session {
    let name = ServerName::try_from(cluster_name(CLUSTER)).unwrap();
    let connection = ClientConnection::new(Arc::new(by_hand()), name).unwrap();
    let socket = TcpStream::connect(listener.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(connection, socket)
}

fn next_frame(stream: &mut impl Read) -> Frame {
    let mut decoder = Decoder::new(256);
    loop {
        if let Some(frame) = decoder.next_frame().unwrap() {
            return frame;
        }
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        decoder.feed(&byte);
    }
}

/// A channel whose other end is a session that its owner speaks by hand; one message has passed.
fn member(listener: &Listener) -> (Session, NetChannel) {
    let mut session = session(listener);
    let local = Local::new(NodeId(2), CLUSTER, Purpose::new("test").unwrap());
    let (handshake, hello) = Handshake::dial(local, None, [5; 32]);
    let mut handshake = handshake.vouched(Arc::new(|_| true));
    session.write_all(&hello).unwrap();
    loop {
        match handshake.handle(&next_frame(&mut session)) {
            Step::Send(frame) => session.write_all(&frame).unwrap(),
            Step::Done(_, None) => break,
            step => panic!("{step:?}"),
        }
    }
    let here = listener.accept(PATIENCE).unwrap().expect("a member is let in");
    session.write_all(&encode(Kind::Message, b"fine")).unwrap();
    assert_eq!(here.receive(PATIENCE).unwrap().unwrap(), "fine");
    (session, here)
}

#[test]
fn garbage_in_place_of_a_hello_within_tls_gets_not_one_byte_of_an_answer() {
    let _turn = crate::turn::take();
    let listener = listen::<Tls>(Tls::settings(1));
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 500], &[0xFF; 70_000]] {
        let mut session = session(&listener);
        // The listener may have hung up before all of it was written.
        let _ = session.write_all(garbage);
        let mut heard = Vec::new();
        let _ = session.read_to_end(&mut heard);
        assert!(heard.is_empty(), "{heard:?}");
    }
    assert!(words_of(&listener).contains("does not speak this protocol"));
    assert!(listener.accept(Duration::ZERO).unwrap().is_none());
    assert_serves::<Tls>(&listener);
}

#[test]
fn a_member_that_breaks_the_protocol_within_tls_loses_its_channel_and_the_reason_is_told() {
    let _turn = crate::turn::take();
    let bounds = Bounds { message_len: 1_000, ..Bounds::default() };
    let listener = listen::<Tls>(Tls::settings(1).with_bounds(bounds));
    let mut flipped = encode(Kind::Message, b"ringing").to_vec();
    flipped[18] ^= 1;
    let mut longer = encode(Kind::Message, b"ringing").to_vec();
    longer[9] ^= 1;
    for (bytes, words) in [
        (encode(Kind::Message, &[0; 1_001]).to_vec(), "1001 bytes, and this end takes 1000"),
        (flipped, "checksum"),
        (longer, "the header of a frame"),
        (encode(Kind::Hello, b"").to_vec(), "where none is expected"),
        (b"garbage in the middle of it all".to_vec(), "begins with"),
    ] {
        let (mut session, here) = member(&listener);
        session.write_all(&bytes).unwrap();
        let error = here.receive(PATIENCE).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(here.send("x".into()).is_err());
    }
    assert_serves::<Tls>(&listener);
}

#[test]
fn what_is_slipped_into_the_stream_beneath_tls_ends_the_channel_and_is_never_delivered() {
    let _turn = crate::turn::take();
    let listener = listen::<Tls>(Tls::settings(1));
    let frame = encode(Kind::Message, b"forged");
    // A record that no key has made, a frame in the clear, and an alert that nobody has signed.
    let mut record = vec![23, 3, 3, 0, 40];
    record.extend([7; 40]);
    for bytes in [record, frame.to_vec(), vec![21, 3, 3, 0, 2, 1, 0]] {
        let (session, here) = member(&listener);
        session.get_ref().write_all(&bytes).unwrap();
        let ended = here.receive(PATIENCE);
        assert!(matches!(&ended, Err(Error::ChannelClosed { why: Why::Lost { .. } })), "{ended:?}");
    }
    assert_serves::<Tls>(&listener);
}

#[test]
fn an_end_of_tls_in_the_middle_of_a_frame_is_a_loss_and_not_a_close() {
    let _turn = crate::turn::take();
    let listener = listen::<Tls>(Tls::settings(1));
    let (mut session, here) = member(&listener);
    session.write_all(&encode(Kind::Message, b"half a message")[..20]).unwrap();
    session.conn.send_close_notify();
    session.flush().unwrap();
    drop(session);
    let ended = here.receive(PATIENCE);
    assert!(matches!(&ended, Err(Error::ChannelClosed { why: Why::Lost { .. } })), "{ended:?}");
}

/// A node in the middle that passes on datagrams, and shows the dialler to the listener under one
/// address until the listener has asked it to prove that, and then under another.
struct Middle {
    front: UdpSocket,
    backs: [UdpSocket; 2],
    listener: SocketAddr,
    /// Whether it changes the address.
    moves: bool,
    stop: AtomicBool,
    /// What the dialler said first, and the listener answered first.
    first: [AtomicUsize; 2],
    was_retry: AtomicBool,
    /// Bytes to and from the listener under the second address.
    moved: [AtomicUsize; 2],
}

impl Middle {
    fn new(listener: SocketAddr, moves: bool) -> Self {
        let socket = |at: &str| {
            let socket = UdpSocket::bind(at).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        Self {
            front: socket("127.0.0.1:0"),
            backs: [socket("127.0.0.2:0"), socket("127.0.0.3:0")],
            listener,
            moves,
            stop: AtomicBool::new(false),
            first: Default::default(),
            was_retry: AtomicBool::new(false),
            moved: Default::default(),
        }
    }

    fn run(&self) {
        let mut bytes = [0; 2_048];
        let (mut dialler, mut answered) = (None, false);
        while !self.stop.load(Relaxed) {
            let mut idle = true;
            while let Ok((len, from)) = self.front.recv_from(&mut bytes) {
                (dialler, idle) = (Some(from), false);
                let _ = self.first[0].compare_exchange(0, len, Relaxed, Relaxed);
                let back = usize::from(self.moves && answered);
                if back == 1 {
                    self.moved[0].fetch_add(len, Relaxed);
                }
                self.backs[back].send_to(&bytes[..len], self.listener).unwrap();
            }
            for (number, back) in self.backs.iter().enumerate() {
                while let Ok(len) = back.recv(&mut bytes) {
                    idle = false;
                    if self.first[1].compare_exchange(0, len, Relaxed, Relaxed).is_ok() {
                        // RFC 9000, 17.2.5: a long header of type 3.
                        self.was_retry.store(bytes[0] & 0xF0 == 0xF0, Relaxed);
                    }
                    answered = true;
                    if number == 1 {
                        self.moved[1].fetch_add(len, Relaxed);
                    }
                    if let Some(dialler) = dialler {
                        self.front.send_to(&bytes[..len], dialler).unwrap();
                    }
                }
            }
            if idle {
                thread::sleep(MS);
            }
        }
    }
}

#[test]
fn a_dialler_by_quic_proves_its_address_before_anything_is_kept_and_the_proof_is_of_that_address() {
    let _turn = crate::turn::take();
    let listener = listen::<Quic>(Quic::settings(1));
    for moves in [false, true] {
        let middle = Middle::new(listener.address(), moves);
        let at = middle.front.local_addr().unwrap().to_string();
        let mut settings = Quic::settings(2);
        settings.connect_time = if moves { 1_500 * MS } else { PATIENCE };
        let before = listener.visits();
        let dialled = thread::scope(|scope| {
            let passing = scope.spawn(|| middle.run());
            let dialled = net::connect(&Quic::wire(2), &at, &settings);
            if let Ok(there) = &dialled {
                let here = listener.accept(PATIENCE).unwrap().expect("a member is let in");
                there.send("hello".into()).unwrap();
                assert_eq!(here.receive(PATIENCE).unwrap().unwrap(), "hello");
            }
            middle.stop.store(true, Relaxed);
            passing.join().unwrap();
            dialled
        });
        assert!(middle.was_retry.load(Relaxed), "the first answer asks for a proof of the address");
        let [said, heard] = [&middle.first[0], &middle.first[1]].map(|len| len.load(Relaxed));
        assert!(heard > 0 && heard <= said / 4, "{heard} bytes for {said} of nobody knows whom");
        assert_eq!(dialled.is_err(), moves, "{dialled:?}");
        if moves {
            let [said, heard] = [&middle.moved[0], &middle.moved[1]].map(|len| len.load(Relaxed));
            assert!(said > 1_000 && heard <= said / 4, "{heard} bytes for {said}");
            assert_eq!(listener.visits().accepted, before.accepted);
            assert!(listener.accept(Duration::ZERO).unwrap().is_none());
        }
    }
    assert_serves::<Quic>(&listener);
}

#[test]
fn first_packets_that_nobody_follows_up_leave_nothing_behind() {
    const PACKETS: usize = 3_000;
    let _turn = crate::turn::take();
    let listener = listen::<Quic>(Quic::settings(1));
    // A real first packet, as somebody would record it.
    let recorder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = recorder.local_addr().unwrap().to_string();
    let mut settings = Quic::settings(2);
    settings.connect_time = 100 * MS;
    assert!(net::connect(&Quic::wire(2), &at, &settings).is_err(), "nobody answers");
    let mut packet = [0; 2_048];
    recorder.set_read_timeout(Some(PATIENCE)).unwrap();
    let len = recorder.recv(&mut packet).unwrap();

    let before = listener.visits();
    let (mut answers, mut heard) = (0, 0);
    let mut answer = [0; 2_048];
    for number in 0..PACKETS {
        let socket = UdpSocket::bind("127.0.0.2:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.send_to(&packet[..len], listener.address()).unwrap();
        // The first ones are waited for: it is known then that the packet is a good one.
        let start = Instant::now();
        while number < 20 && start.elapsed() < PATIENCE {
            if let Ok(len) = socket.recv(&mut answer) {
                (answers, heard) = (answers + 1, heard + len);
                break;
            }
            thread::sleep(MS);
        }
    }
    assert_eq!(answers, 20);
    assert!(heard <= 20 * len / 4, "{heard} bytes for 20 packets of {len}");
    let after = listener.visits();
    assert_eq!((after.refused, after.displaced), (before.refused, before.displaced));
    assert_serves::<Quic>(&listener);
}
