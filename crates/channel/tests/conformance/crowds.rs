//! What a listener does when more come than it accepts, and about strangers to TLS and QUIC.

use crate::{
    rig::{NetRig, PATIENCE, Quic, Tcp, Tls},
    strangers::{about_to_prove, assert_serves, dial, hung_up, listen},
};
use mainstay_channel::{
    Channel,
    frame::{Kind, encode},
    limits::ACCEPTED_WAITING,
    net::{self, Listener},
};
use socket2::{Domain, Socket, Type};
use std::{
    io::Write,
    iter,
    net::{SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

#[test]
fn a_member_that_has_proved_itself_is_not_displaced_while_it_waits_to_be_accepted() {
    const LAST: usize = 4;
    let _turn = crate::turn::take();
    let mut settings = Tcp::settings(1);
    settings.strangers = LAST;
    let listener = listen::<Tcp>(settings);
    // Nobody accepts, and all the room there is gets taken while the last ones are in the middle of
    // their handshakes.
    let waiting: Vec<_> = (1..ACCEPTED_WAITING)
        .map(|_| {
            net::connect(&Tcp::wire(2), &listener.address().to_string(), &Tcp::settings(2)).unwrap()
        })
        .collect();
    let last: Vec<_> = (0..LAST).map(|_| about_to_prove(&listener, 2)).collect();
    let mut last: Vec<TcpStream> = last
        .into_iter()
        .map(|(mut stream, proof)| {
            stream.write_all(&proof).unwrap();
            stream
        })
        .collect();
    let start = Instant::now();
    while (listener.visits().accepted as usize) < ACCEPTED_WAITING {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(1));
    }
    // Now strangers from everywhere.
    let strangers: Vec<TcpStream> = (2..40)
        .map(|host| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from(([127, 0, 0, host], 0)).into()).unwrap();
            socket.connect(&listener.address().into()).unwrap();
            socket.into()
        })
        .collect();
    thread::sleep(Duration::from_millis(300));
    for stream in &mut last {
        stream.write_all(&encode(Kind::Message, b"still here")).unwrap();
    }
    waiting.iter().for_each(|channel| channel.send("still here".into()).unwrap());
    let accepted: Vec<_> = (0..waiting.len() + LAST)
        .map(|number| listener.accept(PATIENCE).unwrap().unwrap_or_else(|| panic!("{number} came")))
        .collect();
    for channel in accepted {
        assert_eq!(channel.receive(PATIENCE).unwrap().unwrap(), "still here");
    }
    drop(strangers);
}

#[test]
fn members_that_nobody_accepted_are_told_when_the_listener_goes() {
    let _turn = crate::turn::take();
    let listener = listen::<Tcp>(Tcp::settings(1));
    let address = listener.address().to_string();
    let there = net::connect(&Tcp::wire(2), &address, &Tcp::settings(2)).unwrap();
    drop(listener);
    assert!(there.receive(PATIENCE).is_err());
}

#[test]
fn ten_thousand_strangers_do_not_keep_members_out() {
    let _turn = crate::turn::take();
    strangers_do_not_keep_members_out::<Tcp>(10_000);
    strangers_do_not_keep_members_out::<Tls>(2_000);
}

fn strangers_do_not_keep_members_out<R: NetRig>(count: u64) {
    let mut settings = R::settings(1);
    settings.strangers = 64;
    let listener = listen::<R>(settings);
    let address = listener.address();
    let there = dial::<R>(&listener, &R::settings(2)).unwrap();
    let here = listener.accept(PATIENCE).unwrap().unwrap();
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut held = std::collections::VecDeque::new();
            for _ in 0..count {
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
                assert_serves::<R>(&listener);
            }
        }
        assert!(rounds > 10, "members were served meanwhile: {rounds}");
    });
    assert!(listener.visits().displaced > count * 9 / 10, "{:?}", listener.visits());
    assert_serves::<R>(&listener);
}

/// Waits until the listener has written down such a refusal.
fn wait_for_words(listener: &Listener, words: &str) {
    let start = Instant::now();
    while !listener.refused().iter().any(|refused| refused.why.contains(words)) {
        assert!(start.elapsed() < PATIENCE, "{words}: {:?}", listener.refused());
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn garbage_and_a_trickle_in_place_of_tls_are_hung_up_on_with_an_alert_at_most() {
    let _turn = crate::turn::take();
    let mut settings = Tls::settings(1);
    settings.handshake_time = Duration::from_secs(2);
    let listener = listen::<Tls>(settings);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 500], &[0xFF; 70_000]] {
        let mut stream = TcpStream::connect(listener.address()).unwrap();
        let _ = stream.write_all(garbage);
        let heard = hung_up(&mut stream);
        assert!(heard.len() <= 7, "{heard:?}");
    }
    wait_for_words(&listener, "cannot agree on TLS");
    // The head of a handshake of 512 bytes, and then one byte after the other.
    let mut stream = TcpStream::connect(listener.address()).unwrap();
    let start = Instant::now();
    for byte in [22, 3, 1, 2, 0].into_iter().chain(iter::repeat(1)) {
        thread::sleep(Duration::from_millis(100));
        if stream.write_all(&[byte]).is_err() || start.elapsed() > PATIENCE {
            break;
        }
    }
    assert!(start.elapsed() < PATIENCE / 2, "it was cut short");
    wait_for_words(&listener, "could not agree on TLS within 2s");
    assert_serves::<Tls>(&listener);
}

#[test]
fn datagrams_of_garbage_get_no_more_than_they_cost_and_do_not_keep_members_out() {
    let _turn = crate::turn::take();
    let listener = listen::<Quic>(Quic::settings(1));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let (mut sent, mut heard) = (0, 0);
    let mut answer = [0; 2_048];
    for number in 0..5_000_usize {
        let mut datagram = vec![number as u8; 5 + number * 7 % 1_400];
        match number % 3 {
            // As the first packet of a connection begins.
            0 => datagram[..5].copy_from_slice(&[0xC0, 0, 0, 0, 1]),
            // One of a version that does not exist.
            1 => datagram[..5].copy_from_slice(&[0xC0, 0x1A, 0x2A, 0x3A, 0x4A]),
            // One of a connection that does not exist.
            _ => datagram[0] = 0x40,
        }
        if socket.send_to(&datagram, listener.address()).is_ok() {
            sent += datagram.len();
        }
        while let Ok(len) = socket.recv(&mut answer) {
            heard += len;
        }
        if number % 1_000 == 0 {
            assert_serves::<Quic>(&listener);
        }
    }
    assert!(sent > 1_000_000 && heard <= sent, "{heard} bytes for {sent}");
    assert_serves::<Quic>(&listener);
}
