use super::*;
use crate::{
    ClusterId, NodeId, Payload,
    net::tls::{Credentials, cluster_name, node_name, server_name},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConnection, ServerConnection};
use std::{net::TcpListener, sync::Arc};

struct End {
    records: Records,
    socket: TcpStream,
    arrived: Arrived,
    decoder: Decoder,
    got: Vec<usize>,
}

impl End {
    fn new(session: Connection, socket: TcpStream) -> Self {
        socket.set_nonblocking(true).unwrap();
        let mut decoder = Decoder::new(1 << 20);
        let records = Records::new(session, &mut decoder).unwrap();
        Self { records, socket, arrived: Arrived::new(), decoder, got: Vec::new() }
    }

    /// Reads what is there, and checks that each message has bytes that are its length.
    fn read(&mut self) -> io::Result<usize> {
        let read = self.records.read(&self.socket, &mut self.arrived, &mut self.decoder);
        while let Some(frame) = self.decoder.next_frame().unwrap() {
            let len = frame.payload.len();
            assert!(frame.payload.iter().all(|byte| *byte == len as u8));
            self.got.push(len);
        }
        read
    }

    /// Until something has come, or the end.
    fn wait(&mut self) -> io::Result<usize> {
        for _ in 0..10_000 {
            match self.read() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                outcome => return outcome,
            }
        }
        panic!("nothing comes");
    }
}

fn credentials() -> Credentials {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let cluster = ClusterId::default();
    let names = vec![cluster_name(cluster), node_name(cluster, NodeId(1))];
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let [authority, chain] = [issuer.pem(), certificate.pem()];
    let key = key.serialize_pem();
    Credentials::from_pem(authority.as_bytes(), chain.as_bytes(), key.as_bytes()).unwrap()
}

/// Two ends whose sessions have agreed, the dialler first.
fn pair() -> (End, End) {
    let Credentials { server, client } = credentials();
    let name = server_name(ClusterId::default());
    let mut dialler: Connection = ClientConnection::new(client, name).unwrap().into();
    let mut acceptor: Connection = ServerConnection::new(Arc::clone(&server)).unwrap().into();
    for _ in 0..10 {
        pass(&mut dialler, &mut acceptor);
        pass(&mut acceptor, &mut dialler);
    }
    assert!(!dialler.is_handshaking() && !acceptor.is_handshaking());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    (End::new(dialler, one), End::new(acceptor, other))
}

fn pass(from: &mut Connection, to: &mut Connection) {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets().unwrap();
    }
}

#[test]
fn r1_frames_pass_whole_and_in_order_when_the_socket_takes_little_and_the_keys_change() {
    let (mut one, mut other) = pair();
    let lens: Vec<usize> = (0..60).map(|turn| turn * turn * 83 % 300_000).collect();
    let mut batch = Batch::default();
    let mut left = lens.iter();
    let (mut waits, mut turns) = (0, 0);
    while other.got.len() < lens.len() {
        turns += 1;
        assert!(turns < 100_000, "{} of {} have come", other.got.len(), lens.len());
        if batch.len() == 0 && left.len() > 0 {
            left.by_ref().take(7).for_each(|len| batch.add(&Payload::from(vec![*len as u8; *len])));
            // New keys for one direction, which the peer answers with new ones for the other. With a
            // message behind each: many without any are taken for a flood.
            let mut session = one.records.session();
            session.refresh_traffic_keys().unwrap();
        }
        if !one.records.write_now(&mut batch, &one.socket).unwrap() {
            waits += 1;
            assert!(batch.len() > 0 && one.records.has_output(), "it is not forgotten");
        }
        for end in [&mut one, &mut other] {
            match end.read() {
                Ok(len) => assert!(len > 0),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }
    assert_eq!(other.got, lens);
    assert!(waits > 0, "the socket did not take everything at once");
    assert!(one.got.is_empty(), "an answer about keys is no message");
}

#[test]
fn r2_what_came_with_the_handshake_is_not_forgotten() {
    let (one, other) = pair();
    let mut batch = Batch::default();
    batch.add(&Payload::from(vec![5; 5]));
    batch.seal();
    let mut decoder = Decoder::new(100);
    let (mut dialler, mut acceptor) =
        (one.records.session.into_inner().unwrap(), other.records.session.into_inner().unwrap());
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let count = batch.fill(&mut slices);
    let _ = dialler.writer().write_vectored(&slices[..count]).unwrap();
    pass(&mut dialler, &mut acceptor);
    Records::new(acceptor, &mut decoder).unwrap();
    assert_eq!(decoder.next_frame().unwrap().unwrap().payload, [5; 5][..]);
}

#[test]
fn what_is_no_record_is_an_error_and_the_peer_is_told_by_an_alert() {
    let (mut one, mut other) = pair();
    // An application record that no key has made.
    (&one.socket).write_all(&[23, 3, 3, 0, 20]).unwrap();
    (&one.socket).write_all(&[7; 20]).unwrap();
    assert_ne!(other.wait().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let told = one.wait().unwrap_err().to_string();
    assert!(told.contains("BadRecordMac"), "{told}");
}

#[test]
fn an_end_that_was_said_is_read_as_one() {
    let (one, mut other) = pair();
    one.records.say_end();
    assert!(one.records.has_output());
    assert!(one.records.write_now(&mut Batch::default(), &one.socket).unwrap());
    assert!(other.wait().unwrap() > 0);
    drop(one);
    assert_eq!(other.wait().unwrap(), 0);
}
