//! What a network transport does about those who are no members, or not well.

use crate::{
    certificates::Authority,
    rig::{CLUSTER, NetRig, PATIENCE, Quic, Tcp, Tls, secret},
};
use mainstay_channel::{
    Bounds, Bytes, Channel, ClusterId, Error, NodeId, Secret, Why,
    dial::Backoff,
    frame::{Decoder, Frame, Kind, encode},
    handshake::{Handshake, Local, Purpose, Reason, Step},
    net::{self, Credentials, Dialler, Listener, QuicEndpoint, Settings, Wire},
};
use socket2::{Domain, Socket, Type};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);

fn listen<R: NetRig>(settings: Settings) -> Listener {
    Listener::bind(&R::wire(1), "127.0.0.1:0", settings).unwrap()
}

fn dial<R: NetRig>(listener: &Listener, settings: &Settings) -> Result<net::NetChannel, Error> {
    net::connect(&R::wire(2), &listener.address().to_string(), settings)
}

/// Waits until the listener has written down a refusal, and returns its words.
fn words_of(listener: &Listener) -> String {
    let start = Instant::now();
    loop {
        if let Some(refused) = listener.refused().pop() {
            return refused.why;
        }
        assert!(start.elapsed() < PATIENCE, "the listener writes it down");
        thread::sleep(MS);
    }
}

/// A member still gets in, and its channel works.
fn assert_serves<R: NetRig>(listener: &Listener) {
    let there = dial::<R>(listener, &R::settings(2)).unwrap();
    let here = listener.accept(PATIENCE).unwrap().expect("a member is let in");
    there.send("hello".into()).unwrap();
    assert_eq!(here.receive(PATIENCE).unwrap().unwrap(), "hello");
}

/// Both ends learn the reason, nobody is let in, and members still are.
fn refused_with<R: NetRig>(theirs: Settings, expected: impl Fn(Reason) -> bool) {
    let listener = listen::<R>(R::settings(1));
    let Err(Error::Refused { reason, by, .. }) = dial::<R>(&listener, &theirs) else {
        panic!("it is refused")
    };
    assert!(expected(reason), "{reason:?}");
    assert_eq!(by, "by the peer");
    let words = words_of(&listener);
    let explains = |words: &str| words.rsplit("; ").next().unwrap().to_owned();
    assert_eq!(explains(&words), explains(&reason.to_string()), "both are told what to do");
    assert!(listener.accept(Duration::ZERO).unwrap().is_none());
    assert_serves::<R>(&listener);
}

pub(crate) fn a_wrong_secret_is_refused_on_both_sides<R: NetRig>() {
    let mut theirs = R::settings(2);
    theirs.local.secret = Some(Secret::new(*b"the secret of another cluster").unwrap());
    let expected = if R::SECRET { Reason::Proof } else { Reason::ProofMode };
    refused_with::<R>(theirs, |reason| reason == expected);
}

pub(crate) fn a_wrong_cluster_is_refused_on_both_sides<R: NetRig>() {
    let mut theirs = R::settings(2);
    theirs.local.cluster = ClusterId(uuid::Uuid::from_u128(7));
    if R::SECRET {
        return refused_with::<R>(theirs, |reason| reason == Reason::Cluster);
    }
    // With certificates it is noticed before: the listener's is not for that cluster.
    let listener = listen::<R>(R::settings(1));
    let error = dial::<R>(&listener, &theirs).unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
    assert!(!words_of(&listener).is_empty());
    assert_serves::<R>(&listener);
}

pub(crate) fn a_wrong_purpose_is_refused_on_both_sides<R: NetRig>() {
    let mut theirs = R::settings(2);
    theirs.local.purpose = Purpose::new("something-else").unwrap();
    refused_with::<R>(theirs, |reason| reason == Reason::Purpose);
}

