//! QUIC over a network that loses packets.

use crate::rig::{NetRig, PATIENCE, Quic};
use mainstay_channel::{
    Bounds, Bytes, Channel,
    net::{self, Listener, NetChannel},
};
use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Of so many packets in a direction one is lost, once it is told to lose any.
const ONE_OF: u32 = 50;

/// What stands between two ends; ends when it is dropped.
struct Link {
    address: SocketAddr,
    loses: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Link {
    fn to(server: SocketAddr) -> Self {
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            socket
        };
        let (front, back) = (socket(), socket());
        let link = Self {
            address: front.local_addr().unwrap(),
            loses: Arc::default(),
            ended: Arc::default(),
        };
        let client = Arc::new(Mutex::new(None));
        for is_forth in [true, false] {
            let (client, loses) = (Arc::clone(&client), Arc::clone(&link.loses));
            let ended = Arc::clone(&link.ended);
            let (from, to) = if is_forth { (&front, &back) } else { (&back, &front) };
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || {
                let (mut packet, mut count) = (vec![0; 64 << 10], 0_u32);
                while !ended.load(Ordering::Relaxed) {
                    let Ok((len, sender)) = from.recv_from(&mut packet) else { continue };
                    if is_forth {
                        *client.lock().unwrap() = Some(sender);
                    }
                    let at = if is_forth { Some(server) } else { *client.lock().unwrap() };
                    count += 1;
                    let is_lost = loses.load(Ordering::Relaxed) && count.is_multiple_of(ONE_OF);
                    if let Some(at) = at.filter(|_| !is_lost) {
                        // What does not fit into a socket is lost as well.
                        let _ = to.send_to(&packet[..len], at);
                    }
                }
            });
        }
        link
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_reader_that_stalls_gets_everything_although_packets_are_lost_and_others_share_them() {
    const MESSAGES: usize = 4_000;
    /// More than are sent while all goes well.
    const BESIDE_MAX: usize = 100_000;
    let _turn = crate::turn::share();
    // Many pieces of the worst lengths, as far as lengths make a difference.
    let len = |number: usize| if number.is_multiple_of(3) { 250 } else { number % 40 };
    let bounds = Bounds { messages: 16, ..Bounds::default() };
    let settings = |node| Quic::settings(node).with_bounds(bounds);
    let listener = Listener::bind(&Quic::wire(1), "127.0.0.1:0", settings(1)).unwrap();
    let link = Link::to(listener.address());
    let wire = Quic::wire(2);
    let channel = || -> (NetChannel, NetChannel) {
        let there = net::connect(&wire, &link.address.to_string(), &settings(2)).unwrap();
        (listener.accept(PATIENCE).unwrap().unwrap(), there)
    };
    let ((here, there), (neighbour_here, neighbour_there)) = (channel(), channel());
    link.loses.store(true, Ordering::Relaxed);
    let is_through = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..MESSAGES {
                there.send(Bytes::from(vec![number as u8; len(number)])).unwrap();
                thread::sleep(Duration::from_micros(20));
            }
        });
        // Nearly a packet each, so that the others begin in the rest of it.
        scope.spawn(|| {
            for _ in 0..BESIDE_MAX {
                if is_through.load(Ordering::Relaxed) {
                    break;
                }
                neighbour_there.send(Bytes::from(vec![1; 1_050])).unwrap();
                thread::sleep(Duration::from_micros(500));
            }
            neighbour_there.send(Bytes::new()).unwrap();
        });
        scope.spawn(|| while !neighbour_here.receive(PATIENCE).unwrap().unwrap().is_empty() {});
        thread::sleep(Duration::from_secs(2));
        for number in 0..MESSAGES {
            let message = here.receive(PATIENCE).unwrap().expect("it was sent");
            assert_eq!(message, vec![number as u8; len(number)]);
        }
        is_through.store(true, Ordering::Relaxed);
    });
}
