//! How each transport makes pairs of ends for the suite.

use crate::certificates::Authority;
use mainstay_channel::{
    Bounds, Channel, ClusterId, Faults, Faulty, NodeId, Proof, Secret, Transport,
    handshake::{Local, Purpose},
    memory,
    net::{self, Listener, QuicEndpoint, Settings, Wire},
    shm,
};
use std::{sync::Arc, time::Duration};

/// Long enough on a machine that does ten things at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type End = Arc<dyn Channel>;

pub(crate) trait Rig {
    const TRANSPORT: Transport;
    const PROOF: Proof;
    /// How many times its bound a direction may hold, over all buffers on the way: queues at both
    /// ends, and what the system keeps in between.
    const HELD_FACTOR: usize;
    /// What the system keeps beside, in bytes.
    const HELD_EXTRA: usize;
    /// How many channels are many.
    const MANY: usize;

    /// `count` channels between nodes 1 and 2.
    fn pairs(count: usize, bounds: Bounds) -> Vec<(End, End)>;
}

pub(crate) fn pair<R: Rig>(bounds: Bounds) -> (End, End) {
    R::pairs(1, bounds).remove(0)
}

pub(crate) struct Memory;

impl Rig for Memory {
    const TRANSPORT: Transport = Transport::Memory;
    const PROOF: Proof = Proof::SameProcess;
    const HELD_FACTOR: usize = 1;
    const HELD_EXTRA: usize = 0;
    const MANY: usize = 5_000;

    fn pairs(count: usize, bounds: Bounds) -> Vec<(End, End)> {
        let pair = |_| {
            let (a, b) = memory::pair_with(bounds).unwrap();
            (Arc::new(a) as End, Arc::new(b) as End)
        };
        (0..count).map(pair).collect()
    }
}

/// A channel in memory with a [`Faulty`] before one of its ends that does nothing but delay.
pub(crate) struct Late;

impl Rig for Late {
    const TRANSPORT: Transport = Transport::Memory;
    const PROOF: Proof = Proof::SameProcess;
    const HELD_FACTOR: usize = 2;
    // What the thread in the middle has in its hands.
    const HELD_EXTRA: usize = 60 << 10;
    // Two threads each.
    const MANY: usize = 100;

    fn pairs(count: usize, bounds: Bounds) -> Vec<(End, End)> {
        let pair = |number| {
            let (a, b) = memory::pair_with(bounds).unwrap();
            let jitter = Duration::from_micros(20);
            let faults = Faults { jitter, ..Faults::seeded(number as u64) };
            (Arc::new(Faulty::with_bounds(a, faults, bounds)) as End, Arc::new(b) as End)
        };
        (0..count).map(pair).collect()
    }
}

pub(crate) struct Shm;

impl Rig for Shm {
    const TRANSPORT: Transport = Transport::SharedMemory;
    const PROOF: Proof = Proof::SharedMemory;
    // The ring's length is a power of two.
    const HELD_FACTOR: usize = 2;
    const HELD_EXTRA: usize = 4 << 10;
    const MANY: usize = 2_000;

    fn pairs(count: usize, bounds: Bounds) -> Vec<(End, End)> {
        allow_many_files();
        let pair = |_| {
            let mut offer = shm::create_memfd(NodeId(1), bounds).unwrap();
            let b = shm::join_fd(offer.descriptor().unwrap(), NodeId(2)).unwrap();
            let a = offer.accept(PATIENCE).unwrap().unwrap();
            (Arc::new(a) as End, Arc::new(b) as End)
        };
        (0..count).map(pair).collect()
    }
}

/// What a network transport needs beside.
pub(crate) trait NetRig {
    /// The wire of a node of the shared authority.
    fn wire(node: u64) -> Wire;
    /// Whether the shared secret is what proves.
    const SECRET: bool;

    fn settings(node: u64) -> Settings {
        let local = Local::new(NodeId(node), CLUSTER, Purpose::new("test").unwrap());
        let local = if Self::SECRET { local.with_secret(secret()) } else { local };
        let mut settings = Settings::new(local);
        // Nothing that an end does may be taken for noticed when it was silence that was.
        settings.silence = 10 * PATIENCE;
        settings
    }
}

pub(crate) const CLUSTER: ClusterId =
    ClusterId(uuid::Uuid::from_u128(0x6f8a_4b1e_0d0c_4a3e_9a51_3f2d_3b7f_9c10));

pub(crate) fn secret() -> Secret {
    Secret::new(*b"the secret of the test cluster").unwrap()
}

pub(crate) struct Tcp;

impl NetRig for Tcp {
    const SECRET: bool = true;

    fn wire(_: u64) -> Wire {
        Wire::Tcp
    }
}

pub(crate) struct Tls;

impl NetRig for Tls {
    const SECRET: bool = false;

    fn wire(node: u64) -> Wire {
        Wire::Tls(Authority::shared().credentials(CLUSTER, NodeId(node)))
    }
}

pub(crate) struct Quic;

impl NetRig for Quic {
    const SECRET: bool = false;

    fn wire(node: u64) -> Wire {
        let credentials = Authority::shared().credentials(CLUSTER, NodeId(node));
        Wire::Quic(QuicEndpoint::new(credentials).unwrap())
    }
}

macro_rules! net_rig {
    ($rig:ty, $transport:expr, $proof:expr, $many:expr) => {
        impl Rig for $rig {
            const TRANSPORT: Transport = $transport;
            const PROOF: Proof = $proof;
            // The queues of both ends, a batch being written, a frame being read.
            const HELD_FACTOR: usize = 4;
            // Socket buffers, at most net.ipv4.tcp_wmem and tcp_rmem, or the windows of QUIC.
            const HELD_EXTRA: usize = 24 << 20;
            const MANY: usize = $many;

            fn pairs(count: usize, bounds: Bounds) -> Vec<(End, End)> {
                net_pairs::<Self>(count, bounds)
            }
        }
    };
}

net_rig!(Tcp, Transport::Tcp, Proof::SharedSecret, 2_500);
net_rig!(Tls, Transport::Tls, Proof::Certificate, 2_500);
net_rig!(Quic, Transport::Quic, Proof::Certificate, 2_500);

fn net_pairs<R: NetRig>(count: usize, bounds: Bounds) -> Vec<(End, End)> {
    allow_many_files();
    let (here, there) = (R::wire(1), R::wire(2));
    // Node 1 listens, so the end at node 1 is the first of each pair.
    let listener =
        Listener::bind(&here, "127.0.0.1:0", R::settings(1).with_bounds(bounds)).unwrap();
    let address = listener.address().to_string();
    let settings = R::settings(2).with_bounds(bounds);
    let pair = |_| {
        let b = net::connect(&there, &address, &settings).unwrap();
        let a = listener.accept(PATIENCE).unwrap().expect("it has come");
        (Arc::new(a) as End, Arc::new(b) as End)
    };
    (0..count).map(pair).collect()
}

/// Two descriptors a channel are more than a shell allows by default.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
