//! `cargo xtask netns`: channels between real processes on a network that is made for the test.
//!
//! Three hosts are network namespaces. What connects them is a switch in user space (the example
//! `netns_rig` of mainstay-channel) that loses, delays and cuts. The nodes are the
//! program `mainstay channel ping`: one listens and echoes on the first host, another measures on
//! the second, and on the third there are strangers. All of it runs over TCP, and what depends on
//! the transport over TLS and QUIC as well.

mod world;

use std::{
    ffi::OsStr,
    thread,
    time::{Duration, Instant},
};

use self::world::{Over, Pings, World};
use crate::{
    error::{Error, Result},
    project::Project,
    report::Outcome,
};

/// Test channels between processes in network namespaces: cuts, loss, kills, floods
///
/// Needs root, the program `ip` and /dev/net/tun; without them it says what is missing and ends
/// with status 0. The last line is `NETNS scenes=<n> failed=<n>` or `NETNS skipped: <reason>`.
#[derive(clap::Args)]
#[group(skip)]
#[command(after_help = "Examples:\n  cargo xtask netns\n  cargo xtask netns --seed 7")]
pub(crate) struct Args {
    /// Gives the link its weather: which frames, counted as they come, are lost, and how late they are
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<()> {
    let packages =
        ["-p", "mainstay-cli", "-p", "mainstay-channel", "--features", "mainstay-cli/tls"];
    if let Outcome::Skipped(reason) = test_with(project, &packages, args)? {
        println!("NETNS skipped: {reason}");
    }
    Ok(())
}

/// The step of `cargo xtask test`. `packages` are the arguments of cargo that say which are built,
/// and with which features.
pub(crate) fn test(project: &Project, packages: &[impl AsRef<OsStr>]) -> Result<Outcome> {
    test_with(project, packages, &Args { seed: 1 })
}

type Scene = fn(&mut World) -> Result<()>;

const SCENES: [(Over, &str, Scene); 19] = [
    (Over::Tcp, "a quiet network", quiet),
    (Over::Tcp, "delay and loss", weather),
    (Over::Tcp, "a cut both ways, healed", cut_and_healed),
    (Over::Tcp, "a cut one way, healed", cut_one_way_and_healed),
    (Over::Tcp, "a cut for good", cut_for_good),
    (Over::Tcp, "full sockets", full_sockets),
    (Over::Tcp, "ten thousand strangers", flood),
    (Over::Tcp, "a peer that is killed, and comes back", killed_and_back),
    (Over::Tls, "a quiet network", quiet),
    (Over::Tls, "delay and loss", weather),
    (Over::Tls, "a cut both ways, healed", cut_and_healed),
    (Over::Tls, "two thousand strangers", flood),
    (Over::Tls, "a peer that is killed, and comes back", killed_and_back),
    (Over::Quic, "a quiet network", quiet),
    (Over::Quic, "delay and loss", weather),
    (Over::Quic, "a cut both ways, healed", cut_and_healed),
    (Over::Quic, "full sockets", full_sockets),
    (Over::Quic, "a thousand strangers", flood),
    (Over::Quic, "a peer that is killed, and comes back", killed_and_back),
];

fn test_with(project: &Project, packages: &[impl AsRef<OsStr>], args: &Args) -> Result<Outcome> {
    if let Some(reason) = World::obstacle() {
        return Ok(Outcome::Skipped(reason));
    }
    let mut world = World::new(project, packages, args.seed)?;
    let mut failed = 0;
    for (over, name, scene) in SCENES {
        let started = Instant::now();
        let outcome = world.talk_over(over).and_then(|()| scene(&mut world));
        let outcome = outcome.and_then(|()| world.heal());
        let took = started.elapsed().as_secs_f64();
        let name = format!("{}: {name}", over.name());
        match outcome {
            Ok(()) => println!("passed  {took:5.1} s  {name}"),
            Err(error) => {
                failed += 1;
                println!("FAILED  {took:5.1} s  {name}: {error}");
            }
        }
    }
    println!("NETNS scenes={} failed={failed}", SCENES.len());
    if failed == 0 {
        Ok(Outcome::Passed)
    } else {
        Err(wrong(format!("{failed} scene(s) failed, see the lines above; seed {}", args.seed)))
    }
}

fn wrong(complaint: String) -> Error {
    Error::Output { command: "netns".to_owned(), complaint }
}

fn expect(holds: bool, complaint: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(wrong(complaint.to_owned())) }
}

fn quiet(world: &mut World) -> Result<()> {
    let pings = world.ping(&["--count", "200", "--interval", "0s"])?.finish()?;
    expect(pings.all_came(200), "some pings did not come back")
}

fn weather(world: &mut World) -> Result<()> {
    world.order("weather 20 10 30")?;
    let pings =
        world.ping(&["--count", "20", "--interval", "10ms", "--timeout", "30s"])?.finish()?;
    expect(pings.all_came(20), "some pings were lost for good")?;
    // Both ways are delayed: else the link was not between them, and this scene is blind.
    expect(pings.half_within() >= Duration::from_millis(40), "the delay was not felt")
}

