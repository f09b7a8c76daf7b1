//! Followers: how long an empty one takes to have everything, how long a write takes to be seen on
//! one, and what one costs that comes back and has missed nothing.
//!
//! Leader, follower and writer are threads of this process, over TCP on the loopback. The peer is
//! armdb's replication of fixed slots, with its map and with its tree: the map is the faster one by
//! far, the tree the one that its own tests of replication use.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use armdb::fixed_replication::{
    ArcEngine, FixedReplicationClient, FixedReplicationServer, FixedReplicationTarget,
};
use armdb::{FixedMap, FixedTree, ShutdownSignal};
use mainstay_base::Rng;
use mainstay_channel::handshake::{Local, Purpose};
use mainstay_channel::net::{self, Listener, Settings, Wire};
use mainstay_channel::{Channel, ClusterId, NodeId, Secret};
use mainstay_replica::drive::{self, Following};
use mainstay_replica::{FollowSettings, LeadSettings};
use mainstay_store::{Directory, Durability, RawStore};

use super::engines::{ArmFixed, Engine, Key, key, options, value};
use super::{add, on_a_disk, settle};
use crate::Outcome;
use crate::clock::{Span, wall_ns};
use crate::method::{Plan, Round, Timing, rounds};
use crate::part::Group;
use crate::report::{Aim, Ratio, Report, Unit};

pub(super) const CATCH_UP: Group = Group { figures: &["store.catchup_1e6"], measure: catch_up };
pub(super) const DELIVERY: Group = Group { figures: &["store.delivery_p50"], measure: delivery };
pub(super) const RECONNECT: Group =
    Group { figures: &["store.reconnect_bytes"], measure: reconnect };

const COUNT: u64 = 1_000_000;
/// Records of those figures that do not depend on how many there are.
const FEW: u64 = 200_000;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two writes whose way to the follower is timed.
const PAUSE: Duration = Duration::from_millis(2);

fn wait(what: &str, is_so: impl Fn() -> bool) -> Outcome<()> {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > until {
            return Err(format!("{what}: not in {PATIENCE:?}").into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

type Store = Arc<RawStore<Directory>>;

fn settings(node: u64) -> Outcome<Settings> {
    let local = Local::new(NodeId(node), ClusterId::default(), Purpose::new("bench")?);
    Ok(Settings::new(local.with_secret(Secret::new(*b"0123456789abcdef")?)))
}

/// Our store with somebody who lets followers in.
struct Ours {
    store: Store,
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    door: Option<JoinHandle<()>>,
}

impl Ours {
    fn new(directory: &Path, count: u64) -> Outcome<Ours> {
        let store = RawStore::create(Directory::lock(directory)?, 16, 64, &options())?;
        for number in 0..count {
            store.put(&key(number), &value::<64>(number), Durability::Memory)?;
            if number % 100_000 == 0 {
                store.tend()?;
            }
        }
        // As it is in the middle of its life: what is in the log only is what changes.
        store.compact()?;
        let store = Arc::new(store);
        let leader = drive::lead(Arc::clone(&store), LeadSettings::default(), |_| {})?;
        let leader = Arc::new(leader);
        let listener = Listener::bind(&Wire::Tcp, "127.0.0.1:0", settings(1)?)?;
        let address = listener.address();
        let ends = Arc::new(AtomicBool::new(false));
        let (is_over, lets_in) = (Arc::clone(&ends), Arc::clone(&leader));
        let door = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                if let Ok(Some(channel)) = listener.accept(Duration::from_millis(20)) {
                    lets_in.attach(Arc::new(channel));
                }
            }
        });
        Ok(Ours { store, address, ends, door: Some(door) })
    }

    /// An empty copy.
    fn copy(&self, directory: &Path) -> Outcome<Store> {
        let folder = Directory::lock(directory)?;
        Ok(Arc::new(RawStore::create_replica(folder, &self.store.identity(), &options())?))
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ended = self.door.take().map(JoinHandle::join);
    }
}

fn follow(copy: &Store, address: SocketAddr) -> Outcome<Following> {
    let (address, settings) = (address.to_string(), settings(2)?);
    let dial = move || {
        let channel = net::connect(&Wire::Tcp, &address, &settings)?;
        Ok(Arc::new(channel) as Arc<dyn Channel>)
    };
    Ok(drive::follow(Arc::clone(copy), dial, FollowSettings::default(), |_| {})?)
}

/// Waits until a follower has everything, and keeps its store in order meanwhile as the command
/// `mainstay store follow` does.
fn equal(follower: &Following, copy: &Store) -> Outcome<()> {
    let is_equal = || {
        follower
            .status()
            .iter()
            .all(|shard| shard.is_caught_up && shard.at.is_some_and(|at| at.sequence >= shard.tip))
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let tending = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                copy.tend()?;
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok::<_, mainstay_store::Error>(())
        });
        let waited = wait("a follower of ours is equal", is_equal);
        is_over.store(true, Ordering::Relaxed);
        tending.join().map_err(|_| "the thread that tends a store panicked")??;
        waited
    })
}

type Map = Arc<FixedMap<Key, 64>>;
type Tree = Arc<FixedTree<Key, 64>>;

