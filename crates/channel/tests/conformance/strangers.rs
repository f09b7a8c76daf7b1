//! What a network transport does about those who are no members, or not well.

use crate::rig::{CLUSTER, NetRig, PATIENCE, Tcp, secret};
use mainstay_channel::{
    Bounds, Bytes, Channel, ClusterId, Error, NodeId, Secret, Why,
    dial::Backoff,
    frame::{Decoder, Frame, Kind, encode},
    handshake::{Handshake, Local, Purpose, Reason, Step},
    net::{self, Dialler, Listener, Settings},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);

pub(crate) fn listen<R: NetRig>(settings: Settings) -> Listener {
    Listener::bind(&R::wire(1), "127.0.0.1:0", settings).unwrap()
}

pub(crate) fn dial<R: NetRig>(
    listener: &Listener,
    settings: &Settings,
) -> Result<net::NetChannel, Error> {
    net::connect(&R::wire(2), &listener.address().to_string(), settings)
}

/// Waits until the listener has written down a refusal, and returns its words.
pub(crate) fn words_of(listener: &Listener) -> String {
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
pub(crate) fn assert_serves<R: NetRig>(listener: &Listener) {
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
    let words = words_of(&listener);
    assert!(words.contains("BadCertificate") || words.contains("not valid for name"), "{words}");
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

pub(crate) fn an_address_of_ipv6_is_as_good<R: NetRig>() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        return eprintln!("skipped: this host has no IPv6");
    }
    let listener = Listener::bind(&R::wire(1), "[::1]:0", R::settings(1)).unwrap();
    assert!(listener.address().is_ipv6());
    assert_serves::<R>(&listener);
}

/// After which a peer is taken for lost here: longer than a busy machine makes anybody wait.
const SILENCE: Duration = Duration::from_secs(2);

pub(crate) fn a_peer_that_falls_silent_is_lost_and_one_that_only_idles_is_not<R: NetRig>() {
    let settings = |node, keep_alive| {
        let mut settings = R::settings(node);
        (settings.silence, settings.keep_alive) = (SILENCE, keep_alive);
        settings
    };
    let listener = listen::<R>(settings(1, 50 * MS));
    // Signs of life from both: nothing happens, however long nobody sends.
    let there = dial::<R>(&listener, &settings(2, 50 * MS)).unwrap();
    let here = listener.accept(PATIENCE).unwrap().unwrap();
    assert_eq!(here.receive(2 * SILENCE).unwrap(), None);
    assert!(there.is_open() && here.is_open());
    // One that gives none looks like one whose cable was cut.
    let mut quiet = settings(2, PATIENCE * 100);
    quiet.silence = PATIENCE;
    let there = dial::<R>(&listener, &quiet).unwrap();
    let here = listener.accept(PATIENCE).unwrap().unwrap();
    let ended = here.receive(PATIENCE);
    let is_silent = |why: &Why| matches!(why, Why::Silent { silence } if *silence == SILENCE);
    assert!(matches!(&ended, Err(Error::ChannelClosed { why }) if is_silent(why)), "{ended:?}");
    drop(there);
}

pub(crate) fn a_slow_reader_is_not_taken_for_silent<R: NetRig>() {
    let settings = |node| {
        let mut settings = R::settings(node);
        (settings.silence, settings.keep_alive) = (SILENCE, 50 * MS);
        settings.with_bounds(Bounds { messages: 4, bytes: 10_000, ..Bounds::default() })
    };
    let listener = listen::<R>(settings(1));
    let there = dial::<R>(&listener, &settings(2)).unwrap();
    let here = listener.accept(PATIENCE).unwrap().unwrap();
    let message = Bytes::from(vec![1; 8_000]);
    let mut sent = 0;
    let start = Instant::now();
    while start.elapsed() < 2 * SILENCE {
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
    let len = |number: usize| if number.is_multiple_of(3) { 250 } else { number % 40 };
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

pub(crate) fn hung_up(stream: &mut TcpStream) -> Vec<u8> {
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

/// A member that speaks the protocol by hand, to break it; it is about to send its proof.
pub(crate) fn about_to_prove(listener: &Listener, node: u64) -> (TcpStream, Bytes) {
    let local =
        Local::new(NodeId(node), CLUSTER, Purpose::new("test").unwrap()).with_secret(secret());
    let (mut handshake, hello) = Handshake::dial(local, None, [5; 32]);
    let mut stream = TcpStream::connect(listener.address()).unwrap();
    stream.write_all(&hello).unwrap();
    match handshake.handle(&next_frame(&mut stream)) {
        Step::Send(proof) | Step::Done(_, Some(proof)) => (stream, proof),
        step => panic!("{step:?}"),
    }
}

fn next_frame(stream: &mut TcpStream) -> Frame {
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

fn by_hand(listener: &Listener) -> (TcpStream, net::NetChannel) {
    let (mut stream, proof) = about_to_prove(listener, 2);
    stream.write_all(&proof).unwrap();
    let channel = listener.accept(PATIENCE).unwrap().unwrap();
    (stream, channel)
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
