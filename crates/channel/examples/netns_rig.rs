//! What `cargo xtask netns` runs in and between network namespaces: a link with faults, and a flood
//! of strangers.
//!
//! `netns_rig link SEED HOST...` connects the namespaces of these names by a switch of its own: each
//! gets an interface `eth0`, and every Ethernet frame passes through here, where it can be held up
//! or lost. Orders come by standard input, one a line:
//!
//! ```text
//! cut A B            nothing passes between the hosts numbered A and B (from 0)
//! cut-one-way A B    nothing passes from A to B
//! weather D J L      every frame is D to D + J milliseconds late, and L of 1,000 are lost
//! heal               none of that
//! ```
//!
//! The seed gives the frames their fates in the order in which they come. That order is the kernel's
//! and the programs': two runs with one seed have the same weather, and not the same story.
//!
//! `netns_rig flood ADDRESS N` connects N times, says nothing, and hangs up late.
//!
//! `netns_rig flood-quic ADDRESS N` begins N connections by QUIC and has no certificate; it prints how
//! many of them the listener went into.

use mainstay_base::Rng;
use quinn::crypto::rustls::QuicClientConfig;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read, write},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use rustls::{crypto::ring, version::TLS13};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet, VecDeque},
    error::Error,
    fs::{File, OpenOptions},
    io::{BufRead, Write},
    net::{SocketAddr, TcpStream},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &words[..] {
        ["link", seed, hosts @ ..] if hosts.len() > 1 => Link::new(seed.parse()?, hosts)?.run(),
        ["flood", address, count] => flood(address, count.parse()?),
        ["flood-quic", address, count] => flood_quic(address.parse()?, count.parse()?),
        _ => Err("netns_rig link SEED HOST HOST... | netns_rig flood[-quic] ADDRESS N".into()),
    }
}

/// Connections that stay for a while without a word.
fn flood(address: &str, count: u32) -> Outcome<()> {
    const HELD_MAX: usize = 500;
    let mut held = VecDeque::new();
    let mut made = 0;
    for _ in 0..count {
        if let Ok(stream) = TcpStream::connect(address) {
            made += 1;
            held.push_back(stream);
        }
        if held.len() > HELD_MAX {
            held.pop_front();
        }
    }
    println!("{made}");
    Ok(())
}

/// Handshakes that fail, since neither end can trust the other: each costs the listener an answer
/// with its certificate.
fn flood_quic(address: SocketAddr, count: u32) -> Outcome<()> {
    const AT_ONCE: usize = 200;
    let mut crypto =
        rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
    // Without the channel's protocol it would be sent away before the certificates.
    crypto.alpn_protocols = vec![b"mainstay/1".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto)?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let made = runtime.block_on(async {
        let endpoint = quinn::Endpoint::client(SocketAddr::from(([0, 0, 0, 0], 0)))?;
        let (mut tasks, mut made) = (tokio::task::JoinSet::new(), 0);
        for _ in 0..count {
            let connecting = endpoint.connect_with(config.clone(), address, "stranger")?;
            tasks.spawn(async move {
                // What it holds against the listener's certificate it can only know from it.
                matches!(connecting.await, Err(quinn::ConnectionError::TransportError(_)))
            });
            if tasks.len() == AT_ONCE {
                made += count_of(tasks.join_next().await);
            }
        }
        while let Some(joined) = tasks.join_next().await {
            made += count_of(Some(joined));
        }
        Outcome::Ok(made)
    })?;
    println!("{made}");
    Ok(())
}

fn count_of(joined: Option<Result<bool, tokio::task::JoinError>>) -> u32 {
    u32::from(matches!(joined, Some(Ok(true))))
}

/// A frame on its way: when it arrives, its number, where to, its bytes.
type Due = (Instant, u64, usize, Vec<u8>);

struct Link {
    ports: Vec<File>,
    rng: Rng,
    faults: Faults,
    /// Frames on their way: when, in which order they came, to which port.
    queue: BinaryHeap<Reverse<Due>>,
    count: u64,
}

#[derive(Default)]
struct Faults {
    cut: HashSet<(usize, usize)>,
    delay_ms: u64,
    jitter_ms: u64,
    lost_per_mille: u64,
}