/// armdb's leader.
struct Arms {
    address: SocketAddr,
    stop: ShutdownSignal,
    _server: FixedReplicationServer,
}

impl Arms {
    fn new(engine: ArcEngine) -> Outcome<Arms> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let stop = ShutdownSignal::new();
        let server = FixedReplicationServer::start(address, engine, stop.clone())?;
        Ok(Arms { address, stop, _server: server })
    }
}

fn map(directory: &Path, count: u64) -> Outcome<Map> {
    let map = ArmFixed::<64>::open(directory)?;
    map.load(count)?;
    map.0.flush()?;
    Ok(Arc::new(map.0))
}

fn tree(directory: &Path, count: u64) -> Outcome<Tree> {
    let tree = FixedTree::open(directory, ArmFixed::<64>::config())?;
    for number in 0..count {
        tree.put(&key(number), &value(number))?;
    }
    tree.flush()?;
    Ok(Arc::new(tree))
}

impl Drop for Arms {
    fn drop(&mut self) {
        self.stop.shutdown();
    }
}

struct ArmsCopy {
    stop: ShutdownSignal,
    _client: FixedReplicationClient,
}

impl ArmsCopy {
    fn follow(target: Arc<dyn FixedReplicationTarget>, address: SocketAddr) -> Outcome<ArmsCopy> {
        let stop = ShutdownSignal::new();
        let client = FixedReplicationClient::start(address, target, stop.clone())?;
        Ok(ArmsCopy { stop, _client: client })
    }
}

impl Drop for ArmsCopy {
    fn drop(&mut self) {
        self.stop.shutdown();
    }
}

fn catch_up(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let disk = on_a_disk(scratch)?;
    let place = |name: &str| disk.path().join(name);
    let ours = Ours::new(&place("mainstay"), COUNT)?;
    let filled_map = map(&place("armdb"), COUNT)?;
    let maps = Arms::new(filled_map.fixed_engine_access())?;
    // The slower one of armdb's, by much.
    let trees = match plan.is_full() {
        true => {
            let filled = tree(&place("tree"), COUNT)?;
            Some((Arms::new(filled.fixed_engine_access())?, filled))
        }
        false => None,
    };
    let mut sides = vec![
        Round::new("mainstay", || {
            let copy = ours.copy(&place("copy"))?;
            let (span, followed) = Span::of(|| {
                let follower = follow(&copy, ours.address)?;
                equal(&follower, &copy)?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(follower)
            });
            drop(followed?);
            if (0..2).map(|shard| copy.records(shard)).sum::<Result<u64, _>>()? != COUNT {
                return Err("a copy of ours lacks records".into());
            }
            drop(copy);
            std::fs::remove_dir_all(place("copy"))?;
            Ok(span.per(COUNT))
        }),
        Round::new("armdb_fixed", || {
            let copy = map(&place("copy"), 0)?;
            let (span, followed) = Span::of(|| {
                let follower = ArmsCopy::follow(copy.clone(), maps.address)?;
                wait("a map of armdb is equal", || copy.len() as u64 >= COUNT)?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(follower)
            });
            drop((followed?, copy));
            std::fs::remove_dir_all(place("copy"))?;
            Ok(span.per(COUNT))
        }),
    ];
    if let Some((trees, _)) = &trees {
        sides.push(Round::new("armdb_tree", || {
            let copy = tree(&place("copy"), 0)?;
            let (span, followed) = Span::of(|| {
                let follower = ArmsCopy::follow(copy.clone(), trees.address)?;
                wait("a tree of armdb is equal", || copy.len() as u64 >= COUNT)?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(follower)
            });
            drop((followed?, copy));
            std::fs::remove_dir_all(place("copy"))?;
            Ok(span.per(COUNT))
        }));
    }
    settle(disk.path())?;
    let timings = rounds(plan.repetitions_heavy, &mut sides)?;
    for peer in &timings[1..] {
        add(report, Ratio::of_wall("store.catchup_1e6", Unit::Ns, &timings[0], peer));
    }
    // A million records a second.
    report.aims.push(Aim::of_ns("store.catchup_1e6", &timings[0].wall, 1_000.0, Unit::Ns));
    Ok(())
}

/// How long writes take to be seen on a follower.
fn ways(
    name: &'static str,
    times: usize,
    put: impl Fn(u64) -> Outcome<()>,
    is_seen: impl Fn(u64) -> bool,
) -> Outcome<(Timing, f64)> {
    let mut samples = Vec::with_capacity(times);
    for round in 0..times as u64 + 20 {
        std::thread::sleep(PAUSE);
        let begun = wall_ns();
        put(round)?;
        while !is_seen(round) {
            if wall_ns() - begun > PATIENCE.as_nanos() as u64 {
                return Err(format!("{name}: a write was never seen").into());
            }
            std::thread::yield_now();
        }
        // The first ones are not like the others.
        if round >= 20 {
            samples.push((wall_ns() - begun) as f64);
        }
    }
    let span = |wall_ns: &f64| Some(Span { wall_ns: *wall_ns, cpu_ns: *wall_ns });
    let timing = Timing::of(name, samples.iter().map(span).collect()).ok_or("no samples")?;
    samples.sort_by(f64::total_cmp);
    Ok((timing, samples[samples.len() * 99 / 100]))
}