/// What was sent during a cut arrives after it.
fn survives(world: &mut World, cut: &str) -> Result<()> {
    let arguments = ["--count", "120", "--interval", "20ms", "--timeout", "30s"];
    let pinging = world.ping(&arguments)?;
    thread::sleep(Duration::from_millis(500));
    world.order(cut)?;
    thread::sleep(Duration::from_millis(1_500));
    world.order("heal")?;
    let pings = pinging.finish()?;
    expect(pings.all_came(120), "some pings were lost for good")?;
    expect(pings.all_within() >= Duration::from_millis(500), "the cut was not felt")
}

fn cut_and_healed(world: &mut World) -> Result<()> {
    survives(world, "cut 0 1")
}

fn cut_one_way_and_healed(world: &mut World) -> Result<()> {
    survives(world, "cut-one-way 0 1")?;
    survives(world, "cut-one-way 1 0")
}

fn cut_for_good(world: &mut World) -> Result<()> {
    let pinging = world.ping(&["--count", "1000", "--interval", "20ms", "--timeout", "2s"])?;
    thread::sleep(Duration::from_millis(500));
    world.order("cut 0 1")?;
    let pings = pinging.ended()?;
    expect(!pings.succeeded(), "it ended well in spite of the cut")?;
    expect(pings.came() > 0, "it did not even begin")?;
    // The others are not concerned.
    let others = world.ping_from(2, 3, &["--count", "20", "--interval", "1ms"])?.finish()?;
    expect(others.all_came(20), "another host suffers as well")
}

/// A listener that stands still fills the sockets; when it goes on, all arrives.
fn full_sockets(world: &mut World) -> Result<()> {
    let arguments = ["--count", "3", "--interval", "0s", "--size", "30000000", "--timeout", "40s"];
    let pinging = world.ping(&arguments)?;
    thread::sleep(Duration::from_millis(300));
    world.stop_listener(true)?;
    thread::sleep(Duration::from_millis(1_500));
    world.stop_listener(false)?;
    let pings = pinging.finish()?;
    expect(pings.all_came(3), "some of the long messages were lost")
}

/// A stranger costs the listener little: what its process may have more than before, whatever comes.
/// It holds 256 of them at most, and for each a task, a socket and its buffers; over QUIC also what is
/// left of 128 failed handshakes from one place, some 40 KiB each. What the allocator keeps of those
/// that went before comes on top.
const FLOOD_RESIDENT: usize = 24 << 20;
/// Members come and go meanwhile, as often as the machine is quick.
const FLOOD_DESCRIPTORS: usize = 512;
fn flood(world: &mut World) -> Result<()> {
    let strangers = match world.over() {
        Over::Tcp => 10_000,
        Over::Tls => 2_000,
        Over::Quic => 1_000,
    };
    // A member first, so that what the first one of all takes is there.
    let pings = world.ping(&["--count", "20", "--interval", "1ms"])?.finish()?;
    expect(pings.all_came(20), "a member was not served before")?;
    let before = world.listener_holds()?;
    let flood = world.flood(strangers)?;
    let (mut rounds, mut worst, mut most) = (0, Duration::ZERO, before);
    loop {
        // A new connection each time: members get in, too.
        let pings = world.ping(&["--count", "20", "--interval", "1ms", "--timeout", "10s"])?;
        most = most.most(world.listener_holds()?);
        let pings = pings.finish()?;
        expect(pings.all_came(20), "a member was not served")?;
        worst = worst.max(pings.all_within());
        most = most.most(world.listener_holds()?);
        rounds += 1;
        if flood.is_over()? {
            break;
        }
    }
    let made = flood.finish()?;
    let resident = most.resident.saturating_sub(before.resident);
    let descriptors = most.descriptors.saturating_sub(before.descriptors);
    println!(
        "        {made} strangers, {rounds} members meanwhile, worst {worst:?}; {} KiB and \
         {descriptors} descriptors more than before",
        resident >> 10
    );
    // Over QUIC the listener gives no answer while too much is left of those before; whoever gets none
    // for half a minute has not been one of them.
    let least = if world.over() == Over::Quic { strangers / 2 } else { strangers * 99 / 100 };
    expect(made >= u64::from(least), "the flood was no flood")?;
    expect(worst < Duration::from_secs(5), "members had to wait too long")?;
    // Over QUIC they share one socket.
    let is_felt = world.over() == Over::Quic || descriptors > 10;
    expect(is_felt, "no stranger was seen inside: this scene is blind")?;
    expect(resident <= FLOOD_RESIDENT, "strangers fill the listener's memory")?;
    expect(descriptors <= FLOOD_DESCRIPTORS, "strangers take the listener's descriptors")
}

fn killed_and_back(world: &mut World) -> Result<()> {
    // TCP says that the peer is gone; QUIC says nothing, and an answer has its time.
    let patience = if world.over() == Over::Quic { "2s" } else { "30s" };
    let pinging = world.ping(&["--count", "10000", "--interval", "5ms", "--timeout", patience])?;
    thread::sleep(Duration::from_millis(500));
    let killed = Instant::now();
    world.kill_listener()?;
    let pings: Pings = pinging.ended()?;
    expect(!pings.succeeded(), "it ended well although the peer is dead")?;
    expect(pings.came() > 0, "it did not even begin")?;
    expect(killed.elapsed() < Duration::from_secs(10), "it was told too late")?;
    world.restart_listener()?;
    let pings =
        world.ping(&["--count", "20", "--interval", "1ms", "--timeout", "10s"])?.finish()?;
    expect(pings.all_came(20), "the one that came back does not serve")
}