impl Link {
    fn new(seed: u64, hosts: &[&str]) -> Outcome<Self> {
        let home = File::open("/proc/self/ns/net")?;
        let ports = hosts.iter().map(|host| port(host, &home)).collect::<Outcome<_>>()?;
        println!("up");
        std::io::stdout().flush()?;
        let (rng, queue) = (Rng::seeded(seed), BinaryHeap::new());
        Ok(Self { ports, rng, faults: Faults::default(), queue, count: 0 })
    }

    /// Until standard input ends.
    fn run(&mut self) -> Outcome<()> {
        let orders = orders();
        loop {
            loop {
                match orders.try_recv() {
                    Ok(order) => self.obey(&order)?,
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.wait()?;
            for from in 0..self.ports.len() {
                self.take_all(from)?;
            }
            self.send_due()?;
        }
    }

    fn wait(&self) -> Outcome<()> {
        // Orders are looked for this often.
        const LOOK: Duration = Duration::from_millis(10);
        let due = self.queue.peek().map(|Reverse((due, ..))| *due);
        let wait = due.map_or(LOOK, |due| due.saturating_duration_since(Instant::now()).min(LOOK));
        let mut ports: Vec<_> =
            self.ports.iter().map(|port| PollFd::new(port, PollFlags::IN)).collect();
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        match poll(&mut ports, Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_all(&mut self, from: usize) -> Outcome<()> {
        let mut frame = vec![0; 65_536];
        loop {
            let len = match read(&self.ports[from], &mut frame[..]) {
                Ok(len) => len,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for to in (0..self.ports.len()).filter(|to| *to != from) {
                // Drawn in any case, so that the same seed gives the same fate to the same frame.
                let late_ms = self.faults.delay_ms + self.rng.below(self.faults.jitter_ms + 1);
                let lost = self.rng.below(1_000) < self.faults.lost_per_mille;
                if lost || self.faults.cut.contains(&(from, to)) {
                    continue;
                }
                let due = Instant::now() + Duration::from_millis(late_ms);
                self.queue.push(Reverse((due, self.count, to, frame[..len].to_vec())));
                self.count += 1;
            }
        }
    }

    fn send_due(&mut self) -> Outcome<()> {
        while let Some(Reverse((due, ..))) = self.queue.peek() {
            if *due > Instant::now() {
                break;
            }
            let Some(Reverse((_, _, to, frame))) = self.queue.pop() else { break };
            match write(&self.ports[to], &frame) {
                // A host whose queue is full loses frames, as on any switch.
                Ok(_) | Err(Errno::AGAIN | Errno::IO | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn obey(&mut self, order: &str) -> Outcome<()> {
        let words: Vec<&str> = order.split_whitespace().collect();
        match words[..] {
            ["cut", a, b] => {
                let (a, b) = (a.parse()?, b.parse()?);
                self.faults.cut.extend([(a, b), (b, a)]);
            }
            ["cut-one-way", a, b] => _ = self.faults.cut.insert((a.parse()?, b.parse()?)),
            ["weather", delay, jitter, lost] => {
                self.faults.delay_ms = delay.parse()?;
                self.faults.jitter_ms = jitter.parse()?;
                self.faults.lost_per_mille = lost.parse()?;
            }
            ["heal"] => self.faults = Faults::default(),
            _ => return Err(format!("no such order: {order}").into()),
        }
        println!("done");
        Ok(std::io::stdout().flush()?)
    }
}

fn orders() -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The request that makes an interface of an open `/dev/net/tun` (linux/if_tun.h).
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
/// `_IOW('T', 202, int)`.
const TUNSETIFF: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<std::ffi::c_int>(b'T', 202);

/// An interface `eth0` in the namespace of this name, and our end of it.
fn port(host: &str, home: &File) -> Outcome<File> {
    let there = File::open(format!("/run/netns/{host}"))?;
    move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))?;
    let made = tap();
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))?;
    made
}

fn tap() -> Outcome<File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open("/dev/net/tun")?;
    let mut name = [0; 16];
    name[..4].copy_from_slice(b"eth0");
    let request = Request { name, flags: IFF_TAP | IFF_NO_PI, rest: [0; 22] };
    // SAFETY: TUNSETIFF reads a `struct ifreq` of 40 bytes, whose name and flags these are, and has
    // no other effect on memory.
    unsafe {
        let setter = rustix::ioctl::Setter::<TUNSETIFF, Request>::new(request);
        rustix::ioctl::ioctl(&file, setter)?;
    }
    Ok(file)
}

const _: () = assert!(size_of::<Request>() == 40);