pub(crate) fn a_wrong_version_is_refused_on_both_sides_and_names_both<R: NetRig>() {
    let mut theirs = R::settings(2);
    theirs.local.versions = 7..=9;
    refused_with::<R>(theirs, |reason| reason == Reason::Version { ours: (7, 9), theirs: (1, 1) });
}

pub(crate) fn a_missing_feature_is_refused_on_both_sides<R: NetRig>() {
    let mut theirs = R::settings(2);
    theirs.local = theirs.local.with_features(0, 4);
    refused_with::<R>(theirs, |reason| reason == Reason::Features);
}

pub(crate) fn a_message_over_the_peers_limit_is_refused_at_the_sender<R: NetRig>() {
    let ours = R::settings(1).with_bounds(Bounds { message_len: 1_000, ..Bounds::default() });
    let listener = listen::<R>(ours);
    let there = dial::<R>(&listener, &R::settings(2)).unwrap();
    let here = listener.accept(PATIENCE).unwrap().unwrap();
    let refused = there.send(Bytes::from(vec![0; 1_001]));
    assert!(matches!(refused, Err(Error::TooLong { len: 1_001, limit: 1_000 })));
    there.send(Bytes::from(vec![0; 1_000])).unwrap();
    assert_eq!(here.receive(PATIENCE).unwrap().unwrap().len(), 1_000);
}

pub(crate) fn a_peer_that_falls_silent_is_lost_and_one_that_only_idles_is_not<R: NetRig>() {
    let settings = |node, keep_alive| {
        let mut settings = R::settings(node);
        (settings.silence, settings.keep_alive) = (300 * MS, keep_alive);
        settings
    };
    let listener = listen::<R>(settings(1, 50 * MS));
    // Signs of life from both: nothing happens, however long nobody sends.
    let there = dial::<R>(&listener, &settings(2, 50 * MS)).unwrap();
    let here = listener.accept(PATIENCE).unwrap().unwrap();
    assert_eq!(here.receive(1_500 * MS).unwrap(), None);
    assert!(there.is_open() && here.is_open());
    // One that gives none looks like one whose cable was cut.
    let mut quiet = settings(2, PATIENCE * 100);
    quiet.silence = PATIENCE;
    let there = dial::<R>(&listener, &quiet).unwrap();
    let here = listener.accept(PATIENCE).unwrap().unwrap();
    let ended = here.receive(PATIENCE);
    let is_silent = |why: &Why| matches!(why, Why::Silent { silence } if *silence == 300 * MS);
    assert!(matches!(&ended, Err(Error::ChannelClosed { why }) if is_silent(why)), "{ended:?}");
    drop(there);
}

pub(crate) fn a_slow_reader_is_not_taken_for_silent<R: NetRig>() {
    let settings = |node| {
        let mut settings = R::settings(node);
        (settings.silence, settings.keep_alive) = (400 * MS, 50 * MS);
        settings.with_bounds(Bounds { messages: 4, bytes: 10_000, ..Bounds::default() })
    };
    let listener = listen::<R>(settings(1));
    let there = dial::<R>(&listener, &settings(2)).unwrap();
    let here = listener.accept(PATIENCE).unwrap().unwrap();
    let message = Bytes::from(vec![1; 8_000]);
    let mut sent = 0;
    let start = Instant::now();
    while start.elapsed() < 1_500 * MS {
        match there.try_send(message.clone()).unwrap() {
            None => sent += 1,
            Some(_) => thread::sleep(MS),
        }
    }
    for _ in 0..sent {
        assert_eq!(here.receive(PATIENCE).unwrap().unwrap(), message);
    }
    assert!(here.is_open() && there.is_open());
}

