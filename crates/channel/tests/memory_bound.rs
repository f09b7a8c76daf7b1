//! What a full channel takes in memory, as the system counts it: so in a process of its own, one
//! transport after the other.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

#[path = "conformance/certificates.rs"]
#[allow(dead_code, reason = "the rest is used by the suite")]
mod certificates;

use certificates::Authority;
use mainstay_channel::{
    Bounds, Bytes, Channel, ClusterId, NodeId, Secret,
    handshake::{Local, Purpose},
    memory,
    net::{self, Listener, QuicEndpoint, Settings, Wire},
    shm,
};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);
const LEN: usize = 64 << 10;
const BYTES: usize = 4 << 20;
/// What each end wants to send: sixteen times the bound.
const MESSAGES: u64 = (16 * BYTES / LEN) as u64;
/// Two directions, each with a queue at both ends; and as much again as one queue for each direction,
/// for frames on their way, what the allocator keeps, and the threads.
const GROWTH_MAX: usize = (2 * 2 + 2) * BYTES;

type End = Arc<dyn Channel>;

/// What this process has in memory that is not a file, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| -> usize {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    };
    field("RssAnon:") + field("RssShmem:")
}

/// Waits until nothing more is sent, and returns how much was.
fn sent_when_full(sent: &[AtomicU64; 2]) -> [u64; 2] {
    let load = || [sent[0].load(Ordering::Relaxed), sent[1].load(Ordering::Relaxed)];
    let mut last = load();
    loop {
        thread::sleep(Duration::from_millis(700));
        let now = load();
        if now == last && now.iter().all(|count| *count > 0) {
            return now;
        }
        last = now;
    }
}

fn stops_at_its_bound_and_goes_on_when_read(name: &str, (a, b): (End, End)) {
    let before = resident();
    let sent = [AtomicU64::new(0), AtomicU64::new(0)];
    thread::scope(|scope| {
        for (end, sent) in [&a, &b].into_iter().zip(&sent) {
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    // Memory of its own for each message.
                    end.send(Bytes::from(vec![number as u8; LEN])).unwrap();
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let full = sent_when_full(&sent);
        let grown = resident().saturating_sub(before);
        assert!(full.iter().all(|count| *count < MESSAGES), "{name}: nothing stopped: {full:?}");
        assert!(grown <= GROWTH_MAX, "{name}: {grown} bytes more in memory with {full:?} messages");
        let later = sent_when_full(&sent);
        assert_eq!(later, full, "{name}: it is full and takes more");

        for end in [&b, &a] {
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    let message = end.receive(PATIENCE).unwrap().expect("it was sent");
                    assert_eq!(message, vec![number as u8; LEN], "{name}: message {number}");
                }
            });
        }
    });
    assert_eq!(sent.map(AtomicU64::into_inner), [MESSAGES; 2], "{name}");
}

fn in_shared_memory(bounds: Bounds) -> (End, End) {
    let mut offer = shm::create_memfd(NodeId(1), bounds).unwrap();
    let b = shm::join_fd(offer.descriptor().unwrap(), NodeId(2)).unwrap();
    let a = offer.accept(PATIENCE).unwrap().unwrap();
    (Arc::new(a), Arc::new(b))
}

fn over_network(bounds: Bounds, wire: impl Fn(u64) -> Wire) -> (End, End) {
    let settings = |node| {
        let local = Local::new(NodeId(node), ClusterId::default(), Purpose::new("memory").unwrap());
        let secret = Secret::new(*b"the secret of the test cluster").unwrap();
        Settings::new(local.with_secret(secret)).with_bounds(bounds)
    };
    let listener = Listener::bind(&wire(1), "127.0.0.1:0", settings(1)).unwrap();
    let b = net::connect(&wire(2), &listener.address().to_string(), &settings(2)).unwrap();
    let a = listener.accept(PATIENCE).unwrap().expect("it has come");
    (Arc::new(a), Arc::new(b))
}

#[test]
fn a_channel_whose_ends_send_without_reading_stops_at_its_bound_in_memory_and_goes_on_when_read() {
    let bounds = Bounds { bytes: BYTES, ..Bounds::default() };
    let (a, b) = memory::pair_with(bounds).unwrap();
    stops_at_its_bound_and_goes_on_when_read("memory", (Arc::new(a), Arc::new(b)));
    stops_at_its_bound_and_goes_on_when_read("shared memory", in_shared_memory(bounds));
    stops_at_its_bound_and_goes_on_when_read("tcp", over_network(bounds, |_| Wire::Tcp));
    let credentials = |node| Authority::shared().credentials(ClusterId::default(), NodeId(node));
    let tls = over_network(bounds, |node| Wire::Tls(credentials(node)));
    stops_at_its_bound_and_goes_on_when_read("tls", tls);
    let quic =
        over_network(bounds, |node| Wire::Quic(QuicEndpoint::new(credentials(node)).unwrap()));
    stops_at_its_bound_and_goes_on_when_read("quic", quic);
}
