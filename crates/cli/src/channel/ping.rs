//! `mainstay channel ping`.

use super::{
    echo::{Latencies, echo, time},
    wire::{Identity, Over},
};
use crate::{
    error::{CliError, Outcome, Result},
    interrupt::Interrupt,
    output::Output,
    size::parse_duration,
};
use mainstay::channel::{
    Bounds, Bytes, Channel, NodeId,
    net::{self, Listener},
    shm,
};
use serde::Serialize;
use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// See whether a node can be reached, and how fast: there and back, again and again
///
/// One end listens and sends everything back; the other connects and measures. With --over shm,
/// ADDRESS is the path of a file that the listening end makes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  head -c 32 /dev/urandom > secret
  mainstay channel ping --listen 127.0.0.1:7400 --node 1 --secret-file secret &
  mainstay channel ping 127.0.0.1:7400 --node 2 --secret-file secret --count 3
  mainstay channel ping --listen /tmp/calls.channel --over shm --node 1 &
  mainstay channel ping /tmp/calls.channel --over shm --node 2 --interval 0s --count 1000")]
pub(crate) struct Args {
    /// Where the other end listens
    #[arg(required_unless_present = "listen")]
    address: Option<String>,
    /// Listen here, and send back whatever comes
    #[arg(long, value_name = "ADDRESS", conflicts_with = "address")]
    listen: Option<String>,
    /// Over what
    #[arg(long, value_enum, default_value = "tcp")]
    over: Over,
    #[command(flatten)]
    identity: Identity,
    /// How many messages
    #[arg(long, value_name = "N", default_value_t = 5)]
    count: u64,
    /// How long between two
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1s")]
    interval: Duration,
    /// How long to wait for one to come back
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5s")]
    timeout: Duration,
    /// How long a message is, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: usize,
}

#[derive(Serialize)]
struct Line {
    number: u64,
    bytes: usize,
    rtt_ns: u64,
}

#[derive(Serialize)]
struct Summary {
    sent: u64,
    received: u64,
    rtt_p50_ns: u64,
    rtt_max_ns: u64,
}

#[derive(Serialize)]
struct Listening {
    listening: String,
}

#[derive(Serialize)]
struct Visitor {
    node: u64,
    address: Option<String>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let interrupt = Interrupt::watch();
    match (&args.listen, args.address.as_deref().unwrap_or_default()) {
        (Some(place), _) => listen(args, place, &interrupt, out),
        (None, place) => ping(args, place, &interrupt, out),
    }
}

fn listen(args: &Args, place: &str, interrupt: &Interrupt, out: &mut Output) -> Result<Outcome> {
    const LOOK: Duration = Duration::from_millis(200);
    if args.over == Over::Shm {
        let path = Path::new(place);
        let mut offer = shm::create(path, NodeId(args.identity.node), Bounds::default())?;
        say(out, &Listening { listening: place.to_owned() }, format!("listening at {place}"))?;
        let mut served = Ok(());
        while !interrupt.is_asked() {
            if let Some(channel) = offer.accept(LOOK)? {
                served = visitor(&channel, out);
                echo(&channel, || !interrupt.is_asked());
                break;
            }
        }
        // One file is for two processes once.
        let hint = "remove it by hand";
        std::fs::remove_file(path).map_err(CliError::file(path, "remove", hint))?;
        served?;
        return Ok(Outcome::Fine);
    }
    let (wire, settings) = args.identity.on(args.over)?;
    let listener = Listener::bind(&wire, place, settings)?;
    let place = listener.address().to_string();
    say(out, &Listening { listening: place.clone() }, format!("listening at {place}"))?;
    let interrupted = Arc::new(std::sync::atomic::AtomicBool::new(false));
    while !interrupt.is_asked() {
        if let Some(channel) = listener.accept(LOOK)? {
            visitor(&channel, out)?;
            let interrupted = Arc::clone(&interrupted);
            thread::spawn(move || {
                echo(&channel, || !interrupted.load(std::sync::atomic::Ordering::Relaxed));
            });
        }
    }
    interrupted.store(true, std::sync::atomic::Ordering::Relaxed);
    Ok(Outcome::Fine)
}

fn visitor(channel: &dyn Channel, out: &mut Output) -> Result<()> {
    let peer = channel.peer();
    let address = peer.address.map(|address| address.to_string());
    let from = address.clone().map(|address| format!(" from {address}")).unwrap_or_default();
    say(out, &Visitor { node: peer.node.0, address }, format!("node {}{from}", peer.node))
}

fn ping(args: &Args, place: &str, interrupt: &Interrupt, out: &mut Output) -> Result<Outcome> {
    let channel: Arc<dyn Channel> = if args.over == Over::Shm {
        Arc::new(shm::join(Path::new(place), NodeId(args.identity.node))?)
    } else {
        let (wire, settings) = args.identity.on(args.over)?;
        Arc::new(net::connect(&wire, place, &settings)?)
    };
    let mut rtts_ns = Vec::new();
    let mut sent = 0;
    for number in 1..=args.count {
        if interrupt.is_asked() {
            break;
        }
        let message = Bytes::from(vec![(number % 251) as u8; args.size]);
        let start = Instant::now();
        channel.send(message.clone())?;
        sent = number;
        let answer = channel.receive(args.timeout)?;
        let received = rtts_ns.len() as u64;
        if answer.as_ref() != Some(&message) {
            return Err(CliError::NoAnswer { after: args.timeout, sent, received });
        }
        let rtt_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        rtts_ns.push(rtt_ns);
        let line = Line { number, bytes: args.size, rtt_ns };
        say(out, &line, format!("{number}: {} bytes back in {}", args.size, time(rtt_ns)))?;
        if number < args.count {
            thread::sleep(args.interval);
        }
    }
    channel.close();
    let received = rtts_ns.len() as u64;
    let latencies = Latencies::of(rtts_ns);
    let (rtt_p50_ns, rtt_max_ns) = (latencies.per_mille(500), latencies.per_mille(1_000));
    let text = format!(
        "{received} of {sent} came back; half of them within {}, all within {}",
        time(rtt_p50_ns),
        time(rtt_max_ns)
    );
    say(out, &Summary { sent, received, rtt_p50_ns, rtt_max_ns }, text)?;
    Ok(Outcome::Fine)
}

/// One line, at once: somebody may be waiting for it.
fn say(out: &mut Output, json: &impl Serialize, text: String) -> Result<()> {
    if out.json {
        out.json_line(json)?;
    } else {
        out.line(&text)?;
    }
    out.flush()
}