pub(crate) fn a_reader_that_stalls_gets_everything_however_small_the_packets_were<R: NetRig>() {
    const MESSAGES: usize = 4_500;
    // Short ones between longer ones, each on its way before the next is there: what nobody reads is
    // a great many pieces of very different sizes.
    let len = |number: usize| if number.is_multiple_of(3) { 420 } else { number % 40 };
    let bounds = Bounds { messages: 16, ..Bounds::default() };
    let listener = listen::<R>(R::settings(1).with_bounds(bounds));
    let there = dial::<R>(&listener, &R::settings(2).with_bounds(bounds)).unwrap();
    let here = listener.accept(PATIENCE).unwrap().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..MESSAGES {
                there.send(Bytes::from(vec![number as u8; len(number)])).unwrap();
                thread::sleep(Duration::from_micros(20));
            }
        });
        thread::sleep(1_000 * MS);
        for number in 0..MESSAGES {
            let message = here.receive(PATIENCE).unwrap().unwrap();
            assert_eq!(message, vec![number as u8; len(number)]);
        }
    });
}

pub(crate) fn a_listener_that_is_gone_refuses<R: NetRig>() {
    let listener = listen::<R>(R::settings(1));
    let address = listener.address().to_string();
    let there = dial::<R>(&listener, &R::settings(2)).unwrap();
    let here = listener.accept(PATIENCE).unwrap().unwrap();
    drop(listener);
    there.send("still here".into()).unwrap();
    assert_eq!(here.receive(PATIENCE).unwrap().unwrap(), "still here");
    let mut settings = R::settings(2);
    (settings.connect_time, settings.handshake_time) = (500 * MS, 500 * MS);
    thread::sleep(100 * MS);
    assert!(net::connect(&R::wire(3), &address, &settings).is_err());
}

pub(crate) fn a_dialler_comes_back_after_a_loss<R: NetRig>() {
    let listener = listen::<R>(R::settings(1));
    let address = listener.address().to_string();
    let mut dialler = Dialler::new(R::wire(2), &address, R::settings(2))
        .with_backoff(Backoff::between(10 * MS, 50 * MS));
    for round in 0..3 {
        let there = dialler.channel(PATIENCE).unwrap().expect("a channel");
        let here = listener.accept(PATIENCE).unwrap().expect("it has come");
        here.send(Bytes::from(vec![round])).unwrap();
        assert_eq!(there.receive(PATIENCE).unwrap().unwrap(), [round][..]);
        assert!(dialler.channel(Duration::ZERO).unwrap().unwrap().is_open(), "the same one");
        here.abort();
        assert!(there.receive(PATIENCE).is_err());
    }
    drop(listener);
    assert!(dialler.channel(200 * MS).unwrap().is_none());
    assert!(dialler.last_error().is_some());
}

fn certified(credentials: Credentials, quic: bool) -> Wire {
    if quic { Wire::Quic(QuicEndpoint::new(credentials).unwrap()) } else { Wire::Tls(credentials) }
}

/// A node with these credentials is refused, both sides say why, and members are still let in.
fn certificate_refused<R: NetRig>(credentials: Credentials, settings: &Settings, quic: bool) {
    let listener = listen::<R>(R::settings(1));
    let address = listener.address().to_string();
    let error = net::connect(&certified(credentials, quic), &address, settings).unwrap_err();
    assert!(
        matches!(error, Error::Network { .. } | Error::Refused { .. } | Error::Handshake { .. }),
        "{error}"
    );
    let words = words_of(&listener);
    assert!(words.contains("certificate") || words.contains("agree"), "{words}");
    assert!(listener.accept(Duration::ZERO).unwrap().is_none());
    assert_serves::<R>(&listener);
}

#[test]
fn an_expired_certificate_is_refused() {
    let _turn = crate::turn::take();
    let expired = || Authority::shared().credentials_until(CLUSTER, NodeId(2), 2021);
    certificate_refused::<Tls>(expired(), &Tls::settings(2), false);
    certificate_refused::<Quic>(expired(), &Quic::settings(2), true);
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    let _turn = crate::turn::take();
    // It believes in our authority, so that it is we who refuse.
    let stranger = Authority::new();
    let unknown = || stranger.trusting(Authority::shared(), CLUSTER, NodeId(2), 2_040);
    certificate_refused::<Tls>(unknown(), &Tls::settings(2), false);
    certificate_refused::<Quic>(unknown(), &Quic::settings(2), true);
}