fn delivery(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let disk = on_a_disk(scratch)?;
    let place = |name: &str| disk.path().join(name);
    let times = plan.repetitions * 10;
    let ours = Ours::new(&place("mainstay"), FEW)?;
    let copy = ours.copy(&place("copy"))?;
    let follower = follow(&copy, ours.address)?;
    equal(&follower, &copy)?;
    settle(disk.path())?;
    let some = |round| key(Rng::seeded(round).below(FEW));
    let stamp = |round: u64| value::<64>(round + FEW);
    let (timing, p99) = ways(
        "mainstay",
        times,
        |round| Ok(ours.store.put(&some(round), &stamp(round), Durability::Memory).map(drop)?),
        |round| {
            let seen = copy.read(&some(round), |found| found == stamp(round));
            seen.ok().flatten().unwrap_or(false)
        },
    )?;
    let (filled, their) = (map(&place("armdb"), FEW)?, map(&place("map"), 0)?);
    let arms = Arms::new(filled.fixed_engine_access())?;
    let _follower = ArmsCopy::follow(their.clone(), arms.address)?;
    wait("a map of armdb is equal", || their.len() as u64 >= FEW)?;
    settle(disk.path())?;
    let (theirs, _) = ways(
        "armdb_fixed",
        plan.repetitions,
        |round| Ok(filled.put(&some(round), &stamp(round)).map(drop)?),
        |round| their.get(&some(round)).is_some_and(|found| found == stamp(round)),
    )?;
    add(report, Ratio::of_wall("store.delivery_p50", Unit::Us, &timing, &theirs));
    let aim = Aim::of_ns("store.delivery_p50", &timing.wall, 100.0, Unit::Us);
    let note = format!("{}, p99 {:.0} us", aim.note, p99 / 1e3);
    report.aims.push(aim.with_note(note));
    Ok(())
}

/// A port that passes on to another, and counts the bytes in both directions.
struct Counter {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Counter {
    fn before(to: SocketAddr) -> Outcome<Counter> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let bytes = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&bytes);
        // Ends with this process.
        std::thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let Ok(called) = TcpStream::connect(to) else { continue };
                let (Ok(up), Ok(down)) = (caller.try_clone(), called.try_clone()) else { continue };
                for (from, to) in [(up, called), (down, caller)] {
                    let count = Arc::clone(&count);
                    std::thread::spawn(move || pass(from, to, &count));
                }
            }
        });
        Ok(Counter { address, bytes })
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Waits until nothing has passed for a while.
    fn quiet(&self) -> Outcome<()> {
        let until = Instant::now() + PATIENCE;
        let mut seen = self.bytes();
        loop {
            std::thread::sleep(Duration::from_millis(500));
            match self.bytes() {
                now if now == seen => return Ok(()),
                now if Instant::now() < until => seen = now,
                _ => return Err("there is always something on the wire".into()),
            }
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        count.fetch_add(len as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    for end in [&from, &to] {
        // The other direction may have done it.
        let _gone = end.shutdown(Shutdown::Both);
    }
}

fn reconnect(_: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let disk = on_a_disk(scratch)?;
    let place = |name: &str| disk.path().join(name);
    let ours = Ours::new(&place("mainstay"), FEW)?;
    let copy = ours.copy(&place("copy"))?;
    let wire = Counter::before(ours.address)?;
    let follower = follow(&copy, wire.address)?;
    equal(&follower, &copy)?;
    let full = wire.bytes();
    drop(follower);
    let follower = follow(&copy, wire.address)?;
    equal(&follower, &copy)?;
    wire.quiet()?;
    let again = wire.bytes() - full;
    drop(follower);

    let (filled, their) = (map(&place("armdb"), FEW)?, map(&place("map"), 0)?);
    let arms = Arms::new(filled.fixed_engine_access())?;
    let wire = Counter::before(arms.address)?;
    let follower = ArmsCopy::follow(their.clone(), wire.address)?;
    wait("a map of armdb is equal", || their.len() as u64 >= FEW)?;
    wire.quiet()?;
    drop(follower);
    let before = wire.bytes();
    let follower = ArmsCopy::follow(their.clone(), wire.address)?;
    wait("armdb sends something", || wire.bytes() > before)?;
    wire.quiet()?;
    let peers = (wire.bytes() - before) as f64;
    drop(follower);

    let percent = 100.0 * again as f64 / full as f64;
    add(
        report,
        Ratio {
            name: "store.reconnect_bytes".to_owned(),
            value: peers / again as f64,
            ours: again as f64,
            peer: "armdb_fixed",
            peers,
            unit: "bytes",
            note: format!("{FEW} records, none changed"),
        },
    );
    let aim = Aim::new("store.reconnect_bytes", again as f64, full as f64 / 100.0, Unit::Bytes);
    report.aims.push(aim.with_note(format!("{percent:.3} % of the {full} of a full transfer")));
    Ok(())
}