#[test]
fn a_certificate_of_another_node_is_refused_with_its_reason() {
    let _turn = crate::turn::take();
    for quic in [false, true] {
        let wire = |node| certified(Authority::shared().credentials(CLUSTER, NodeId(node)), quic);
        let listener = Listener::bind(&wire(1), "127.0.0.1:0", Tls::settings(1)).unwrap();
        let address = listener.address().to_string();
        // Node 3's certificate in the hands of somebody who says to be node 2.
        let error = net::connect(&wire(3), &address, &Tls::settings(2)).unwrap_err();
        assert!(matches!(error, Error::Refused { reason: Reason::Identity, .. }), "{error}");
        assert!(words_of(&listener).contains("not that of the node"));
        // And the other way round: a listener that is not who its certificate says.
        let liar = Listener::bind(&wire(3), "127.0.0.1:0", Tls::settings(1)).unwrap();
        let error =
            net::connect(&wire(2), &liar.address().to_string(), &Tls::settings(2)).unwrap_err();
        assert!(
            matches!(error, Error::Refused { reason: Reason::Identity, by: "here", .. }),
            "{error}"
        );
    }
}

fn hung_up(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = Vec::new();
    // A reset is as good as an end.
    let _ = stream.read_to_end(&mut heard);
    heard
}

#[test]
fn a_peer_that_sends_garbage_is_hung_up_on_and_gets_nothing() {
    let _turn = crate::turn::take();
    let listener = listen::<Tcp>(Tcp::settings(1));
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 500], &[0xFF; 70_000]] {
        let mut stream = TcpStream::connect(listener.address()).unwrap();
        let _ = stream.write_all(garbage);
        assert!(hung_up(&mut stream).is_empty(), "not one byte for a stranger");
    }
    assert!(words_of(&listener).contains("does not speak this protocol"));
    assert_serves::<Tcp>(&listener);
}

#[test]
fn a_peer_that_trickles_one_byte_a_second_is_given_its_time_and_no_more() {
    let _turn = crate::turn::take();
    let mut settings = Tcp::settings(1);
    settings.handshake_time = 400 * MS;
    let listener = listen::<Tcp>(settings);
    let mut stream = TcpStream::connect(listener.address()).unwrap();
    let start = Instant::now();
    let hello = Handshake::dial(Tcp::settings(2).local, None, [1; 32]).1;
    for byte in hello {
        thread::sleep(100 * MS);
        if stream.write_all(&[byte]).is_err() || start.elapsed() > PATIENCE {
            break;
        }
    }
    assert!(start.elapsed() < PATIENCE / 2, "it was cut short");
    assert!(words_of(&listener).contains("took too long"));
    assert_serves::<Tcp>(&listener);
}

/// A member that speaks the protocol by hand, to break it.
fn by_hand(listener: &Listener) -> (TcpStream, net::NetChannel) {
    let local = Local::new(NodeId(2), CLUSTER, Purpose::new("test").unwrap()).with_secret(secret());
    let (mut handshake, hello) = Handshake::dial(local, None, [5; 32]);
    let mut stream = TcpStream::connect(listener.address()).unwrap();
    stream.write_all(&hello).unwrap();
    let mut decoder = Decoder::new(256);
    loop {
        let frame: Frame = loop {
            if let Some(frame) = decoder.next_frame().unwrap() {
                break frame;
            }
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            decoder.feed(&byte);
        };
        match handshake.handle(&frame) {
            Step::Send(answer) => stream.write_all(&answer).unwrap(),
            Step::Done(..) => return (stream, listener.accept(PATIENCE).unwrap().unwrap()),
            Step::Refused(refusal, _) => panic!("{refusal:?}"),
        }
    }
}

#[test]
fn a_member_that_breaks_the_protocol_loses_its_channel_and_the_reason_is_told() {
    let _turn = crate::turn::take();
    let bounds = Bounds { message_len: 1_000, ..Bounds::default() };
    let listener = listen::<Tcp>(Tcp::settings(1).with_bounds(bounds));
    let mut flipped = encode(Kind::Message, b"ringing").to_vec();
    flipped[18] ^= 1;
    for (bytes, words) in [
        (encode(Kind::Message, &[0; 1_001]).to_vec(), "1001 bytes, and this end takes 1000"),
        (flipped, "checksum"),
        (encode(Kind::Hello, b"").to_vec(), "where none is expected"),
        (b"garbage in the middle of it all".to_vec(), "begins with"),
    ] {
        let (mut stream, here) = by_hand(&listener);
        stream.write_all(&encode(Kind::Message, b"fine")).unwrap();
        assert_eq!(here.receive(PATIENCE).unwrap().unwrap(), "fine");
        stream.write_all(&bytes).unwrap();
        let error = here.receive(PATIENCE).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(here.send("x".into()).is_err());
    }
}

#[test]
fn a_member_that_trickles_a_frame_is_waited_for() {
    let _turn = crate::turn::take();
    let listener = listen::<Tcp>(Tcp::settings(1));
    let (mut stream, here) = by_hand(&listener);
    for byte in encode(Kind::Message, b"slow") {
        stream.write_all(&[byte]).unwrap();
        assert_eq!(here.receive(5 * MS).unwrap_or(None).as_deref().unwrap_or(b"slow"), b"slow");
    }
    stream.write_all(&encode(Kind::Message, b"next")).unwrap();
    let mut last = here.receive(PATIENCE).unwrap().unwrap();
    if last == "slow" {
        last = here.receive(PATIENCE).unwrap().unwrap();
    }
    assert_eq!(last, "next");
}

#[test]
fn a_stream_that_ends_without_a_word_is_lost_and_not_closed() {
    let _turn = crate::turn::take();
    let listener = listen::<Tcp>(Tcp::settings(1));
    let (mut stream, here) = by_hand(&listener);
    stream.write_all(&encode(Kind::Message, b"half a message")[..20]).unwrap();
    drop(stream);
    let ended = here.receive(PATIENCE);
    assert!(matches!(&ended, Err(Error::ChannelClosed { why: Why::Lost { .. } })), "{ended:?}");
}

#[test]
fn ten_thousand_strangers_do_not_keep_members_out() {
    let _turn = crate::turn::take();
    let mut settings = Tcp::settings(1);
    settings.strangers = 64;
    let listener = listen::<Tcp>(settings);
    let address = listener.address();
    let there = dial::<Tcp>(&listener, &Tcp::settings(2)).unwrap();
    let here = listener.accept(PATIENCE).unwrap().unwrap();
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut held = std::collections::VecDeque::new();
            for _ in 0..10_000 {
                // From another address than the members': a flood displaces itself.
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
                if socket.connect(&address.into()).is_ok() {
                    let stream = TcpStream::from(socket);
                    held.push_back(stream);
                }
                if held.len() > 400 {
                    held.pop_front();
                }
            }
        });
        let mut rounds = 0;
        while !flood.is_finished() {
            there.send("ping".into()).unwrap();
            assert_eq!(here.receive(PATIENCE).unwrap().unwrap(), "ping");
            rounds += 1;
            if rounds % 200 == 1 {
                assert_serves::<Tcp>(&listener);
            }
        }
        assert!(rounds > 10, "members were served meanwhile: {rounds}");
    });
    assert!(listener.visits().displaced > 9_000, "{:?}", listener.visits());
    assert_serves::<Tcp>(&listener);
}
